//! What the client makes of servers that are late, gone, closing, overloaded, another one than expected, or no servers at all:
//! right scores or a typed error, in time, and never another call's answer.

mod stub;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use disrust_client::{Builder, Client, Error, Scores, blocking};
use disrust_protocol::ErrorCode;

use stub::{FEATURES, Message, PATIENCE, Peer, Stub, answer_bytes, hello_bytes, rows_of, seeded, sums, wait_until};

/// Short enough for a test, and long enough for a server that answers at once.
const MOMENT: Duration = Duration::from_millis(200);

/// Fails if it takes longer than anything may.
async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it comes to an end")
}

fn builder(stub: &Stub) -> Builder {
    Client::builder([stub.address()]).timeout(PATIENCE)
}

async fn connect(stub: &Stub) -> Client {
    in_time(builder(stub).connect()).await.expect("the stub listens")
}

async fn predict(client: &Client, rows: &[f32]) -> Result<Vec<f32>, Error> {
    in_time(client.predict(rows, FEATURES)).await.map(|scores| scores.values)
}

/// A server whose every connection ends with this instead of its first answer.
fn instead_of_an_answer(play: impl Fn(&mut Peer) + Send + Sync + 'static) -> Stub {
    Stub::start(move |mut peer, _| {
        peer.greet();
        while peer.rows().is_some() {
            play(&mut peer);
        }
    })
}

#[tokio::test]
async fn hello_tells_the_model() {
    let stub = Stub::good();
    let client = connect(&stub).await;
    let model = client.model().expect("it has said hello");
    assert_eq!((&*model.name, model.version, model.feature_dim), ("stub", 7, FEATURES));
    assert_eq!((model.outputs, model.max_vectors), (1, 64));
    let servers = client.servers();
    assert_eq!((servers.len(), servers[0].connections), (1, 1));
    assert_eq!((servers[0].address.clone(), servers[0].endpoint.clone()), (stub.address(), Some(stub.address())));
}

#[tokio::test]
async fn any_number_of_rows_is_one_call() {
    let client = connect(&Stub::good()).await;
    for count in [0, 1, 63, 64, 65, 128, 1000, 100_000] {
        let rows = rows_of(1, count);
        assert_eq!(predict(&client, &rows).await, Ok(sums(&rows)), "{count} rows");
    }
}

#[tokio::test]
async fn several_outputs_lie_row_by_row() {
    let stub = Stub::start(|mut peer, _| {
        assert_eq!(peer.receive(), Some(Message::Hello));
        peer.send_hello(FEATURES, 3);
        while let Some(rows) = peer.rows() {
            let scores: Vec<f32> = sums(&rows).iter().flat_map(|sum| [*sum, 2.0 * sum, 3.0 * sum]).collect();
            let mut answer = answer_bytes(&scores[..rows.len() / FEATURES]);
            answer.truncate(1);
            answer.extend(scores.iter().flat_map(|score| score.to_le_bytes()));
            peer.send_slowly(&answer);
        }
    });
    let client = connect(&stub).await;
    let rows = rows_of(2, 70);
    let Scores { values, outputs, .. } = in_time(client.predict(&rows, FEATURES)).await.expect("scores");
    assert_eq!((values.len(), outputs), (210, 3));
    for (scores, sum) in values.chunks(3).zip(sums(&rows)) {
        assert_eq!(scores, [sum, 2.0 * sum, 3.0 * sum]);
    }
}

/// Rows of another width never leave: not one byte of them reaches the server.
#[tokio::test]
async fn a_wrong_number_of_features_is_an_error_before_a_byte_is_sent() {
    let (sender, received) = channel();
    let stub = Stub::start(move |mut peer, _| {
        peer.greet();
        while let Some(bytes) = peer.receive_bytes(FEATURES) {
            peer.send(&answer_bytes(&[1.0]));
            sender.send(bytes).expect("the test listens");
        }
    });
    let client = connect(&stub).await;
    let wrong = in_time(client.predict(&[0.0; 4], 4)).await;
    assert_eq!(wrong, Err(Error::WrongFeatures { given: 4, expected: FEATURES }));
    assert_eq!(in_time(client.predict(&[], 4)).await, Err(Error::WrongFeatures { given: 4, expected: FEATURES }));
    let shape = in_time(client.predict(&[0.0; 4], FEATURES)).await;
    assert_eq!(shape, Err(Error::Shape { values: 4, features: FEATURES }));
    assert_eq!(in_time(client.predict(&[], 0)).await, Err(Error::Shape { values: 0, features: 0 }));
    predict(&client, &[1.0, 0.0, 0.0]).await.expect("a score");
    let first = received.recv_timeout(PATIENCE).expect("the right one came");
    assert_eq!(first[..8], [1, 0, 0, 0, 0, 0, 0x80, 0x3f]);
}

