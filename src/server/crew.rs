//! Threads that begin together or not at all.
//!
//! Each gets ready (which may fail), says so, and waits for the word. While any of them, or whatever else a start needs, may
//! still fail, none has begun; a [`Crew`] that is dropped sends all of them home, and none is left when that returns.
#![forbid(unsafe_code)]

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use thiserror::Error;

use crate::kernel::explain_thread_refusal;

/// Why a thread did not get ready, if not for a reason of its own.
#[derive(Debug, Error)]
pub enum CrewError {
    /// The system gives no thread.
    #[error("cannot start the thread {name}: {}", explain_thread_refusal(source))]
    Refused {
        /// The thread.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// It panicked.
    #[error("the thread {0} failed while it got ready")]
    Failed(String),
}

/// Says that a thread has ended, and whether in order.
#[derive(Debug, PartialEq, Eq)]
pub struct ThreadEnd {
    /// The thread.
    pub name: String,
    /// Whether it panicked.
    pub failed: bool,
}

/// Threads that get ready and have not begun.
pub struct Crew<E, N> {
    /// Where each thread that has begun tells of its end.
    ends: Sender<N>,
    members: Vec<Member>,
    ready_sender: Sender<Result<(), E>>,
    ready: Receiver<Result<(), E>>,
}

struct Member {
    /// The word to begin; if this goes without it, the thread goes home.
    go: Sender<()>,
    thread: JoinHandle<()>,
}

impl<E, N> Crew<E, N>
where
    E: From<CrewError> + Send + 'static,
    N: From<ThreadEnd> + Send + 'static,
{
    /// Nobody, yet.
    pub fn new(ends: Sender<N>) -> Crew<E, N> {
        let (ready_sender, ready) = channel();
        Crew { ends, members: Vec::new(), ready_sender, ready }
    }

    /// Starts a thread that gets ready by `prepare` and, once the crew begins, does `run`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn spawn<T>(
        &mut self,
        name: String,
        prepare: impl FnOnce() -> Result<T, E> + Send + 'static,
        run: impl FnOnce(T) + Send + 'static,
    ) -> Result<(), CrewError> {
        let (go, begun) = channel();
        let ready = Ready { name: name.clone(), sender: Some(self.ready_sender.clone()) };
        let (own_name, ends) = (name.clone(), self.ends.clone());
        let body = move || {
            let prepared = match prepare() {
                Ok(prepared) => prepared,
                Err(error) => return ready.send(Err(error)),
            };
            ready.send(Ok(()));
            if begun.recv().is_ok() {
                let _reports_the_end = EndReport { name: own_name, ends };
                run(prepared);
            }
        };
        match Builder::new().name(name.clone()).spawn(body) {
            Ok(thread) => self.members.push(Member { go, thread }),
            Err(source) => return Err(CrewError::Refused { name, source }),
        }
        Ok(())
    }

    /// Waits until all threads are ready.
    ///
    /// # Errors
    /// The reason of the first that is not.
    pub fn wait_until_ready(&self) -> Result<(), E> {
        // Each speaks once, whatever becomes of it.
        (0..self.members.len()).try_for_each(|_| self.ready.recv().expect("this crew has a sender itself"))
    }

    /// Lets all threads begin.
    pub fn go(mut self) -> Vec<JoinHandle<()>> {
        let begin = |member: Member| {
            // A thread that is ready waits for this, and does not fail while it waits.
            let _unheard = member.go.send(());
            member.thread
        };
        std::mem::take(&mut self.members).into_iter().map(begin).collect()
    }
}

impl<E, N> Drop for Crew<E, N> {
    fn drop(&mut self) {
        let (gos, threads): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.members).into_iter().map(|member| (member.go, member.thread)).unzip();
        drop(gos);
        for thread in threads {
            // One that panicked has said so in the log, and to whoever waited for it to be ready.
            let _failed = thread.join();
        }
    }
}

/// A thread's one chance to say whether it is ready. If it panics before, that is what is said.
struct Ready<E: From<CrewError>> {
    name: String,
    sender: Option<Sender<Result<(), E>>>,
}

impl<E: From<CrewError>> Ready<E> {
    fn send(mut self, outcome: Result<(), E>) {
        self.say(outcome);
    }

