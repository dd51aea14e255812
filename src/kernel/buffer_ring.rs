//! The ring through which receive buffers are lent to the kernel (IORING_REGISTER_PBUF_RING, Linux 5.19).
//!
//! It owns the ring's memory, not the buffers'. Lent buffers are used first in, first out.
//!
//! Invariants: there are as many entries as the pool has buffers, and a buffer is lent at most once (its `Buffer` is
//! consumed), so the ring never overflows. Entries become the kernel's with [`BufferRing::publish`].

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

use crate::exchange::buffer_pool::{Buffer, BufferPool};

/// The kernel asks for the ring to start on a page.
const ALIGNMENT: usize = 4096;

/// The one group of buffers of each ring.
pub(super) const GROUP: u16 = 0;

/// A pool's buffers, and the ring in which they are lent.
pub(super) struct BufferRing {
    pool: Arc<BufferPool>,
    entries: NonNull<BufRingEntry>,
    layout: Layout,
    /// Buffers lent so far, modulo 2¹⁶; the kernel has been told of those before `tail_published`.
    tail: u16,
    tail_published: u16,
}

impl BufferRing {
    /// Registers a ring for the pool's buffers and lends all of them.
    pub(super) fn register(pool: Arc<BufferPool>, submitter: &Submitter<'_>) -> io::Result<BufferRing> {
        let count = pool.geometry().buffers;
        let layout = Layout::array::<BufRingEntry>(usize::from(count))
            .and_then(|layout| layout.align_to(ALIGNMENT))
            .expect("at most 2^15 entries of 16 bytes");
        // SAFETY: the size is not zero, a pool has buffers.
        let entries = unsafe { alloc_zeroed(layout) };
        let Some(entries) = NonNull::new(entries.cast::<BufRingEntry>()) else { handle_alloc_error(layout) };
        let mut ring = BufferRing { pool, entries, layout, tail: 0, tail_published: 0 };
        // SAFETY: the memory is page-aligned, holds `count` entries, and is freed by `Drop`, which the owner of the
        // io_uring runs only after the io_uring is closed (field order in `UringKernel`).
        unsafe { submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, count, GROUP, 0)? };
        for index in 0..count {
            let buffer = ring.pool.adopt(index);
            ring.lend(buffer);
        }
        ring.publish();
        Ok(ring)
    }

    /// The pool whose buffers these are.
    pub(super) fn pool(&self) -> &BufferPool {
        &self.pool
    }

    /// Keeps the pool's memory for ever, because the kernel may still write to it.
    pub(super) fn leak_pool(&self) {
        std::mem::forget(Arc::clone(&self.pool));
    }

    /// Adds a buffer behind those that are lent.
    pub(super) fn lend(&mut self, buffer: Buffer) {
        let geometry = self.pool.geometry();
        let area = self.pool.receive_area(&buffer);
        let place = usize::from(self.tail & (geometry.buffers - 1));
        // SAFETY: `place < buffers`, the number of entries allocated.
        let entry = unsafe { self.entries.add(place) };
        let index = self.pool.ship(buffer);
        // SAFETY: the entry is initialised (zeroed) and not the kernel's: of `buffers` entries at most `buffers - 1`
        // others are lent, since this buffer was not. The tail shares entry 0's last two bytes, which are not written.
        let entry = unsafe { &mut *entry.as_ptr() };
        entry.set_addr(area.as_ptr() as u64);
        entry.set_len(u32::try_from(geometry.receive_bytes).expect("a receive area's size fits 32 bits"));
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
    }

    /// Lets the kernel use the buffers lent so far.
    pub(super) fn publish(&mut self) {
        if self.tail == self.tail_published {
            return;
        }
        // SAFETY: `entries` is the first entry of the registered ring.
        let tail = unsafe { BufRingEntry::tail(self.entries.as_ptr()) };
        // SAFETY: the tail is two aligned bytes of memory that lives as long as `self`; we only write it atomically,
        // and the kernel only reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: pairs with the kernel's acquire load of the tail; the entries come first.
        tail.store(self.tail, Ordering::Release);
        self.tail_published = self.tail;
    }
}

impl Drop for BufferRing {
    fn drop(&mut self) {
        // SAFETY: allocated in `register` with this layout; the io_uring that used it is closed.
        unsafe { dealloc(self.entries.as_ptr().cast(), self.layout) }
    }
}
