//! What the gateway answers: the journey of a request from its head to its answer.
#![forbid(unsafe_code)]

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use crate::answers::{self, Answer, Failure, json};
use crate::body;
use crate::codec::{Encoding, Form, InferRequest, read_request, write_answer};
use crate::limits::{INLINE_BYTES_MAX, INLINE_SCORES_MAX};
use crate::memory::Reservation;
use crate::metrics;
use crate::route::{ModelPath, Route};
use crate::shared::{Phase, Shared};
use crate::upstream::{Model, Upstream};

/// What the gateway is.
const SERVER: &str = concat!(
    "{\"name\":\"disrust-gateway\",\"version\":\"",
    env!("CARGO_PKG_VERSION"),
    "\",\"extensions\":[\"binary_tensor_data\"]}"
);

/// What a thread answers with.
pub struct Service {
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// The thread's client of the servers.
    pub upstream: Upstream,
}

impl Service {
    /// Answers a request, whatever it is.
    pub async fn answer(self: Rc<Self>, request: Request<Incoming>) -> Answer {
        let counts = &self.shared.metrics;
        counts.requests_in_flight.fetch_add(1, Relaxed);
        // What is dropped half-way, with its connection, is no longer under way either.
        let _under_way = UnderWay(&self.shared);
        let (head, body) = request.into_parts();
        let route = Route::of(head.uri.path());
        let endpoint = route.endpoint();
        let outcome = match (&route, &head.method) {
            (Route::Infer(path), &Method::POST) => self.infer(path, &head.headers, body).await,
            (Route::Infer(_), _) => Err(wrong_method("POST")),
            (Route::Unknown, _) => Err(unknown_path(head.uri.path())),
            (_, &Method::GET | &Method::HEAD) => self.tell(&route),
            (_, _) => Err(wrong_method("GET, HEAD")),
        };
        let mut answer = outcome.unwrap_or_else(|failure| failure.answer());
        if self.shared.phase() == Phase::Draining {
            answers::close_after(&mut answer);
        }
        counts.answered(endpoint, answer.status().as_u16());
        counts.answer_bytes.fetch_add(hyper::body::Body::size_hint(answer.body()).lower(), Relaxed);
        answer
    }

    /// Scores rows.
    async fn infer(&self, path: &ModelPath<'_>, head: &hyper::HeaderMap, body: Incoming) -> Result<Answer, Failure> {
        let begun_at = Instant::now();
        let json_bytes = body::check_head(head)?;
        let model = self.model(path)?;
        let (shared, counts) = (&self.shared, &self.shared.metrics);
        let timeout = shared.settings.request_timeout.0;
        let mut memory = shared.memory.reservation();
        let body = body::receive(body, shared.settings.max_body.0, begun_at + timeout, &mut memory).await?;
        counts.body_bytes.fetch_add(body.len() as u64, Relaxed);

        let request = self.read(&model, json_bytes, body, &mut memory).await?;
        let asked_at = Instant::now();
        let left = timeout.saturating_sub(asked_at - begun_at);
        let left = request.timeout.map_or(left, |own| left.min(own.saturating_sub(asked_at - begun_at)));
        let (scores, outputs) = self.score(&model, &request, left, &mut memory).await?;
        let answered_at = Instant::now();

        let row_count = request.row_count as u64;
        let (name, head) = (&model.form.output_name, &model.answer_head);
        let encoded = if scores.len() <= INLINE_SCORES_MAX || request.encoding == Encoding::Binary {
            write_answer(name, outputs, head, &request, &scores)
        } else {
            let (name, head) = (name.clone(), head.clone());
            beside(move || write_answer(&name, outputs, &head, &request, &scores)).await?
        };
        counts.rows.fetch_add(row_count, Relaxed);
        counts.server_time.add(answered_at - asked_at);
        counts.request_time.add(begun_at.elapsed());
        Ok(answers::scores(encoded, memory))
    }

    /// What a request's body asks for.
    async fn read(
        &self,
        model: &Rc<Model>,
        json_bytes: Option<usize>,
        body: Bytes,
        memory: &mut Reservation,
    ) -> Result<InferRequest, Failure> {
        let text_bytes = json_bytes.unwrap_or(body.len()).min(body.len());
        // The body and its rows: of each byte behind the text one, and of each number in it, which takes two letters or more, four.
        memory.set(2 * body.len() + text_bytes)?;
        let request = if text_bytes <= INLINE_BYTES_MAX {
            read_request(&model.form, json_bytes, &body)?
        } else {
            let form = model.form.clone();
            beside(move || read_request(&form, json_bytes, &body)).await??
        };
        Ok(request)
    }

