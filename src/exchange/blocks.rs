//! Blocks of bytes that a thread lends to connections for as long as they need them: unsent answers, and requests
//! that are only partly received. The budget for all of that is kept here, too.
//!
//! An idle connection holds none. Blocks come in fitting sizes, each twice the one before, so that a few bytes hold few
//! bytes. A freed block is the next one of its size that is lent, so a busy thread stays within a few warm blocks;
//! [`BlockPool::trim`] gives memory back when a crowd that needed it has gone.
//!
//! A block is never refused: what has been received is kept, and what has been answered is sent. It is the thread that
//! stops receiving when [`BlockPool::pressure`] says so, and what was lent to the kernel by then is all that comes on top.
//!
//! Invariants: a block's content is `bytes[start..end]`; every lent block comes back to the pool that lent it; free blocks
//! never make the pool hold more than its budget.
#![forbid(unsafe_code)]

use crate::limits::{BlockSizes, SLACK_BYTES_MAX};

/// What a block costs beside its bytes: its own fields, and the allocator's for two allocations.
const BLOCK_OVERHEAD_BYTES: usize = size_of::<Block>() + 2 * 16;

/// A number of bytes, partly filled, and the next block of its owner's chain.
#[derive(Debug)]
pub struct Block {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    pub(crate) next: Option<Box<Block>>,
}

impl Block {
    fn new(bytes: usize) -> Box<Block> {
        Box::new(Block { bytes: vec![0; bytes].into_boxed_slice(), start: 0, end: 0, next: None })
    }

    /// The content that is still to be consumed.
    pub fn content(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Bytes that it has room for when it is empty.
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// What it takes from the budget.
    pub fn cost_bytes(&self) -> usize {
        self.bytes.len() + BLOCK_OVERHEAD_BYTES
    }

    /// Adds as much of `bytes` as there is room for, and returns how much that was.
    pub fn append(&mut self, bytes: &[u8]) -> usize {
        let room = &mut self.bytes[self.end..];
        let taken = room.len().min(bytes.len());
        room[..taken].copy_from_slice(&bytes[..taken]);
        self.end += taken;
        taken
    }

    /// Drops `count` bytes from the front of the content.
    ///
    /// # Panics
    /// If the content is shorter.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.end - self.start, "a block's content is consumed at most once");
        self.start += count;
    }
}

/// How much of its budget a pool has lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pressure {
    /// Less than [`SLACK_BYTES_MAX`], and less than an eighth: a few may hold much.
    Slack,
    /// Less than half.
    Low,
    /// Half: whoever holds something should not come to hold more.
    High,
    /// All: nothing should be received that may need a block.
    Full,
}

/// The blocks of one thread.
#[derive(Debug)]
pub struct BlockPool {
    sizes: BlockSizes,
    /// By size, ascending: the smallest, and each twice the one before, but for the last, which just holds the largest.
    classes: Box<[Class]>,
    lent: usize,
    /// Costs of all blocks that are lent, with what was charged, and of all that are free.
    lent_bytes: usize,
    free_bytes: usize,
    /// Blocks beyond those retained, lent or free.
    surplus: usize,
    /// Bytes given back to the allocator since the pool was made.
    released_bytes: u64,
}

/// The free blocks of one size.
#[derive(Debug)]
struct Class {
    block_bytes: usize,
    /// The one freed last first.
    free: Option<Box<Block>>,
    free_count: usize,
    /// The fewest free blocks since the last trim: so many were not needed.
    free_min: usize,
    lent: usize,
    retained: usize,
}

impl BlockPool {
    /// A pool that starts with the blocks that it retains, as far as they fit half of its budget.
    pub fn new(sizes: BlockSizes) -> BlockPool {
        assert!(sizes.bytes_min.is_power_of_two(), "sizes are doubled from the smallest on");
        let largest = sizes.answer_bytes_max.max(sizes.request_bytes_max).max(sizes.bytes_min);
        let doubled = std::iter::successors(Some(sizes.bytes_min), |bytes| Some(2 * bytes));
        let doubled = doubled.take_while(|bytes| *bytes < largest).chain([largest]);
        let classes = doubled.map(|block_bytes| {
            let is_for_answers = block_bytes <= sizes.answer_bytes_max.next_power_of_two();
            let retained = if is_for_answers { sizes.retained } else { 0 };
            Class { block_bytes, free: None, free_count: 0, free_min: 0, lent: 0, retained }
        });
        let mut pool = BlockPool {
            sizes,
            classes: classes.collect(),
            lent: 0,
            lent_bytes: 0,
            free_bytes: 0,
            surplus: 0,
            released_bytes: 0,
        };
        for class in 0..pool.classes.len() {
            let Class { block_bytes, retained, .. } = pool.classes[class];
            let cost_bytes = block_bytes + BLOCK_OVERHEAD_BYTES;
            for _ in 0..retained {
                if pool.free_bytes + cost_bytes <= sizes.budget_bytes / 2 {
                    pool.put(class, Block::new(block_bytes));
                }
            }
            pool.classes[class].free_min = pool.classes[class].free_count;
        }
        pool
    }

