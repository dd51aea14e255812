//! Finds whole requests in what a connection received, however the network cut it.
//!
//! It moves bytes only where a request straddles two receives: the beginning waits in a block, and is copied before
//! the end when that has come. It knows nothing of answers or of the socket.
//!
//! Invariant: the bytes that came in, in order, are the requests handed out, then what [`PartialRequest`] holds; a bad
//! count is seen as soon as its fourth byte is there.
#![forbid(unsafe_code)]

use disrust_protocol::{BadVectorCount, REQUEST_HEADER_BYTES, RequestLayout, read_vector_count};

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

/// The beginning of a request whose end has not come yet.
#[derive(Debug, Default)]
pub struct PartialRequest {
    block: Option<Box<Block>>,
}

impl PartialRequest {
    /// Whether a request has begun.
    pub fn has_begun(&self) -> bool {
        self.block.is_some()
    }

    /// What the begun request takes from the thread's budget for blocks.
    pub fn held_bytes(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.cost_bytes())
    }

    /// Takes what was received into `buffer[headroom..headroom + received]` and finds the whole requests in it, the
    /// begun one included. The rest begins the next request.
    ///
    /// Returns the requests, and the bad count behind them if the framing is lost there.
    pub fn join(
        &mut self,
        layout: RequestLayout,
        buffer: &mut [u8],
        headroom: usize,
        received: usize,
        blocks: &mut BlockPool,
    ) -> (Framed, Result<(), BadVectorCount>) {
        let end = headroom + received;
        let mut offset = headroom;
        if let Some(block) = self.block.take() {
            match first_request(layout, block.content(), &buffer[headroom..end]) {
                Ok(Some(_)) => {
                    offset -= block.content().len();
                    buffer[offset..headroom].copy_from_slice(block.content());
                    blocks.give(block);
                }
                Ok(None) => {
                    self.block = Some(grow(block, &buffer[headroom..end], layout, blocks));
                    return (Framed::default(), Ok(()));
                }
                Err(bad) => {
                    blocks.give(block);
                    return (Framed::default(), Err(bad));
                }
            }
        }
        let (framed, outcome) = scan(layout, &buffer[offset..end], offset);
        let rest = &buffer[offset + framed.request_bytes..end];
        if outcome.is_ok() && !rest.is_empty() {
            let mut block = blocks.take_for_request(rest.len());
            let taken = block.append(rest);
            assert!(taken == rest.len(), "the block fits");
            self.block = Some(block);
        }
        (framed, outcome)
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

/// Bytes of the request that starts with `head` and goes on with `tail`, if it is complete.
fn first_request(layout: RequestLayout, head: &[u8], tail: &[u8]) -> Result<Option<usize>, BadVectorCount> {
    let mut header = [0; REQUEST_HEADER_BYTES];
    let from_head = head.len().min(REQUEST_HEADER_BYTES);
    let from_tail = REQUEST_HEADER_BYTES - from_head;
    if tail.len() < from_tail {
        return Ok(None);
    }
    header[..from_head].copy_from_slice(&head[..from_head]);
    header[from_head..].copy_from_slice(&tail[..from_tail]);
    let request_bytes = layout.request_bytes(read_vector_count(header)?);
    Ok((head.len() + tail.len() >= request_bytes).then_some(request_bytes))
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
    fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, u32, Result<(), BadVectorCount>) {
        let mut blocks = blocks();
        let (mut partial, mut found, mut requests) = (PartialRequest::default(), Vec::new(), 0);
        for piece in pieces {
            let mut buffer = vec![0xee; HEADROOM];
            buffer.extend_from_slice(piece);
            let (framed, outcome) = partial.join(LAYOUT, &mut buffer, HEADROOM, piece.len(), &mut blocks);
            found.extend_from_slice(&buffer[framed.offset..framed.offset + framed.request_bytes]);
            requests += framed.requests;
            if outcome.is_err() {
                assert!(!partial.has_begun());
                return (found, requests, outcome);
            }
        }
        assert_eq!(blocks.lent(), usize::from(partial.has_begun()));
        partial.clear(&mut blocks);
        assert_eq!(blocks.lent(), 0);
        (found, requests, Ok(()))
    }

    #[test]
    fn requests_are_found_however_the_stream_is_cut_in_two() {
        let stream = stream();
        for cut in 0..=stream.len() {
            let (head, tail) = stream.split_at(cut);
            assert_eq!(feed([head, tail]), (stream.clone(), 5, Ok(())), "cut at {cut}");
        }
    }

    #[test]
    fn requests_are_found_in_pieces_of_any_one_size() {
        let stream = stream();
        for size in 1..stream.len() {
            assert_eq!(feed(stream.chunks(size)), (stream.clone(), 5, Ok(())), "pieces of {size}");
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
                let expected = (bytes[..good].to_vec(), 5, Err(BadVectorCount { count }));
                assert_eq!(feed([head, tail]), expected, "cut at {cut}");
            }
            assert_eq!(feed([&bytes[..good + 3]]).2, Ok(()), "three bytes decide nothing");
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
            let (framed, outcome) = partial.join(LAYOUT, &mut buffer, HEADROOM, 1, &mut blocks);
            assert_eq!((framed.requests, outcome), (0, Ok(())));
            assert!(partial.held_bytes() <= 2 * (index + 1) + 120, "{} bytes for {index}", partial.held_bytes());
            assert_eq!(partial.held_bytes(), blocks.lent_bytes());
        }
        partial.clear(&mut blocks);
    }

    #[test]
    fn an_unfinished_request_is_not_handed_out() {
        let stream = stream();
        let (found, requests, outcome) = feed([&stream[..stream.len() - 1]]);
        assert_eq!((requests, outcome), (4, Ok(())));
        assert_eq!(found, &stream[..stream.len() - LAYOUT.request_bytes(1)]);
    }
}
