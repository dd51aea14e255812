//! One thread of a run: it sends on schedule (open loop) or keeps windows full (closed loop), and takes the answers.
//!
//! The journey of a request in the open loop: its time on the [`Schedule`] comes → [`Worker::send_due`] claims it for
//! the next connection in turn and writes it → [`Worker::turn`] receives, verifies and records its answer, twice: from
//! the intended time (response) and from the write (service). Between two connections' turns the schedule is looked
//! at again, so that a burst of answers does not make the next request late.
//!
//! Waiting is a hybrid: `epoll_pwait2` while the next request is further away than `spin`, polling from then on, and
//! for as long after the last answer while others are owed. At low rates the thread sleeps; at high ones it polls.
//!
//! A connection that the server ends ends the run with it, or is made again after a pause ([`Worker::failed`]): what was
//! under way is lost, and what came due meanwhile is sent late and counts its wait.
//!
//! Invariants: nothing is allocated for a request; how late a request was written is recorded for each one, unless the
//! kernel had no room for it, which is the server's doing; the run ends `--timeout` after the measured
//! time at the latest.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use socket2::SockAddr;

use crate::failure::Failure;
use crate::load::Reconnects;
use crate::load::connection::{Connection, Taken};
use crate::load::error_answers::{ErrorAnswers, Unscored};
use crate::load::recorder::{Recorder, times_ns};
use crate::load::request_stream::SLICE_BYTES_MAX;
use crate::load::schedule::{Place, Schedule};

/// Bytes that are received at once. Larger: out of the L1 cache. Smaller: more system calls when answers are large.
const RECEIVE_BYTES: usize = 32 * 1024;

/// Connections that are served between two waits. Larger: more memory. Smaller: more system calls.
const EVENTS_MAX: usize = 1024;

/// Requests that are claimed before answers are looked at again. Larger: answers wait when many requests are due.
/// Smaller: fewer of them share a write.
const CLAIMS_MAX: usize = 1024;

/// The longest sleep, after which stalls, a stop and the end are looked for.
const SLEEP_NS_MAX: u64 = 20_000_000;

/// From the end of a connection, or an attempt to make it again that failed, to the next attempt. Longer: what the server's
/// absence costs is overstated by so much. Shorter: a server that starts is kept busy by connections.
const RECONNECT_PAUSE_NS: u64 = 10_000_000;

/// How long a connection may take to end after its last answer, before it is left alone.
const FINISH_PATIENCE: Duration = Duration::from_millis(200);

const _: () = assert!(RECEIVE_BYTES <= SLICE_BYTES_MAX, "what one read brings is checked in one piece");

/// The phases of a run, in nanoseconds from its start, and what all workers share.
pub struct Timetable {
    /// When the measured time begins (the warm-up's end).
    pub measured_from_ns: u64,
    /// When it ends, and with it the sending.
    pub measured_to_ns: u64,
    /// How long before the next request a worker polls instead of sleeping.
    pub spin_ns: u64,
    /// How long after the measured time requests are still sent that became due in it. A worker that needs longer is
    /// saturated, and its run not valid.
    pub overtime_ns: u64,
    /// How long the server may let a request wait.
    pub timeout: Duration,
    /// Set when any worker failed: the others end.
    pub stop: AtomicBool,
}

impl Timetable {
    fn is_measured(&self, time_ns: u64) -> bool {
        (self.measured_from_ns..self.measured_to_ns).contains(&time_ns)
    }
}

/// When connections are replaced.
#[derive(Debug, Clone)]
pub struct Replacing {
    /// Where the next one goes.
    pub address: SockAddr,
    /// Requests of one socket.
    pub every: Option<u64>,
    /// Whether one that the server has ended is made again.
    pub on_close: bool,
}

/// A connection that the server has ended, until there is another one.
struct Missing {
    token: usize,
    since_ns: u64,
    /// When it is tried again; `u64::MAX` while a connection is being made.
    retry_at_ns: u64,
}

