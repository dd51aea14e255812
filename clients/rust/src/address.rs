//! Where servers are: what a caller writes, and what it resolves to.
#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use crate::error::Error;
use crate::limits::ENDPOINTS_PER_ADDRESS_MAX;

/// An address as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// A name or IP address, and a port.
    Tcp(Arc<str>),
    /// A Unix socket's path.
    Unix(Arc<Path>),
}

/// What can be connected to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    Tcp(SocketAddr),
    Unix(Arc<Path>),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(address: &str) -> Result<Address, Error> {
        let wrong = |reason: &str| Error::Address { address: address.into(), reason: reason.into() };
        if let Some(path) = address.strip_prefix("unix:") {
            return match path {
                "" => Err(wrong("there is no path behind unix:")),
                path => Ok(Address::Unix(PathBuf::from(path).into())),
            };
        }
        let Some((host, port)) = address.rsplit_once(':') else { return Err(wrong("it has no port")) };
        if !port.parse::<u16>().is_ok_and(|port| port != 0) {
            return Err(wrong("its port is no number from 1 to 65535"));
        }
        let is_bracketed = host.starts_with('[') && host.ends_with(']');
        if host.is_empty() {
            return Err(wrong("it has no host"));
        }
        if host.contains(':') && !is_bracketed {
            return Err(wrong("an IPv6 address stands in brackets"));
        }
        Ok(Address::Tcp(address.into()))
    }
}

impl Address {
    /// What it resolves to, without anybody being asked, if it is no name.
    pub fn fixed(&self) -> Option<Endpoint> {
        match self {
            Address::Tcp(address) => address.parse().ok().map(Endpoint::Tcp),
            Address::Unix(path) => Some(Endpoint::Unix(Arc::clone(path))),
        }
    }

    /// All that it resolves to, each once.
    pub async fn resolve(&self) -> io::Result<Vec<Endpoint>> {
        let name = match (self, self.fixed()) {
            (_, Some(endpoint)) => return Ok(vec![endpoint]),
            (Address::Tcp(name), None) => name,
            (Address::Unix(_), None) => unreachable!("a path is fixed"),
        };
        let mut endpoints = Vec::new();
        for address in tokio::net::lookup_host(&**name).await?.take(ENDPOINTS_PER_ADDRESS_MAX) {
            if !endpoints.contains(&Endpoint::Tcp(address)) {
                endpoints.push(Endpoint::Tcp(address));
            }
        }
        if endpoints.is_empty() { Err(io::Error::other("the name has no address")) } else { Ok(endpoints) }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => formatter.write_str(address),
            Address::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => write!(formatter, "{address}"),
            Endpoint::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}
