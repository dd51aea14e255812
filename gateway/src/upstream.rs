//! The servers, as a thread of the gateway sees them: which model they have, whether they are there, and scores.
//!
//! Each thread has a client of its own, with its own connections, so that scoring crosses no thread of the gateway.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use disrust_client::{Client, Error, ModelInfo, Scores, ServerCheck, ServerState};
use tokio::time::sleep;

use crate::codec::{DATATYPE, Form, write_string};
use crate::limits::{PROBE_INTERVAL, PROBE_TIME_MAX};
use crate::settings::Settings;

/// A model, as requests are held to it and as clients are told of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Model {
    /// What it is called.
    pub name: String,
    /// As it is written everywhere: 16 hexadecimal digits.
    pub version: String,
    /// What it takes and gives.
    pub form: Form,
    /// The beginning of each answer: the members of a JSON object that tell of it, each with a comma.
    pub answer_head: String,
    /// What `GET /v2/models/NAME` answers.
    pub metadata: String,
}

/// See the module.
pub struct Upstream {
    client: Client,
    known: RefCell<Known>,
}

/// What was last heard.
struct Known {
    names: (String, String),
    servers: Vec<Server>,
    model: Option<Rc<Model>>,
}

/// A server, as it was last heard of.
#[derive(Debug, Clone, PartialEq)]
struct Server {
    name: String,
    is_connected: bool,
    /// It is connected and has not answered a hello in time.
    is_hung: bool,
    /// What it said when it was connected.
    greeted: Option<ModelInfo>,
    /// What it said last.
    model: Option<ModelInfo>,
    /// What last went wrong with it.
    error: Option<Error>,
}

impl Upstream {
    /// Begins to connect, and waits for nobody. It needs a tokio runtime.
    ///
    /// # Errors
    /// An address is none.
    pub fn connect(settings: &Settings) -> Result<Upstream, Error> {
        let client = Client::builder(settings.server.0.iter().cloned()).timeout(settings.request_timeout.0).build()?;
        let names = (settings.input_name.clone(), settings.output_name.clone());
        let known = RefCell::new(Known { names, servers: Vec::new(), model: None });
        Ok(Upstream { client, known })
    }

    /// The model that the servers have, if one has ever told.
    pub fn model(&self) -> Option<Rc<Model>> {
        self.known.borrow().model.clone()
    }

    /// Whether a server is there that has told of its model.
    pub fn is_ready(&self) -> bool {
        self.known.borrow().servers.iter().any(Server::is_up)
    }

    /// Each server's address, and whether it is there.
    pub fn servers(&self) -> Vec<(String, bool)> {
        self.known.borrow().servers.iter().map(|server| (server.name.clone(), server.is_up())).collect()
    }

    /// Scores of rows of so many features.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn predict(&self, rows: &[f32], features: usize, within: Duration) -> Result<Scores, Error> {
        self.client.predict_within(rows, features, within).await
    }

    /// Follows what becomes of the servers, for ever: connections as they come and go, and what each answers to a hello every
    /// [`PROBE_INTERVAL`], so that a new model and a server that hangs are noticed. One of all threads logs it.
    pub async fn follow(&self, logs: bool) {
        let mut watch = self.client.watch();
        self.take(logs, |known| known.take_states(&watch.borrow_and_update()));
        loop {
            let mut probe = pin!(async {
                sleep(PROBE_INTERVAL).await;
                self.client.check(PROBE_TIME_MAX).await
            });
            loop {
                tokio::select! {
                    changed = watch.changed() => match changed {
                        Ok(()) => self.take(logs, |known| known.take_states(&watch.borrow_and_update())),
                        Err(_) => return,
                    },
                    checks = &mut probe => {
                        self.take(logs, |known| known.take_checks(&checks));
                        break;
                    }
                }
            }
        }
    }

    fn take(&self, logs: bool, news: impl FnOnce(&mut Known)) {
        let mut known = self.known.borrow_mut();
        let before = logs.then(|| known.servers.clone());
        news(&mut known);
        known.choose_model();
        for server in before.iter().flat_map(|before| known.servers.iter().filter(|server| !server.is_told(before))) {
            server.log();
        }
    }
}

impl Known {
    fn take_states(&mut self, states: &[ServerState]) {
        let servers = states.iter().map(|state| {
            let name = state.endpoint.as_ref().unwrap_or(&state.address);
            let before = self.servers.iter().find(|server| server.name == *name);
            let goes_on = before.filter(|server| server.is_connected && server.greeted == state.model);
            Server {
                name: name.clone(),
                is_connected: state.is_connected(),
                is_hung: goes_on.is_some_and(|server| server.is_hung) && state.is_connected(),
                greeted: state.model.clone(),
                model: goes_on.map_or(&state.model, |server| &server.model).clone(),
                error: state.last_error.clone(),
            }
        });
        self.servers = servers.collect();
    }

