//! The binary, as an operator and a service manager see it: flags, messages, exit statuses, signals.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use disrust_protocol::{ErrorCode, FEATURE_DIM};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::Value;

use common::models::{TemporaryFile, cut, lightgbm, regression, three_classes};
use common::{Client, Reply, Request, Run, ServerProcess, binary, free_port, random_requests, seeded, wait_until};

/// The binary's end with these flags.
fn run(flags: &[&str]) -> Run {
    Run::of(binary().args(flags))
}

fn assert_serves(client: &mut Client) {
    let requests = random_requests(&mut seeded(), 20, 1..=64);
    client.exchange(&requests);
}

/// Help and the version go to stdout, with status 0.
#[test]
fn help_and_version_are_no_failure() {
    for (flag, said) in [("--version", env!("CARGO_PKG_VERSION")), ("--help", "--io-threads"), ("-h", "--port")] {
        let run = run(&[flag]);
        assert!(run.status == Some(0) && run.stdout.contains(said) && run.stderr.is_empty(), "{flag}: {run:?}");
    }
}

/// A mistake on the command line is status 2, and the message names the flag.
#[test]
fn bad_flags_are_named() {
    for (flags, said) in [
        (&["--port", "65536"][..], "--port"),
        (&["-p", "x"], "--port"),
        (&["--io-threads", "0"], "--io-threads"),
        (&["--io-threads", "many"], "--io-threads"),
        (&["--pin", "0-"], "--pin"),
        (&["--io-threads", "4", "--pin", "0-3"], "--io-threads 4 needs 5"),
        (&["--pin-policy", "lenient"], "--pin-policy"),
        (&["--wait", "sleep"], "--wait"),
        (&["--features", "0"], "--features"),
        (&["--output", ""], "--output"),
        (&["--output", "1"], "the sum has one output"),
        (&["--output", "sum"], "--model PATH"),
        (&["--raw"], "the sum has no margin"),
        (&["--raw=maybe"], "--raw"),
        (&["--model-name", ""], "--model-name"),
        (&["verify"], "--model"),
        (&["verify", "--model", "m.txt", "--expected", "y.csv"], "--inputs"),
        (&["verify", "--model", "m.txt", "--rows", "0"], "--rows"),
        (&["verify", "--model", "m.txt", "--port", "1"], "--port"),
        (&["--port", "1", "verify", "--model", "m.txt"], "verify"),
        (&["completions"], "<SHELL>"),
        (&["completions", "tcl"], "bash"),
        (&["--log-format", "xml"], "--log-format"),
        (&["--max-connections", "-1"], "--max-connections"),
        (&["--idle-timeout", "soon"], "--idle-timeout"),
        (&["--drain-timeout", "10"], "--drain-timeout"),
        (&["--drain-timeout", "18446744073709551615s"], "longer than 365 days"),
        (&["--buffer-memory", "1.5GiB"], "--buffer-memory"),
        (&["--reuse-port=maybe"], "--reuse-port"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["sum.onnx"], "sum.onnx"),
        (&["--host"], "--host"),
    ] {
        let run = run(flags);
        assert!(run.status == Some(2) && run.stderr.contains(said), "{flags:?}: {run:?}");
    }
    let run = Run::of(binary().env("DISRUST_WAIT", "sleep"));
    assert!(run.status == Some(2) && run.stderr.contains("DISRUST_WAIT in the environment is \"sleep\""), "{run:?}");
    assert!(run.stderr.contains("--wait"), "{run:?}");
}

/// A bad config file or model is status 78, and the message names the file.
#[test]
fn bad_files_are_named() {
    let unknown = TemporaryFile::new("unknown.toml", "port = 0\nthreads = 4\n");
    let broken = TemporaryFile::new("broken.toml", "port =\n");
    let bad_value = TemporaryFile::new("bad_value.toml", "port = 70000\n");
    let (unknown, broken, bad_value) = (unknown.path(), broken.path(), bad_value.path());
    for (flags, said) in [
        (["--model", "missing.onnx"], ["missing.onnx", "--model"]),
        (["--config", "missing.toml"], ["missing.toml", "cannot be read"]),
        (["--config", unknown], [unknown, "threads"]),
        (["--config", broken], [broken, "line 1"]),
        (["--config", bad_value], [bad_value, "port"]),
    ] {
        let run = run(&flags);
        assert!(run.status == Some(78) && said.iter().all(|said| run.stderr.contains(said)), "{flags:?}: {run:?}");
    }
    let run = Run::of(binary().env("DISRUST_CONFIG", "missing.toml"));
    assert!(run.status == Some(78) && run.stderr.contains("missing.toml"), "{run:?}");
}

