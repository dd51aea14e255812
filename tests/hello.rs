//! Hello over real sockets: clients/vectors.json byte for byte and cut anywhere, in deep pipelines, in a drain, under overload, from
//! peers that do not read; and that it is no request.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use disrust::config::Config;
use disrust_model::{Model, PredictError, Rows, Sum};
use disrust_protocol::{ErrorCode, FEATURE_DIM, HelloRequest, MAX_VECTORS_PER_REQUEST, ServerHello};
use serde_json::Value;

use common::admin::{scrape, value};
use common::{
    Bystander, Client, PATIENCE, Reply, Request, TestServer, Told, config, random_requests, seeded, wait_until,
};

// ---- The vectors.

fn vectors() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/vectors.json");
    serde_json::from_str(&fs::read_to_string(path).expect("the vectors are there")).expect("they are JSON")
}

fn entries<'a>(vectors: &'a Value, part: &str) -> impl Iterator<Item = &'a Value> {
    let entries = vectors[part].as_array().expect("a list");
    assert!(!entries.is_empty(), "{part} is empty");
    entries.iter()
}

fn number(entry: &Value, field: &str) -> usize {
    entry[field].as_u64().unwrap_or_else(|| panic!("{field} of {entry}")) as usize
}

fn bytes(hex: &Value) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.as_str().expect("hex").chars().map(|digit| digit.to_digit(16).expect("hex") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn features(row: &Value) -> impl Iterator<Item = f32> {
    row.as_array().expect("a row").iter().map(|feature| match feature.as_str() {
        Some("NaN") => f32::NAN,
        Some("Infinity") => f32::INFINITY,
        Some("-Infinity") => f32::NEG_INFINITY,
        Some("-0.0") => -0.0,
        _ => feature.as_f64().expect("a number") as f32,
    })
}

/// One server for each number of features that is asked for, kept for the next who asks.
#[derive(Default)]
struct Servers(Vec<((usize, usize), TestServer)>);

impl Servers {
    fn address(&mut self, features: usize, outputs: usize) -> SocketAddr {
        let shape = (features, outputs);
        if let Some((_, server)) = self.0.iter().find(|(of, _)| *of == shape) {
            return server.address();
        }
        let config = Config { features: Some(features), ..config() };
        let server = if outputs == 1 {
            TestServer::start(config)
        } else {
            TestServer::serve(config, Multiples(features, outputs))
        };
        let address = server.address();
        self.0.push((shape, server));
        address
    }
}

/// Output o of a row is (o + 1) times the features' sum.
struct Multiples(usize, usize);

impl Model for Multiples {
    fn name(&self) -> &str {
        "sum"
    }

    fn feature_dim(&self) -> usize {
        self.0
    }

    fn outputs(&self) -> usize {
        self.1
    }

    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
        let mut matrix = vec![0.0; rows.count() * self.0];
        rows.gather(&mut matrix);
        for (row, scores) in matrix.chunks(self.0).zip(scores.chunks_mut(self.1)) {
            let sum = row.iter().fold(-0.0, |sum, feature| sum + feature);
            scores.iter_mut().enumerate().for_each(|(output, score)| *score = (output + 1) as f32 * sum);
        }
        Ok(())
    }
}

#[test]
fn requests_of_the_vectors_are_answered() {
    let (vectors, mut servers) = (vectors(), Servers::default());
    for entry in entries(&vectors, "requests") {
        let rows: Vec<f32> = entries(entry, "rows").flat_map(features).collect();
        let request = Request::of(number(entry, "feature_dim"), &rows);
        assert_eq!(request.bytes, bytes(&entry["hex"]), "{entry}");
        let mut client = Client::connect(servers.address(number(entry, "feature_dim"), 1));
        client.send(&request.bytes);
        client.expect([&request]);
        client.half_close();
        client.expect_end();
    }
}

/// A conversation of the vectors that a server can be brought to.
struct Conversation {
    name: String,
    shape: (usize, usize),
    sent: Vec<Vec<u8>>,
    received: Vec<Vec<u8>>,
    closes: bool,
}

fn conversations(vectors: &Value) -> Vec<Conversation> {
    let messages = |entry: &Value, field: &str| entries(entry, field).map(bytes).collect();
    let conversation = |entry: &Value| Conversation {
        name: entry["name"].as_str().expect("a name").to_owned(),
        shape: (number(entry, "feature_dim"), number(entry, "outputs")),
        sent: messages(entry, "sent"),
        received: messages(entry, "received"),
        closes: entry["closes"].as_bool().expect("whether it closes"),
    };
    entries(vectors, "conversations").filter(|entry| entry["server"] != "stub").map(conversation).collect()
}

