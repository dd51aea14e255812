//! Finds whole requests in what a connection received, however the network cut it, and hellos between them.
//!
//! It moves bytes only where a request straddles two receives: the beginning waits in a block, and is copied before
//! the end when that has come; and where a hello stands between two requests: what is behind it closes up, so that the
//! requests are one run. It knows nothing of answers or of the socket. What is no hello is found as if there were none: only where no
//! request begins is it looked for.
//!
//! Invariant: the bytes that came in, in order, are the requests handed out and the hellos between them, then what
//! [`PartialRequest`] holds; a bad count is seen as soon as its fourth byte is there, a hello as soon as its eighth is.
#![forbid(unsafe_code)]

use std::ops::Range;

use disrust_protocol::{
    BadVectorCount, HELLO_MAGIC, HELLO_REQUEST_BYTES, HelloRequest, REQUEST_HEADER_BYTES, RequestLayout,
    read_vector_count,
};

use super::hello::HelloRun;
use super::interface::Lost;
use crate::exchange::blocks::{Block, BlockPool};

/// The whole requests of one receive: where they lie in its buffer, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Framed {
    /// Where the first request starts, in bytes from the buffer's beginning.
    pub offset: usize,
    /// Bytes of all requests together.
    pub request_bytes: usize,
    /// How many requests.
    pub requests: u32,
    /// Vectors of all requests together.
    pub rows: u32,
}

/// What one receive brought, with the beginning that had come before.
#[derive(Debug, Default)]
pub struct Found {
    /// The whole requests.
    pub framed: Framed,
    /// Hellos before, between and behind them, in order.
    pub hellos: Vec<HelloRun>,
    /// Why nothing behind those can be read.
    pub lost: Option<Lost>,
}

impl Found {
    fn lost(lost: Lost) -> Found {
        Found { lost: Some(lost), ..Found::default() }
    }
}

/// The beginning of a request or hello whose end has not come yet.
#[derive(Debug, Default)]
pub struct PartialRequest {
    block: Option<Box<Block>>,
}

impl PartialRequest {
    /// Whether one has begun.
    pub fn has_begun(&self) -> bool {
        self.block.is_some()
    }

    /// What the begun request takes from the thread's budget for blocks.
    pub fn held_bytes(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.cost_bytes())
    }

    /// Takes what was received into `buffer[headroom..headroom + received]` and finds the whole requests and hellos in it, the
    /// begun one included. The rest begins the next one.
    pub fn join(
        &mut self,
        layout: RequestLayout,
        buffer: &mut [u8],
        headroom: usize,
        received: usize,
        blocks: &mut BlockPool,
    ) -> Found {
        let end = headroom + received;
        let mut offset = headroom;
        if let Some(block) = self.block.take() {
            match has_first(layout, block.content(), &buffer[headroom..end]) {
                Ok(true) => {
                    offset -= block.content().len();
                    buffer[offset..headroom].copy_from_slice(block.content());
                    blocks.give(block);
                }
                Ok(false) => {
                    self.block = Some(grow(block, &buffer[headroom..end], layout, blocks));
                    return Found::default();
                }
                Err(bad) => {
                    blocks.give(block);
                    return Found::lost(Lost::BadCount(bad));
                }
            }
        }
        let (framed, outcome) = scan(layout, &buffer[offset..end], offset);
        let mut found = Found { framed, ..Found::default() };
        let mut read = offset + framed.request_bytes;
        if let Err(bad) = outcome {
            read = pass_hellos(layout, buffer, read..end, bad, &mut found);
        }
        let rest = &buffer[read..end];
        if found.lost.is_none() && !rest.is_empty() {
            let mut block = blocks.take_for_request(rest.len());
            let taken = block.append(rest);
            assert!(taken == rest.len(), "the block fits");
            self.block = Some(block);
        }
        found
    }

    /// Drops the begun request.
    pub fn clear(&mut self, blocks: &mut BlockPool) {
        if let Some(block) = self.block.take() {
            blocks.give(block);
        }
    }
}