/// A model file that is not served is status 78, and the one message says what, which file, and what would work.
#[test]
fn a_model_file_that_is_not_served_is_named() {
    let (one, three) = (TemporaryFile::new("one.txt", regression()), TemporaryFile::new("three.txt", three_classes()));
    let cut = TemporaryFile::new("cut.txt", cut(&regression()));
    let wide = TemporaryFile::new("wide.txt", wide_model());
    let fifo = TemporaryFile::named("model.fifo");
    nix::unistd::mkfifo(fifo.path(), Mode::S_IRUSR).expect("the folder takes pipes");
    let long = "x".repeat(256);
    for (flags, said) in [
        (&["--model", "missing.txt"][..], &["missing.txt", "No such file", "Try: "][..]),
        (&["--model", "/"], &["it is a directory"]),
        (&["--model", "/dev/zero"], &["not a regular file"]),
        (&["--model", fifo.path()], &["not a regular file"]),
        (&["--model", env!("CARGO_MANIFEST_PATH")], &["Cargo.toml"]),
        (&["--model", cut.path()], &[cut.path(), "still being written", "Try: "]),
        (&["--model", wide.path()], &[wide.path(), "at most 4096 features"]),
        (&["--model", one.path(), "--features", "3"], &["has 2 features, but --features says 3"]),
        (&["--model", one.path(), "--output", "1"], &["no output 1"]),
        (&["--model", one.path(), "--output", "setosa"], &["no output setosa"]),
        (&["--model", three.path()], &["3 outputs", "--output N", "--output all"]),
        (&["--model", three.path(), "--output", "3"], &["no output 3"]),
    ] {
        let run = run(&[&["--port", "0"], flags].concat());
        assert!(run.status == Some(78) && said.iter().all(|said| run.stderr.contains(said)), "{flags:?}: {run:?}");
        assert_eq!(run.stderr.lines().count(), 1, "one message: {run:?}");
    }
    let run = run(&["--port", "0", "--model", one.path(), "--model-name", &long]);
    assert!(run.status == Some(2) && run.stderr.contains("1 to 255 bytes"), "{run:?}");
    let run = Run::of(binary().args(["--port", "0", "--model", one.path()]).env("DISRUST_SIMD", "abacus"));
    assert!(run.status == Some(78) && run.stderr.contains("DISRUST_SIMD=abacus"), "{run:?}");
}

/// More features than can be served.
fn wide_model() -> String {
    let names: Vec<String> = (0..4097).map(|index| format!("f{index}")).collect();
    lightgbm("regression", &names.iter().map(String::as_str).collect::<Vec<_>>(), 1, &[(4096, 0.0, 1.0, 2.0)])
}

/// The banner says what the model file is; rows of its width are scored by it, whichever source names it.
#[test]
fn a_model_file_is_served() {
    let file = TemporaryFile::new("served.txt", regression());
    let settings = TemporaryFile::new("served.toml", format!("model = {:?}\nfeatures = 2\n", file.path()));
    let stem = format!("{}-served", std::process::id());
    for (flags, variables, name) in [
        (&["--model", file.path()][..], &[][..], &stem[..]),
        (&["--config", settings.path(), "--model-name", "credit"], &[], "credit"),
        (&["--output=all"], &[("DISRUST_MODEL", file.path()), ("DISRUST_MODEL_NAME", "loans")], "loans"),
    ] {
        let mut command = binary();
        command.args(["--port", "0", "--pin", "none"]).args(flags).envs(variables.iter().copied());
        let server = ServerProcess::launch(&mut command);
        let banner = server.stderr();
        for line in [
            &format!("model: {name}, 2 features")[..],
            "file: LightGBM, regression, version ",
            "features: age, income",
            "trees: 3, of at most 2 leaves and depth 1",
            "engine: ",
        ] {
            assert!(banner.lines().any(|is| is.starts_with(line)), "{line}: {banner}");
        }
        let rows = [0.5, -0.5, 0.6, f32::NAN, 3.5, -1.0];
        server.connect().exchange(&[scored(2, &rows, &[11.0, 22.0, 112.0])]);
    }
}

/// A request that must get these scores.
fn scored(features: usize, rows: &[f32], scores: &[f32]) -> Request {
    Request { reply: Reply::Scores(scores.to_vec()), ..Request::of(features, rows) }
}

