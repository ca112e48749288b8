//! `/api/v1/logs`: lists, single records, and following.

mod entry;
mod follow;
mod one;
mod pages;
mod params;

pub(crate) use entry::LogEntry;
pub(crate) use follow::{__path_follow, LogLag, follow};
pub(crate) use one::{__path_one, one};
pub(crate) use pages::{__path_list, list};
pub(crate) use params::{Params, Purpose, openapi_parameters};
