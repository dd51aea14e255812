//! The admin port: what it says is right, it says so whatever the server is at, and nobody makes it hold much.

mod common;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use disrust::config::Config;
use disrust_model::{Model, PredictError, Rows, Sum};
use disrust_protocol::{ErrorCode, FEATURE_DIM};
use nix::sys::signal::Signal;

use common::admin::{Answer, answer_of, ask, connect, garbage, get, read_to_end, samples, scrape, status, value};
use common::models::{TemporaryFile, constant};
use common::{
    Bystander, Client, PATIENCE_FOR_END, Reply, Request, Run, ServerProcess, TestServer, binary, config, free_port,
    random_requests, seeded, wait_patiently_until, wait_until,
};

/// What attackers may make the process grow by.
const MEMORY_MAX: u64 = 16 * 1024 * 1024;

const ADMIN: [&str; 2] = ["--admin", "127.0.0.1:0"];

fn server(flags: &[&str]) -> ServerProcess {
    ServerProcess::start(&[&ADMIN[..], flags].concat())
}

fn config_with_admin() -> Config {
    Config { admin: Some(SocketAddr::from(([127, 0, 0, 1], 0))), stage_times: true, ..config() }
}

/// Every path answers, as it should and to no other method, also where the process has given system calls up.
#[test]
fn each_path_answers() {
    for flags in [&[][..], &["--seccomp", "--io-threads", "2"]] {
        let server = server(flags);
        let admin = server.admin_address();
        for (path, media_type, said) in [
            ("/", "text/html; charset=utf-8", "</html>"),
            ("/metrics", "text/plain; version=0.0.4; charset=utf-8", "\ndisrust_connections 0\n"),
            ("/livez", "text/plain; charset=utf-8", "ok\n"),
            ("/readyz", "text/plain; charset=utf-8", "ok\n"),
            ("/readyz?verbose", "text/plain; charset=utf-8", "[+] batch-processor ok\n[+] io-0 ok\n"),
            ("/drainz", "text/plain; charset=utf-8", "ok\n"),
            ("/status.json", "application/json", "\"state\":\"ready\""),
        ] {
            let answer = get(admin, path);
            assert!(answer.status == 200 && answer.body.contains(said), "{path}: {answer:?}");
            assert_eq!(answer.header("content-type"), Some(media_type), "{path}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
            assert_eq!(answer.header("content-length"), Some(&*answer.body.len().to_string()), "{path}");
            let head = ask(admin, &format!("HEAD {path} HTTP/1.1\r\nHost: disrust\r\nConnection: close\r\n\r\n"));
            assert!(head.status == 200 && head.body.is_empty() && head.header("content-length").is_some(), "{head:?}");
        }
        let unknown = get(admin, "/favicon.ico");
        assert!(unknown.status == 404 && unknown.body.contains("/metrics"), "{unknown:?}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"] {
            let refused = ask(
                admin,
                &format!(
                    "{method} /livez HTTP/1.1\r\nHost: disrust\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"
                ),
            );
            assert!(refused.status == 405 && refused.header("allow") == Some("get, head"), "{refused:?}");
        }
        let body =
            ask(admin, "GET /livez HTTP/1.1\r\nHost: disrust\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc");
        assert_eq!(body.status, 413);
        let old = ask(admin, "GET /livez HTTP/1.0\r\n\r\n");
        assert_eq!((old.status, &*old.body), (200, "ok\n"));
    }
}

/// A browser is told to run what the page holds and nothing else.
#[test]
fn the_page_has_a_policy() {
    let policy = get(server(&[]).admin_address(), "/").header("content-security-policy").map(str::to_owned);
    let policy = policy.expect("there is one");
    assert!(policy.starts_with("default-src 'none'; connect-src 'self'; ") && policy.contains("sha256-"), "{policy}");
}

/// Who runs no script reads how the server was when the page was asked for; a name is no markup.
#[test]
fn the_page_is_readable_without_script() {
    let server = server(&["--model-name", "<b>sum</b>"]);
    server.connect().exchange(&[Request::of(FEATURE_DIM, &[1.0; FEATURE_DIM])]);
    let rows = [
        ("State", "ready"),
        ("Model", "&lt;b&gt;sum&lt;/b&gt;"),
        ("disrust_requests_total{result=&quot;ok&quot;}", "1"),
    ];
    let rows = rows.map(|(name, value)| format!("<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>"));
    wait_until("the answer is counted", || {
        let page = get(server.admin_address(), "/").body;
        assert!(!page.contains("<b>") && page.contains(&rows[0]) && page.contains(&rows[1]), "{page}");
        page.contains(&rows[2])
    });
}

/// While the model hangs, the port answers: not ready soon, not alive later, and well again when the model is back.
#[test]
fn a_model_that_hangs_is_told_of() {
    let (server, gate) = TestServer::start_gated(Config { io_threads: Some(2), ..config_with_admin() });
    let admin = server.admin_address();
    let is =
        |path: &str, expected: u16| wait_patiently_until(PATIENCE_FOR_END, path, || status(admin, path) == expected);
    let mut client = server.connect();
    let request = Request::of(FEATURE_DIM, &[0.25; FEATURE_DIM]);
    assert_eq!([status(admin, "/livez"), status(admin, "/readyz"), status(admin, "/drainz")], [200; 3]);
    client.send(&request.bytes);
    is("/readyz", 503);
    let why = get(admin, "/readyz");
    assert!(why.body.starts_with("[-] step: the batch processor has been in one step for "), "{}", why.body);
    // Balancers give it no more, and cut nothing yet.
    is("/drainz", 404);
    is("/livez", 503);
    assert!(get(admin, "/livez").body.contains("[-] batch-processor: "));
    assert_eq!([status(admin, "/readyz"), status(admin, "/drainz")], [503; 2]);
    assert!(get(admin, "/metrics").body.contains("\ndisrust_state{state=\"broken\"} 1\n"));
    gate.open();
    client.expect([&request]);
    for path in ["/livez", "/readyz", "/drainz"] {
        is(path, 200);
    }
    let events = get(admin, "/status.json").body;
    assert!(events.contains("\"text\":\"broken\"") && events.contains("\"text\":\"ready\""), "{events}");
}

/// In a drain the port answers until the end, not ready and not broken; and its counters are those of the drain's report.
#[test]
fn a_drain_is_told_of_and_its_report_agrees() {
    let server = server(&["--drain-timeout", "1h", "--features", "1", "--io-threads", "2"]);
    let (admin, mut rng) = (server.admin_address(), seeded());
    let mut client = server.connect();
    for _ in 0..20 {
        let requests: Vec<Request> = (0..50).map(|_| Request::random(&mut rng, 1, 3)).collect();
        client.exchange(&requests);
    }
    let mut wrong = server.connect();
    wrong.send(&65_u32.to_le_bytes());
    assert!(wrong.is_closed_by_server());
    drop(wrong);
    // A client that does not read keeps the drain from its end.
    let deaf = Client::with_small_buffers(server.address());
    let bytes = Request::of(1, &[1.0; 64]).bytes.repeat(100);
    deaf.stream().set_write_timeout(Some(Duration::from_secs(1))).expect("a time above 0");
    while Write::write_all(&mut deaf.stream(), &bytes).is_ok() {}
    server.signal(Signal::SIGTERM);
    wait_until("it drains", || get(admin, "/readyz").body == "[-] not-draining: the server drains\n");
    assert_eq!(["/livez", "/readyz", "/drainz"].map(|path| status(admin, path)), [200, 503, 404]);
    client.expect_end();
    drop(client);
    let mut last = BTreeMap::new();
    wait_patiently_until(PATIENCE_FOR_END, "all is quiet", || {
        let before = std::mem::replace(&mut last, scrape(admin));
        let same = |name: &str| before.get(name) == last.get(name);
        std::thread::sleep(Duration::from_millis(100));
        value(&last, "disrust_connections") == 1 && same("disrust_vectors_total") && same("disrust_receive_bytes_total")
    });
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait();
    assert_eq!(status, Some(0), "{log}");
    let told = |name: &str| value(&last, name);
    let result = |result: &str| told(&format!("disrust_requests_total{{result=\"{result}\"}}"));
    let report = format!(
        "drained: {} connections served, 1 cut at the end; {} requests answered, {} of them failed and {} shed, {} discarded \
         because their peer had gone, {} refused while draining, {} bad",
        told("disrust_connections_accepted_total"),
        result("ok") + result("model_error") + result("shed"),
        result("model_error"),
        result("shed"),
        result("discarded"),
        result("closing"),
        result("bad"),
    );
    assert!(log.contains(&report), "{report}: {log}");
    assert!(result("ok") > 1000 && result("bad") == 1, "{last:?}");
    drop(deaf);
}

/// A server that is about to drain says so to balancers while it serves as ever.
#[test]
fn a_server_that_leaves_is_told_of() {
    let server = server(&["--shutdown-delay", "1h"]);
    let (admin, mut rng) = (server.admin_address(), seeded());
    server.signal(Signal::SIGTERM);
    wait_until("it leaves", || status(admin, "/readyz") == 503);
    assert_eq!([status(admin, "/livez"), status(admin, "/drainz")], [200, 404]);
    assert_eq!(get(admin, "/readyz").body, "[-] not-leaving: the server is about to drain\n");
    assert!(get(admin, "/status.json").body.contains("\"state\":\"leaving\""));
    server.connect().exchange(&random_requests(&mut rng, 20, 1..=8));
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait();
    assert_eq!(status, Some(0), "{log}");
}

/// Counters never fall, histograms are whole, and all add up, while the server works.
#[test]
fn scrapes_under_load_are_sound() {
    let server = server(&["--io-threads", "2"]);
    let admin = server.admin_address();
    let bystanders: Vec<_> = (0..4).map(|_| Bystander::start(server.address())).collect();
    let mut before = scrape(admin);
    for _ in 0..100 {
        let now = scrape(admin);
        for (name, count) in now.iter().filter(|(name, _)| name.contains("_total") || name.contains("_bucket")) {
            assert!(before.get(name).is_none_or(|before| before <= count), "{name} falls");
        }
        for duration in ["request", "queue", "predict", "respond"] {
            let name = format!("disrust_{duration}_duration_seconds");
            let bucket = |bound: &str| now[&format!("{name}_bucket{{le=\"{bound}\"}}")];
            let bounds = ["0.000005", "0.00001", "0.0001", "0.001", "0.01", "0.1", "0.5", "1", "+Inf"];
            assert!(bounds.map(bucket).is_sorted(), "{name}");
            assert_eq!(bucket("+Inf"), now[&format!("{name}_count")]);
        }
        before = now;
    }
    bystanders.into_iter().for_each(Bystander::finish);
    wait_until("all is answered", || {
        let now = scrape(admin);
        let answered = value(&now, "disrust_requests_total{result=\"ok\"}");
        answered > 0 && value(&now, "disrust_request_duration_seconds_count") == answered
    });
}

/// A hundred connections that never send a whole head, and a hundred more that send it byte by byte, keep nobody out, and are
/// ended.
#[test]
fn slow_heads_keep_nobody_out() {
    let server = server(&[]);
    let admin = server.admin_address();
    let before = server.resident_bytes();
    let mut slow: Vec<TcpStream> = Vec::new();
    for _ in 0..100 {
        let mut stream = connect(admin);
        stream.write_all(b"GET /livez HTTP/1.1\r\nHo").expect("it is accepted");
        slow.push(stream);
        assert_eq!(status(admin, "/livez"), 200);
    }
    for stream in &mut slow {
        // Some of them have been ended.
        let _ended = stream.write_all(b"s");
        assert_eq!(status(admin, "/readyz"), 200);
    }
    for stream in &mut slow {
        assert_eq!(answer_of(&read_to_end(stream)).map(|answer| answer.status), None, "it is ended without an answer");
    }
    assert!(server.resident_bytes() < before + MEMORY_MAX);
}

/// Heads of a megabyte are refused in words, and cost nothing; so do requests that never end.
#[test]
fn large_heads_are_refused() {
    let server = server(&[]);
    let admin = server.admin_address();
    let before = server.resident_bytes();
    let long_line = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1024 * 1024));
    let long_header = format!("GET / HTTP/1.1\r\nCookie: {}\r\n\r\n", "a".repeat(1024 * 1024));
    let many_headers = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200_000));
    for request in [&long_line, &long_header, &many_headers] {
        for _ in 0..10 {
            let mut stream = connect(admin);
            let mut writer = stream.try_clone().expect("a descriptor");
            let heard = std::thread::scope(|scope| {
                // The server may end the connection meanwhile.
                scope.spawn(move || _ = writer.write_all(request.as_bytes()));
                read_to_end(&mut stream)
            });
            let status = answer_of(&heard).map(|answer| answer.status);
            assert!(matches!(status, Some(414 | 431)), "{status:?} to {:?}", &request[..20]);
        }
        assert_eq!(status(admin, "/livez"), 200);
    }
    let normal = format!("GET /livez HTTP/1.1\r\nConnection: close\r\nCookie: {}\r\n\r\n", "a".repeat(7000));
    assert_eq!(ask(admin, &normal).status, 200, "browsers' cookies fit");
    assert!(server.resident_bytes() < before + MEMORY_MAX);
}

