//! Peers that do what they should not: each pays for it alone, in bounded memory and time.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::{Behaviour, Connection, GatewayProcess, INFER, PATIENCE, Stub, get, post, request, wait_until};

/// What attackers may make the process grow by, beyond what bodies may take.
const MEMORY_MAX: u64 = 24 * 1024 * 1024;

const ROW: &[&[f32]] = &[&[1.0, 2.0, 3.0]];

fn assert_serves(gateway: &GatewayProcess) {
    assert_eq!(post(gateway.address(), INFER, request(ROW)).scores(), [6.0]);
}

fn ended(gateway: &GatewayProcess, reason: &str) -> f64 {
    gateway.sample(&format!("disrust_gateway_connections_ended_total{{reason=\"{reason}\"}}"))
}

/// Heads that never end, bodies that never end, and connections that do nothing are ended; each in its time.
#[test]
fn who_is_slow_is_ended() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &["--request-timeout", "1s", "--idle-timeout", "1s"]);
    let mut head = Connection::open(gateway.address());
    head.send("GET /v2/health/live HTTP/1.1\r\nHo");
    let mut idle = Connection::open(gateway.address());
    assert_eq!(idle.get("/v2/health/live").status, 200);
    let mut fresh = Connection::open(gateway.address());
    let mut body = Connection::open(gateway.address());
    body.send(format!("POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{{"));
    let late = body.receive().expect("an answer");
    assert!(late.status == 408 && late.error().contains("--request-timeout"), "{late:?}");
    assert!(body.is_closed() && idle.is_closed() && fresh.is_closed());
    // A byte now and then does not help.
    wait_until("the head is ended", || head.stream.write_all(b"s").is_err() || ended(&gateway, "head_timeout") == 1.0);
    assert!(head.is_closed());
    assert_eq!([ended(&gateway, "idle"), ended(&gateway, "head_timeout")], [2.0, 1.0]);
    assert_serves(&gateway);
}

/// A server that does not answer costs whoever asks no more than the time that was set.
#[test]
fn a_server_that_hangs_is_not_waited_for() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &["--request-timeout", "500ms"]);
    server.behave(Behaviour::Silent);
    let late = post(gateway.address(), INFER, request(ROW));
    assert_eq!(late.status, 504, "{late:?}");
    server.behave(Behaviour::Sums);
    wait_until("it serves", || post(gateway.address(), INFER, request(ROW)).status == 200);
}

/// Heads of a megabyte are refused in words, and cost nothing.
#[test]
fn large_heads_are_refused() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &[]);
    let before = gateway.resident_bytes();
    let long_line = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1024 * 1024));
    let long_header = format!("GET /v2 HTTP/1.1\r\nCookie: {}\r\n\r\n", "a".repeat(1024 * 1024));
    let many_headers = format!("GET /v2 HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200_000));
    for request in [&long_line, &long_header, &many_headers] {
        for _ in 0..10 {
            let mut connection = Connection::open(gateway.address());
            let mut writer = connection.stream.try_clone().expect("a descriptor");
            let status = std::thread::scope(|scope| {
                // The gateway may end the connection meanwhile.
                scope.spawn(move || _ = writer.write_all(request.as_bytes()));
                connection.receive().map(|answer| answer.status)
            });
            assert!(matches!(status, Some(414 | 431)), "{status:?} to {:?}", &request[..20]);
        }
    }
    let normal = format!("GET /v2 HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", "a".repeat(8000));
    let mut connection = Connection::open(gateway.address());
    connection.send(normal);
    assert_eq!(connection.receive().expect("an answer").status, 200, "what proxies add fits");
    assert!(gateway.resident_bytes() < before + MEMORY_MAX);
    assert_serves(&gateway);
}