#[tokio::test]
async fn a_server_of_another_model_than_expected_is_refused() {
    let stub = Stub::good();
    let wrong = in_time(builder(&stub).features(FEATURES + 1).connect()).await;
    assert_eq!(wrong.err(), Some(Error::WrongFeatures { given: FEATURES + 1, expected: FEATURES }));
    let wrong = in_time(builder(&stub).outputs(2).connect()).await;
    assert_eq!(wrong.err(), Some(Error::WrongOutputs { given: 2, actual: 1 }));
    in_time(builder(&stub).features(FEATURES).outputs(1).connect()).await.expect("as expected");
}

/// A server that takes a hello for a bad request is connected to again, and spoken to without.
#[tokio::test]
async fn a_server_without_hello_is_served_without() {
    let stub = Stub::start(|mut peer, _| {
        while let Some(message) = peer.receive() {
            match message {
                Message::Hello => {
                    peer.send(&ErrorCode::BadVectorCount.answer());
                    return peer.end();
                }
                Message::Rows(rows) => peer.send(&answer_bytes(&sums(&rows))),
            };
        }
    });
    let client = connect(&stub).await;
    assert_eq!(client.model(), None);
    let rows = rows_of(3, 100);
    assert_eq!(predict(&client, &rows).await, Ok(sums(&rows)));
    let checks = in_time(client.check(PATIENCE)).await;
    assert_eq!(checks[0].model, Ok(None), "it is connected, and cannot be asked");
    assert_eq!(stub.connections(), 2);
}

/// The next call on the same connection gets its own answer, not the one that came too late.
#[tokio::test]
async fn an_answer_that_comes_late_is_dropped_and_shifts_nothing() {
    let (release, held) = channel::<()>();
    let held = std::sync::Mutex::new(held);
    let stub = Stub::start(move |mut peer, _| {
        peer.greet();
        let first = peer.rows().expect("a request");
        held.lock().expect("one connection").recv_timeout(PATIENCE).expect("the test lets go");
        peer.send(&answer_bytes(&sums(&first)));
        peer.serve();
    });
    let client = connect(&stub).await;
    let late = in_time(client.predict_within(&rows_of(4, 2), FEATURES, MOMENT)).await;
    assert_eq!(late, Err(Error::Deadline { timeout: MOMENT }));
    let next = tokio::spawn({
        let client = client.clone();
        async move { predict(&client, &rows_of(5, 2)).await }
    });
    tokio::task::yield_now().await;
    release.send(()).expect("the stub waits");
    assert_eq!(in_time(next).await.expect("no panic"), Ok(sums(&rows_of(5, 2))));
    assert_eq!(predict(&client, &rows_of(6, 2)).await, Ok(sums(&rows_of(6, 2))));
    assert_eq!(stub.connections(), 1, "all of it on one connection");
}

