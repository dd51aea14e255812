//! Memory: whether there is enough to start, words when there is none, and what nobody uses back to the system.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{self, Write};
use std::time::Duration;

use super::stderr::write_to_stderr;

/// The system's allocator, but that a process without memory says so and ends, with status 70, where it would abort.
///
/// So an allocation that fails is not seen by who asked for it, who could do nothing about it: the server reserves what it
/// needs when it starts, and what it needs beyond that, for its peers, has a bound.
pub struct SpeakingAllocator;

// SAFETY: everything is the system allocator's, which keeps the contract; a null pointer is not passed on, but ends the
// process.
unsafe impl GlobalAlloc for SpeakingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `alloc`'s contract, which is the same.
        spoken(unsafe { System.alloc(layout) }, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps `alloc_zeroed`'s contract, which is the same.
        spoken(unsafe { System.alloc_zeroed(layout) }, layout.size())
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // SAFETY: the caller keeps `realloc`'s contract, which is the same; the pointer came from `System`.
        spoken(unsafe { System.realloc(pointer, layout, bytes) }, bytes)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract, which is the same; the pointer came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn spoken(pointer: *mut u8, bytes: usize) -> *mut u8 {
    if pointer.is_null() {
        end_without_memory(bytes);
    }
    pointer
}

/// Says it without allocating.
#[cold]
fn end_without_memory(bytes: usize) -> ! {
    const STATUS: libc::c_int = 70;
    let mut words = [0; 256];
    let mut rest = &mut words[..];
    let said = writeln!(
        rest,
        "disrust: the system refuses {bytes} bytes of memory. The likely cause is a limit on the address space. Try: a \
         higher ulimit -v, or fewer --io-threads"
    );
    let length = if said.is_ok() { 256 - rest.len() } else { 0 };
    write_to_stderr(&words[..length], Duration::from_secs(1));
    // SAFETY: _exit(2) runs nothing and does not return. Whatever this thread holds locked, nobody waits for any more.
    unsafe { libc::_exit(STATUS) }
}

/// Whether this much address space can be had at once, beyond what is used. It is reserved for a moment and not used, so
/// only the limit on it (RLIMIT_AS) can refuse.
///
/// # Errors
/// It can't be had.
pub fn check_address_space(bytes: usize) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: mmap(2) of new, private, inaccessible pages at a place of the kernel's choice touches no other memory.
    let pages = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
    if pages == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: these pages were mapped above, and nobody knows of them.
    let unmapped = unsafe { libc::munmap(pages, bytes) };
    if unmapped == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Where the address space is limited, lets all threads allocate from one arena. glibc would reserve 64 MiB of it for each
/// thread, as long as they can be had, and they would be missing where they are needed.
pub fn spare_address_space() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: getrlimit(2) writes one rlimit, which this is.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } == 0;
    if known && limit.rlim_cur != libc::RLIM_INFINITY {
        #[cfg(target_env = "gnu")]
        // SAFETY: mallopt(3) takes two integers; M_ARENA_MAX may be set at any time.
        unsafe {
            libc::mallopt(libc::M_ARENA_MAX, 1)
        };
    }
}

/// Gives it back, as far as the C library can be told to.
///
/// glibc returns freed memory by itself only from the end of an arena, so the blocks that a crowd of slow peers needed
/// would stay resident for good; malloc_trim(3) returns whole free pages from the middle. Other C libraries return them
/// as they are freed, or have no such call.
pub fn release_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) may be called at any time from any thread; it touches only memory that is free.
    unsafe {
        libc::malloc_trim(0)
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_space_is_there_or_it_is_not() {
        assert!(check_address_space(1 << 20).is_ok());
        let error = check_address_space(usize::MAX >> 1).expect_err("no machine has as much");
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
    }
}
