//! What a seed draws before a run begins: sizes, limits, deadlines, who the clients are, and how often what goes wrong.
//!
//! Rates are drawn too (swarm testing: Groce et al., ISSTA 2012): a run in which every fault is a little likely hides
//! what only shows when one is frequent and another absent. Sizes are small, so that limits are reached.

use std::time::Duration;

use disrust::connections::Timeouts;
use disrust::exchange::wait::WaitStrategy;
use disrust::limits::{BUDGET_BLOCKS_MIN, ConnectionLimits, PoolGeometry};
use disrust_protocol::RequestLayout;
use fastrand::Rng;

use super::model::Scorer;

/// A probability, out of 1024.
#[derive(Debug, Clone, Copy, Default)]
pub struct Chance(u16);

impl Chance {
    const NEVER: Chance = Chance(0);

    pub fn hits(self, rng: &mut Rng) -> bool {
        self.0 > 0 && rng.u16(..1024) < self.0
    }

    /// Never in half of all runs; else rare or frequent, up to `most`.
    fn draw(rng: &mut Rng, most: u16) -> Chance {
        if rng.bool() { Chance::NEVER } else { Chance(1 + rng.u16(..=most) / [1, 8][rng.usize(..2)]) }
    }
}

/// How often the kernel does what it may do, but rarely does.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// A receive takes less than is there.
    pub short_receive: Chance,
    /// A send takes less than there is room for.
    pub short_send: Chance,
    /// A multishot ends with a completion that brings something.
    pub shots_end: Chance,
    /// A receive ends for no reason (EINTR, EAGAIN).
    pub receive_ends: Chance,
    /// A send takes nothing (EINTR, EAGAIN).
    pub send_again: Chance,
    /// An accept fails for a reason other than descriptors.
    pub accept_fails: Chance,
    /// `enter` comes back at once (EINTR, EAGAIN, EBUSY), with a part of the submissions taken.
    pub enter_fails: Chance,
    /// An operation that could complete waits for another `enter`.
    pub later: Chance,
    /// An operation completes only after some time.
    pub late: Chance,
}

impl Faults {
    fn draw(rng: &mut Rng) -> Faults {
        Faults {
            short_receive: Chance::draw(rng, 800),
            short_send: Chance::draw(rng, 800),
            shots_end: Chance::draw(rng, 300),
            receive_ends: Chance::draw(rng, 200),
            send_again: Chance::draw(rng, 200),
            accept_fails: Chance::draw(rng, 100),
            enter_fails: Chance::draw(rng, 400),
            later: Chance::draw(rng, 700),
            late: Chance::draw(rng, 200),
        }
    }
}

/// When the server is told to stop while the clients are still at work.
#[derive(Debug, Clone, Copy)]
pub struct Stop {
    pub after_steps: u64,
    /// The drain is cut this many steps after its beginning.
    pub cut_after_steps: Option<u64>,
}

/// The most versions of a model in one run.
pub const VERSIONS_MAX: usize = 6;

/// The sum in half of all runs; else trees, in half of those with more outputs than there are features, so that answers are
/// longer than their requests.
fn draw_scorer(features: usize, rng: &mut Rng) -> Scorer {
    match rng.u8(..4) {
        0 | 1 => Scorer::Sum,
        2 => Scorer::Trees { outputs: 1 + rng.usize(..features.min(3)) },
        _ => Scorer::Trees { outputs: features + 1 + rng.usize(..5) },
    }
}

