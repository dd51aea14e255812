//! The load engine: connections, threads and phases of one measured run.
//!
//! It prints nothing and judges nothing: it returns a [`Measurement`], or the [`Failure`] of the first wrong answer. What
//! the server shed, or its model failed on, is no wrong answer where that is counted ([`error_answers`]).
//! [`measure`] connects, gives each [`worker`] its connections and schedule, starts all of them at one instant, adds up
//! what they [`recorder`] sends, reads CPU times at both ends of the measured time, and waits for the last answer.
//!
//! What it costs: in the closed loop a window shares one write, one read, one comparison and one histogram record; at
//! 64 connections and window 64 that is the CPU of an epoll client that verifies, nearly all of it the kernel's (0.12 us
//! a request on a busy 2-core VM: `client run --closed --connections 64 --window 64`).
//!
//! Where it is not cheap: an open-loop request has a write, a read and a wait of its own, because it is sent when it is
//! due and not when there is company. The write delivers to the server and may have to wake it: 3 to 9 us of CPU a
//! request on the same VM, so one thread sends about 100,000 requests/s on time there; beyond, requests share writes
//! and the schedule lag tells. Polling (`--spin`) adds up to the rest of a CPU. With a tolerance every score is
//! decoded. `--threads` and `--pin` are for more.
//!
//! Invariants: all workers have the same start; what was measured lies between the same two instants for all.
#![forbid(unsafe_code)]

pub mod error_answers;
pub mod mix;
pub mod recorder;
pub mod schedule;
pub mod truth;

mod answer_stream;
mod connection;
mod request_stream;
mod slow_readers;
mod worker;

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant, SystemTime};

use disrust_protocol::RequestLayout;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use socket2::Socket;

use crate::connect::{Target, connect, raise_descriptor_limit, same_address};
use crate::failure::Failure;
use crate::load::connection::Connection;
use crate::load::mix::VectorMix;
use crate::load::recorder::{EmptyIntervals, Interval, Recorder, times_ns};
use crate::load::request_stream::RequestStream;
use crate::load::schedule::{Arrivals, Schedule};
use crate::load::truth::{Expectation, Truth};
use crate::load::worker::{Pace, Replacing, Tally, Timetable, Worker};
use crate::pinning::pin_current_thread;
use crate::processor_time::{OwnTime, ThreadTime, spent, threads_of};

/// From the threads being ready to the start. Longer: only waiting. Shorter: a thread may be late for its start.
const START_DELAY: Duration = Duration::from_millis(5);

/// How a run is paced.
#[derive(Debug, Clone, Copy)]
pub enum Loop {
    /// On schedule, whatever the server does.
    Open(Arrivals),
    /// At most so many requests under way on each connection.
    Closed {
        /// The most requests under way on a connection.
        window: u32,
    },
}

/// What a run does.
#[derive(Debug, Clone)]
pub struct Load {
    /// When requests are sent.
    pub pace: Loop,
    /// Closed loop: ends when so many are answered, if that is before the end of the measured time.
    pub requests: Option<u64>,
    /// Has one request of each connection answered before the run begins, so that accepting is not measured.
    pub greeting: bool,
    /// Connections of all threads.
    pub connections: u32,
    /// Vectors of the requests.
    pub vectors: VectorMix,
    /// Threads that send and receive.
    pub threads: u32,
    /// CPUs of the threads, taken in turn; none: they are not pinned.
    pub pin: Vec<usize>,
    /// Before the measured time.
    pub warmup: Duration,
    /// The measured time.
    pub duration: Duration,
    /// How long a thread polls before the next request is due, and after the last answer.
    pub spin: Duration,
    /// How long after the measured time requests are still sent that became due in it.
    pub overtime: Duration,
    /// Connections made a second at the start; none: as fast as they are accepted.
    pub connect_rate: Option<f64>,
    /// Requests after which a connection is replaced.
    pub reconnect_every: Option<u64>,
    /// Goes on when the server ends a connection: makes it again, and counts.
    pub reconnect_on_close: bool,
    /// Goes on when a request is answered with an error that ends no connection, and counts it.
    pub counts_errors: bool,
    /// Connections beside the measured ones that ask much and read little.
    pub slow_readers: u32,
    /// Which answers are right.
    pub expectation: Expectation,
    /// The server's process, if it is on this machine.
    pub server_pid: Option<u32>,
    /// Time between two entries of the interval log.
    pub interval: Duration,
    /// Whether the histograms of the intervals are kept.
    pub keep_intervals: bool,
}

