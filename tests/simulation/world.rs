//! One run: the I/O threads, the batch processor and the clients of a seed, stepped one at a time in any order.
//!
//! How each actor is stepped is its own business ([`super::actors`], [`super::client`]); when nobody can be, whoever
//! sleeps must be right to, and the clock moves on.
//!
//! A run has three parts: faults as the swarm drew them; then none, until all clients are served and gone and the
//! server holds nothing; then a drain, after which nothing may be left at all. [`super::checker`] says what holds.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use disruptor::{BusySpin, build_multi_producer};
use disrust::batch::{BatchProcessor, BatchRole, IoThreadPort};
use disrust::connections::{HelloAnswers, Rules};
use disrust::exchange::buffer_pool::BufferPool;
use disrust::exchange::control::Control;
use disrust::exchange::event::InferenceEvent;
use disrust::exchange::response_queue::response_queue;
use disrust::exchange::spread::Share;
use disrust::exchange::wait::Waiter;
use disrust::exchange::wake::Wake;
use disrust::io_thread::{BatchAccess, IoThread, IoThreadParts};
use disrust::limits::{DRAIN_LAST_CALL, request_ring_slots};
use disrust::metrics::{BatchMetrics, IoMetrics};
use fastrand::Rng;

use super::actors::{BatchActor, IoActor, Stepped};
use super::checker::{Checker, REACHED};
use super::client::{Client, Excuses};
use super::kernel::SimulatedKernel;
use super::loader::Loader;
use super::network::Network;
use super::ring::{Bell, Ring};
use super::swarm::{Faults, Swarm};
use super::trace::{self, note};

/// What tells a seed's choices of models from its others. With this one, the seeds of old regressions have the sum and no
/// reload, as they had.
const MODELS_STREAM: u64 = 6;

/// The same for whether I/O threads help the batch processor.
const HELP_STREAM: u64 = 7;

/// The same for whether connections go to the thread with the fewest.
const SPREAD_STREAM: u64 = 8;
/// The same for what an operator may ask for.
const OPERATION_STREAM: u64 = 9;
/// Where the server listens, and by which way each client comes, likewise.
const ENTRANCES_STREAM: u64 = 10;
/// Who says hello, and where, likewise.
const HELLO_STREAM: u64 = 11;

/// Steps of the first part, after which faults stop whatever is still to do.
const FAULTY_STEPS_MAX: u64 = 20_000;

/// Steps of each other part; more are a hang.
const CALM_STEPS_MAX: u64 = 400_000;

/// Simulated time of each other part, for as many clients as there are descriptors; more is a hang.
const CALM_TIME_MAX: Duration = Duration::from_secs(120);

/// The longest that a step takes while the server is stopped.
const STALL_STEP_NS_MAX: u64 = 50_000_000;

/// The longest that the clock jumps while a thread is awake: what it does next may be more than nothing.
const IDLE_NS_MAX: u64 = 10_000_000;

/// Steps without any work, for each thread, after which only time can bring some.
const IDLE_STEPS: usize = 4;

/// What a run did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    pub steps: u64,
    pub requests: u64,
    pub simulated_ns: u64,
    /// As `REACHED` names them.
    pub reached: [u64; REACHED.len()],
}

/// A run.
pub struct World {
    swarm: Swarm,
    rng: Rng,
    network: Rc<RefCell<Network>>,
    io: Vec<IoActor>,
    io_wakes: Vec<Arc<Wake>>,
    batch: BatchActor,
    loader: Loader,
    /// What the loader draws from.
    models: Rng,
    clients: Vec<Client>,
    /// The clients that are not done.
    present: Vec<usize>,
    control: Arc<Control>,
    checker: Checker,
    /// Where clients read to.
    place: Vec<u8>,
    steps: u64,
    idle_steps: usize,
    /// When a client last did anything.
    client_acted_at_ns: u64,
    drain_at_ns: Option<u64>,
    /// The actor that does nothing, until this step.
    frozen: Option<(usize, u64)>,
    /// The server is stopped until this step; clients go on.
    stalled_until: u64,
}

