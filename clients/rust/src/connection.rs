//! One connection: how it is made, who calls over it, and the task that reads and writes it.
//!
//! Callers share it by its [`Line`] under a lock that is held for no longer than a request takes to be copied. One task drives it
//! ([`drive`]): it reads, hands answers out, and writes what has gathered, many callers' requests in one system call.
//!
//! The one atomic, `load`, is written under the line's lock and read by callers that choose a connection without it. Relaxed:
//! it only says which connection is the better choice, and what it guards nothing depends on; the line itself decides what it
//! takes.
#![forbid(unsafe_code)]

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use disrust_protocol::{ErrorCode, HELLO_ANSWER_BYTES_MAX, HelloAnswer, HelloRequest, read_hello_answer};
use tokio::time::{Sleep, sleep_until, timeout};

use crate::address::Endpoint;
use crate::asked::Asked;
use crate::error::Error;
use crate::limits::{CALLERS_HALVED_MIN, READS_PER_TURN, RECEIVE_BYTES};
use crate::line::{Answered, Failed, Line, Taken};
use crate::model::ModelInfo;
use crate::stream::Stream;

/// Of `load`: a call has waited in vain, and nothing was heard since. Such a connection is only chosen where there is no
/// better one.
pub(crate) const LATE: usize = 1 << 62;

/// Of `load`: it takes nothing any more.
pub(crate) const REFUSES: usize = 1 << 63;

/// A connection that callers share.
#[derive(Debug)]
pub(crate) struct Connection {
    pub server: Arc<str>,
    /// Features in a row, as the server says; none if it does not say.
    pub feature_dim: Option<usize>,
    /// Whether it may be asked with a hello.
    pub knows_hello: bool,
    line: Mutex<Line>,
    load: AtomicUsize,
}

impl Connection {
    pub fn new(server: Arc<str>, feature_dim: Option<usize>, knows_hello: bool, line: Line) -> Connection {
        Connection { server, feature_dim, knows_hello, line: Mutex::new(line), load: AtomicUsize::new(0) }
    }

    /// Requests in line, with [`LATE`] and [`REFUSES`].
    pub fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Asks for scores of whole rows, or for a hello, for so long, or until a deadline that has been set before.
    pub fn call<'a>(&'a self, asked: Asked<'a>, timeout: Duration, deadline: Option<Instant>) -> Exchange<'a> {
        Exchange { connection: self, asked, timeout, deadline, key: None }
    }

    /// A panic while it is held is a defect of ours, or a waker's; what the line says still holds then.
    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, line: &Line) {
        let late = if line.is_late() { LATE } else { 0 };
        let refuses = if line.refusal().is_some() { REFUSES } else { 0 };
        self.load.store(line.in_line() | late | refuses, Ordering::Relaxed);
    }
}

/// A call under way on one connection. Dropped, it keeps its places in line, and their answers are dropped.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    connection: &'a Connection,
    asked: Asked<'a>,
    timeout: Duration,
    deadline: Option<Instant>,
    key: Option<usize>,
}

impl Future for Exchange<'_> {
    type Output = Result<Answered, Failed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<Answered, Failed>> {
        let this = self.get_mut();
        let mut line = this.connection.line();
        let key = match this.key {
            Some(key) => key,
            None => line.begin(&this.asked, this.timeout, this.deadline)?,
        };
        this.key = Some(key);
        let outcome = line.poll_call(key, &mut this.asked, context.waker());
        if outcome.is_ready() {
            this.key = None;
        }
        this.connection.publish(&line);
        outcome
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.connection.line().give_up(key);
        }
    }
}

/// Connects and says hello: the stream, and what the server said of its model, or nothing if it knows no hello.
pub(crate) async fn establish(
    endpoint: &Endpoint,
    server: &Arc<str>,
    patience: Duration,
) -> Result<(Stream, Option<ModelInfo>), Error> {
    let lost = |reason: String| Error::Lost { server: Arc::clone(server), reason: reason.into() };
    let greet = async {
        let connect =
            async || Stream::connect(endpoint).await.map_err(|error| lost(format!("it cannot be reached: {error}")));
        let mut stream = connect().await?;
        match hello(&mut stream, server).await? {
            Some(model) => Ok((stream, Some(model))),
            // It took the hello for a request that cannot be, and closes.
            None => Ok((connect().await?, None)),
        }
    };
    let late = |_| lost(format!("it did not take the connection and answer a hello within {patience:?}"));
    timeout(patience, greet).await.map_err(late)?
}

