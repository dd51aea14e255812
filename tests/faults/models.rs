//! Rows E: models that fail, hang, and share a CPU; and the servers that serve them, in processes of their own.

use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use disrust::config::placement::Pin;
use disrust::config::{Config, LogFormat};
use disrust::limits::{LIVE_STALL_MAX, MODEL_STALL_MAX, READY_STEP_MAX};
use disrust::server::Server;
use disrust::server::logging::Logging;
use disrust_model::{Model, PredictError, Rows, Sum};
use disrust_protocol::{ErrorCode, FEATURE_DIM};
use nix::sys::signal::Signal;
use signal_hook::consts::SIGTERM;
use signal_hook::iterator::Signals;

use super::Listed;
use super::common::{Reply, ServerProcess, admin, random_requests, wait_patiently_until};
use super::peer::Peer;
use super::site::{Site, Stop, last_line, needs_program, require, through};

pub const ROWS: &[Listed] = &[
    ("E1", "the model panics or errs on one request", failing),
    ("E2", "the model hangs", hanging),
    ("E3", "the model returns a wrong length", wrong_length),
    ("E4", "everything on one CPU", one_cpu),
];

/// How a model misbehaves. Rows that it is meant for begin with a NaN.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Errs,
    Panics,
    Hangs,
    Slow,
}

struct Misbehaving {
    sum: Sum,
    manner: Manner,
}

impl Model for Misbehaving {
    fn name(&self) -> &str {
        "misbehaving sum"
    }

    fn feature_dim(&self) -> usize {
        self.sum.feature_dim()
    }

    fn predict(&mut self, rows: &Rows<'_>, scores: &mut [f32]) -> Result<(), PredictError> {
        let mut matrix = vec![0.0; rows.count() * FEATURE_DIM];
        rows.gather(&mut matrix);
        if matches!(self.manner, Manner::Slow) {
            std::thread::sleep(Duration::from_millis(20));
        } else if matrix.chunks(FEATURE_DIM).any(|row| row[0].is_nan()) {
            match self.manner {
                Manner::Errs | Manner::Slow => return Err(PredictError("a row begins with NaN".to_owned())),
                Manner::Panics => panic!("a row begins with NaN"),
                Manner::Hangs => std::thread::sleep(Duration::from_secs(3600)),
            }
        }
        self.sum.predict(rows, scores)
    }
}

/// The driver as a server: `serve errs|panics|hangs|slow`.
pub fn serve(kind: &str) -> ExitCode {
    let manner = match kind {
        "errs" => Manner::Errs,
        "panics" => Manner::Panics,
        "hangs" => Manner::Hangs,
        "slow" => Manner::Slow,
        _ => return ExitCode::from(2),
    };
    let logging = Logging::start(LogFormat::Text).expect("this machine has threads");
    let admin = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let config = Config { port: Some(0), pin: Pin::None, admin, stage_times: true, ..Config::default() };
    let model = Misbehaving { sum: Sum::new(FEATURE_DIM), manner };
    let mut signals = Signals::new([SIGTERM]).expect("a signal may be handled");
    let server = Server::start(&config, Box::new(model)).expect("it starts");
    logging.print(server.banner());
    let handle = server.handle();
    std::thread::spawn(move || signals.forever().for_each(|_| handle.drain()));
    let (status, words) = match server.wait() {
        Ok(report) => (0, format!("drained: {report}\n")),
        Err(error) => (70, format!("{error}\n")),
    };
    logging.print(&words);
    logging.flush(super::common::PATIENCE);
    ExitCode::from(status)
}

/// A server of such a model.
pub fn server_with_model(kind: &str) -> ServerProcess {
    let driver = std::env::current_exe().expect("the driver is a file");
    ServerProcess::launch(Command::new(driver).args(["serve", kind]).stdin(Stdio::null()))
}

fn failing(site: &mut Site) -> Result<(), Stop> {
    for kind in ["errs", "panics"] {
        let server = server_with_model(kind);
        site.beside_server(server, |site, server| {
            for _ in 0..site.size(200, 20) {
                let mut requests = random_requests(&mut site.rng, 20, 1..=8);
                for request in requests.iter_mut().step_by(5) {
                    request.bytes[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
                    request.reply = Reply::Error(ErrorCode::ModelFailed);
                }
                server.connect().exchange(&requests);
            }
            let lines = server.stderr().lines().count();
            site.measured(format!("{kind}: {lines} lines logged"));
            require(lines < 100, "the log is bounded")
        })?;
    }
    Ok(())
}

fn hanging(site: &mut Site) -> Result<(), Stop> {
    if site.quick {
        return Err(Stop::Skipped(format!("takes {MODEL_STALL_MAX:?}; not in a quick run")));
    }
    let server = server_with_model("hangs");
    let mut request = site.request(1);
    request.bytes[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
    let client = server.connect();
    client.send(&request.bytes);
    let (begun_at, admin) = (Instant::now(), server.admin_address());
    for (path, bound) in [("/readyz", READY_STEP_MAX), ("/livez", LIVE_STALL_MAX)] {
        wait_patiently_until(MODEL_STALL_MAX, path, || admin::status(admin, path) == 503);
        let after = begun_at.elapsed();
        site.measured(format!("{path} 503 after {:.1} s", after.as_secs_f64()));
        require(after >= bound, format!("{path} gives the model {bound:?}"))?;
    }
    let (status, log) = server.wait();
    site.measured(format!("ended after {:.0} s: {}", begun_at.elapsed().as_secs_f64(), last_line(&log)));
    require(status == Some(70) && log.contains("taken for hung"), "it ends with a message")
}

fn wrong_length(_site: &mut Site) -> Result<(), Stop> {
    Err(Stop::Skipped("cannot happen: a model writes its scores to a slice that has one place for each row".to_owned()))
}

fn one_cpu(site: &mut Site) -> Result<(), Stop> {
    needs_program("taskset")?;
    let mut command = through(&["taskset", "-c", "0"], &["--port", "0", "--io-threads", "4", "--wait", "spin"]);
    let server = ServerProcess::launch(&mut command);
    let warned = server.stderr().contains("WARN");
    let mut peers: Vec<_> =
        (0..4).map(|_| Peer::start(server.address(), &["exchange", site.size("500", "50")])).collect();
    let begun_at = Instant::now();
    for peer in &mut peers {
        require(peer.was_right(), "all is answered")?;
    }
    site.measured(format!("4 spinning I/O threads on one CPU: done in {:.1} s", begun_at.elapsed().as_secs_f64()));
    server.signal(Signal::SIGTERM);
    require(server.wait().0 == Some(0), "it drains")?;
    require(warned, "it warns at the start")
}