/// A connection that may be used for the next conversation, if the one before did not close it.
struct Line {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

impl Line {
    /// Sends the conversation's stream cut at these places, and receives what is complete before each of them: then the server has
    /// seen it cut there. All that comes is what has to.
    fn hold(&mut self, conversation: &Conversation, cuts: &[usize]) {
        let Conversation { name, sent, received, closes, .. } = conversation;
        let mut stream = self.stream.take().unwrap_or_else(|| {
            let stream = TcpStream::connect(self.address).expect("the server listens");
            stream.set_nodelay(true).expect("a TCP socket");
            stream.set_read_timeout(Some(PATIENCE)).expect("a time above 0");
            stream
        });
        let (whole, mut begin, mut answered) = (sent.concat(), 0, 0);
        for end in cuts.iter().copied().chain([whole.len()]) {
            stream.write_all(&whole[begin..end]).expect("the server takes what is sent");
            begin = end;
            let ends = sent.iter().scan(0, |at, message| {
                *at += message.len();
                Some(*at)
            });
            let complete = ends.take_while(|at| *at <= end).count().min(received.len());
            for expected in &received[answered..complete.max(answered)] {
                let mut came = vec![0; expected.len()];
                stream.read_exact(&mut came).unwrap_or_else(|error| panic!("{name}, cut at {cuts:?}: {error}"));
                assert_eq!(&came, expected, "{name}, cut at {cuts:?}");
            }
            answered = complete.max(answered);
        }
        assert_eq!(answered, received.len(), "{name}");
        if *closes {
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap_or_else(|error| panic!("{name}, cut at {cuts:?}: {error}"));
            assert!(rest.is_empty(), "{name}, cut at {cuts:?}");
        } else {
            self.stream = Some(stream);
        }
    }
}

/// Whole, cut at any one place, byte by byte, and where the vectors say.
#[test]
fn conversations_of_the_vectors_are_held_however_they_are_cut() {
    let (vectors, mut servers) = (vectors(), Servers::default());
    let conversations = conversations(&vectors);
    assert!(conversations.len() > 10);
    for conversation in &conversations {
        let (features, outputs) = conversation.shape;
        let mut line = Line { address: servers.address(features, outputs), stream: None };
        let length = conversation.sent.concat().len();
        line.hold(conversation, &[]);
        line.hold(conversation, &(1..length).collect::<Vec<_>>());
        (1..length).for_each(|cut| line.hold(conversation, &[cut]));
        for split in entries(&vectors, "splits") {
            if split["conversation"] == conversation.name[..] && split["direction"] == "sent" {
                let at: Vec<_> = entries(split, "at").map(|at| at.as_u64().expect("an offset") as usize).collect();
                line.hold(conversation, &at);
            }
        }
        if let Some(mut stream) = line.stream {
            // FIN, and no byte is left.
            stream.shutdown(Shutdown::Write).expect("it is open");
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).expect("the end");
            assert!(rest.is_empty(), "{}", conversation.name);
        }
    }
}

#[test]
fn malformed_requests_of_the_vectors_get_error_1_and_the_end() {
    let (vectors, mut servers) = (vectors(), Servers::default());
    let malformed = || entries(&vectors, "malformed").filter(|entry| entry["kind"] == "request");
    assert!(malformed().count() > 3);
    for entry in malformed() {
        let mut client = Client::connect(servers.address(number(entry, "feature_dim"), 1));
        client.send(&bytes(&entry["hex"]));
        assert_eq!(client.receive(), Some(Reply::Error(ErrorCode::BadVectorCount)), "{entry}");
        client.expect_end();
    }
}

// ---- In line with requests.

fn told(features: usize, model_name: &str) -> Told {
    Told {
        feature_dim: features as u32,
        outputs: 1,
        max_vectors: MAX_VECTORS_PER_REQUEST,
        model_version: 0,
        model_name: model_name.to_owned(),
    }
}

fn hello_bytes(model_name: &str) -> Vec<u8> {
    let Told { feature_dim, outputs, max_vectors, model_version, .. } = told(FEATURE_DIM, model_name);
    let mut bytes = Vec::new();
    ServerHello { feature_dim, outputs, max_vectors, model_version, model_name }.write(&mut bytes);
    bytes
}

/// Requests with hellos at random places, and all that must come back.
fn mixed(rng: &mut fastrand::Rng, requests: usize, hello: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut sent, mut owed) = (Vec::new(), Vec::new());
    for request in random_requests(rng, requests, 1..=8) {
        for _ in 0..[0, 0, 0, 1, 2][rng.usize(..5)] {
            sent.extend(HelloRequest { feature_dim: [0, FEATURE_DIM as u32][rng.usize(..2)] }.to_bytes());
            owed.extend_from_slice(hello);
        }
        sent.extend(&request.bytes);
        owed.extend(request.reply.wire_bytes());
    }
    (sent, owed)
}

