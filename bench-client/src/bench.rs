//! `bench`: sets the closed loop up, warms it, and takes the measurements around it.
//!
//! It is not a latency benchmark: a closed loop sends less when the server is slow. Before the measured part every
//! connection has one request answered, so that accepting connections is not measured.
//!
//! Invariants: clocks and CPU times are read right before and right after the measured part, and nothing is printed
//! inside it.

use std::io::{self, Write};
use std::net::TcpStream;

use disrust_protocol::RequestLayout;

use crate::args::{Plan, Target};
use crate::closed_loop::ClosedLoop;
use crate::connect::{connect, raise_descriptor_limit};
use crate::failure::Failure;
use crate::processor_time::{OwnTime, ThreadTime, spent, threads_of};
use crate::report::{Measurement, print};
use crate::table::Table;

/// Runs `plan` against `target`.
pub fn run(target: &Target, plan: &Plan, out: &mut impl Write) -> Result<(), Failure> {
    raise_descriptor_limit()?;
    let layout = RequestLayout::new(target.features as usize);
    let table = Table::new(layout, plan.vectors, plan.window, target.seed);
    let streams = connect_all(target, plan.connections)?;
    let mut closed_loop = ClosedLoop::new(streams, &table, plan.window, target.timeout)
        .map_err(Failure::local("watch the connections"))?;
    closed_loop.run(u64::from(plan.connections), 1)?;

    let measurement = measure(&mut closed_loop, plan)?;
    print(target, plan, &measurement, out).map_err(Failure::local("print"))
}

fn connect_all(target: &Target, count: u32) -> Result<Vec<TcpStream>, Failure> {
    let mut streams = Vec::with_capacity(count as usize);
    for _ in 0..count {
        let stream = connect(target)?;
        stream.set_nonblocking(true).map_err(Failure::local("make a connection nonblocking"))?;
        streams.push(stream);
    }
    Ok(streams)
}

fn measure(closed_loop: &mut ClosedLoop<'_>, plan: &Plan) -> Result<Measurement, Failure> {
    // With fewer requests than windows, every connection still gets its share.
    let window = u64::from(plan.window).min(plan.requests.div_ceil(u64::from(plan.connections)));
    let own_time = || OwnTime::now().map_err(Failure::local("read our CPU time"));

    let server_before = server_threads(plan)?;
    let client_before = own_time()?;
    let tally = closed_loop.run(plan.requests, window)?;
    let client = own_time()?.since(client_before);
    let server_after = server_threads(plan)?;

    let server = server_before.zip(server_after).map(|(before, after)| spent(&before, after));
    Ok(Measurement { tally, client, server })
}

fn server_threads(plan: &Plan) -> Result<Option<Vec<ThreadTime>>, Failure> {
    let read = |process| threads_of(process).map_err(|source: io::Error| Failure::ServerTime { process, source });
    plan.server_pid.map(read).transpose()
}