/// Whatever is sent, the port goes on and the process does not grow.
#[test]
fn garbage_does_no_harm() {
    const CASES: u64 = 500;
    let server = server(&[]);
    let admin = server.admin_address();
    status(admin, "/metrics");
    let before = server.resident_bytes();
    let mut open = Vec::new();
    for seed in 0..CASES {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut stream = connect(admin);
        // The server may end the connection meanwhile.
        let _ended = stream.write_all(&garbage(&mut rng));
        match rng.u8(..4) {
            // Some hang up at once, some do not.
            0 => drop(stream),
            1 => open.push(stream),
            _ => {
                stream.shutdown(std::net::Shutdown::Write).unwrap_or_default();
                let heard = read_to_end(&mut stream);
                let status = answer_of(&heard).map(|answer| answer.status);
                assert!(heard.is_empty() || status.is_some(), "seed {seed}: {:?}", String::from_utf8_lossy(&heard));
            }
        }
    }
    assert_eq!(status(admin, "/livez"), 200);
    assert!(server.resident_bytes() < before + MEMORY_MAX, "it grew from {before} to {}", server.resident_bytes());
    drop(open);
    server.connect().exchange(&random_requests(&mut seeded(), 20, 1..=8));
}

/// Who asks again and again keeps its connection, and is answered in order; who asks without a pause gets an end behind an answer,
/// and has to connect again; who sends a body is not listened to any longer.
#[test]
fn a_connection_is_kept_until_too_much_is_asked() {
    let server = server(&[]);
    let admin = server.admin_address();
    let mut stream = connect(admin);
    for (path, content) in [("/livez", "ok\n"), ("/metrics", "disrust_state"), ("/readyz", "ok\n")] {
        write!(stream, "GET {path} HTTP/1.1\r\nHost: disrust\r\n\r\n").expect("it is kept");
        let mut heard = Vec::new();
        let answer = loop {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            heard.push(byte[0]);
            let answer = answer_of(&heard);
            let length = |answer: &Answer| answer.header("content-length").and_then(|length| length.parse().ok());
            if let Some(answer) = answer.filter(|answer| length(answer) == Some(answer.body.len())) {
                break answer;
            }
        };
        assert!(answer.status == 200 && answer.body.contains(content), "{answer:?}");
    }
    const FLOOD: usize = 1000;
    let _ended = stream.write_all("GET /livez HTTP/1.1\r\nHost: disrust\r\n\r\n".repeat(FLOOD).as_bytes());
    let heard = read_to_end(&mut stream);
    let heard = String::from_utf8_lossy(&heard);
    let (answers, ends) = (heard.matches("HTTP/1.1 200 OK").count(), heard.matches("connection: close").count());
    assert!((1..FLOOD).contains(&answers) && ends == 1, "{answers} answers, {ends} of them the last one");
    // This is one request, in whose body is another one.
    let body = "GET /livez HTTP/1.1\r\nHost: disrust\r\n\r\n";
    let answer = ask(admin, &format!("GET /livez HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")), "{answer:?}");
    assert!(!answer.body.contains("HTTP"), "{answer:?}");
}

