//! A token for a role that one thread plays at a time, and that whoever brings work can take over.
//!
//! Nobody waits for it. Whoever has brought work knocks: if the role is free, he has it now; if somebody plays it, the knock
//! makes that one look for work once more before he gives the role back. What the role is, and the work, are the
//! business of who uses this ([`crate::batch::BatchRole`]). It wakes nobody ([`super::wake`]).
//!
//! Invariants
//! - One thread has the role at most: the one whose knock found it free, until it gives the role back or leaves it.
//! - Work that was brought before a knock is looked for after it: by the knocker if he has the role now, or else by who has
//!   it, in a look that begins after the knock, unless that one leaves.
//!
//! | atomic | writers | readers | guards | ordering |
//! |---|---|---|---|---|
//! | `state` | knockers swap; who has the role, in `begin_look`, `give_back` and `leave` | both | what the role is played with, and the work that was brought before a knock | AcqRel swaps, Release in `give_back` |
//!
//! All changes are read-modify-writes, so each reads the one before it in the order of modification. A knock is Release and a look's beginning Acquire: it reads the knock, or one that came later and has read
//! that one, and so sees the work. What frees the role is Release, and the knock that finds it free Acquire: who plays
//! the role sees all that was done in it before. `tests/models.rs` checks it in every interleaving.
#![forbid(unsafe_code)]

use crossbeam_utils::CachePadded;

use super::sync::atomic::{AtomicU8, Ordering};

/// Nobody plays the role.
const FREE: u8 = 0;
/// Somebody does, and nobody has knocked since the last look began.
const PLAYED: u8 = 1;
/// Somebody does, and must look again.
const KNOCKED: u8 = 2;

/// See the module.
#[derive(Debug)]
pub struct Token {
    state: CachePadded<AtomicU8>,
}

impl Token {
    /// Of a role that is free.
    pub fn new() -> Token {
        Token { state: CachePadded::new(AtomicU8::new(FREE)) }
    }

    /// Whoever has brought work, or comes to see whether somebody has: returns whether he has the role now. Then he looks for
    /// work, and ends with [`Token::give_back`] or [`Token::leave`].
    #[must_use]
    pub fn knock(&self) -> bool {
        // AcqRel: see the module.
        self.state.swap(KNOCKED, Ordering::AcqRel) == FREE
    }

    /// Who has the role: what was brought before any knock until now is seen by the look that follows.
    pub fn begin_look(&self) {
        // AcqRel: see the module. Release, for a knock that reads this.
        self.state.swap(PLAYED, Ordering::AcqRel);
    }

    /// Who has the role, after a look: gives it back, unless somebody has knocked since the look began. Returns whether it did.
    #[must_use]
    pub fn give_back(&self) -> bool {
        // Release: see the module. Relaxed where it fails: the next look's beginning acquires.
        self.state.compare_exchange(PLAYED, FREE, Ordering::Release, Ordering::Relaxed).is_ok()
    }

    /// Who has the role: gives it back whoever has knocked. There may be work, which somebody else must be made to look for.
    pub fn leave(&self) {
        // AcqRel, and no mere store: whoever has the role next sees the work of those who have knocked at this one's.
        self.state.swap(FREE, Ordering::AcqRel);
    }
}

impl Default for Token {
    fn default() -> Token {
        Token::new()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sync::check;
    use super::*;

    #[test]
    fn a_knock_is_for_who_plays_or_makes_one_play() {
        check(|| {
            let token = Token::new();
            assert!(token.knock());
            token.begin_look();
            assert!(!token.knock() && !token.give_back(), "he must look again");
            token.begin_look();
            assert!(token.give_back());
            assert!(token.knock());
            assert!(!token.give_back(), "he has not looked yet");
            token.leave();
            assert!(token.knock());
        });
    }
}