/// One output of several is served, by index or by name, or its margin.
#[test]
fn one_of_several_outputs_is_served() {
    let file = TemporaryFile::new("classes.txt", three_classes());
    for (flags, score) in [
        (&["--output", "1"][..], 0.5_f32.exp() / (1.0_f32.exp() + 0.5_f32.exp() + 1.0_f32.exp())),
        (&["--output", "2", "--raw"], 1.0),
        (&["--output", "1", "--raw=true"], 0.5),
    ] {
        let server = ServerProcess::start(&[&["--model", file.path()], flags].concat());
        let mut client = server.connect();
        client.send_all(&[Request::of(2, &[0.0, 0.0])]);
        let Some(Reply::Scores(scores)) = client.receive() else { panic!("{flags:?}: scores") };
        assert!(scores.len() == 1 && (scores[0] - score).abs() < 1e-6, "{flags:?}: {scores:?}, not {score}");
    }
}

/// What a model file has needs not be told: --features only has to agree; for the sum, what makes sense is taken.
#[test]
fn flags_that_agree_are_taken() {
    let file = TemporaryFile::new("agreeing.txt", regression());
    let server = ServerProcess::start(&["--model", file.path(), "--features", "2", "--output", "0"]);
    server.connect().exchange(&[scored(2, &[1.0, 1.0], &[22.0])]);
    for flags in [&["--output", "all"][..], &["--output", "0", "--raw=false"], &["--model-name", "addition"]] {
        let server = ServerProcess::start(flags);
        let name = if flags[0] == "--model-name" { "addition" } else { "sum" };
        assert!(server.stderr().contains(&format!("\nmodel: {name}, 16 features\n")), "{}", server.stderr());
        assert_serves(&mut server.connect());
    }
}

/// A config file that is no regular file, or too large, is refused in words, with status 78, and nobody waits for it.
#[test]
fn what_is_no_config_file_is_refused_at_once() {
    let large = TemporaryFile::new("large.toml", "# A comment.\n".repeat(100_000));
    let fifo = TemporaryFile::named("fifo.toml");
    nix::unistd::mkfifo(fifo.path(), Mode::S_IRUSR).expect("the folder takes pipes");
    // Not in cargo's folder: a socket's path is short (unix(7)).
    let socket = TemporaryFile::at(std::env::temp_dir().join(format!("disrust-{}-socket.toml", std::process::id())));
    let _socket = UnixListener::bind(socket.path()).expect("the folder takes sockets");
    for (path, said) in [
        ("/dev/zero", "is a device, not a regular file"),
        ("/", "is a directory, not a regular file"),
        (fifo.path(), "is a pipe, not a regular file"),
        (socket.path(), "is a socket, not a regular file"),
        (large.path(), "is larger than 1048576 bytes"),
        (env!("CARGO_BIN_EXE_disrust"), "is larger than 1048576 bytes"),
    ] {
        let run = run(&["--config", path]);
        assert!(run.status == Some(78) && run.stderr.contains(&format!("{path}: {said}")), "{path}: {run:?}");
    }
    // Nobody writes to the pipe that is stdin here, nor closes it.
    let (stdin, _open) = std::io::pipe().expect("a pipe");
    let run = Run::of(binary().args(["--config", "/dev/stdin"]).stdin(stdin));
    assert!(run.status == Some(78) && run.stderr.contains("Write it to a file first"), "{run:?}");
}

/// What a flag overrides does not count, however wrong it is in the environment.
#[test]
fn a_flag_beats_a_bad_environment() {
    let file = TemporaryFile::new("good.toml", "pin = \"none\"\nfeatures = 3\n");
    for flags in [&["--config", file.path()][..], &["--pin", "none"]] {
        let mut command = binary();
        command.env("DISRUST_PORT", "abc").env("DISRUST_WAIT", "").args(["--port", "0"]).args(flags);
        let server = ServerProcess::launch(&mut command);
        let features = if flags[0] == "--config" { 3 } else { FEATURE_DIM };
        server.connect().exchange(&[Request::random(&mut seeded(), features, 2)]);
        let run = Run::of(binary().env("DISRUST_PORT", "abc").args(flags));
        assert!(run.status == Some(2) && run.stderr.contains("DISRUST_PORT in the environment is \"abc\""), "{run:?}");
        assert!(!run.stderr.contains("config file"), "{run:?}");
    }
}