/// Scrapers that do not read their answers, and a crowd that asks without a pause, keep neither health checks nor clients out.
#[test]
fn a_flood_keeps_nobody_out() {
    let server = server(&["--io-threads", "2"]);
    let admin = server.admin_address();
    status(admin, "/metrics");
    let before = server.resident_bytes();
    let bystander = Bystander::start(server.address());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for path in ["/metrics", "/status.json", "/"] {
            let stop = &stop;
            scope.spawn(move || {
                let mut unread = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = connect(admin);
                    // It may have been ended for others.
                    let _ended = write!(stream, "GET {path} HTTP/1.1\r\nHost: disrust\r\nConnection: close\r\n\r\n");
                    unread.push(stream);
                    if unread.len() > 50 {
                        unread.clear();
                    }
                }
            });
        }
        for _ in 0..20 {
            wait_until("a health check is answered", || {
                let mut stream = connect(admin);
                // It may be ended for others, as each of them; who asks again is answered.
                let sent = stream.write_all(b"GET /livez HTTP/1.1\r\nHost: disrust\r\nConnection: close\r\n\r\n");
                sent.is_ok() && answer_of(&read_to_end(&mut stream)).is_some_and(|answer| answer.status == 200)
            });
        }
        stop.store(true, Ordering::Relaxed);
    });
    bystander.finish();
    assert!(server.resident_bytes() < before + MEMORY_MAX);
}

