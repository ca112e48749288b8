//! A form (`multipart/form-data`): read as far as its `model`. Where nothing else names the provider that is past its
//! files too: the caller's credential must not go by a guess.

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use magicapi_dialects::multipart::{self, Extent, Field};
use magicapi_model::{Error, ErrorKind};

use crate::body::CallerBody;
use crate::request::Share;

/// As far as a model is looked for that need not be known.
const LOOKED_AT: usize = 64 << 10;

/// How far a form is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// To its first file at most: the provider is known without.
    Leading,
    /// To its model, wherever it stands within so many bytes: it names the provider.
    Model(usize),
    /// To its end within so many bytes: a key is bound to models, and only what was read whole names no second one.
    Whole(usize),
}

impl Reach {
    const fn most(self) -> usize {
        match self {
            Self::Leading => LOOKED_AT,
            Self::Model(most) | Self::Whole(most) => most,
        }
    }
}

/// A form whose beginning was read.
pub(crate) struct Form {
    /// What was read.
    pub(crate) beginning: Bytes,
    /// What was not.
    pub(crate) rest: CallerBody,
    /// The beginning's share of the budget.
    pub(crate) share: Share,
    model: Option<Range<usize>>,
    one_model: bool,
}

impl Form {
    /// Reads as far as that.
    pub(crate) async fn open(
        content_type: &str,
        mut rest: CallerBody,
        mut share: Share,
        reach: Reach,
        received: &mut u64,
    ) -> Result<Self, Error> {
        let mut beginning = BytesMut::new();
        // The beginning is looked at anew only after it has grown by a part of itself: single bytes cost no more.
        let mut next_look = 0;
        let (field, whole) = loop {
            let piece = rest.piece(received).await.transpose()?;
            if let Some(piece) = &piece {
                share.grow(piece.len())?;
                beginning.extend_from_slice(piece);
            }
            let over = beginning.len() > reach.most();
            let whole = piece.is_none() && !over;
            let goes_on = piece.is_some() && !over;
            if goes_on && (beginning.len() < next_look || matches!(reach, Reach::Whole(_))) {
                continue;
            }
            next_look = beginning.len() + beginning.len() / 8;
            // However it is cut into pieces, the same form gives the same model.
            let looked_at = beginning.get(..reach.most()).unwrap_or(&beginning);
            let extent = Extent { whole, past_files: reach != Reach::Leading };
            let field = multipart::field(content_type, looked_at, "model", extent);
            if field != Field::Unknown || !goes_on {
                break (field, whole);
            }
        };
        let model = match field {
            Field::Value(model) => Some(model),
            Field::Unknown if reach != Reach::Leading => return Err(out_of_reach(reach.most())),
            Field::Missing | Field::Unknown => None,
        };
        let one_model = whole
            && matches!(reach, Reach::Whole(_))
            && multipart::has_one(content_type, &beginning, "model");
        let form = Self { beginning: beginning.freeze(), rest, share, model, one_model };
        if reach != Reach::Leading && form.is_unreadable() {
            let message = "the form's `model` is not one line of UTF-8 text; send the model's name as it is";
            return Err(Error::client(ErrorKind::InvalidRequest, message).param("model"));
        }
        Ok(form)
    }

    /// The model, when it can be one.
    pub(crate) fn model(&self) -> Option<&str> {
        let value = self.beginning.get(self.model.clone()?)?;
        std::str::from_utf8(value).ok().filter(|model| !model.is_empty() && !model.contains(char::is_control))
    }

    /// Whether nobody can find another model in it.
    pub(crate) const fn has_one_model(&self) -> bool {
        self.one_model
    }

    /// Whether something stands where the model belongs that is none.
    fn is_unreadable(&self) -> bool {
        self.model().is_none() && self.model.as_ref().is_some_and(|model| !model.is_empty())
    }

    /// What was read with this model in the place of the one that was written, if that is a change.
    pub(crate) fn with_model(&self, model: &str) -> Option<Vec<Bytes>> {
        let span = self.model.clone().filter(|_| self.model().is_some_and(|written| written != model))?;
        let model = Bytes::copy_from_slice(model.as_bytes());
        Some(vec![self.beginning.slice(..span.start), model, self.beginning.slice(span.end..)])
    }
}

fn out_of_reach(most: usize) -> Error {
    let message = format!(
        "the form's `model`, which names its provider, is not in its first {most} bytes (`server.limits.body`) or stands \
         behind too many parts; send `model` before the file, or name the provider with `x-provider`"
    );
    Error::client(ErrorKind::BodyTooLarge, message).param("model")
}
