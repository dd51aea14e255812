//! Hellos: what the server says to them, and where in line their answers stand until that is due.
//!
//! An answer to a hello may be 35 times as long as the hello. So it is written only when it is about to be sent: until then a run of
//! hellos is two numbers, a place among the answers and a count, and what many runs take is counted against the thread's budget
//! for blocks. What it will be counts as owed to the peer from the beginning, so that who does not read is held back as by other
//! answers.
//!
//! A hello passes two lines. While requests before it are in flight it is [`Asked`], and knows which request is the next one behind
//! it. Then it gets a place in the send buffer ([`HelloLine`]), and what it will tell of the model: if the next request is in flight, the version
//! that has scored that, with whose answer it goes out; if none is, the version of the moment, which scores the next one unless
//! a newer one does. One that comes when nothing is in flight is told that at once.
//!
//! Invariant: the version that is told was in force when the hello came, or later; it has scored the requests before the hello, or is
//! newer than those that have; and what scores the requests behind it is that one or a newer one.
#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::sync::Arc;

use disrust_protocol::{
    HELLO_ANSWER_BYTES_MAX, MAX_VECTORS_PER_REQUEST, MODEL_NAME_BYTES_MAX, RequestLayout, ServerHello,
};

use crate::exchange::blocks::{Block, BlockPool};
use crate::exchange::model_version::ModelVersion;

/// Where the model's version stands in an answer.
const VERSION_AT: usize = 16;

/// What a server says to hellos.
#[derive(Debug, Clone)]
pub struct HelloAnswers {
    /// An answer, but for the version.
    bytes: Arc<[u8]>,
    version: Arc<ModelVersion>,
}

impl HelloAnswers {
    /// Of a server of this shape whose model has this name, or as much of it as may be told.
    pub fn new(layout: RequestLayout, model_name: &str, version: Arc<ModelVersion>) -> HelloAnswers {
        let narrow = |count: usize| u32::try_from(count).expect("a shape that buffers are made for fits 32 bits");
        let ends = (0..=MODEL_NAME_BYTES_MAX).rev();
        let model_name = ends.filter_map(|end| model_name.get(..end.min(model_name.len()))).next().unwrap_or_default();
        let hello = ServerHello {
            feature_dim: narrow(layout.feature_dim()),
            outputs: narrow(layout.outputs()),
            max_vectors: MAX_VECTORS_PER_REQUEST,
            model_version: 0,
            model_name,
        };
        let mut bytes = Vec::new();
        hello.write(&mut bytes);
        HelloAnswers { bytes: bytes.into(), version }
    }

    /// Bytes of each answer.
    pub fn answer_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The version of the model in force.
    pub(super) fn version_now(&self) -> u64 {
        self.version.get()
    }

    /// Adds an answer from its byte `from` on to a block, as far as there is room; returns how much that was.
    fn put(&self, model_version: u64, from: usize, block: &mut Block) -> usize {
        let mut answer = [0; HELLO_ANSWER_BYTES_MAX];
        let answer = &mut answer[..self.bytes.len()];
        answer.copy_from_slice(&self.bytes);
        answer[VERSION_AT..VERSION_AT + size_of::<u64>()].copy_from_slice(&model_version.to_le_bytes());
        block.append(&answer[from..])
    }
}

/// Hellos that came one behind the other, and how many requests of their receive came before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HelloRun {
    /// Requests before them.
    pub requests: u32,
    /// How many.
    pub hellos: u32,
}

/// Hellos behind requests in flight.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// The event that the next request behind them is in, or will be.
    pub sequence: u32,
    /// Where among its requests they stand, and how many they are.
    pub run: HelloRun,
}

/// Those of a connection, in order.
#[derive(Debug, Default)]
pub(super) struct AskedLine(VecDeque<Asked>);

impl AskedLine {
    pub fn push(&mut self, asked: Asked) {
        let is_same = |last: &&mut Asked| (last.sequence, last.run.requests) == (asked.sequence, asked.run.requests);
        match self.0.back_mut().filter(is_same) {
            Some(last) => last.run.hellos += asked.run.hellos,
            None => self.0.push_back(asked),
        }
    }

    /// The first ones, if the next request behind them is in this event or in one before it.
    pub fn next_upto(&mut self, sequence: u32) -> Option<HelloRun> {
        let is_due = |asked: &Asked| sequence.wrapping_sub(asked.sequence).cast_signed() >= 0;
        if !self.0.front().is_some_and(is_due) {
            return None;
        }
        self.0.pop_front().map(|asked| asked.run)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Hellos with a place among a send buffer's answers.
#[derive(Debug)]
struct Placed {
    /// Bytes of the send buffer before them, from the ones before on, or from its front.
    after_bytes: usize,
    hellos: u32,
    model_version: u64,
}

/// What a place is counted as: a growing line may hold room for twice as many.
const PLACE_BYTES: usize = 2 * size_of::<Placed>();

/// Hellos among the answers of one send buffer, which has none of these unless there are some.
#[derive(Debug, Default)]
pub(super) struct HelloLine {
    placed: VecDeque<Placed>,
    /// Bytes of the send buffer behind the last ones.
    behind_bytes: usize,
    /// Bytes of the first answer that have been written.
    written: usize,
}

impl HelloLine {
    pub fn is_empty(&self) -> bool {
        self.placed.is_empty()
    }

    /// What the line is counted as.
    pub fn cost_bytes(&self) -> usize {
        self.placed.len() * PLACE_BYTES
    }

    /// Hellos at the end of a send buffer, of which so many bytes are behind its front if the line is empty.
    pub fn push(&mut self, hellos: u32, model_version: u64, front_bytes: usize, blocks: &mut BlockPool) {
        let after_bytes = if self.is_empty() { front_bytes } else { std::mem::take(&mut self.behind_bytes) };
        match self.placed.back_mut() {
            Some(last) if after_bytes == 0 && last.model_version == model_version => last.hellos += hellos,
            _ => {
                self.placed.push_back(Placed { after_bytes, hellos, model_version });
                blocks.charge(PLACE_BYTES);
            }
        }
    }

    /// So many bytes came behind the last ones.
    pub fn appended(&mut self, bytes: usize) {
        self.behind_bytes += bytes;
    }

    /// Bytes of the send buffer that come before the first ones.
    pub fn before_first(&self) -> usize {
        self.placed.front().map_or(usize::MAX, |first| first.after_bytes)
    }

    /// So many bytes have left the send buffer's front.
    pub fn left(&mut self, bytes: usize) {
        let first = self.placed.front_mut().expect("there are hellos behind them");
        first.after_bytes -= bytes;
    }

    /// So many bytes came back to its front.
    pub fn came_back(&mut self, bytes: usize) {
        let first = self.placed.front_mut().expect("there are hellos behind them");
        first.after_bytes += bytes;
    }

    /// Writes answers to the first ones, before which nothing is left, as far as there is room. Returns whether all are
    /// written.
    pub fn write_first(&mut self, answers: &HelloAnswers, block: &mut Block, blocks: &mut BlockPool) -> bool {
        let first = self.placed.front_mut().expect("there are hellos");
        assert!(first.after_bytes == 0, "what comes before them has left");
        while first.hellos > 0 {
            self.written += answers.put(first.model_version, self.written, block);
            if self.written < answers.answer_bytes() {
                return false;
            }
            (self.written, first.hellos) = (0, first.hellos - 1);
        }
        self.placed.pop_front();
        blocks.refund(PLACE_BYTES);
        true
    }

    /// Drops all.
    pub fn clear(self, blocks: &mut BlockPool) {
        blocks.refund(self.cost_bytes());
    }
}
