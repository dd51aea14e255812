//! A connection whose peer says hello.

use disrust_protocol::ServerHello;

use super::*;

fn hello_answer(model_version: u64) -> Vec<u8> {
    let hello = ServerHello { feature_dim: 1, outputs: 1, max_vectors: 64, model_version, model_name: "sum" };
    let mut bytes = Vec::new();
    hello.write(&mut bytes);
    bytes
}

/// What a hello is told: of the request behind it, if that is in flight; of the moment, if none is.
#[test]
fn a_hello_is_told_the_version_that_scores_what_comes_next() {
    let version = Arc::new(ModelVersion::new(1));
    let rules = Rules { hello: HelloAnswers::new(LAYOUT, "sum", Arc::clone(&version)), ..RULES.clone() };
    let mut bench = Bench::new();
    let receive = |bench: &mut Bench, bytes: &[u8]| {
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(bytes);
        let arrival = Arrival { headroom: HEADROOM, bytes: bytes.len(), buffer: &mut buffer };
        let received = bench.connection.received(arrival, &rules, bench.turn, &mut bench.blocks);
        received.framed.map(|framed| bench.connection.event_for(framed, &rules, 0, 0))
    };
    let answer = |bench: &mut Bench, event: Option<InferenceEvent>, model_version: u64| {
        let event = event.expect("requests");
        let answers = [1, 0, 0, 0, 0].repeat(usize::from(event.requests));
        let response = Response { model_version, ..response(&event, &answers) };
        assert!(bench.connection.answered(&response, &answers, &rules, bench.turn, &mut bench.blocks));
    };
    let mut owed = Vec::new();
    let scores = [1, 0, 0, 0, 0];
    // Nothing is in flight: at once, with the version of the moment.
    let first = receive(&mut bench, &[hello(1), requests(1), hello(0), requests(2), hello(1)].concat());
    owed.extend([hello_answer(1), scores.to_vec()].concat());
    // Within the event: that of the event. Behind it: that of the next event, which is in flight by then.
    let second = receive(&mut bench, &[hello(0), requests(1)].concat());
    answer(&mut bench, first, 2);
    owed.extend([hello_answer(2), scores.repeat(2)].concat());
    answer(&mut bench, second, 3);
    owed.extend([hello_answer(3).repeat(2), scores.to_vec()].concat());
    // Behind the last one, and no request is behind it: that of the moment of the answer.
    let third = receive(&mut bench, &[requests(1), hello(1)].concat());
    version.set(5);
    answer(&mut bench, third, 4);
    owed.extend([scores.to_vec(), hello_answer(5)].concat());
    let mut sent = Vec::new();
    while let Some(step) = bench.connection.next_step(&rules, bench.turn, &mut bench.blocks) {
        if let Step::Send(block) = step {
            sent.extend_from_slice(block.content());
            let bytes = block.content().len();
            bench.connection.send_completed(block, bytes, bench.turn, &mut bench.blocks);
        }
    }
    assert_eq!(sent, owed);
    assert_eq!((bench.connection.answer_bytes_in_flight, bench.blocks.lent_bytes()), (0, 0));
}

/// Hellos owe what they will be answered with, before requests in flight and behind them, and hold nearly nothing.
#[test]
fn receiving_stops_for_hellos_whose_answers_are_not_taken() {
    let answers = ConnectionLimits::SERVING.answer_bytes_owed_max.div_ceil(RULES.hello.answer_bytes());
    for in_flight in [false, true] {
        for (count, stops) in [(answers - 1, false), (answers, true)] {
            let mut bench = Bench::new();
            assert!(matches!(bench.step(), Some(Step::Receive(Shots::Many))));
            let event = in_flight.then(|| bench.receive(&requests(1)).expect("a request"));
            assert!(bench.receive(&hello(0).repeat(count)).is_none());
            assert!(bench.connection.held_bytes() < 200, "{} bytes are held", bench.connection.held_bytes());
            if event.is_none() {
                // One block of them is on its way, and counts.
                assert!(matches!(bench.step(), Some(Step::Send(_))));
            }
            assert_eq!(matches!(bench.step(), Some(Step::CancelReceive)), stops, "{count} hellos, {in_flight}");
        }
    }
}

/// Whoever is given up leaves nothing behind, wherever its hellos stand.
#[test]
fn a_connection_that_is_given_up_forgets_its_hellos() {
    let mut bench = Bench::new();
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    assert!(bench.receive(&hello(0)).is_none());
    let event = bench.receive(&[requests(2), hello(0), requests(1), hello(1)].concat()).expect("requests");
    bench.connection.abandon(CloseReason::Broken, &mut bench.blocks);
    assert_eq!((bench.blocks.lent(), bench.blocks.lent_bytes()), (0, 0));
    assert!(!bench.answer(event), "its answers go nowhere");
    assert!(matches!(bench.step(), Some(Step::Abort)));
    bench.connection.receive_ended(bench.turn);
    bench.assert_freed();
}

/// A hello for other features ends the connection behind all that is owed; while requests are refused, in the words of a
/// refusal.
#[test]
fn a_hello_for_other_features_is_the_last_word() {
    for (drain, code, reason) in [
        (Drain::No, ErrorCode::WrongFeatureDim, CloseReason::FeatureDim),
        (Drain::LastCall, ErrorCode::WrongFeatureDim, CloseReason::FeatureDim),
        (Drain::Refuse, ErrorCode::Closing, CloseReason::Drain),
    ] {
        let mut bench = Bench::new();
        assert!(matches!(bench.step(), Some(Step::Receive(_))));
        let event = bench.receive(&requests(1)).expect("a request");
        bench.turn.drain = drain;
        assert!(bench.receive(&[hello(2), requests(1)].concat()).is_none());
        assert!(bench.step().is_none(), "an answer is owed");
        assert!(bench.answer(event));
        assert!(bench.send().ends_with(&code.answer()));
        assert!(matches!(bench.step(), Some(Step::HalfClose)));
        assert_eq!(bench.connection.close_reason(), reason);
    }
}

/// A hello has as long as a request, from its first byte; what begins behind it has a time of its own.
#[test]
fn a_hello_that_has_begun_has_a_deadline() {
    let mut bench = Bench::new();
    assert!(matches!(bench.step(), Some(Step::Receive(_))));
    bench.turn_at(1_000_000_000);
    assert!(bench.receive(&hello(0)[..3]).is_none());
    let due = |bench: &Bench| bench.connection.deadline(&RULES).filter(|(_, expiry)| *expiry == Expiry::Request);
    assert_eq!(due(&bench), Some((31_000_000_000, Expiry::Request)));
    bench.turn_at(9_000_000_000);
    assert!(bench.receive(&[&hello(0)[3..], &hello(0)[..3]].concat()).is_none());
    while let Some(Step::Send(block)) = bench.step() {
        let bytes = block.content().len();
        bench.connection.send_completed(block, bytes, bench.turn, &mut bench.blocks);
    }
    assert_eq!(due(&bench), Some((39_000_000_000, Expiry::Request)));
    assert!(bench.receive(&hello(0)[3..]).is_none());
    assert_eq!(due(&bench), None);
}