    /// Lends an empty block for answers that has room for `bytes`, or is the largest for answers.
    pub fn take_for_answers(&mut self, bytes: usize) -> Box<Block> {
        self.take(bytes.min(self.sizes.answer_bytes_max))
    }

    /// Lends an empty block for a request, or for the beginning of one, of `bytes`.
    ///
    /// # Panics
    /// If no request is so long.
    pub fn take_for_request(&mut self, bytes: usize) -> Box<Block> {
        assert!(bytes <= self.sizes.request_bytes_max, "a block holds any request");
        self.take(bytes)
    }

    /// Allocates only if more blocks of this size are lent than for a long time.
    fn take(&mut self, bytes: usize) -> Box<Block> {
        let class = self.class_of(bytes);
        let block = self.pop(class).unwrap_or_else(|| self.allocate(class));
        let of_size = &mut self.classes[class];
        of_size.lent += 1;
        of_size.free_min = of_size.free_min.min(of_size.free_count);
        self.lent += 1;
        self.lent_bytes += block.cost_bytes();
        block
    }

    /// Takes a block back, whatever it holds.
    pub fn give(&mut self, mut block: Box<Block>) {
        let class = self.class_of(block.capacity());
        assert!(
            block.next.is_none() && block.capacity() == self.classes[class].block_bytes,
            "a block comes back alone, to its own pool"
        );
        self.lent = self.lent.checked_sub(1).expect("a block comes back once");
        self.lent_bytes -= block.cost_bytes();
        self.classes[class].lent -= 1;
        (block.start, block.end) = (0, 0);
        self.put(class, block);
    }

    /// Counts so many bytes that a connection holds elsewhere against the budget.
    pub fn charge(&mut self, bytes: usize) {
        self.lent_bytes += bytes;
    }

    /// It has let go of so many bytes that it was charged for.
    pub fn refund(&mut self, bytes: usize) {
        self.lent_bytes = self.lent_bytes.checked_sub(bytes).expect("what was charged comes back once");
    }

    /// Blocks that are lent now.
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// What is taken from the budget.
    pub fn lent_bytes(&self) -> usize {
        self.lent_bytes
    }

    /// How much of the budget is lent.
    pub fn pressure(&self) -> Pressure {
        if self.lent_bytes >= self.sizes.budget_bytes {
            Pressure::Full
        } else if self.lent_bytes >= self.sizes.budget_bytes / 2 {
            Pressure::High
        } else if self.lent_bytes >= SLACK_BYTES_MAX.min(self.sizes.budget_bytes / 8) {
            Pressure::Low
        } else {
            Pressure::Slack
        }
    }

    /// Frees the blocks that nobody has needed since the last call.
    pub fn trim(&mut self) {
        for class in 0..self.classes.len() {
            let Class { lent, free_count, free_min, retained, .. } = self.classes[class];
            let surplus = free_min.min((lent + free_count).saturating_sub(retained));
            (0..surplus).for_each(|_| self.release(class));
            self.classes[class].free_min = self.classes[class].free_count;
        }
    }

    /// Whether there are free blocks that a trim may find superfluous, now or later.
    pub fn can_trim(&self) -> bool {
        self.surplus > 0 && self.free_bytes > 0
    }

    /// Bytes given back to the allocator since the pool was made.
    pub fn released_bytes(&self) -> u64 {
        self.released_bytes
    }

    /// The smallest size that has room for so many bytes.
    fn class_of(&self, bytes: usize) -> usize {
        let doublings = bytes.div_ceil(self.sizes.bytes_min).max(1).next_power_of_two().ilog2() as usize;
        doublings.min(self.classes.len() - 1)
    }

    /// A new block, and for it fewer free ones of other sizes, if the budget would be exceeded otherwise.
    fn allocate(&mut self, class: usize) -> Box<Block> {
        let Class { block_bytes, lent, free_count, retained, .. } = self.classes[class];
        let block = Block::new(block_bytes);
        self.surplus += usize::from(lent + free_count >= retained);
        for other in (0..self.classes.len()).rev() {
            while self.classes[other].free_count > 0
                && self.lent_bytes + self.free_bytes + block.cost_bytes() > self.sizes.budget_bytes
            {
                self.release(other);
            }
        }
        block
    }