/// Plays the run of a seed.
///
/// # Panics
/// If anything is not as it must be.
pub fn run(seed: u64) -> Summary {
    let mut rng = Rng::with_seed(seed);
    let mut models = Rng::with_seed(seed ^ MODELS_STREAM);
    let mut swarm = Swarm::draw(&mut rng, &mut models);
    swarm.draw_help(&mut Rng::with_seed(seed ^ HELP_STREAM));
    swarm.draw_spread(&mut Rng::with_seed(seed ^ SPREAD_STREAM));
    swarm.draw_operation(&mut Rng::with_seed(seed ^ OPERATION_STREAM));
    let mut entrances = Rng::with_seed(seed ^ ENTRANCES_STREAM);
    swarm.draw_entrances(&mut entrances);
    let mut hellos = Rng::with_seed(seed ^ HELLO_STREAM);
    swarm.draw_hellos(&mut hellos);
    trace::set_clock(0);
    note(|| format!("seed {seed}: {swarm:#?}"));
    let mut world = World::new(swarm, rng, models, entrances, hellos);
    world.play_with_faults();
    world.play_in_calm();
    world.play_the_end();
    let simulated_ns = world.network.borrow().now_ns;
    let layout = world.swarm.layout;
    let longer = layout.outputs() > layout.feature_dim();
    let reached = world.checker.reached(longer, world.io.iter().map(|actor| actor.ring.borrow().reached));
    Summary { steps: world.steps, requests: world.checker.requests(), simulated_ns, reached }
}

impl World {
    fn new(swarm: Swarm, mut rng: Rng, models: Rng, mut entrances: Rng, mut hellos: Rng) -> World {
        let mut network = Network::new(
            rng.fork(),
            swarm.io_threads,
            swarm.descriptors_max,
            swarm.socket_in_bytes,
            swarm.socket_out_bytes,
            swarm.client_window_bytes,
        );
        network.acknowledges_late = swarm.acknowledges_late;
        let path = swarm.has_path.then(|| network.listen_at_path());
        if !swarm.has_port {
            (0..swarm.io_threads).for_each(|listener| network.close_listener(listener));
        }
        let network = Rc::new(RefCell::new(network));
        let control = Arc::new(Control::new(swarm.connections_max));
        let token = Bell::default();
        let batch_wake = Arc::new(Wake::new(token.clone()));
        let slots = request_ring_slots(swarm.io_threads, swarm.geometry.buffers);
        let builder = build_multi_producer(slots, InferenceEvent::default, BusySpin);
        let (consumer, builder) = builder.new_event_poller();
        let producer = builder.build();
        let (mut ports, mut ends, mut io_metrics) = (Vec::new(), Vec::new(), Vec::new());
        let bells: Vec<_> = (0..swarm.io_threads).map(|_| Bell::default()).collect();
        let io_wakes: Vec<_> = bells.iter().map(|bell| Arc::new(Wake::new(bell.clone()))).collect();
        let shares = if swarm.spreads {
            Share::of_all(io_wakes.iter().cloned())
        } else {
            io_wakes.iter().flat_map(|wake| Share::of_all([Arc::clone(wake)])).collect()
        };
        for (index, (bell, share)) in bells.into_iter().zip(shares).enumerate() {
            let pool = Arc::new(BufferPool::new(swarm.geometry));
            let (responses_in, responses) = response_queue(usize::from(swarm.geometry.buffers));
            let wake = Arc::clone(&io_wakes[index]);
            let metrics = Arc::new(IoMetrics::new(swarm.stage_times));
            ports.push(IoThreadPort { pool: Arc::clone(&pool), responses: responses_in, wake: Arc::clone(&wake) });
            let (network, rng) = (Rc::clone(&network), rng.fork());
            let ring = Ring::new(index, network, rng, swarm.faults, Arc::clone(&pool), bell, swarm.completions);
            let ring = Rc::new(RefCell::new(ring));
            io_metrics.push(metrics);
            ends.push((pool, responses, wake, share, ring));
        }
        let batch_metrics = Arc::new(BatchMetrics::new(swarm.stage_times));
        let model = Box::new(swarm.scorer.model(swarm.layout.feature_dim(), 0));
        let processor = BatchProcessor::new(consumer, ports, model, Arc::clone(&batch_metrics))
            .with_queue_delay_max(swarm.max_queue_delay);
        let hello = HelloAnswers::new(swarm.layout, &swarm.model_name, Arc::clone(processor.model_version()));
        let rules = Rules { layout: swarm.layout, limits: swarm.limits, timeouts: swarm.timeouts, hello };
        let mut io_parts = Vec::new();
        for (index, (pool, responses, wake, share, ring)) in ends.into_iter().enumerate() {
            let parts = IoThreadParts {
                index: index as u16,
                io_threads: swarm.io_threads,
                pool,
                producer: producer.clone(),
                responses,
                wake,
                batch: BatchAccess::Wake(Arc::clone(&batch_wake)),
                share,
                control: Arc::clone(&control),
                metrics: Arc::clone(&io_metrics[index]),
                rules: rules.clone(),
                drain_timeout: swarm.drain_timeout,
                connections_max: swarm.clients,
                times_backlogs: swarm.max_queue_delay.is_some() || swarm.stage_times,
                connection_age_max: swarm.max_connection_age,
                seed: index as u64,
                budget_bytes: swarm.budget_bytes,
            };
            io_parts.push((parts, ring));
        }
        drop(producer);
        let loader = Loader::new(Arc::clone(processor.model_place()), &swarm);
        let waiter = Waiter::new(swarm.wait);
        let batch = match swarm.help_ns_max {
            None => BatchActor::new(processor, batch_wake, token, waiter),
            Some(help_ns_max) => {
                let role = BatchRole::new(processor, Arc::clone(&batch_wake)).with_help_max(help_ns_max);
                let role = Arc::new(role);
                io_parts.iter_mut().for_each(|(parts, _)| parts.batch = BatchAccess::Role(Arc::clone(&role)));
                BatchActor::sharing(role, batch_wake, token, waiter)
            }
        };
        let io = io_parts.into_iter().map(|(parts, ring)| {
            let thread = IoThread::new(SimulatedKernel(Rc::clone(&ring)), parts);
            IoActor::new(thread, ring, Waiter::new(swarm.wait))
        });
        let io = io.collect();
        let draw = |number| Client::draw(number, &swarm, &mut rng, &mut hellos);
        let mut clients: Vec<_> = (0..swarm.clients).map(draw).collect();
        for client in &mut clients {
            if let Some(path) = path
                && swarm.by_path.hits(&mut entrances)
            {
                client.come_by_path(path, &swarm);
            }
        }
        let checker = Checker::new(io_metrics, batch_metrics);
        World {
            swarm,
            rng,
            network,
            io,
            io_wakes,
            batch,
            loader,
            models,
            present: (0..clients.len()).collect(),
            clients,
            control,
            checker,
            place: vec![0; 4096],
            steps: 0,
            idle_steps: 0,
            client_acted_at_ns: 0,
            drain_at_ns: None,
            frozen: None,
            stalled_until: 0,
        }
    }