/// What sends, and when.
pub enum Pace {
    /// On schedule, whatever the server does.
    Open(Schedule),
    /// When answers come.
    Closed {
        /// The most requests under way on a connection.
        window: u64,
        /// Those of this worker in all; none: as many as there is time for.
        requests: Option<u64>,
    },
}

/// What a worker counted. Requests are counted by their intended time (open loop) or their answer's (closed loop).
pub struct Tally {
    /// How late requests were written, by no fault of the server.
    pub lag_ns: Histogram<u64>,
    /// From beginning a connection to having it, for those made during the run.
    pub connect_ns: Histogram<u64>,
    /// Requests on the schedule of the measured time.
    pub scheduled: u64,
    /// Requests that this worker never came to send.
    pub unsent: u64,
    /// Requests that had to wait for the server to take earlier ones, or for a new connection.
    pub held_back: u64,
    /// Answers with scores that arrived in the measured time, whenever they were due.
    pub answered: u64,
    /// Vectors of those.
    pub vectors: u64,
    /// Turns in which a connection brought answers, in the measured time.
    pub answer_turns: u64,
    /// Requests that were answered with an error, where that is counted.
    pub errors: ErrorAnswers,
    /// The first one of each kind in the order of [`Unscored::ALL`], in the warm-up too.
    pub first_errors: [Option<Failure>; Unscored::ALL.len()],
    /// Requests without an answer.
    pub lost: u64,
    /// The first of them.
    pub first_lost: Option<Failure>,
    /// Of the measured time, how long there was nothing to do.
    pub idle_ns: u64,
    /// When the run ended, if that was before its time: by its number of requests, or because it was cut off.
    pub ended_ns: Option<u64>,
    /// Why it was cut off.
    pub cut_off: Option<Failure>,
    /// What became of connections that the server ended, if they are made again.
    pub reconnects: Option<Reconnects>,
}

/// One thread's part of a run.
pub struct Worker<'a> {
    timetable: &'a Timetable,
    pace: &'a Pace,
    connections: Vec<Connection<'a>>,
    replacing: Replacing,
    /// Of connections that the server has ended.
    missing: Vec<Missing>,
    recorder: Recorder,
    tally: Tally,
    epoll: OwnedFd,
    start: Instant,
    /// The next request to be claimed, its place on the schedule, and the connection in turn.
    next_due: Place,
    next_due_ns: u64,
    next_connection: usize,
    /// The place on the schedule of each connection's next answer; a connection has every `connections.len()`-th one.
    answer_places: Vec<Place>,
    /// Claimed and not written yet: the connection and the intended time. Empty between turns.
    claims: Vec<(usize, u64)>,
    outstanding: u64,
    /// Closed loop: requests that no connection has taken yet.
    unclaimed: u64,
    last_activity_ns: u64,
    last_check_ns: u64,
    receive_buffer: Vec<u8>,
}

