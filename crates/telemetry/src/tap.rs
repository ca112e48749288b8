//! The tap: what the request path holds of telemetry (invariant 6).
//!
//! Synchronous, bounded, never waiting: bodies are shared or copied into blocks that the memory budget has room for, and
//! everything is sent once, at the end, to the assembly threads. When a bound is reached the record loses bodies, never
//! numbers, and says so.

use std::sync::Arc;

use bytes::Bytes;
use magicapi_plugin::{ContentLevel, Facts, Secret};

use crate::core::Core;
use crate::memory::Reservation;
use crate::metrics::DropReason;
use crate::settings::CaptureSettings;

/// What a record occupies beside its bodies (as [`magicapi_plugin::RequestMetrics::memory`] counts it).
pub(crate) const RECORD_BYTES: usize = 2048;

/// The first block of a streamed body, and the largest.
const BLOCK_BYTES: (usize, usize) = (4 << 10, 256 << 10);

/// What a response body is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyKind {
    /// One document, or whatever its content type says.
    #[default]
    Whole,
    /// Server-sent events: joined, each kept.
    EventStream,
    /// Anything else that was passed through.
    Other,
}

/// How a request ended: every number is already computed.
#[derive(Clone)]
pub struct Finished {
    /// Everything but the bodies. What the capture leaves out is noted in it by the pipeline.
    pub facts: Facts,
    /// The request's `Content-Type`.
    pub request_type: Option<String>,
    /// The request's `Content-Encoding`, as its captured bytes have it.
    pub request_coding: Option<String>,
    /// The response's `Content-Type`.
    pub response_type: Option<String>,
    /// The response's `Content-Encoding`, as its captured bytes have it.
    pub response_coding: Option<String>,
    /// What the response body is.
    pub response_kind: BodyKind,
    /// The key that the caller presented. It may repeat it, and so may a provider that got it: no record shows it,
    /// whatever its form.
    pub caller_key: Option<Secret>,
}

impl Finished {
    /// An end with these facts and nothing known of the bodies.
    pub fn new(facts: Facts) -> Self {
        Self {
            facts,
            request_type: None,
            request_coding: None,
            response_type: None,
            response_coding: None,
            response_kind: BodyKind::Whole,
            caller_key: None,
        }
    }
}

/// One request's tap. Dropped without [`Tap::finish`] it gives its memory back and leaves no record.
#[derive(Default)]
pub struct Tap(Option<Box<Capture>>);

/// What a tap has gathered.
pub(crate) struct Capture {
    pub(crate) core: Arc<Core>,
    pub(crate) limits: CaptureSettings,
    pub(crate) share: Reservation,
    pub(crate) request: Captured,
    pub(crate) response: Captured,
    /// The budget was used up while bodies came.
    pub(crate) starved: bool,
}

/// One body as it was captured.
#[derive(Default)]
pub(crate) struct Captured {
    /// In order; one block when the body was shared.
    pub(crate) blocks: Vec<Block>,
    /// Bytes that are not in `blocks`.
    pub(crate) left_out: u64,
    length: usize,
}

/// A piece of a body.
pub(crate) enum Block {
    Shared(Bytes),
    Copied(Vec<u8>),
}

impl Block {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Shared(bytes) => bytes,
            Self::Copied(bytes) => bytes,
        }
    }
}

/// A tap's message to the assembly threads.
pub(crate) struct Pending {
    pub(crate) capture: Box<Capture>,
    pub(crate) end: Finished,
}

impl Tap {
    pub(crate) fn new(core: &Arc<Core>, limits: CaptureSettings) -> Self {
        Self(Some(Box::new(Capture {
            share: Reservation::empty(core.budget()),
            core: core.clone(),
            limits,
            request: Captured::default(),
            response: Captured::default(),
            starved: false,
        })))
    }

    /// A tap that records nothing.
    pub fn off() -> Self {
        Self(None)
    }

    /// The request is admitted: from here on a durable pipeline ([`crate::TelemetrySettings::durable`]) has a record of
    /// it, whatever becomes of the process. Does nothing in any other. `caller_key`: as in [`Finished`].
    pub fn open(&mut self, facts: &Facts, caller_key: Option<&Secret>) {
        if let Some(capture) = self.0.as_deref_mut()
            && let Some(journal) = capture.core.journal()
        {
            let kept = journal.open(facts, caller_key);
            capture.share.keep(kept);
        }
    }