/// A port that anybody else listens on is status 71, and the message names it and what to try.
#[test]
fn a_taken_port_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let served = ServerProcess::start(&[]);
    let shared = ServerProcess::start(&["--reuse-port"]);
    let plain = listener.local_addr().expect("a bound socket has an address");
    for (address, flags, owner, said) in [
        (plain, &[][..], std::process::id(), "start both servers with --reuse-port"),
        (plain, &["--reuse-port"], std::process::id(), "it listens without SO_REUSEPORT"),
        (served.address(), &[], served.pid(), "start both servers with --reuse-port"),
        (served.address(), &["--reuse-port"], served.pid(), "does not share it"),
        (shared.address(), &[], shared.pid(), "start both servers with --reuse-port"),
    ] {
        let port = address.port().to_string();
        let run = run(&[&["--port", &port], flags].concat());
        let said = [format!("port {port}"), said.to_owned(), format!("pid {owner}")];
        assert!(run.status == Some(71) && said.iter().all(|said| run.stderr.contains(said)), "{run:?}");
        // Nobody is advised to do what he has done.
        assert!(address != plain || flags.is_empty() || !run.stderr.contains("--reuse-port"), "{run:?}");
    }
    assert_serves(&mut served.connect());
    assert_serves(&mut shared.connect());
}

/// Two servers that start on a port at one instant: one serves, the other says why it does not, unless both are to share.
#[test]
fn of_two_servers_that_start_at_one_instant_one_serves() {
    for attempt in 0..20 {
        let port = free_port().to_string();
        let flags = [&[][..], &["--reuse-port"]];
        let flags = [flags[attempt & 1], flags[attempt >> 1 & 1]];
        let mut starting = flags.map(|flags| {
            let mut command = binary();
            command.args(["--pin", "none", "--port", &port]).args(flags).stderr(Stdio::piped());
            command.spawn().expect("it starts")
        });
        let serving = if attempt & 3 == 3 { 2 } else { 1 };
        let mut ended = 0;
        for server in &mut starting {
            let stderr = BufReader::new(server.stderr.take().expect("it is piped"));
            let said: Vec<_> =
                stderr.lines().map_while(Result::ok).take_while(|line| !line.contains("timeouts")).collect();
            if !said.iter().any(|line| line.contains("listening on")) {
                ended += 1;
                assert_eq!(server.wait().expect("our child").code(), Some(71), "{said:?}");
                assert!(said.iter().any(|line| line.contains("already served by pid")), "{said:?}");
            }
        }
        assert_eq!(ended, 2 - serving, "{flags:?}");
        for server in &mut starting {
            // It has ended perhaps.
            let _ended = server.kill();
            server.wait().expect("our child");
        }
    }
}

/// Addresses that one can listen on and nobody can connect to are status 71, and the message says what they are.
#[test]
fn an_address_that_is_no_host_is_named() {
    for (host, kind) in [("224.0.0.1", "multicast"), ("ff02::1", "multicast"), ("255.255.255.255", "broadcast")] {
        let run = run(&["--port", "0", "--host", host]);
        assert!(run.status == Some(71) && run.stderr.contains(kind) && run.stderr.contains("--host"), "{run:?}");
    }
}

/// A host that is not this machine's, and a CPU that is not there with the strict policy, are status 71.
#[test]
fn an_address_or_a_cpu_that_is_not_there_is_named() {
    for (flags, said) in
        [(&["--host", "192.0.2.1"][..], "192.0.2.1"), (&["--pin", "9999,9999", "--pin-policy", "strict"], "9999")]
    {
        let run = run(&[&["--port", "0"], flags].concat());
        assert!(run.status == Some(71) && run.stderr.contains(said), "{flags:?}: {run:?}");
    }
}

/// A flag beats the environment, which beats the file, which beats the default.
#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let file = TemporaryFile::new("precedence.toml", "port = 0\npin = \"none\"\nfeatures = 3\nidle-timeout = \"7m\"\n");
    for (use_file, environment, flag, features, idle) in [
        (false, None, None, 16, "off"),
        (true, None, None, 3, "7m"),
        (false, Some("5"), None, 5, "off"),
        (true, Some("5"), None, 5, "7m"),
        (true, Some("5"), Some("9"), 9, "7m"),
        (true, None, Some("9"), 9, "7m"),
    ] {
        let mut command = binary();
        if use_file {
            command.args(["--config", file.path()]);
        } else {
            command.envs([("DISRUST_PORT", "0"), ("DISRUST_PIN", "none")]);
        }
        command.envs(environment.map(|features| ("DISRUST_FEATURES", features)));
        command.args(flag.into_iter().flat_map(|features| ["--features", features]));
        let server = ServerProcess::launch(&mut command);
        let banner = server.stderr();
        assert!(banner.contains(&format!("model: sum, {features} features")), "{banner}");
        assert!(banner.contains(&format!("idle {idle}")), "{banner}");
        let request = Request::random(&mut seeded(), features, 2);
        server.connect().exchange(&[request]);
    }
}

