//! A form (`multipart/form-data`): read as far as its `model`, which most clients send before the file; the file itself
//! is never collected.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use magicapi_dialects::multipart::{self, Field};
use magicapi_model::Error;

use crate::body::CallerBody;
use crate::request::Share;

/// As far as a model is looked for.
const LOOKED_AT: usize = 64 << 10;

/// A form whose beginning was read.
pub(crate) struct Form {
    /// What was read.
    pub(crate) beginning: Bytes,
    /// What was not.
    pub(crate) rest: CallerBody,
    /// The beginning's share of the budget.
    pub(crate) share: Share,
    model: Option<Range<usize>>,
}

impl Form {
    /// Reads until the model's part has ended, or a file or too much has come.
    pub(crate) async fn open(
        content_type: &str,
        mut rest: CallerBody,
        mut share: Share,
        received: &mut u64,
    ) -> Result<Self, Error> {
        let mut beginning = BytesMut::new();
        // The beginning is looked at anew only after it has grown by a part of itself: single bytes cost no more.
        let mut next_look = 0;
        let field = loop {
            let piece = rest.piece(received).await.transpose()?;
            if let Some(piece) = &piece {
                share.grow(piece.len())?;
                beginning.extend_from_slice(piece);
            }
            let over = beginning.len() > LOOKED_AT;
            if piece.is_some() && !over && beginning.len() < next_look {
                continue;
            }
            next_look = beginning.len() + beginning.len() / 8;
            // However it is cut into pieces, the same form gives the same model.
            let looked_at = beginning.get(..LOOKED_AT).unwrap_or(&beginning);
            let whole = piece.is_none() && !over;
            let field = multipart::leading_field(content_type, looked_at, "model", whole);
            if field != Field::Unknown || over {
                break field;
            }
        };
        let model = match field {
            Field::Value(model) => Some(model),
            Field::BehindFiles | Field::Unknown => None,
        };
        Ok(Self { beginning: beginning.freeze(), rest, share, model })
    }

    /// The model, when it can be one.
    pub(crate) fn model(&self) -> Option<&str> {
        let value = self.beginning.get(self.model.clone()?)?;
        std::str::from_utf8(value).ok().filter(|model| !model.is_empty() && !model.contains(char::is_control))
    }

    /// Puts this model in the place of the one that was written; whether that is a change.
    pub(crate) fn set_model(&mut self, model: &str) -> bool {
        let Some(span) = self.model.clone().filter(|_| self.model().is_some_and(|written| written != model))
        else {
            return false;
        };
        let (before, after) = (self.beginning.get(..span.start), self.beginning.get(span.end..));
        let edited = [before.unwrap_or_default(), model.as_bytes(), after.unwrap_or_default()].concat();
        self.model = Some(span.start..span.start + model.len());
        self.beginning = edited.into();
        true
    }
}
