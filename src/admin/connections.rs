//! Connections to the admin port: few and short. Who asks often keeps its own, while all together do not ask too often.
//!
//! What is answered is [`super::pages`]'.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Ready, poll_fn, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWrite as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, spawn_local, yield_now};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::pages;
use super::watch::SharedWatch;
use crate::limits::{
    ADMIN_ACCEPTS_A_TICK, ADMIN_CONNECTION_MAX, ADMIN_CONNECTIONS_MAX, ADMIN_HEAD_BYTES_MAX, ADMIN_HEAD_MAX,
    ADMIN_KEPT_A_TICK, ADMIN_TICK,
};

/// What a peer still sends when it has been answered is read away for this long, and so much of it: closing on it would reset the
/// connection, and the answer might be lost.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 2 * 1024 * 1024;

/// So much in each [`ADMIN_TICK`].
struct Budget {
    spent: usize,
    tick_ends_at: Instant,
}

impl Budget {
    fn new() -> Budget {
        Budget { spent: 0, tick_ends_at: Instant::now() }
    }

    /// Spends one of `most` in a tick; says when the next one begins if that was the last.
    fn spend(&mut self, most: usize) -> Option<Instant> {
        let now = Instant::now();
        if now >= self.tick_ends_at {
            *self = Budget { spent: 0, tick_ends_at: now + ADMIN_TICK };
        }
        self.spent += 1;
        (self.spent >= most).then_some(self.tick_ends_at)
    }
}

/// Accepts and serves.
pub(super) async fn accept_without_end(listener: TcpListener, watch: SharedWatch) {
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(ADMIN_CONNECTIONS_MAX);
    let mut accepts = Budget::new();
    let kept = Rc::new(RefCell::new(Budget::new()));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Descriptors have run out, or the peer has gone.
            sleep(ADMIN_TICK).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() == ADMIN_CONNECTIONS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        let pages = Pages { watch: watch.clone(), kept: kept.clone() };
        open.push_back(spawn_local(serve(stream, pages)).abort_handle());
        // So that it is served, if its request is there, before others can end it.
        yield_now().await;
        if let Some(tick_ends_at) = accepts.spend(ADMIN_ACCEPTS_A_TICK) {
            sleep_until(tick_ends_at).await;
        }
    }
}

async fn serve(stream: TcpStream, pages: Pages) {
    let serve = async {
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(ADMIN_HEAD_MAX)
            .max_buf_size(ADMIN_HEAD_BYTES_MAX)
            // Who has sent its request and ends its side is answered.
            .half_close(true)
            .serve_connection(TokioIo::new(stream), pages);
        // Its peer has broken the protocol or the connection, which is its own affair; what there is to answer was sent.
        let _broken = poll_fn(|context| connection.poll_without_shutdown(context)).await;
        end(connection.into_parts().io.into_inner()).await;
    };
    // Whoever is not done by then is cut.
    let _late = timeout(ADMIN_CONNECTION_MAX, serve).await;
}

/// Half-closes, and reads away what still comes.
async fn end(mut stream: TcpStream) {
    let _broken = poll_fn(|context| Pin::new(&mut stream).poll_shutdown(context)).await;
    let read_away = async {
        let (mut rest, mut buffer) = (LINGER_BYTES_MAX, [0; 4096]);
        while rest > 0 && stream.readable().await.is_ok() {
            match stream.try_read(&mut buffer) {
                Ok(0) => return,
                Ok(bytes) => rest = rest.saturating_sub(bytes),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    };
    let _late = timeout(LINGER, read_away).await;
}

/// The pages, as hyper asks for them.
struct Pages {
    watch: SharedWatch,
    /// Requests after which their connections went on, of all connections.
    kept: Rc<RefCell<Budget>>,
}

impl Service<Request<Incoming>> for Pages {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Self::Error>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let has_body = !request.body().is_end_stream();
        let mut answer = pages::answer(&mut self.watch.borrow_mut(), request.method(), request.uri(), has_body);
        // Beyond the budget each request takes a connection of its own, and those are accepted so many a tick.
        if has_body || self.kept.borrow_mut().spend(ADMIN_KEPT_A_TICK).is_some() {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        ready(Ok(answer))
    }
}