/// Calls that are dropped at any moment, among others that are not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_cancelled_calls_shifts_nothing() {
    let stub = Stub::start(|mut peer, _| {
        peer.greet();
        let mut number = 0_usize;
        while let Some(rows) = peer.rows() {
            number += 1;
            if number.is_multiple_of(64) {
                std::thread::sleep(Duration::from_millis(1));
            }
            peer.send(&answer_bytes(&sums(&rows)));
        }
    });
    let client = connect(&stub).await;
    let mut rng = seeded();
    let (mut answered, mut cancelled) = (0, 0);
    for round in 0..40 {
        let calls: Vec<_> = (0..64)
            .map(|call| {
                let (client, rows) = (client.clone(), rows_of(64 * round + call, rng.usize(1..200)));
                let task = tokio::spawn(async move {
                    let scores = client.predict(&rows, FEATURES).await.expect("the stub answers all");
                    assert_eq!(scores.values, sums(&rows));
                });
                (task, rng.bool())
            })
            .collect();
        for _ in 0..rng.usize(..4) {
            tokio::task::yield_now().await;
        }
        for (task, is_cancelled) in &calls {
            if *is_cancelled {
                task.abort();
            }
        }
        for (task, _) in calls {
            match in_time(task).await {
                Ok(()) => answered += 1,
                Err(error) if error.is_cancelled() => cancelled += 1,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    }
    assert!(answered > 0 && cancelled > 0, "{answered} answered, {cancelled} cancelled");
    assert_eq!(stub.connections(), 1);
}

#[tokio::test]
async fn errors_2_and_3_fail_their_call_and_no_other_and_are_not_retried() {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let stub = Stub::start(move |mut peer, _| {
        peer.greet();
        while let Some(rows) = peer.rows() {
            let answer = match counted.fetch_add(1, Ordering::SeqCst) {
                0 => ErrorCode::ModelFailed.answer().to_vec(),
                1 => ErrorCode::Shed.answer().to_vec(),
                _ => answer_bytes(&sums(&rows)),
            };
            peer.send(&answer);
        }
    });
    let client = connect(&stub).await;
    assert_eq!(predict(&client, &rows_of(1, 1)).await, Err(Error::ModelFailed));
    assert_eq!(predict(&client, &rows_of(2, 1)).await, Err(Error::Overloaded));
    assert_eq!(predict(&client, &rows_of(3, 1)).await, Ok(sums(&rows_of(3, 1))));
    assert_eq!((requests.load(Ordering::SeqCst), stub.connections()), (3, 1));
}

/// Of a call of many requests, one that fails fails the call, and the answers to the others reach nobody.
#[tokio::test]
async fn a_part_that_fails_fails_the_call() {
    let stub = Stub::start(|mut peer, _| {
        peer.greet();
        let mut number = 0;
        while let Some(rows) = peer.rows() {
            number += 1;
            let answer = if number == 3 { ErrorCode::Shed.answer().to_vec() } else { answer_bytes(&sums(&rows)) };
            peer.send(&answer);
        }
    });
    let client = connect(&stub).await;
    assert_eq!(predict(&client, &rows_of(1, 640)).await, Err(Error::Overloaded));
    assert_eq!(predict(&client, &rows_of(2, 64)).await, Ok(sums(&rows_of(2, 64))));
    assert_eq!(stub.connections(), 1);
}

/// Error 4 moves a call to another server; and to the same one again, once that serves again.
#[tokio::test]
async fn a_closing_server_s_calls_go_elsewhere() {
    let closing = instead_of_an_answer(|peer| _ = peer.send(&ErrorCode::Closing.answer()));
    let good = Stub::good();
    let client = Client::builder([closing.address(), good.address()]).timeout(PATIENCE).build().expect("addresses");
    wait_until("both are connected", || client.servers().iter().all(|server| server.is_connected())).await;
    for call in 0..100 {
        assert_eq!(predict(&client, &rows_of(call, 1)).await, Ok(sums(&rows_of(call, 1))));
    }
    let alone = in_time(builder(&closing).connect()).await.expect("it listens");
    assert_eq!(predict(&alone, &rows_of(1, 1)).await, Err(Error::Closing), "there is nowhere else");
}

#[tokio::test]
async fn a_connection_that_is_lost_is_made_again_and_its_calls_are_retried() {
    let stub = Stub::start(|mut peer, number| {
        peer.greet();
        // Ever more answers before it breaks.
        for _ in 0..number {
            let Some(rows) = peer.rows() else { return };
            peer.send(&answer_bytes(&sums(&rows)));
        }
        peer.rows();
    });
    let client = connect(&stub).await;
    for call in 0..6 {
        assert_eq!(predict(&client, &rows_of(call, 2)).await, Ok(sums(&rows_of(call, 2))), "call {call}");
    }
    assert!(stub.connections() > 2);
    let never = instead_of_an_answer(|_| {});
    let broken = Stub::start(|mut peer, _| {
        peer.greet();
        peer.rows();
    });
    let client = in_time(builder(&broken).retries(2).connect()).await.expect("it listens");
    let lost = predict(&client, &rows_of(1, 1)).await;
    assert!(matches!(lost, Err(Error::Lost { .. })), "{lost:?}");
    drop(never);
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for_and_found_again() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
    let address = format!("127.0.0.1:{port}");
    let nobody = in_time(Client::connect([address.clone()])).await;
    let Err(Error::NoServer { reasons }) = nobody else { panic!("{nobody:?}") };
    assert!(reasons.contains(&address) && reasons.contains("refused"), "{reasons}");
    let client = Client::builder([address.clone()]).connect_timeout(MOMENT).build().expect("an address");
    let nobody = in_time(client.predict(&rows_of(1, 1), FEATURES)).await;
    assert!(matches!(nobody, Err(Error::NoServer { .. })), "{nobody:?}");
    assert!(!in_time(client.check(MOMENT)).await[0].is_ready());
    let listener = std::net::TcpListener::bind(address).expect("the port is still free");
    let serving = std::thread::spawn(move || listener.accept().expect("the client comes"));
    in_time(tokio::task::spawn_blocking(|| serving.join().expect("no panic"))).await.expect("no panic");
}

/// What no server says ends the connection, and no call gets a number of it.
#[tokio::test]
async fn what_is_no_answer_is_an_error_of_the_server() {
    type Bytes = &'static [u8];
    const ANSWERS: [(&str, Bytes); 7] = [
        ("fewer scores than asked for", &[1, 0, 0, 0, 0]),
        ("more scores than asked for", &[3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("more than there can be", &[65]),
        ("an unknown code", &[0, 9]),
        ("no error", &[0, 0]),
        ("an answer to a hello that nobody said", &[0, 128, 20, 0]),
        ("an error of hellos", &[0, 5]),
    ];
    for (what, bytes) in ANSWERS {
        let stub = instead_of_an_answer(move |peer| _ = peer.send(bytes));
        let client = connect(&stub).await;
        let violation = predict(&client, &rows_of(1, 2)).await;
        assert!(matches!(violation, Err(Error::Protocol { .. })), "{what}: {violation:?}");
    }
    let stub = instead_of_an_answer(|peer| _ = peer.send(&ErrorCode::BadVectorCount.answer()));
    let unreadable = predict(&connect(&stub).await, &rows_of(1, 2)).await;
    assert_eq!(unreadable, Err(Error::Unreadable { server: stub.address().into() }));
}

/// Bytes behind an answer, when nothing is owed, are not taken for the next one.
#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_given_to_nobody() {
    let stub = Stub::start(|mut peer, number| {
        peer.greet();
        while let Some(rows) = peer.rows() {
            let mut answer = answer_bytes(&sums(&rows));
            if number == 0 {
                answer.extend(answer_bytes(&[666.0]));
            }
            peer.send(&answer);
        }
    });
    let client = connect(&stub).await;
    let first = predict(&client, &rows_of(1, 1)).await;
    assert!(first == Ok(sums(&rows_of(1, 1))) || matches!(first, Err(Error::Protocol { .. })), "{first:?}");
    wait_until("the connection is made again", || stub.connections() == 2).await;
    assert_eq!(predict(&client, &rows_of(2, 1)).await, Ok(sums(&rows_of(2, 1))));
}

/// Hellos that cannot be: none of these servers is ever called.
#[tokio::test]
async fn a_server_whose_hello_is_none_is_not_used() {
    let mut long = hello_bytes(FEATURES, 1);
    long.push(1);
    let hellos = [
        ("garbage", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("scores", answer_bytes(&[1.0])),
        ("more than a hello", long),
        ("outputs without end", hello_bytes(FEATURES, u32::MAX)),
        ("no outputs", hello_bytes(FEATURES, 0)),
        ("features without end", hello_bytes(u32::MAX as usize, 1)),
        ("an error of hellos that ask for something", ErrorCode::WrongFeatureDim.answer().to_vec()),
        ("a part", hello_bytes(FEATURES, 1)[..20].to_vec()),
        ("nothing", Vec::new()),
    ];
    for (what, bytes) in hellos {
        let stub = Stub::start(move |mut peer, _| {
            peer.receive();
            peer.send(&bytes);
            peer.end();
        });
        let refused = in_time(builder(&stub).connect()).await;
        assert!(matches!(refused, Err(Error::NoServer { .. })), "{what}: {refused:?}");
    }
}

/// A stream that ends anywhere, hello and answers alike: no call hangs, and none gets a wrong number.
#[tokio::test]
async fn a_stream_that_is_cut_at_any_byte_is_an_error() {
    let rows = rows_of(1, 2);
    let whole = [hello_bytes(FEATURES, 1), answer_bytes(&sums(&rows))].concat();
    for cut in 0..=whole.len() {
        let bytes = whole[..cut].to_vec();
        let stub = Stub::start(move |mut peer, _| {
            let hello = hello_bytes(FEATURES, 1).len();
            peer.receive();
            peer.send(&bytes[..cut.min(hello)]);
            if cut > hello && peer.receive().is_some() {
                peer.send_slowly(&bytes[hello..]);
            }
            peer.end();
        });
        let client = builder(&stub).connect_timeout(MOMENT).retries(0).build().expect("an address");
        let outcome = predict(&client, &rows).await;
        if cut == whole.len() {
            assert_eq!(outcome, Ok(sums(&rows)));
        } else {
            assert!(matches!(outcome, Err(Error::Lost { .. } | Error::NoServer { .. })), "{cut} bytes: {outcome:?}");
        }
    }
}

/// A server that sends without end is not read without end.
#[tokio::test]
async fn endless_data_is_no_answer() {
    let stub = instead_of_an_answer(|peer| while peer.send(&[1; 4096]) {});
    let client = connect(&stub).await;
    let violation = predict(&client, &rows_of(1, 2)).await;
    assert!(matches!(violation, Err(Error::Protocol { .. })), "{violation:?}");
    // Behind the right answer, too.
    let stub = instead_of_an_answer(|peer| {
        peer.send(&answer_bytes(&[1.0]));
        while peer.send(&[200; 4096]) {}
    });
    let client = connect(&stub).await;
    for call in 0..20 {
        let outcome = predict(&client, &[1.0, 0.0, 0.0]).await;
        assert!(outcome == Ok(vec![1.0]) || matches!(outcome, Err(Error::Protocol { .. })), "{call}: {outcome:?}");
    }
}

/// A server that stands still costs the calls that it has their time, and later calls go to others.
#[tokio::test]
async fn calls_prefer_servers_that_answer() {
    let frozen = Stub::start(|mut peer, _| {
        peer.greet();
        while peer.receive().is_some() {}
    });
    let good = Stub::start(|mut peer, _| {
        peer.greet();
        while let Some(rows) = peer.rows() {
            std::thread::sleep(Duration::from_micros(200));
            peer.send(&answer_bytes(&sums(&rows)));
        }
    });
    let client = Client::builder([frozen.address(), good.address()]).timeout(MOMENT).build().expect("addresses");
    wait_until("both are connected", || client.servers().iter().all(|server| server.is_connected())).await;
    let mut late = 0;
    for call in 0..200 {
        match predict(&client, &rows_of(call, 1)).await {
            Ok(scores) => assert_eq!(scores, sums(&rows_of(call, 1))),
            Err(error) => {
                assert_eq!(error, Error::Deadline { timeout: MOMENT });
                late += 1;
            }
        }
    }
    assert!(late <= 1, "{late} calls went to the server that stands still");
    while late == 0 {
        late += usize::from(predict(&client, &rows_of(1, 1)).await.is_err());
    }
    // Now it is known, and has less in line than the other one.
    let callers: Vec<_> = (0..16)
        .map(|caller| {
            let client = client.clone();
            tokio::spawn(async move {
                for call in 0..10 {
                    let rows = rows_of(10 * caller + call, 1);
                    assert_eq!(
                        in_time(client.predict_within(&rows, FEATURES, PATIENCE)).await.map(|scores| scores.values),
                        Ok(sums(&rows))
                    );
                }
            })
        })
        .collect();
    for caller in callers {
        in_time(caller).await.expect("every call goes to the server that answers");
    }
    let checks = in_time(client.check(MOMENT)).await;
    assert_eq!(checks[0].model, Err(Error::Deadline { timeout: MOMENT }));
    assert!(checks[1].is_ready());
}

/// A connection over which nothing comes any more is given up, and its calls go elsewhere.
#[tokio::test]
async fn a_silent_connection_is_given_up() {
    let stub = Stub::start(|mut peer, number| {
        peer.greet();
        if number == 0 {
            while peer.rows().is_some() {}
        } else {
            peer.serve();
        }
    });
    let client = in_time(builder(&stub).silence(MOMENT).connect()).await.expect("it listens");
    assert_eq!(predict(&client, &rows_of(1, 1)).await, Ok(sums(&rows_of(1, 1))));
    assert_eq!(stub.connections(), 2);
}

/// A server that takes nothing holds callers back, and not for longer than their time; what waits is bounded (see
/// `line::tests`).
#[tokio::test]
async fn a_server_that_reads_nothing_holds_callers_back() {
    let stub = Stub::start(|mut peer, _| {
        peer.greet();
        std::thread::sleep(PATIENCE);
    });
    let client = connect(&stub).await;
    let rows = rows_of(1, 1_000_000);
    let late = in_time(client.predict_within(&rows, FEATURES, MOMENT)).await;
    assert_eq!(late, Err(Error::Deadline { timeout: MOMENT }));
}

/// The model that a check tells is the one of now; outputs cannot change on a connection.
#[tokio::test]
async fn a_check_asks_anew() {
    let is_draining = Arc::new(AtomicBool::new(false));
    let drains = Arc::clone(&is_draining);
    let stub = Stub::start(move |mut peer, _| {
        while let Some(message) = peer.receive() {
            match message {
                Message::Hello if drains.load(Ordering::SeqCst) => peer.send(&ErrorCode::Closing.answer()),
                Message::Hello => peer.send_hello(FEATURES, 1),
                Message::Rows(rows) => peer.send(&answer_bytes(&sums(&rows))),
            };
        }
    });
    let client = connect(&stub).await;
    let checks = in_time(client.check(PATIENCE)).await;
    assert_eq!(checks[0].model, Ok(client.model()));
    is_draining.store(true, Ordering::SeqCst);
    let checks = in_time(client.check(PATIENCE)).await;
    assert_eq!(checks[0].model, Err(Error::Closing));
    let checks = in_time(client.check(PATIENCE)).await;
    assert!(!checks[0].is_ready(), "it is still closing: {checks:?}");
}

/// The last clone takes the connections with it.
#[tokio::test]
async fn connections_end_with_the_client() {
    let (sender, ended) = channel();
    let stub = Stub::start(move |mut peer, _| {
        peer.serve();
        sender.send(()).expect("the test listens");
    });
    let client = connect(&stub).await;
    let clone = client.clone();
    drop(client);
    assert_eq!(predict(&clone, &rows_of(1, 1)).await, Ok(sums(&rows_of(1, 1))));
    drop(clone);
    let ended = tokio::task::spawn_blocking(move || ended.recv_timeout(PATIENCE));
    in_time(ended).await.expect("no panic").expect("the stub sees the end");
}

/// Several connections to a server are used, and a name stands for all of its addresses.
#[tokio::test]
async fn connections_and_names() {
    let stub = Stub::good();
    let client = in_time(builder(&stub).connections(3).connect()).await.expect("it listens");
    wait_until("all are connected", || client.servers()[0].connections == 3).await;
    wait_until("all are accepted", || stub.connections() == 3).await;
    assert_eq!(client.servers().len(), 1);
    let port = stub.address().rsplit_once(':').expect("a port").1.to_owned();
    let client = in_time(Client::connect([format!("localhost:{port}")])).await.expect("localhost is here");
    assert_eq!(predict(&client, &rows_of(1, 1)).await, Ok(sums(&rows_of(1, 1))));
    for address in ["", "localhost", ":1", "localhost:", "localhost:0", "::1:9900", "unix:", "localhost:99999"] {
        let wrong = Client::builder([address]).build();
        assert!(matches!(wrong, Err(Error::Address { .. })), "{address}: {wrong:?}");
    }
    assert!(matches!(Client::builder(Vec::<String>::new()).build(), Err(Error::Address { .. })));
    let unknown = in_time(Client::connect(["no-such-name.invalid:9900"])).await;
    assert!(matches!(unknown, Err(Error::NoServer { .. })), "{unknown:?}");
}

/// Threads that wait share a client as tasks do, without a thread of its own.
#[test]
fn threads_share_a_blocking_client() {
    let stub = Stub::good();
    let builder = Client::builder([stub.address()]).timeout(PATIENCE);
    assert_eq!(builder.clone().build().err(), Some(Error::NoRuntime));
    let client = blocking::Client::connect_with(builder).expect("the stub listens");
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let client = client.clone();
            scope.spawn(move || {
                for call in 0..100 {
                    let rows = rows_of(1000 * thread + call, 1 + call);
                    let scores = client.predict(&rows, FEATURES).expect("the stub answers");
                    assert_eq!(scores.values, sums(&rows));
                }
            });
        }
    });
    assert_eq!(stub.connections(), 1);
    assert!(client.check(PATIENCE)[0].is_ready());
}