/// Asks a server what it is; nothing, if it knows no hello.
async fn hello(stream: &mut Stream, server: &Arc<str>) -> Result<Option<ModelInfo>, Error> {
    let lost =
        |error: io::Error| Error::Lost { server: Arc::clone(server), reason: format!("at hello: {error}").into() };
    let violation = |violation: String| Error::Protocol { server: Arc::clone(server), violation: violation.into() };
    stream.send_all(&HelloRequest { feature_dim: 0 }.to_bytes()).await.map_err(lost)?;
    let (mut buffer, mut filled) = ([0; HELLO_ANSWER_BYTES_MAX + 1], 0);
    loop {
        let received = stream.receive(&mut buffer[filled..]).await.map_err(lost)?;
        if received == 0 {
            return Err(lost(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")));
        }
        filled += received;
        let Some((answer, length)) = read_hello_answer(&buffer[..filled]).map_err(|bad| violation(bad.to_string()))?
        else {
            continue;
        };
        return match answer {
            HelloAnswer::Server(_) if length < filled => Err(violation("more than an answer to hello".to_owned())),
            HelloAnswer::Server(hello) => ModelInfo::of(hello).map(Some).map_err(violation),
            HelloAnswer::Error(ErrorCode::BadVectorCount) => Ok(None),
            HelloAnswer::Error(ErrorCode::Closing) => Err(Error::Closing),
            HelloAnswer::Error(ErrorCode::Shed) => Err(Error::Overloaded),
            HelloAnswer::Error(code) => Err(violation(format!("hello is answered with: {code}"))),
        };
    }
}

/// Reads and writes a connection until it ends; why it ended. What is still owed then has failed, also if this is dropped.
/// `refused` is called once, when no new calls are to come.
pub(crate) async fn drive(connection: &Connection, stream: &mut Stream, refused: impl FnOnce()) -> Error {
    let mut driver = Driver {
        connection,
        stream,
        refused: Some(refused),
        received: vec![0; RECEIVE_BYTES],
        filled: 0,
        sending: Vec::new(),
        sent: 0,
        expected: 0,
        woken: Vec::new(),
        later: Vec::new(),
        has_run_dry: false,
        timer: Box::pin(sleep_until(Instant::now().into())),
        armed: None,
    };
    poll_fn(|context| driver.poll(context)).await
}

/// What drives a connection.
struct Driver<'a, Refused: FnOnce()> {
    connection: &'a Connection,
    stream: &'a mut Stream,
    /// Until it was called.
    refused: Option<Refused>,
    /// Bytes received, of which `filled` at the front are not yet taken: the beginning of an answer.
    received: Vec<u8>,
    filled: usize,
    /// Requests on their way, of which `sent` bytes are.
    sending: Vec<u8>,
    sent: usize,
    /// Callers that were woken since the last write: so many requests are likely to come.
    expected: usize,
    /// Whom to wake once the line is free.
    woken: Vec<Waker>,
    /// Whom to wake in the next turn.
    later: Vec<Waker>,
    /// All answers that were owed came in this turn.
    has_run_dry: bool,
    timer: Pin<Box<Sleep>>,
    /// For when the timer is set, if the line wants to be looked at.
    armed: Option<Instant>,
}

impl<Refused: FnOnce()> Driver<'_, Refused> {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Error> {
        let outcome = self.turn(context);
        if let Err(reason) = &outcome {
            self.close(reason);
        }
        self.wake(context);
        match outcome {
            Ok(()) => Poll::Pending,
            Err(reason) => Poll::Ready(reason),
        }
    }

    fn close(&mut self, reason: &Error) {
        let mut line = self.connection.line();
        line.close(reason, &mut self.woken);
        self.connection.publish(&line);
    }

    /// Does what can be done now.
    fn turn(&mut self, context: &mut Context<'_>) -> Result<(), Error> {
        let now = Instant::now();
        self.receive(context, now)?;
        self.look(context, now)?;
        self.send(context, now)
    }

    /// Reads what is there, and hands the answers out.
    fn receive(&mut self, context: &mut Context<'_>, now: Instant) -> Result<(), Error> {
        for _ in 0..READS_PER_TURN {
            let Poll::Ready(received) = self.stream.poll_receive(context, &mut self.received[self.filled..]) else {
                return Ok(());
            };
            match received {
                Ok(0) => return Err(self.lost("the server closed it".to_owned())),
                Ok(bytes) => self.filled += bytes,
                Err(error) => return Err(self.lost(error.to_string())),
            }
            self.take_received(now)?;
        }
        // There may be more, and others want their turn.
        context.waker().wake_by_ref();
        Ok(())
    }

    fn take_received(&mut self, now: Instant) -> Result<(), Error> {
        let mut line = self.connection.line();
        let taken = line.received(&self.received[..self.filled], now, &mut self.woken)?;
        self.has_run_dry = line.in_line() == 0;
        self.connection.publish(&line);
        drop(line);
        self.received.copy_within(taken..self.filled, 0);
        self.filled -= taken;
        if self.filled == self.received.len() {
            // An answer is longer than that: the line has held its first bytes to what was asked.
            self.received.resize(2 * self.filled, 0);
        }
        Ok(())
    }

    /// Does what the line wants to have done by now: callers' time may be over, or the server silent or closing.
    fn look(&mut self, context: &mut Context<'_>, now: Instant) -> Result<(), Error> {
        let mut line = self.connection.line();
        line.driven_by(context.waker());
        let look_at = line.look(now, &mut self.woken)?;
        self.connection.publish(&line);
        let refusal = line.refusal().cloned();
        let is_over = refusal.is_some() && line.in_line() == 0;
        drop(line);
        if look_at != self.armed {
            self.armed = look_at;
            look_at.iter().for_each(|at| self.timer.as_mut().reset((*at).into()));
        }
        if self.armed.is_some() && self.timer.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
        if refusal.is_some()
            && let Some(refused) = self.refused.take()
        {
            refused();
        }
        if is_over { Err(refusal.unwrap_or(Error::Closing)) } else { Ok(()) }
    }

    /// Writes what has gathered, until the kernel takes no more.
    fn send(&mut self, context: &mut Context<'_>, now: Instant) -> Result<(), Error> {
        loop {
            if self.sent == self.sending.len() && !self.take_unsent(context) {
                return Ok(());
            }
            match self.stream.poll_send(context, &self.sending[self.sent..]) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(0)) => return Err(self.lost("it takes no byte".to_owned())),
                Poll::Ready(Ok(bytes)) => self.sent += bytes,
                Poll::Ready(Err(error)) => {
                    // What it answered before it went is still good.
                    self.receive(context, now)?;
                    return Err(self.lost(error.to_string()));
                }
            }
        }
    }

    /// Whether there is something to write now.
    fn take_unsent(&mut self, context: &mut Context<'_>) -> bool {
        self.sending.clear();
        self.sent = 0;
        let mut line = self.connection.line();
        let taken = line.take_unsent(&mut self.sending, self.expected, &mut self.woken);
        drop(line);
        match taken {
            Taken::Nothing => {}
            Taken::All => self.expected = 0,
            // Once: who has not come when the driver has its next turn is not waited for.
            Taken::Wait => {
                self.expected = 0;
                context.waker().wake_by_ref();
            }
        }
        taken == Taken::All
    }

    fn lost(&self, reason: String) -> Error {
        Error::Lost { server: Arc::clone(&self.connection.server), reason: reason.into() }
    }

    /// Wakes callers. If the server has nothing to do any more, half of them first, so that it has while the others have their
    /// turn: a system call more costs less than that both sides wait for each other.
    fn wake(&mut self, context: &Context<'_>) {
        let mut now = std::mem::take(&mut self.later);
        now.append(&mut self.woken);
        if std::mem::take(&mut self.has_run_dry) && now.len() >= CALLERS_HALVED_MIN {
            self.later.extend(now.drain(now.len() / 2..));
            context.waker().wake_by_ref();
        }
        self.expected += now.len();
        now.drain(..).for_each(Waker::wake);
        self.woken = now;
    }
}

impl<Refused: FnOnce()> Drop for Driver<'_, Refused> {
    /// A runtime that ends drops its tasks wherever they are; whoever waits in another one must not wait for ever.
    fn drop(&mut self) {
        self.close(&self.lost("the client's runtime has ended".to_owned()));
        self.later.drain(..).chain(self.woken.drain(..)).for_each(Waker::wake);
    }
}
