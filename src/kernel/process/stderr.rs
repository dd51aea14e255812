//! The last way to say something: to stderr, without a thread, without memory, and without waiting for ever.

use std::time::{Duration, Instant};

/// What a pipe or a socket that is ready takes at once: PIPE_BUF, pipe(7).
const CHUNK_BYTES: usize = 4096;

/// Writes as far as stderr takes it within `patience`: nobody may be reading it, and it may be closed.
///
/// Each piece is written only after poll(2) has said that it will be taken. Another process that writes to the same pipe in
/// between can take its place; then this waits for longer, as any writer does.
pub fn write_to_stderr(text: &[u8], patience: Duration) {
    let begun_at = Instant::now();
    let mut rest = text;
    while !rest.is_empty() {
        let remaining = patience.saturating_sub(begun_at.elapsed());
        let mut stderr = libc::pollfd { fd: libc::STDERR_FILENO, events: libc::POLLOUT, revents: 0 };
        let milliseconds = libc::c_int::try_from(remaining.as_millis()).unwrap_or(libc::c_int::MAX);
        // SAFETY: poll(2) reads and writes one pollfd, which this is.
        let ready = unsafe { libc::poll(&raw mut stderr, 1, milliseconds) };
        if ready != 1 || stderr.revents & libc::POLLOUT == 0 {
            return;
        }
        let chunk = &rest[..rest.len().min(CHUNK_BYTES)];
        // SAFETY: write(2) reads `chunk.len()` bytes of `chunk`.
        let written = unsafe { libc::write(libc::STDERR_FILENO, chunk.as_ptr().cast(), chunk.len()) };
        let Ok(written @ 1..) = usize::try_from(written) else { return };
        rest = &rest[written..];
    }
}

/// From now on a file that has reached a limit on its size (RLIMIT_FSIZE) refuses what is written to it, as a full one does, and
/// does not end the process (SIGXFSZ): it may be where stderr or stdout goes.
pub fn outlive_file_size_limit() {
    // SAFETY: signal(2) with SIG_IGN installs no handler; nothing of ours runs on the signal.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
