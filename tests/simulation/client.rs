//! Simulated clients: they pipeline, split, stall, half-close, reset and break the protocol, and believe nothing.
//!
//! A client knows byte for byte what it must be answered, by each version of the model; all of an answer must be of one version,
//! which was in force between the request's last byte and the answer's first. What may differ is how the stream ends, and that only for a
//! reason which the client or the run knows of: see [`Client::ended`].

use std::ops::Range;
use std::time::Duration;

use disrust::connections::Timeouts;
use disrust::limits::LINGER;
use disrust_protocol::{ERROR_ANSWER_BYTES, ErrorCode, HELLO_ANSWER_CODE, HelloRequest, RequestLayout, ServerHello};
use fastrand::Rng;

use super::network::{Network, Read, StreamNumber, errno};
use super::swarm::{Swarm, VERSIONS_MAX};
use super::trace::note;

/// The first feature of a vector that the model refuses, and of one on which it panics.
pub const MODEL_ERRS: f32 = 1.0e30;
pub const MODEL_PANICS: f32 = 2.0e30;

/// What a slow reader takes at a time, for each output of the model, and the longest that it pauses then.
const SLOW_READ_BYTES_MAX: usize = 100;
const SLOW_PAUSE_MAX: Duration = Duration::from_millis(50);

/// What a client does when it has sent everything, or instead of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Waits for all answers, then closes.
    Polite,
    /// Sends FIN behind the last request, then waits for all answers and the end.
    HalfCloses,
    /// Sends a count that no request can have, and waits for everything owed, the error answer and the end.
    BreaksProtocol,
    /// Ends within a request, and waits for everything owed and the end.
    Truncates,
    /// Says nothing at all.
    Idle,
    /// Reads nothing for as long as it can.
    NeverReads,
    /// Reads little at a time, with pauses, and sends all the while: it is slow, and never late.
    ReadsSlowly,
    /// Closes without regard to what it is owed.
    Closes,
    /// Breaks the connection off.
    Resets,
    /// Is gone, and TCP notices.
    Vanishes,
}

/// Where a request or hello ends in the client's bytes, and its answer in all answers.
#[derive(Debug)]
struct Expected {
    is_hello: bool,
    request_end: usize,
    answer: Range<usize>,
    /// The version of the model that was in force when the request's last byte was written, and when that was.
    version_from: usize,
    written_at_ns: u64,
}

/// Where a client is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    NotConnected,
    Connected(StreamNumber),
    Done,
}

/// What the run knows that excuses an early end.
#[derive(Debug, Clone, Copy, Default)]
pub struct Excuses {
    /// The server was told to drain.
    pub draining: bool,
    /// That was so long ago that it may refuse requests and close connections.
    pub refusing: bool,
    /// The drain has been, or may have been, cut.
    pub cut: bool,
    /// There may be no descriptor for a connection.
    pub scarce_descriptors: bool,
    /// Connections can be over the limit.
    pub rejecting: bool,
    /// What peers do not read or finish may be more than the server holds.
    pub scarce_memory: bool,
    /// The longest that anybody has waited for an answer.
    pub longest_wait_ns: u64,
    /// Who has waited for so long may be shed.
    pub shed_after_ns: Option<u64>,
    /// The shortest timeout: whoever lets half of it pass may be given up.
    pub patience_ns: u64,
}

/// One client.
#[derive(Debug)]
pub struct Client {
    number: usize,
    manner: Manner,
    state: State,
    listener: usize,
    outgoing: Vec<u8>,
    written: usize,
    expected: Vec<Expected>,
    /// By the model's version; all of one length.
    answers: Vec<Vec<u8>>,
    /// How many answers have come whole, and how much of the next one.
    answered: usize,
    matched: usize,
    /// The longest that a request has waited for its answer.
    pub longest_wait_ns: u64,
    /// Answers that have come whole: scores, and each error by its code; then those to hellos, and their refusals.
    pub results: [u64; 8],
    /// The next answer is an error answer, if its first byte has come.
    is_error: bool,
    /// Versions of which the next answer may be, by what has come of it.
    versions: Vec<usize>,
    /// The first version of which the last answer may have been: an answer is of no version before it.
    version_seen: usize,
    /// The version that the server uses now.
    pub version_in_force: usize,
    /// Requests that may be unanswered when more are written.
    window: usize,
    chunk_max: usize,
    /// At so many bytes written, it does nothing for a while.
    stall_at: Option<(usize, u64)>,
    /// At so many bytes written, it leaves in its manner, if that is to leave early.
    leave_at: usize,
    finished: bool,
    /// Nothing is done before this time.
    pub wakes_at_ns: u64,
    /// The longest that it did nothing although it could.
    stalled_ns: u64,
    /// The longest from a request's first byte to its last.
    dawdled_ns: u64,
    /// When it connected, and how old its connection is then at least when the server closes it for that.
    connected_at_ns: u64,
    age_ns_min: u64,
    /// When it wrote the first byte of the last request that it has begun.
    request_began_ns: u64,
    /// How long it pauses after each read, and how much it reads then.
    pause_ns: u64,
    slow_read_bytes_max: usize,
    /// Its end came before any answer that it could claim.
    pub unserved: bool,
    /// It was given up for being slow.
    pub given_up: bool,
}

