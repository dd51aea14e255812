//! What can go wrong, and how it is told: one message that names the connection, the request and what to try.
//!
//! It decides nothing but the exit status, and knows no other module but [`crate::hello`]'s faults: a command with errors of its own turns them into a
//! [`Failure::Command`].
//!
//! Invariants: connections and requests are counted from 0, a request within its connection.
#![forbid(unsafe_code)]

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use disrust_protocol::{BadAnswer, ErrorCode};
use nix::errno::Errno;
use thiserror::Error;

use crate::hello::HelloFault;

/// Why the command does not end with exit status 0.
#[derive(Debug, Error)]
pub enum Failure {
    /// There is no connection.
    #[error("cannot connect to {address}: {source}\n{}", connect_advice(source))]
    Connect {
        /// The address as the command line has it.
        address: String,
        /// What the last address that was tried gave.
        source: io::Error,
    },
    /// The server is not what the command line says, or does not say what it is.
    #[error("{address}: {fault}")]
    Hello {
        /// The address as the command line has it.
        address: String,
        /// What was wrong.
        fault: HelloFault,
    },
    /// A connection did not do what it should.
    #[error("connection {connection}, request {request}: {fault}")]
    At {
        /// The connection, in the order in which they were made.
        connection: usize,
        /// The request, in the order in which this connection sent them.
        request: u64,
        /// What was wrong.
        fault: Fault,
    },
    /// The server's CPU time is out of reach.
    #[error(
        "cannot read the CPU time of process {process}: {source}\n\
         Is --server-pid the server's, and on this machine? It is read from /proc/{process}/task/*/schedstat."
    )]
    ServerTime {
        /// The process that was asked for.
        process: u32,
        /// What reading gave.
        source: io::Error,
    },
    /// What only one command can meet, in its own words.
    #[error(transparent)]
    Command(Box<dyn std::error::Error + Send + Sync>),
    /// Answers are missing.
    #[error("{lost} requests got no answer; the first: {first}")]
    Lost {
        /// Requests without an answer.
        lost: u64,
        /// The first of one connection.
        first: Box<Failure>,
    },
    /// Requests were answered with errors, and nobody had said that they would be.
    #[error(
        "{count} requests were answered with an error ({kind}) in the measured time; the first, or one before it: {first}\n\
         If that is meant to happen, say so: --accept-errors {kind}"
    )]
    ErrorAnswers {
        /// Requests in the measured time.
        count: u64,
        /// The kind of error, as `--accept-errors` takes it.
        kind: &'static str,
        /// The first of one connection, in the warm-up too.
        first: Box<Failure>,
    },
    /// What was measured is the client or its machine, not the server.
    #[error("{verdict}")]
    Invalid {
        /// That it is so, and why.
        verdict: String,
    },
    /// What was measured is not what was asked for.
    #[error("{0}")]
    LimitBroken(String),
    /// A file is not what it should be.
    #[error("{}: {problem}", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Output {
        /// The file.
        path: PathBuf,
        /// What writing gave.
        source: io::Error,
    },
    /// A thread cannot run where it should.
    #[error("cannot pin a thread to CPU {0}: it is not there, or not in this process's affinity mask")]
    Pin(usize),
    /// This machine refused something that is not the server's doing.
    #[error("cannot {action}: {source}")]
    Local {
        /// What was tried.
        action: &'static str,
        /// What came of it.
        source: io::Error,
    },
}

impl Failure {
    /// The exit status that tells this failure from others: 3 says that the client was too slow to measure or was
    /// kept from its CPU, 4 that a limit does not hold, 1 everything else (2 is a wrong command line).
    pub fn exit_status(&self) -> u8 {
        match self {
            Failure::Invalid { .. } => 3,
            Failure::LimitBroken(_) => 4,
            _ => 1,
        }
    }

    /// Whether the server has ended this connection, or could not be reached again; a wrong answer is something else.
    pub fn is_end_of_connection(&self) -> bool {
        match self {
            Failure::At { fault, .. } => matches!(
                fault,
                Fault::Send(_)
                    | Fault::Receive(_)
                    | Fault::Reconnect(_)
                    | Fault::ClosedEarly(_)
                    | Fault::ErrorAnswer(ErrorCode::Closing)
                    | Fault::Hello(HelloFault::ClosedEarly(_) | HelloFault::Error(ErrorCode::Closing))
            ),
            _ => false,
        }
    }

