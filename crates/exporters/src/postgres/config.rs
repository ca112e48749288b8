//! Settings of the exporter `postgres`, and what they mean once they have been checked.

use magicapi_plugin::{ConfigError, Secret};
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::table::Table;

/// How the table is split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Partitions {
    /// Not by the gateway; a table that is split already is taken as it is.
    #[default]
    None,
    /// One part for each day (UTC).
    Day,
}

/// Settings of the exporter `postgres`.
#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresSettings {
    /// Where the database is: `postgres://user:password@host:5432/database?sslmode=verify-full`; required.
    #[schemars(extend("env" = "POSTGRES_URL"))]
    pub url: Option<Secret>,
    /// Table that records go to, or `schema.table`; made when it is missing.
    #[schemars(extend("env" = "POSTGRES_TABLE"))]
    pub table: String,
    /// How the table is split: not by the gateway, or into one part for each day (UTC), made ahead.
    pub partitions: Partitions,
    /// Days that are kept, older parts are dropped; needs `partitions: day`. Unset: all.
    pub keep_days: Option<u16>,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        let table = "ai_gateway_logs".into();
        Self { url: None, table, partitions: Partitions::None, keep_days: None }
    }
}

/// Checked settings.
pub(super) struct Target {
    pub(super) options: PgConnectOptions,
    /// Stands in no text that leaves the exporter.
    pub(super) password: Secret,
    pub(super) table: Table,
    pub(super) by_day: bool,
    pub(super) keep_days: Option<u16>,
}

impl PostgresSettings {
    /// Checks everything that can be checked without a connection.
    pub(super) fn validate(self) -> Result<Target, ConfigError> {
        let Some(url) = self.url.filter(|url| !url.is_empty()) else {
            return Err(ConfigError::new("url", "missing; set it, or the variable POSTGRES_URL"));
        };
        let (options, password) = address(url.expose()).map_err(|what| ConfigError::new("url", what))?;
        let by_day = self.partitions == Partitions::Day;
        let suffix = if by_day { "_p20260101".len() } else { 0 };
        let table = Table::parse(&self.table, suffix).map_err(|what| ConfigError::new("table", what))?;
        match self.keep_days {
            Some(0) => Err(ConfigError::new("keep_days", "0 keeps nothing; expected at least 1")),
            Some(_) if !by_day => Err(ConfigError::new("keep_days", "set without partitions: day")),
            keep_days => Ok(Target { options, password, table, by_day, keep_days }),
        }
    }
}

/// Reads the address. Not by the driver's own reader: that takes what is missing from the environment and from
/// `~/.pgpass`, and its texts quote values. The texts here quote nothing but names of parameters.
pub(super) fn address(url: &str) -> Result<(PgConnectOptions, Secret), String> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let rest = rest.ok_or("begins with neither postgres:// nor postgresql://")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (userinfo, server) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    if database.contains(['/', '@']) || userinfo.contains('@') {
        return Err("holds / or @ within user, password or database; write %2F and %40".into());
    }
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port),
        _ => (server, ""),
    };
    let host = host.trim_matches(['[', ']']);
    let path = [("user", user), ("password", password), ("host", host), ("port", port), ("dbname", database)];
    let query = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let given: Vec<_> = path.into_iter().chain(query).filter(|(key, _)| !key.is_empty()).collect();
    let last = |wanted| given.iter().rev().find(|(key, value)| *key == wanted && !value.is_empty());
    let (Some((_, user)), Some(_)) = (last("user"), last("host")) else {
        return Err("lacks user or host; expected postgres://user:password@host:5432/database".into());
    };
    // Whatever the driver has taken from the environment is overwritten, where it can be.
    let mut options = PgConnectOptions::new_without_pgpass().port(5432).ssl_mode(PgSslMode::Prefer);
    options = options.password("").database(&decoded(user)?).ssl_root_cert_from_pem(Vec::new());
    options = options.application_name("magicapi-ai-gateway").extra_float_digits(None);
    for (key, value) in
        given.iter().filter(|(key, value)| !(value.is_empty() && path.iter().any(|(k, _)| k == key)))
    {
        options = parameter(options, key, &decoded(value)?)?;
    }
    let password = last("password").map_or(Ok(String::new()), |(_, password)| decoded(password))?;
    Ok((options.disable_statement_logging(), Secret::new(password)))
}

/// One parameter of the address, under its name in libpq.
fn parameter(options: PgConnectOptions, key: &str, value: &str) -> Result<PgConnectOptions, String> {
    Ok(match key {
        "user" => options.username(value),
        "password" => options.password(value),
        "host" if value.starts_with('/') => options.socket(value),
        "host" => options.host(value),
        "port" => options.port(value.parse().map_err(|_| "its port is no number up to 65535")?),
        "dbname" => options.database(value),
        "sslmode" if value == "allow" => return Err("its sslmode allow is not supported; use prefer".into()),
        "sslmode" => options.ssl_mode(value.parse().map_err(
            |_| "its sslmode is unknown; known: disable, prefer, require, verify-ca, verify-full",
        )?),
        "sslrootcert" => options.ssl_root_cert(value),
        "sslcert" => options.ssl_client_cert(value),
        "sslkey" => options.ssl_client_key(value),
        "application_name" => options.application_name(value),
        _ => {
            let known =
                "user, password, host, port, dbname, sslmode, sslrootcert, sslcert, sslkey, application_name";
            return Err(format!("holds the unknown parameter {key:?}; known: {known}"));
        }
    })
}

fn decoded(text: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| "holds bytes that are not UTF-8")?;
    if text.contains('\0') { Err("holds %00".into()) } else { Ok(text.into_owned()) }
}
