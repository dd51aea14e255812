//! Rows G9 and G10: a Unix socket's folder as it should not be, and several servers on one path.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::Listed;
use super::common::{Client, ServerProcess, binary, random_requests};
use super::reloads::StopOnDrop;
use super::site::{Site, Stop, at_once, last_line, needs_program, require};
use super::starts::{Nobody, REFUSAL_MAX, Start};

pub const ROWS: &[Listed] = &[
    ("G9", "a Unix socket's folder is full, not writable, locked, gone, or goes; another file is at the path", folders),
    (
        "G10",
        "several servers on one path, at one instant, one after the other and killed, under a connect load",
        one_path,
    ),
];

/// A folder of a short path, which anybody can enter. It goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("disrust-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("the folder for temporary files can be written");
        Folder(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("s")
    }

    fn permit(&self, mode: u32) {
        fs::set_permissions(&self.0, Permissions::from_mode(mode)).expect("it is ours");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Left behind, it harms nobody.
        let _gone_before = fs::remove_dir_all(&self.0);
    }
}

fn flags_for(path: &Path) -> Vec<String> {
    let path = path.to_str().expect("a path in UTF-8").to_owned();
    ["--port", "off", "--pin", "none", "--io-threads", "2", "--unix"]
        .map(str::to_owned)
        .into_iter()
        .chain([path])
        .collect()
}