/// An address that cannot be had ends the start with words and status 71, and leaves the other port free.
#[test]
fn an_admin_address_that_cannot_be_had_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("a bound socket has an address").to_string();
    let owner = format!("pid {} (", std::process::id());
    for (admin, words) in
        [(&*address, [&*owner, "--admin"]), ("192.0.2.1:9901", ["no address of this machine", "--admin"])]
    {
        let port = free_port();
        let run = Run::of(binary().args(["--port", &port.to_string(), "--pin", "none", "--admin", admin]));
        assert!(run.status == Some(71) && words.iter().all(|words| run.stderr.contains(words)), "{run:?}");
        assert!(run.stderr.contains(admin) && run.stderr.lines().count() == 1, "{run:?}");
        assert!(TcpListener::bind(("127.0.0.1", port)).is_ok(), "the other port is free");
    }
    for wrong in ["9901", "localhost:9901", "127.0.0.1", "on", ""] {
        let run = Run::of(binary().args(["--admin", wrong]));
        assert!(run.status == Some(2) && run.stderr.contains("--admin"), "{wrong}: {run:?}");
    }
}

/// `disrust health` says whether a server is ready, wherever it learns of its address, and why not.
#[test]
fn health_is_asked_for_without_a_shell() {
    let server = server(&["--drain-timeout", "1h", "--features", "1"]);
    let address = server.admin_address().to_string();
    let file = TemporaryFile::new("health.toml", format!("admin = \"{address}\"\nport = 1\n").into_bytes());
    let ways = [
        (vec!["--admin", &*address], vec![]),
        (vec![], vec![("DISRUST_ADMIN", &*address)]),
        (vec!["--config", file.path()], vec![]),
        (vec![], vec![("DISRUST_CONFIG", file.path())]),
        (vec!["--admin", &*address], vec![("DISRUST_ADMIN", "127.0.0.1:1")]),
    ];
    let ask = |flags: &[&str], environment: &[(&str, &str)]| {
        Run::of(binary().arg("health").args(flags).envs(environment.iter().copied()))
    };
    for (flags, environment) in &ways {
        let run = ask(flags, environment);
        assert!(run.status == Some(0) && run.stdout.ends_with("ok\n") && run.stderr.is_empty(), "{run:?}");
    }
    let deaf = Client::with_small_buffers(server.address());
    let bytes = Request::of(1, &[1.0; 64]).bytes.repeat(100);
    deaf.stream().set_write_timeout(Some(Duration::from_secs(1))).expect("a time above 0");
    while Write::write_all(&mut deaf.stream(), &bytes).is_ok() {}
    server.signal(Signal::SIGTERM);
    wait_until("it drains", || get(server.admin_address(), "/readyz").body.contains("the server drains"));
    let run = ask(&ways[0].0, &[]);
    assert!(run.stderr.contains("[-] not-draining: the server drains\n") && run.stdout.is_empty(), "{run:?}");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().0, Some(0));
    let run = ask(&ways[0].0, &[]);
    assert!(run.status == Some(1) && run.stderr.contains("cannot ask"), "{run:?}");
    for none in [&[][..], &["--admin", "off"]] {
        let run = ask(none, &[]);
        assert!(run.status == Some(1) && run.stderr.contains("--admin ADDR:PORT"), "{run:?}");
    }
    assert_eq!(ask(&["--admin", "here"], &[]).status, Some(2));
    assert_eq!(ask(&["--config", "/missing.toml"], &[]).status, Some(78));
    drop(deaf);
}