impl Client {
    /// What it says of hellos is drawn from `hellos`.
    pub fn draw(number: usize, swarm: &Swarm, rng: &mut Rng, hellos: &mut Rng) -> Client {
        let manner = if swarm.rude_clients.hits(rng) {
            [
                Manner::BreaksProtocol,
                Manner::Truncates,
                Manner::Idle,
                Manner::NeverReads,
                Manner::Closes,
                Manner::Resets,
                Manner::Vanishes,
            ][rng.usize(..7)]
        } else {
            [Manner::Polite, Manner::HalfCloses, Manner::ReadsSlowly][rng.usize(..3)]
        };
        let (mut outgoing, mut answers, mut expected) = (Vec::new(), vec![Vec::new(); swarm.versions], Vec::new());
        let say_hello =
            |outgoing: &mut Vec<u8>, answers: &mut [Vec<u8>], expected: &mut Vec<Expected>, rng: &mut Rng| {
                while swarm.hellos.hits(rng) && expected.len() < 4 * swarm.requests_per_client_max {
                    let start = answers[0].len();
                    draw_hello(swarm, rng, outgoing, answers);
                    expected.push(Expected::of(true, outgoing, start..answers[0].len()));
                }
            };
        let requests = if manner == Manner::Idle { 0 } else { 1 + rng.usize(..swarm.requests_per_client_max) };
        for _ in 0..requests {
            let vectors = match rng.u8(..16) {
                0 if swarm.large_requests => 64,
                1 if swarm.large_requests => rng.usize(1..=64),
                _ => rng.usize(1..=3),
            };
            say_hello(&mut outgoing, &mut answers, &mut expected, hellos);
            let start = answers[0].len();
            draw_request(swarm, rng, vectors, &mut outgoing, &mut answers);
            expected.push(Expected::of(false, &outgoing, start..answers[0].len()));
        }
        if manner != Manner::Idle {
            say_hello(&mut outgoing, &mut answers, &mut expected, hellos);
        }
        match manner {
            Manner::BreaksProtocol => {
                let count = [0, 65, u32::MAX][rng.usize(..3)];
                let is_hello = swarm.hellos.hits(hellos);
                let error = if is_hello {
                    let features = swarm.layout.feature_dim() as u32;
                    let feature_dim = [features + 1, 2 * features, u32::MAX][hellos.usize(..3)];
                    outgoing.extend(HelloRequest { feature_dim }.to_bytes());
                    ErrorCode::WrongFeatureDim
                } else {
                    outgoing.extend_from_slice(&count.to_le_bytes());
                    ErrorCode::BadVectorCount
                };
                let start = answers[0].len();
                answers.iter_mut().for_each(|answers| answers.extend(error.answer()));
                expected.push(Expected::of(is_hello, &outgoing, start..answers[0].len()));
                outgoing.extend((0..rng.usize(..100)).map(|byte| byte as u8));
            }
            Manner::Truncates => {
                let whole = outgoing.len();
                draw_request(swarm, rng, 1, &mut outgoing, &mut []);
                outgoing.truncate(rng.usize(whole + 1..outgoing.len()));
                if swarm.hellos.hits(hellos) {
                    outgoing.truncate(whole);
                    draw_hello(swarm, hellos, &mut outgoing, &mut []);
                    outgoing.truncate(hellos.usize(whole + 1..outgoing.len()));
                }
            }
            _ => {}
        }
        let leaves_early = matches!(manner, Manner::Closes | Manner::Resets | Manner::Vanishes);
        Client {
            number,
            manner,
            state: State::NotConnected,
            listener: rng.usize(..swarm.io_threads),
            written: 0,
            answered: 0,
            matched: 0,
            longest_wait_ns: 0,
            results: [0; 8],
            is_error: false,
            versions: Vec::with_capacity(VERSIONS_MAX),
            version_seen: 0,
            version_in_force: 0,
            window: [1, 4, 1000][rng.usize(..3)],
            chunk_max: [1 + rng.usize(..8) + outgoing.len() / 300, 100, 10_000][rng.usize(..3)],
            stall_at: (rng.u8(..8) == 0)
                .then(|| (rng.usize(..=outgoing.len()), rng.u64(..4_000_000_000) >> rng.u32(..12))),
            leave_at: if leaves_early { rng.usize(..=outgoing.len()) } else { usize::MAX },
            finished: false,
            wakes_at_ns: if rng.bool() { 0 } else { rng.u64(..swarm.step_ns_max * 2000) },
            stalled_ns: 0,
            dawdled_ns: 0,
            connected_at_ns: 0,
            age_ns_min: age_ns_min(swarm.max_connection_age),
            request_began_ns: 0,
            pause_ns: if manner == Manner::ReadsSlowly { 1 + rng.u64(..pause_ns_max(swarm.timeouts)) } else { 0 },
            slow_read_bytes_max: SLOW_READ_BYTES_MAX * swarm.layout.outputs(),
            unserved: false,
            given_up: false,
            outgoing,
            expected,
            answers,
        }
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// It could have done something for long, and was not let.
    pub fn has_missed_its_time(&mut self) {
        self.stalled_ns = u64::MAX;
    }

    /// Faults have stopped: whoever only waits stops waiting, and whoever would never go, goes; but not if the server
    /// has deadlines for it, which must end it.
    pub fn hurry(&mut self, timeouts: Timeouts) {
        self.wakes_at_ns = 0;
        self.stall_at = None;
        self.pause_ns = 0;
        let ends = match self.manner {
            Manner::Idle => timeouts.idle.is_some(),
            // The server waits for it to take its answers, or owes it none.
            Manner::NeverReads => timeouts.idle.is_some() && timeouts.request.is_some(),
            _ => true,
        };
        if !ends {
            self.manner = Manner::Closes;
            self.leave_at = 0;
        }
    }

    /// It comes by this listener, which is a path's: whoever is on the server's machine does not vanish, and what it reads is
    /// seen when it has read all of a send.
    pub fn come_by_path(&mut self, listener: usize, swarm: &Swarm) {
        self.listener = listener;
        self.slow_read_bytes_max = self.slow_read_bytes_max.max(swarm.limits.send_block_bytes_max);
        if self.manner == Manner::Vanishes {
            self.manner = Manner::Resets;
        }
    }

    /// Whether there is anything to do for it at this time.
    pub fn can_step(&self, network: &Network) -> bool {
        if network.now_ns < self.wakes_at_ns {
            return false;
        }
        match self.state {
            State::Done => false,
            State::NotConnected => true,
            State::Connected(stream) => {
                self.written >= self.leave_at
                    || self.is_deserted(stream, network)
                    || self.can_read(stream, network)
                    || self.writable(stream, network) > 0
                    || self.is_finish_due()
            }
        }
    }

    /// Does something; [`Client::can_step`] says that there is something.
    pub fn step(&mut self, network: &mut Network, mut excuses: Excuses, rng: &mut Rng, place: &mut [u8]) {
        // To an old connection, the server drains.
        excuses.refusing |= network.now_ns - self.connected_at_ns >= self.age_ns_min;
        match self.state {
            State::Done => {}
            State::NotConnected => {
                (self.request_began_ns, self.connected_at_ns) = (network.now_ns, network.now_ns);
                self.connect(network, excuses);
            }
            State::Connected(stream) => self.converse(stream, network, excuses, rng, place),
        }
    }

    fn connect(&mut self, network: &mut Network, excuses: Excuses) {
        match network.connect(self.listener) {
            Some(stream) => {
                note(|| {
                    let (requests, bytes) = (self.expected.len(), self.outgoing.len());
                    format!(
                        "client {} ({:?}, {requests} requests in {bytes} bytes, window {}) connects as stream {stream}",
                        self.number, self.manner, self.window
                    )
                });
                self.state = State::Connected(stream);
            }
            None => {
                assert!(excuses.draining, "the server listens until it drains");
                self.state = State::Done;
            }
        }
    }

    fn converse(
        &mut self,
        stream: StreamNumber,
        network: &mut Network,
        excuses: Excuses,
        rng: &mut Rng,
        place: &mut [u8],
    ) {
        if self.written >= self.leave_at || self.is_deserted(stream, network) {
            return self.leave(stream, network);
        }
        let (reads, writes) = (self.can_read(stream, network), self.writable(stream, network));
        if !reads && writes == 0 {
            return self.finish(stream, network);
        }
        if reads && (writes == 0 || rng.bool()) {
            self.read(stream, network, excuses, rng, place);
        } else {
            self.write(stream, network, excuses, rng, writes);
        }
    }

    /// Whether the server has gone while it does not look.
    fn is_deserted(&self, stream: StreamNumber, network: &Network) -> bool {
        self.manner == Manner::NeverReads && network.server_is_gone(stream)
    }

    fn can_read(&self, stream: StreamNumber, network: &Network) -> bool {
        self.manner != Manner::NeverReads && network.client_has_input(stream)
    }

    /// Bytes that it may and can write now.
    fn writable(&self, stream: StreamNumber, network: &Network) -> usize {
        if self.finished {
            return 0;
        }
        let last = self.answered + self.window - 1;
        let end = self.expected.get(last).map_or(self.outgoing.len(), |expected| expected.request_end);
        end.saturating_sub(self.written).min(network.client_room(stream))
    }

    fn write(&mut self, stream: StreamNumber, network: &mut Network, excuses: Excuses, rng: &mut Rng, writable: usize) {
        let mut bytes = 1 + rng.usize(..writable.min(self.chunk_max));
        if let Some((at, pause_ns)) = self.stall_at
            && at <= self.written + bytes
        {
            bytes = at.saturating_sub(self.written).max(1);
            self.wakes_at_ns = network.now_ns + pause_ns;
            self.stalled_ns = pause_ns;
            self.stall_at = None;
        }
        match network.client_write(stream, &self.outgoing[self.written..self.written + bytes]) {
            Some(taken) => self.has_written(taken, network.now_ns),
            None => self.ended(stream, network, excuses, true),
        }
    }

    fn is_between_requests(&self) -> bool {
        self.written == 0 || self.expected.binary_search_by_key(&self.written, |expected| expected.request_end).is_ok()
    }

    fn has_written(&mut self, bytes: usize, now_ns: u64) {
        // From a request's first byte to its last, the server's patience runs.
        if self.is_between_requests() {
            self.request_began_ns = now_ns;
        }
        self.dawdled_ns = self.dawdled_ns.max(now_ns - self.request_began_ns);
        let begun = |written| self.expected.partition_point(|expected| expected.request_end < written);
        if begun(self.written) < begun(self.written + bytes) {
            self.request_began_ns = now_ns;
        }
        let ended = |written| self.expected.partition_point(|expected| expected.request_end <= written);
        let completed = ended(self.written)..ended(self.written + bytes);
        for expected in &mut self.expected[completed] {
            (expected.version_from, expected.written_at_ns) = (self.version_in_force, now_ns);
        }
        self.written += bytes;
    }

    /// Whether everything is done that comes before its FIN or its close.
    fn is_finish_due(&self) -> bool {
        let all_written = self.written == self.outgoing.len();
        match self.manner {
            Manner::HalfCloses | Manner::Truncates => all_written && !self.finished,
            Manner::Polite | Manner::ReadsSlowly => all_written && self.answered == self.expected.len(),
            _ => false,
        }
    }

    fn finish(&mut self, stream: StreamNumber, network: &mut Network) {
        if matches!(self.manner, Manner::Polite | Manner::ReadsSlowly) {
            note(|| format!("client {} has all answers and closes", self.number));
            network.client_close(stream);
            self.state = State::Done;
        } else {
            note(|| format!("client {} sends FIN", self.number));
            network.client_finish(stream);
            self.finished = true;
        }
    }

    fn leave(&mut self, stream: StreamNumber, network: &mut Network) {
        note(|| format!("client {} leaves: {:?}", self.number, self.manner));
        match self.manner {
            Manner::Resets => network.client_break(stream, errno::ECONNRESET),
            Manner::Vanishes => network.client_vanish(stream),
            _ => network.client_close(stream),
        }
        self.state = State::Done;
    }

    fn read(&mut self, stream: StreamNumber, network: &mut Network, excuses: Excuses, rng: &mut Rng, place: &mut [u8]) {
        let most = 1 + rng.usize(..if self.pause_ns > 0 { self.slow_read_bytes_max } else { place.len() });
        self.wakes_at_ns = network.now_ns + self.pause_ns;
        match network.client_read(stream, &mut place[..most]) {
            Read::Nothing => unreachable!("there is something to read"),
            Read::Bytes(bytes) => self.check(&place[..bytes], excuses, network.now_ns),
            Read::End => self.ended(stream, network, excuses, false),
            Read::Reset => self.ended(stream, network, excuses, true),
        }
    }

    // ---- What it is answered.

    /// Compares what came with what had to come, as far as that is known.
    fn check(&mut self, mut bytes: &[u8], excuses: Excuses, now_ns: u64) {
        while let Some(first) = bytes.first().copied() {
            let complete = self.expected.partition_point(|expected| expected.request_end <= self.written);
            assert!(self.answered < complete, "client {}: byte {first} answers nothing", self.number);
            if self.matched == 0 {
                self.is_error = first == 0;
                let from = self.version_seen.max(self.expected[self.answered].version_from);
                self.versions.clear();
                self.versions.extend(from..=self.version_in_force);
            }
            let is_hello = self.expected[self.answered].is_hello;
            if is_hello && self.matched == 1 && first == HELLO_ANSWER_CODE {
                self.is_error = false;
            }
            let (number, index, matched) = (self.number, self.answered, self.matched);
            let place = self.expected[index].answer.clone();
            let answer = &self.answers[self.version_in_force][place.clone()];
            let came = if self.is_error { 1 } else { bytes.len().min(answer.len() - matched) };
            let says = |code: ErrorCode| self.is_error && [0, code as u8][matched] == first;
            let refused = excuses.refusing && says(ErrorCode::Closing);
            // What has waited unseen, for credit or for buffers, counts from when it could have: while others waited. In pools of
            // very few buffers, one may wait for the next one's wait as well; and there may have been no room to write it.
            let before_ns = self.expected[index.saturating_sub(1)].written_at_ns;
            let waited_ns = now_ns - before_ns + 2 * excuses.longest_wait_ns;
            let is_late = excuses.shed_after_ns.is_some_and(|after_ns| waited_ns > after_ns);
            let shed = is_late && says(ErrorCode::Shed) && !is_hello;
            if !refused && !shed {
                let answers = &self.answers;
                let matches = |version: &usize| answers[*version][place.clone()][matched..].starts_with(&bytes[..came]);
                let candidates = self.versions.clone();
                self.versions.retain(matches);
                assert!(
                    !self.versions.is_empty(),
                    "client {number}: answer {index} of a version in {candidates:?}, such as {answer:?}, and at its byte \
                     {matched} comes {:?}",
                    &bytes[..came]
                );
            }
            self.matched += came;
            bytes = &bytes[came..];
            if self.matched == if self.is_error { ERROR_ANSWER_BYTES } else { answer.len() } {
                self.answered += 1;
                self.matched = 0;
                if !is_hello {
                    self.longest_wait_ns = self.longest_wait_ns.max(now_ns - self.expected[index].written_at_ns);
                }
                let result = match (is_hello, self.is_error.then_some(first)) {
                    (false, None) => 0,
                    (true, None) => 6,
                    (true, Some(4)) => 7,
                    (_, Some(code)) => usize::from(code),
                };
                self.results[result] += 1;
                self.version_seen = self.versions.first().copied().unwrap_or(self.version_seen);
            }
        }
    }

    /// The stream has ended, in order or by a reset: everything owed has come, or there is an excuse.
    fn ended(&mut self, stream: StreamNumber, network: &mut Network, excuses: Excuses, reset: bool) {
        let (number, answered, requests) = (self.number, self.answered, self.expected.len());
        note(|| format!("client {number}: the end, reset {reset}, after {answered} of {requests} answers"));
        // Who has been sent everything is idle, however slowly it reads.
        let expects_end = !matches!(self.manner, Manner::Polite | Manner::Idle);
        let complete = answered == requests && self.matched == 0 && !reset && expects_end;
        // Whoever is closed on by the server has the time to read that.
        let is_closed_on = excuses.refusing || self.manner == Manner::BreaksProtocol;
        let patience_ns =
            if is_closed_on { excuses.patience_ns.min(LINGER.as_nanos() as u64) } else { excuses.patience_ns };
        let request_ns = if self.is_between_requests() { 0 } else { network.now_ns - self.request_began_ns };
        let waited_ns = self.stalled_ns.max(self.dawdled_ns).max(request_ns);
        let is_passive = matches!(self.manner, Manner::Idle | Manner::NeverReads) && patience_ns < u64::MAX;
        let slow = is_passive || waited_ns > patience_ns / 2 || excuses.scarce_memory;
        if !complete && !excuses.cut {
            // What the server had when it closed, it has answered or refused.
            let delivered = network.delivered_before_end(stream);
            let owed = self.expected.partition_point(|expected| expected.request_end <= delivered);
            let closed_on = excuses.refusing && !reset && self.matched == 0 && answered >= owed;
            // Whoever waits to be accepted when the listener closes is taken in, unless there is no descriptor for it.
            let closing = closed_on || (excuses.draining && excuses.scarce_descriptors && reset && answered == 0);
            self.given_up = !closing && slow;
            self.unserved = !closing && !slow && excuses.rejecting && answered == 0 && self.matched == 0;
            assert!(
                closing || self.unserved || self.given_up,
                "client {number} ({:?}) gets the end of its stream (reset: {reset}) after {answered} of {requests} answers \
                 and {} bytes of the next",
                self.manner,
                self.matched
            );
        }
        network.client_close(stream);
        self.state = State::Done;
    }
}

impl Expected {
    /// What ends the client's bytes, with its answer.
    fn of(is_hello: bool, outgoing: &[u8], answer: Range<usize>) -> Expected {
        Expected { is_hello, request_end: outgoing.len(), answer, version_from: 0, written_at_ns: 0 }
    }
}

/// A tenth less than the age that was asked for.
fn age_ns_min(age: Option<Duration>) -> u64 {
    age.map_or(u64::MAX, |age| (age - age / 10).as_nanos() as u64)
}

/// A slow reader's pauses are far shorter than the server's patience.
fn pause_ns_max(timeouts: Timeouts) -> u64 {
    let patience = timeouts.request.into_iter().chain(timeouts.idle).min().unwrap_or(SLOW_PAUSE_MAX);
    (patience / 8).min(SLOW_PAUSE_MAX).as_nanos() as u64
}

/// Appends a hello to `outgoing`, and what it must be told by each version of the model to that version's answers.
fn draw_hello(swarm: &Swarm, rng: &mut Rng, outgoing: &mut Vec<u8>, answers: &mut [Vec<u8>]) {
    let features = swarm.layout.feature_dim() as u32;
    let feature_dim = if rng.bool() { features } else { 0 };
    outgoing.extend(HelloRequest { feature_dim }.to_bytes());
    for (version, answers) in answers.iter_mut().enumerate() {
        let hello = ServerHello {
            feature_dim: features,
            outputs: swarm.layout.outputs() as u32,
            max_vectors: 64,
            model_version: version as u64,
            model_name: &swarm.model_name,
        };
        hello.write(answers);
    }
}

/// Appends a request to `outgoing`, and the answer that it must get from each version of the model to that version's answers.
fn draw_request(swarm: &Swarm, rng: &mut Rng, vectors: usize, outgoing: &mut Vec<u8>, answers: &mut [Vec<u8>]) {
    let features = RequestLayout::feature_dim(swarm.layout);
    let mark = if swarm.model_errs.hits(rng) {
        Some(MODEL_ERRS)
    } else if swarm.model_panics.hits(rng) {
        Some(MODEL_PANICS)
    } else {
        None
    };
    let marked = mark.map(|_| rng.usize(..vectors));
    outgoing.extend_from_slice(&(vectors as u32).to_le_bytes());
    let mut rows = Vec::with_capacity(vectors * features);
    for row in 0..vectors {
        for column in 0..features {
            let bits = rng.u32(..);
            let drawn = (bits >> 8) as f32 * [1.0e-3, 1.0, 1.0e3, -7.0][(bits & 3) as usize];
            let feature = mark.filter(|_| column == 0 && marked == Some(row)).unwrap_or(drawn);
            outgoing.extend_from_slice(&feature.to_le_bytes());
            rows.push(feature);
        }
    }
    let mut scores = Vec::with_capacity(vectors * swarm.layout.outputs());
    for (version, answers) in answers.iter_mut().enumerate() {
        if mark.is_some() {
            answers.extend_from_slice(&ErrorCode::ModelFailed.answer());
            continue;
        }
        scores.clear();
        rows.chunks(features).for_each(|row| swarm.scorer.score(version, row, &mut scores));
        answers.push(vectors as u8);
        answers.extend(scores.iter().flat_map(|score| score.to_le_bytes()));
    }
}