/// `--io-threads 4 --pin 0-4` serves on any machine: what can't be pinned runs unpinned, and is named in a warning.
#[test]
fn any_list_of_cpus_serves_on_any_machine() {
    for (list, said) in [("0-4", "batch-processor"), ("9999,9998,9997,9996,9995", "9999")] {
        let server = ServerProcess::launch(binary().args(["--port", "0", "--io-threads", "4", "--pin", list]));
        let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(assert_serves);
        let stderr = server.stderr();
        assert!((0..4).all(|thread| stderr.contains(&format!("io-{thread} → "))) && stderr.contains(said), "{stderr}");
    }
}

/// SIGTERM and SIGINT under load: every request is answered or refused, every stream ends in order, the status is 0.
#[test]
fn signals_drain_without_losing_a_request() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let server = ServerProcess::start(&["--io-threads", "2"]);
        let answered = AtomicUsize::new(0);
        let requests = random_requests(&mut seeded(), 30, 1..=16);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                // Connected before the signal can come.
                let client = server.connect();
                scope.spawn(|| load_until_the_end(client, &requests, &answered));
            }
            wait_until("the load is on", || answered.load(Ordering::Relaxed) > 200);
            server.signal(signal);
        });
        let (status, stderr) = server.wait();
        assert_eq!(status, Some(0), "{stderr}");
        assert!(stderr.contains("drained") && stderr.contains(" 0 cut"), "{stderr}");
    }
}