/// Whatever else listens there, `disrust health` ends, with status 1.
#[test]
fn health_believes_no_stranger() {
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = stranger.local_addr().expect("a bound socket has an address").to_string();
    let answers: [&[u8]; 4] =
        [b"", b"HTTP/1.1 200 OK\r\n\r\nhello", b"\x00\xff\x00", b"HTTP/1.1 500 No\r\n\r\n[+] x ok\n"];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for answer in answers {
                let (mut stream, _) = stranger.accept().expect("it asks");
                let _asked = stream.read(&mut [0; 1024]);
                stream.write_all(answer).expect("it listens");
            }
        });
        for answer in answers {
            let run = Run::of(binary().args(["health", "--admin", &address]));
            assert!(run.status == Some(1) && run.stderr.contains(&address), "{answer:?}: {run:?}");
        }
    });
}

/// A model that is read again is told of: which one serves, since when, and how often it was tried.
#[test]
fn a_reload_is_told_of() {
    let file = TemporaryFile::new("told.txt", constant(1));
    let server = server(&["--model", file.path(), "--model-name", "a \"b\" \\"]);
    let admin = server.admin_address();
    let reloads = |result: &str| value(&scrape(admin), &format!("disrust_model_reloads_total{{result=\"{result}\"}}"));
    let info = || {
        let text = get(admin, "/metrics").body;
        let line = text.lines().find(|line| line.starts_with("disrust_model_info{")).expect("there is one").to_owned();
        assert!(line.starts_with(r#"disrust_model_info{name="a \"b\" \\",version=""#), "{line}");
        line
    };
    let first = info();
    assert!(!first.contains("version=\"0000000000000000\""), "{first}");
    file.replace(constant(2));
    server.signal(Signal::SIGHUP);
    wait_patiently_until(PATIENCE_FOR_END, "the new model serves", || reloads("ok") == 1);
    let second = info();
    assert_ne!(first, second);
    file.replace(b"no model");
    server.signal(Signal::SIGHUP);
    wait_patiently_until(PATIENCE_FOR_END, "the file is refused", || reloads("failed") == 1);
    assert_eq!((info(), reloads("ok")), (second, 1));
    let status = get(admin, "/status.json").body;
    assert!(status.contains("reloaded: the model a ") && status.contains("the new model is not taken: "), "{status}");
}

/// A server whose admin port nobody asks sleeps nearly always.
#[test]
fn an_admin_thread_sleeps() {
    let server = server(&[]);
    // It has its name once it has run.
    assert_eq!(status(server.admin_address(), "/livez"), 200);
    let wakes = || -> u64 {
        let threads = std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("it runs").flatten();
        let admin = threads
            .map(|thread| thread.path())
            .find(|path| std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim() == "admin"));
        let status = std::fs::read_to_string(admin.expect("there is the thread").join("status")).expect("it runs");
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.and_then(|count| count.trim().parse().ok()).expect("proc(5)")
    };
    let before = wakes();
    std::thread::sleep(Duration::from_secs(2));
    assert!(wakes() - before <= 2 * 10, "{} times in two seconds", wakes() - before);
}

/// The numbers of the status page have the names that the page knows, and move.
#[test]
fn the_status_tells_what_the_page_shows() {
    let server = server(&["--io-threads", "2"]);
    let admin = server.admin_address();
    let bystander = Bystander::start(server.address());
    let mut status = serde_json::Value::Null;
    wait_until("a second has passed under load", || {
        status = serde_json::from_str(&get(admin, "/status.json").body).expect("it is JSON");
        status["history"]["requests_per_s"]
            .as_array()
            .is_some_and(|rates| rates.iter().any(|rate| rate.as_f64() > Some(0.0)))
    });
    bystander.finish();
    for (pointer, is_right) in [
        ("/state", (|value| value == "ready") as fn(&serde_json::Value) -> bool),
        ("/shedding", |value| value == false),
        ("/version", |value| value == env!("CARGO_PKG_VERSION")),
        ("/kernel", |value| value.is_string()),
        ("/uptime_seconds", |value| value.as_f64() > Some(0.0)),
        ("/now_unix_seconds", |value| value.as_f64() > Some(1.7e9)),
        ("/listen/0", |value| value.as_str().is_some_and(|address| address.parse::<SocketAddr>().is_ok())),
        ("/wait", |value| value.is_string()),
        ("/helping", |value| value.is_boolean()),
        ("/model/version", |value| value.as_str().is_some_and(|version| version.len() == 16)),
        ("/model/reloads/ok", |value| value == 0),
        ("/model/features", |value| value == 16),
        ("/model/outputs", |value| value == 1),
        ("/cpus/2/thread", |value| value == "batch-processor"),
        ("/cpus/0/cpu", |value| value.is_null()),
        ("/totals/disrust_requests_total{result=\"ok\"}", |value| value.as_u64() > Some(0)),
        ("/history/seconds/0", |value| value.is_u64()),
        ("/history/p999_us/0", |value| value.is_number()),
        ("/history/connections/0", |value| value.is_u64()),
        ("/threads/1/thread", |value| value == "io-1"),
        ("/threads/1/buffers", |value| value.as_u64() > Some(0)),
        ("/connections/open", |value| value.is_u64()),
        ("/connections/top", |value| value.is_array()),
        ("/errors/0/cause", |value| value.is_string()),
        ("/events/0/text", |value| value.as_str().is_some_and(|text| text.starts_with("started"))),
    ] {
        let value = status.pointer(pointer);
        assert!(value.is_some_and(is_right), "{pointer} is {value:?}: {status}");
    }
    let lengths: Vec<_> = status["history"]
        .as_object()
        .expect("columns")
        .values()
        .map(|column| column.as_array().map(Vec::len))
        .collect();
    assert!(lengths.len() == 9 && lengths.iter().all(|length| *length == lengths[0]), "{lengths:?}");
}

/// The sum, but for rows that begin with a NaN, on which it fails.
struct Fragile(Sum);

impl Model for Fragile {
    fn name(&self) -> &str {
        "fragile sum"
    }

    fn feature_dim(&self) -> usize {
        self.0.feature_dim()
    }

    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
        let mut matrix = vec![0.0; rows.count() * FEATURE_DIM];
        rows.gather(&mut matrix);
        match matrix.chunks(FEATURE_DIM).any(|row| row[0].is_nan()) {
            true => Err(PredictError("a row begins with NaN".to_owned())),
            false => self.0.predict(rows, scores),
        }
    }
}