fn server_at(path: &Path, more: &[&str]) -> Command {
    let mut command = binary();
    command.args(flags_for(path)).args(more).stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// Connects, and exchanges a few requests.
fn require_served(site: &mut Site, path: &Path, what: &str) -> Result<(), Stop> {
    let requests = random_requests(&mut site.rng, 20, 1..=8);
    let path = path.to_str().expect("a path in UTF-8");
    let served = at_once([|| {
        let client = Client::connect_at(path);
        client.map_err(|error| Stop::Failed(format!("{what}: {error}")))?.exchange(&requests);
        Ok(())
    }]);
    served.into_iter().next().unwrap_or(Ok(()))
}

fn require_drained(server: ServerProcess, what: &str) -> Result<(), Stop> {
    server.signal(Signal::SIGTERM);
    let (status, log) = server.wait();
    require(status == Some(0), format!("{what}: it drains, not {status:?}: {}", last_line(&log)))
}

/// That it ends in order, and nothing is at the path that was not there.
fn require_refused(site: &mut Site, command: &mut Command, path: &Path, what: &str) -> Result<(), Stop> {
    let before = fs::symlink_metadata(path).is_ok();
    let start = Start::attempt(command)?;
    let Start::Ended { status, .. } = &start else { return Err(Stop::Failed(format!("{what}: it serves"))) };
    require(*status == Some(71), format!("{what}: exit status {status:?}"))?;
    start.require_order(site, what)?;
    require(fs::symlink_metadata(path).is_ok() == before, format!("{what}: the path is as it was"))
}

// ---- G9

fn folders(site: &mut Site) -> Result<(), Stop> {
    let folder = Folder::new("g9");
    let path = folder.socket();
    let mut refused = 0;
    let mut refuse = |site: &mut Site, path: &Path, what: &str| {
        refused += 1;
        require_refused(site, &mut server_at(path, &[]), path, what)
    };
    refuse(site, &folder.0.join("none/s"), "no folder")?;
    refuse(site, &folder.0.join("s".repeat(110)), "a long path")?;
    fs::write(&path, "precious").expect("it is ours");
    refuse(site, &path, "a file at the path")?;
    refuse(site, &path.join("s"), "a file as the folder")?;
    fs::remove_file(&path).expect("it is ours");
    fs::create_dir(&path).expect("it is ours");
    refuse(site, &path, "a folder at the path")?;
    fs::remove_dir(&path).expect("it is ours");
    symlink("elsewhere", &path).expect("it is ours");
    refuse(site, &path, "a link at the path")?;
    fs::remove_file(&path).expect("it is ours");
    match of_others(site, &folder, &mut refused) {
        Err(Stop::Skipped(why)) => site.measured(format!("other users and file systems: skipped: {why}")),
        outcome => outcome?,
    }
    if !site.quick {
        locked(&folder, &path)?;
        refused += 1;
    }
    site.measured(format!("{refused} starts say why not"));
    goes_away(site)
}

/// What only root can make: users without privileges, and file systems that take nothing.
fn of_others(site: &mut Site, folder: &Folder, refused: &mut usize) -> Result<(), Stop> {
    let nobody = Nobody::new()?;
    needs_program("unshare")?;
    let path = folder.socket();
    let flags = flags_for(&path);
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let mut refuse = |site: &mut Site, mode: u32, what: &str| {
        folder.permit(mode);
        *refused += 1;
        require_refused(site, &mut nobody.server(&[], &[], &flags), &path, what)
    };
    refuse(site, 0o755, "a folder that cannot be written")?;
    refuse(site, 0o733, "a folder that cannot be read")?;
    refuse(site, 0o700, "a folder that cannot be entered")?;
    drop(UnixListener::bind(&path).expect("it is ours"));
    refuse(site, 0o1777, "an abandoned socket of another user, which may not be connected to")?;
    fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("it is ours");
    refuse(site, 0o1777, "an abandoned socket of another user, which may not be taken away")?;
    fs::remove_file(&path).expect("it is ours");
    folder.permit(0o777);
    let served = Start::attempt(&mut nobody.server(&[], &[], &flags))?;
    let Start::Serves(server) = served else { return Err(Stop::Failed("a folder for all: it does not serve".into())) };
    require_served(site, &path, "a folder for all")?;
    require_drained(server, "a folder for all")?;
    for (options, what) in [("nr_inodes=1", "a full file system"), ("ro", "a file system that can only be read")] {
        let script = r#"mount -t tmpfs -o "$1" none "$2" && shift 2 && exec "$0" "$@""#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(binary().get_program()).arg(options).arg(&folder.0);
        command.args(&flags).stdin(Stdio::null()).stdout(Stdio::null());
        *refused += 1;
        require_refused(site, &mut command, &path, what)?;
    }
    Ok(())
}

/// A foreign program holds the folder's lock. It is waited for, and then told of.
fn locked(folder: &Folder, path: &Path) -> Result<(), Stop> {
    let lock = File::open(&folder.0).expect("it is there");
    lock.lock().expect("nobody else has it");
    let server = ServerProcess::launch_anyway(&mut server_at(path, &[]));
    let (status, log) = server.wait();
    let said = status == Some(71) && log.contains("flock");
    require(said, format!("a lock that is held: status {status:?}: {}", last_line(&log)))
}

/// What is at the path changes while a server serves: who is connected notices nothing, and what is another's stays.
fn goes_away(site: &mut Site) -> Result<(), Stop> {
    let requests = random_requests(&mut site.rng, 20, 1..=8);
    for what in ["the file goes", "another file takes its place", "another socket takes its place", "the folder goes"] {
        let folder = Folder::new("g9-goes");
        let path = folder.socket();
        let server = ServerProcess::launch(&mut server_at(&path, &[]));
        let mut client = Client::connect_at(path.to_str().expect("a path in UTF-8"))
            .map_err(|error| Stop::Failed(format!("{what}: {error}")))?;
        client.exchange(&requests);
        fs::remove_file(&path).expect("it is there");
        let mut listener = None;
        match what {
            "another file takes its place" => fs::write(&path, "precious").expect("it is ours"),
            "another socket takes its place" => listener = UnixListener::bind(&path).ok(),
            "the folder goes" => fs::remove_dir(&folder.0).expect("it is empty"),
            _ => {}
        }
        let after = fs::symlink_metadata(&path).is_ok();
        client.exchange(&requests);
        require_drained(server, what)?;
        require(fs::symlink_metadata(&path).is_ok() == after, format!("{what}: what is another's stays"))?;
        drop(listener);
    }
    Ok(())
}

// ---- G10

fn one_path(site: &mut Site) -> Result<(), Stop> {
    let folder = Folder::new("g10");
    let path = folder.socket();
    let rounds = site.size(10, 3);
    for round in 0..rounds {
        let starts = at_once([(); 4].map(|()| || Start::attempt(&mut server_at(&path, &[]))));
        let mut serving = Vec::new();
        for start in starts {
            match start? {
                Start::Serves(server) => serving.push(server),
                Start::Ended { status, log, .. } => {
                    require(status == Some(71), format!("round {round}: {status:?}: {}", last_line(&log)))?;
                }
            }
        }
        require(serving.len() == 1, format!("round {round}: {} of 4 serve that do not share", serving.len()))?;
        require_served(site, &path, "the one that serves")?;
        let server = serving.pop().expect("there is one");
        // A file is left behind every other time.
        if round % 2 == 0 {
            server.signal(Signal::SIGKILL);
            server.wait();
        } else {
            require_drained(server, "the one that serves")?;
        }
    }
    let exchanges = handed_over(site, &path)?;
    site.measured(format!(
        "{rounds} × 4 starts at one instant: one serves; {exchanges} exchanges while servers change"
    ));
    require(fs::read_dir(&folder.0).is_ok_and(|left| left.count() == 0), "nothing is left behind".to_owned())
}

/// Servers that may take the path over come, two at one instant at times, and go, under a load that must not notice.
fn handed_over(site: &mut Site, path: &Path) -> Result<usize, Stop> {
    let (stop, exchanges) = (AtomicBool::new(false), AtomicUsize::new(0));
    let requests = random_requests(&mut site.rng, 50, 1..=8);
    let name = path.to_str().expect("a path in UTF-8");
    let changes = site.size(30, 5);
    let rng = &mut site.rng;
    std::thread::scope(|scope| {
        let start = || Start::attempt(&mut server_at(path, &["--reuse-port"]));
        let mut servers = vec![ServerProcess::launch(&mut server_at(path, &["--reuse-port"]))];
        let stopping = StopOnDrop(&stop);
        let load = || {
            for request in requests.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let mut client = Client::connect_at(name).expect("somebody listens at each moment");
                client.send(&request.bytes);
                client.expect([request]);
                exchanges.fetch_add(1, Ordering::Relaxed);
            }
        };
        let loads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
        for _ in 0..changes {
            let starts = if rng.bool() { at_once([(); 2].map(|()| start)) } else { vec![start()] };
            for start in starts {
                let Start::Serves(server) = start? else { return Err(Stop::Failed("it takes the path over".into())) };
                servers.push(server);
            }
            wait_for(&exchanges, 20)?;
            // The one that has the path is among the last two.
            while servers.len() > 2 {
                require_drained(servers.remove(rng.usize(..servers.len() - 2)), "one whose path is another's")?;
            }
        }
        wait_for(&exchanges, 20)?;
        drop(stopping);
        let failed = loads.into_iter().filter_map(|load| load.join().err()).count();
        require(failed == 0, format!("{failed} of 4 loads noticed a change"))?;
        servers.into_iter().try_for_each(|server| require_drained(server, "one of the last"))
    })?;
    Ok(exchanges.into_inner())
}

fn wait_for(exchanges: &AtomicUsize, more: usize) -> Result<(), Stop> {
    let (from, begun_at) = (exchanges.load(Ordering::Relaxed), Instant::now());
    while exchanges.load(Ordering::Relaxed) < from + more {
        require(begun_at.elapsed() < 10 * REFUSAL_MAX, "the load goes on".to_owned())?;
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
