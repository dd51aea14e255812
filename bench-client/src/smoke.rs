//! `smoke`: a few requests of every kind, told in friendly lines: does the server keep its contract?
//!
//! It is not a load and not a fuzzer. The first connection sends valid requests, one of them in pieces; the second one
//! sends two valid requests and then one that is not.
//!
//! Invariants: it ends well only if every answer was right and every connection ended as it should.
#![forbid(unsafe_code)]

use std::io::Write;
use std::net::Shutdown;
use std::thread::sleep;
use std::time::Duration;

use disrust_protocol::{ErrorCode, RequestLayout, write_request};
use fastrand::Rng;
use socket2::Socket;

use crate::answers::AnswerReader;
use crate::connect::{Target, connect};
use crate::failure::{Failure, Fault};
use crate::rows;

/// Pause between the pieces of a request. Longer: a slower smoke test. Shorter: the server might see them as one.
const PIECE_PAUSE: Duration = Duration::from_millis(20);

/// Scores of an answer that are printed. More: long lines.
const SCORES_SHOWN: usize = 7;

/// One request, and how it goes out.
struct Exchange {
    what: &'static str,
    rows: Vec<f32>,
    /// Offsets in the request's bytes at which a new write begins.
    cuts: &'static [usize],
}

/// Runs the smoke test against `target`.
pub fn run(target: &Target, out: &mut impl Write) -> Result<(), Failure> {
    let layout = RequestLayout::new(target.features as usize);
    valid_requests(target, layout, out)?;
    invalid_request(target, layout, out)?;
    say(out, format_args!("smoke: all right"))
}

fn valid_requests(target: &Target, layout: RequestLayout, out: &mut impl Write) -> Result<(), Failure> {
    let stream = connect(target)?;
    say(out, format_args!("connected to {target}, {} features a vector", target.features))?;
    let mut answers = AnswerReader::new(&stream, target.timeout);
    let exchanges = exchanges(layout, target.seed);
    for (exchange, request) in exchanges.iter().zip(0..) {
        let expected = rows::scores(layout, &exchange.rows);
        let mut bytes = Vec::new();
        write_request(layout, &exchange.rows, &mut bytes);
        send_in_pieces(&stream, &bytes, exchange.cuts).map_err(Failure::at(0, request))?;
        answers.read_scores(&expected).map_err(Failure::at(0, request))?;
        say(out, format_args!("sent {}; received {}", exchange.what, listed(&expected)))?;
    }
    stream.shutdown(Shutdown::Write).map_err(Failure::local("shut down the sending side"))?;
    answers.read_end().map_err(Failure::at(0, exchanges.len() as u64))?;
    say(out, format_args!("shut down our sending side; received the end of the stream"))
}

fn invalid_request(target: &Target, layout: RequestLayout, out: &mut impl Write) -> Result<(), Failure> {
    let stream = connect(target)?;
    let rows = rows::random_rows(layout, 3, &mut Rng::with_seed(target.seed));
    let (first, second) = rows.split_at(layout.feature_dim());
    let mut bytes = Vec::new();
    write_request(layout, first, &mut bytes);
    write_request(layout, second, &mut bytes);
    bytes.extend_from_slice(&0_u32.to_le_bytes());
    send_in_pieces(&stream, &bytes, &[]).map_err(Failure::at(1, 0))?;

    let mut answers = AnswerReader::new(&stream, target.timeout);
    answers.read_scores(&rows::scores(layout, first)).map_err(Failure::at(1, 0))?;
    answers.read_scores(&rows::scores(layout, second)).map_err(Failure::at(1, 1))?;
    answers.read_error(ErrorCode::BadVectorCount).map_err(Failure::at(1, 2))?;
    answers.read_end().map_err(Failure::at(1, 2))?;
    say(
        out,
        format_args!(
            "sent two good requests and num_vectors = 0; received two answers, error answer {:?}, end of stream",
            ErrorCode::BadVectorCount.answer()
        ),
    )
}

fn exchanges(layout: RequestLayout, seed: u64) -> Vec<Exchange> {
    let mut random = Rng::with_seed(seed);
    let mut random_rows = |count| rows::random_rows(layout, count, &mut random);
    vec![
        Exchange {
            what: "1 vector (1, 2, 3, ...)",
            rows: (1..=layout.feature_dim()).map(|feature| feature as f32).collect(),
            cuts: &[],
        },
        Exchange { what: "3 vectors", rows: random_rows(3), cuts: &[] },
        Exchange { what: "64 vectors, the most of one request", rows: random_rows(64), cuts: &[] },
        Exchange {
            what: "7 vectors on the edges of f32 (NaN, infinities, overflow, subnormal, -0, cancellation)",
            rows: rows::special_rows(layout),
            cuts: &[],
        },
        // In the header, right behind it, and inside the first feature: where a parser has to remember.
        Exchange { what: "2 vectors in 5 pieces", rows: random_rows(2), cuts: &[1, 4, 7, 11] },
    ]
}

fn send_in_pieces(mut stream: &Socket, bytes: &[u8], cuts: &[usize]) -> Result<(), Fault> {
    let mut sent_bytes = 0;
    for &cut in cuts {
        stream.write_all(&bytes[sent_bytes..cut]).map_err(Fault::Send)?;
        sent_bytes = cut;
        sleep(PIECE_PAUSE);
    }
    stream.write_all(&bytes[sent_bytes..]).map_err(Fault::Send)
}

fn listed(scores: &[f32]) -> String {
    let shown: Vec<_> = scores.iter().take(SCORES_SHOWN).map(f32::to_string).collect();
    let rest = if scores.len() > SCORES_SHOWN { ", ..." } else { "" };
    let noun = if scores.len() == 1 { "score" } else { "scores" };
    format!("{} {noun}, all right: {}{rest}", scores.len(), shown.join(", "))
}

fn say(out: &mut impl Write, line: std::fmt::Arguments<'_>) -> Result<(), Failure> {
    writeln!(out, "{line}").map_err(Failure::local("print"))
}
