//! How connections end, and how many ended so.
//!
//! The last word counts: a connection that is closed in order and whose peer then does not close is one that lingered.
#![forbid(unsafe_code)]

use super::Counter;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Its peer closed it, and had all answers.
    Peer,
    /// In order, because it was idle.
    Idle,
    /// A request was not completed in time.
    RequestTimeout,
    /// Its peer did not take its answers.
    SendTimeout,
    /// Its peer had all answers, and did not close after the half-close.
    Linger,
    /// It was reset, or its peer has vanished.
    Broken,
    /// In order, because its framing was lost (error 1).
    Framing,
    /// In order, because its hello named another number of features than the model takes (error 5).
    FeatureDim,
    /// In order, because it was old enough.
    Age,
    /// In order, because the server drained.
    Drain,
    /// Cut at the end of a drain, or given up in one with answers that its peer had not taken.
    Cut,
    /// The memory for what peers do not read or finish was used up.
    Evicted,
    /// There were too many connections; this one was never served.
    Rejected,
}

impl CloseReason {
    /// All of them.
    pub const ALL: [CloseReason; 13] = [
        CloseReason::Peer,
        CloseReason::Idle,
        CloseReason::RequestTimeout,
        CloseReason::SendTimeout,
        CloseReason::Linger,
        CloseReason::Broken,
        CloseReason::Framing,
        CloseReason::FeatureDim,
        CloseReason::Age,
        CloseReason::Drain,
        CloseReason::Cut,
        CloseReason::Evicted,
        CloseReason::Rejected,
    ];

    /// Those that say of a peer that it missed a deadline.
    pub const EXPIRED: [CloseReason; 4] =
        [CloseReason::Idle, CloseReason::RequestTimeout, CloseReason::SendTimeout, CloseReason::Linger];

    /// What it is called where it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            CloseReason::Peer => "peer",
            CloseReason::Idle => "idle",
            CloseReason::RequestTimeout => "request_timeout",
            CloseReason::SendTimeout => "send_timeout",
            CloseReason::Linger => "linger",
            CloseReason::Broken => "broken",
            CloseReason::Framing => "framing",
            CloseReason::FeatureDim => "feature_dim",
            CloseReason::Age => "age",
            CloseReason::Drain => "drain",
            CloseReason::Cut => "cut",
            CloseReason::Evicted => "evicted",
            CloseReason::Rejected => "rejected",
        }
    }
}

/// A count for each reason.
#[derive(Debug, Default)]
pub struct Closes([Counter; CloseReason::ALL.len()]);

impl Closes {
    /// The count of those that ended so.
    pub fn by(&self, reason: CloseReason) -> &Counter {
        &self.0[reason as usize]
    }

    /// How many ended in one of these ways.
    pub fn by_any(&self, reasons: &[CloseReason]) -> u64 {
        reasons.iter().map(|reason| self.by(*reason).get()).sum()
    }

    /// How many that were served have ended.
    pub fn served(&self) -> u64 {
        self.by_any(&CloseReason::ALL) - self.by(CloseReason::Rejected).get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_count_and_a_name_of_its_own() {
        let closes = Closes::default();
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(closes.by(reason).get(), 0, "{}", reason.name());
            closes.by(reason).add(1 << index);
        }
        assert_eq!(closes.by_any(&CloseReason::ALL), (1 << 13) - 1);
        assert_eq!(closes.served(), (1 << 12) - 1);
        assert_eq!(closes.by_any(&[CloseReason::Idle, CloseReason::Cut]), 1 << 1 | 1 << 10);
        let mut names = CloseReason::ALL.map(CloseReason::name);
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