    fn release(&mut self, class: usize) {
        if let Some(block) = self.pop(class) {
            let Class { lent, free_count, retained, .. } = self.classes[class];
            self.surplus -= usize::from(lent + free_count >= retained);
            self.released_bytes += block.cost_bytes() as u64;
        }
    }

    fn put(&mut self, class: usize, mut block: Box<Block>) {
        self.free_bytes += block.cost_bytes();
        let class = &mut self.classes[class];
        block.next = class.free.take();
        class.free = Some(block);
        class.free_count += 1;
    }

    fn pop(&mut self, class: usize) -> Option<Box<Block>> {
        let class = &mut self.classes[class];
        let mut block = class.free.take()?;
        class.free = block.next.take();
        class.free_count -= 1;
        self.free_bytes -= block.cost_bytes();
        Some(block)
    }
}

impl Drop for BlockPool {
    /// One by one: dropped as a chain, each block would drop the next one from within, and a long chain overflows the
    /// stack.
    fn drop(&mut self) {
        for class in 0..self.classes.len() {
            while self.pop(class).is_some() {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: BlockSizes = BlockSizes {
        bytes_min: 64,
        answer_bytes_max: 256,
        request_bytes_max: 1000,
        retained: 2,
        budget_bytes: 100_000,
    };

    #[test]
    fn a_block_takes_what_fits_and_gives_it_up_from_the_front() {
        let mut pool = BlockPool::new(SIZES);
        let mut block = pool.take_for_answers(3);
        assert_eq!(block.append(b"abc"), 3);
        assert_eq!(block.append(&[b'd'; 100]), 61);
        block.consume(2);
        assert!(block.content().starts_with(b"cd"));
        pool.give(block);
        assert!(pool.take_for_answers(3).content().is_empty());
    }

    #[test]
    fn blocks_fit_what_they_are_for() {
        let mut pool = BlockPool::new(SIZES);
        for (bytes, capacity) in [(0, 64), (1, 64), (64, 64), (65, 128), (256, 256), (257, 256), (5000, 256)] {
            let block = pool.take_for_answers(bytes);
            assert_eq!(block.capacity(), capacity, "{bytes} bytes of answers");
            pool.give(block);
        }
        for (bytes, capacity) in [(5, 64), (300, 512), (512, 512), (513, 1000), (1000, 1000)] {
            let block = pool.take_for_request(bytes);
            assert_eq!(block.capacity(), capacity, "{bytes} bytes of a request");
            pool.give(block);
        }
        assert_eq!((pool.lent(), pool.lent_bytes()), (0, 0));
    }

    #[test]
    fn memory_is_given_back_after_a_crowd_and_only_then() {
        let mut pool = BlockPool::new(SIZES);
        let crowd: Vec<_> = (0..10).map(|_| pool.take_for_answers(64)).collect();
        crowd.into_iter().for_each(|block| pool.give(block));
        pool.trim();
        assert_eq!(pool.classes[0].free_count, 10, "they were needed since the last trim");
        let block = pool.take_for_answers(64);
        pool.give(block);
        assert!(pool.can_trim());
        pool.trim();
        assert_eq!(pool.classes[0].free_count, 2, "one was used, and two are kept");
        assert!(!pool.can_trim(), "a thread that has nothing to give back need not look");
    }

    #[test]
    fn free_blocks_of_one_size_make_room_for_those_of_another() {
        let mut pool = BlockPool::new(BlockSizes { budget_bytes: 4000, ..SIZES });
        let small: Vec<_> = (0..20).map(|_| pool.take_for_answers(1)).collect();
        small.into_iter().for_each(|block| pool.give(block));
        let large = pool.take_for_request(1000);
        assert!(pool.lent_bytes + pool.free_bytes <= 4000, "{} and {}", pool.lent_bytes, pool.free_bytes);
        assert!(pool.released_bytes() > 0);
        pool.give(large);
    }

    #[test]
    fn a_block_is_never_refused_and_the_pressure_tells() {
        let mut pool = BlockPool::new(BlockSizes { budget_bytes: 4 * (1000 + BLOCK_OVERHEAD_BYTES), ..SIZES });
        let mut lent = Vec::new();
        let mut pressures = Vec::new();
        for _ in 0..5 {
            pressures.push(pool.pressure());
            lent.push(pool.take_for_request(1000));
        }
        use Pressure::{Full, High, Low, Slack};
        assert_eq!(pressures, [Slack, Low, High, High, Full]);
        lent.into_iter().for_each(|block| pool.give(block));
        assert_eq!(pool.pressure(), Slack);
    }

    #[test]
    #[should_panic(expected = "consumed at most once")]
    fn no_more_is_consumed_than_there_is() {
        let mut pool = BlockPool::new(SIZES);
        let mut block = pool.take_for_answers(1);
        block.append(b"a");
        block.consume(2);
    }
}
