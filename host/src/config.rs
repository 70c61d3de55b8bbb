//! How a host runs: every knob with its unit, default and range. Flags win over the manifest's
//! `[server]`, which wins over the defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::delivery;
use crate::manifest::ServerSettings;
use crate::secrets::SecretKey;
use crate::services::Settings;

/// Where a host listens unless it is told otherwise: on its own machine only.
pub const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4566);
/// Where its data is unless it is told otherwise, below the working folder.
pub const DEFAULT_DATA_DIR: &str = "shardmill-data";

/// Everything that a host is told before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. Default 127.0.0.1:4566; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the data is. Default `./shardmill-data`.
    pub data_dir: PathBuf,
    /// The manifest to reconcile and to watch.
    pub manifest: Option<PathBuf>,
    /// Which store.
    pub store: StoreKind,
    /// What the services are given.
    pub settings: Settings,
    /// How deliveries to on-failure destinations are made.
    pub delivery: delivery::Settings,
    /// What secrets are sealed with at rest, if they are.
    pub secret_key: Option<SecretKey>,
}

/// Which store keeps the data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum StoreKind {
    /// The journal and its tables in the data folder
    #[default]
    Embedded,
    /// Nothing but memory: records are gone with the process; for benchmarks
    Memory,
}

/// What the command line says; `None` leaves it to the manifest, then to the default.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// Where to listen.
    pub listen: Option<SocketAddr>,
    /// Where the data is.
    pub data_dir: Option<PathBuf>,
    /// Whether a bind beyond loopback is allowed where nothing checks signatures.
    pub insecure_bind: bool,
    /// Whether callers must prove who they are.
    pub access: Option<AccessKind>,
}

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AccessKind {
    /// Everybody who reaches it; any signature
    Open,
    /// Whoever signs with an access key that the manifest names
    Closed,
}

/// Why a host is not started with what it was told.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConfigError {
    /// Anyone in the network could call it.
    #[error(
        "listen on {0}: everybody who can reach this address could read and change all data: \
         listen on 127.0.0.1, close it (access = \"closed\" in [server], with access keys), or say \
         --insecure-bind where something else keeps strangers out"
    )]
    OpenBind(SocketAddr),
}

impl Flags {
    /// Whether callers must prove who they are.
    pub fn is_closed(&self, server: &ServerSettings) -> bool {
        self.access
            .map_or(server.closed, |access| access == AccessKind::Closed)
    }

    /// Lays the flags over the manifest's server settings.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn address_and_data(
        self,
        server: &ServerSettings,
    ) -> Result<(SocketAddr, PathBuf), ConfigError> {
        let listen = self.listen.or(server.listen).unwrap_or(DEFAULT_LISTEN);
        if !listen.ip().is_loopback() && !self.insecure_bind && !self.is_closed(server) {
            return Err(ConfigError::OpenBind(listen));
        }
        let data_dir = self.data_dir.or_else(|| server.data_dir.clone());
        Ok((listen, data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn flags_win_over_the_manifest_and_that_over_the_defaults() {
        let server = ServerSettings {
            listen: Some(address("127.0.0.1:1")),
            data_dir: Some("/manifest".into()),
            ..ServerSettings::default()
        };
        let flags = |listen: Option<&str>| Flags {
            listen: listen.map(address),
            ..Flags::default()
        };
        let of = |flags: Flags, server| flags.address_and_data(server).expect("a good address");
        assert_eq!(
            of(flags(Some("127.0.0.1:2")), &server).0,
            address("127.0.0.1:2")
        );
        assert_eq!(
            of(flags(None), &server),
            (address("127.0.0.1:1"), "/manifest".into())
        );
        let default = of(flags(None), &ServerSettings::default());
        assert_eq!(default, (DEFAULT_LISTEN, DEFAULT_DATA_DIR.into()));
    }

    #[test]
    fn a_bind_beyond_loopback_must_be_asked_for() {
        for (listen, insecure_bind, good) in [
            ("127.0.0.9:1", false, true),
            ("[::1]:1", false, true),
            ("0.0.0.0:1", false, false),
            ("10.0.0.1:1", false, false),
            ("0.0.0.0:1", true, true),
        ] {
            let flags = Flags {
                listen: Some(address(listen)),
                insecure_bind,
                ..Flags::default()
            };
            let server = ServerSettings::default();
            let taken = flags.clone().address_and_data(&server);
            assert_eq!(taken.is_ok(), good, "{listen}");
            let closed = ServerSettings {
                closed: true,
                ..server
            };
            let taken = flags.clone().address_and_data(&closed);
            assert!(taken.is_ok(), "{listen}, closed");
            let open = Flags {
                access: Some(AccessKind::Open),
                ..flags
            };
            let taken = open.address_and_data(&closed);
            assert_eq!(taken.is_ok(), good, "{listen}, opened by the flag");
        }
    }
}
