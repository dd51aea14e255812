//! The model file, read again while the server serves.
//!
//! A thread of its own reads, checks, compiles and warms the new model, where a CPU has nothing else to do
//! ([`run_when_idle`]), and hands it to the batch processor, which changes between two steps
//! ([`super::ServerHandle::replace_model`]). The old one is dropped here. What goes wrong leaves the model that serves, and is one
//! line in the log.
//!
//! Invariants: what serves was loaded whole from one reading of the file; a request to reload that comes while one is under way
//! leads to another reading that begins after it.
#![forbid(unsafe_code)]

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Builder;
use std::time::Instant;

use disrust_model::{F32_BYTES, Facts, LoadError, Loaded, Model, PredictError, Rows, guarded_predict, load};
use thiserror::Error;

use super::crew::CrewError;
use super::served::{ServedFile, told_facts};
use super::service_manager;
use crate::admin::Chronicle;
use crate::batch::ReplaceError;
use crate::kernel::{check_address_space, release_free_memory, run_when_idle};

/// Rows that a new model scores before it serves: all of its code has run then, and its memory is there.
const WARMING_ROWS: [usize; 2] = [1, 64];

/// Bytes that a model needs while it is loaded, for each byte of its file, at most.
const BYTES_PER_FILE_BYTE: u64 = 10;

/// Asks for the file to be read again.
#[derive(Clone)]
pub(super) struct Reloader {
    asked: SyncSender<()>,
}

/// Why what the file holds by now does not serve.
#[derive(Debug, Error)]
enum NotTaken {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("its {what} are those of the model that serves, in another order, which its clients do not know of")]
    Reordered { what: &'static str },
    #[error("it does not score a row of zeros: {0}")]
    Fails(#[from] PredictError),
    #[error(
        "there is no address space for it ({bytes} bytes): {source}. The likely cause is a limit on it. Try: a higher ulimit -v"
    )]
    AddressSpace { bytes: usize, source: io::Error },
    #[error(transparent)]
    Replace(#[from] ReplaceError),
}

impl Reloader {
    /// Starts the thread. `replace` puts a new model in the place of the one that serves, and drops that.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        file: ServedFile,
        chronicle: Arc<Chronicle>,
        replace: impl Fn(Box<dyn Model>) -> Result<(), ReplaceError> + Send + 'static,
    ) -> Result<Reloader, CrewError> {
        const NAME: &str = "reloader";
        // One place: who asks while somebody has asked and nothing has begun needs not ask.
        let (asked, requests) = sync_channel(1);
        // Detached: it ends with the last one who can ask.
        let spawned = Builder::new().name(NAME.to_owned()).spawn(move || run(file, &chronicle, &requests, replace));
        spawned.map_err(|source| CrewError::Refused { name: NAME.to_owned(), source })?;
        Ok(Reloader { asked })
    }

    /// Asks, and does not wait.
    pub fn ask(&self) {
        // A full place means that the file will be read after this anyway.
        let _asked_before = self.asked.try_send(());
    }
}

fn run(
    mut file: ServedFile,
    chronicle: &Chronicle,
    requests: &Receiver<()>,
    replace: impl Fn(Box<dyn Model>) -> Result<(), ReplaceError>,
) {
    if let Err(error) = run_when_idle() {
        tracing::warn!(
            "loading a model may delay requests: the system refuses to let it wait for an idle CPU: {error}"
        );
    }
    while requests.recv().is_ok() {
        let begun_at = Instant::now();
        service_manager::reloads();
        match reload(&file, &replace) {
            Ok(facts) => {
                let (name, version) = (&facts.name, facts.version_text());
                let (old, took) = (file.facts.version_text(), begun_at.elapsed().as_millis());
                let kind = if facts.kind == file.facts.kind {
                    String::new()
                } else {
                    format!("; it was {}, and is {}", file.facts.kind, facts.kind)
                };
                tracing::info!("the model {name} is replaced: version {old} -> {version}, loaded in {took} ms{kind}");
                chronicle.model_replaced(told_facts(&facts));
                service_manager::has_reloaded(&format!("serving the model {name} of version {version}"));
                file.facts = facts;
            }
            Err(error) => {
                let (name, version) = (&file.facts.name, file.facts.version_text());
                tracing::warn!("the new model is not taken, {name} of version {version} goes on serving: {error}");
                chronicle.model_not_taken(&error.to_string());
                service_manager::has_reloaded(&format!(
                    "serving the model {name} of version {version}; a new one is not taken: {error}"
                ));
            }
        }
        // What the old model held, or the one that was not taken.
        release_free_memory();
    }
}

/// Puts what the file holds by now in the place of the model that serves.
fn reload(file: &ServedFile, replace: &impl Fn(Box<dyn Model>) -> Result<(), ReplaceError>) -> Result<Facts, NotTaken> {
    check_memory(file)?;
    let Loaded { mut model, facts } = load(&file.path, &file.options)?;
    for (what, old, new) in [
        ("features", &file.facts.feature_names, &facts.feature_names),
        ("outputs", &file.facts.outputs, &facts.outputs),
    ] {
        if is_reordered(old, new) {
            return Err(NotTaken::Reordered { what });
        }
    }
    warm(&mut *model)?;
    replace(model)?;
    Ok(facts)
}

/// A process that runs out of address space ends. So it is not begun if there may be too little, as far as that can be known.
fn check_memory(file: &ServedFile) -> Result<(), NotTaken> {
    // What can't be asked can't be read either, which is said then.
    let file_bytes = std::fs::metadata(&file.path).map_or(0, |metadata| metadata.len());
    let bytes = usize::try_from(file_bytes.saturating_mul(BYTES_PER_FILE_BYTE)).unwrap_or(usize::MAX);
    match bytes {
        0 => Ok(()),
        bytes => check_address_space(bytes).map_err(|source| NotTaken::AddressSpace { bytes, source }),
    }
}

/// The same names in another order: rows or answers would be taken for others.
fn is_reordered(old: &[String], new: &[String]) -> bool {
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort_unstable();
        names
    };
    old != new && sorted(old) == sorted(new)
}

fn warm(model: &mut dyn Model) -> Result<(), PredictError> {
    let (features, outputs) = (model.feature_dim(), model.outputs());
    for count in WARMING_ROWS {
        let (rows, mut scores) = (vec![0; count * features * F32_BYTES], vec![0.0; count * outputs]);
        guarded_predict(model, &Rows::new(&&rows[..], count, features), &mut scores)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// Other names may be meant; the same ones in another order are not.
    #[test]
    fn names_in_another_order_are_seen() {
        let old = names(&["a", "b", "c"]);
        assert!(is_reordered(&old, &names(&["b", "a", "c"])));
        for new in [&["a", "b", "c"][..], &["x", "y", "z"], &["a", "b"], &["a", "a", "b"], &[]] {
            assert!(!is_reordered(&old, &names(new)), "{new:?}");
        }
    }
}