impl<'a> Worker<'a> {
    /// A worker over `connections`, which begins at `start`.
    pub fn new(
        timetable: &'a Timetable,
        pace: &'a Pace,
        mut connections: Vec<Connection<'a>>,
        replacing: Replacing,
        recorder: Recorder,
    ) -> Result<Worker<'a>, Failure> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Failure::local("watch the connections"))?;
        let mut answer_places = Vec::with_capacity(connections.len());
        for (token, connection) in connections.iter_mut().enumerate() {
            watch(&epoll, connection, token)?;
            if let Some(requests) = replacing.every {
                // The first sockets last for different times, so that they are not all replaced at once.
                connection.end_socket_after(1 + (token as u64 * 37) % requests);
            }
            if let Pace::Open(schedule) = pace {
                answer_places.push(schedule.place(token));
            }
        }
        let (next_due, next_due_ns, scheduled, unclaimed) = match pace {
            Pace::Open(schedule) => {
                let place = schedule.place(0);
                let scheduled = schedule.count(timetable.measured_from_ns, timetable.measured_to_ns);
                (place, schedule.intended_ns(place), scheduled, 0)
            }
            Pace::Closed { requests, .. } => (Place::default(), u64::MAX, 0, requests.unwrap_or(u64::MAX)),
        };
        let reconnects = replacing.on_close.then(Reconnects::default);
        Ok(Worker {
            timetable,
            pace,
            connections,
            replacing,
            missing: Vec::new(),
            recorder,
            tally: Tally { reconnects, ..Tally::new(scheduled) },
            epoll,
            start: Instant::now(),
            next_due,
            next_due_ns,
            next_connection: 0,
            answer_places,
            claims: Vec::with_capacity(CLAIMS_MAX),
            outstanding: 0,
            unclaimed,
            last_activity_ns: 0,
            last_check_ns: 0,
            receive_buffer: vec![0; RECEIVE_BYTES],
        })
    }

    /// Carries the run out; it begins at `start`.
    pub fn run(mut self, start: Instant) -> Result<Tally, Failure> {
        // Sleeps end when they should, and not up to 50 us later. Where this is refused, the lag shows it.
        let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
        std::thread::sleep(start.saturating_duration_since(Instant::now()));
        self.start = start;
        if let Err(failure) = self.run_loop() {
            // Relaxed: it carries nothing but itself.
            self.timetable.stop.store(true, Ordering::Relaxed);
            if !failure.is_end_of_connection() {
                return Err(failure);
            }
            self.tally.cut_off = Some(failure);
        }
        self.end()
    }

    fn run_loop(&mut self) -> Result<(), Failure> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        self.fill_windows()?;
        loop {
            let now_ns = self.send_due()?;
            if self.is_over(now_ns) {
                return Ok(());
            }
            self.reconnect_due(now_ns)?;
            self.wait(now_ns, &mut events)?;
            for event in &events {
                self.turn(event)?;
                if self.next_due_ns <= self.last_activity_ns {
                    self.send_due()?;
                }
            }
        }
    }

    /// 585 years fit.
    fn now_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// Closed loop: the first requests of every connection.
    fn fill_windows(&mut self) -> Result<(), Failure> {
        let &Pace::Closed { window, .. } = self.pace else { return Ok(()) };
        for token in 0..self.connections.len() {
            self.fill_window(token, window);
            let now_ns = self.now_ns();
            self.send(token, now_ns)?;
        }
        Ok(())
    }

    fn fill_window(&mut self, token: usize, window: u64) {
        let connection = &mut self.connections[token];
        let claim = (window - connection.outstanding()).min(self.unclaimed);
        connection.claim(claim);
        self.unclaimed -= claim;
        self.outstanding += claim;
    }

    /// Open loop: claims and writes what is due, and returns the time.
    fn send_due(&mut self) -> Result<u64, Failure> {
        let now_ns = self.now_ns();
        let Pace::Open(schedule) = self.pace else { return Ok(now_ns) };
        if now_ns > self.timetable.measured_to_ns + self.timetable.overtime_ns {
            return Ok(now_ns);
        }
        while self.next_due_ns <= now_ns
            && self.next_due_ns < self.timetable.measured_to_ns
            && self.claims.len() < CLAIMS_MAX
        {
            self.claims.push((self.next_connection, self.next_due_ns));
            self.connections[self.next_connection].claim(1);
            self.outstanding += 1;
            self.next_connection = (self.next_connection + 1) % self.connections.len();
            schedule.advance(&mut self.next_due, 1);
            self.next_due_ns = schedule.intended_ns(self.next_due);
        }
        self.write_claims(now_ns)
    }

    fn write_claims(&mut self, mut now_ns: u64) -> Result<u64, Failure> {
        for index in 0..self.claims.len() {
            let (token, intended_ns) = self.claims[index];
            if index > 0 {
                now_ns = self.start.elapsed().as_nanos() as u64;
            }
            let held_back = !self.connections[token].takes_requests() || !self.send(token, now_ns)?;
            if self.timetable.is_measured(intended_ns) {
                self.tally.lag_ns.saturating_record(now_ns - intended_ns);
                self.tally.held_back += u64::from(held_back);
            }
        }
        if !self.claims.is_empty() {
            self.last_activity_ns = now_ns;
            self.claims.clear();
        }
        Ok(now_ns)
    }

    /// Sends what is due on a connection, and tells whether all of it is with the kernel.
    fn send(&mut self, token: usize, now_ns: u64) -> Result<bool, Failure> {
        match self.connections[token].send(now_ns) {
            Err(failure) => self.failed(token, failure, now_ns).map(|()| false),
            sent => sent,
        }
    }

    /// A connection has failed. If that is because the server has ended it, the answers before the end count, what is
    /// under way is given up, and it is made again if that was asked for.
    #[cold]
    fn failed(&mut self, token: usize, failure: Failure, now_ns: u64) -> Result<(), Failure> {
        if !failure.is_end_of_connection() {
            return Err(failure);
        }
        self.record(token, now_ns);
        let given_up = self.connections[token].give_up(now_ns);
        self.outstanding -= given_up.refused + given_up.lost;
        if let Pace::Open(schedule) = self.pace {
            let requests = (given_up.refused + given_up.lost) as usize;
            schedule.advance(&mut self.answer_places[token], requests * self.connections.len());
        }
        self.tally.lost += given_up.lost;
        let Some(reconnects) = &mut self.tally.reconnects else { return Err(failure) };
        reconnects.refused += given_up.refused;
        reconnects.lost += given_up.lost;
        let retry_at_ns = now_ns + RECONNECT_PAUSE_NS;
        match self.missing.iter_mut().find(|missing| missing.token == token) {
            Some(missing) => {
                reconnects.attempts_failed += 1;
                missing.retry_at_ns = retry_at_ns;
                let is_patient = now_ns - missing.since_ns < self.timetable.timeout.as_nanos() as u64;
                if is_patient { Ok(()) } else { Err(failure) }
            }
            None => {
                reconnects.closed += 1;
                self.missing.push(Missing { token, since_ns: now_ns, retry_at_ns });
                Ok(())
            }
        }
    }

    /// Begins the connections again whose pause is over.
    fn reconnect_due(&mut self, now_ns: u64) -> Result<(), Failure> {
        for index in 0..self.missing.len() {
            if self.missing[index].retry_at_ns <= now_ns {
                self.missing[index].retry_at_ns = u64::MAX;
                self.replace(self.missing[index].token, now_ns)?;
            }
        }
        Ok(())
    }

    /// Gives a connection its next socket.
    fn replace(&mut self, token: usize, now_ns: u64) -> Result<(), Failure> {
        let connection = &mut self.connections[token];
        if let Err(failure) = connection.reconnect(&self.replacing.address, now_ns) {
            return self.failed(token, failure, now_ns);
        }
        if let Some(requests) = self.replacing.every {
            connection.end_socket_after(requests);
        }
        watch(&self.epoll, connection, token)
    }

    /// A connection is there again.
    fn connected(&mut self, token: usize, now_ns: u64) {
        self.tally.connect_ns.saturating_record(self.connections[token].since_progress_ns(now_ns));
        if let Some(index) = self.missing.iter().position(|missing| missing.token == token) {
            let missing = self.missing.swap_remove(index);
            self.note_missing(now_ns - missing.since_ns);
        }
    }

    fn note_missing(&mut self, missing_ns: u64) {
        if let Some(reconnects) = &mut self.tally.reconnects {
            reconnects.missing_ns_max = reconnects.missing_ns_max.max(missing_ns);
        }
    }

    /// Whether nothing is left to do, or nothing more will be done.
    fn is_over(&mut self, now_ns: u64) -> bool {
        let sending_over = match self.pace {
            Pace::Open(_) => {
                let to_ns = self.timetable.measured_to_ns;
                self.next_due_ns >= to_ns || now_ns > to_ns + self.timetable.overtime_ns
            }
            Pace::Closed { .. } => now_ns >= self.timetable.measured_to_ns || self.unclaimed == 0,
        };
        if sending_over && (self.outstanding == 0 || self.next_due_ns < self.timetable.measured_to_ns) {
            return true;
        }
        if now_ns - self.last_check_ns < SLEEP_NS_MAX {
            return false;
        }
        self.last_check_ns = now_ns;
        let timeout = self.timetable.timeout;
        if now_ns > self.timetable.measured_to_ns + timeout.as_nanos() as u64 {
            return true;
        }
        self.tally.first_lost = self.connections.iter().find_map(|connection| connection.stalled(now_ns, timeout));
        // Relaxed: it carries nothing but itself, and is looked at again soon.
        self.tally.first_lost.is_some() || self.timetable.stop.load(Ordering::Relaxed)
    }

    /// Waits until a connection is ready, or a request due.
    fn wait(&mut self, now_ns: u64, events: &mut Vec<epoll::Event>) -> Result<(), Failure> {
        let spin_ns = self.timetable.spin_ns;
        let until_due_ns = self.next_due_ns.saturating_sub(now_ns);
        let answer_is_near = self.outstanding > 0 && now_ns - self.last_activity_ns.min(now_ns) < spin_ns;
        let sleep_ns = match self.pace {
            Pace::Open(_) if answer_is_near => 0,
            _ => until_due_ns.saturating_sub(spin_ns).min(SLEEP_NS_MAX),
        };
        let timeout = Timespec { tv_sec: 0, tv_nsec: sleep_ns as i64 };
        events.clear();
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(events), Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(Failure::local("wait for readiness")(error)),
        }
        if (sleep_ns > 0 || events.is_empty()) && self.timetable.is_measured(now_ns) {
            self.tally.idle_ns += self.now_ns().min(self.timetable.measured_to_ns) - now_ns;
        }
        Ok(())
    }

    /// Serves one connection that is ready.
    fn turn(&mut self, event: &epoll::Event) -> Result<(), Failure> {
        let token = event.data.u64() as usize;
        let flags = event.flags;
        let connection = &mut self.connections[token];
        if connection.has_ended() {
            return Ok(());
        }
        let was_connecting = connection.is_connecting();
        let received = take_event(connection, flags, &mut self.receive_buffer);
        let now_ns = self.start.elapsed().as_nanos() as u64;
        if was_connecting && !connection.is_connecting() {
            self.connected(token, now_ns);
        }
        self.last_activity_ns = now_ns;
        match received {
            Ok(true) => self.record(token, now_ns),
            Ok(false) => {}
            Err(failure) => return self.failed(token, failure, now_ns),
        }
        match self.connections[token].refusal() {
            None => self.refill(token, now_ns),
            // The refusals of what else is under way are waited for.
            Some(_) if self.replacing.on_close && !self.connections[token].is_all_refused() => Ok(()),
            Some(refusal) => self.failed(token, refusal, now_ns),
        }
    }

    /// Notes the answers that are whole. Those that are errors are counted, and have no part in any time or rate.
    fn record(&mut self, token: usize, now_ns: u64) {
        let (timetable, stride) = (self.timetable, self.connections.len());
        let interval = self.recorder.at(now_ns);
        let (mut scored, mut unscored) = (0, 0);
        let mut firsts = [None; Unscored::ALL.len()];
        let errors = &mut self.tally.errors;
        let mut note = |taken: &Taken, kind: Unscored, measured: u64| {
            unscored += taken.count;
            errors.add(kind, measured);
            firsts[kind as usize].get_or_insert(taken.request);
        };
        let vectors = match self.pace {
            Pace::Open(schedule) => {
                let place = &mut self.answer_places[token];
                self.connections[token].take_answers(now_ns, |taken| {
                    let intended = (0..taken.count).map(|_| {
                        let intended_ns = schedule.intended_ns(*place);
                        schedule.advance(place, stride);
                        intended_ns
                    });
                    let measured = intended.filter(|intended_ns| *intended_ns >= timetable.measured_from_ns);
                    match taken.unscored {
                        Some(kind) => note(&taken, kind, measured.count() as u64),
                        None => {
                            scored += taken.count;
                            for intended_ns in measured {
                                interval.response_ns.saturating_record(now_ns - intended_ns);
                                interval.service_ns.saturating_record(now_ns - taken.sent_at_ns);
                            }
                        }
                    }
                })
            }
            Pace::Closed { .. } => self.connections[token].take_answers(now_ns, |taken| match taken.unscored {
                Some(kind) => note(&taken, kind, if timetable.is_measured(now_ns) { taken.count } else { 0 }),
                None => {
                    scored += taken.count;
                    if taken.sent_at_ns >= timetable.measured_from_ns {
                        interval.service_ns.saturating_record_n(now_ns - taken.sent_at_ns, taken.count);
                    }
                }
            }),
        };
        self.outstanding -= scored + unscored;
        if timetable.is_measured(now_ns) {
            interval.answers += scored;
            interval.vectors += vectors;
            self.tally.answered += scored;
            self.tally.vectors += vectors;
            self.tally.answer_turns += u64::from(scored > 0);
        }
        if unscored > 0 {
            self.note_first_errors(token, firsts);
        }
    }

    /// `firsts` are requests of a connection that were answered with errors, by their kind.
    #[cold]
    fn note_first_errors(&mut self, token: usize, firsts: [Option<u64>; Unscored::ALL.len()]) {
        let connection = &self.connections[token];
        for ((first, request), kind) in self.tally.first_errors.iter_mut().zip(firsts).zip(Unscored::ALL) {
            let Some(request) = request else { continue };
            first.get_or_insert_with(|| connection.unscored(request, kind));
        }
    }

    /// Sends what could not be sent before, or what the window has room for, or replaces a socket that has done its
    /// part.
    fn refill(&mut self, token: usize, now_ns: u64) -> Result<(), Failure> {
        if let (&Pace::Closed { window, .. }, true) = (self.pace, now_ns < self.timetable.measured_to_ns) {
            self.fill_window(token, window);
        }
        if self.replacing.every.is_some() && self.connections[token].socket_is_spent() {
            return self.replace(token, now_ns);
        }
        self.send(token, now_ns).map(drop)
    }

    /// What was left undone, and that nothing came that was not asked for.
    fn end(mut self) -> Result<Tally, Failure> {
        // Where the server stalled for so long that the run was given up, what was not sent is no fault of ours.
        let sent_all = self.next_due_ns >= self.timetable.measured_to_ns || self.tally.first_lost.is_some();
        if let (Pace::Open(schedule), false) = (self.pace, sent_all) {
            self.tally.unsent = schedule.count(self.next_due_ns, self.timetable.measured_to_ns);
        }
        let now_ns = self.now_ns();
        if let Some(since_ns) = self.missing.iter().map(|missing| missing.since_ns).min() {
            self.note_missing(now_ns - since_ns);
        }
        // Relaxed: it carries nothing but itself.
        if self.timetable.stop.load(Ordering::Relaxed) {
            self.cut_off(now_ns);
        } else if self.outstanding > 0 {
            self.count_losses();
        }
        if let Pace::Closed { requests: Some(_), .. } = self.pace {
            self.tally.ended_ns = Some(self.last_activity_ns);
        }
        // Ends what is measured; that the connections end is no part of it.
        self.recorder.finish();
        if self.outstanding == 0 {
            for connection in self.connections {
                if !connection.finish(FINISH_PATIENCE)? {
                    break;
                }
            }
        }
        Ok(self.tally)
    }

    /// The run has ended before its time: what was not due yet, or was under way elsewhere, is nobody's fault.
    fn cut_off(&mut self, now_ns: u64) {
        let ended_ns = now_ns.min(self.timetable.measured_to_ns);
        self.tally.ended_ns = Some(ended_ns);
        self.tally.unsent = 0;
        if let Pace::Open(schedule) = self.pace {
            let from_ns = self.timetable.measured_from_ns;
            self.tally.scheduled = schedule.count(from_ns, ended_ns.max(from_ns));
        }
    }

    /// Requests without an answer have waited until now at least: leaving them out would hide the longest times. Where
    /// this worker did not come to send all, it is not the server that lost them.
    fn count_losses(&mut self) {
        let (now_ns, stride) = (self.now_ns(), self.connections.len());
        for (token, connection) in self.connections.iter().enumerate() {
            let outstanding = connection.outstanding();
            if outstanding == 0 {
                continue;
            }
            if self.tally.unsent > 0 {
                self.tally.unsent += outstanding;
                continue;
            }
            self.tally.lost += outstanding;
            let timeout = self.timetable.timeout;
            self.tally.first_lost.get_or_insert_with(|| connection.late(timeout));
            let Pace::Open(schedule) = self.pace else { continue };
            let interval = self.recorder.at(now_ns);
            for _ in 0..outstanding {
                let intended_ns = schedule.intended_ns(self.answer_places[token]);
                schedule.advance(&mut self.answer_places[token], stride);
                if intended_ns >= self.timetable.measured_from_ns {
                    interval.response_ns.saturating_record(now_ns.saturating_sub(intended_ns));
                }
            }
        }
    }
}

