//! The answers that a peer has not been sent yet, in order.
//!
//! A chain of blocks. The first is given to the kernel whole and comes back with what is left of it; answers that
//! come meanwhile go to the blocks behind it. So bytes in the kernel's hands belong to nobody here. The first block fits
//! what it is for, and each one behind it is twice as large, so that little is held for little, and much sent at once.
//!
//! Invariants: bytes leave in the order in which they were added; `unsent_bytes` counts those in the chain and those
//! in the kernel that it has not confirmed; at most one block is in the kernel.
#![forbid(unsafe_code)]

use crate::exchange::blocks::{Block, BlockPool};

/// One connection's unsent answers.
#[derive(Debug, Default)]
pub struct SendBuffer {
    chain: Option<Box<Block>>,
    unsent_bytes: usize,
    send_in_kernel: bool,
    /// What the blocks take from the budget, with the one in the kernel.
    held_bytes: usize,
    /// The next block is at least so large.
    next_block_bytes: usize,
}

impl SendBuffer {
    /// Bytes that the kernel has not confirmed as sent.
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// What it takes from the thread's budget for blocks.
    pub fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Whether the kernel holds a block.
    pub fn send_in_kernel(&self) -> bool {
        self.send_in_kernel
    }

    /// Whether there is a block to send and none in the kernel.
    pub fn can_send(&self) -> bool {
        !self.send_in_kernel && self.chain.is_some()
    }

    /// Adds bytes behind all others.
    pub fn append(&mut self, mut bytes: &[u8], blocks: &mut BlockPool) {
        if self.unsent_bytes == 0 {
            self.next_block_bytes = 0;
        }
        self.unsent_bytes += bytes.len();
        let mut place = &mut self.chain;
        while !bytes.is_empty() {
            let block = place.get_or_insert_with(|| {
                let block = blocks.take_for_answers(bytes.len().max(self.next_block_bytes));
                self.held_bytes += block.cost_bytes();
                self.next_block_bytes = 2 * block.capacity();
                block
            });
            // Only the last block takes more: one that came back half sent may have room, but is not the last.
            if block.next.is_none() {
                let taken = block.append(bytes);
                bytes = &bytes[taken..];
            }
            place = &mut block.next;
        }
    }

    /// The first block, for the kernel to send.
    ///
    /// # Panics
    /// If [`SendBuffer::can_send`] is false.
    pub fn send(&mut self) -> Box<Block> {
        assert!(!self.send_in_kernel, "one send in flight a connection");
        let mut block = self.chain.take().expect("there is something to send");
        self.chain = block.next.take();
        self.send_in_kernel = true;
        block
    }

    /// Takes the block back of which the kernel has sent `sent` bytes; what is left goes first in the next send.
    pub fn send_completed(&mut self, mut block: Box<Block>, sent: usize, blocks: &mut BlockPool) {
        assert!(self.send_in_kernel, "a send completes once");
        self.send_in_kernel = false;
        block.consume(sent);
        self.unsent_bytes -= sent;
        if block.content().is_empty() {
            self.held_bytes -= block.cost_bytes();
            blocks.give(block);
        } else {
            block.next = self.chain.take();
            self.chain = Some(block);
        }
    }

    /// Drops what is not in the kernel's hands; returns how many bytes that was.
    pub fn clear(&mut self, blocks: &mut BlockPool) -> usize {
        let mut dropped = 0;
        while let Some(mut block) = self.chain.take() {
            self.chain = block.next.take();
            dropped += block.content().len();
            self.held_bytes -= block.cost_bytes();
            blocks.give(block);
        }
        self.unsent_bytes -= dropped;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BlockSizes;

    fn blocks(answer_bytes_max: usize) -> BlockPool {
        let bytes_min = answer_bytes_max.min(4);
        BlockPool::new(BlockSizes {
            bytes_min,
            answer_bytes_max,
            request_bytes_max: 0,
            retained: 1,
            budget_bytes: 10_000,
        })
    }

    #[test]
    fn bytes_leave_in_order_whatever_each_send_takes() {
        let expected: Vec<u8> = (0..200).map(|byte| byte as u8).collect();
        for step in 1..=16 {
            let mut blocks = blocks(16);
            let (mut buffer, mut sent, mut added) = (SendBuffer::default(), Vec::new(), expected.chunks(7));
            loop {
                if let Some(bytes) = added.next() {
                    buffer.append(bytes, &mut blocks);
                }
                if !buffer.can_send() {
                    break;
                }
                let block = buffer.send();
                if let Some(bytes) = added.next() {
                    buffer.append(bytes, &mut blocks);
                }
                assert!(!buffer.can_send(), "one send at a time");
                let part = block.content().len().min(step);
                sent.extend_from_slice(&block.content()[..part]);
                buffer.send_completed(block, part, &mut blocks);
            }
            assert_eq!(sent, expected, "{step} bytes a send");
            assert_eq!((buffer.unsent_bytes(), buffer.held_bytes(), blocks.lent()), (0, 0, 0));
        }
    }

    #[test]
    fn little_is_held_for_little_and_a_long_chain_has_large_blocks() {
        let mut blocks = blocks(4096);
        let mut buffer = SendBuffer::default();
        buffer.append(&[0; 5], &mut blocks);
        assert!(buffer.held_bytes() < 200, "{} bytes are held for 5", buffer.held_bytes());
        (0..10_000).for_each(|_| buffer.append(&[0; 5], &mut blocks));
        assert!(blocks.lent() < 24, "{} blocks hold 50 KB", blocks.lent());
        assert_eq!(buffer.held_bytes(), blocks.lent_bytes());
        buffer.clear(&mut blocks);
        assert_eq!((buffer.held_bytes(), blocks.lent_bytes()), (0, 0));
    }

    #[test]
    fn clearing_leaves_the_kernels_block_alone() {
        let mut blocks = blocks(4);
        let mut buffer = SendBuffer::default();
        buffer.append(b"abcdefgh", &mut blocks);
        let block = buffer.send();
        assert_eq!(buffer.clear(&mut blocks), 4);
        assert_eq!((buffer.unsent_bytes(), blocks.lent()), (4, 1));
        buffer.send_completed(block, 0, &mut blocks);
        assert_eq!(buffer.clear(&mut blocks), 4);
        assert_eq!((buffer.unsent_bytes(), blocks.lent()), (0, 0));
    }
}
