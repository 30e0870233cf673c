//! Where a node listens, as people write it.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use tokio::sync::oneshot;

/// A host, by name or IP address, and a UDP port. A name is resolved again for each connection, and all its addresses are
/// tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

/// The text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not an address: expected HOST:PORT, such as node-1.example:7400, 10.0.0.1:7400 or [::1]:7400"
)]
pub struct ParseAddressError(String);

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        let wrong = || ParseAddressError(text.chars().take(80).collect());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        // RFC 1123, and the underscore that some systems have in names.
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        // What ends in a number would be an IP address, and is none.
        let is_name = |label: &str| !label.is_empty() && !label.bytes().all(|byte| byte.is_ascii_digit());
        let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        if host.len() > 253 || !host.chars().all(plain) || !is_name(last) {
            return Err(wrong());
        }
        let port = port.parse().map_err(|_| wrong())?;
        Ok(Self {
            host: host.into(),
            port,
        })
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        let host = match address {
            SocketAddr::V4(address) => address.ip().to_string(),
            // With the brackets, as people write it.
            SocketAddr::V6(address) => {
                let text = address.to_string();
                text.rsplit_once(':')
                    .map_or(text.clone(), |(host, _)| host.to_owned())
            }
        };
        Self {
            host,
            port: address.port(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Address {
    /// The addresses that it stands for now.
    pub(crate) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let text = self.to_string();
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(vec![address]);
        }
        // The system's resolver blocks. A pool would panic where it has no thread to give.
        let (resolved, wait) = oneshot::channel();
        let resolve = move || {
            let found = text.to_socket_addrs().map(Iterator::collect);
            // Nobody may wait any more.
            let _gone = resolved.send(found);
        };
        std::thread::Builder::new()
            .name("trilemma-resolve".into())
            .spawn(resolve)?;
        let found: Vec<SocketAddr> = wait.await.map_err(io::Error::other)??;
        if found.is_empty() {
            return Err(io::Error::other(format!("{} has no addresses", self.host)));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