/// What nobody should send, mostly of words that mean something here.
fn garbage(rng: &mut fastrand::Rng) -> Vec<u8> {
    const PIECES: [&str; 30] = [
        "GET ",
        "POST ",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "/v2/health/live",
        "/v2/models/sum/infer",
        "/v2/models/",
        "/versions/",
        "/%00",
        "%",
        " HTTP/1.1",
        " HTTP/9.9",
        "\r\n",
        "\n",
        "\r\n\r\n",
        "Host: a\r\n",
        "Content-Length: ",
        "Inference-Header-Content-Length: ",
        "18446744073709551616",
        "-1",
        "12",
        "Transfer-Encoding: chunked\r\n",
        "Expect: 100-continue\r\n",
        "Connection: keep-alive\r\n",
        "Upgrade: h2c\r\n",
        ": ",
        "\u{0}",
        "{\"inputs\":[",
        "\"data\":[[",
        "0\r\n\r\n",
        "ffffffffffffffff\r\n",
    ];
    let mut garbage = Vec::new();
    for _ in 0..rng.usize(1..40) {
        match rng.u8(..) {
            0..200 => garbage.extend_from_slice(PIECES[rng.usize(..PIECES.len())].as_bytes()),
            200..240 => garbage.extend((0..rng.usize(..64)).map(|_| rng.u8(..))),
            _ => garbage.extend(std::iter::repeat_n(rng.alphanumeric() as u8, rng.usize(..20_000))),
        }
    }
    garbage
}

/// Whatever is sent, the gateway goes on and the process does not grow; what is answered is HTTP.
#[test]
fn garbage_does_no_harm() {
    const CASES: u64 = 500;
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &[]);
    let before = gateway.resident_bytes();
    let mut open = Vec::new();
    for seed in 0..CASES {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut connection = Connection::open(gateway.address());
        connection.try_send(garbage(&mut rng));
        match rng.u8(..4) {
            // Some hang up at once, some do not.
            0 => drop(connection),
            1 => open.push(connection),
            _ => {
                connection.stream.shutdown(std::net::Shutdown::Write).unwrap_or_default();
                let heard = connection.read_to_end();
                assert!(heard.is_empty() || heard.starts_with("HTTP/1."), "seed {seed}: {heard}");
            }
        }
    }
    assert!(gateway.resident_bytes() < before + MEMORY_MAX, "{before} grew to {}", gateway.resident_bytes());
    drop(open);
    assert_serves(&gateway);
    assert!(!gateway.stderr().contains("panicked"), "{}", gateway.stderr());
}

/// Who holds connections and sends nothing keeps nobody out: the oldest of them makes room. Where all are at work, the next one is
/// turned away, in words.
#[test]
fn who_holds_connections_keeps_nobody_out() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &["--max-connections", "8", "--threads", "2"]);
    let mut held: Vec<Connection> = (0..40).map(|_| Connection::open(gateway.address())).collect();
    for connection in &mut held {
        connection.try_send("GET /v2 HT");
    }
    for _ in 0..40 {
        assert_serves(&gateway);
    }
    wait_until("they are few", || gateway.sample("disrust_gateway_connections") <= 9.0);
    assert!(ended(&gateway, "evicted") > 30.0);
    drop(held);
    server.behave(Behaviour::Silent);
    let body = request(ROW);
    let whole = format!("POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut busy = Vec::new();
    wait_until("all are at work", || {
        let mut connection = Connection::open(gateway.address());
        connection.try_send(&whole);
        connection.stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a time above 0");
        let mut first = [0; 12];
        match connection.stream.read(&mut first) {
            // It is turned away, if it hears that.
            Ok(0) => true,
            Ok(_) => &first == b"HTTP/1.1 503",
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => true,
            Err(_) => {
                busy.push(connection);
                false
            }
        }
    });
    assert!((6..=9).contains(&busy.len()), "{} are at work", busy.len());
    server.behave(Behaviour::Sums);
    for connection in &mut busy {
        connection.stream.set_read_timeout(Some(PATIENCE)).expect("a time above 0");
        assert_eq!(connection.receive().expect("an answer").scores(), [6.0]);
    }
}