/// The sum, 5 ms a call.
struct Slow(Sum);

impl Model for Slow {
    fn name(&self) -> &str {
        "slow sum"
    }

    fn feature_dim(&self) -> usize {
        self.0.feature_dim()
    }

    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
        std::thread::sleep(Duration::from_millis(5));
        self.0.predict(rows, scores)
    }
}

/// While requests are shed, the status, the page of who runs no script, the log of events and the metrics say so; when it is
/// over, they say that; and what they counted is what the clients got.
#[test]
fn shedding_is_told_of() {
    let config = Config { max_queue_delay: Some(Duration::from_millis(1)), ..config_with_admin() };
    let server = TestServer::serve(config, Slow(Sum::new(FEATURE_DIM)));
    let (admin, address) = (server.admin_address(), server.address());
    let stop = Arc::new(AtomicBool::new(false));
    let result = |scraped: &BTreeMap<String, f64>, result: &str| {
        value(scraped, &format!("disrust_requests_total{{result=\"{result}\"}}"))
    };
    let is_shedding = || {
        let status: serde_json::Value = serde_json::from_str(&get(admin, "/status.json").body).expect("it is JSON");
        status["shedding"].as_bool().expect("yes or no")
    };
    let state = |said: &str| format!("<tr><th scope=\"row\">State</th><td>{said}</td></tr>");
    assert!(!is_shedding());
    let stopped = Arc::clone(&stop);
    // More connections ask at a time than are answered before the last of them has waited for too long, over and over.
    let overload = std::thread::spawn(move || {
        let mut rng = seeded();
        let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(address)).collect();
        let (mut scored, mut shed) = (0, 0);
        while !stopped.load(Ordering::Relaxed) {
            let requests = random_requests(&mut rng, clients.len(), 1..=2);
            clients.iter().zip(&requests).for_each(|(client, request)| client.send(&request.bytes));
            for (client, request) in clients.iter_mut().zip(&requests) {
                match client.receive().expect("an answer") {
                    Reply::Error(ErrorCode::Shed) => shed += 1,
                    reply => {
                        assert_eq!(reply, request.reply);
                        scored += 1;
                    }
                }
            }
        }
        (scored, shed)
    });
    wait_until("it says that it sheds", || is_shedding() || overload.is_finished());
    wait_until("the page says so", || get(admin, "/").body.contains(&state("ready, shedding")));
    wait_until("it is counted", || result(&scrape(admin), "shed") > 0);
    // It serves, all the same.
    assert_eq!(["/livez", "/readyz", "/drainz"].map(|path| status(admin, path)), [200; 3]);
    stop.store(true, Ordering::Relaxed);
    let (scored, shed) = overload.join().expect("the answers are right, or say that the request was shed");
    wait_until("it says that it is over", || !is_shedding() && get(admin, "/").body.contains(&state("ready")));
    let events = get(admin, "/status.json").body;
    assert!(
        events.contains("\"text\":\"shedding began\"") && events.contains("\"text\":\"shedding ended\""),
        "{events}"
    );
    let mut scraped = BTreeMap::new();
    wait_until("all is counted", || {
        scraped = scrape(admin);
        result(&scraped, "ok") + result(&scraped, "shed") == scored + shed
    });
    assert_eq!((result(&scraped, "ok"), result(&scraped, "shed")), (scored, shed));
    assert!(shed > 0 && value(&scraped, "disrust_request_duration_seconds_count") == scored + shed, "{scraped:?}");
}

