//! What the gateway lends to an exporter.

use std::path::{Path, PathBuf};

use crate::{Http, Meter};

/// The gateway's side of an exporter: its HTTP client, its metrics, its place on disk.
#[derive(Clone)]
pub struct Host {
    http: Http,
    meter: Meter,
    data_dir: Option<PathBuf>,
}

impl Host {
    /// Made by the pipeline, one per exporter; by tests with parts of their own.
    pub fn new(http: Http, meter: Meter, data_dir: Option<PathBuf>) -> Self {
        Self { http, meter, data_dir }
    }

    /// The gateway's HTTP client: proxies, private CAs and timeouts are already in it.
    pub fn http(&self) -> &Http {
        &self.http
    }

    /// Metrics of the exporter's own, prefixed with its plug-in's name.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// `data_dir`; `None` when it cannot be written.
    pub fn data_dir(&self) -> Option<&Path> {
        self.data_dir.as_deref()
    }
}
