//! What the user wrote of the pipeline around an exporter: the keys that every exporter has.

use std::path::PathBuf;

use magicapi_model::Secret;
use magicapi_plugin::ContentLevel;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::types::WhenFull;
use crate::units::{Size, Span};

/// What the pipeline around an exporter does: the keys that every exporter has.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Pipeline {
    /// Its name in metrics, health, commands and the spool (default: its type); needed when two have the same type.
    pub(crate) name: Option<String>,
    /// How much of the bodies it gets: less, never more, than `telemetry.capture.bodies`, which is the default.
    pub(crate) content: Option<ContentLevel>,
    /// Which records it gets (default: all): every key that is given must hold.
    pub(crate) only: Option<Only>,
    /// How many of those it gets (default 1, all): a rate, or a rate and what is kept whatever the rate. Decided by the
    /// record's id, so alike in every exporter.
    pub(crate) sample: Option<Sample>,
    /// Whether the gateway stops when the back end cannot be reached within `init_timeout` (default false).
    pub(crate) require_healthy: Option<bool>,
    /// See `require_healthy` (default 30s).
    pub(crate) init_timeout: Option<Span>,
    /// How long one export may take (default 30s); after that it counts as not answered, and is sent again.
    pub(crate) timeout: Option<Span>,
    /// Exports under way at once (default 1); with more than one, records may overtake each other.
    #[schemars(range(min = 1))]
    pub(crate) concurrency: Option<usize>,
    /// The most that is sent per second (default: no limit).
    pub(crate) rate_limit: RateLimit,
    /// Trust and identity towards a back end that speaks HTTPS.
    pub(crate) tls: ReachTls,
    /// The HTTP proxy on the way to its back end, as a URL, or `none` (default: as for providers).
    pub(crate) proxy: Option<String>,
    /// A credential for every request to its back end, of an exporter that has none of its own: one of the three.
    pub(crate) auth: Option<ReachAuth>,
    /// A batch is sent when any of these is reached.
    pub(crate) batch: Batch,
    /// Records that wait.
    pub(crate) buffer: Buffer,
    /// How long a batch is tried, and at what intervals.
    pub(crate) retry: Retry,
    /// When a back end counts as away.
    pub(crate) breaker: Breaker,
    /// Records that the back end never takes.
    pub(crate) dead_letters: DeadLetters,
}

/// Trust and identity towards a back end that speaks HTTPS.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ReachTls {
    /// Further trusted certificates as a PEM file, relative to the working directory; besides those for providers.
    pub(crate) ca_file: Option<PathBuf>,
    /// The gateway's own certificate as a PEM file, for a back end that asks for it; together with `key`.
    pub(crate) cert: Option<PathBuf>,
    /// Its private key as a PEM file.
    pub(crate) key: Option<PathBuf>,
    /// The name that the back end's certificate bears, where it is not the address's own.
    pub(crate) server_name: Option<String>,
}

/// A credential: one of the three.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ReachAuth {
    /// User and password (RFC 7617).
    pub(crate) basic: Option<Basic>,
    /// A token (RFC 6750).
    pub(crate) bearer: Option<Secret>,
    /// A header.
    pub(crate) header: Option<Header>,
}

/// User and password.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Basic {
    /// The user.
    pub(crate) username: String,
    /// The password.
    pub(crate) password: Secret,
}

/// A header.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Header {
    /// Its name.
    pub(crate) name: String,
    /// Its value.
    pub(crate) value: Secret,
}

/// A filter. Every key that is given must hold.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Only {
    /// `success` or `error`.
    pub(crate) status: Option<Vec<Status>>,
    /// How it ended: `completed`, `blocked`, `gateway_error`, `provider_error`, `truncated`, `timed_out`,
    /// `client_closed`.
    pub(crate) outcome: Option<Vec<String>>,
    /// Providers that were asked last.
    pub(crate) provider: Option<Vec<String>>,
    /// Models, as the caller or as we named them; `*` stands for any text.
    pub(crate) model: Option<Vec<String>>,
    /// Operations: `chat`, `embeddings`, ….
    pub(crate) operation: Option<Vec<String>>,
    /// Names of virtual keys.
    pub(crate) key: Option<Vec<String>>,
    /// US dollars that it cost at least; an unknown cost is less.
    pub(crate) min_cost_usd: Option<f64>,
    /// Latency that it had at least.
    pub(crate) min_latency: Option<Span>,
    /// The least status code that the caller got.
    pub(crate) min_status_code: Option<u16>,
}

