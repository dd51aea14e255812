//! Memory that the allocator holds and nobody uses, back to the system.

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