/// One interval of all threads.
pub struct IntervalTotal {
    /// Of the measured time, from 0.
    pub index: u64,
    /// Answers that arrived in it.
    pub answers: u64,
    /// Response times (open loop) or service times (closed loop).
    pub times_ns: Histogram<u64>,
}

/// What became of connections that the server ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reconnects {
    /// How often the server ended one.
    pub closed: u64,
    /// Requests that it refused because it was closing (error 4).
    pub refused: u64,
    /// Requests that were under way, and that it neither answered nor refused.
    pub lost: u64,
    /// Attempts to connect again that failed.
    pub attempts_failed: u64,
    /// The longest time that one of the connections was missing.
    pub missing_ns_max: u64,
}

impl Reconnects {
    /// Of two workers together.
    pub fn and(self, other: Reconnects) -> Reconnects {
        Reconnects {
            closed: self.closed + other.closed,
            refused: self.refused + other.refused,
            lost: self.lost + other.lost,
            attempts_failed: self.attempts_failed + other.attempts_failed,
            missing_ns_max: self.missing_ns_max.max(other.missing_ns_max),
        }
    }
}

/// What was measured.
pub struct Measurement {
    /// When the run began.
    pub started_at: SystemTime,
    /// The measured time, or the part of it before the run ended: by its number of requests, or as `cut_off` says.
    pub window: Duration,
    /// From the intended send time to the answer; empty in the closed loop, which intends nothing.
    pub response_ns: Histogram<u64>,
    /// From the write to the answer.
    pub service_ns: Histogram<u64>,
    /// What the threads counted.
    pub tally: Tally,
    /// CPU time of this process in the measured time.
    pub client: OwnTime,
    /// CPU time of the server's threads in the measured time.
    pub server: Option<Vec<ThreadTime>>,
    /// Only with `keep_intervals`.
    pub intervals: Vec<IntervalTotal>,
    /// Requests that slow readers had answered.
    pub slow_answers: u64,
    /// Why the run ended before its time: the server ended a connection.
    pub cut_off: Option<Failure>,
}

/// Carries `load` out against `target` as [`measure_so_far`] does; a run that was cut off is a failure.
pub fn measure(target: &Target, load: &Load, observe: &mut dyn FnMut(&Interval)) -> Result<Measurement, Failure> {
    let mut measurement = measure_so_far(target, load, observe)?;
    measurement.cut_off.take().map_or(Ok(measurement), Err)
}

/// Carries `load` out against `target`; `observe` sees every interval as it is complete for one thread.
pub fn measure_so_far(
    target: &Target,
    load: &Load,
    observe: &mut dyn FnMut(&Interval),
) -> Result<Measurement, Failure> {
    raise_descriptor_limit()?;
    let layout = RequestLayout::new(target.features as usize);
    let truth = Truth::load(&load.expectation, layout, target.seed)?;
    let stream = RequestStream::new(layout, &truth, &load.vectors, target.seed);
    let timetable = timetable(target, load);
    let shares = connect_all(target, load, &stream)?;
    let paces: Vec<Pace> = (0..shares.len()).map(|worker| pace(load, &timetable, worker, shares.len())).collect();
    let slow = slow_readers::connect_all(target, load.slow_readers)?;

    thread::scope(|scope| {
        let (full_sender, full) = channel();
        let (ready_sender, ready) = channel();
        let (mut empties, mut starts, mut handles) = (Vec::new(), Vec::new(), Vec::new());
        for (index, (share, pace)) in shares.into_iter().zip(&paces).enumerate() {
            let (recorder, empty) =
                Recorder::new(index, full_sender.clone(), timetable.measured_from_ns, load.interval);
            let (start_sender, start) = channel();
            empties.push(empty);
            starts.push(start_sender);
            let (timetable, ready) = (&timetable, ready_sender.clone());
            let replacing = replacing(target, load, &share)?;
            handles.push(scope.spawn(move || {
                pin(load, index)?;
                let worker = Worker::new(timetable, pace, share, replacing, recorder)?;
                let _ = ready.send(());
                // Whoever counts the ready ones must see that no more will come if another thread has failed.
                drop(ready);
                // Without a start, another thread has failed.
                start.recv().map_or(Ok(None), |start| worker.run(start).map(Some))
            }));
        }
        drop((full_sender, ready_sender));
        let slow = scope.spawn(|| slow_readers::run(slow, &stream, load.counts_errors, &timetable.stop));
        let all_ready = starts.iter().all(|_| ready.recv().is_ok());
        let started_at = SystemTime::now() + START_DELAY;
        let start = Instant::now() + START_DELAY;
        if all_ready {
            for sender in &starts {
                let _ = sender.send(start);
            }
        }
        drop(starts);
        let collected = collect(load, start, &timetable, &full, &empties, observe);
        // Relaxed: it carries nothing but itself. The workers have ended.
        timetable.stop.store(true, Ordering::Relaxed);
        let tallies = join_all(handles);
        let slow_answers = slow.join().unwrap_or_else(|panic| resume_unwind(panic));
        let mut measurement = collected?.into_measurement(load, started_at);
        for tally in tallies? {
            measurement.tally.add(tally);
        }
        measurement.cut_off = measurement.tally.cut_off.take();
        if let Some(ended_ns) = measurement.tally.ended_ns {
            measurement.window = Duration::from_nanos(ended_ns.saturating_sub(timetable.measured_from_ns));
        }
        // A run that was cut off before its measured time has no figures.
        if let Some(failure) = measurement.cut_off.take_if(|_| measurement.window.is_zero()) {
            return Err(failure);
        }
        measurement.slow_answers = slow_answers?;
        Ok(measurement)
    })
}

