//! Durations and sizes in settings, written as everywhere in the file: `30s`, `1h30m`, `64MiB`.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

const SIZES: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A duration, such as `500ms`, `30s`, `10m`, `1h30m` or `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A size in bytes, such as `512KiB`, `64MiB`, `1GB`, or a whole number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub u64);

impl Span {
    /// Reads `30s`, `1h30m`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text.trim();
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (number, tail) = leading_number(rest)?;
            let (unit, tail) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
            let (_, millis) = TIMES.iter().find(|(name, _)| *name == unit)?;
            total = total.checked_add(number.checked_mul(*millis)?)?;
            rest = tail;
        }
        (!text.trim().is_empty()).then(|| Self(Duration::from_millis(total)))
    }
}

impl Size {
    /// Reads `64MiB`, `1MB`, `4096`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = leading_number(text.trim())?;
        let unit = unit.trim();
        let (_, bytes) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
        number.checked_mul(*bytes).map(Self)
    }
}

fn leading_number(text: &str) -> Option<(u64, &str)> {
    let (digits, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    Some((digits.parse().ok()?, rest))
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            de::Error::custom("expected a duration such as `500ms`, `30s`, `10m`, `1h` or `7d`")
        })
    }
}

/// As a duration in milliseconds, which every other unit is a multiple of.
impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}ms", self.0.as_millis()))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Bytes(u64),
            Text(String),
        }
        let size = match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => Some(Self(bytes)),
            Written::Text(text) => Self::parse(&text),
        };
        size.ok_or_else(|| de::Error::custom("expected a size such as `512KiB`, `64MiB` or `1GiB`"))
    }
}

/// As a number of bytes.
impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "duration", "pattern": "^([0-9]+(ms|s|m|h|d))+$" })
    }
}

impl JsonSchema for Size {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let pattern = "^[0-9]+ ?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$";
        json_schema!({ "type": ["string", "integer"], "format": "size", "minimum": 0, "pattern": pattern })
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, Size, Span};

    #[test]
    fn durations_and_sizes() {
        let cases = [("500ms", 500), ("30s", 30_000), ("1h30m", 5_400_000), ("7d", 604_800_000), ("0s", 0)];
        for (text, millis) in cases {
            assert_eq!(Span::parse(text), Some(Span(Duration::from_millis(millis))), "{text}");
            let json = serde_json::to_string(&Span::parse(text)).expect("json");
            assert_eq!(serde_json::from_str::<Span>(&json).expect("a span"), Span::parse(text).expect("one"));
        }
        for text in ["", "30", "s", "1.5s", "-1s", "1 h", "1w", "99999999999999999d"] {
            assert_eq!(Span::parse(text), None, "{text}");
        }
        let cases = [("512KiB", 524_288), ("1MB", 1_000_000), ("1 GiB", 1 << 30), ("4096", 4096), ("7B", 7)];
        for (text, bytes) in cases {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
        }
        for text in ["", "64X", "-1", "1.5GiB", "1KKiB", "99999999TiB", "5iB", "5BB"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
        assert_eq!(serde_json::from_str::<Size>("7").expect("a size"), Size(7));
    }
}