/// Everything that a peer can do wrong, drawn: whatever a call gets is its scores or an error, and it gets it in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_servers_never_give_a_wrong_number() {
    let mut rng = seeded();
    let (right, wrong) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for _ in 0..10 {
        let seed = rng.u64(..);
        let stubs = [0, 1].map(|stub| {
            Stub::start(move |peer, number| hostile(peer, fastrand::Rng::with_seed(seed + stub + 2 * number as u64)))
        });
        let client = Client::builder(stubs.iter().map(Stub::address)).timeout(MOMENT).connect_timeout(MOMENT);
        let client = client.connections(rng.usize(1..3)).build().expect("addresses");
        let calls: Vec<_> = (0..6)
            .map(|caller| {
                let (client, mut rng) = (client.clone(), rng.fork());
                let (right, wrong) = (Arc::clone(&right), Arc::clone(&wrong));
                tokio::spawn(async move {
                    for call in 0..8 {
                        let rows = rows_of(100 * caller + call, rng.usize(0..150));
                        match in_time(client.predict(&rows, FEATURES)).await {
                            Ok(scores) => {
                                assert_eq!(scores.values, sums(&rows));
                                right.fetch_add(1, Ordering::SeqCst);
                            }
                            Err(_) => _ = wrong.fetch_add(1, Ordering::SeqCst),
                        }
                    }
                })
            })
            .collect();
        for call in calls {
            in_time(call).await.expect("no panic");
        }
    }
    let (right, wrong) = (right.load(Ordering::SeqCst), wrong.load(Ordering::SeqCst));
    assert!(right > 0 && wrong > 0, "{right} scored, {wrong} failed: both kinds are seen");
}