fn timetable(target: &Target, load: &Load) -> Timetable {
    let measured_from_ns = load.warmup.as_nanos() as u64;
    Timetable {
        measured_from_ns,
        measured_to_ns: measured_from_ns + load.duration.as_nanos() as u64,
        spin_ns: load.spin.as_nanos() as u64,
        overtime_ns: load.overtime.min(target.timeout).as_nanos() as u64,
        timeout: target.timeout,
        stop: AtomicBool::new(false),
    }
}

fn pace(load: &Load, timetable: &Timetable, worker: usize, workers: usize) -> Pace {
    match &load.pace {
        Loop::Open(arrivals) => Pace::Open(Schedule::new(arrivals, worker, workers, timetable.measured_to_ns)),
        Loop::Closed { window } => {
            let up_to = |worker: usize| load.requests.map(|all| all * worker as u64 / workers as u64);
            let share = up_to(worker).zip(up_to(worker + 1)).map(|(before, behind)| behind - before);
            Pace::Closed { window: u64::from(*window), requests: share }
        }
    }
}

/// Makes the connections and deals them out.
fn connect_all<'a>(
    target: &Target,
    load: &Load,
    stream: &'a RequestStream,
) -> Result<Vec<Vec<Connection<'a>>>, Failure> {
    let threads = load.threads.min(load.connections) as usize;
    let mut shares: Vec<Vec<Connection<'a>>> = (0..threads).map(|_| Vec::new()).collect();
    let start = Instant::now();
    for index in 0..load.connections as usize {
        if let Some(rate) = load.connect_rate {
            let due = start + Duration::from_secs_f64(index as f64 / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let socket = connect(target)?;
        let mut connection = Connection::new(socket, index, stream, load.counts_errors).saying_hello(target.hello());
        if load.greeting {
            connection.greet(target.timeout)?;
        }
        make_nonblocking(connection.socket())?;
        shares[index % threads].push(connection);
    }
    Ok(shares)
}

fn connect_nonblocking(target: &Target) -> Result<Socket, Failure> {
    let socket = connect(target)?;
    make_nonblocking(&socket)?;
    Ok(socket)
}

fn make_nonblocking(socket: &Socket) -> Result<(), Failure> {
    socket.set_nonblocking(true).map_err(Failure::local("make a connection nonblocking"))
}

/// Of a worker with these connections, of which there is at least one.
fn replacing(target: &Target, load: &Load, connections: &[Connection<'_>]) -> Result<Replacing, Failure> {
    let address = same_address(target, connections[0].socket()).map_err(Failure::local("ask a socket for its peer"))?;
    Ok(Replacing { address, every: load.reconnect_every, on_close: load.reconnect_on_close })
}

fn pin(load: &Load, worker: usize) -> Result<(), Failure> {
    let Some(&cpu) = load.pin.get(worker % load.pin.len().max(1)) else { return Ok(()) };
    if pin_current_thread(cpu) { Ok(()) } else { Err(Failure::Pin(cpu)) }
}

fn join_all(handles: Vec<ScopedJoinHandle<'_, Result<Option<Tally>, Failure>>>) -> Result<Vec<Tally>, Failure> {
    let joined = handles.into_iter().map(|handle| handle.join().unwrap_or_else(|panic| resume_unwind(panic)));
    let results: Vec<_> = joined.collect();
    results.into_iter().filter_map(Result::transpose).collect()
}

/// What the main thread gathers while the workers run.
struct Collected {
    response_ns: Histogram<u64>,
    service_ns: Histogram<u64>,
    intervals: Vec<IntervalTotal>,
    client: OwnTime,
    server: Option<Vec<ThreadTime>>,
}

/// CPU times at one instant.
struct Reading {
    client: OwnTime,
    server: Option<Vec<ThreadTime>>,
}

fn read_processor_times(load: &Load) -> Result<Reading, Failure> {
    let client = OwnTime::now().map_err(Failure::local("read our CPU time"))?;
    let server =
        load.server_pid.map(|process| threads_of(process).map_err(|source| Failure::ServerTime { process, source }));
    Ok(Reading { client, server: server.transpose()? })
}

/// Adds intervals up until all workers have ended.
fn collect(
    load: &Load,
    start: Instant,
    timetable: &Timetable,
    full: &Receiver<(usize, Interval)>,
    empties: &[EmptyIntervals],
    observe: &mut dyn FnMut(&Interval),
) -> Result<Collected, Failure> {
    let mut collected = Collected {
        response_ns: times_ns(),
        service_ns: times_ns(),
        intervals: Vec::new(),
        client: OwnTime::default(),
        server: None,
    };
    let readings_at = [timetable.measured_from_ns, timetable.measured_to_ns].map(Duration::from_nanos);
    let mut readings: Vec<Reading> = Vec::with_capacity(readings_at.len());
    // Fails early, and not after the warm-up.
    read_processor_times(load)?;
    loop {
        let next = readings_at.get(readings.len()).map(|at| start + *at);
        let wait = next.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
        match full.recv_timeout(wait) {
            Ok((worker, interval)) => {
                observe(&interval);
                collected.add(load, &interval);
                empties[worker].give_back(interval);
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if next.is_some_and(|at| at <= Instant::now()) {
            readings.push(read_processor_times(load)?);
        }
    }
    if readings.len() == 1 {
        // The last answer came a little before the end.
        readings.push(read_processor_times(load)?);
    }
    if let [before, after] = readings.as_mut_slice() {
        collected.client = after.client.since(before.client);
        let threads = before.server.as_ref().zip(after.server.take());
        collected.server = threads.map(|(before, after)| spent(before, after));
    }
    Ok(collected)
}

impl Collected {
    fn add(&mut self, load: &Load, interval: &Interval) {
        let expected = "histograms of one kind have the same bounds";
        self.response_ns.add(&interval.response_ns).expect(expected);
        self.service_ns.add(&interval.service_ns).expect(expected);
        if !load.keep_intervals {
            return;
        }
        let times = match load.pace {
            Loop::Open(_) => &interval.response_ns,
            Loop::Closed { .. } => &interval.service_ns,
        };
        match self.intervals.binary_search_by_key(&interval.index, |total| total.index) {
            Ok(found) => {
                self.intervals[found].answers += interval.answers;
                self.intervals[found].times_ns.add(times).expect(expected);
            }
            Err(place) => {
                let total = IntervalTotal { index: interval.index, answers: interval.answers, times_ns: times.clone() };
                self.intervals.insert(place, total);
            }
        }
    }

    fn into_measurement(self, load: &Load, started_at: SystemTime) -> Measurement {
        Measurement {
            started_at,
            window: load.duration,
            response_ns: self.response_ns,
            service_ns: self.service_ns,
            tally: Tally { ended_ns: Some(0), ..Tally::new(0) },
            client: self.client,
            server: self.server,
            intervals: self.intervals,
            slow_answers: 0,
            cut_off: None,
        }
    }
}