    // ---- The three parts.

    fn play_with_faults(&mut self) {
        let patience_ns = self.swarm.patience.as_nanos() as u64;
        while self.steps < FAULTY_STEPS_MAX && !self.present.is_empty() {
            if self.network.borrow().now_ns > self.client_acted_at_ns + patience_ns {
                break;
            }
            if let Some(stop) = self.swarm.stop {
                if self.drain_at_ns.is_none() && self.steps >= stop.after_steps {
                    self.drain();
                }
                if stop.cut_after_steps.is_some_and(|more| self.steps >= stop.after_steps + more) {
                    self.cut();
                }
            }
            if self.frozen.is_none() && self.swarm.freezes.hits(&mut self.rng) {
                let actors = self.io.len() + 1 + self.present.len();
                self.frozen = Some((self.rng.usize(..actors), self.steps + self.rng.u64(..300)));
            }
            if self.swarm.stall_at == Some(self.steps) {
                note(|| "the server is stopped for a while".to_owned());
                self.stalled_until = self.steps + self.rng.u64(..100);
            }
            self.step();
        }
    }

    fn play_in_calm(&mut self) {
        note(|| "faults stop".to_owned());
        (self.frozen, self.stalled_until) = (None, 0);
        self.io.iter().for_each(|actor| actor.ring.borrow_mut().set_faults(Faults::default()));
        let timeouts = self.swarm.timeouts;
        self.clients.iter_mut().for_each(|client| client.hurry(timeouts));
        self.play_until("all clients are served and gone", |world| {
            world.present.is_empty() && world.control.open_connections() == 0
        });
        self.play_until("nothing is held at rest", |world| world.held().is_empty());
        self.checker.check_clients(&self.clients);
        self.checker.check_at_rest();
        let network = self.network.borrow();
        assert!(network.descriptors_open() == 0, "every descriptor is closed");
        let listeners = self.swarm.io_threads * (usize::from(self.swarm.has_port) + usize::from(self.swarm.has_path));
        Checker::check_accept_failures(listeners, &network.accept_failures_ns, &network.closes_ns);
    }

