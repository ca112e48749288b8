//! The store as the admin plane's request log ([`RequestLogReader`]): lists, single records, following.

use std::sync::Arc;

use bytes::Bytes;
use magicapi_kernel::{Arrivals, Followed, LogError, LogFollower, LogQuery, LogRow, Page, RequestLogReader};
use magicapi_plugin::async_trait;
use tokio::sync::broadcast::{Receiver, error::RecvError};

use crate::{Store, StoreError};

/// Every call opens a connection of its own, which takes well under a millisecond: readers never wait for each other.
impl RequestLogReader for Store {
    fn list(&self, query: &LogQuery) -> Result<Page, LogError> {
        Ok(self.reader()?.list(query)?)
    }

    fn get(&self, id: &str) -> Result<Option<Bytes>, LogError> {
        Ok(self.reader()?.get(id)?)
    }

    fn position(&self, since: Option<i64>) -> Result<i64, LogError> {
        let reader = self.reader()?;
        Ok(match since {
            Some(since) => reader.position_since(since)?,
            None => reader.position()?,
        })
    }

    fn arrivals(&self, query: &LogQuery, after: i64) -> Result<Arrivals, LogError> {
        Ok(self.reader()?.since(query, after)?)
    }

    fn subscribe(&self) -> Box<dyn LogFollower> {
        Box::new(Follower(self.follow()))
    }
}

/// Behind by more than the channel holds it is told so.
struct Follower(Receiver<Arc<LogRow>>);

#[async_trait]
impl LogFollower for Follower {
    async fn next(&mut self) -> Option<Followed> {
        match self.0.recv().await {
            Ok(row) => Some(Followed::Row(row)),
            Err(RecvError::Lagged(missed)) => Some(Followed::Missed(missed)),
            Err(RecvError::Closed) => None,
        }
    }
}

impl From<StoreError> for LogError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Cursor(_) => Self::Query(error.to_string()),
            _ => Self::Unavailable(error.to_string()),
        }
    }
}
