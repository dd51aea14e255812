//! The way back: a bounded single-producer, single-consumer queue from the batch processor to one I/O thread.
//!
//! It carries responses, never bytes: the answers lie in the buffer that a response names. It does not wake anyone
//! ([`super::wake`]). A push becomes visible with [`ResponseProducer::publish`], once for a whole poll's responses.
//!
//! Invariants: `head <= tail <= head + slots`; slots in `head..tail` belong to the consumer, the others to the
//! producer. The queue has at least as many slots as its thread has buffers, and each response in it owns one, so a
//! push never finds it full; that is asserted.
//!
//! | atomic | writer | reader | guards | ordering |
//! |---|---|---|---|---|
//! | `tail` | producer | consumer | the words of slots below it, and the bytes of their buffers | Release in `publish`, Acquire in `pop` and `is_empty` |
//! | `head` | consumer | producer | that slots below it have been read | Release in `pop`, Acquire in `push` |
//! | `slots` | producer | consumer | nothing | Relaxed: `tail` and `head` order them |
#![forbid(unsafe_code)]

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::event::Response;
use super::sync::atomic::{AtomicU64, Ordering};

/// What the two ends share.
struct Shared {
    tail: CachePadded<AtomicU64>,
    head: CachePadded<AtomicU64>,
    slots: Box<[[AtomicU64; Response::WORDS]]>,
}

/// Makes a queue of at least `slots_min` slots and returns its two ends.
pub fn response_queue(slots_min: usize) -> (ResponseProducer, ResponseConsumer) {
    let slots = (0..slots_min.next_power_of_two()).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect();
    let shared = Arc::new(Shared {
        tail: CachePadded::new(AtomicU64::new(0)),
        head: CachePadded::new(AtomicU64::new(0)),
        slots,
    });
    let producer = ResponseProducer { shared: Arc::clone(&shared), tail: 0, tail_published: 0, head_seen: 0 };
    (producer, ResponseConsumer { shared, head: 0, tail_seen: 0 })
}

/// The batch processor's end.
pub struct ResponseProducer {
    shared: Arc<Shared>,
    /// Pushes so far.
    tail: u64,
    /// Pushes that the consumer may know of.
    tail_published: u64,
    /// A lower bound of `head`, so that most pushes do not touch the consumer's cache line.
    head_seen: u64,
}

impl ResponseProducer {
    /// Adds a response, which the consumer sees after the next [`ResponseProducer::publish`].
    ///
    /// # Panics
    /// If the queue is full: then there were more responses than buffers, and somebody's would be lost.
    pub fn push(&mut self, response: Response) {
        let slots = self.shared.slots.len() as u64;
        if self.tail - self.head_seen == slots {
            // Acquire: pairs with the Release in `pop`; the consumer has read the slot before it is overwritten.
            self.head_seen = self.shared.head.load(Ordering::Acquire);
            assert!(
                self.tail - self.head_seen < slots,
                "a response queue holds as many responses as there are buffers"
            );
        }
        let slot = &self.shared.slots[(self.tail & (slots - 1)) as usize];
        for (word, value) in slot.iter().zip(response.to_words()) {
            // Relaxed: `publish` orders it.
            word.store(value, Ordering::Relaxed);
        }
        self.tail += 1;
    }

    /// Lets the consumer see all pushes so far. Returns how many of them are new to it.
    pub fn publish(&mut self) -> u64 {
        let fresh = self.tail - self.tail_published;
        if fresh > 0 {
            // Release: pairs with the Acquire in `pop`; the slots' words and the answers in the buffers come first.
            self.shared.tail.store(self.tail, Ordering::Release);
            self.tail_published = self.tail;
        }
        fresh
    }
}

/// The I/O thread's end.
pub struct ResponseConsumer {
    shared: Arc<Shared>,
    /// Pops so far.
    head: u64,
    /// A lower bound of `tail`.
    tail_seen: u64,
}

impl ResponseConsumer {
    /// Takes the oldest published response.
    pub fn pop(&mut self) -> Option<Response> {
        if self.head == self.tail_seen {
            // Acquire: pairs with the Release in `publish`.
            self.tail_seen = self.shared.tail.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        let slots = self.shared.slots.len() as u64;
        let slot = &self.shared.slots[(self.head & (slots - 1)) as usize];
        // Relaxed: the Acquire load of `tail` came first.
        let response = Response::from_words(std::array::from_fn(|index| slot[index].load(Ordering::Relaxed)));
        self.head += 1;
        // Release: pairs with the Acquire in `push`; the words are read before the slot is given back.
        self.shared.head.store(self.head, Ordering::Release);
        Some(response)
    }

    /// Whether there is nothing to pop at this moment.
    pub fn is_empty(&self) -> bool {
        // Acquire is not needed for the answer itself; it keeps one rule for `tail`.
        self.head == self.tail_seen && self.shared.tail.load(Ordering::Acquire) == self.head
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::ConnectionId;
    use super::super::sync::check;
    use super::*;

    fn response(number: u32) -> Response {
        Response {
            connection: ConnectionId { slot: number, generation: !number },
            buffer: number as u16,
            requests: 1,
            request_bytes: number,
            offset: 0,
            answer_bytes: 5,
            sequence: number,
            received_at_ns: 0,
            failed: 0,
            shed: 0,
            model_version: 0,
        }
    }

    #[test]
    fn responses_come_in_order_and_only_once_published() {
        check(|| {
            let (mut producer, mut consumer) = response_queue(3);
            producer.push(response(1));
            assert!(consumer.is_empty() && consumer.pop().is_none());
            producer.push(response(2));
            assert_eq!(producer.publish(), 2);
            assert_eq!(producer.publish(), 0);
            assert!(!consumer.is_empty());
            assert_eq!(consumer.pop(), Some(response(1)));
            assert_eq!(consumer.pop(), Some(response(2)));
            assert_eq!(consumer.pop(), None);
        });
    }

    #[test]
    fn a_queue_wraps_around() {
        check(|| {
            let (mut producer, mut consumer) = response_queue(4);
            for number in 0..40 {
                producer.push(response(number));
                producer.publish();
                if number >= 3 {
                    assert_eq!(consumer.pop(), Some(response(number - 3)));
                }
            }
        });
    }

    #[test]
    #[should_panic(expected = "as many responses as there are buffers")]
    fn a_full_queue_is_a_defect_not_a_loss() {
        check(|| {
            let (mut producer, _consumer) = response_queue(2);
            (0..3).for_each(|number| producer.push(response(number)));
        });
    }

    #[test]
    fn the_two_ends_write_different_cache_lines() {
        check(|| {
            let (producer, _consumer) = response_queue(2);
            let address = |atomic: &CachePadded<AtomicU64>| std::ptr::from_ref(atomic).addr();
            assert!(address(&producer.shared.tail).abs_diff(address(&producer.shared.head)) >= 64);
        });
    }
}
