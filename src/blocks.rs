//! Blocks of bytes that a thread lends to connections for as long as they need them: unsent answers, and requests
//! that are only partly received.
//!
//! An idle connection holds none. A freed block is the next one lent, so a busy thread stays within a few warm blocks;
//! [`BlockPool::trim`] gives memory back when a crowd that needed it has gone.
//!
//! Invariants: a block's content is `bytes[start..end]`; every lent block comes back to the pool that lent it.
#![forbid(unsafe_code)]

/// A fixed number of bytes, partly filled, and the next block of its owner's chain.
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

/// The blocks of one thread for one purpose.
#[derive(Debug)]
pub struct BlockPool {
    block_bytes: usize,
    retained: usize,
    /// The free blocks, the one freed last first.
    free: Option<Box<Block>>,
    free_count: usize,
    lent: usize,
    /// The fewest free blocks since the last trim: so many were not needed.
    free_min: usize,
}

impl BlockPool {
    /// A pool that starts with `retained` blocks of `block_bytes` bytes, and never keeps fewer.
    pub fn new(block_bytes: usize, retained: usize) -> BlockPool {
        let mut pool = BlockPool { block_bytes, retained, free: None, free_count: 0, lent: 0, free_min: retained };
        (0..retained).for_each(|_| pool.put(Block::new(block_bytes)));
        pool
    }

    /// Lends an empty block; allocates only if more blocks are lent than for a long time.
    pub fn take(&mut self) -> Box<Block> {
        self.lent += 1;
        let block = self.pop().unwrap_or_else(|| Block::new(self.block_bytes));
        self.free_min = self.free_min.min(self.free_count);
        block
    }

    /// Takes a block back, whatever it holds.
    pub fn give(&mut self, mut block: Box<Block>) {
        assert!(
            block.next.is_none() && block.bytes.len() == self.block_bytes,
            "a block comes back alone, to its own pool"
        );
        self.lent = self.lent.checked_sub(1).expect("a block comes back once");
        (block.start, block.end) = (0, 0);
        self.put(block);
    }

    /// Blocks that are lent now.
    pub fn lent(&self) -> usize {
        self.lent
    }

    /// Frees the blocks that nobody has needed since the last call. Returns how many bytes that was.
    pub fn trim(&mut self) -> usize {
        let surplus = self.free_min.min((self.lent + self.free_count).saturating_sub(self.retained));
        (0..surplus).for_each(|_| drop(self.pop()));
        self.free_min = self.free_count;
        surplus * self.block_bytes
    }

    fn put(&mut self, mut block: Box<Block>) {
        block.next = self.free.take();
        self.free = Some(block);
        self.free_count += 1;
    }

    fn pop(&mut self) -> Option<Box<Block>> {
        let mut block = self.free.take()?;
        self.free = block.next.take();
        self.free_count -= 1;
        Some(block)
    }
}

impl Drop for BlockPool {
    /// One by one: dropped as a chain, each block would drop the next one from within, and a long chain overflows the
    /// stack.
    fn drop(&mut self) {
        while self.pop().is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_takes_what_fits_and_gives_it_up_from_the_front() {
        let mut pool = BlockPool::new(4, 1);
        let mut block = pool.take();
        assert_eq!(block.append(b"abc"), 3);
        assert_eq!(block.append(b"defg"), 1);
        block.consume(2);
        assert_eq!(block.content(), b"cd");
        pool.give(block);
        assert!(pool.take().content().is_empty());
    }

    #[test]
    fn memory_is_given_back_after_a_crowd_and_only_then() {
        let mut pool = BlockPool::new(8, 2);
        let crowd: Vec<_> = (0..10).map(|_| pool.take()).collect();
        crowd.into_iter().for_each(|block| pool.give(block));
        pool.trim();
        assert_eq!(pool.free_count, 10, "they were needed since the last trim");
        let block = pool.take();
        pool.give(block);
        pool.trim();
        assert_eq!(pool.free_count, 2, "one was used, and two are kept");
    }

    #[test]
    #[should_panic(expected = "consumed at most once")]
    fn no_more_is_consumed_than_there_is() {
        let mut pool = BlockPool::new(4, 1);
        let mut block = pool.take();
        block.append(b"a");
        block.consume(2);
    }
}