impl Tally {
    /// Adds another worker's.
    pub fn add(&mut self, other: Tally) {
        let expected = "histograms of one kind have the same bounds";
        self.lag_ns.add(&other.lag_ns).expect(expected);
        self.connect_ns.add(&other.connect_ns).expect(expected);
        self.scheduled += other.scheduled;
        self.unsent += other.unsent;
        self.held_back += other.held_back;
        self.answered += other.answered;
        self.vectors += other.vectors;
        self.answer_turns += other.answer_turns;
        for (kind, (first, other_first)) in
            Unscored::ALL.into_iter().zip(self.first_errors.iter_mut().zip(other.first_errors))
        {
            self.errors.add(kind, other.errors.of(kind));
            *first = first.take().or(other_first);
        }
        self.lost += other.lost;
        self.first_lost = self.first_lost.take().or(other.first_lost);
        self.idle_ns += other.idle_ns;
        self.cut_off = self.cut_off.take().or(other.cut_off);
        self.reconnects = match (self.reconnects, other.reconnects) {
            (Some(ours), Some(others)) => Some(ours.and(others)),
            (ours, others) => ours.or(others),
        };
        self.ended_ns = self.ended_ns.zip(other.ended_ns).map(|(ended_ns, other_ns)| ended_ns.max(other_ns));
    }

