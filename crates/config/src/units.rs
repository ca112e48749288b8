//! Durations (`30s`), sizes (`64MiB`) and limits (`10m` or `none`): their syntax, their schema, and how they are shown.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};

const DURATION_PATTERN: &str = "^([0-9]+(ms|s|m|h|d))+$";
const SIZE_PATTERN: &str = "^[0-9]+ ?(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)$";

const TIMES: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// What is expected of a duration.
pub(crate) const DURATION: &str = "a duration such as `500ms`, `30s`, `10m`, `1h` or `7d`";
/// What is expected of a size.
pub(crate) const SIZE: &str = "a size such as `512KiB`, `64MiB` or `1GiB`, or a whole number of bytes";

/// A duration as the user writes it.
#[derive(Clone, Copy)]
pub(crate) struct Span(pub(crate) Duration);

/// A size in bytes as the user writes it.
#[derive(Clone, Copy)]
pub(crate) struct Size(pub(crate) u64);

/// A duration or `none`.
#[derive(Clone, Copy)]
pub(crate) struct Limit(pub(crate) Option<Duration>);

/// Reads `30s`, `1h30m`.
pub fn duration(text: &str) -> Option<Duration> {
    magicapi_plugin::Span::parse(text).map(|span| span.0)
}

/// Reads `64MiB`, `1MB`, `4096`.
pub(crate) fn size(text: &str) -> Option<u64> {
    magicapi_plugin::Size::parse(text).map(|size| size.0)
}

/// The shortest form of a duration.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let unit = TIMES.iter().find(|(_, unit)| millis > 0 && millis.is_multiple_of(*unit));
    unit.map_or_else(|| "0s".into(), |(name, unit)| format!("{}{name}", millis / unit))
}

/// The shortest form of a size.
pub(crate) fn show_size(bytes: u64) -> String {
    let unit = SIZES.iter().find(|(name, unit)| {
        bytes > 0 && bytes.is_multiple_of(*unit) && (name.ends_with("iB") || *name == "B")
    });
    match unit {
        Some((name, unit)) if *unit > 1 => format!("{}{name}", bytes / unit),
        _ => bytes.to_string(),
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        duration(&text).map(Self).ok_or_else(|| de::Error::custom(format!("expected {DURATION}")))
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        if text == "none" {
            return Ok(Self(None));
        }
        let duration = duration(&text).map(|duration| Self(Some(duration)));
        duration.ok_or_else(|| de::Error::custom(format!("expected {DURATION}, or `none`")))
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
        match Written::deserialize(deserializer)? {
            Written::Bytes(bytes) => Ok(Self(bytes)),
            Written::Text(text) => {
                size(&text).map(Self).ok_or_else(|| de::Error::custom(format!("expected {SIZE}")))
            }
        }
    }
}

macro_rules! schema {
    ($type:ty, $name:literal, $schema:expr) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
}

schema!(
    Span,
    "Duration",
    json_schema!({ "type": "string", "format": "duration", "pattern": DURATION_PATTERN })
);
schema!(
    Limit,
    "Limit",
    json_schema!({ "type": "string", "format": "limit", "pattern": format!("^none$|{DURATION_PATTERN}") })
);
schema!(
    Size,
    "Size",
    json_schema!({ "type": ["string", "integer"], "format": "size", "minimum": 0, "pattern": SIZE_PATTERN })
);

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{duration, show_duration, show_size, size};

    #[test]
    fn durations() {
        let cases = [("500ms", 500), ("30s", 30_000), ("1h30m", 5_400_000), ("7d", 604_800_000), ("0s", 0)];
        for (text, millis) in cases {
            assert_eq!(duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "30", "s", "1.5s", "-1s", "1 h", "1w", "99999999999999999999s", "99999999999999999d"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(show_duration(Duration::from_mins(10)), "10m");
        assert_eq!(show_duration(Duration::from_millis(1500)), "1500ms");
        assert_eq!(show_duration(Duration::ZERO), "0s");
    }

    #[test]
    fn sizes() {
        let cases = [
            ("512KiB", 524_288),
            ("1MB", 1_000_000),
            ("1 GiB", 1 << 30),
            ("4096", 4096),
            ("64mib", 64 << 20),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "64M", "-1", "1.5GiB", "99999999TiB"] {
            assert_eq!(size(text), None, "{text}");
        }
        assert_eq!(
            (show_size(64 << 20), show_size(1_000_000), show_size(0)),
            ("64MiB".into(), "1000000".into(), "0".into())
        );
    }
}
