//! `GET /api/v1/logs/follow`: new requests as server-sent events.
//!
//! A follower first reads what is stored after its position, page by page, then listens, then looks once more: a row
//! that was stored in between is neither missed nor sent twice, since rows have numbers.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use http::HeaderMap;
use magicapi_kernel::{Followed, LogFollower, LogQuery, LogRow};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::ToSchema;

use super::{LogEntry, Params, Purpose};
use crate::error::{ApiError, ErrorBody};
use crate::plane::{FOLLOWERS, Plane};

/// How often an idle stream shows that it lives; proxies cut after 30 s and more.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Stored rows looked at in one go.
const STEP: usize = 500;

/// The data of `event: lag`.
#[derive(Serialize, ToSchema)]
pub(crate) struct LogLag {
    /// Rows that went by, of all requests; some may not have matched.
    missed: u64,
    /// The last row seen before: as `Last-Event-ID` of a new request it brings the missed ones.
    position: i64,
}

/// New requests as they end, as server-sent events
///
/// `event: log` has a row (as in the list) as `data` and its `seq` as `id`. `event: lag` says that the reader was too
/// slow and how many rows went by. `event: error` comes last, when the log can no longer be read. Comments keep the
/// stream alive. Without `Last-Event-ID` and `since` it begins with the next request.
#[utoipa::path(
    get,
    path = "/api/v1/logs/follow",
    tag = "logs",
    params(("Last-Event-ID" = Option<i64>, Header, description = "Resumes after this `seq`")),
    responses(
        (status = 200, description = "Events without end", body = LogEntry, content_type = "text/event-stream"),
        (status = 400, description = "A parameter cannot be used", body = ErrorBody),
        (status = 401, description = "No token", body = ErrorBody),
        (status = 404, description = "No request log is kept", body = ErrorBody),
        (status = 503, description = "Too many followers, or the log cannot be read now", body = ErrorBody),
    )
)]
pub(crate) async fn follow(
    State(plane): State<Arc<Plane>>,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, ApiError> {
    plane.logs()?;
    let mut query = Purpose::Follow.read(params)?;
    query.limit = Some(STEP);
    let resume = last_event_id(&headers)?;
    let turn = plane.follower_turn().ok_or_else(|| {
        ApiError::unavailable(
            "too_many_followers",
            format!("{FOLLOWERS} already follow; end one of them, or ask /api/v1/logs now and then"),
        )
    })?;
    let since = query.since.filter(|_| resume.is_none());
    let position = plane.read(move |logs| logs.position(since)).await?;
    // Beyond the end is a position of another log: who kept it would wait for numbers that come much later.
    let position = resume.map_or(position, |resume| resume.min(position));
    let ending = plane.ending.clone();
    let following = Following {
        plane,
        query,
        position,
        stored: VecDeque::new(),
        live: None,
        stage: Stage::Stored,
        ending,
        _turn: turn,
    };
    let events = stream::unfold(following, |mut following| async {
        let event = following.next().await?;
        Some((Ok::<_, Infallible>(event), following))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive")).into_response())
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, ApiError> {
    let Some(value) = headers.get("last-event-id") else {
        return Ok(None);
    };
    let position = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    position.map(Some).ok_or_else(|| {
        ApiError::bad_request("invalid_parameter", "`Last-Event-ID` is the `id` of an event received before")
    })
}

/// Where a follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It reads what is stored.
    Stored,
    /// It listens.
    Live,
    /// It has said its last.
    Ended,
}

struct Following {
    plane: Arc<Plane>,
    query: LogQuery,
    /// The last row seen.
    position: i64,
    /// Read, not yet sent.
    stored: VecDeque<LogRow>,
    live: Option<Box<dyn LogFollower>>,
    stage: Stage,
    ending: watch::Receiver<bool>,
    _turn: OwnedSemaphorePermit,
}

impl Following {
    /// The next event; `None` when the plane or the log ends.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if *self.ending.borrow() {
                return None;
            }
            if let Some(row) = self.stored.pop_front() {
                return Some(log_event(row));
            }
            match self.stage {
                Stage::Ended => return None,
                Stage::Stored => {
                    if let Err(error) = self.read_stored().await {
                        self.stage = Stage::Ended;
                        return Some(data_event("error", &error.body()));
                    }
                }
                Stage::Live => {
                    let followed = tokio::select! {
                        followed = self.live.as_mut()?.next() => followed?,
                        _ = self.ending.wait_for(|ending| *ending) => return None,
                    };
                    if let Some(event) = self.live_event(followed) {
                        return Some(event);
                    }
                }
            }
        }
    }

    /// Reads a page of what is stored. After the last one it subscribes, and looks once more before it listens.
    async fn read_stored(&mut self) -> Result<(), ApiError> {
        let (query, after) = (self.query.clone(), self.position);
        let found = self.plane.read(move |logs| logs.arrivals(&query, after)).await?;
        if found.position > after {
            self.position = found.position;
            self.stored = found.rows.into();
        } else if self.live.is_some() {
            self.stage = Stage::Live;
        } else {
            self.live = Some(self.plane.logs()?.subscribe());
        }
        Ok(())
    }

    fn live_event(&mut self, followed: Followed) -> Option<Event> {
        match followed {
            Followed::Missed(missed) => Some(data_event("lag", &LogLag { missed, position: self.position })),
            Followed::Row(row) => {
                let is_new = row.seq > self.position;
                self.position = self.position.max(row.seq);
                (is_new && self.query.matches(&row)).then(|| log_event(Arc::unwrap_or_clone(row)))
            }
        }
    }
}

fn log_event(row: LogRow) -> Event {
    let entry = LogEntry::from(row);
    data_event("log", &entry).id(entry.seq.to_string())
}

fn data_event(name: &'static str, data: &impl Serialize) -> Event {
    // These types have no maps with keys that are no text: they always become JSON.
    let event = Event::default().event(name);
    event.json_data(data).unwrap_or_else(|_| Event::default().event(name))
}
