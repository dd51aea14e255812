//! A connection, event by event, for what depends on a moment.

use std::sync::{Arc, LazyLock};

use disrust_protocol::{HelloRequest, RequestLayout, write_request};

use super::super::hello::HelloAnswers;
use super::super::interface::{Expiry, Timeouts};
use super::*;
use crate::exchange::model_version::ModelVersion;
use crate::limits::{LINGER, LINGER_MAX};

mod hello;

const LAYOUT: RequestLayout = RequestLayout::new(1);
const HEADROOM: usize = LAYOUT.request_bytes_max();
static RULES: LazyLock<Rules> = LazyLock::new(|| Rules {
    layout: LAYOUT,
    limits: ConnectionLimits::SERVING,
    timeouts: Timeouts { request: Some(Duration::from_secs(30)), idle: Some(Duration::from_secs(5)) },
    hello: HelloAnswers::new(LAYOUT, "sum", Arc::new(ModelVersion::new(VERSION))),
});
/// The version of the model in force.
const VERSION: u64 = 0x0102_0304_0506_0708;

/// A connection with what its thread would lend it; the test plays the thread and the batch processor.
struct Bench {
    connection: Connection<()>,
    turn: Turn,
    blocks: BlockPool,
    /// Since when what was received last has waited.
    waiting_since_ns: u64,
}