/// Writes `sent` and reads as much as `owed` at the same time; then ends, and nothing else comes.
fn exchange(address: SocketAddr, sent: &[u8], owed: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time above 0");
    let mut writer = stream.try_clone().expect("a descriptor");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            writer.write_all(sent).expect("the server takes what is sent");
            writer.shutdown(Shutdown::Write).expect("it is open");
        });
        let mut came = Vec::new();
        stream.read_to_end(&mut came).expect("all that is owed, then the end");
        assert!(came == owed, "{} bytes came, {} are owed", came.len(), owed.len());
    });
}

/// In deep pipelines, at once on several connections and threads, each hello is answered in its place, and who ends behind the
/// last one still gets everything.
#[test]
fn hellos_in_deep_pipelines_are_answered_in_their_places() {
    for io_threads in [1, 2] {
        let name = "n".repeat(if io_threads == 1 { 255 } else { 3 });
        let server =
            TestServer::serve(Config { io_threads: Some(io_threads), ..config() }, Sum::new(FEATURE_DIM).named(&name));
        let hello = hello_bytes(&name);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (address, hello) = (server.address(), &hello);
                scope.spawn(move || {
                    let mut rng = seeded();
                    for requests in [1, 30, 3000] {
                        let (sent, owed) = mixed(&mut rng, requests, hello);
                        exchange(address, &sent, &owed);
                    }
                });
            }
        });
        assert_eq!(server.finish().requests, 4 * 3031, "a hello is no request");
    }
}

/// While the model is held, hellos behind requests wait for their turn, and those on other connections are answered at once.
#[test]
fn a_hello_waits_for_the_answers_before_it_and_for_nothing_else() {
    let (server, gate) = TestServer::start_gated(config());
    let request = Request::of(FEATURE_DIM, &[0.5; FEATURE_DIM]);
    let (mut waiting, mut other) = (server.connect(), server.connect());
    waiting.send(&request.bytes);
    server.wait_for_requests(1);
    waiting.send_hello(FEATURE_DIM);
    waiting.send(&request.bytes);
    waiting.send_hello(0);
    waiting.half_close();
    let expected = Ok(told(FEATURE_DIM, "gated sum"));
    assert_eq!(other.hello(FEATURE_DIM), expected);
    server.wait_for_requests(2);
    gate.open();
    waiting.expect([&request]);
    assert_eq!(waiting.receive_hello(), Some(expected.clone()));
    waiting.expect([&request]);
    assert_eq!(waiting.receive_hello(), Some(expected));
    waiting.expect_end();
}

/// What was asked before a hello for other features is answered, then comes error 5, then the end; with requests in flight too.
#[test]
fn a_wrong_hello_comes_behind_all_that_is_owed() {
    let (server, gate) = TestServer::start_gated(config());
    let request = Request::of(FEATURE_DIM, &[0.5; FEATURE_DIM]);
    let mut client = server.connect();
    client.send(&request.bytes);
    server.wait_for_requests(1);
    client.send(&[&request.bytes[..], &HelloRequest { feature_dim: 15 }.to_bytes(), &request.bytes].concat());
    server.wait_for_requests(2);
    gate.open();
    client.expect([&request, &request]);
    assert_eq!(client.receive(), Some(Reply::Error(ErrorCode::WrongFeatureDim)));
    client.expect_end();
}

/// A hello is no request, and has counts of its own.
#[test]
fn hellos_are_counted() {
    let server = TestServer::start(Config { admin: Some("127.0.0.1:0".parse().expect("an address")), ..config() });
    let mut client = server.connect();
    for features in [0, FEATURE_DIM, FEATURE_DIM] {
        assert_eq!(client.hello(features), Ok(told(FEATURE_DIM, "sum")));
    }
    assert_eq!(client.hello(1), Err(ErrorCode::WrongFeatureDim));
    client.expect_end();
    drop(client);
    wait_until("it is closed", || server.handle().open_connections() == 0);
    let samples = scrape(server.admin_address());
    for (name, count) in [
        ("disrust_hellos_total{result=\"ok\"}", 3),
        ("disrust_hellos_total{result=\"wrong_feature_dim\"}", 1),
        ("disrust_hellos_total{result=\"closing\"}", 0),
        ("disrust_requests_total{result=\"ok\"}", 0),
        ("disrust_requests_total{result=\"bad\"}", 0),
        ("disrust_connections_closed_total{reason=\"feature_dim\"}", 1),
    ] {
        assert_eq!(value(&samples, name), count, "{name}");
    }
    assert_eq!(server.finish().requests, 0);
}

// ---- When the server stops, or has too much to do.