    /// With nothing counted but what is on the schedule.
    pub fn new(scheduled: u64) -> Tally {
        Tally {
            lag_ns: times_ns(),
            connect_ns: times_ns(),
            scheduled,
            unsent: 0,
            held_back: 0,
            answered: 0,
            vectors: 0,
            answer_turns: 0,
            errors: ErrorAnswers::default(),
            first_errors: [None, None],
            lost: 0,
            first_lost: None,
            idle_ns: 0,
            ended_ns: None,
            cut_off: None,
            reconnects: None,
        }
    }
}

/// Carries out what a connection is ready for, and tells whether anything was received.
fn take_event(
    connection: &mut Connection<'_>,
    flags: epoll::EventFlags,
    receive_buffer: &mut [u8],
) -> Result<bool, Failure> {
    let ended = epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
    if flags.intersects(epoll::EventFlags::OUT | epoll::EventFlags::ERR) {
        connection.writable()?;
    }
    Ok(flags.intersects(epoll::EventFlags::IN | ended)
        && connection.receive(receive_buffer, flags.intersects(ended))?)
}

fn watch(epoll: &OwnedFd, connection: &Connection<'_>, token: usize) -> Result<(), Failure> {
    let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
    epoll::add(epoll, connection.socket(), epoll::EventData::new_u64(token as u64), flags)
        .map_err(Failure::local("watch a connection"))
}
