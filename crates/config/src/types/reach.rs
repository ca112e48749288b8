//! How one exporter reaches its back end.

use std::path::PathBuf;

use magicapi_model::Secret;

/// How one exporter reaches its back end, where that differs from how providers are reached.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Further trusted certificates, as a PEM file.
    pub ca_file: Option<PathBuf>,
    /// The gateway's own certificate and its key, as PEM files.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The name that the back end's certificate bears.
    pub server_name: Option<String>,
    /// The proxy on the way.
    pub proxy: ReachProxy,
    /// A credential for every request that brings none.
    pub auth: Option<ReachAuth>,
}

/// The proxy on the way to a back end.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum ReachProxy {
    /// That of providers, if there is one.
    #[default]
    Inherited,
    /// None.
    Direct,
    /// This one, as a URL. It may hold a password.
    Url(Secret),
}

/// A credential for a back end.
#[derive(Clone, PartialEq, Eq)]
pub enum ReachAuth {
    /// User and password (RFC 7617).
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token (RFC 6750).
    Bearer(Secret),
    /// A header.
    Header {
        /// Its name.
        name: String,
        /// Its value.
        value: Secret,
    },
}
