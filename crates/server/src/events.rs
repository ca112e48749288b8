//! What a provider's event stream says, and which of its bytes go on: framing, reading and undoing a coding, with no
//! socket and no clock. `stream.rs` drives it.

use bytes::Bytes;
use http::{HeaderMap, header};
use magicapi_dialects::encoding::Coding;
use magicapi_dialects::openai_chat::{EventFacts, Operation, StreamFacts, StreamReader};
use magicapi_dialects::sse::{Event, Framer, Verdict};

use crate::exchange::Learned;
use crate::request::Share;
use crate::unpack::Unpacker;

/// A larger event is handed on as read.
const RELAYED_WHOLE: usize = 1 << 20;

/// A larger event is not read: what it says of usage and finish stays unknown.
const READ: usize = 16 << 20;

/// How far a piece of a stream brings the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Said {
    /// Nothing but what keeps the connection open.
    #[default]
    Nothing,
    /// An event, but no progress: a chunk that only names the role.
    Event,
    /// Progress.
    Word,
    /// The answer is over.
    End,
}

/// One chunk of the provider's, read.
pub(crate) struct Piece {
    /// What goes to the client now.
    pub(crate) bytes: Bytes,
    /// How much of the chunk belongs to the answer: the rest followed its end.
    pub(crate) answer: usize,
    pub(crate) said: Said,
}

/// A provider's events.
pub(crate) struct Events {
    framer: Framer,
    reader: StreamReader,
    /// Undoes a content coding that nobody asked for, beside the relay.
    unpacker: Option<Unpacker>,
    /// The stream of a path that is passed through: its grammar is not ours to judge, so nothing is left out or added.
    foreign: bool,
    /// What the framer sets aside takes of the budget for held bodies.
    aside: Share,
}

/// Hears a chunk's events.
struct Listener<'r> {
    reader: &'r mut StreamReader,
    foreign: bool,
    said: Said,
    /// Bytes of events after the end.
    late: usize,
}

impl Listener<'_> {
    fn hear(&mut self, event: &Event<'_>) -> Verdict {
        if self.said == Said::End {
            self.late += event.raw.len();
        }
        let EventFacts { verdict, semantic, terminal } = self.reader.read(event);
        let (said, verdict) = match (self.foreign, terminal, semantic) {
            (true, ..) => (Said::Word, Verdict::Forward),
            (_, true, _) => (Said::End, verdict),
            (_, _, true) => (Said::Word, verdict),
            _ if event.has_data => (Said::Event, verdict),
            _ => (Said::Nothing, verdict),
        };
        self.said = self.said.max(said);
        verdict
    }
}

impl Events {
    /// The events of an answer with these headers. `asked_usage`: the usage event is ours to hide.
    pub(crate) fn new(operation: Operation, headers: &HeaderMap, asked_usage: bool, aside: Share) -> Self {
        let coding = headers
            .get(header::CONTENT_ENCODING)
            .map(|value| value.to_str().ok().and_then(Coding::parse))
            .filter(|coding| *coding != Some(Coding::Identity));
        Self {
            framer: Framer::new(RELAYED_WHOLE).reading(READ),
            reader: StreamReader::new(asked_usage),
            unpacker: coding.map(Unpacker::new),
            foreign: matches!(operation, Operation::Other | Operation::Files | Operation::Batches),
            aside,
        }
    }

    /// What was read so far.
    pub(crate) fn facts(&self) -> &StreamFacts {
        self.reader.facts()
    }

