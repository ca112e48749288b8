//! The request id: minted by the gateway before anything else, unique across replicas.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `msg_` and a UUIDv7: the record's `id`, the ledger's key, and `x-request-id` unless the caller sent one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(uuid::Uuid);

impl RequestId {
    /// A new id, ordered by time.
    pub fn mint() -> Self {
        Self(uuid::Uuid::now_v7())
    }

    /// The trace id of a request whose caller is in no trace: all of the UUID.
    pub fn trace_id(&self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// The id of the request's own span: the UUID's second half, 62 random bits, never zero. Whoever names the span,
    /// now or in a later process, names the same.
    pub fn span_id(&self) -> [u8; 8] {
        self.0.as_u64_pair().1.to_be_bytes()
    }

    /// Reads the text form back; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        text.strip_prefix("msg_").and_then(|id| uuid::Uuid::try_parse(id).ok()).map(Self)
    }
}

/// The text form.
impl Serialize for RequestId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From the text form.
impl<'de> Deserialize<'de> for RequestId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a request id: `msg_` and a UUID"))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "msg_{}", self.0.as_hyphenated())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::RequestId;

    #[test]
    fn text_form_round_trips_and_orders_by_time() {
        let (first, second) = (RequestId::mint(), RequestId::mint());
        assert!(first < second);
        assert!(first.to_string().starts_with("msg_"));
        assert_eq!(RequestId::parse(&first.to_string()), Some(first));
        assert_eq!(RequestId::parse("req_1"), None);
    }
}
