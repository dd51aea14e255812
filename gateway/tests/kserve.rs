//! What the gateway answers to whom: endpoints, tensors, errors, as KServe's clients have them.

mod common;

use common::{Behaviour, Connection, GatewayProcess, INFER, PATIENCE, Stub, ask, get, post, request, wait_until};
use disrust_protocol::ErrorCode;
use serde_json::json;

#[test]
fn each_endpoint_answers() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &[]);
    let version = "0000000000000000";
    for (path, expected) in [
        ("/v2/health/live", json!({"live": true})),
        ("/v2/health/ready", json!({"ready": true})),
        ("/v2/models/sum/ready", json!({"name": "sum", "ready": true})),
        (&format!("/v2/models/sum/versions/{version}/ready"), json!({"name": "sum", "ready": true})),
        (
            "/v2",
            json!({"name": "disrust-gateway", "version": env!("CARGO_PKG_VERSION"), "extensions": ["binary_tensor_data"]}),
        ),
        (
            "/v2/models/sum",
            json!({"name": "sum", "versions": [version], "platform": "disrust",
                   "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3]}],
                   "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1]}]}),
        ),
    ] {
        let answer = get(gateway.address(), path);
        assert_eq!((answer.status, answer.json()), (200, expected), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
        let mut connection = Connection::open(gateway.address());
        connection.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
        let heard = connection.read_to_end();
        let length = format!("\r\ncontent-length: {}\r\n", answer.body.len());
        assert!(
            heard.starts_with("HTTP/1.1 200 OK\r\n") && heard.contains(&length) && heard.ends_with("\r\n\r\n"),
            "{heard}"
        );
        let wrong = ask(gateway.address(), format!("PUT {path} HTTP/1.1\r\nHost: a\r\n\r\n")).expect("an answer");
        assert_eq!((wrong.status, wrong.header("allow")), (405, Some("get, head")), "{path}");
        assert!(wrong.error().contains("GET, HEAD"), "{path}");
    }
    let wrong = get(gateway.address(), INFER);
    assert_eq!(
        (wrong.status, wrong.header("allow"), wrong.error()),
        (405, Some("post"), "this path takes POST".to_owned())
    );
    for path in ["/", "/v1/models/sum:predict", "/v2/models/sum/config", "/v2/repository/index", "/favicon.ico"] {
        let answer = get(gateway.address(), path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.error().contains(if path.contains("/models/sum/") { "no model" } else { path }), "{path}");
    }
    for (path, said) in [
        ("/v2/models/other", "there is no model \"other\"; the servers have \"sum\""),
        ("/v2/models/other/ready", "no model"),
        ("/v2/models/sum/versions/7", "there is no version \"7\""),
        ("/v2/models/sum/versions/7/ready", version),
    ] {
        let answer = get(gateway.address(), path);
        assert!(answer.status == 404 && answer.error().contains(said), "{path}: {answer:?}");
    }
    let answer = post(gateway.address(), "/v2/models/other/infer", request(&[&[1.0, 2.0, 3.0]]));
    assert!(answer.status == 404 && answer.error().contains("no model"), "{answer:?}");
    let metrics = get(gateway.address(), "/metrics");
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(metrics.text().contains("\ndisrust_gateway_state{state=\"ready\"} 1\n"));
}

/// Every way to write rows and to ask for scores gives the same numbers.
#[test]
fn tensors_in_each_form_are_scored() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &[]);
    let rows = [1.0_f32, 2.0, 3.0, 0.5, -2.5, 4.0];
    let bytes: Vec<u8> = rows.iter().flat_map(|number| number.to_le_bytes()).collect();
    let sums = [6.0_f32, 2.0];
    let mut connection = Connection::open(gateway.address());
    for (asked, is_binary) in [
        ("", false),
        (r#","parameters":{"binary_data_output":true}"#, true),
        (r#","outputs":[{"name":"output","parameters":{"binary_data":true}}]"#, true),
        (
            r#","parameters":{"binary_data_output":true},"outputs":[{"name":"output","parameters":{"binary_data":false}}]"#,
            false,
        ),
    ] {
        for data in [
            r#""data":[[1,2,3],[0.5,-2.5,4]]"#,
            r#""data":[1,2,3,0.5,-2.5,4]"#,
            r#""parameters":{"binary_data_size":24}"#,
        ] {
            let text =
                format!(r#"{{"id":"7","inputs":[{{"name":"input","shape":[2,3],"datatype":"FP32",{data}}}]{asked}}}"#);
            let (headers, body) = match data.contains("binary") {
                true => {
                    (format!("Inference-Header-Content-Length: {}\r\n", text.len()), [text.as_bytes(), &bytes].concat())
                }
                false => (String::new(), text.clone().into_bytes()),
            };
            let answer = connection.post(INFER, &headers, body);
            assert_eq!(answer.status, 200, "{text}: {}", String::from_utf8_lossy(&answer.body));
            let length =
                answer.header("inference-header-content-length").map(|length| length.parse().expect("a number"));
            let media_type = if is_binary { "application/octet-stream" } else { "application/json" };
            assert_eq!((length.is_some(), answer.header("content-type")), (is_binary, Some(media_type)), "{text}");
            let (json, behind) = answer.body.split_at(length.unwrap_or(answer.body.len()));
            let json: serde_json::Value = serde_json::from_slice(json).expect("JSON");
            assert_eq!((&json["id"], &json["model_name"]), (&json!("7"), &json!("sum")), "{text}");
            assert_eq!(json["model_version"], json!("0000000000000000"));
            let output = &json["outputs"][0];
            assert_eq!(
                (&output["name"], &output["datatype"], &output["shape"]),
                (&json!("output"), &json!("FP32"), &json!([2]))
            );
            if is_binary {
                assert_eq!(output["parameters"]["binary_data_size"], json!(8), "{text}");
                assert_eq!(behind, sums.map(f32::to_le_bytes).concat(), "{text}");
            } else {
                assert_eq!(output["data"], json!(sums), "{text}");
            }
        }
    }
    let one = r#"{"inputs":[{"name":"input","shape":[3],"datatype":"FP32","data":[1,2,3]}]}"#;
    assert_eq!(connection.post(INFER, "", one).scores(), [6.0], "one row needs no shape of rows");
    let missing = connection.post(INFER, "", request(&[&[1.0, f32::NAN, 3.0]]));
    assert_eq!(missing.json()["outputs"][0]["data"], json!([null]));
    let none = r#"{"inputs":[{"name":"input","shape":[0,3],"datatype":"FP32","data":[]}]}"#;
    let none = connection.post(INFER, "", none).json();
    assert_eq!((&none["outputs"][0]["shape"], &none["outputs"][0]["data"]), (&json!([0]), &json!([])));
}

#[test]
fn several_outputs_are_a_matrix() {
    let server = Stub::start(2, 3);
    let gateway = GatewayProcess::before(&server, &["--input-name", "x", "--output-name", "y"]);
    let metadata = get(gateway.address(), "/v2/models/sum").json();
    assert_eq!(metadata["outputs"], json!([{"name": "y", "datatype": "FP32", "shape": [-1, 3]}]));
    let body = request(&[&[1.0, 2.0], &[10.0, 20.0]]);
    let refused = post(gateway.address(), INFER, &body);
    assert!(refused.status == 400 && refused.error().contains("the model has one, \"x\""), "{refused:?}");
    let answer = post(gateway.address(), INFER, body.replace("input\"", "x\""));
    assert_eq!(answer.scores(), [3.0, 4.0, 5.0, 30.0, 31.0, 32.0]);
    assert_eq!(answer.json()["outputs"][0]["shape"], json!([2, 3]));
}

/// Many rows go as many requests, and come back in order; so do large answers in JSON, which are written beside.
#[test]
fn many_rows_are_scored_in_order() {
    let server = Stub::start(2, 1);
    let gateway = GatewayProcess::before(&server, &[]);
    let numbers: Vec<[f32; 2]> = (0..10_000).map(|row| [row as f32, 0.25]).collect();
    let rows: Vec<&[f32]> = numbers.iter().map(|row| &row[..]).collect();
    let expected: Vec<f64> = numbers.iter().map(|row| f64::from(row[0] + row[1])).collect();
    let answer = post(gateway.address(), INFER, request(&rows));
    assert!(answer.scores() == expected);
    let text = r#"{"inputs":[{"name":"input","shape":[10000,2],"datatype":"FP32","parameters":{"binary_data_size":80000}}],"parameters":{"binary_data_output":true}}"#;
    let bytes: Vec<u8> = numbers.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
    let header = format!("Inference-Header-Content-Length: {}\r\n", text.len());
    let answer = Connection::open(gateway.address()).post(INFER, &header, [text.as_bytes(), &bytes].concat());
    let at: usize =
        answer.header("inference-header-content-length").and_then(|length| length.parse().ok()).expect("binary");
    let scores = answer.body[at..].as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
    assert!(scores.eq(expected.iter().copied()));
    assert_eq!(gateway.sample("disrust_gateway_rows_total"), 20_000.0);
    assert_eq!(gateway.sample("disrust_gateway_request_duration_seconds_count"), 2.0);
    wait_until("the memory is given back", || gateway.sample("disrust_gateway_body_memory_bytes") == 0.0);
}

/// What a client did wrong is 400, in words; the connection goes on.
#[test]
fn wrong_requests_are_refused_in_words() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &[]);
    let right = request(&[&[1.0, 2.0, 3.0]]);
    let mut connection = Connection::open(gateway.address());
    for (body, said) in [
        (right.replace("[1,3]", "[1,2]"), "[rows, 3]"),
        (right.replace("FP32", "FP64"), "astype(numpy.float32)"),
        (right.replace("\"input\"", "\"INPUT\""), "\"INPUT\""),
        (right.replace("3.0", "x"), "no number"),
        (String::new(), "it ends there"),
    ] {
        let answer = connection.post(INFER, "", &body);
        assert!(answer.status == 400 && answer.error().contains(said), "{body}: {answer:?}");
    }
    for (headers, said) in [
        ("Inference-Header-Content-Length: x\r\n", "no number of bytes"),
        ("Inference-Header-Content-Length: -1\r\n", "no number of bytes"),
        ("Inference-Header-Content-Length: 99999\r\n", "but the body has"),
        ("Inference-Header-Content-Length: 99999999999999999999999\r\n", "no number of bytes"),
    ] {
        let answer = connection.post(INFER, headers, &right);
        assert!(answer.status == 400 && answer.error().contains(said), "{headers}: {answer:?}");
        // Whether the body was read away or not is the gateway's affair.
        connection = Connection::open(gateway.address());
    }
    for encoding in ["gzip", "br", "identity, gzip"] {
        let answer =
            Connection::open(gateway.address()).post(INFER, &format!("Content-Encoding: {encoding}\r\n"), &right);
        assert!(answer.status == 415 && answer.error().contains("compressed"), "{answer:?}");
    }
    // Whatever it says that it is; or nothing.
    for headers in [
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "Content-Encoding: identity\r\n",
        "Content-Type: text/plain\r\n",
    ] {
        assert_eq!(Connection::open(gateway.address()).post(INFER, headers, &right).scores(), [6.0], "{headers}");
    }
    assert_eq!(server.requests(), 3, "nothing that is wrong reaches a server");
}

#[test]
fn bodies_of_every_transport_are_read() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &["--max-body", "64KiB"]);
    let right = request(&[&[1.0, 2.0, 3.0]]);
    let (address, length) = (gateway.address(), right.len());
    // In chunks, in single bytes, half-closed, pipelined.
    let mut connection = Connection::open(address);
    connection.send(format!("POST {INFER} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
    for byte in right.bytes() {
        connection.send([b'1', b'\r', b'\n', byte, b'\r', b'\n']);
    }
    connection.send("0\r\n\r\n");
    assert_eq!(connection.receive().expect("an answer").scores(), [6.0]);
    let whole = format!("POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{right}");
    connection.send(whole.repeat(3));
    for _ in 0..3 {
        assert_eq!(connection.receive().expect("an answer").scores(), [6.0]);
    }
    for byte in whole.bytes() {
        connection.send([byte]);
    }
    assert_eq!(connection.receive().expect("an answer").scores(), [6.0]);
    connection.send(&whole);
    connection.stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    assert_eq!(connection.receive().expect("an answer").scores(), [6.0]);
    assert!(connection.is_closed());
    // Who asks first is told to go on, or that it need not.
    let mut connection = Connection::open(address);
    let ask_first = |length| {
        format!("POST {INFER} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
    };
    connection.send(ask_first(length));
    assert_eq!(connection.receive().expect("a word").status, 100);
    connection.send(&right);
    assert_eq!(connection.receive().expect("an answer").scores(), [6.0]);
    connection.send(ask_first(65 * 1024));
    let refused = connection.receive().expect("an answer");
    assert!(refused.status == 413 && refused.error().contains("--max-body"), "{refused:?}");
    // The same of bodies that are not asked for, however they come, and although their sender does not listen until it has sent.
    let large = " ".repeat(1024 * 1024) + &right;
    assert_eq!(post(address, INFER, &large).status, 413);
    let mut connection = Connection::open(address);
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(64 * 1024));
    connection
        .try_send(format!("POST {INFER} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunk.repeat(4)));
    assert_eq!(connection.receive().expect("an answer").status, 413);
    let answer = ask(address, format!("POST {INFER} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{right}"));
    assert_eq!(answer.expect("an answer").scores(), [6.0], "HTTP/1.0 is served");
}

/// What becomes of a request at a server has its status.
#[test]
fn what_servers_say_has_its_status() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &["--request-timeout", "5s"]);
    let body = request(&[&[1.0, 2.0, 3.0]]);
    for (behaviour, status, said) in [
        (Behaviour::Error(ErrorCode::ModelFailed), 500, "the model failed"),
        (Behaviour::Error(ErrorCode::Shed), 429, "overloaded"),
        (Behaviour::Closes, 503, "lost"),
        (Behaviour::Garbage, 502, "does not speak the protocol"),
    ] {
        gateway.wait_until_ready();
        server.behave(behaviour.clone());
        let answer = post(gateway.address(), INFER, &body);
        assert!(answer.status == status && answer.error().contains(said), "{behaviour:?}: {answer:?}");
        server.behave(Behaviour::Sums);
    }
    wait_until("it is connected again", || post(gateway.address(), INFER, &body).status == 200);
    let count =
        |status| gateway.sample(&format!("disrust_gateway_requests_total{{endpoint=\"infer\",status=\"{status}\"}}"));
    assert_eq!([500, 429, 502].map(count), [1.0; 3]);
}

/// A request that has a time of its own is answered when it is over; later answers are right.
#[test]
fn a_timeout_shifts_no_answers() {
    let server = Stub::start(3, 1);
    let gateway = GatewayProcess::before(&server, &[]);
    let within = |sum: f32, microseconds: u64| {
        let timeout = format!("{{\"parameters\":{{\"timeout\":{microseconds}}},");
        request(&[&[sum, 0.0, 0.0]]).replacen('{', &timeout, 1)
    };
    server.behave(Behaviour::Silent);
    let mut connection = Connection::open(gateway.address());
    for sum in [1.0, 2.0, 3.0] {
        let late = connection.post(INFER, "", within(sum, 20_000));
        assert!(late.status == 504 && late.error().contains("no answer within"), "{late:?}");
    }
    server.behave(Behaviour::Sums);
    for sum in [4.0, 5.0, 6.0] {
        let patience = PATIENCE.as_micros() as u64;
        assert_eq!(connection.post(INFER, "", within(sum, patience)).scores(), [f64::from(sum)]);
    }
    assert_eq!(connection.post(INFER, "", within(7.0, 0)).scores(), [7.0], "0 is no timeout");
}

/// Readiness is that of the servers; what was once heard of the model is still told.
#[test]
fn health_follows_the_servers() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = nobody.local_addr().expect("an address");
    drop(nobody);
    let gateway = GatewayProcess::start(&[address], &[]);
    let status = |path| get(gateway.address(), path).status;
    assert_eq!(
        ["/v2/health/live", "/v2/health/ready", "/v2/models/sum/ready", "/v2/models/sum"].map(status),
        [200, 503, 503, 503]
    );
    let body = request(&[&[1.0, 2.0, 3.0]]);
    let answer = post(gateway.address(), INFER, &body);
    assert!(answer.status == 503 && answer.error().contains("no server has told"), "{answer:?}");
    // It comes.
    let server = Stub::start_at(address, 3, 1);
    gateway.wait_until_ready();
    assert_eq!(post(gateway.address(), INFER, &body).scores(), [6.0]);
    wait_until("it is logged", || gateway.stderr().contains(&format!("server {address}: ready, model sum")));
    // It hangs: it is asked, and does not answer, while a request waits in the same line.
    server.behave(Behaviour::Silent);
    let mut waiting = Connection::open(gateway.address());
    waiting.send(format!("POST {INFER} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    wait_until("it is not ready", || status("/v2/health/ready") == 503);
    assert_eq!(["/v2/health/live", "/v2/models/sum/ready", "/v2/models/sum"].map(status), [200, 503, 200]);
    assert_eq!(gateway.sample(&format!("disrust_gateway_server_up{{server=\"{address}\"}}")), 0.0);
    // It is back, with another model.
    server.set_version(255);
    server.behave(Behaviour::Sums);
    assert_eq!(waiting.receive().expect("an answer").scores(), [6.0]);
    gateway.wait_until_ready();
    wait_until("the version is known", || status("/v2/models/sum/versions/00000000000000ff") == 200);
    assert_eq!(post(gateway.address(), INFER, &body).json()["model_version"], json!("00000000000000ff"));
}

/// Of two servers, one that goes is not missed.
#[test]
fn a_server_that_goes_is_not_missed() {
    let servers = [Stub::start(3, 1), Stub::start(3, 1)];
    let gateway = GatewayProcess::start(&servers.each_ref().map(Stub::address), &["--threads", "2"]);
    gateway.wait_until_ready();
    let body = request(&[&[1.0, 2.0, 3.0]]);
    let mut connections: Vec<Connection> = (0..4).map(|_| Connection::open(gateway.address())).collect();
    for turn in 0..50 {
        if turn % 10 == 5 {
            servers[turn / 10 % 2].hang_up();
        }
        for connection in &mut connections {
            assert_eq!(connection.post(INFER, "", &body).scores(), [6.0]);
        }
    }
    servers[0].behave(Behaviour::Error(ErrorCode::Closing));
    for connection in &mut connections {
        assert_eq!(connection.post(INFER, "", &body).scores(), [6.0]);
    }
    servers[1].behave(Behaviour::Error(ErrorCode::Closing));
    wait_until("none takes anything", || post(gateway.address(), INFER, &body).status == 503);
}
