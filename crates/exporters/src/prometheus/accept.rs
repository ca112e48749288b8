//! Which form of the page a scraper wants.

/// A form of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4 that every scraper reads.
    Text,
}

/// OpenMetrics when the header asks for a version of it that is this one in substance, at least as much as for plain
/// text; else plain text, also when nothing fits: a page that can be read beats an error.
pub(super) fn negotiate(accept: &str) -> Format {
    let (mut open_metrics, mut text) = (0.0_f32, 0.0_f32);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let (mut weight, mut version) = (1.0_f32, "");
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim() {
                name if name.eq_ignore_ascii_case("q") => weight = value.parse().unwrap_or(0.0),
                name if name.eq_ignore_ascii_case("version") => version = value,
                _ => {}
            }
        }
        if media.eq_ignore_ascii_case("application/openmetrics-text")
            && ["", "0.0.1", "1.0.0"].contains(&version)
        {
            open_metrics = weight.max(open_metrics);
        } else if media.eq_ignore_ascii_case("text/plain") {
            text = weight.max(text);
        }
    }
    if open_metrics > 0.0 && open_metrics >= text { Format::OpenMetrics } else { Format::Text }
}