impl Bench {
    fn new() -> Bench {
        let id = ConnectionId { slot: 3, generation: 7 };
        Bench {
            connection: Connection::new(id, (), 0, None),
            turn: Turn { now_ns: 0, drain: Drain::No },
            blocks: BlockPool::new(ConnectionLimits::SERVING.block_sizes(LAYOUT, 1 << 20)),
            waiting_since_ns: 0,
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Option<InferenceEvent> {
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(bytes);
        buffer.push(0);
        let arrival = Arrival { buffer: &mut buffer, headroom: HEADROOM, bytes: bytes.len() };
        let received = self.connection.received(arrival, &RULES, self.turn, &mut self.blocks);
        self.waiting_since_ns = received.waiting_since_ns;
        received.framed.map(|framed| self.connection.event_for(framed, &RULES, 0, 0))
    }

    /// Receives requests and answers them, until so many bytes of answers or a few more have not been sent.
    fn owe(&mut self, bytes: usize) {
        while self.connection.sends.unsent_bytes() < bytes {
            let Some(event) = self.receive(&requests(1000)) else { panic!("requests") };
            assert!(self.answer(event));
        }
    }

    fn answer(&mut self, event: InferenceEvent) -> bool {
        let bytes = vec![1; LAYOUT.answer_bytes(usize::from(event.requests), event.rows as usize)];
        self.connection.answered(&response(&event, &bytes), &bytes, &RULES, self.turn, &mut self.blocks)
    }

    fn step(&mut self) -> Option<Step> {
        self.connection.next_step(&RULES, self.turn, &mut self.blocks)
    }

    /// Carries out one send whole and returns its bytes.
    fn send(&mut self) -> Vec<u8> {
        let Some(Step::Send(block)) = self.step() else { panic!("a send is due") };
        let bytes = block.content().to_vec();
        self.connection.send_completed(block, bytes.len(), self.turn, &mut self.blocks);
        bytes
    }

    /// The drain refuses, the peer is quiet, and the connection is closed for it.
    fn drain_closes(&mut self) {
        self.turn.drain = Drain::Refuse;
        assert!(self.step().is_none());
        self.turn.now_ns += nanoseconds(DRAIN_QUIET);
        assert!(matches!(self.step(), Some(Step::HalfClose)));
    }

    fn expire(&mut self, expiry: Expiry) {
        self.connection.expire(expiry, self.turn, &mut self.blocks);
    }

    fn turn_at(&mut self, now_ns: u64) {
        self.turn.now_ns = now_ns;
    }

    fn end_of_stream(&mut self) {
        self.connection.receive_ended(self.turn);
        self.connection.peer_ended(&mut self.blocks);
    }

    fn assert_freed(&mut self) {
        assert!(matches!(self.step(), Some(Step::Close)));
        assert!(matches!(self.step(), Some(Step::Free)));
        assert_eq!((self.blocks.lent(), self.connection.held_bytes()), (0, 0));
    }
}

fn response(event: &InferenceEvent, answers: &[u8]) -> Response {
    Response {
        connection: event.connection,
        buffer: event.buffer,
        requests: event.requests,
        request_bytes: event.request_bytes,
        offset: event.offset,
        answer_bytes: answers.len() as u32,
        sequence: event.sequence,
        received_at_ns: event.received_at_ns,
        failed: 0,
        shed: 0,
        model_version: VERSION,
    }
}

fn requests(count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    (0..count).for_each(|_| write_request(LAYOUT, &[1.0], &mut bytes));
    bytes
}

#[test]
fn a_half_closed_peer_gets_every_answer_before_the_close() {
    let mut bench = Bench::new();
    assert!(matches!(bench.step(), Some(Step::Receive(Shots::Many))));
    let Some(event) = bench.receive(&requests(2)) else { panic!("two requests") };
    bench.end_of_stream();
    assert!(bench.step().is_none(), "the answers are owed");
    assert!(bench.answer(event));
    assert_eq!(bench.send().len(), 10);
    bench.assert_freed();
}

#[test]
fn a_bad_count_is_answered_after_the_answers_owed_then_the_peer_may_read_and_close() {
    let mut bench = Bench::new();
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    let mut bytes = requests(2);
    bytes.extend([0, 0, 0, 0, 9, 9]);
    let Some(event) = bench.receive(&bytes) else { panic!("two requests") };
    assert!(bench.step().is_none());
    assert!(bench.answer(event));
    assert!(bench.send().ends_with(&[1, 0, 1]));
    assert!(matches!(bench.step(), Some(Step::HalfClose)));
    assert!(bench.receive(&requests(1)).is_none(), "what follows is thrown away");
    assert!(bench.step().is_none());
    bench.end_of_stream();
    bench.assert_freed();
}

#[test]
fn a_slot_is_freed_only_after_the_last_completion_and_the_last_response() {
    let mut bench = Bench::new();
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    let (Some(first), Some(second)) = (bench.receive(&requests(1)), bench.receive(&requests(1))) else {
        panic!("two events")
    };
    assert!(bench.answer(first));
    let Some(Step::Send(block)) = bench.step() else { panic!("a send is due") };
    bench.connection.abandon(CloseReason::Broken, &mut bench.blocks);
    assert!(matches!(bench.step(), Some(Step::Abort)));
    assert!(bench.step().is_none());
    bench.connection.receive_ended(bench.turn);
    assert!(bench.step().is_none(), "the send is still in the kernel");
    bench.connection.send_completed(block, 0, bench.turn, &mut bench.blocks);
    assert!(matches!(bench.step(), Some(Step::Close)));
    assert!(bench.step().is_none(), "a request is still in flight");
    assert!(!bench.answer(second), "its answer goes nowhere");
    assert!(matches!(bench.step(), Some(Step::Free)));
    assert_eq!((bench.blocks.lent(), bench.connection.held_bytes()), (0, 0));
}

#[test]
#[should_panic(expected = "answers come in request order")]
fn answers_out_of_order_are_a_defect() {
    let mut bench = Bench::new();
    let (Some(_), Some(second)) = (bench.receive(&requests(1)), bench.receive(&requests(1))) else {
        panic!("two events")
    };
    bench.answer(second);
}

#[test]
#[should_panic(expected = "reaches the connection that asked")]
fn a_response_for_a_former_tenant_of_the_slot_is_a_defect() {
    let mut bench = Bench::new();
    let Some(mut event) = bench.receive(&requests(1)) else { panic!("an event") };
    event.connection.generation -= 1;
    bench.answer(event);
}

#[test]
fn receiving_stops_at_the_limit_and_goes_on_when_answers_have_left() {
    let mut bench = Bench::new();
    assert!(matches!(bench.step(), Some(Step::Receive(Shots::Many))));
    bench.owe(ConnectionLimits::SERVING.answer_bytes_owed_max);
    let Some(Step::Send(block)) = bench.step() else { panic!("a send is due") };
    assert!(matches!(bench.step(), Some(Step::CancelReceive)));
    assert!(bench.step().is_none());
    bench.connection.receive_ended(bench.turn);
    assert!(bench.step().is_none(), "nothing is received above the limit");
    let bytes = block.content().len();
    bench.connection.send_completed(block, bytes, bench.turn, &mut bench.blocks);
    let mut received_again = false;
    while let Some(step) = bench.step() {
        match step {
            Step::Send(block) => {
                let bytes = block.content().len();
                bench.connection.send_completed(block, bytes, bench.turn, &mut bench.blocks);
            }
            Step::Receive(_) => received_again = true,
            step => panic!("not due: {step:?}"),
        }
    }
    assert!(received_again);
}

/// What is owed counts by its own length, which may be hundreds of times that of the requests.
#[test]
fn receiving_stops_for_answers_that_are_longer_than_their_requests() {
    let rules = Rules { layout: RequestLayout::with_outputs(1, 700), ..RULES.clone() };
    for (count, stops) in [(10, false), (40, true)] {
        let mut bench = Bench::new();
        assert!(matches!(bench.step(), Some(Step::Receive(Shots::Many))));
        let mut buffer = vec![0; HEADROOM];
        buffer.extend(requests(count));
        let arrival = Arrival { headroom: HEADROOM, bytes: buffer.len() - HEADROOM, buffer: &mut buffer };
        let received = bench.connection.received(arrival, &rules, bench.turn, &mut bench.blocks);
        let event = bench.connection.event_for(received.framed.expect("requests"), &rules, 0, 0);
        let step = bench.connection.next_step(&rules, bench.turn, &mut bench.blocks);
        assert_eq!(matches!(step, Some(Step::CancelReceive)), stops, "{count} × 2801 bytes are owed");
        assert_eq!(bench.connection.answer_bytes_in_flight, rules.layout.answer_bytes(count, count));
        let response = response(&event, &[0, 2]);
        bench.connection.answered(&response, &[0, 2], &rules, bench.turn, &mut bench.blocks);
        assert_eq!(bench.connection.answer_bytes_in_flight, 0);
    }
}

/// A peer that reads only when it has written all would wait for us as we for it.
#[test]
fn more_is_received_from_a_peer_that_takes_nothing_while_there_is_memory() {
    let mut bench = Bench::new();
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    bench.owe(ConnectionLimits::SERVING.answer_bytes_owed_max);
    assert!(matches!(bench.step(), Some(Step::Send(_))));
    assert!(matches!(bench.step(), Some(Step::CancelReceive)));
    bench.connection.receive_ended(bench.turn);
    bench.turn.now_ns = nanoseconds(WRITER_STALL_MIN) - 1;
    bench.connection.acknowledged(0, bench.turn);
    assert!(bench.step().is_none(), "it may read in a moment");
    bench.turn.now_ns += 1;
    bench.connection.acknowledged(0, bench.turn);
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    let others = bench.blocks.take_for_request(LAYOUT.request_bytes_max());
    bench.owe(1 << 17);
    assert!(bench.blocks.pressure() >= Pressure::Low);
    assert!(matches!(bench.step(), Some(Step::CancelReceive)), "and no further when others need the memory");
    bench.blocks.give(others);
}

/// What has been freed is for those who take what they are owed: the others' requests stay in the kernel.
#[test]
fn little_is_received_from_a_peer_that_takes_nothing_when_memory_is_short() {
    let mut bench = Bench::new();
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    bench.owe(1 << 13);
    while let Some(step) = bench.step() {
        let Step::Send(block) = step else { panic!("not due: {step:?}") };
        let bytes = block.content().len();
        bench.connection.send_completed(block, bytes, bench.turn, &mut bench.blocks);
    }
    bench.connection.receive_ended(bench.turn);
    let others: Vec<_> = (0..1 << 12).map(|_| bench.blocks.take_for_request(LAYOUT.request_bytes_max())).collect();
    assert!(bench.blocks.pressure() >= Pressure::High);
    assert!(bench.step().is_none(), "it has not taken what the kernel holds for it");
    bench.connection.acknowledged(0, bench.turn);
    assert!(matches!(bench.step(), Some(Step::Receive(Shots::One))), "one at a time");
    others.into_iter().for_each(|block| bench.blocks.give(block));
}

/// A byte now and then does not let go of what is held for a request that has begun.
#[test]
fn what_is_held_for_a_request_is_held_since_it_began() {
    let mut bench = Bench::new();
    assert!(bench.receive(&requests(1)[..5]).is_none());
    bench.turn.now_ns = 1_000_000_000;
    assert!(bench.receive(&requests(1)[5..6]).is_none());
    assert_eq!(bench.connection.held_since_ns(), 0);
}

#[test]
fn a_draining_server_takes_then_refuses_in_order_then_closes() {
    let mut bench = Bench::new();
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    bench.turn.drain = Drain::LastCall;
    let Some(taken) = bench.receive(&requests(1)) else { panic!("taken until the last call is over") };
    bench.turn.drain = Drain::Refuse;
    assert!(bench.receive(&requests(2)).is_none());
    assert!(bench.step().is_none(), "refusals wait for the answers before them");
    assert!(bench.answer(taken));
    assert_eq!(bench.send(), [1, 1, 1, 1, 1, 0, 4, 0, 4]);
    assert!(bench.step().is_none(), "it is not quiet yet");
    bench.turn.now_ns += nanoseconds(DRAIN_QUIET);
    assert!(matches!(bench.step(), Some(Step::HalfClose)));
    bench.end_of_stream();
    bench.assert_freed();
}

#[test]
fn deadlines_pass_for_the_peer_that_is_late_and_not_for_the_one_we_keep_waiting() {
    let mut bench = Bench::new();
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    let at = |seconds: u64| Turn { now_ns: seconds * 1_000_000_000 + 1, ..Bench::new().turn };
    assert_eq!(bench.connection.expired(&RULES, at(4)), None);
    assert_eq!(bench.connection.expired(&RULES, at(5)), Some(Expiry::Idle));
    assert!(bench.receive(&requests(1)[..5]).is_none());
    assert_eq!(bench.connection.expired(&RULES, at(29)), None);
    assert_eq!(bench.connection.expired(&RULES, at(30)), Some(Expiry::Request));
    bench.turn = at(29);
    let Some(event) = bench.receive(&requests(1)[5..]) else { panic!("a whole request") };
    assert_eq!(bench.connection.expired(&RULES, at(100)), None, "the model is slow, not the peer");
    assert!(bench.answer(event));
    assert_eq!(bench.connection.expired(&RULES, at(66)), None, "it may acknowledge in steps");
    assert_eq!(bench.connection.expired(&RULES, at(67)), Some(Expiry::Send));
}

/// One that was seen to read, though slowly, has longer for its next step; one that has only filled its buffer has
/// not.
#[test]
fn a_peer_has_longer_for_a_step_once_it_has_needed_long_for_one() {
    for (step_seconds, seconds) in [(1, 37), (12, 37), (15, 45), (20, 60), (37, 60)] {
        let mut bench = Bench::new();
        assert!(matches!(bench.step(), Some(Step::Receive(_))));
        let Some(event) = bench.receive(&requests(2)) else { panic!("two requests") };
        assert!(bench.answer(event));
        assert_eq!(bench.send().len(), 10);
        bench.turn.now_ns = step_seconds * 1_000_000_000;
        bench.connection.acknowledged(5, bench.turn);
        bench.turn.now_ns += seconds * 1_000_000_000;
        assert_eq!(bench.connection.expired(&RULES, bench.turn), None, "after a step of {step_seconds} s");
        bench.turn.now_ns += 1_000_000_000;
        assert_eq!(bench.connection.expired(&RULES, bench.turn), Some(Expiry::Send), "{step_seconds} s");
    }
}

/// Of a Unix socket only the memory is known. Less than there was and was sent since means that the peer reads; more does not mean
/// that it does not, unless it is as much more as was sent.
#[test]
fn a_peer_of_a_unix_socket_that_reads_is_seen_to() {
    const ONE: usize = 5 + UNIX_SEND_OVERHEAD_MIN;
    let at = |seconds: u64| Turn { now_ns: seconds * 1_000_000_000, ..Bench::new().turn };
    let mut bench = Bench::new();
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    let send_one = |bench: &mut Bench| {
        let Some(event) = bench.receive(&requests(1)) else { panic!("a request") };
        assert!(bench.answer(event));
        assert_eq!(bench.send().len(), 5);
    };
    (0..3).for_each(|_| send_one(&mut bench));
    // Each takes a little more than the least.
    for seconds in [10, 20] {
        bench.turn = at(seconds);
        bench.connection.unread(3 * (ONE + 1), bench.turn);
    }
    assert_eq!(bench.connection.unacknowledged_bytes(), 15);
    assert_eq!(bench.connection.expired(&RULES, at(37)), None);
    assert_eq!(bench.connection.expired(&RULES, at(38)), Some(Expiry::Send), "it has read nothing");
    // It reads one while two are sent.
    bench.turn = at(30);
    (0..2).for_each(|_| send_one(&mut bench));
    bench.connection.unread(4 * (ONE + 1), bench.turn);
    assert!((15..25).contains(&bench.connection.unacknowledged_bytes()));
    assert_eq!(bench.connection.expired(&RULES, at(90)), None, "it is slow");
    assert_eq!(bench.connection.expired(&RULES, at(91)), Some(Expiry::Send));
    bench.connection.unread(1, at(31));
    assert!(bench.connection.awaits_acknowledgement(), "a byte of the last one is left");
    bench.connection.unread(0, at(31));
    assert_eq!(bench.connection.unacknowledged_bytes(), 0);
}

#[test]
fn whoever_waits_for_our_buffers_is_not_late() {
    let mut bench = Bench::new();
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    bench.connection.receive_ended(bench.turn);
    bench.connection.starve(bench.turn);
    bench.turn.now_ns = 100_000_000_000;
    assert_eq!(bench.connection.expired(&RULES, bench.turn), None);
    bench.connection.feed();
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    assert_eq!(bench.connection.expired(&RULES, bench.turn), None, "what it sent meanwhile is still to be received");
    bench.turn.now_ns += 5_000_000_001;
    assert_eq!(bench.connection.expired(&RULES, bench.turn), Some(Expiry::Idle));
}

/// The end of its request may lie in the socket.
#[test]
fn the_time_in_which_nothing_is_received_does_not_count_for_a_request_that_has_begun() {
    let mut bench = Bench::new();
    let at = |seconds: u64| Turn { now_ns: seconds * 1_000_000_000 + 1, ..Bench::new().turn };
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    assert!(bench.receive(&requests(1)[..5]).is_none());
    bench.turn = at(10);
    bench.connection.receive_ended(bench.turn);
    bench.connection.starve(bench.turn);
    bench.turn = at(100);
    bench.connection.feed();
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    assert_eq!(bench.connection.expired(&RULES, at(119)), None, "of 30 s it has had 29");
    assert_eq!(bench.connection.expired(&RULES, at(120)), Some(Expiry::Request));
}

/// What is there when a connection has credit again has waited since it had none; but not while its peer took no answers.
#[test]
fn what_waits_for_credit_has_waited() {
    for peer_takes_ns in [0, 4000] {
        let mut bench = Bench::new();
        assert!(matches!(bench.step(), Some(Step::Receive(_))));
        bench.turn_at(1000);
        let Some(event) = bench.receive(&requests(13_200)) else { panic!("requests") };
        assert_eq!(bench.waiting_since_ns, 1000);
        assert!(matches!(bench.step(), Some(Step::CancelReceive)));
        bench.connection.receive_ended(bench.turn);
        bench.turn_at(2000);
        assert!(bench.answer(event));
        let Some(Step::Send(block)) = bench.step() else { panic!("a send is due") };
        assert!(bench.step().is_none());
        bench.turn_at(2000 + peer_takes_ns);
        let sent = block.content().len();
        bench.connection.send_completed(block, sent, bench.turn, &mut bench.blocks);
        assert!(matches!(bench.step(), Some(Step::Send(_))));
        assert!(matches!(bench.step(), Some(Step::Receive(_))));
        assert!(bench.connection.resumes(bench.turn));
        bench.connection.waits(8);
        bench.turn_at(2001 + peer_takes_ns);
        assert!(bench.receive(&requests(1)).is_some());
        assert_eq!(bench.waiting_since_ns, 1000 + peer_takes_ns, "for 1001 ns");
        assert!(bench.receive(&requests(1)).is_some());
        assert_eq!(bench.waiting_since_ns, 2001 + peer_takes_ns);
    }
}

/// An old connection is ended in words: what is under way is answered, what comes then is refused, and when its peer has fallen quiet
/// it is closed, each in its time.
#[test]
fn an_old_connection_refuses_and_closes() {
    const OLD_AT: u64 = 1_000_000_000;
    let mut bench = Bench::new();
    bench.connection = Connection::new(bench.connection.id, (), 0, Some(OLD_AT));
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    let Some(event) = bench.receive(&requests(1)) else { panic!("a request") };
    bench.turn_at(OLD_AT);
    assert_eq!(bench.connection.deadline(&RULES), Some((OLD_AT, Expiry::Age)));
    assert_eq!(bench.connection.expired(&RULES, bench.turn), None);
    bench.turn_at(OLD_AT + 1);
    assert_eq!(bench.connection.expired(&RULES, bench.turn), Some(Expiry::Age));
    bench.expire(Expiry::Age);
    assert!(bench.step().is_none());
    assert!(bench.receive(&requests(2)).is_none(), "they are refused");
    assert_eq!(bench.connection.deadline(&RULES), None, "an answer is owed");
    assert!(bench.step().is_none());
    assert!(bench.answer(event));
    assert_eq!(bench.send().split_at(5).1, [0, 4, 0, 4]);
    bench.connection.acknowledged(0, bench.turn);
    assert!(bench.step().is_none());
    let quiet_at = OLD_AT + 1 + nanoseconds(DRAIN_QUIET);
    assert_eq!(bench.connection.deadline(&RULES), Some((quiet_at, Expiry::Age)));
    bench.turn_at(quiet_at - 1);
    assert!(bench.step().is_none());
    bench.turn_at(quiet_at);
    assert!(matches!(bench.step(), Some(Step::HalfClose)));
    bench.end_of_stream();
    assert_eq!(bench.connection.close_reason(), CloseReason::Age);
    bench.assert_freed();
}

/// One that sends without a pause is closed after a while of refusing.
#[test]
fn an_old_connection_that_never_falls_quiet_closes() {
    let mut bench = Bench::new();
    bench.connection = Connection::new(bench.connection.id, (), 0, Some(0));
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    bench.turn_at(1);
    bench.expire(Expiry::Age);
    assert!(bench.step().is_none());
    for tenth in 1..=10 {
        bench.turn_at(1 + tenth * nanoseconds(DRAIN_REFUSE) / 10);
        assert!(bench.receive(&requests(1)).is_none());
        assert_eq!(bench.send(), [0, 4]);
    }
    assert!(matches!(bench.step(), Some(Step::HalfClose)));
}

/// The last word on how a connection ends counts, until it is gone.
#[test]
fn a_connection_tells_how_it_ended() {
    let reason = |happens: fn(&mut Bench)| {
        let mut bench = Bench::new();
        assert!(matches!(bench.step(), Some(Step::Receive(_))));
        happens(&mut bench);
        bench.connection.close_reason()
    };
    assert_eq!(reason(Bench::end_of_stream), CloseReason::Peer);
    assert_eq!(reason(|bench| assert!(bench.receive(&[0; 4]).is_none())), CloseReason::Framing);
    assert_eq!(reason(|bench| assert!(bench.receive(&hello(2)).is_none())), CloseReason::FeatureDim);
    assert_eq!(reason(Bench::drain_closes), CloseReason::Drain);
    let closes: [(_, fn(&mut Bench)); 5] = [
        (CloseReason::Idle, |bench| bench.expire(Expiry::Idle)),
        (CloseReason::RequestTimeout, |bench| bench.expire(Expiry::Request)),
        (CloseReason::SendTimeout, |bench| bench.expire(Expiry::Send)),
        (CloseReason::Linger, |bench| {
            bench.drain_closes();
            bench.expire(Expiry::Linger);
        }),
        (CloseReason::Cut, |bench| {
            bench.drain_closes();
            bench.expire(Expiry::Send);
            bench.connection.abandon(CloseReason::Broken, &mut bench.blocks);
        }),
    ];
    for (expected, happens) in closes {
        assert_eq!(reason(happens), expected);
    }
}

#[test]
fn a_lingering_peer_is_given_up() {
    let mut bench = Bench::new();
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    bench.connection.end_gracefully(CloseReason::Idle);
    assert!(matches!(bench.step(), Some(Step::HalfClose)));
    bench.turn.now_ns = nanoseconds(LINGER);
    assert_eq!(bench.connection.expired(&RULES, bench.turn), None);
    bench.turn.now_ns += 1;
    assert_eq!(bench.connection.expired(&RULES, bench.turn), Some(Expiry::Linger));
}

/// The linger time is for reading to the end; before that, what is owed has to be acknowledged, in a time of its own.
#[test]
fn a_half_closed_peer_has_time_to_acknowledge() {
    let mut bench = Bench::new();
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    let Some(event) = bench.receive(&requests(1)) else { panic!("a request") };
    assert!(bench.answer(event));
    bench.connection.end_gracefully(CloseReason::Idle);
    assert_eq!(bench.send().len(), 5);
    assert!(matches!(bench.step(), Some(Step::HalfClose)));
    bench.turn.now_ns = nanoseconds(LINGER_MAX) + 1;
    bench.connection.acknowledged(6, bench.turn);
    assert_eq!(bench.connection.expired(&RULES, bench.turn), None, "5 bytes and the FIN are on their way");
    bench.turn.now_ns = 60_000_000_001;
    assert_eq!(bench.connection.expired(&RULES, bench.turn), Some(Expiry::Send));
    bench.connection.acknowledged(0, bench.turn);
    assert_eq!(bench.connection.expired(&RULES, bench.turn), None);
    bench.turn.now_ns += nanoseconds(LINGER) + 1;
    assert_eq!(bench.connection.expired(&RULES, bench.turn), Some(Expiry::Linger));
}

fn hello(feature_dim: u32) -> Vec<u8> {
    HelloRequest { feature_dim }.to_bytes().to_vec()
}

#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Connection<i32>>() <= 288, "{} bytes", size_of::<Connection<i32>>());
}
