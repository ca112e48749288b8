//! The data plane (L3): listeners, the order of steps, streams, and the end of every request.
//!
//! `stack` says in which order a request goes through the other files. A request is an `Exchange` from its head to its
//! end; whatever happens to it, `Exchange::finish` runs exactly once.

mod admit;
mod answer;
mod ask;
mod body;
mod connection;
mod delivery;
mod events;
mod exchange;
mod farewell;
mod finish;
mod form;
mod head;
mod headers;
mod identify;
mod labels;
mod listener;
mod models;
mod opening;
mod pace;
mod page;
mod pages;
mod path;
mod phase;
mod relay;
mod reply;
mod request;
mod rescue;
mod route;
mod shutdown;
mod snapshot;
mod stack;
mod stream;
mod timer;
mod tls;
mod unpack;

pub use finish::recovered_entry;
pub use listener::{bind, serve};
pub use path::useless_passthrough;
pub use phase::Phase;
pub use snapshot::{Counts, ProviderSlot, Shared, Snapshot};
pub use tls::TlsAcceptor;