/// Whether a request succeeded.
#[derive(Clone, Copy, Deserialize, JsonSchema, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// It completed.
    Success,
    /// It did not.
    Error,
}

/// A rate, or a rate with rules.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum Sample {
    /// The share of records that is kept, 0 to 1.
    Rate(f64),
    /// A share, and what is kept beside it.
    Rules(SampleRules),
}

/// A share, and what is kept beside it.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SampleRules {
    /// The share of records that is kept, 0 to 1 (default 1).
    pub(crate) rate: Option<f64>,
    /// What is kept whatever the rate.
    pub(crate) keep: Keep,
}

/// What is kept whatever the rate.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Keep {
    /// Requests that did not succeed (default true).
    pub(crate) errors: Option<bool>,
    /// Requests that took longer.
    pub(crate) slower_than: Option<Span>,
    /// Requests that cost more US dollars.
    pub(crate) cost_usd_over: Option<f64>,
}

/// The most that is sent per second.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RateLimit {
    /// Batches; an exporter makes more than one request of a batch that is over its back end's limits.
    #[schemars(range(min = 1))]
    pub(crate) requests: Option<u64>,
    /// Size of the records.
    pub(crate) bytes: Option<Size>,
}

/// A batch is sent when any of these is reached.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Batch {
    /// Number of records (default 1000).
    #[schemars(range(min = 1))]
    pub(crate) records: Option<usize>,
    /// Size of the records (default 4MiB).
    pub(crate) bytes: Option<Size>,
    /// Age of the oldest record (default 1s).
    pub(crate) age: Option<Span>,
}

/// Records that wait.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Buffer {
    /// Size in memory (default 64MiB), at least twice `batch.bytes`.
    pub(crate) memory: Option<Size>,
    /// Size on disk, below `DATA_DIR/spool` (default 2GiB); past it the oldest are dropped and counted, or
    /// with `when_full: refuse` new requests are refused.
    pub(crate) disk: Option<Size>,
    /// How long a record may wait on disk (default 7d, or what the exporter's back end takes); older ones are dropped and
    /// counted.
    pub(crate) max_age: Option<Span>,
    /// What happens to records that have no room in memory (default `spool`).
    pub(crate) when_full: Option<WhenFull>,
}

/// How long a batch is tried, and at what intervals: each up to twice as long as the one before, at random.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Retry {
    /// The longest wait before the second try (default 500ms).
    pub(crate) first: Option<Span>,
    /// The longest wait between two tries (default 1m); what the back end asks for may be longer, up to 5m.
    pub(crate) longest: Option<Span>,
    /// A record that has waited longer, in memory or on disk, is dropped and counted, or a dead letter when the exporter put
    /// it off (default: `buffer.max_age` with `when_full: spool` and `refuse`, else 1h).
    pub(crate) max_age: Option<Span>,
}

/// When a back end counts as away: it is then asked by single batches, and records wait on disk.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Breaker {
    /// Failures in a row (default 5).
    #[schemars(range(min = 1))]
    pub(crate) failures: Option<u32>,
    /// How often one that refuses the credential or the set-up is asked again (default 30s).
    pub(crate) refused: Option<Span>,
}

/// Records that the back end never takes, kept with the reason below `DATA_DIR/spool/NAME/dead`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DeadLetters {
    /// Size on disk (default 256MiB); past it the oldest go.
    pub(crate) disk: Option<Size>,
    /// How long they are kept (default 30d).
    pub(crate) max_age: Option<Span>,
}
