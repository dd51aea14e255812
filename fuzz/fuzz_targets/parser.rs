//! The wire format's reader against a naive one: a stream, cut into receives as the input says, gives the requests and hellos
//! that reading it byte by byte gives, and ends for the same reason at the same place.
#![no_main]

use arbitrary::Arbitrary;
use disrust::exchange::blocks::BlockPool;
use disrust::connections::framing::PartialRequest;
use disrust::connections::Lost;
use disrust::limits::ConnectionLimits;
use disrust_protocol::{
    Answer, BadVectorCount, HELLO_ANSWER_BYTES_MAX, HelloAnswer, MAX_VECTORS_PER_REQUEST, RequestLayout, read_answer,
    read_hello_answer,
};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Input {
    features: u8,
    /// Lengths of the receives, over and over again.
    cuts: Vec<u8>,
    stream: Vec<u8>,
}

fuzz_target!(|input: Input| {
    let layout = RequestLayout::new(1 + usize::from(input.features % 8));
    let mut blocks = BlockPool::new(ConnectionLimits::SERVING.block_sizes(layout, 1 << 20));
    let (mut partial, mut requests, mut lost) = (PartialRequest::default(), Vec::new(), None);
    // How many requests come before each hello.
    let (mut requests_count, mut hellos) = (0, Vec::new());
    let headroom = layout.request_bytes_max();
    let (mut rest, mut cuts) = (&input.stream[..], input.cuts.iter().cycle());
    while !rest.is_empty() && lost.is_none() {
        let length = usize::from(*cuts.next().unwrap_or(&u8::MAX)).clamp(1, rest.len());
        let mut buffer = vec![0xaa; headroom];
        buffer.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
        let found = partial.join(layout, &mut buffer, headroom, length, &mut blocks);
        let framed = found.framed;
        requests.extend_from_slice(&buffer[framed.offset..framed.offset + framed.request_bytes]);
        for run in found.hellos {
            assert!(run.requests <= framed.requests);
            hellos.extend((0..run.hellos).map(|_| requests_count + run.requests));
        }
        requests_count += framed.requests;
        lost = found.lost;
    }
    partial.clear(&mut blocks);
    assert_eq!(blocks.lent(), 0, "every block came back");

    assert!((requests, hellos, lost) == naive(&input.stream, layout));
    answers(&input.stream);
    hello_answer(&input.stream);
});

/// The whole requests at the front of `stream`, how many of them come before each hello, and why nothing behind them is read.
fn naive(stream: &[u8], layout: RequestLayout) -> (Vec<u8>, Vec<u32>, Option<Lost>) {
    let (mut requests, mut count, mut hellos, mut at) = (Vec::new(), 0, Vec::new(), 0);
    while let Some(header) = stream.get(at..at + 4) {
        let number = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if header == b"DSR1" {
            let Some(features) = stream.get(at + 4..at + 8) else { break };
            let features = u32::from_le_bytes([features[0], features[1], features[2], features[3]]);
            if features != 0 && features as usize != layout.feature_dim() {
                return (requests, hellos, Some(Lost::WrongFeatureDim(features)));
            }
            hellos.push(count);
            at += 8;
            continue;
        }
        if number == 0 || number > MAX_VECTORS_PER_REQUEST {
            return (requests, hellos, Some(Lost::BadCount(BadVectorCount { count: number })));
        }
        let Some(request) = stream.get(at..at + 4 + number as usize * layout.row_bytes()) else { break };
        requests.extend_from_slice(request);
        count += 1;
        at += request.len();
    }
    (requests, hellos, None)
}

/// Reading an answer to a hello takes what is there, and says the same of no more than that.
fn hello_answer(stream: &[u8]) {
    if let Ok(Some((answer, length))) = read_hello_answer(stream) {
        assert!(length <= stream.len().min(HELLO_ANSWER_BYTES_MAX));
        assert!(read_hello_answer(&stream[..length]) == Ok(Some((answer, length))));
        assert!(read_hello_answer(&stream[..length - 1]) == Ok(None));
        if let HelloAnswer::Server(hello) = answer {
            let mut bytes = Vec::new();
            hello.write(&mut bytes);
            assert!(bytes == stream[..length]);
        }
    }
}

/// Reading answers takes what is there, and never more.
fn answers(mut stream: &[u8]) {
    while let Ok(Some((answer, length))) = read_answer(stream) {
        let scores = match answer {
            Answer::Scores(scores) => scores.iter().count(),
            Answer::Error(_) => 0,
        };
        assert!(length <= stream.len() && length == if scores > 0 { 1 + 4 * scores } else { 2 });
        stream = &stream[length..];
    }
}