/// Each request counts once, by its result; and so does each connection, by how it ended.
#[test]
fn results_and_ends_add_up() {
    let server = TestServer::serve(config_with_admin(), Fragile(Sum::new(FEATURE_DIM)));
    let (admin, mut rng) = (server.admin_address(), seeded());
    let mut client = server.connect();
    let mut requests = random_requests(&mut rng, 90, 1..=4);
    for request in requests.iter_mut().step_by(3) {
        request.bytes[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
        request.reply = Reply::Error(ErrorCode::ModelFailed);
    }
    client.exchange(&requests);
    for _ in 0..2 {
        let mut wrong = server.connect();
        wrong.send(&0_u32.to_le_bytes());
        assert!(wrong.is_closed_by_server());
    }
    drop(client);
    let mut scraped = BTreeMap::new();
    wait_until("all connections have ended", || {
        scraped = scrape(admin);
        value(&scraped, "disrust_connections") == 0
    });
    let by = |label: &str| value(&scraped, label);
    for (result, count) in [("ok", 60), ("model_error", 30), ("bad", 2), ("shed", 0), ("closing", 0), ("discarded", 0)]
    {
        assert_eq!(by(&format!("disrust_requests_total{{result=\"{result}\"}}")), count, "{result}");
    }
    for (reason, count) in [("peer", 1), ("framing", 2), ("broken", 0), ("cut", 0), ("rejected", 0)] {
        assert_eq!(by(&format!("disrust_connections_closed_total{{reason=\"{reason}\"}}")), count, "{reason}");
    }
    assert_eq!((by("disrust_connections_accepted_total"), by("disrust_request_duration_seconds_count")), (3, 90));
    assert!(scraped["disrust_batch_busy_seconds_total"] > 0.0, "{scraped:?}");
}

/// The page is told of the connections that have most under way: whose they are, and who is held back.
#[test]
fn busy_connections_are_told_of() {
    let (server, gate) = TestServer::start_gated(Config { io_threads: Some(2), ..config_with_admin() });
    let admin = server.admin_address();
    let (mut client, idle) = (server.connect(), server.connect_many(20));
    let request = Request::of(FEATURE_DIM, &[0.25; FEATURE_DIM]);
    client.send(&request.bytes);
    server.wait_for_requests(1);
    let peer = client.stream().local_addr().expect("it is connected").to_string();
    let mut top = Vec::new();
    wait_until("its request is told of", || {
        let status: serde_json::Value = serde_json::from_str(&get(admin, "/status.json").body).expect("it is JSON");
        top = status["connections"]["top"].as_array().expect("a list").clone();
        top.first().is_some_and(|first| first["peer"] == *peer && first["in_flight"] == 1)
    });
    assert!(top.len() <= 10 && top[1..].iter().all(|other| other["in_flight"] == 0), "{top:?}");
    assert!(top[0]["out_of_credit"] == false && top[0]["age_seconds"].is_u64(), "{top:?}");
    assert!(top[0]["thread"] == "io-0" || top[0]["thread"] == "io-1", "{top:?}");
    gate.open();
    client.expect([&request]);
    let mut deaf = server.connect_deaf(1, &Request::of(FEATURE_DIM, &[1.0; 64 * FEATURE_DIM]));
    wait_until("who does not read is told of", || {
        // It may be let write more after a while, until that is used up too.
        deaf.send();
        let status = get(admin, "/status.json").body;
        status.contains("\"out_of_credit\":true")
    });
    drop((deaf, idle));
}

/// The text is that of its declared families alone.
#[test]
fn the_helper_reads_what_it_should() {
    let read = samples("# HELP a b\n# TYPE a counter\na{x=\"y z\"} 2\na 0.5\n");
    assert_eq!((value(&read, "a{x=\"y z\"}"), read["a"]), (2, 0.5));
}
