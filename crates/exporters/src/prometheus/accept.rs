//! Which form of the page a scraper wants.

/// A form of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// The text format 0.0.4 that every scraper reads.
    Text,
    /// Protobuf, delimited by lengths: the one form so far that has native histograms.
    Protobuf,
}

/// Protobuf when the header asks for it at least as much as for anything else, which Prometheus does once it takes native
/// histograms; OpenMetrics when it asks for a version that is this one in substance, at least as much as for plain text;
/// else plain text, also when nothing fits: a page that can be read beats an error.
pub(super) fn negotiate(accept: &str) -> Format {
    let (mut protobuf, mut open_metrics, mut text) = (0.0_f32, 0.0_f32, 0.0_f32);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let (mut weight, mut version, mut message) = (1.0_f32, "", ("", ""));
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim() {
                name if name.eq_ignore_ascii_case("q") => weight = value.parse().unwrap_or(0.0),
                name if name.eq_ignore_ascii_case("version") => version = value,
                name if name.eq_ignore_ascii_case("proto") => message.0 = value,
                name if name.eq_ignore_ascii_case("encoding") => message.1 = value,
                _ => {}
            }
        }
        if media.eq_ignore_ascii_case("application/openmetrics-text")
            && ["", "0.0.1", "1.0.0"].contains(&version)
        {
            open_metrics = weight.max(open_metrics);
        } else if media.eq_ignore_ascii_case("text/plain") {
            text = weight.max(text);
        } else if media.eq_ignore_ascii_case("application/vnd.google.protobuf")
            && message == ("io.prometheus.client.MetricFamily", "delimited")
        {
            protobuf = weight.max(protobuf);
        }
    }
    if protobuf > 0.0 && protobuf >= open_metrics.max(text) {
        return Format::Protobuf;
    }
    if open_metrics > 0.0 && open_metrics >= text { Format::OpenMetrics } else { Format::Text }
}