    fn play_the_end(&mut self) {
        if self.drain_at_ns.is_none() {
            self.drain();
        }
        self.play_until("all threads end", |world| world.io.iter().all(IoActor::has_ended) && world.batch.has_ended());
        assert!(self.held().is_empty(), "{}", self.held());
        let network = self.network.borrow();
        let listening = (0..network.listeners()).any(|listener| network.is_listening(listener));
        assert!(!listening, "every listener is closed");
        self.loader.check_end(&self.batch.wake);
        self.checker.check_at_rest();
    }

    fn play_until(&mut self, what: &str, holds: impl Fn(&World) -> bool) {
        let (steps, now_ns) = (self.steps, self.network.borrow().now_ns);
        // Where descriptors are few, one client after the other waits for that of a peer that has vanished.
        let in_turn = self.clients.len().div_ceil(self.swarm.descriptors_max) as u32;
        let time_max = CALM_TIME_MAX * in_turn.max(1);
        while !holds(self) {
            self.step();
            let passed_ns = self.network.borrow().now_ns - now_ns;
            let hangs = self.steps - steps > CALM_STEPS_MAX || u128::from(passed_ns) > time_max.as_nanos();
            assert!(!hangs, "in vain: {what}; {}", self.state());
        }
    }

    /// What the server holds, in words; empty at rest.
    fn held(&self) -> String {
        self.io.iter().map(|actor| actor.ring.borrow().held()).collect()
    }

    fn state(&self) -> String {
        let clients: Vec<_> = self.present.iter().map(|number| &self.clients[*number]).collect();
        format!("{} connections, {} {clients:?}", self.control.open_connections(), self.held())
    }

    fn drain(&mut self) {
        note(|| "the server drains".to_owned());
        self.drain_at_ns = Some(self.network.borrow().now_ns);
        self.control.request_drain();
        self.io_wakes.iter().for_each(|wake| wake.wake_always());
    }

    fn cut(&mut self) {
        if !self.control.cut_requested() {
            note(|| "the drain is cut".to_owned());
            self.control.request_cut();
            self.io_wakes.iter().for_each(|wake| wake.wake_always());
        }
    }

    fn excuses(&self, now_ns: u64) -> Excuses {
        let drained = |after: Duration| {
            self.drain_at_ns.is_some_and(|began_ns| u128::from(now_ns - began_ns) >= after.as_nanos())
        };
        let timeouts = [self.swarm.timeouts.request, self.swarm.timeouts.idle];
        let patience = timeouts.into_iter().flatten().min();
        Excuses {
            draining: self.drain_at_ns.is_some(),
            refusing: drained(DRAIN_LAST_CALL),
            cut: self.control.cut_requested() || drained(self.swarm.drain_timeout),
            scarce_descriptors: self.swarm.descriptors_max < self.swarm.clients,
            rejecting: self.swarm.connections_max < self.swarm.clients,
            scarce_memory: self.swarm.scarce_memory,
            longest_wait_ns: self.clients.iter().map(|client| client.longest_wait_ns).max().unwrap_or(0),
            shed_after_ns: self.swarm.max_queue_delay.map(|delay| delay.as_nanos() as u64),
            patience_ns: patience.map_or(u64::MAX, |patience| patience.as_nanos() as u64),
        }
    }

    // ---- One step.