    /// The whole request body, shared by reference: it must have an allocation of its own.
    pub fn request(&mut self, whole: Bytes) {
        if let Some(capture) = self.bodies() {
            let limit = capture.limits.max_request;
            capture.starved |= !capture.request.share(whole, limit, &mut capture.share, capture.starved);
        }
    }

    /// A piece of a streamed request body; copied.
    pub fn request_chunk(&mut self, chunk: &[u8]) {
        if let Some(capture) = self.bodies() {
            let limit = capture.limits.max_request;
            capture.starved |= !capture.request.copy(chunk, limit, &mut capture.share, capture.starved);
        }
    }

    /// The whole answer, shared by reference: it must have an allocation of its own.
    pub fn response(&mut self, whole: Bytes) {
        if let Some(capture) = self.bodies() {
            let limit = capture.limits.max_response;
            capture.starved |= !capture.response.share(whole, limit, &mut capture.share, capture.starved);
        }
    }

    /// A piece of an answer as the provider sent it, before any edit of ours; copied.
    pub fn response_chunk(&mut self, chunk: &[u8]) {
        if let Some(capture) = self.bodies() {
            // Which limit is the answer's is known at its end; until then the larger one holds.
            let limit = capture.limits.max_response.max(capture.limits.max_chunks);
            capture.starved |= !capture.response.copy(chunk, limit, &mut capture.share, capture.starved);
        }
    }

    /// Sends what was gathered to the assembly threads. Never blocks.
    pub fn finish(self, end: Finished) {
        if let Some(mut capture) = self.0 {
            let core = capture.core.clone();
            if capture.make_room() {
                core.hand_over(Box::new(Pending { capture, end }));
            } else {
                core.lose(&end, DropReason::Memory);
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn into_capture(self) -> Box<Capture> {
        self.0.expect("an open tap")
    }

    fn bodies(&mut self) -> Option<&mut Capture> {
        self.0.as_deref_mut().filter(|capture| capture.limits.bodies > ContentLevel::Metadata)
    }
}

impl Capture {
    /// Reserves the record itself, at the price of its own bodies if need be.
    fn make_room(&mut self) -> bool {
        if self.share.grow_for_record(RECORD_BYTES) {
            return true;
        }
        self.drop_bodies();
        self.share.grow_for_record(RECORD_BYTES)
    }

    /// Gives all bodies up for want of memory.
    pub(crate) fn drop_bodies(&mut self) {
        self.starved = true;
        self.request = Captured::default();
        self.response = Captured::default();
        self.share.shrink_to(0);
    }
}

impl Captured {
    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Bytes captured.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Keeps a reference; `false` when the budget has no room for it.
    fn share(&mut self, mut whole: Bytes, limit: usize, share: &mut Reservation, starved: bool) -> bool {
        // What is shared stays whole in memory, also the part past the limit.
        if starved || !share.grow_for_content(whole.len()) {
            self.left_out += whole.len() as u64;
            return false;
        }
        let fits = whole.len().min(limit.saturating_sub(self.length));
        self.left_out += (whole.len() - fits) as u64;
        self.length += fits;
        whole.truncate(fits);
        self.blocks.push(Block::Shared(whole));
        true
    }

    /// Copies as much as the limit and the budget allow; `false` when the budget has no room for it.
    fn copy(&mut self, chunk: &[u8], limit: usize, share: &mut Reservation, starved: bool) -> bool {
        let fits = chunk.len().min(limit.saturating_sub(self.length));
        let (fitting, over) = chunk.split_at(fits);
        self.left_out += over.len() as u64;
        if starved {
            self.left_out += fitting.len() as u64;
            return false;
        }
        let rest = match self.blocks.last_mut() {
            Some(Block::Copied(block)) => {
                let (now, rest) = fitting.split_at(fitting.len().min(block.capacity() - block.len()));
                block.extend_from_slice(now);
                rest
            }
            _ => fitting,
        };
        self.length += fitting.len() - rest.len();
        rest.is_empty() || self.open_block(rest, limit, share)
    }

    /// Begins a block with `rest`. Blocks grow with the body, so that a small one wastes little and a large one is
    /// never copied a second time here.
    fn open_block(&mut self, rest: &[u8], limit: usize, share: &mut Reservation) -> bool {
        let room = limit.saturating_sub(self.length);
        let size = self.length.clamp(BLOCK_BYTES.0, BLOCK_BYTES.1).min(room).max(rest.len());
        if !share.grow_for_content(size) {
            self.left_out += rest.len() as u64;
            return false;
        }
        let mut block = Vec::with_capacity(size);
        block.extend_from_slice(rest);
        self.length += rest.len();
        self.blocks.push(Block::Copied(block));
        true
    }
}
