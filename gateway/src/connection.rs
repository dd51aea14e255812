//! One connection, from its socket to its end.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::life::{End, Life, Stage};
use crate::limits::{BUFFER_BYTES, HEAD_BYTES_MAX, HEAD_FIELDS_MAX, LINGER, LINGER_BYTES_MAX};
use crate::service::Service;
use crate::stream::WatchedStream;

/// What a connection that there is no place for is told.
const NO_PLACE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 62\r\n\
    Connection: close\r\n\r\n{\"error\":\"all connections are in use (--max-connections)      \"}";

/// Serves a connection to its end.
pub async fn serve(socket: TcpStream, life: Rc<Life>, service: Rc<Service>) {
    let answer = {
        let life = Rc::clone(&life);
        move |request: Request<Incoming>| {
            let (life, service) = (Rc::clone(&life), Rc::clone(&service));
            // In a box, because hyper gives the socket back only of what can be moved.
            Box::pin(async move {
                life.enter(Stage::Busy);
                let answer = service.answer(request).await;
                life.enter(Stage::Idle);
                Ok::<_, Infallible>(answer)
            })
        }
    };
    let mut connection = http1::Builder::new()
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEAD_FIELDS_MAX)
        .max_buf_size(BUFFER_BYTES)
        // Who has sent its request and ends its side is answered.
        .half_close(true)
        .serve_connection(TokioIo::new(WatchedStream::new(socket, Rc::clone(&life))), service_fn(answer));
    let mut is_ending = false;
    let is_cut = poll_fn(|context| {
        let told = life.told(context.waker());
        if told == End::Cut {
            return Poll::Ready(true);
        }
        if told == End::InOrder && !is_ending {
            is_ending = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        // Its peer has broken the protocol or the connection, which is its own affair; what there is to answer was sent.
        connection.poll_without_shutdown(context).map(|_broken| false)
    });
    if is_cut.await {
        return;
    }
    life.enter(Stage::Over);
    let linger = linger(connection.into_parts().io.into_inner().into_socket());
    let mut linger = pin!(timeout(LINGER, linger));
    // Whoever is not done by then is cut.
    poll_fn(|context| match life.told(context.waker()) {
        End::Cut => Poll::Ready(()),
        End::No | End::InOrder => linger.as_mut().poll(context).map(|_late| ()),
    })
    .await;
}

/// Half-closes, and reads away what still comes: closing on it would reset the connection, and the answer might be lost.
async fn linger(mut socket: TcpStream) {
    let _broken = poll_fn(|context| Pin::new(&mut socket).poll_shutdown(context)).await;
    let (mut rest, mut buffer) = (LINGER_BYTES_MAX, [0; 4096]);
    while rest > 0 && socket.readable().await.is_ok() {
        match socket.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(bytes) => rest = rest.saturating_sub(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Turns a connection away. What it has sent is not read; so it may not hear this.
pub fn refuse(socket: &std::net::TcpStream) {
    use std::io::Write as _;
    let mut socket = socket;
    let _unheard = socket.write_all(NO_PLACE);
    let _ended = socket.shutdown(std::net::Shutdown::Write);
}