    /// For `map_err`: this machine refused `action`.
    pub fn local<E: Into<io::Error>>(action: &'static str) -> impl Fn(E) -> Failure {
        move |error| Failure::Local { action, source: error.into() }
    }

    /// For `map_err`: something was wrong at `request` of `connection`.
    pub fn at(connection: usize, request: u64) -> impl Fn(Fault) -> Failure {
        move |fault| Failure::At { connection, request, fault }
    }
}

/// What was wrong with an answer, or with the connection that owed it.
#[derive(Debug, Error)]
pub enum Fault {
    /// The request could not be sent.
    #[error("cannot send: {0}")]
    Send(io::Error),
    /// The answer could not be received.
    #[error("cannot receive: {0}")]
    Receive(io::Error),
    /// The connection that was to replace a spent one.
    #[error("cannot connect again: {0}")]
    Reconnect(io::Error),
    /// Nothing came, or nothing was taken, for the whole timeout.
    #[error("the server stalled: nothing moved for {} (see --timeout)", humantime::format_duration(*.0))]
    Stalled(Duration),
    /// Answers come, but too slowly for all of them to come in time.
    #[error(
        "the server did not keep up: no answer yet {} after the end of the run (see --timeout)",
        humantime::format_duration(*.0)
    )]
    Late(Duration),
    /// The connection goes no further than hello.
    #[error(transparent)]
    Hello(HelloFault),
    /// The stream ended where an answer was owed.
    #[error("the server closed the connection, with {0} bytes of the answer sent")]
    ClosedEarly(usize),
    /// Scores were owed.
    #[error("error answer: {0} (code {code})", code = *.0 as u8)]
    ErrorAnswer(ErrorCode),
    /// The bytes are no answer.
    #[error("not an answer: {0}")]
    NotAnAnswer(#[from] BadAnswer),
    /// The answer is to another number of vectors.
    #[error("wrong answer: {received} scores, expected {expected}")]
    ScoreCount {
        /// Vectors of the request.
        expected: usize,
        /// Scores of the answer.
        received: usize,
    },
    /// A score is not the sum of its vector's features, to the last bit.
    #[error(
        "wrong answer: the score of vector {vector} is {received:?} ({:#010x}), expected {expected:?} ({:#010x}); \
         the server must serve the sum model",
        received.to_bits(), expected.to_bits()
    )]
    Score {
        /// The vector, counted from 0 within its request.
        vector: usize,
        /// The sum.
        expected: f32,
        /// The score.
        received: f32,
    },
    /// A score is not near enough to what a file expects.
    #[error(
        "wrong answer: the score of vector {vector} is {received:?}, expected {expected:?} (see --tolerance); \
         does the server serve the model that --expect was made with?"
    )]
    FarScore {
        /// The vector, counted from 0 within its request.
        vector: usize,
        /// What the file has.
        expected: f32,
        /// The score.
        received: f32,
    },
    /// An answer that is not whole yet is wrong already.
    #[error("wrong answer: its byte {index} is {received:#04x}, expected {expected:#04x} (the rest has not come yet)")]
    Byte {
        /// The byte, counted from 0 within the answer.
        index: usize,
        /// What the right answer has there.
        expected: u8,
        /// What came.
        received: u8,
    },
    /// An error answer was owed, and scores came.
    #[error("{received} scores came where an error answer was due: {expected} (code {code})", code = *expected as u8)]
    NoError {
        /// The error that was due.
        expected: ErrorCode,
        /// Scores of the answer.
        received: usize,
    },
    /// The server is closing, and goes on all the same.
    #[error("something else came behind the error answer that says that the server is closing")]
    AfterClosing,
    /// More came than was asked for.
    #[error("{0} bytes came that answer nothing")]
    Unasked(usize),
    /// The server keeps a connection open that it should have closed.
    #[error(
        "all answers are there, but the server does not end the stream (waited {}, see --timeout)",
        humantime::format_duration(*.0)
    )]
    NoEnd(Duration),
}

fn connect_advice(error: &io::Error) -> &'static str {
    let descriptors = [Errno::EMFILE, Errno::ENFILE];
    if error.raw_os_error().is_some_and(|code| descriptors.contains(&Errno::from_raw(code))) {
        return "Too many connections for this process: raise `ulimit -n`, or ask for fewer.";
    }
    "Is the server running? Start it with `cargo run --release`.\n\
     If it listens elsewhere: `client PORT --host HOST`, or `client unix:PATH`."
}