    fn say(&mut self, outcome: Result<(), E>) {
        if let Some(sender) = self.sender.take() {
            // Nobody listens any more if another one has failed.
            let _unheard = sender.send(outcome);
        }
    }
}

impl<E: From<CrewError>> Drop for Ready<E> {
    fn drop(&mut self) {
        let name = std::mem::take(&mut self.name);
        self.say(Err(CrewError::Failed(name).into()));
    }
}

/// Reports a thread's end when the thread drops it, panicking or not.
struct EndReport<N: From<ThreadEnd>> {
    name: String,
    ends: Sender<N>,
}

impl<N: From<ThreadEnd>> Drop for EndReport<N> {
    fn drop(&mut self) {
        let end = ThreadEnd { name: std::mem::take(&mut self.name), failed: std::thread::panicking() };
        // Nobody listens any more if the server has been given up, which is reported otherwise.
        let _unheard = self.ends.send(end.into());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Debug, Error)]
    enum Reason {
        #[error("the ring of {0}")]
        Ring(usize),
        #[error(transparent)]
        Crew(#[from] CrewError),
    }

    #[derive(Default)]
    struct Counts {
        prepared: AtomicUsize,
        ran: AtomicUsize,
        /// What threads hold: 1 and one more for each.
        held: Arc<()>,
    }

    /// Four threads, of which one fails if it is told to, and how.
    fn crew(counts: &Arc<Counts>, failing: Option<(usize, bool)>) -> (Crew<Reason, ThreadEnd>, Receiver<ThreadEnd>) {
        let (sender, ends) = channel();
        let mut crew = Crew::new(sender);
        for index in 0..4 {
            let (prepares, runs, held) = (Arc::clone(counts), Arc::clone(counts), Arc::clone(&counts.held));
            let prepare = move || match failing {
                Some((one, panics)) if one == index => {
                    assert!(!panics, "as it was told to");
                    Err(Reason::Ring(one))
                }
                _ => {
                    prepares.prepared.fetch_add(1, Ordering::Relaxed);
                    Ok(held)
                }
            };
            let run = move |_held| {
                runs.ran.fetch_add(1, Ordering::Relaxed);
            };
            crew.spawn(format!("thread-{index}"), prepare, run).expect("this machine has threads");
        }
        (crew, ends)
    }

    /// All begin once all are ready, and each end is told.
    #[test]
    fn a_crew_that_is_ready_begins_together() {
        let counts = Arc::new(Counts::default());
        let (crew, ends) = crew(&counts, None);
        crew.wait_until_ready().expect("nobody fails");
        assert_eq!((counts.prepared.load(Ordering::Relaxed), counts.ran.load(Ordering::Relaxed)), (4, 0));
        crew.go().into_iter().for_each(|thread| thread.join().expect("it ends in order"));
        assert_eq!((counts.ran.load(Ordering::Relaxed), ends.iter().filter(|end| !end.failed).count()), (4, 4));
    }

    /// Whichever thread fails, and however, its reason is told, none begins, and none is left.
    #[test]
    fn a_crew_of_which_one_fails_never_begins() {
        for (failing, panics) in (0..4).flat_map(|failing| [(failing, false), (failing, true)]) {
            let counts = Arc::new(Counts::default());
            let (crew, ends) = crew(&counts, Some((failing, panics)));
            let reason = crew.wait_until_ready().expect_err("one fails").to_string();
            let expected = if panics { format!("the thread thread-{failing} failed") } else { format!("of {failing}") };
            assert!(reason.contains(&expected), "{reason}");
            drop(crew);
            assert_eq!((counts.ran.load(Ordering::Relaxed), ends.iter().count()), (0, 0));
            assert_eq!(Arc::strong_count(&counts.held), 1, "nobody holds anything any more");
        }
    }

    /// A crew that is dropped for a reason of the starter's ends without having begun.
    #[test]
    fn a_crew_that_never_gets_the_word_ends() {
        let counts = Arc::new(Counts::default());
        drop(crew(&counts, None));
        assert_eq!(counts.ran.load(Ordering::Relaxed), 0);
        assert_eq!(Arc::strong_count(&counts.held), 1);
    }
}
