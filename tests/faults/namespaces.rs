//! Two hosts on one machine: two network namespaces and a cable between them, gone with the value.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::common::ServerProcess;
use super::site::{Stop, needs_program, needs_root, through};

/// A server's namespace and a client's.
pub struct TwoHosts {
    server: String,
    client: String,
}

impl TwoHosts {
    const SERVER_ADDRESS: &str = "10.213.7.1";

    /// Makes them, or says why this machine cannot.
    pub fn new() -> Result<TwoHosts, Stop> {
        // Relaxed: only the number's uniqueness matters.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        needs_root()?;
        needs_program("ip")?;
        let name = format!("disrust{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let hosts = TwoHosts { server: format!("{name}s"), client: format!("{name}c") };
        ip(&format!("netns add {}", hosts.server))?;
        ip(&format!("netns add {}", hosts.client))?;
        // The device names of a namespace are its own, and short.
        ip(&format!("link add v netns {} type veth peer name v netns {}", hosts.server, hosts.client))?;
        for (namespace, address) in [(&hosts.server, Self::SERVER_ADDRESS), (&hosts.client, "10.213.7.2")] {
            ip(&format!("-n {namespace} address add {address}/24 dev v"))?;
            ip(&format!("-n {namespace} link set v up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
        }
        Ok(hosts)
    }

    /// The command that runs another one where the client is.
    pub fn in_client(&self) -> Vec<&str> {
        vec!["ip", "netns", "exec", &self.client]
    }

    /// The command that runs another one where the server is.
    pub fn in_server(&self) -> Vec<&str> {
        vec!["ip", "netns", "exec", &self.server]
    }

    /// A server that listens on the cable.
    pub fn server(&self, flags: &[&str]) -> Result<ServerProcess, Stop> {
        self.server_with(flags, None)
    }

    /// The same, with its stdout in a file.
    pub fn server_with(&self, flags: &[&str], stdout: Option<std::fs::File>) -> Result<ServerProcess, Stop> {
        let mut command =
            through(&self.in_server(), &[&["--port", "0", "--host", Self::SERVER_ADDRESS], flags].concat());
        if let Some(stdout) = stdout {
            command.stdout(stdout);
        }
        Ok(ServerProcess::launch(&mut command))
    }

    /// Packets of at most so many bytes.
    pub fn set_mtu(&self, bytes: u32) -> Result<(), Stop> {
        ip(&format!("-n {} link set v mtu {bytes}", self.server))?;
        ip(&format!("-n {} link set v mtu {bytes}", self.client))
    }

    /// Nothing passes any more, and nobody is told.
    pub fn cut_link(&self) -> Result<(), Stop> {
        ip(&format!("-n {} link set v down", self.client))
    }
}

impl Drop for TwoHosts {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.client] {
            // It was perhaps never made.
            let _absent = ip(&format!("netns del {namespace}"));
        }
    }
}

fn ip(words: &str) -> Result<(), Stop> {
    let output = Command::new("ip").args(words.split(' ')).stdin(Stdio::null()).output();
    let output = output.map_err(|error| Stop::Skipped(format!("ip {words}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Stop::Skipped(format!("this machine refuses: ip {words}: {}", said.trim())))
}
