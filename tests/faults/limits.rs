//! Row G7: limits of the process that leave too little, or absurdly much. Each start serves, or says in words why not.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use super::Listed;
use super::common::{ServerProcess, binary, free_port, random_requests};
use super::site::{Site, Stop, last_line, needs_program, needs_root, require};
use super::starts::{Nobody, Start, require_free};

pub const ROWS: &[Listed] = &[("G7", "descriptors, threads, address space, locked memory: too few, or 2³⁰", limits)];

fn limits(site: &mut Site) -> Result<(), Stop> {
    let nobody = Nobody::new()?;
    let mut cases: Vec<(String, &[&str])> = Vec::new();
    for descriptors in [8, 12, 16, 20, 24, 30, 40] {
        cases.push((format!("--nofile={descriptors}"), &["--io-threads", "2"]));
        cases.push((format!("--nofile={descriptors}"), &["--io-threads", "2", "--reuse-port"]));
    }
    for threads in 0..=10 {
        cases.push((format!("--nproc={threads}"), &["--io-threads", "2"]));
        cases.push((format!("--nproc={threads}"), &["--io-threads", "4", "--metrics-interval", "1s"]));
    }
    for mebibytes in [24, 32, 48, 64, 96, 128, 192, 256, 512] {
        cases.push((format!("--as={}", mebibytes << 20), &["--io-threads", "2"]));
        cases.push((format!("--as={}", mebibytes << 20), &["--io-threads", "8"]));
    }
    for kilobytes in [0, 16, 64, 128, 200, 300, 500, 1000] {
        cases.push((format!("--memlock={}", kilobytes * 1000), &["--io-threads", "1"]));
        cases.push((format!("--memlock={}", kilobytes * 1000), &["--io-threads", "8"]));
    }
    let (mut served, mut refused, mut wrong) = (0, 0, Vec::new());
    for (limit, flags) in cases.iter().step_by(site.size(1, 2)) {
        let port = free_port();
        let what = format!("{limit} {}", flags.join(" "));
        let port_flag = port.to_string();
        let mut command = nobody.server(&[], &[limit], &[&["--port", &port_flag], *flags].concat());
        match Start::attempt(&mut command).and_then(|start| start.require_order(site, &what)) {
            Ok(true) => served += 1,
            Ok(false) => refused += 1,
            Err(Stop::Failed(why)) => wrong.push(why),
            Err(skipped) => return Err(skipped),
        }
        require_free(([127, 0, 0, 1], port).into(), &what)?;
    }
    site.measured(format!("{served} starts serve, {refused} say why not, {} do neither", wrong.len()));
    if let Err(why) = countless_descriptors(site) {
        match why {
            Stop::Skipped(why) => site.measured(format!("2³⁰ descriptors: skipped: {why}")),
            Stop::Failed(why) => wrong.push(why),
        }
    }
    if let Err(Stop::Failed(why)) = many_threads_twice(site, &nobody) {
        wrong.push(why);
    }
    require(wrong.is_empty(), format!("{} starts in disorder: {}", wrong.len(), wrong.join("; ")))
}

/// As in a container whose limit is "infinity".
fn countless_descriptors(site: &mut Site) -> Result<(), Stop> {
    const LIMIT: &str = "1073741824";
    needs_root()?;
    needs_program("prlimit")?;
    let _raised = RaisedLimit::new("/proc/sys/fs/nr_open", LIMIT)?;
    let both = format!("--nofile={LIMIT}:{LIMIT}");
    let allowed = Command::new("prlimit").args([&both, "true"]).stderr(Stdio::null()).status();
    if !allowed.is_ok_and(|status| status.success()) {
        return Err(Stop::Skipped("the limit cannot be raised, CAP_SYS_RESOURCE is missing".to_owned()));
    }
    for threads in ["1", "2", "8"] {
        let mut command = Command::new("prlimit");
        command.arg(&both).arg(binary().get_program());
        command.args(["--pin", "none", "--port", "0", "--io-threads", threads]).stdin(Stdio::null());
        let what = format!("2³⁰ descriptors, {threads} I/O threads");
        let serves = Start::attempt(&mut command)?.require_order(site, &what)?;
        site.measured(format!("{what}: {}", if serves { "serves" } else { "says why not" }));
    }
    Ok(())
}

/// A number of the kernel's that is larger for as long as this lives.
struct RaisedLimit {
    path: &'static str,
    before: String,
}

impl RaisedLimit {
    fn new(path: &'static str, to: &str) -> Result<RaisedLimit, Stop> {
        let refused = |error| Stop::Skipped(format!("{path} cannot be raised: {error}"));
        let before = std::fs::read_to_string(path).map_err(refused)?;
        std::fs::write(path, to).map_err(refused)?;
        Ok(RaisedLimit { path, before })
    }
}

impl Drop for RaisedLimit {
    fn drop(&mut self) {
        // It was written to before.
        let _restored = std::fs::write(self.path, &self.before);
    }
}

/// A rolling restart of a large server whose user may lock 8 MiB, as is usual.
fn many_threads_twice(site: &mut Site, nobody: &Nobody) -> Result<(), Stop> {
    let port = free_port().to_string();
    let start = |which: &str| {
        let flags = ["--io-threads", "64", "--reuse-port", "--port", &port];
        match Start::attempt(&mut nobody.server(&[], &["--memlock=8388608"], &flags))? {
            Start::Serves(server) => Ok(server),
            Start::Ended { status, log, .. } => Err(Stop::Failed(format!(
                "the {which} of two servers of 64 I/O threads under 8 MiB of locked memory: status {status:?}: {}",
                last_line(&log)
            ))),
        }
    };
    let (old, new): (ServerProcess, ServerProcess) = (start("first")?, start("second")?);
    for server in [old, new] {
        server.connect().exchange(&random_requests(&mut site.rng, 20, 1..=8));
        server.signal(Signal::SIGTERM);
        let (status, log) = server.wait();
        require(status == Some(0), format!("it drains, not {status:?}: {}", last_line(&log)))?;
    }
    site.measured("64 I/O threads twice under 8 MiB of locked memory");
    Ok(())
}
