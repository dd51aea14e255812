//! Rows H: the model file is read again while the server serves; and what reads it again in the middle of other rows.
//!
//! Models are told apart by their scores: each answer must be, bit by bit and as a whole, what one of them says, which
//! must not be older than the one before on its connection, nor than one that the log had announced when it was asked
//! for. A hello names one of them by its version, to which the same applies.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use disrust_model::engine::Compiled;
use disrust_model::{LoadOptions, load};
use disrust_protocol::{ErrorCode, FEATURE_DIM, HelloRequest};
use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};

use super::Listed;
use super::common::models::{TemporaryFile, compiled, cut, grown, renamed, scores};
use super::common::{
    Client, DeafCrowd, PATIENCE_FOR_END, Reply, Request, ServerProcess, random_requests, random_rows, seeded,
    wait_patiently_until,
};
use super::peer::Peer;
use super::site::{Gauges, Site, Stop, drained, last_line, require};

pub const ROWS: &[Listed] = &[
    (
        "H1",
        "good, bad, cut, wider and vanished files are read again under load, hellos in its pipelines; clients killed, reset and \
         deaf beside it",
        reloads_under_load,
    ),
    (
        "H2",
        "the server ends while its file is read again, hellos in the pipelines; clients killed and deaf beside it",
        ends_while_it_reloads,
    ),
];

/// Reads a server's file again, and holds the log to what it must say of that.
struct Reloader<'a> {
    server: &'a ServerProcess,
    file: &'a TemporaryFile,
    /// Of what serves, as the log has it.
    version: String,
    taken: usize,
    refused: usize,
}

