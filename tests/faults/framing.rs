//! Rows A: bytes that are not requests, or not whole, or odd.

use std::io::Write;
use std::net::Shutdown;
use std::time::Instant;

use disrust_protocol::FEATURE_DIM;

use super::Listed;
use super::common::{Client, Request, random_requests};
use super::site::{Site, Stop};

pub const ROWS: &[Listed] = &[
    ("A1", "num_vectors 0, 65, 2³²−1 after K valid requests", bad_counts),
    ("A2", "random bytes, HTTP, TLS", random_bytes),
    ("A3", "one-byte segments; a request split at every offset", splits),
    ("A4", "10,000 pipelined requests, written before anything is read", deep_pipeline),
    ("A5", "a truncated request, then FIN", truncated),
    ("A6", "NaN, infinities, −0, denormals", odd_floats),
];

fn bad_counts(site: &mut Site) -> Result<(), Stop> {
    site.beside(&[], |site, server| {
        let before = server.resident_bytes();
        for count in [0, 65, u32::MAX] {
            for good in [0, 1, 10, 1000] {
                let mut requests = random_requests(&mut site.rng, good, 1..=8);
                requests.push(Request::bad(&count.to_le_bytes()));
                let mut client = server.connect();
                client.send_all(&requests);
                client.expect(&requests);
                client.expect_end();
            }
        }
        let grown = server.resident_bytes().saturating_sub(before) / 1024;
        site.measured(format!("{grown} KiB more, with counts up to 2³²−1"));
        Ok(())
    })
}

fn random_bytes(site: &mut Site) -> Result<(), Stop> {
    site.beside(&[], |site, server| {
        let connections = site.size(100_000, 2_000);
        let mut closed = 0;
        for _ in 0..connections {
            let mut bytes: Vec<u8> = match site.rng.u8(..4) {
                0 => b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
                1 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
                _ => Vec::new(),
            };
            bytes.extend((0..site.rng.usize(..300)).map(|_| site.rng.u8(..)));
            let mut client = server.connect();
            // It may be closed on before all is sent.
            let _cut_short = client.stream().write_all(&bytes);
            let _closed_before = client.stream().shutdown(Shutdown::Write);
            closed += u32::from(client.is_closed_by_server());
        }
        site.measured(format!("{connections} connections, {closed} of them closed in order or reset"));
        super::site::require(closed == connections, "a connection was neither answered nor closed")
    })
}

fn splits(site: &mut Site) -> Result<(), Stop> {
    site.beside(&[], |site, server| {
        let request = site.request(3);
        let mut client = server.connect();
        for offset in 1..request.bytes.len() {
            let (begin, end) = request.bytes.split_at(offset);
            client.send(begin);
            std::thread::yield_now();
            client.send(end);
            client.expect([&request]);
        }
        for _ in 0..site.size(50, 5) {
            request.bytes.chunks(1).for_each(|byte| client.send(byte));
            client.expect([&request]);
        }
        site.measured(format!("{} offsets, the same bits", request.bytes.len() - 1));
        Ok(())
    })
}

fn deep_pipeline(site: &mut Site) -> Result<(), Stop> {
    site.beside(&[], |site, server| {
        let requests = random_requests(&mut site.rng, 10_000, 1..=64);
        let mut client = server.connect();
        client.send_all(&requests);
        client.expect(&requests);
        Ok(())
    })
}

fn truncated(site: &mut Site) -> Result<(), Stop> {
    site.beside(&[], |site, server| {
        let (good, cut) = (site.request(2), site.request(2));
        for length in 1..cut.bytes.len() {
            let mut client = server.connect();
            client.send(&[&good.bytes[..], &cut.bytes[..length]].concat());
            client.half_close();
            client.expect([&good]);
            client.expect_end();
        }
        Ok(())
    })
}

fn odd_floats(site: &mut Site) -> Result<(), Stop> {
    site.beside(&[], |site, server| {
        let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE / 4.0, f32::MAX];
        let mut client = server.connect();
        for value in odd {
            for place in 0..3 {
                // A row of odd values between two usual ones, which must not change.
                let mut rows: Vec<f32> = (0..3 * FEATURE_DIM).map(|_| site.rng.f32()).collect();
                rows[place * FEATURE_DIM..(place + 1) * FEATURE_DIM].fill(value);
                let request = Request::of(FEATURE_DIM, &rows);
                client.send(&request.bytes);
                client.expect([&request]);
            }
        }
        let rate = |client: &mut Client, value: f32| {
            let requests = vec![Request::of(FEATURE_DIM, &[value; 64 * FEATURE_DIM]); 2000];
            let begun_at = Instant::now();
            client.exchange(&requests);
            requests.len() as f64 / begun_at.elapsed().as_secs_f64()
        };
        let (usual, denormal) = (rate(&mut client, 1.5), rate(&mut client, f32::MIN_POSITIVE / 4.0));
        site.measured(format!("denormals at {:.2} × the usual requests/s", denormal / usual));
        Ok(())
    })
}