/// Everything that a seed decides before the run.
#[derive(Debug, Clone)]
pub struct Swarm {
    pub io_threads: usize,
    pub layout: RequestLayout,
    pub scorer: Scorer,
    /// Versions of the model that come one after the other, and how often the next one comes.
    pub versions: usize,
    pub reloads: Chance,
    pub geometry: PoolGeometry,
    pub limits: ConnectionLimits,
    /// Entries of each completion queue.
    pub completions: usize,
    /// Descriptors that all threads together can have open.
    pub descriptors_max: usize,
    pub connections_max: usize,
    /// Bytes that a socket holds, of those that come in and of those that go out.
    pub socket_in_bytes: usize,
    pub socket_out_bytes: usize,
    /// Bytes that a client's side takes, and whether it may acknowledge them late.
    pub client_window_bytes: usize,
    pub acknowledges_late: bool,
    /// What each thread's blocks may take, and whether that is little.
    pub budget_bytes: usize,
    pub scarce_memory: bool,
    pub timeouts: Timeouts,
    pub drain_timeout: Duration,
    pub wait: WaitStrategy,
    /// I/O threads help the batch processor with what is expected to take so long at most.
    pub help_ns_max: Option<u64>,
    /// Connections go to the thread with the fewest.
    pub spreads: bool,
    /// Whether there is a listener of each thread's, and whether there is one that they share; how often a client comes by that.
    pub has_port: bool,
    pub has_path: bool,
    pub by_path: Chance,
    pub clients: usize,
    pub requests_per_client_max: usize,
    /// Whether some requests have as many vectors as there can be.
    pub large_requests: bool,
    /// Requests that the model fails on, by an error and by a panic.
    pub model_errs: Chance,
    pub model_panics: Chance,
    /// How often a client says hello before a request, and what the server calls its model then.
    pub hellos: Chance,
    pub model_name: String,
    /// Clients that do not behave.
    pub rude_clients: Chance,
    pub faults: Faults,
    /// Whether the server takes times.
    pub stage_times: bool,
    /// How long requests may wait to be scored.
    pub max_queue_delay: Option<Duration>,
    /// How old connections may become, about.
    pub max_connection_age: Option<Duration>,
    /// The first part of the run ends when no client has done anything for so long.
    pub patience: Duration,
    /// The longest that a step takes, on the simulated clock.
    pub step_ns_max: u64,
    /// How often one of the actors does nothing for a while.
    pub freezes: Chance,
    /// At this step the whole server is stopped for so long that deadlines pass. Once, and not together with operations
    /// that are late for no reason, nor with a completion queue that is always full: then the server cannot know, or
    /// not in time, that it has not seen everything yet.
    pub stall_at: Option<u64>,
    pub stop: Option<Stop>,
}

impl Swarm {
    /// Whether I/O threads help, from a stream of its own, as above.
    pub fn draw_help(&mut self, rng: &mut Rng) {
        self.help_ns_max = rng.bool().then(|| [1, 20, 1000, 50_000][rng.usize(..4)]);
    }

    pub fn draw_spread(&mut self, rng: &mut Rng) {
        self.spreads = rng.bool();
    }

    /// What an operator may ask for, from another one.
    pub fn draw_operation(&mut self, rng: &mut Rng) {
        self.stage_times = rng.bool();
        let delay = Duration::from_micros([1, 100, 2_000, 50_000][rng.usize(..4)]);
        self.max_queue_delay = rng.bool().then_some(delay);
        let age = Duration::from_millis([1, 100, 1_000][rng.usize(..3)]);
        self.max_connection_age = (rng.u8(..4) == 0).then_some(age);
    }

    /// Where the server listens, likewise.
    pub fn draw_entrances(&mut self, rng: &mut Rng) {
        self.has_path = rng.u8(..3) == 0;
        self.has_port = !self.has_path || rng.u8(..3) > 0;
        self.by_path = match (self.has_port, self.has_path) {
            (true, true) => Chance(rng.u16(..=1024)),
            (_, has_path) => Chance(if has_path { 1024 } else { 0 }),
        };
    }

    /// Who says hello, likewise.
    pub fn draw_hellos(&mut self, rng: &mut Rng) {
        self.hellos = Chance::draw(rng, 900);
        self.model_name = "n".repeat([0, 3, 255][rng.usize(..3)]);
    }

