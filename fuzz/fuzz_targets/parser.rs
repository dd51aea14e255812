//! The wire format's reader against a naive one: a stream, cut into receives as the input says, gives the requests that
//! reading it byte by byte gives, and loses its framing at the same place.
#![no_main]

use arbitrary::Arbitrary;
use disrust::exchange::blocks::BlockPool;
use disrust::connections::framing::PartialRequest;
use disrust::limits::ConnectionLimits;
use disrust_protocol::{Answer, MAX_VECTORS_PER_REQUEST, RequestLayout, read_answer};
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
    let (mut partial, mut found, mut lost) = (PartialRequest::default(), Vec::new(), false);
    let headroom = layout.request_bytes_max();
    let (mut rest, mut cuts) = (&input.stream[..], input.cuts.iter().cycle());
    while !rest.is_empty() && !lost {
        let length = usize::from(*cuts.next().unwrap_or(&u8::MAX)).clamp(1, rest.len());
        let mut buffer = vec![0xaa; headroom];
        buffer.extend_from_slice(&rest[..length]);
        rest = &rest[length..];
        let (framed, outcome) = partial.join(layout, &mut buffer, headroom, length, &mut blocks);
        found.extend_from_slice(&buffer[framed.offset..framed.offset + framed.request_bytes]);
        lost = outcome.is_err();
    }
    partial.clear(&mut blocks);
    assert_eq!(blocks.lent(), 0, "every block came back");

    let (expected, expected_lost) = naive(&input.stream, layout);
    assert!(found == expected && lost == expected_lost);
    answers(&input.stream);
});

/// The whole requests at the front of `stream`, and whether a bad count follows them.
fn naive(stream: &[u8], layout: RequestLayout) -> (Vec<u8>, bool) {
    let mut end = 0;
    while let Some(header) = stream.get(end..end + 4) {
        let count = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        if count == 0 || count > MAX_VECTORS_PER_REQUEST {
            return (stream[..end].to_vec(), true);
        }
        let length = 4 + count as usize * layout.row_bytes();
        if stream.len() < end + length {
            break;
        }
        end += length;
    }
    (stream[..end].to_vec(), false)
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