    /// Reads a chunk as the provider sent it.
    pub(crate) fn take(&mut self, chunk: Bytes) -> Piece {
        let mut listener =
            Listener { reader: &mut self.reader, foreign: self.foreign, said: Said::Nothing, late: 0 };
        let length = chunk.len();
        let piece = if let Some(unpacker) = &mut self.unpacker {
            let mut oversize = false;
            unpacker.feed(&chunk, |plain| {
                oversize |= self.framer.relay(plain, |event| listener.hear(event)).oversize;
            });
            let heard = oversize || !unpacker.reads();
            // The end of the events is not that of the coding: the provider closes the stream.
            let said = listener.said.min(Said::Word).max(if heard { Said::Event } else { Said::Nothing });
            Piece { bytes: chunk, answer: length, said }
        } else {
            let relayed = self.framer.relay(chunk, |event| listener.hear(event));
            let said = listener.said.max(if relayed.oversize { Said::Event } else { Said::Nothing });
            let (mut bytes, mut late) = (relayed.bytes, 0);
            if said == Said::End {
                // What follows the end is no part of the answer, and whether it came in the same read is chance.
                late = listener.late + self.framer.buffered();
                if bytes.ends_with(b"\r\n\r") {
                    // The last LF is still on its way, and nobody will wait for it.
                    bytes = [&bytes, b"\n".as_slice()].concat().into();
                }
            }
            Piece { bytes, answer: length.saturating_sub(late), said }
        };
        self.account();
        piece
    }

    /// What is set aside counts; when there is no room for it, it goes unread.
    fn account(&mut self) {
        while self.aside.resize(self.framer.aside()).is_err() {
            self.framer.forget();
        }
    }

    /// The provider closed the stream: what of it is still to be sent.
    pub(crate) fn finish(&mut self) -> [Bytes; 2] {
        let mut listener =
            Listener { reader: &mut self.reader, foreign: self.foreign, said: Said::Nothing, late: 0 };
        let rest = self.framer.finish(|event| listener.hear(event));
        self.account();
        if self.unpacker.is_some() {
            return [Bytes::new(), Bytes::new()];
        }
        [rest.bytes, Bytes::from_static(rest.missing_end)]
    }

    /// Leaves out an event that is not whole, so that one of ours can follow; gives what ends the one that was passing.
    pub(crate) fn break_off(&mut self) -> Bytes {
        Bytes::from_static(self.framer.finish(|_| Verdict::Drop).missing_end)
    }

    /// Whether an error frame or a terminator may be added: not to compressed bytes, nor to a grammar that is not ours.
    /// Such a stream can only be cut.
    pub(crate) const fn takes_ours(&self) -> bool {
        self.unpacker.is_none() && !self.foreign
    }

    /// Whether a heartbeat may be sent now.
    pub(crate) fn takes_heartbeat(&self) -> bool {
        self.takes_ours() && self.framer.between_events()
    }

    /// Whether the answer is whole but for a usage event or `[DONE]`.
    pub(crate) fn is_finished(&self) -> bool {
        !self.foreign && self.reader.facts().saw_finish
    }

    /// Whether the provider may close the stream now. What could not be read cannot be found wanting: the transfer was
    /// whole.
    pub(crate) fn may_close(&self, operation: Operation) -> bool {
        let unreadable = self.unpacker.as_ref().is_some_and(|unpacker| !unpacker.reads());
        let facts = self.facts();
        unreadable || !must_terminate(operation) || facts.error.is_some() || facts.is_complete()
    }

    /// Whether the terminator is missing.
    pub(crate) fn lacks_done(&self, operation: Operation) -> bool {
        operation.ends_with_done() && !self.facts().saw_done && self.takes_ours()
    }

    /// What the answer said of itself.
    pub(crate) fn learned(&self) -> Learned {
        let facts = self.facts();
        Learned {
            usage: facts.usage,
            complete: facts.is_complete() && !facts.usage_is_stale,
            service_tier: facts.service_tier.clone(),
            finish_reasons: facts
                .finish_reasons
                .iter()
                .filter_map(|choice| choice.finish_reason.clone())
                .collect(),
        }
    }
}

/// Whether an end without a terminator is an error here. Other streams have no terminator that we know of.
const fn must_terminate(operation: Operation) -> bool {
    matches!(operation, Operation::Chat | Operation::Completions | Operation::Responses)
}
