//! The memory that requests arrive in, travel in, and go home in as answers.
//!
//! A pool belongs to one I/O thread; its buffers are lent to the kernel's provided-buffer ring, filled there, shipped
//! to the batch processor, which writes the answers over the requests, and shipped back. The features are never copied.
//! It is not the provided-buffer ring itself ([`crate::kernel`] has that) and does not know what the bytes mean.
//!
//! ```text
//! buffer:  [ headroom: end of the request that began in the previous buffer | receive area: filled by the kernel ]
//! ```
//!
//! Where answers are longer than their requests, they begin in the headroom, which is larger for that.
//!
//! Invariants: whoever holds a [`Buffer`] is the only one who touches its bytes; there is at most one `Buffer` for
//! each index. A buffer that crosses a thread or goes into the kernel is shipped: its `Buffer` is dissolved into an
//! index, and the receiver adopts it. Adopting a buffer that was not shipped is a defect of ours, and panics before
//! two sides can write to the same answer.
//!
//! | atomic | writers | readers | guards | ordering |
//! |---|---|---|---|---|
//! | `shipped[index]` | the holder (`ship`), the next holder (`adopt`) | the next holder | the buffer's bytes | Release in `ship`, Acquire in `adopt` |

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crossbeam_utils::CachePadded;

use crate::limits::PoolGeometry;

/// The first buffer starts on a page. Arranged by hand: asked for such an alignment, the allocator would not take fresh
/// pages from the system but clear all of them itself, and the whole pool would be resident before its first use.
const ALIGNMENT: usize = 4096;

/// One thread's buffers.
pub struct BufferPool {
    geometry: PoolGeometry,
    /// Tells this pool's buffers from another's.
    pool: u32,
    /// The first buffer, aligned, in the allocation.
    memory: NonNull<u8>,
    allocation: NonNull<u8>,
    layout: Layout,
    /// Of each buffer, whether it is on its way to its next holder. A line each: two threads write them.
    shipped: Box<[CachePadded<AtomicBool>]>,
}

// SAFETY: the memory is reached only through a `Buffer`, of which there is at most one for each index: `adopt` makes one
// only by taking `shipped[index]` from true to false, which one caller can do, and `ship`, which sets it, consumes the
// `Buffer`. So no two threads touch the same bytes, and Release/Acquire on `shipped` orders one holder after the other.
unsafe impl Sync for BufferPool {}
// SAFETY: the allocation is not tied to a thread, and `Drop` needs only the exclusive access that it has.
unsafe impl Send for BufferPool {}

/// The right to read and write one buffer of one pool.
#[derive(Debug)]
pub struct Buffer {
    pool: u32,
    index: u16,
}

impl Buffer {
    /// Which buffer of its pool this is.
    pub fn index(&self) -> u16 {
        self.index
    }
}

impl BufferPool {
    /// Reserves the memory of a pool; pages come in as they are first used. All buffers are shipped: adopt them.
    pub fn new(geometry: PoolGeometry) -> BufferPool {
        // Relaxed: only the number's uniqueness matters.
        static POOLS: AtomicU32 = AtomicU32::new(0);
        let pool = POOLS.fetch_add(1, Ordering::Relaxed);
        let bytes = geometry.buffer_bytes() * usize::from(geometry.buffers);
        assert!(bytes > 0, "a pool has buffers");
        let layout = Layout::array::<u8>(bytes + ALIGNMENT).expect("a pool's size is bounded by the limits");
        // SAFETY: the size is not zero, asserted above.
        let allocation = unsafe { alloc_zeroed(layout) };
        let Some(allocation) = NonNull::new(allocation) else { handle_alloc_error(layout) };
        let padding = allocation.align_offset(ALIGNMENT);
        assert!(padding < ALIGNMENT, "bytes can be aligned");
        // SAFETY: `padding < ALIGNMENT`, and the allocation has that much more than the buffers take.
        let memory = unsafe { allocation.add(padding) };
        let shipped = (0..geometry.buffers).map(|_| CachePadded::new(AtomicBool::new(true))).collect();
        BufferPool { geometry, pool, memory, allocation, layout, shipped }
    }

    /// The sizes of this pool.
    pub fn geometry(&self) -> PoolGeometry {
        self.geometry
    }