    /// The rows' scores, and how many each row has.
    async fn score(
        &self,
        model: &Model,
        request: &InferRequest,
        within: Duration,
        memory: &mut Reservation,
    ) -> Result<(Vec<f32>, usize), Failure> {
        /// A score takes four bytes, and as many again or up to 18 in the answer.
        const BYTES_OF_A_SCORE: [usize; 2] = [8, 22];
        /// A byte of the id takes itself, and up to six in the answer, as an escape.
        const BYTES_OF_AN_ID_BYTE: usize = 7;
        let Form { features, outputs, .. } = model.form;
        let answer_bytes = BYTES_OF_A_SCORE[usize::from(request.encoding == Encoding::Json)]
            .saturating_mul(request.row_count)
            .saturating_mul(outputs);
        let id_bytes = BYTES_OF_AN_ID_BYTE * request.id.as_ref().map_or(0, String::len);
        memory.set(answer_bytes.saturating_add(4 * request.rows.len() + id_bytes))?;
        if request.row_count == 0 {
            return Ok((Vec::new(), outputs));
        }
        let scores = self.upstream.predict(&request.rows, features, within).await?;
        // A server whose model changes between the two would be answered by the shape of the other.
        if scores.values.len() != request.row_count * scores.outputs {
            return Err(Failure::new(StatusCode::BAD_GATEWAY, "the server's answer has not a score for each row"));
        }
        Ok((scores.values, scores.outputs))
    }

    /// The model that a path names.
    fn model(&self, path: &ModelPath<'_>) -> Result<Rc<Model>, Failure> {
        let Some(model) = self.upstream.model() else {
            return Err(Failure::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "no server has told which model it has yet; perhaps none of --server runs",
            ));
        };
        if path.name != model.name {
            let why = format!("there is no model {:?}; the servers have {:?}", path.name, model.name);
            return Err(Failure::new(StatusCode::NOT_FOUND, why));
        }
        if let Some(version) = path.version.as_ref().filter(|version| **version != model.version) {
            let why = format!("there is no version {version:?} of {:?}; the servers have {}", path.name, model.version);
            return Err(Failure::new(StatusCode::NOT_FOUND, why));
        }
        Ok(model)
    }

    /// What needs no server to be asked.
    fn tell(&self, route: &Route<'_>) -> Result<Answer, Failure> {
        match route {
            Route::Live => Ok(json(StatusCode::OK, "{\"live\":true}")),
            Route::Ready => self.check_ready().map(|()| json(StatusCode::OK, "{\"ready\":true}")),
            Route::ModelReady(path) => {
                let model = self.model(path)?;
                self.check_ready()?;
                let name = model.answer_head.split_once(",\"model_version\"").map_or("", |(name, _)| name);
                Ok(json(StatusCode::OK, format!("{{{},\"ready\":true}}", name.replacen("model_name", "name", 1))))
            }
            Route::Model(path) => Ok(json(StatusCode::OK, self.model(path)?.metadata.clone())),
            Route::Server => Ok(json(StatusCode::OK, SERVER)),
            Route::Metrics => Ok(answers::text(metrics::MEDIA_TYPE, self.shared.metrics_text(&self.upstream))),
            Route::Infer(_) | Route::Unknown => unreachable!("they are answered elsewhere"),
        }
    }

    fn check_ready(&self) -> Result<(), Failure> {
        let not = |why| Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, why));
        match self.shared.phase() {
            Phase::Leaving => not("the gateway is about to stop"),
            Phase::Draining => not("the gateway drains"),
            Phase::Serving if !self.upstream.is_ready() => not("no server is connected"),
            Phase::Serving => Ok(()),
        }
    }
}

/// Does what takes long on a thread beside.
async fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let failed =
        |_| Failure::new(StatusCode::INTERNAL_SERVER_ERROR, "the gateway failed on this request; its log says why");
    spawn_blocking(work).await.map_err(failed)
}

fn wrong_method(allowed: &'static str) -> Failure {
    let why = format!("this path takes {allowed}");
    Failure { allowed: Some(allowed), ..Failure::new(StatusCode::METHOD_NOT_ALLOWED, why) }
}

fn unknown_path(path: &str) -> Failure {
    /// A head may be long.
    const LETTERS_MAX: usize = 100;
    let path: String = path.chars().take(LETTERS_MAX).collect();
    let why = format!(
        "there is no {path}; there are /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME[/versions/V] with /ready and /infer \
         behind it, and /metrics"
    );
    Failure::new(StatusCode::NOT_FOUND, why)
}

/// A request that is under way.
struct UnderWay<'a>(&'a Shared);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.metrics.requests_in_flight.fetch_sub(1, Relaxed);
    }
}
