//! Values as the columns hold them: texts clipped, unknown as NULL, numbers that saturate; and the way back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use magicapi_model::Money;
use rusqlite::types::{ToSqlOutput, ValueRef};

/// What one text of a row may take. Names and ids are shorter; what callers make up need not be, and a list must
/// stay quick. The document keeps it whole.
const MAX_TEXT: usize = 1024;

/// A value for a statement; texts are borrowed.
pub(crate) type Bound<'v> = ToSqlOutput<'v>;

pub(crate) fn text(text: &str) -> Bound<'_> {
    clip(text).into()
}

pub(crate) fn maybe(known: Option<&str>) -> Bound<'_> {
    known.map_or(ToSqlOutput::Borrowed(ValueRef::Null), text)
}

pub(crate) fn whole(number: impl Into<i64>) -> Bound<'static> {
    number.into().into()
}

pub(crate) fn count(known: Option<u64>) -> Bound<'static> {
    known.map_or(ToSqlOutput::Borrowed(ValueRef::Null), |count| whole(integer(count)))
}

pub(crate) fn amount(known: Option<Money>) -> Bound<'static> {
    known.map_or(ToSqlOutput::Borrowed(ValueRef::Null), |cost| whole(pico(cost)))
}

/// The text up to [`MAX_TEXT`] bytes, cut between characters.
pub(crate) fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

/// Unix milliseconds; 0 for a clock before 1970.
pub(crate) fn unix_ms(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// The way back.
pub(crate) fn time(unix_ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(unsigned(unix_ms))
}

/// Numbers beyond SQLite's largest integer become it.
pub(crate) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The way back; no column holds negative counts.
pub(crate) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// 10⁻¹² US dollars; amounts beyond nine million dollars become that.
fn pico(cost: Money) -> i64 {
    i64::try_from(cost.pico_usd()).unwrap_or(i64::MAX)
}

/// The way back.
pub(crate) fn money(pico: Option<i64>) -> Option<Money> {
    pico.map(|units| Money::from_pico_usd(units.into()))
}