/// Says hello until it is refused, then with other features too: whatever it says is error 4 from then on, and then comes the
/// end.
fn greet_until_refused(mut client: Client) {
    let mut answer = client.hello(FEATURE_DIM);
    while answer != Err(ErrorCode::Closing) {
        assert_eq!(answer, Ok(told(FEATURE_DIM, "sum")));
        std::thread::sleep(Duration::from_millis(1));
        answer = client.hello(0);
    }
    let request = Request::of(FEATURE_DIM, &[1.0; FEATURE_DIM]);
    client.send(&[&request.bytes[..], &HelloRequest { feature_dim: 3 }.to_bytes(), &request.bytes].concat());
    for _ in 0..2 {
        assert_eq!(client.receive(), Some(Reply::Error(ErrorCode::Closing)));
    }
    client.expect_end();
}

#[test]
fn a_drain_refuses_hellos() {
    let server = TestServer::start(config());
    let client = server.connect();
    std::thread::scope(|scope| {
        let greeting = scope.spawn(|| greet_until_refused(client));
        server.handle().drain();
        greeting.join().expect("it is refused in order");
    });
    assert_eq!(server.finish().refused, 1, "a hello is no request");
}

#[test]
fn hellos_on_an_old_connection_are_refused() {
    let age = Duration::from_millis(100);
    let server = TestServer::start(Config { max_connection_age: Some(age), ..config() });
    greet_until_refused(server.connect());
}

/// Requests that wait for too long are shed; the hellos between them are answered.
#[test]
fn hellos_are_not_shed() {
    let (server, gate) =
        TestServer::start_gated(Config { max_queue_delay: Some(Duration::from_millis(1)), ..config() });
    let request = Request::of(FEATURE_DIM, &[0.5; FEATURE_DIM]);
    let mut client = server.connect();
    client.send(&request.bytes);
    server.wait_for_requests(1);
    client.send(&[&request.bytes[..], &HelloRequest { feature_dim: 0 }.to_bytes(), &request.bytes].concat());
    client.send_hello(FEATURE_DIM);
    server.wait_for_requests(3);
    // Ten times the delay is too late at any time.
    std::thread::sleep(Duration::from_millis(50));
    gate.open();
    // The first one has gone to the model, unless it was late, too.
    assert!(client.receive().is_some());
    assert_eq!(client.receive(), Some(Reply::Error(ErrorCode::Shed)));
    assert_eq!(client.receive_hello(), Some(Ok(told(FEATURE_DIM, "gated sum"))));
    assert_eq!(client.receive(), Some(Reply::Error(ErrorCode::Shed)));
    assert_eq!(client.receive_hello(), Some(Ok(told(FEATURE_DIM, "gated sum"))));
}

// ---- Peers that misbehave.

/// A hello that is begun has as long as a request.
#[test]
fn a_hello_that_does_not_end_is_given_up() {
    let server = TestServer::start(Config { request_timeout: Some(Duration::from_millis(300)), ..config() });
    for length in 1..8 {
        let mut client = server.connect();
        client.send(&HelloRequest { feature_dim: 0 }.to_bytes()[..length]);
        let end = client.receive_or_break();
        assert!(matches!(end, Ok(None) | Err(_)), "{length} bytes: {end:?}");
    }
}

/// Peers that say hello without end and read nothing are held back, others are served meanwhile, and once they read they get an
/// answer to each of their hellos.
#[test]
fn hellos_whose_answers_nobody_reads_are_held_back() {
    let name = "n".repeat(255);
    let server = TestServer::serve(config(), Sum::new(FEATURE_DIM).named(&name));
    let bystander = Bystander::start(server.address());
    let (hellos, answer) = (HelloRequest { feature_dim: 0 }.to_bytes().repeat(512), hello_bytes(&name));
    let clients: Vec<_> = (0..3).map(|_| Client::with_small_buffers(server.address())).collect();
    let mut sent = [0; 3];
    let mut quiet = 0;
    clients.iter().for_each(|client| client.stream().set_nonblocking(true).expect("a TCP socket"));
    wait_until("all are held back", || {
        let before = sent;
        for (client, sent) in clients.iter().zip(&mut sent) {
            while let Ok(written) = client.stream().write(&hellos[*sent % hellos.len()..]) {
                *sent += written;
            }
        }
        quiet = if before == sent { quiet + 1 } else { 0 };
        quiet > 300
    });
    for (client, sent) in clients.iter().zip(sent) {
        let mut stream = client.stream();
        stream.set_nonblocking(false).expect("a TCP socket");
        // A hello that was not sent whole is none.
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut came = Vec::new();
        stream.read_to_end(&mut came).expect("all that is owed, then the end");
        assert_eq!(came.len(), sent / 8 * answer.len());
        assert!(came.chunks(answer.len()).all(|chunk| chunk == answer));
    }
    bystander.finish();
}