impl<'a> Reloader<'a> {
    fn new(server: &'a ServerProcess, file: &'a TemporaryFile) -> Reloader<'a> {
        let log = server.stderr();
        let line = log.lines().find(|line| line.starts_with("file: ")).expect("the banner names the file");
        let version = line.rsplit(' ').next().expect("a version").to_owned();
        Reloader { server, file, version, taken: 0, refused: 0 }
    }

    /// Puts a model in the file's place, which has to serve.
    fn take(&mut self, model: &str) -> Result<(), Stop> {
        self.file.replace(model);
        let version = load(Path::new(self.file.path()), &LoadOptions::default()).expect("a model").facts.version_text();
        self.server.signal(Signal::SIGHUP);
        self.taken += 1;
        let said = format!("the model {} is replaced: version {} -> {version}, loaded in ", self.name(), self.version);
        self.expect("is replaced: ", self.taken, &said)?;
        self.version = version;
        Ok(())
    }

    /// Puts this in the file's place, or nothing, for which the one that serves has to go on.
    fn refuse(&mut self, content: Option<&str>, why: &str) -> Result<(), Stop> {
        match content {
            Some(content) => self.file.replace(content),
            None => std::fs::remove_file(self.file.path()).expect("it is ours"),
        }
        self.server.signal(Signal::SIGHUP);
        self.refused += 1;
        let said = format!("not taken, {} of version {} goes on serving: ", self.name(), self.version);
        self.expect("the new model is not taken", self.refused, &said)?;
        self.expect("the new model is not taken", self.refused, why)
    }

    /// The `count`th line of that kind comes, and says that.
    fn expect(&self, kind: &str, count: usize, said: &str) -> Result<(), Stop> {
        let begun_at = Instant::now();
        loop {
            let log = self.server.stderr();
            if let Some(line) = log.lines().filter(|line| line.contains(kind)).nth(count - 1) {
                return require(line.contains(said), format!("the log says {said:?}: {line}"));
            }
            // Where all CPUs are busy it takes its time.
            require(begun_at.elapsed() < PATIENCE_FOR_END, format!("{said:?} is not said: {}", last_line(&log)))?;
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn name(&self) -> String {
        Path::new(self.file.path()).file_stem().expect("a file").to_string_lossy().into_owned()
    }
}

/// What cannot be taken in the place of a model, and why.
fn untakable(features: usize, model: &str) -> [(Option<String>, String); 4] {
    [
        (Some("no model at all".to_owned()), "cannot serve the model file".to_owned()),
        (Some(grown(features + 1, 1)), format!("{} features, ", features + 1)),
        (Some(cut(model).to_owned()), "still being written".to_owned()),
        (None, "No such file".to_owned()),
    ]
}

/// Until it is told to stop, and once in any case, reads the file again: the same model as another version, then something
/// that is not taken, of each kind. How often it was taken, and not.
pub fn reload_all_along(
    server: &ServerProcess,
    file: &TemporaryFile,
    features: usize,
    stop: &AtomicBool,
) -> Result<(usize, usize), Stop> {
    let model = std::fs::read_to_string(file.path()).expect("it is served");
    let (mut reloader, untakable) = (Reloader::new(server, file), untakable(features, &model));
    loop {
        for (content, why) in &untakable {
            reloader.take(&renamed(&model, reloader.taken))?;
            reloader.refuse(content.as_deref(), why)?;
        }
        // Relaxed: it guards nothing.
        if stop.load(Ordering::Relaxed) {
            return Ok((reloader.taken, reloader.refused));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Tells threads to stop when it goes, however that comes about.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        // Relaxed, as where it is read: it guards nothing.
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Models that serve one after the other.
struct Succession {
    files: Vec<String>,
    /// The last one that the log has announced. Stored (Release) after that, and loaded (Acquire) before something is
    /// asked: no answer to that is older.
    in_force: AtomicUsize,
    /// The last one that was put in the file's place. Stored (Release) before that, and loaded (Acquire) after an
    /// answer has come: that is no newer.
    written: AtomicUsize,
}

impl Succession {
    fn new(count: usize) -> Succession {
        let files = (0..count).map(|number| grown(FEATURE_DIM, 100 + number as u64)).collect();
        Succession { files, in_force: AtomicUsize::new(0), written: AtomicUsize::new(0) }
    }

    /// By which hellos name them.
    fn versions(&self) -> Vec<u64> {
        let version = |file: &String| u64::from_be_bytes(*Sha256::digest(file).first_chunk().expect("32 bytes"));
        self.files.iter().map(version).collect()
    }

    fn engines(&self) -> Vec<Compiled> {
        self.files.iter().map(|file| compiled(file)).collect()
    }
}

/// Whoever asks, and holds each answer to the models.
struct Witness<'a> {
    succession: &'a Succession,
    engines: Vec<Compiled>,
    versions: Vec<u64>,
    rng: fastrand::Rng,
    answers: usize,
    refusals: usize,
    hellos: usize,
    hellos_refused: usize,
    /// Of all that it got, the newest.
    newest: usize,
}

impl<'a> Witness<'a> {
    fn new(succession: &'a Succession) -> Witness<'a> {
        let (engines, versions, rng) = (succession.engines(), succession.versions(), seeded());
        let (answers, refusals, hellos, hellos_refused) = (0, 0, 0, 0);
        Witness { succession, engines, versions, rng, answers, refusals, hellos, hellos_refused, newest: 0 }
    }

    /// Sends some requests at once, and hellos between them. Each is answered by one of the models as a whole, or refused after all that are
    /// answered. `false` if the server had ended the connection before it took any: a drain does with one that is quiet
    /// for a while, as we may be on a busy machine.
    fn exchange(&mut self, client: &mut Client) -> bool {
        let mut oldest = self.succession.in_force.load(Ordering::Acquire);
        // A hello has no rows.
        let rows: Vec<Vec<f32>> = (0..20)
            .map(|_| {
                let vectors = [0, 1, 7, 64, self.rng.usize(1..=64)][self.rng.usize(..5)];
                random_rows(&mut self.rng, FEATURE_DIM, vectors)
            })
            .collect();
        let hello = HelloRequest { feature_dim: FEATURE_DIM as u32 }.to_bytes();
        let bytes = |rows: &Vec<f32>| match &rows[..] {
            [] => hello.to_vec(),
            rows => Request::scored(FEATURE_DIM, rows, Vec::new()).bytes,
        };
        client.send(&rows.iter().flat_map(bytes).collect::<Vec<_>>());
        for (index, rows) in rows.iter().enumerate() {
            if rows.is_empty() {
                let Some(told) = client.receive_hello() else {
                    assert_eq!(index, 0, "every hello is answered or refused");
                    return false;
                };
                let Ok(told) = told else {
                    assert_eq!(told, Err(ErrorCode::Closing));
                    self.hellos_refused += 1;
                    continue;
                };
                let newest = self.succession.written.load(Ordering::Acquire);
                let named = self.versions.iter().position(|version| *version == told.model_version);
                oldest = named.filter(|named| (oldest..=newest).contains(named)).unwrap_or_else(|| {
                    panic!("a hello names {named:?}, which is none of the models {oldest} to {newest}")
                });
                self.newest = self.newest.max(oldest);
                self.hellos += 1;
                assert_eq!(self.refusals + self.hellos_refused, 0, "no answer after a refusal");
                continue;
            }
            let Some(reply) = client.receive() else {
                assert_eq!(index, 0, "every request is answered or refused");
                return false;
            };
            if reply == Reply::Error(ErrorCode::Closing) {
                self.refusals += 1;
                continue;
            }
            let newest = self.succession.written.load(Ordering::Acquire);
            let mut models = oldest..=newest;
            let found = models.find(|model| reply == Reply::Scores(scores(&mut self.engines[*model], rows)));
            oldest = found.unwrap_or_else(|| panic!("an answer of none of the models {oldest} to {newest}"));
            self.newest = self.newest.max(oldest);
            self.answers += 1;
            assert_eq!(self.refusals + self.hellos_refused, 0, "no answer after a refusal");
        }
        true
    }
}

fn reloads_under_load(site: &mut Site) -> Result<(), Stop> {
    let succession = Succession::new(site.size(60, 9));
    let file = TemporaryFile::new("reloaded.txt", &succession.files[0]);
    let server = ServerProcess::start(&["--model", file.path(), "--io-threads", "2", "--request-timeout", "2s"]);
    let (before, stop) = (Gauges::of(&server), AtomicBool::new(false));
    let mut reloader = Reloader::new(&server, &file);
    let (answers, hellos) = std::thread::scope(|scope| -> Result<(usize, usize), Stop> {
        let stopping = StopOnDrop(&stop);
        let (stop, succession, address) = (&stop, &succession, server.address());
        let witnesses: Vec<_> =
            (0..4).map(|_| scope.spawn(move || witness_all_along(address, succession, stop))).collect();
        let mischief = scope.spawn(move || make_mischief(address, stop));
        for (number, model) in succession.files.iter().enumerate().skip(1) {
            for (content, why) in &untakable(FEATURE_DIM, model) {
                reloader.refuse(content.as_deref(), why)?;
            }
            succession.written.store(number, Ordering::Release);
            reloader.take(model)?;
            succession.in_force.store(number, Ordering::Release);
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(stopping);
        mischief.join().expect("it only makes mischief");
        let counts =
            witnesses.into_iter().map(|witness| witness.join().expect("every answer is of one model in force"));
        Ok(counts.fold((0, 0), |sum, (answers, hellos)| (sum.0 + answers, sum.1 + hellos)))
    })?;
    let (taken, refused) = (reloader.taken, reloader.refused);
    site.measured(format!(
        "{taken} models taken and {refused} files not, under {answers} answers, each of one model, and {hellos} hellos"
    ));
    require(answers > 20 * taken && hellos > taken, format!("there was a load: {answers} answers, {hellos} hellos"))?;
    wait_patiently_until(PATIENCE_FOR_END, "all that has left is closed", || {
        Gauges::of(&server).descriptors <= before.descriptors
    });
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait();
    require(status == Some(0), format!("status {status:?}: {}", last_line(&log)))?;
    require(drained(&log)?.answered >= answers, format!("its books have them all: {}", last_line(&log)))
}

/// How many answers it got, and how many to hellos. Half of the time its connection is a new one.
fn witness_all_along(address: SocketAddr, succession: &Succession, stop: &AtomicBool) -> (usize, usize) {
    let (mut witness, mut client) = (Witness::new(succession), Client::connect(address));
    while !stop.load(Ordering::Relaxed) {
        assert!(witness.exchange(&mut client) && witness.refusals + witness.hellos_refused == 0, "it serves");
        if witness.rng.bool() {
            client = Client::connect(address);
        }
    }
    (witness.answers, witness.hellos)
}

/// Clients that are killed, that break off, and that read nothing until they are closed on, over and over.
fn make_mischief(address: SocketAddr, stop: &AtomicBool) {
    let mut rng = seeded();
    let request = Request::random(&mut rng, FEATURE_DIM, 64);
    while !stop.load(Ordering::Relaxed) {
        let mut deaf = DeafCrowd::connect(address, 20, &request);
        let begun_at = Instant::now();
        while begun_at.elapsed() < Duration::from_secs(4) && !stop.load(Ordering::Relaxed) {
            let killed = Peer::start(address, &["flood"]);
            std::thread::sleep(Duration::from_millis(50));
            drop(killed);
            deaf.send();
            for _ in 0..5 {
                let client = Client::connect(address);
                client.send_all(&random_requests(&mut rng, 50, 1..=16));
                client.reset();
            }
        }
    }
}

fn ends_while_it_reloads(site: &mut Site) -> Result<(), Stop> {
    let (mut answers, mut refusals, mut of_the_new_one, mut cut_off) = (0, 0, 0, 0);
    let rounds = site.size(24, 4);
    for round in 0..rounds {
        let succession = Succession::new(2);
        let file = TemporaryFile::new("ending.txt", &succession.files[0]);
        let server = ServerProcess::start(&["--model", file.path(), "--io-threads", "2", "--drain-timeout", "2s"]);
        let witnesses = std::thread::scope(|scope| {
            let witnesses: Vec<_> = (0..8)
                .map(|_| {
                    let (succession, client) = (&succession, server.connect());
                    scope.spawn(move || witness_to_the_end(client, succession))
                })
                .collect();
            let killed = Peer::start(server.address(), &["flood"]);
            // Each second time, so that the others end when everybody has been answered.
            let request = Request::random(&mut site.rng, FEATURE_DIM, 64);
            let mut deaf = DeafCrowd::connect(server.address(), 5 * (round % 2), &request);
            for _ in 0..20 {
                deaf.send();
                std::thread::sleep(Duration::from_millis(10));
            }
            succession.written.store(1, Ordering::Release);
            let change = |after: Duration| {
                // Each fourth time, what is there is not taken.
                file.replace(if round % 4 == 3 { cut(&succession.files[1]) } else { &succession.files[1] });
                server.signal(Signal::SIGHUP);
                std::thread::sleep(after);
            };
            // Before the end, at once or a little, or within it.
            match round % 3 {
                0 => change(Duration::ZERO),
                1 => change(Duration::from_millis(site.rng.u64(1..30))),
                _ => {}
            }
            server.signal(Signal::SIGTERM);
            if round % 3 == 2 {
                change(Duration::ZERO);
            }
            drop(killed);
            let witnesses: Vec<_> =
                witnesses.into_iter().map(|witness| witness.join().expect("nothing is lost")).collect();
            (witnesses, deaf)
        });
        let ((witnesses, deaf), (status, log)) = (witnesses, server.wait());
        drop(deaf);
        let report = drained(&log)?;
        let got: usize = witnesses.iter().map(|witness| witness.answers).sum();
        let refused: usize = witnesses.iter().map(|witness| witness.refusals).sum();
        let said = format!("round {round}: {}", last_line(&log));
        require(status == Some(0), format!("status {status:?}: {said}"))?;
        require(
            report.answered >= got && report.refused >= refused,
            format!("{got} answers, {refused} refusals: {said}"),
        )?;
        require(report.cut <= 5 * (round % 2), format!("who reads is not cut: {said}"))?;
        of_the_new_one += usize::from(witnesses.iter().any(|witness| witness.newest == 1));
        (answers, refusals, cut_off) = (answers + got, refusals + refused, cut_off + report.cut);
    }
    site.measured(format!(
        "{rounds} ends, {of_the_new_one} of them with answers of the new model: {answers} answers, each of one model, \
         and {refusals} error 4; {cut_off} deaf peers cut, and nobody else"
    ));
    Ok(())
}

/// Asks until it is refused, or its connection has ended.
fn witness_to_the_end(mut client: Client, succession: &Succession) -> Witness<'_> {
    let mut witness = Witness::new(succession);
    while witness.exchange(&mut client) {
        if witness.refusals > 0 {
            client.expect_end();
            break;
        }
    }
    witness
}