    fn take_checks(&mut self, checks: &[ServerCheck]) {
        for check in checks {
            let name = check.endpoint.as_ref().unwrap_or(&check.address);
            let Some(server) = self.servers.iter_mut().find(|server| server.name == *name) else { continue };
            // Other errors go with a connection that is lost, which is told by itself.
            server.is_hung = server.is_connected && matches!(check.model, Err(Error::Deadline { .. }));
            if let Ok(Some(model)) = &check.model {
                server.model = Some(model.clone());
            }
        }
    }

    /// That of a server that is there; or of one that was.
    fn choose_model(&mut self) {
        let up = self.servers.iter().filter(|server| server.is_up());
        let Some(info) = up.chain(&self.servers).find_map(|server| server.model.as_ref()) else { return };
        let version = format!("{:016x}", info.version);
        let form = Form {
            features: info.feature_dim,
            outputs: info.outputs,
            input_name: self.names.0.clone(),
            output_name: self.names.1.clone(),
        };
        let is_same = |model: &Rc<Model>| model.name == info.name && model.version == version && model.form == form;
        if !self.model.as_ref().is_some_and(is_same) {
            self.model = Some(Rc::new(Model::new(info.name.clone(), version, form)));
        }
    }
}

impl Server {
    fn is_up(&self) -> bool {
        self.is_connected && !self.is_hung && self.model.is_some()
    }

    /// Whether all that is worth a line was so before.
    fn is_told(&self, before: &[Server]) -> bool {
        let is_new = |server: &&Server| server.name == self.name;
        match before.iter().find(is_new) {
            Some(before) if self.is_up() || before.is_up() => {
                before.is_up() == self.is_up() && before.model == self.model
            }
            // Of one that is not there, the first reason is told.
            Some(before) => before.is_connected == self.is_connected && before.error.is_some() == self.error.is_some(),
            None => !self.is_up() && self.error.is_none(),
        }
    }

    fn log(&self) {
        let Server { name, is_connected, is_hung, model, error, .. } = self;
        match (model, error) {
            (Some(ModelInfo { name: model, version, feature_dim, outputs, .. }), _) if self.is_up() => tracing::info!(
                "server {name}: ready, model {model}, version {version:016x}, {feature_dim} features, {outputs} outputs"
            ),
            (Some(_), _) if *is_hung => {
                tracing::warn!("server {name}: not ready, it has not answered for {PROBE_TIME_MAX:?}")
            }
            (None, _) if *is_connected => {
                tracing::warn!(
                    "server {name}: not used, it does not tell which model it has: it is older than this gateway"
                );
            }
            (_, Some(error)) => tracing::warn!("server {name}: not there: {error}"),
            (_, None) => tracing::warn!("server {name}: not there"),
        }
    }
}

impl Model {
    fn new(name: String, version: String, form: Form) -> Model {
        let quoted = |text: &str| {
            let mut bytes = Vec::new();
            write_string(text, &mut bytes);
            String::from_utf8(bytes).expect("JSON is in UTF-8")
        };
        let (name_text, version_text) = (quoted(&name), quoted(&version));
        let (input, output) = (quoted(&form.input_name), quoted(&form.output_name));
        let Form { features, outputs, .. } = form;
        let width = if outputs > 1 { format!(",{outputs}") } else { String::new() };
        let answer_head = format!("\"model_name\":{name_text},\"model_version\":{version_text},");
        let metadata = format!(
            "{{\"name\":{name_text},\"versions\":[{version_text}],\"platform\":\"disrust\",\"inputs\":[{{\"name\":{input},\
             \"datatype\":\"{DATATYPE}\",\"shape\":[-1,{features}]}}],\"outputs\":[{{\"name\":{output},\"datatype\":\"{DATATYPE}\",\
             \"shape\":[-1{width}]}}]}}"
        );
        Model { name, version, form, answer_head, metadata }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_json_whatever_the_names_are() {
        let names = "a \"b\" \\ ü\n".to_owned();
        for (outputs, shape) in [(1, serde_json::json!([-1])), (3, serde_json::json!([-1, 3]))] {
            let form = Form { features: 16, outputs, input_name: names.clone(), output_name: "y".to_owned() };
            let model = Model::new(names.clone(), format!("{:016x}", 255), form);
            let metadata: serde_json::Value = serde_json::from_str(&model.metadata).expect("JSON");
            assert_eq!(
                metadata,
                serde_json::json!({
                    "name": names, "versions": ["00000000000000ff"], "platform": "disrust",
                    "inputs": [{"name": names, "datatype": "FP32", "shape": [-1, 16]}],
                    "outputs": [{"name": "y", "datatype": "FP32", "shape": shape}],
                })
            );
        }
    }
}