    /// What is drawn from `models`, a stream of its own, came later; so that the seeds before it stay what they were.
    pub fn draw(rng: &mut Rng, models: &mut Rng) -> Swarm {
        let features = [1, 1, 2, 3, 16][rng.usize(..5)];
        let scorer = draw_scorer(features, models);
        let layout = RequestLayout::with_outputs(features, scorer.outputs());
        let reloads = Chance([2, 50][models.usize(..2)]);
        let versions = if models.bool() { 1 } else { models.usize(2..=VERSIONS_MAX) };
        let clients = 1 + rng.usize(..28);
        let faults = Faults::draw(rng);
        let is_punctual = [faults.later, faults.late, faults.enter_fails].iter().all(|chance| chance.0 == 0);
        let stop = (rng.u8(..4) == 0)
            .then(|| Stop { after_steps: rng.u64(..3000), cut_after_steps: rng.bool().then(|| rng.u64(..2000)) });
        // A drain takes a while, and clients are to be at work all the while. Then a client may also be overlooked for
        // long without any fault of its own.
        let step_ns_max = 1 << if stop.is_some() { rng.u32(12..21) } else { rng.u32(8..18) };
        let is_coarse = step_ns_max > 1 << 17;
        let completions = [2, 4, 16, 64, 1024][rng.usize(..5)];
        let large_requests = rng.u8(..4) == 0;
        let requests_per_client_max = [2, 20, 60, 100][rng.usize(..4)];
        // What is large or much takes its time anyway, and far too long in a few bytes at a time.
        let smallest = if large_requests || requests_per_client_max > 20 { 100 } else { 0 };
        let buffers = 1 << rng.u16(..6);
        // Turns that take milliseconds; or very few buffers, and large requests in pieces or hardly a completion a turn:
        // then deadlines pass because the server is slow.
        let is_slow = is_coarse || (buffers < 8 && (large_requests || completions < 16));
        let pick = |rng: &mut Rng, sizes: &[usize]| sizes[rng.usize(..sizes.len())].max(smallest);
        let scarce = |rng: &mut Rng| if rng.u8(..4) == 0 { 1 + rng.usize(..clients) } else { 1000 };
        let milliseconds = |rng: &mut Rng, choices: &[u64]| {
            let choice = choices[rng.usize(..choices.len())];
            (choice > 0).then_some(Duration::from_millis(choice))
        };
        let limits = ConnectionLimits {
            answer_bytes_owed_max: pick(rng, &[1, 100, 1000, 64 * 1024]),
            answer_bytes_owed_to_writer_max: pick(rng, &[1, 1000, 64 * 1024, 1 << 20]),
            answer_bytes_owed_under_pressure_max: pick(rng, &[1, 100, 1000]),
            request_bytes_in_flight_max: pick(rng, &[1, 500, 5000, 256 * 1024]),
            block_bytes_min: 1 << rng.u32(..8),
            send_block_bytes_max: pick(rng, &[1, 16, 100, 1000, 4096]),
            blocks_retained: rng.usize(..4),
        };
        let scarce_memory = rng.u8(..4) == 0;
        let largest = layout.request_bytes_max().max(layout.answer_bytes_max()).max(limits.send_block_bytes_max);
        let budget_bytes = if scarce_memory { BUDGET_BLOCKS_MIN * largest } else { 1 << 24 };
        let io_threads = 1 + rng.usize(..3);
        let receive_bytes = pick(rng, &[1, 7, 64, 300, 1024, 4096]).max(layout.request_bytes_min() / 2);
        let headroom_bytes = PoolGeometry::headroom_bytes_for(layout, receive_bytes);
        Swarm {
            io_threads,
            layout,
            scorer,
            versions,
            reloads,
            geometry: PoolGeometry { buffers, headroom_bytes, receive_bytes },
            limits,
            completions,
            descriptors_max: scarce(rng),
            connections_max: scarce(rng),
            socket_in_bytes: pick(rng, &[10, 200, 2000, 16 * 1024]),
            socket_out_bytes: pick(rng, &[3, 100, 1000, 16 * 1024]),
            client_window_bytes: pick(rng, &[3, 100, 1000, 16 * 1024]),
            acknowledges_late: rng.bool(),
            budget_bytes,
            scarce_memory,
            timeouts: Timeouts {
                request: milliseconds(rng, &[0, 400, 1000, 3000]).filter(|_| !is_slow),
                idle: if is_coarse { None } else { milliseconds(rng, &[0, 0, 0, 600, 2000]) },
            },
            drain_timeout: Duration::from_millis([0, 300, 2500, 10_000, 10_000][rng.usize(..5)]),
            wait: [WaitStrategy::Park, WaitStrategy::Park, WaitStrategy::SpinThenPark, WaitStrategy::Yield]
                [rng.usize(..4)],
            help_ns_max: None,
            spreads: false,
            has_port: true,
            has_path: false,
            by_path: Chance::NEVER,
            clients,
            requests_per_client_max,
            large_requests,
            model_errs: Chance::draw(rng, 100),
            model_panics: Chance(if rng.u8(..16) == 0 { 20 } else { 0 }),
            hellos: Chance::NEVER,
            model_name: String::new(),
            rude_clients: Chance::draw(rng, 700),
            faults,
            stage_times: false,
            max_queue_delay: None,
            max_connection_age: None,
            patience: Duration::from_millis([20, 1000, 7000][rng.usize(..3)]),
            step_ns_max,
            freezes: if is_coarse { Chance::NEVER } else { Chance::draw(rng, 10) },
            stall_at: (is_punctual && completions >= 64).then(|| rng.u64(..2000)),
            stop,
        }
    }
}