/// Sends windows of requests until the stream ends; a window that was begun is answered as far as it goes.
fn load_until_the_end(mut client: Client, requests: &[Request], answered: &AtomicUsize) {
    let mut refused = false;
    loop {
        client.send_all(requests);
        for request in requests {
            match client.receive() {
                Some(Reply::Error(ErrorCode::Closing)) => refused = true,
                Some(reply) => assert!(reply == request.reply && !refused, "{reply:?}"),
                None => return,
            }
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A second signal cuts short what would not end by itself, and the status is 0 still.
#[test]
fn a_second_signal_cuts_the_drain_short() {
    let server = ServerProcess::start(&["--drain-timeout", "1h", "--features", "1"]);
    let deaf = Client::with_small_buffers(server.address());
    let bytes = Request::of(1, &[1.0; 64]).bytes.repeat(100);
    deaf.stream().set_write_timeout(Some(std::time::Duration::from_secs(1))).expect("a time above 0");
    while std::io::Write::write_all(&mut deaf.stream(), &bytes).is_ok() {}
    server.signal(Signal::SIGTERM);
    wait_until("the first signal is heard", || server.stderr().contains("SIGTERM: draining"));
    server.signal(Signal::SIGTERM);
    let (status, stderr) = server.wait();
    assert!(status == Some(0) && stderr.contains("1 cut at the end"), "{status:?}: {stderr}");
    drop(deaf);
}

/// A server that was killed leaves nothing that keeps the next one from its port.
#[test]
fn after_a_kill_the_next_server_has_the_port() {
    let mut server = ServerProcess::start(&["--io-threads", "2"]);
    let port = server.address().port().to_string();
    for _ in 0..3 {
        let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(assert_serves);
        clients.iter().for_each(|client| client.send_all(&random_requests(&mut seeded(), 20, 1..=64)));
        server.signal(Signal::SIGKILL);
        assert_eq!(server.wait().0, None);
        server = ServerProcess::launch(binary().args(["--pin", "none", "--port", &port]));
    }
    assert_serves(&mut server.connect());
}

/// With `--reuse-port` two servers share a port, and one takes over when the other is drained.
#[test]
fn servers_may_share_a_port_on_purpose() {
    let first = ServerProcess::start(&["--reuse-port"]);
    let port = first.address().port().to_string();
    let second =
        ServerProcess::launch(binary().args(["--pin", "none", "--port", &port]).env("DISRUST_REUSE_PORT", "true"));
    assert!(first.stderr().contains("(shared)") && second.stderr().contains("(shared)"));
    let mut clients: Vec<_> = (0..40).map(|_| first.connect()).collect();
    clients.iter_mut().for_each(assert_serves);
    drop(clients);
    first.signal(Signal::SIGTERM);
    assert_eq!(first.wait().0, Some(0));
    let mut clients: Vec<_> = (0..10).map(|_| second.connect()).collect();
    clients.iter_mut().for_each(assert_serves);
}

/// From the moment a server hands its port over, whoever connects is the other's, and is served.
#[test]
fn a_drained_server_leaves_new_connections_to_the_one_that_shares_its_port() {
    let first = ServerProcess::start(&["--reuse-port", "--io-threads", "2", "--seccomp"]);
    let port = first.address().port().to_string();
    let second = ServerProcess::launch(binary().args(["--pin", "none", "--reuse-port", "--port", &port]));
    first.signal(Signal::SIGTERM);
    wait_until("the port is handed over", || first.stderr().contains("handing the port over"));
    for _ in 0..40 {
        assert_serves(&mut second.connect());
    }
    for (server, served) in [(first, "drained: 0 connections served"), (second, "drained: 40 connections served")] {
        server.signal(Signal::SIGTERM);
        let (status, log) = server.wait();
        assert!(status == Some(0) && log.contains(served), "{log}");
    }
}

/// A server whose descriptors are used up hands its port over as any other does: it needs none for that.
#[test]
fn a_port_is_handed_over_without_a_descriptor() {
    let first = ServerProcess::start(&["--reuse-port", "--io-threads", "2"]);
    let port = first.address().port().to_string();
    let second = ServerProcess::launch(binary().args(["--pin", "none", "--reuse-port", "--port", &port]));
    let pid = rustix::process::Pid::from_raw(first.pid().cast_signed());
    let none = rustix::process::Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::prlimit(pid, rustix::process::Resource::Nofile, none).expect("it is our child");
    first.signal(Signal::SIGTERM);
    wait_until("the port is handed over", || first.stderr().contains("handing the port over: new connections go"));
    for _ in 0..40 {
        assert_serves(&mut second.connect());
    }
    let (status, log) = first.wait();
    assert!(status == Some(0) && log.contains("drained: 0 connections served"), "{log}");
}

/// Whatever becomes of stderr, requests are served and a signal drains.
#[test]
fn a_lost_stderr_does_not_matter() {
    for script in [r#"exec "$0" "$@" 2>&-"#, r#"exec "$0" "$@" 2>/dev/full"#, r#"exec "$0" "$@" >&- 2>&- <&-"#] {
        let port = free_port();
        let server = ServerProcess::start_in_shell(script, &["--port", &port.to_string()]);
        wait_until("it listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        let address = ([127, 0, 0, 1], port).into();
        for _ in 0..20 {
            let (mut bad, bad_count) = (Client::connect(address), Request::bad(&[0; 4]));
            bad.exchange(std::slice::from_ref(&bad_count));
            bad.expect_end();
            assert_serves(&mut Client::connect(address));
        }
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().0, Some(0), "{script}");
    }
}

/// When descriptors run out, the connections that exist go on, and when they are back, new ones are served.
#[test]
fn exhausted_descriptors_cost_only_new_connections() {
    for (limit, flags) in [(64, &["--io-threads", "1"][..]), (40, &["--io-threads", "2", "--max-connections", "500"])] {
        let script = format!(r#"ulimit -n {limit}; exec "$0" "$@""#);
        let server = ServerProcess::start_in_shell(&script, &[&["--port", "0"], flags].concat());
        server.wait_for_banner();
        let mut early: Vec<_> = (0..5).map(|_| server.connect()).collect();
        early.iter_mut().for_each(assert_serves);
        let crowd: Vec<_> = (0..200).map(|_| server.connect()).collect();
        for _ in 0..3 {
            early.iter_mut().for_each(assert_serves);
        }
        drop(crowd);
        wait_until("a new connection is served", || {
            let (client, request) = (server.connect(), Request::of(FEATURE_DIM, &[1.0; FEATURE_DIM]));
            // One that is over the limit still is reset if it has sent something; it must not be answered wrongly.
            let sent = std::io::Write::write_all(&mut client.stream(), &request.bytes).is_ok();
            sent && std::io::Read::read(&mut client.stream(), &mut [0; 5]).is_ok_and(|count| count == 5)
        });
        early.iter_mut().for_each(assert_serves);
        drop(early);
        server.signal(Signal::SIGTERM);
        let (status, stderr) = server.wait();
        assert_eq!(status, Some(0), "{stderr}");
    }
}

/// With --seccomp the server gives up system calls on every thread, and serves and drains as ever.
#[test]
fn a_confined_server_serves_and_drains() {
    let server = ServerProcess::start(&["--seccomp", "--io-threads", "2"]);
    assert_serves(&mut server.connect());
    let threads: Vec<_> = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("it runs").flatten().collect();
    assert!(threads.len() >= 4, "{} threads", threads.len());
    for thread in threads {
        let status = fs::read_to_string(thread.path().join("status")).expect("it runs");
        assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    }
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait();
    assert_eq!(status, Some(0), "{log}");
}

/// All flags and commands that `--help` lists, of the server and of its commands.
fn listed_words() -> Vec<String> {
    let help = |command: &[&str]| run(&[command, &["--help"]].concat()).stdout;
    let server = help(&[]);
    let commands = server.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands = commands.filter_map(|line| line.split_whitespace().next());
    let commands: Vec<_> = commands.filter(|command| *command != "help").collect();
    let helps = commands.iter().map(|command| help(&[command])).chain([server.clone()]);
    let flags = helps.flat_map(|help| {
        let words: Vec<_> = help.lines().filter(|line| line.trim_start().starts_with('-')).map(str::to_owned).collect();
        words
    });
    let flags = flags.filter_map(|line| {
        let long = &line[line.find("--")?..];
        Some(long.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect())
    });
    flags.chain(commands.iter().map(|command| (*command).to_owned())).collect()
}

/// A shell completes every flag and command, and what is printed for it is one of its scripts.
#[test]
fn completions_know_every_flag_and_command() {
    let words = listed_words();
    assert!(["--port", "--config", "--inputs", "verify", "man"].iter().all(|word| words.iter().any(|is| is == word)));
    for shell in ["bash", "zsh", "fish"] {
        let run = run(&["completions", shell]);
        assert!(run.status == Some(0) && run.stderr.is_empty(), "{shell}: {run:?}");
        // Fish names them without their dashes.
        let missing = words.iter().filter(|word| !run.stdout.contains(word.trim_start_matches('-')));
        let missing: Vec<_> = missing.collect();
        assert!(missing.is_empty(), "{shell}: {missing:?}");
        if shell_is_here(shell) {
            let script = TemporaryFile::new(&format!("completions.{shell}"), &run.stdout);
            let syntax = Run::of(Command::new(shell).args(["-n", script.path()]).stdin(Stdio::null()));
            assert!(syntax.status == Some(0) && syntax.stderr.is_empty(), "{shell}: {syntax:?}");
        }
    }
    let script = TemporaryFile::new("completions.bash", run(&["completions", "bash"]).stdout);
    for (word, expected) in [("--wait", "auto spin yield park"), ("--log-format", "text json")] {
        let complete = format!(
            "source {}; COMP_WORDS=(disrust {word} ''); COMP_CWORD=2; _disrust disrust '' {word}; echo \"${{COMPREPLY[*]}}\"",
            script.path()
        );
        if shell_is_here("bash") {
            let run = Run::of(Command::new("bash").args(["-c", &complete]).stdin(Stdio::null()));
            assert_eq!(run.stdout.trim_end(), expected, "{run:?}");
        }
    }
}

/// Whether this machine has the shell to try a script in.
fn shell_is_here(shell: &str) -> bool {
    Command::new(shell).args(["-c", "true"]).stdin(Stdio::null()).status().is_ok()
}

/// The manual page tells of every flag, command and exit status, and what formats such pages has no complaint.
#[test]
fn the_manual_page_tells_of_everything() {
    let page = run(&["man"]);
    assert!(page.status == Some(0) && page.stderr.is_empty(), "{page:?}");
    let text = page.stdout.replace("\\-", "-");
    let missing: Vec<_> = listed_words().into_iter().filter(|word| !text.contains(word.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
    for said in ["\n.SH \"EXIT STATUS\"\n", "69 io_uring unavailable", "DISRUST_PORT", "\n.SS verify\n"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert_eq!(text.matches("\n.SH OPTIONS\n").count(), 1, "{text}");
    let file = TemporaryFile::new("page.1", &page.stdout);
    if Command::new("groff").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok() {
        let mut groff = Command::new("groff");
        let shown = Run::of(groff.args(["-man", "-ww", "-Tutf8", file.path()]).stdin(Stdio::null()));
        assert!(shown.status == Some(0) && shown.stderr.is_empty() && shown.stdout.contains("batch"), "{shown:?}");
    }
}

/// The objects of a log in JSON; panics at a line that is none, or that lacks what each has.
fn objects(log: &str) -> Vec<Value> {
    let object = |line: &str| {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for key in ["timestamp", "level", "message", "target", "threadName"] {
            assert!(object[key].is_string(), "{key}: {line}");
        }
        object
    };
    log.lines().map(object).collect()
}

/// With `--log-format json` each line is an object: the banner, what happens to peers with its fields, and the end.
#[test]
fn a_log_in_json_is_one_object_a_line() {
    let file = TemporaryFile::new("log_format.toml", "log-format = \"json\"\n");
    for (flags, variable) in
        [(&["--log-format", "json"][..], None), (&[], Some("json")), (&["--config", file.path()], None)]
    {
        let mut command = binary();
        command.args(["--port", "0", "--pin", "none"]).args(flags);
        command.envs(variable.map(|value| ("DISRUST_LOG_FORMAT", value)));
        let server = ServerProcess::launch_anyway(&mut command);
        wait_until("it serves", || server.stderr().contains("\"message\":\"timeouts: ") || server.has_ended());
        let banner = objects(&server.stderr());
        let messages = banner.iter().filter_map(|line| line["message"].as_str());
        let listening = messages.filter_map(|message| message.strip_prefix("listening on ")).next();
        let address = listening.expect("the banner says where").parse().expect("an address");
        let mut bad = Client::connect(address);
        let bad_address = bad.stream().local_addr().expect("it is connected").to_string();
        bad.exchange(&[Request::bad(&[0; 4])]);
        bad.expect_end();
        server.signal(Signal::SIGTERM);
        let (status, log) = server.wait();
        assert_eq!(status, Some(0), "{log}");
        let log = objects(&log);
        let about = |text: &str| log.iter().find(|line| line["message"].as_str().is_some_and(|is| is.contains(text)));
        let bad = about("a bad request").expect("it is logged");
        assert!(bad["level"] == "WARN" && bad["peer"] == bad_address.as_str(), "{bad}");
        assert_eq!(about("SIGTERM").expect("it is logged")["threadName"], "signals");
        assert_eq!(about("drained: 1 connections").expect("it is logged")["level"], "INFO");
    }
}

/// Whatever a server does not start for is one object, too, from wherever the format is known.
#[test]
fn refusals_are_objects_in_a_log_in_json() {
    let file = TemporaryFile::new("log_format_only.toml", "log-format = \"json\"\n");
    for (flags, variable, status, said) in [
        (&["--prot", "1", "--log-format", "json"][..], None, 2, "--prot"),
        (&["--port", "x", "--log-format=json"], None, 2, "--port"),
        (&["--port", "x"], Some("json"), 2, "--port"),
        (&["--config", "missing.toml"], Some("json"), 78, "missing.toml"),
        (&["--config", file.path(), "--model", "missing.txt"], None, 78, "missing.txt"),
        (&["--config", file.path(), "--host", "192.0.2.1"], None, 71, "192.0.2.1"),
    ] {
        let run = Run::of(binary().args(flags).envs(variable.map(|value| ("DISRUST_LOG_FORMAT", value))));
        assert_eq!(run.status, Some(status), "{flags:?}: {run:?}");
        let log = objects(&run.stderr);
        let last = log.last().expect("it says why");
        assert!(last["level"] == "ERROR" && last["message"].as_str().is_some_and(|is| is.contains(said)), "{last}");
    }
    // A flag that asks for text is heard, whatever the environment says.
    let run = Run::of(binary().args(["--log-format", "text", "--port", "x"]).env("DISRUST_LOG_FORMAT", "json"));
    assert!(run.status == Some(2) && run.stderr.starts_with("error: "), "{run:?}");
}

/// Lines about a peer say who it is, and why a connection was closed.
#[test]
fn the_log_names_peers_and_reasons() {
    let server = ServerProcess::start(&["--request-timeout", "300ms"]);
    let mut bad = server.connect();
    bad.send(&[0xff; 4]);
    let bad_address = bad.stream().local_addr().expect("it is connected");
    let mut slow = server.connect();
    slow.send(&[1, 0, 0, 0]);
    let slow_address = slow.stream().local_addr().expect("it is connected");
    assert!(bad.is_closed_by_server() && slow.is_closed_by_server());
    for (address, said) in
        [(bad_address, "a peer sent a bad request"), (slow_address, "its request was not completed in time")]
    {
        wait_until("it is logged", || {
            server.stderr().lines().any(|line| line.contains(said) && line.contains(&format!("peer={address}")))
        });
    }
}