/// Plays a server that may do anything but say a wrong number in a right answer.
fn hostile(mut peer: Peer, mut rng: fastrand::Rng) {
    if peer.receive() != Some(Message::Hello) {
        return;
    }
    let hello = hello_bytes(FEATURES, 1);
    match rng.u8(..20) {
        0 => _ = peer.send(&hello[..rng.usize(..hello.len())]),
        1 => _ = peer.send(&hello_bytes(FEATURES + 1, 1)),
        2 => _ = peer.send(&[rng.u8(1..), rng.u8(..), rng.u8(..), rng.u8(..)]),
        3 => std::thread::sleep(2 * MOMENT),
        4 => return,
        _ => _ = peer.send_slowly(&hello),
    }
    while let Some(message) = peer.receive() {
        let Message::Rows(rows) = message else { return };
        let count = (rows.len() / FEATURES) as u8;
        let answer = answer_bytes(&sums(&rows));
        let goes_on = match rng.u8(..40) {
            // Whatever came behind a part would be taken for its rest.
            0 => {
                peer.send(&answer[..rng.usize(..answer.len())]);
                std::thread::sleep(MOMENT * rng.u32(..3));
                false
            }
            1 => peer.send(&[if count == 1 { 2 } else { count - 1 }, 0, 0, 0, 0]),
            2 => peer.send(&[rng.u8(65..), 1, 2, 3]),
            3 => peer.send(&[0, rng.u8(6..)]),
            4 => peer.send(&[0, rng.u8(1..6)]),
            // Behind the answer, nothing that could be another one.
            5 => peer.send(&answer) && peer.send(&[255; 9]),
            6 => {
                std::thread::sleep(2 * MOMENT);
                peer.send(&answer)
            }
            7 => false,
            8 => peer.send_slowly(&answer),
            9 => {
                while peer.send(&[200; 4096]) {}
                false
            }
            _ => peer.send(&answer),
        };
        if !goes_on {
            return;
        }
    }
}