    /// Lets one actor do something; if none can, time passes.
    fn step(&mut self) {
        self.steps += 1;
        let is_stalled = self.steps < self.stalled_until;
        if self.steps == self.stalled_until {
            let network = self.network.borrow();
            let clients = self.clients.iter_mut().filter(|client| client.can_step(&network));
            clients.for_each(Client::has_missed_its_time);
        }
        if self.frozen.is_some_and(|(_, until)| until <= self.steps) {
            self.frozen = None;
        }
        self.loader.step(&self.swarm, &self.batch.wake, &mut self.models);
        match self.step_anyone(is_stalled) {
            Stepped::Worked => {
                self.idle_steps = 0;
                self.checker.check_conservation();
            }
            Stepped::Idle if self.idle_steps < IDLE_STEPS * (self.io.len() + 1) => self.idle_steps += 1,
            Stepped::Blocked if is_stalled => {}
            // Whoever is frozen would be late through no fault of its own.
            Stepped::Idle | Stepped::Blocked if self.frozen.is_some() => self.frozen = None,
            Stepped::Idle => self.pass_time(IDLE_NS_MAX),
            Stepped::Blocked => {
                self.check_sleepers();
                self.pass_time(u64::MAX);
            }
        }
    }

    /// Steps the first actor that can be stepped, from any one on. The threads come first, then the clients.
    fn step_anyone(&mut self, is_stalled: bool) -> Stepped {
        let step_ns_max = if is_stalled { STALL_STEP_NS_MAX } else { self.swarm.step_ns_max };
        let now_ns = self.network.borrow().now_ns + self.rng.u64(..step_ns_max);
        self.network.borrow_mut().now_ns = now_ns;
        trace::set_clock(now_ns);
        let io_threads = self.io.len();
        let actors = io_threads + 1 + self.present.len();
        // Half of the time a thread, half of the time anyone.
        let first = if self.rng.bool() { self.rng.usize(..=io_threads) } else { self.rng.usize(..actors) };
        for index in (first..actors).chain(0..first) {
            if self.frozen.is_some_and(|(frozen, _)| frozen == index) || (is_stalled && index <= io_threads) {
                continue;
            }
            let stepped = match index.checked_sub(io_threads) {
                None => self.io[index].step(&self.batch.wake, &mut self.rng),
                Some(0) => self.batch.step(now_ns, &mut self.rng),
                Some(client) => self.step_client(client - 1, now_ns),
            };
            if stepped != Stepped::Blocked {
                return stepped;
            }
        }
        Stepped::Blocked
    }

    fn step_client(&mut self, place: usize, now_ns: u64) -> Stepped {
        let client = &self.clients[self.present[place]];
        if !client.can_step(&self.network.borrow()) {
            return Stepped::Blocked;
        }
        self.client_acted_at_ns = now_ns;
        let excuses = self.excuses(now_ns);
        let version = self.checker.models_taken() as usize;
        let client = &mut self.clients[self.present[place]];
        client.version_in_force = version;
        client.step(&mut self.network.borrow_mut(), excuses, &mut self.rng, &mut self.place);
        if client.is_done() {
            self.present.swap_remove(place);
        }
        Stepped::Worked
    }

    /// Nobody can be stepped: whoever sleeps must be right to.
    fn check_sleepers(&self) {
        let alarm_is_under_way = self.io.iter().any(|actor| actor.ring.borrow().alarm_is_under_way());
        if !alarm_is_under_way {
            self.checker.check_nothing_in_flight(self.control.open_connections());
            if !self.batch.has_ended() {
                self.loader.check_sleeper(self.checker.models_taken());
            }
        }
    }

    /// The clock goes to the next thing that is due, but not by more than `most_ns`.
    fn pass_time(&mut self, most_ns: u64) {
        self.idle_steps = 0;
        let rings_ns = self.io.iter().filter_map(|actor| actor.ring.borrow().next_due_ns()).min();
        let mut network = self.network.borrow_mut();
        let now_ns = network.now_ns;
        let clients = self.present.iter().map(|number| &self.clients[*number]);
        let clients_ns = clients.map(|client| client.wakes_at_ns).filter(|wakes_at_ns| *wakes_at_ns > now_ns).min();
        if let Some(next_ns) = rings_ns.into_iter().chain(clients_ns).min() {
            network.now_ns = next_ns.min(now_ns.saturating_add(most_ns)) + self.rng.u64(..self.swarm.step_ns_max);
        }
    }
}