/// Adds more of a request, in a larger block if need be: one of twice the size, so that a request which comes byte by byte
/// is copied once all in all, and holds at most twice what has come of it.
fn grow(mut block: Box<Block>, more: &[u8], layout: RequestLayout, blocks: &mut BlockPool) -> Box<Block> {
    let bytes = block.content().len() + more.len();
    if bytes > block.capacity() {
        let doubled = (2 * block.capacity()).min(layout.request_bytes_max());
        let mut larger = blocks.take_for_request(bytes.max(doubled));
        let moved = larger.append(block.content());
        assert!(moved == block.content().len(), "the larger block holds what the smaller one held");
        blocks.give(std::mem::replace(&mut block, larger));
    }
    let taken = block.append(more);
    assert!(taken == more.len(), "the block fits");
    block
}

/// Whether the request or hello that starts with `head` and goes on with `tail` is complete.
fn has_first(layout: RequestLayout, head: &[u8], tail: &[u8]) -> Result<bool, BadVectorCount> {
    let mut header = [0; REQUEST_HEADER_BYTES];
    let from_head = head.len().min(REQUEST_HEADER_BYTES);
    let from_tail = REQUEST_HEADER_BYTES - from_head;
    if tail.len() < from_tail {
        return Ok(false);
    }
    header[..from_head].copy_from_slice(&head[..from_head]);
    header[from_head..].copy_from_slice(&tail[..from_tail]);
    let bytes = match read_vector_count(header) {
        Ok(num_vectors) => layout.request_bytes(num_vectors),
        Err(bad) if bad.count == HELLO_MAGIC => HELLO_REQUEST_BYTES,
        Err(bad) => return Err(bad),
    };
    Ok(head.len() + tail.len() >= bytes)
}

/// Walks over whole requests from the front of `bytes`, which lie at `offset` of their buffer.
fn scan(layout: RequestLayout, bytes: &[u8], offset: usize) -> (Framed, Result<(), BadVectorCount>) {
    let mut framed = Framed { offset, ..Framed::default() };
    loop {
        let rest = &bytes[framed.request_bytes..];
        let Some(header) = rest.first_chunk::<REQUEST_HEADER_BYTES>() else { return (framed, Ok(())) };
        let num_vectors = match read_vector_count(*header) {
            Ok(num_vectors) => num_vectors,
            Err(bad) => return (framed, Err(bad)),
        };
        let request_bytes = layout.request_bytes(num_vectors);
        if rest.len() < request_bytes {
            return (framed, Ok(()));
        }
        framed.request_bytes += request_bytes;
        framed.requests += 1;
        framed.rows += num_vectors;
    }
}

/// Goes on where no request begins, at the front of `rest`: behind a hello, as long as there are some; and adds the requests that
/// follow each to those that are found. Returns where the beginning of the next request or hello is.
#[cold]
fn pass_hellos(
    layout: RequestLayout,
    buffer: &mut [u8],
    rest: Range<usize>,
    mut bad: BadVectorCount,
    found: &mut Found,
) -> usize {
    let Range { start: mut read, end } = rest;
    loop {
        if bad.count != HELLO_MAGIC {
            found.lost = Some(Lost::BadCount(bad));
            return read;
        }
        let Some(bytes) = buffer[read..end].first_chunk() else { return read };
        let hello = HelloRequest::from_bytes(*bytes).expect("it begins as one does");
        if !hello.agrees_with(layout.feature_dim()) {
            found.lost = Some(Lost::WrongFeatureDim(hello.feature_dim));
            return read;
        }
        read += HELLO_REQUEST_BYTES;
        match found.hellos.last_mut().filter(|run| run.requests == found.framed.requests) {
            Some(run) => run.hellos += 1,
            None => found.hellos.push(HelloRun { requests: found.framed.requests, hellos: 1 }),
        }
        let (more, outcome) = scan(layout, &buffer[read..end], read);
        let behind = read..read + more.request_bytes;
        read = behind.end;
        let framed = &mut found.framed;
        if framed.requests == 0 {
            *framed = more;
        } else {
            // Each byte moves once, whatever there is of hellos.
            buffer.copy_within(behind, framed.offset + framed.request_bytes);
            framed.request_bytes += more.request_bytes;
            framed.requests += more.requests;
            framed.rows += more.rows;
        }
        match outcome {
            Ok(()) => return read,
            Err(next) => bad = next,
        }
    }
}

