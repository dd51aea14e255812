//! The afternoon peer: what a good engineer writes with tokio in an afternoon, and what users have today.
//!
//! The multi-threaded runtime with its defaults; a task for each connection, which receives, answers everything that
//! is whole, and sends all of it with one write. Nothing is tuned beyond that: it is a peer, not a limit.
//!
//! Invariants: a task receives only when it has sent everything, so a slow reader holds up itself alone, and holds no
//! more memory than the answers to one receive.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::num::NonZeroU16;
use std::os::unix::net::UnixStream;

use disrust_protocol::RequestLayout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};

use super::responder::{Framing, answer_all};
use super::{FloorError, accept_failed};

/// Bytes that are received at once. Larger: more memory for each connection. Smaller: more system calls.
const RECEIVE_BYTES: usize = 16 * 1024;

/// The server.
pub struct Server {
    runtime: Runtime,
    listener: TcpListener,
    layout: RequestLayout,
    stop: UnixStream,
}

impl Server {
    /// A server on `listener`, which does not block, with so many threads (by default as many as there are CPUs), until
    /// `stop`, which does not block either, is readable.
    pub fn new(
        listener: TcpListener,
        layout: RequestLayout,
        stop: UnixStream,
        threads: Option<NonZeroU16>,
    ) -> Result<Server, FloorError> {
        let mut builder = Builder::new_multi_thread();
        if let Some(threads) = threads {
            builder.worker_threads(threads.get().into());
        }
        let runtime = builder.enable_all().build().map_err(FloorError::system("start the runtime"))?;
        Ok(Server { runtime, listener, layout, stop })
    }

    /// Serves until it is told to stop.
    pub fn run(self) -> Result<(), FloorError> {
        let Server { runtime, listener, layout, stop } = self;
        let accepting = runtime.spawn(accept_all(listener, layout));
        let stop_accepting = accepting.abort_handle();
        runtime.spawn(async move {
            wait_until_readable(stop).await?;
            stop_accepting.abort();
            Ok::<_, io::Error>(())
        });
        match runtime.block_on(accepting) {
            Ok(Err(error)) => Err(error),
            Err(end) if end.is_cancelled() => Ok(()),
            Err(end) => std::panic::resume_unwind(end.into_panic()),
        }
    }
}

async fn wait_until_readable(stream: UnixStream) -> io::Result<()> {
    tokio::net::UnixStream::from_std(stream)?.readable().await
}

async fn accept_all(listener: TcpListener, layout: RequestLayout) -> Result<Infallible, FloorError> {
    let listener = tokio::net::TcpListener::from_std(listener).map_err(FloorError::system("watch the listener"))?;
    loop {
        match listener.accept().await {
            // An error of one connection ends that connection, and is nobody else's.
            Ok((stream, _)) => drop(tokio::spawn(serve(stream, layout))),
            Err(error) => accept_failed(error)?,
        }
    }
}

async fn serve(mut stream: TcpStream, layout: RequestLayout) -> io::Result<()> {
    let mut received = Vec::with_capacity(RECEIVE_BYTES);
    let mut answers = Vec::new();
    // The end of the peer's stream closes the connection at once: it is received only when nothing is owed.
    while stream.read_buf(&mut received).await? > 0 {
        let framing = answer_all(layout, &received, &mut answers);
        stream.write_all(&answers).await?;
        answers.clear();
        match framing {
            Framing::Kept(taken) => drop(received.drain(..taken)),
            Framing::Lost => return end(stream).await,
        }
        received.reserve(RECEIVE_BYTES);
    }
    Ok(())
}

/// Ends our side, then waits for the peer's end: closing with unread input would reset the connection, and the
/// peer could lose answers.
async fn end(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}
