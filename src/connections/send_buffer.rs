//! The answers that a peer has not been sent yet, in order.
//!
//! A chain of blocks. The first is given to the kernel whole and comes back with what is left of it; answers that
//! come meanwhile go to the blocks behind it. So bytes in the kernel's hands belong to nobody here. The first block fits
//! what it is for, and each one behind it is twice as large, so that little is held for little, and much sent at once.
//!
//! Answers to hellos are not in the chain: they have places in it ([`super::hello`]), and are written between its bytes into the
//! block that is sent next.
//!
//! Invariants: bytes leave in the order in which they were added; `unsent_bytes` counts those in the chain, those that hellos will
//! be answered with, and those in the kernel that it has not confirmed; at most one block is in the kernel.
#![forbid(unsafe_code)]

use super::hello::{HelloAnswers, HelloLine};
use crate::exchange::blocks::{Block, BlockPool};

/// One connection's unsent answers.
#[derive(Debug, Default)]
pub struct SendBuffer {
    chain: Option<Box<Block>>,
    unsent_bytes: usize,
    /// Of these, those in the block that the kernel holds, if it holds one.
    in_kernel_bytes: Option<usize>,
    /// Hellos that are answered between the chain's bytes. On the heap, and rarely there.
    hellos: Option<Box<HelloLine>>,
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
        self.held_bytes + self.hellos.as_ref().map_or(0, |hellos| hellos.cost_bytes())
    }

    /// Whether the kernel holds a block.
    pub fn send_in_kernel(&self) -> bool {
        self.in_kernel_bytes.is_some()
    }

    /// Whether there is something to send and no block in the kernel.
    pub fn can_send(&self) -> bool {
        !self.send_in_kernel() && (self.chain.is_some() || self.hellos.is_some())
    }

    /// Adds bytes behind all others.
    pub fn append(&mut self, mut bytes: &[u8], blocks: &mut BlockPool) {
        if self.unsent_bytes == 0 {
            self.next_block_bytes = 0;
        }
        self.unsent_bytes += bytes.len();
        if let Some(hellos) = &mut self.hellos {
            hellos.appended(bytes.len());
        }
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

    /// Adds the answers to so many hellos behind all others, which tell this version of the model.
    #[cold]
    pub fn append_hellos(&mut self, hellos: u32, model_version: u64, answers: &HelloAnswers, blocks: &mut BlockPool) {
        let in_chain_bytes = self.unsent_bytes - self.in_kernel_bytes.unwrap_or(0);
        self.hellos.get_or_insert_default().push(hellos, model_version, in_chain_bytes, blocks);
        self.unsent_bytes += hellos as usize * answers.answer_bytes();
    }

    /// The first block, for the kernel to send.
    ///
    /// # Panics
    /// If [`SendBuffer::can_send`] is false.
    pub fn send(&mut self, answers: &HelloAnswers, blocks: &mut BlockPool) -> Box<Block> {
        assert!(!self.send_in_kernel(), "one send in flight a connection");
        let block = if self.hellos.is_some() { self.next_with_hellos(answers, blocks) } else { self.next_of_chain() };
        self.in_kernel_bytes = Some(block.content().len());
        block
    }

    fn next_of_chain(&mut self) -> Box<Block> {
        let mut block = self.chain.take().expect("there is something to send");
        self.chain = block.next.take();
        block
    }

    /// The first block if no hello is answered before its end; else one that is made of the answers to hellos and of what is
    /// between them, as far as it has room.
    #[cold]
    fn next_with_hellos(&mut self, answers: &HelloAnswers, blocks: &mut BlockPool) -> Box<Block> {
        let mut hellos = self.hellos.take().expect("somebody has said hello");
        if let Some(bytes) = self.chain.as_ref().map(|block| block.content().len())
            && bytes <= hellos.before_first()
        {
            hellos.left(bytes);
            self.hellos = Some(hellos);
            return self.next_of_chain();
        }
        let mut made = blocks.take_for_answers(self.unsent_bytes);
        self.held_bytes += made.cost_bytes();
        while !hellos.is_empty() {
            let before = hellos.before_first();
            let is_full = if before == 0 {
                !hellos.write_first(answers, &mut made, blocks)
            } else {
                let moved = self.move_front(before, &mut made, blocks);
                hellos.left(moved);
                moved == 0
            };
            if is_full {
                self.hellos = Some(hellos);
                return made;
            }
        }
        made
    }

    /// Moves bytes from the front of the chain, at most so many and not beyond its first block, as far as `made` has room; returns how
    /// many.
    fn move_front(&mut self, bytes_max: usize, made: &mut Block, blocks: &mut BlockPool) -> usize {
        let block = self.chain.as_mut().expect("there are bytes before a hello");
        let bytes = block.content().len().min(bytes_max);
        let moved = made.append(&block.content()[..bytes]);
        block.consume(moved);
        if block.content().is_empty() {
            let emptied = self.next_of_chain();
            self.held_bytes -= emptied.cost_bytes();
            blocks.give(emptied);
        }
        moved
    }

    /// Takes the block back of which the kernel has sent `sent` bytes; what is left goes first in the next send.
    pub fn send_completed(&mut self, mut block: Box<Block>, sent: usize, blocks: &mut BlockPool) {
        assert!(self.in_kernel_bytes.take().is_some(), "a send completes once");
        block.consume(sent);
        self.unsent_bytes -= sent;
        if block.content().is_empty() {
            self.held_bytes -= block.cost_bytes();
            blocks.give(block);
        } else {
            if let Some(hellos) = &mut self.hellos {
                hellos.came_back(block.content().len());
            }
            block.next = self.chain.take();
            self.chain = Some(block);
        }
    }

    /// Drops what is not in the kernel's hands; returns how many bytes that was.
    pub fn clear(&mut self, blocks: &mut BlockPool) -> usize {
        while let Some(mut block) = self.chain.take() {
            self.chain = block.next.take();
            self.held_bytes -= block.cost_bytes();
            blocks.give(block);
        }
        if let Some(hellos) = self.hellos.take() {
            hellos.clear(blocks);
        }
        let left = self.in_kernel_bytes.unwrap_or(0);
        std::mem::replace(&mut self.unsent_bytes, left) - left
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use disrust_protocol::{RequestLayout, ServerHello};
    use proptest::prelude::*;

    use super::*;
    use crate::exchange::model_version::ModelVersion;
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

    fn answers(model_name: &str) -> HelloAnswers {
        HelloAnswers::new(RequestLayout::new(3), model_name, Arc::new(ModelVersion::new(0)))
    }

    fn hello(model_name: &str, model_version: u64) -> Vec<u8> {
        let hello = ServerHello { feature_dim: 3, outputs: 1, max_vectors: 64, model_version, model_name };
        let mut bytes = Vec::new();
        hello.write(&mut bytes);
        bytes
    }

    #[derive(Debug, Clone)]
    enum Happening {
        Bytes(usize),
        Hellos(u32, u64),
        /// A send takes so many bytes.
        Sends(usize),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            (0..40_usize).prop_map(Happening::Bytes),
            (1..5_u32, 0..2_u64).prop_map(|(hellos, version)| Happening::Hellos(hellos, version)),
            (0..80_usize).prop_map(Happening::Sends),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        /// Answers to hellos leave in their places, however little a block holds and each send takes; what all of it will be is
        /// owed from the beginning, and what is held for it is counted until it is gone.
        #[test]
        fn hellos_are_answered_in_their_places(
            happenings in prop::collection::vec(happening(), 0..60),
            block_bytes in prop_oneof![Just(1_usize), Just(16), Just(300)],
            name_bytes in prop_oneof![Just(0_usize), Just(3), Just(255)],
            clears in any::<bool>(),
        ) {
            let mut blocks = blocks(block_bytes);
            let name = "n".repeat(name_bytes);
            let answers = answers(&name);
            let (mut buffer, mut expected, mut sent) = (SendBuffer::default(), Vec::new(), Vec::new());
            let send = |buffer: &mut SendBuffer, blocks: &mut BlockPool, sent: &mut Vec<u8>, bytes: usize| {
                let block = buffer.send(&answers, blocks);
                let part = block.content().len().min(bytes);
                sent.extend_from_slice(&block.content()[..part]);
                buffer.send_completed(block, part, blocks);
            };
            for happening in happenings {
                match happening {
                    Happening::Bytes(count) => {
                        let bytes: Vec<u8> = (0..count).map(|byte| (expected.len() + byte) as u8).collect();
                        buffer.append(&bytes, &mut blocks);
                        expected.extend(bytes);
                    }
                    Happening::Hellos(hellos, version) => {
                        buffer.append_hellos(hellos, version, &answers, &mut blocks);
                        (0..hellos).for_each(|_| expected.extend(hello(&name, version)));
                    }
                    Happening::Sends(bytes) if buffer.can_send() => send(&mut buffer, &mut blocks, &mut sent, bytes),
                    Happening::Sends(_) => {}
                }
                prop_assert_eq!(buffer.unsent_bytes(), expected.len() - sent.len());
                prop_assert_eq!(buffer.held_bytes(), blocks.lent_bytes());
                prop_assert!(expected.starts_with(&sent));
            }
            if clears {
                prop_assert_eq!(buffer.clear(&mut blocks), expected.len() - sent.len());
            }
            while buffer.can_send() {
                send(&mut buffer, &mut blocks, &mut sent, usize::MAX);
            }
            prop_assert!(clears || sent == expected);
            prop_assert_eq!((buffer.unsent_bytes(), blocks.lent(), blocks.lent_bytes()), (0, 0, 0));
        }
    }

    /// A flood of hellos holds next to nothing until its answers are sent.
    #[test]
    fn hellos_in_a_row_hold_no_answers() {
        let mut blocks = blocks(16 * 1024);
        let (mut buffer, answers) = (SendBuffer::default(), answers(&"n".repeat(255)));
        (0..1000).for_each(|_| buffer.append_hellos(1000, 7, &answers, &mut blocks));
        assert_eq!(buffer.unsent_bytes(), 279_000_000);
        assert!(buffer.held_bytes() < 100, "{} bytes are held", buffer.held_bytes());
        let block = buffer.send(&answers, &mut blocks);
        assert_eq!(block.content().len(), 16 * 1024);
        buffer.send_completed(block, 0, &mut blocks);
        buffer.clear(&mut blocks);
        assert_eq!(blocks.lent_bytes(), 0);
    }

    /// Where answers stand between them, each run of hellos holds a place, which counts against the budget.
    #[test]
    fn places_of_hellos_are_held() {
        let mut blocks = blocks(16 * 1024);
        let (mut buffer, answers) = (SendBuffer::default(), answers("sum"));
        for _ in 0..1000 {
            buffer.append_hellos(1, 7, &answers, &mut blocks);
            buffer.append(&[1], &mut blocks);
        }
        assert!(buffer.held_bytes() > 1000 * (1 + size_of::<u64>() + size_of::<u32>()));
        assert_eq!(buffer.held_bytes(), blocks.lent_bytes());
        buffer.clear(&mut blocks);
        assert_eq!((buffer.held_bytes(), blocks.lent_bytes()), (0, 0));
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
                let block = buffer.send(&answers(""), &mut blocks);
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
        let block = buffer.send(&answers(""), &mut blocks);
        assert_eq!(buffer.clear(&mut blocks), 4);
        assert_eq!((buffer.unsent_bytes(), blocks.lent()), (4, 1));
        buffer.send_completed(block, 0, &mut blocks);
        assert_eq!(buffer.clear(&mut blocks), 4);
        assert_eq!((buffer.unsent_bytes(), blocks.lent()), (0, 0));
    }
}