#[cfg(test)]
mod tests {
    use disrust_protocol::write_request;

    use super::*;
    use crate::limits::BlockSizes;

    const LAYOUT: RequestLayout = RequestLayout::new(2);
    const HEADROOM: usize = LAYOUT.request_bytes_max();

    fn stream() -> Vec<u8> {
        let mut stream = Vec::new();
        for count in [1, 3, 64, 2, 1] {
            let rows: Vec<f32> = (0..2 * count).map(|feature| (100 * count + feature) as f32).collect();
            write_request(LAYOUT, &rows, &mut stream);
        }
        stream
    }

    fn blocks() -> BlockPool {
        let request_bytes_max = LAYOUT.request_bytes_max();
        BlockPool::new(BlockSizes {
            bytes_min: 16,
            answer_bytes_max: 0,
            request_bytes_max,
            retained: 1,
            budget_bytes: 10_000,
        })
    }

    /// Feeds `pieces` as one receive each; returns all requests found, joined, and how it ended.
    fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, u32, Option<Lost>) {
        let (found, requests, hellos, lost) = feed_all(pieces);
        assert_eq!(hellos.len(), 0);
        (found, requests, lost)
    }

    /// The same, and how many requests come before each hello.
    fn feed_all<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, u32, Vec<u32>, Option<Lost>) {
        let mut blocks = blocks();
        let (mut partial, mut all, mut requests, mut hellos) = (PartialRequest::default(), Vec::new(), 0, Vec::new());
        for piece in pieces {
            let mut buffer = vec![0xee; HEADROOM];
            buffer.extend_from_slice(piece);
            let found = partial.join(LAYOUT, &mut buffer, HEADROOM, piece.len(), &mut blocks);
            let framed = found.framed;
            assert!(framed.requests > 0 || framed.request_bytes == 0);
            all.extend_from_slice(&buffer[framed.offset..framed.offset + framed.request_bytes]);
            for run in found.hellos {
                assert!(run.requests <= framed.requests && run.hellos > 0);
                hellos.extend((0..run.hellos).map(|_| requests + run.requests));
            }
            requests += framed.requests;
            if found.lost.is_some() {
                assert!(!partial.has_begun());
                return (all, requests, hellos, found.lost);
            }
        }
        assert_eq!(blocks.lent(), usize::from(partial.has_begun()));
        partial.clear(&mut blocks);
        assert_eq!(blocks.lent(), 0);
        (all, requests, hellos, None)
    }

    /// The requests of [`stream`] with hellos before, between and behind them; and how many requests come before each.
    fn stream_with_hellos() -> (Vec<u8>, Vec<u32>) {
        let (stream, mut with_hellos, mut places) = (stream(), Vec::new(), Vec::new());
        let mut rest = &stream[..];
        for (request, hellos) in [2, 0, 1, 3, 1, 1].into_iter().enumerate() {
            for hello in 0..hellos {
                let feature_dim = if hello == 1 { 0 } else { 2 };
                with_hellos.extend(HelloRequest { feature_dim }.to_bytes());
                places.push(request as u32);
            }
            if let Some(count) = rest.first() {
                let (next, behind) = rest.split_at(LAYOUT.request_bytes(u32::from(*count)));
                with_hellos.extend_from_slice(next);
                rest = behind;
            }
        }
        (with_hellos, places)
    }

    #[test]
    fn hellos_are_found_wherever_they_stand_and_however_the_stream_is_cut() {
        let (with_hellos, places) = stream_with_hellos();
        for cut in 0..=with_hellos.len() {
            let (head, tail) = with_hellos.split_at(cut);
            assert_eq!(feed_all([head, tail]), (stream(), 5, places.clone(), None), "cut at {cut}");
        }
        for size in 1..60 {
            assert_eq!(feed_all(with_hellos.chunks(size)), (stream(), 5, places.clone(), None), "pieces of {size}");
        }
    }

    #[test]
    fn a_hello_for_other_features_is_the_last_that_is_read() {
        let (mut bytes, places) = stream_with_hellos();
        let good = bytes.len();
        bytes.extend(HelloRequest { feature_dim: 3 }.to_bytes());
        let end = bytes.len();
        bytes.extend(stream());
        let lost = Some(Lost::WrongFeatureDim(3));
        for cut in good..bytes.len() {
            let (head, tail) = bytes.split_at(cut);
            assert_eq!(feed_all([head, tail]), (stream(), 5, places.clone(), lost), "cut at {cut}");
        }
        assert_eq!(feed_all([&bytes[..end - 1]]).3, None, "seven bytes decide nothing");
    }

    #[test]
    fn many_hellos_between_requests_are_found() {
        let hellos = 3000;
        let (mut bytes, mut requests) = (Vec::new(), Vec::new());
        for request in 0..hellos {
            bytes.extend(HelloRequest { feature_dim: 0 }.to_bytes());
            let row = [request as f32, 0.5];
            write_request(LAYOUT, &row, &mut bytes);
            write_request(LAYOUT, &row, &mut requests);
        }
        assert_eq!(feed_all([&bytes[..]]), (requests, hellos, (0..hellos).collect(), None));
    }

    #[test]
    fn requests_are_found_however_the_stream_is_cut_in_two() {
        let stream = stream();
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(feed([head, tail]), (stream.clone(), 5, None), "cut at {cut}");
        }
    }

    #[test]
    fn requests_are_found_in_pieces_of_any_one_size() {
        let stream = stream();
        for size in 1..stream.len() {
            assert_eq!(feed(stream.chunks(size)), (stream.clone(), 5, None), "pieces of {size}");
        }
    }

    #[test]
    fn a_bad_count_is_seen_on_its_fourth_byte_behind_all_good_requests() {
        for count in [0_u32, 65, u32::MAX] {
            let mut bytes = stream();
            let good = bytes.len();
            bytes.extend(count.to_le_bytes());
            for cut in 0..=bytes.len() {
                let (head, tail) = bytes.split_at(cut);
                let expected = (bytes[..good].to_vec(), 5, Some(Lost::BadCount(BadVectorCount { count })));
                assert_eq!(feed([head, tail]), expected, "cut at {cut}");
            }
            assert_eq!(feed([&bytes[..good + 3]]).2, None, "three bytes decide nothing");
        }
    }

    #[test]
    fn a_begun_request_holds_what_has_come_of_it_and_not_what_it_says() {
        let (mut blocks, mut partial) = (blocks(), PartialRequest::default());
        let stream = stream();
        let largest = &stream[LAYOUT.request_bytes(1) + LAYOUT.request_bytes(3)..][..LAYOUT.request_bytes(64)];
        for (index, byte) in largest[..largest.len() - 1].iter().enumerate() {
            let mut buffer = vec![0; HEADROOM];
            buffer.push(*byte);
            let found = partial.join(LAYOUT, &mut buffer, HEADROOM, 1, &mut blocks);
            assert_eq!((found.framed.requests, found.lost), (0, None));
            assert!(partial.held_bytes() <= 2 * (index + 1) + 120, "{} bytes for {index}", partial.held_bytes());
            assert_eq!(partial.held_bytes(), blocks.lent_bytes());
        }
        partial.clear(&mut blocks);
    }

    #[test]
    fn an_unfinished_request_is_not_handed_out() {
        let stream = stream();
        let (found, requests, lost) = feed([&stream[..stream.len() - 1]]);
        assert_eq!((requests, lost), (4, None));
        assert_eq!(found, &stream[..stream.len() - LAYOUT.request_bytes(1)]);
    }
}
