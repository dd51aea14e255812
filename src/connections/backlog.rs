//! Since when what a connection receives could have been received.
//!
//! While a connection has no credit, or its thread has no buffers, bytes wait in its socket, where nobody sees them. What was
//! there when receiving goes on has waited since then; that is taken for what comes at once, and for what follows as long as
//! each receive fills its buffer, but for no longer than it was held: behind that there may be a stream without a pause. It may
//! have come later than that, while requests before it or of others waited. All else is received when it comes.
//!
//! Time in which the peer itself is waited for, because it does not take its answers, does not count.
//!
//! Invariant: what is received later was not there earlier: [`Backlog::received`] tells of a time that never goes back.
#![forbid(unsafe_code)]

/// Why a connection is not received from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// Its requests are under way, or there are no buffers.
    Server,
    /// It does not take its answers.
    Peer,
}

/// One connection's backlog.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Since when bytes may have waited; later by as long as the peer was waited for.
    since_ns: Option<u64>,
    /// When it was received from again.
    resumed_at_ns: u64,
    /// Some of what waited since then has been received.
    is_begun: bool,
    /// Since when the peer is waited for.
    peer_since_ns: Option<u64>,
}

impl Backlog {
    /// The connection is not received from at this time.
    pub fn held(&mut self, by: Hold, now_ns: u64) {
        match by {
            Hold::Peer if self.since_ns.is_some() => {
                self.peer_since_ns.get_or_insert(now_ns);
            }
            Hold::Peer => {}
            Hold::Server => {
                self.goes_on(now_ns);
                if self.since_ns.is_none() || self.is_begun {
                    (self.since_ns, self.is_begun) = (Some(now_ns), false);
                }
            }
        }
    }

    /// It is received from again.
    pub fn goes_on(&mut self, now_ns: u64) {
        if let (Some(since_ns), Some(peer_since_ns)) = (&mut self.since_ns, self.peer_since_ns.take()) {
            *since_ns += now_ns.saturating_sub(peer_since_ns);
        }
        if !self.is_begun {
            self.resumed_at_ns = now_ns;
        }
    }

    /// A receive has brought something: `was_there` says that it came at once, and `fills` that it filled its buffer. Returns
    /// since when that could have been received.
    pub fn received(&mut self, was_there: bool, fills: bool, now_ns: u64) -> u64 {
        let goes_on_ns = now_ns.saturating_sub(self.resumed_at_ns);
        let may_be_of_it =
            |since_ns: &u64| !self.is_begun || goes_on_ns <= self.resumed_at_ns.saturating_sub(*since_ns);
        let since_ns = self.since_ns.filter(|since_ns| was_there && may_be_of_it(since_ns));
        if since_ns.is_some() && fills {
            self.is_begun = true;
        } else {
            (self.since_ns, self.is_begun) = (None, false);
        }
        since_ns.unwrap_or(now_ns).min(now_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection that had no credit from 100 to 200.
    fn held_for_100() -> Backlog {
        let mut backlog = Backlog::default();
        backlog.held(Hold::Server, 100);
        backlog.held(Hold::Server, 150);
        backlog.goes_on(200);
        backlog
    }

    #[test]
    fn what_is_never_held_has_not_waited() {
        let mut backlog = Backlog::default();
        assert_eq!((backlog.received(true, true, 5), backlog.received(true, false, 9)), (5, 9));
    }

    #[test]
    fn what_is_there_at_once_has_waited_since_the_credit_ran_out() {
        assert_eq!(held_for_100().received(true, false, 201), 100);
        assert_eq!(held_for_100().received(false, false, 900), 900, "it came later");
        let mut backlog = held_for_100();
        assert_eq!([201, 202].map(|now_ns| backlog.received(true, true, now_ns)), [100, 100]);
        assert_eq!([203, 204].map(|now_ns| backlog.received(true, false, now_ns)), [100, 204], "the socket was empty");
        let mut backlog = held_for_100();
        backlog.received(true, true, 201);
        assert_eq!(backlog.received(false, true, 900), 900, "there was a pause");
        let mut backlog = held_for_100();
        let stream = [201, 250, 300, 301].map(|now_ns| backlog.received(true, true, now_ns));
        assert_eq!(stream, [100, 100, 100, 301], "a stream without a pause has not waited");
    }

    /// What is left in the socket when the credit runs out again has waited since then at least, and may not have been there before.
    #[test]
    fn each_time_that_credit_runs_out_counts_anew() {
        let mut backlog = held_for_100();
        backlog.received(true, true, 201);
        backlog.held(Hold::Server, 210);
        backlog.goes_on(300);
        assert_eq!(backlog.received(true, false, 301), 210);
        let mut backlog = held_for_100();
        backlog.held(Hold::Server, 205);
        assert_eq!(backlog.received(true, false, 301), 100, "nothing was received in between");
    }

    #[test]
    fn time_for_which_the_peer_is_waited_for_does_not_count() {
        let mut backlog = Backlog::default();
        backlog.held(Hold::Peer, 10);
        backlog.goes_on(100);
        assert_eq!(backlog.received(true, false, 101), 101);
        backlog.held(Hold::Server, 200);
        backlog.held(Hold::Peer, 210);
        backlog.held(Hold::Peer, 500);
        backlog.held(Hold::Server, 1210);
        backlog.goes_on(1300);
        assert_eq!(backlog.received(true, false, 1301), 1200);
    }
}
