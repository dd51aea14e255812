//! Since when what a connection receives could have been received.
//!
//! While a connection has no credit, or its thread has no buffers, bytes wait in its socket, where nobody sees them. When it is
//! received from again, the thread asks the kernel how many are there, and those have waited since it was not: some may have
//! come later than that, but not by more than the batch processor takes for a step. They may take many turns of credit to be
//! received. All others are received when they come.
//!
//! Time in which the peer itself is waited for, because it does not take its answers, does not count.
//!
//! Invariants: the first of those that wait is still to be received; times and places ascend. So [`Backlog::received`] tells
//! of a time that never goes back.
#![forbid(unsafe_code)]

use std::collections::VecDeque;

use crate::limits::BACKLOG_PARTS_MAX;

/// Why a connection is not received from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Its requests are under way, or there are no buffers.
    Server,
    /// It does not take its answers.
    Peer,
}

/// Bytes that wait in the socket.
#[derive(Debug)]
struct Waiting {
    /// The last of them, of all bytes that come.
    upto_bytes: u64,
    since_ns: u64,
}

/// One connection's backlog.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Of all bytes that come, so many have been received.
    received_bytes: u64,
    /// Since when the connection is not received from for our sake; later by as long as the peer was waited for.
    held_since_ns: Option<u64>,
    /// Since when the peer is waited for.
    peer_since_ns: Option<u64>,
    /// What is known to wait.
    parts: Option<Box<Parts>>,
}

/// On the heap: most connections never have any.
#[derive(Debug, Default)]
struct Parts {
    waiting: VecDeque<Waiting>,
}

impl Backlog {
    /// The connection is not received from at this time.
    pub fn held(&mut self, by: Hold, now_ns: u64) {
        match by {
            Hold::Peer => {
                self.peer_since_ns.get_or_insert(now_ns);
            }
            Hold::Server => {
                self.peer_goes_on(now_ns);
                self.held_since_ns.get_or_insert(now_ns);
            }
        }
    }

    /// It is received from again. Whether it is worth asking how much waits: then tell by [`Backlog::waits`].
    pub fn resumes(&mut self, now_ns: u64) -> bool {
        self.peer_goes_on(now_ns);
        self.held_since_ns.is_some()
    }

    fn peer_goes_on(&mut self, now_ns: u64) {
        self.discount(now_ns);
        self.peer_since_ns = None;
    }

    /// Takes the time for which the peer was waited for off what has waited.
    fn discount(&mut self, now_ns: u64) {
        let Some(peer_since_ns) = &mut self.peer_since_ns else { return };
        let passed_ns = now_ns.saturating_sub(std::mem::replace(peer_since_ns, now_ns));
        let parts = self.parts.iter_mut().flat_map(|parts| &mut parts.waiting);
        let others = parts.map(|waiting| &mut waiting.since_ns);
        others.chain(&mut self.held_since_ns).for_each(|since_ns| *since_ns += passed_ns);
    }

    /// So many bytes wait in the socket of a connection that is received from again.
    pub fn waits(&mut self, bytes: usize) {
        let Some(since_ns) = self.held_since_ns.take() else { return };
        let upto_bytes = self.received_bytes + bytes as u64;
        let waiting = &mut self.parts.get_or_insert_default().waiting;
        let is_full = waiting.len() == BACKLOG_PARTS_MAX;
        match waiting.back_mut() {
            Some(last) if upto_bytes <= last.upto_bytes => {}
            Some(last) if is_full => last.upto_bytes = upto_bytes,
            _ if bytes > 0 => waiting.push_back(Waiting { upto_bytes, since_ns }),
            _ => {}
        }
    }