/// Bodies that together are more than there is memory for are refused, and those that have begun are not lost.
#[test]
fn bodies_share_their_memory() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &["--max-body", "1MiB", "--body-memory", "3MiB"]);
    let before = gateway.resident_bytes();
    let body = " ".repeat(600 * 1024) + &request(ROW);
    let head = format!("POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let (most, last) = body.split_at(body.len() - 1);
    let mut begun: Vec<Connection> = (0..16)
        .map(|_| {
            let mut connection = Connection::open(gateway.address());
            connection.try_send([head.as_bytes(), most.as_bytes()].concat());
            connection
        })
        .collect();
    wait_until("as much as may be is taken", || gateway.sample("disrust_gateway_body_memory_bytes") > 2e6);
    assert!(gateway.resident_bytes() < before + MEMORY_MAX);
    let mut statuses: Vec<u16> = Vec::new();
    for connection in &mut begun {
        connection.try_send(last);
        statuses.extend(connection.receive().map(|answer| answer.status));
    }
    statuses.sort_unstable();
    assert!(statuses.contains(&200) && statuses.contains(&429), "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    wait_until("all of it is given back", || gateway.sample("disrust_gateway_body_memory_bytes") == 0.0);
    assert_serves(&gateway);
}

/// What a request is called comes back, and takes memory until its answer is read.
#[test]
fn ids_take_of_the_memory() {
    const ID_BYTES: usize = 1 << 20;
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &["--body-memory", "16MiB"]);
    server.behave(Behaviour::Silent);
    let named = |letters| request(ROW).replacen('{', &format!("{{\"id\":\"{}\",", "a".repeat(letters)), 1);
    let body = named(ID_BYTES);
    let mut connection = Connection::open(gateway.address());
    connection.send(format!("POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    wait_until("it is under way", || server.requests() == 1);
    assert!(gateway.sample("disrust_gateway_body_memory_bytes") > (2 * ID_BYTES) as f64);
    server.behave(Behaviour::Sums);
    assert_eq!(connection.receive().expect("an answer").json()["id"].as_str().map(str::len), Some(ID_BYTES));
    wait_until("all of it is given back", || gateway.sample("disrust_gateway_body_memory_bytes") == 0.0);
    assert_eq!(post(gateway.address(), INFER, named(4 * ID_BYTES)).status, 413);
}

/// An answer that would take more than all memory is refused before anything is scored.
#[test]
fn answers_of_any_size_are_not_promised() {
    let server = Stub::start(1, 4096);
    let gateway = GatewayProcess::before(&server, &["--body-memory", "64MiB"]);
    let text = r#"{"inputs":[{"name":"input","shape":[100000,1],"datatype":"FP32","parameters":{"binary_data_size":400000}}]}"#;
    let header = format!("Inference-Header-Content-Length: {}\r\n", text.len());
    let body = [text.as_bytes(), &vec![0; 400_000]].concat();
    let refused = Connection::open(gateway.address()).post(INFER, &header, body);
    assert!(refused.status == 413 && refused.error().contains("fewer rows"), "{refused:?}");
    assert_eq!(server.requests(), 0);
}

/// A peer that reads nothing of its answers holds itself up, and nobody else.
#[test]
fn who_reads_nothing_holds_up_nobody() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &[]);
    let before = gateway.resident_bytes();
    let pipelined = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2000);
    let deaf: Vec<TcpStream> = (0..10)
        .map(|_| {
            let mut stream = TcpStream::connect(gateway.address()).expect("it listens");
            stream.set_nonblocking(true).expect("a socket");
            // As much as it takes.
            let _full = stream.write_all(pipelined.as_bytes());
            stream
        })
        .collect();
    let begun_at = Instant::now();
    while begun_at.elapsed() < Duration::from_secs(2) {
        assert_serves(&gateway);
        assert_eq!(get(gateway.address(), "/v2/health/ready").status, 200);
    }
    assert!(gateway.resident_bytes() < before + MEMORY_MAX);
    drop(deaf);
    wait_until("they are gone", || gateway.sample("disrust_gateway_connections") == 1.0);
}