    /// Takes over a shipped buffer.
    ///
    /// # Panics
    /// If it is not shipped: somebody holds it.
    pub fn adopt(&self, index: u16) -> Buffer {
        // Acquire: pairs with the Release in `ship`; the previous holder's writes are seen.
        let shipped = self.shipped[usize::from(index)].swap(false, Ordering::Acquire);
        assert!(shipped, "buffer {index} has one holder");
        Buffer { pool: self.pool, index }
    }

    /// Gives a buffer to whoever adopts it next, on any thread or through the kernel. Returns its index.
    pub fn ship(&self, buffer: Buffer) -> u16 {
        self.check(&buffer);
        // Release: pairs with the Acquire in `adopt`.
        self.shipped[usize::from(buffer.index)].store(true, Ordering::Release);
        buffer.index
    }

    /// All bytes of a buffer: the headroom, then the receive area.
    pub fn bytes<'a>(&'a self, buffer: &'a Buffer) -> &'a [u8] {
        let start = self.start(buffer);
        // SAFETY: `start` is the first of `buffer_bytes` zero-initialised bytes of the live allocation, and no `&mut`
        // to them exists while `buffer` is borrowed: `bytes_mut` borrows the only `Buffer` of this index mutably.
        unsafe { std::slice::from_raw_parts(start.as_ptr(), self.geometry.buffer_bytes()) }
    }

    /// All bytes of a buffer, to change them.
    pub fn bytes_mut<'a>(&'a self, buffer: &'a mut Buffer) -> &'a mut [u8] {
        let start = self.start(buffer);
        // SAFETY: as in `bytes`; and `buffer` is borrowed mutably, so there is no other reference to these bytes.
        unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), self.geometry.buffer_bytes()) }
    }

    /// The first byte of the receive area, for the kernel to fill once the buffer is shipped.
    pub fn receive_area(&self, buffer: &Buffer) -> NonNull<u8> {
        // SAFETY: the headroom is a part of the buffer, so the result is inside the allocation.
        unsafe { self.start(buffer).add(self.geometry.headroom_bytes) }
    }

    fn start(&self, buffer: &Buffer) -> NonNull<u8> {
        self.check(buffer);
        let offset = usize::from(buffer.index) * self.geometry.buffer_bytes();
        // SAFETY: `index < buffers` (a `Buffer` comes only from `adopt`, which indexes `shipped` with it), so `offset`
        // is inside the `buffers × buffer_bytes` bytes from `memory` on.
        unsafe { self.memory.add(offset) }
    }

    fn check(&self, buffer: &Buffer) {
        assert!(buffer.pool == self.pool, "a buffer is used with the pool that it is of");
    }
}

impl Drop for BufferPool {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout. No reference into it outlives the pool; the kernel's ring is
        // closed before its interface lets go of the pool.
        unsafe { dealloc(self.allocation.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool() -> BufferPool {
        BufferPool::new(PoolGeometry { buffers: 4, headroom_bytes: 64, receive_bytes: 128 })
    }

    #[test]
    fn buffers_do_not_overlap() {
        let pool = pool();
        let mut buffers: Vec<Buffer> = (0..4).map(|index| pool.adopt(index)).collect();
        for buffer in &mut buffers {
            let mark = buffer.index() as u8 + 1;
            pool.bytes_mut(buffer).fill(mark);
        }
        for buffer in &buffers {
            assert!(pool.bytes(buffer).iter().all(|byte| *byte == buffer.index() as u8 + 1));
            assert_eq!(pool.bytes(buffer).len(), 192);
            assert_eq!(pool.receive_area(buffer).as_ptr().addr() - pool.bytes(buffer).as_ptr().addr(), 64);
        }
    }

    #[test]
    fn what_one_holder_wrote_the_next_reads() {
        let pool = pool();
        let mut buffer = pool.adopt(2);
        pool.bytes_mut(&mut buffer)[0] = 42;
        let index = pool.ship(buffer);
        let read = std::thread::scope(|scope| scope.spawn(|| pool.bytes(&pool.adopt(index))[0]).join());
        assert_eq!(read.ok(), Some(42));
    }

    #[test]
    #[should_panic(expected = "has one holder")]
    fn a_buffer_cannot_be_held_twice() {
        let pool = pool();
        let _held = pool.adopt(1);
        let _twice = pool.adopt(1);
    }

    #[test]
    #[should_panic(expected = "the pool that it is of")]
    fn a_buffer_of_another_pool_is_refused() {
        let (pool, other) = (pool(), pool());
        let _bytes = pool.bytes(&other.adopt(0)).len();
    }
}