    /// So many bytes have been received. Returns since when the first of them could have been.
    pub fn received(&mut self, bytes: usize, now_ns: u64) -> u64 {
        self.received_bytes += bytes as u64;
        self.discount(now_ns);
        if let Some(since_ns) = &mut self.held_since_ns {
            // It came although it was not asked for any more; what is left has waited since now at least.
            *since_ns = (*since_ns).max(now_ns);
        }
        let Some(parts) = &mut self.parts else { return now_ns };
        let since_ns = parts.waiting.front().map_or(now_ns, |waiting| waiting.since_ns);
        while parts.waiting.front().is_some_and(|waiting| waiting.upto_bytes <= self.received_bytes) {
            parts.waiting.pop_front();
        }
        since_ns.min(now_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The connection has no credit for a while, and then so many bytes are there.
    fn hold(backlog: &mut Backlog, from_ns: u64, to_ns: u64, bytes: usize) {
        backlog.held(Hold::Server, from_ns);
        backlog.held(Hold::Server, (from_ns + to_ns) / 2);
        assert!(backlog.resumes(to_ns));
        backlog.waits(bytes);
    }

    #[test]
    fn what_is_never_held_has_not_waited() {
        let mut backlog = Backlog::default();
        assert!(!backlog.resumes(0));
        backlog.waits(10);
        assert_eq!([5, 9].map(|now_ns| backlog.received(10, now_ns)), [5, 9]);
    }

    #[test]
    fn what_is_there_has_waited_since_the_credit_ran_out() {
        let mut backlog = Backlog::default();
        backlog.received(7, 50);
        hold(&mut backlog, 100, 200, 25);
        assert_eq!([201, 202, 203, 204].map(|now_ns| backlog.received(10, now_ns)), [100, 100, 100, 204]);
        hold(&mut backlog, 300, 400, 0);
        assert_eq!(backlog.received(10, 401), 401, "nothing was there");
    }

    /// What takes several turns of credit to be received keeps its time, and what is behind it has that of its own.
    #[test]
    fn a_long_backlog_is_remembered_in_parts() {
        let mut backlog = Backlog::default();
        hold(&mut backlog, 100, 200, 25);
        assert_eq!(backlog.received(10, 201), 100);
        hold(&mut backlog, 210, 300, 15);
        assert_eq!(backlog.received(10, 301), 100);
        hold(&mut backlog, 310, 400, 8);
        assert_eq!([401, 402, 403].map(|now_ns| backlog.received(5, now_ns)), [100, 310, 403]);
    }

    #[test]
    fn what_comes_in_a_hold_was_there_before_what_is_left() {
        let mut backlog = Backlog::default();
        backlog.held(Hold::Server, 100);
        assert_eq!(backlog.received(10, 120), 120);
        assert!(backlog.resumes(200));
        backlog.waits(5);
        assert_eq!(backlog.received(5, 201), 120);
    }

    #[derive(Debug, Clone, Copy)]
    enum Happening {
        Held(Hold),
        Resumes(usize),
        Received(usize),
    }

    fn happening() -> impl Strategy<Value = Happening> {
        prop_oneof![
            prop_oneof![Just(Hold::Server), Just(Hold::Peer)].prop_map(Happening::Held),
            (0..20_usize).prop_map(Happening::Resumes),
            (1..20_usize).prop_map(Happening::Received),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Whatever happens, nothing has waited for longer than what was received before it: answers would come out of order.
        #[test]
        fn no_time_goes_back(happenings in prop::collection::vec((happening(), 0..3_u64), 0..100)) {
            let (mut backlog, mut now_ns, mut before_ns) = (Backlog::default(), 0, 0);
            for (happening, passed_ns) in happenings {
                now_ns += passed_ns;
                match happening {
                    Happening::Held(by) => backlog.held(by, now_ns),
                    Happening::Resumes(bytes) => {
                        if backlog.resumes(now_ns) {
                            backlog.waits(bytes);
                        }
                    }
                    Happening::Received(bytes) => {
                        let since_ns = backlog.received(bytes, now_ns);
                        prop_assert!((before_ns..=now_ns).contains(&since_ns), "{since_ns} after {before_ns}, at {now_ns}");
                        before_ns = since_ns;
                    }
                }
            }
        }
    }

    #[test]
    fn more_parts_than_are_remembered_are_taken_together() {
        let mut backlog = Backlog::default();
        let parts = BACKLOG_PARTS_MAX as u64;
        (0..parts + 5).for_each(|part| hold(&mut backlog, 100 * part, 100 * part + 50, 10 * (part as usize + 1)));
        let since: Vec<_> = (0..=parts + 5).map(|_| backlog.received(10, 10_000)).collect();
        let expected: Vec<_> = (0..parts + 5).map(|part| 100 * part.min(parts - 1)).chain([10_000]).collect();
        assert_eq!(since, expected);
    }

    #[test]
    fn time_for_which_the_peer_is_waited_for_does_not_count() {
        let mut backlog = Backlog::default();
        backlog.held(Hold::Peer, 10);
        assert!(!backlog.resumes(100), "it has not waited for us");
        backlog.held(Hold::Server, 200);
        backlog.held(Hold::Peer, 210);
        backlog.held(Hold::Peer, 500);
        backlog.held(Hold::Server, 1210);
        assert!(backlog.resumes(1300));
        backlog.waits(10);
        backlog.held(Hold::Peer, 1400);
        assert!(!backlog.resumes(1500));
        assert_eq!(backlog.received(10, 1501), 1300);
    }
}
