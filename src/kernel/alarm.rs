//! The two ways in which a thread is woken: an eventfd for one that sleeps in io_uring, a park token for one that parks.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use crate::exchange::wake::Alarm;

/// An eventfd (eventfd(2)); the I/O thread keeps a read of it in its ring.
#[derive(Debug, Clone)]
pub struct EventFd {
    file: Arc<File>,
}

impl EventFd {
    /// Makes an eventfd whose count is 0.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn new() -> io::Result<EventFd> {
        // SAFETY: eventfd(2) takes two integers and touches no memory.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(EventFd { file: Arc::new(File::from(descriptor)) })
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Alarm for EventFd {
    fn ring(&self) {
        // A write of 8 bytes is whole or fails. It blocks only at a count of 2⁶⁴ − 2, which single rings never reach.
        let written = (&*self.file).write(&1_u64.to_ne_bytes());
        assert!(written.is_ok_and(|bytes| bytes == 8), "an eventfd takes a wake");
    }
}

/// A thread that parks (`std::thread::park`); it says who it is before anyone needs to wake it.
#[derive(Debug, Clone, Default)]
pub struct ThreadAlarm {
    thread: Arc<OnceLock<Thread>>,
}

impl ThreadAlarm {
    /// Makes the calling thread the one that is woken.
    ///
    /// # Panics
    /// If there is one already.
    pub fn attach_current_thread(&self) {
        assert!(self.thread.set(std::thread::current()).is_ok(), "one thread has one alarm");
    }
}

impl Alarm for ThreadAlarm {
    fn ring(&self) {
        // A thread that has not attached yet has not slept yet either, and looks for work before it does.
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}
