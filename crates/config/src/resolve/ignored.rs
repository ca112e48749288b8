//! Variables that are set and not read: said in `check`, never a reason not to start.

use std::collections::BTreeSet;

use crate::context::Context;
use crate::types::{Config, Source};

/// Variables of the gateway that this version does not read yet; many containers set them for other programs.
const NOT_YET: [&str; 10] = [
    "DATABASE_URL",
    "REDIS_URL",
    "POSTGRES_URL",
    "POSTGRES_TABLE",
    "DD_API_KEY",
    "DD_SITE",
    "NEW_RELIC_LICENSE_KEY",
    "NEW_RELIC_REGION",
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
    "OTEL_METRIC_EXPORT_TIMEOUT",
];

/// The variables that this crate reads by itself; those of providers and plug-ins come on top.
const OWN: [&str; 23] = [
    "HOST",
    "PORT",
    "ADMIN_LISTEN",
    "ADMIN_TOKEN",
    "MAGICAPI_CONFIG",
    "DATA_DIR",
    "STATE_DIRECTORY",
    "RUST_LOG",
    "LOG_FORMAT",
    "ENABLED_EXPORTERS",
    "ENABLE_ELASTICSEARCH",
    "OTEL_SERVICE_NAME",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_METRIC_EXPORT_INTERVAL",
    "DEPLOYMENT_ENVIRONMENT",
    "GATEWAY_API_KEYS",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "https_proxy",
    "http_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
];

pub(super) fn variables(cx: &mut Context<'_>, config: &Config) {
    let (env, catalogue) = (cx.env, cx.catalogue);
    let of_catalogue: BTreeSet<&str> = catalogue.variables().collect();
    let not_yet = NOT_YET.into_iter().filter(|name| !of_catalogue.contains(name));
    for name in not_yet.filter(|name| env.get(name).is_some()) {
        cx.unread(name, "set but not read by this version");
    }
    unused_settings(cx, config);
    let read: BTreeSet<&str> = OWN.into_iter().chain(of_catalogue).collect();
    for name in read.iter().filter(|name| env.is_unreadable(name)) {
        cx.variable_problem(name, "", "is not UTF-8 text");
    }
    let known: BTreeSet<&str> = read.into_iter().chain(NOT_YET).collect();
    for name in env.names().filter(|name| !known.contains(name)) {
        if let Some(meant) = known.iter().find(|known| is_slip(name, known) && env.get(known).is_none()) {
            cx.unread(name, format!("set but not read: no variable has this name; did you mean `{meant}`?"));
        }
    }
}

/// Whether `name` is most likely `known` misspelt: another case or other underscores, or one slip in a long name.
/// Environments are full of other programs' variables, and short names are near to each other by chance.
fn is_slip(name: &str, known: &str) -> bool {
    const LONG: usize = 12;
    let bare = |name: &str| name.replace(['_', '-'], "").to_ascii_uppercase();
    bare(name) == bare(known) || (known.len() >= LONG && strsim::osa_distance(name, known) == 1)
}

/// Variables of exporters that are not on, or that the file lists: there the file alone counts.
fn unused_settings(cx: &mut Context<'_>, config: &Config) {
    let catalogue = cx.catalogue;
    for plugin in catalogue.plugins() {
        let entry = config.telemetry.exporters.iter().find(|entry| entry.kind == plugin.name);
        let reason = match entry.map(|entry| entry.source) {
            Some(Source::Environment | Source::Default) => continue,
            Some(Source::File { .. }) => {
                "set but not read: an exporter that the file lists has its settings from there alone"
                    .to_owned()
            }
            None => format!("set but not read: the exporter `{}` is not on", plugin.name),
        };
        for name in plugin.variables().filter(|name| cx.env.get(name).is_some()) {
            cx.unread(name, reason.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{OWN, is_slip};

    #[test]
    fn slips_are_told_from_other_programs_variables() {
        for (name, known) in [
            ("OPENAI_BASEURL", "OPENAI_BASE_URL"),
            ("openai_api_key", "OPENAI_API_KEY"),
            ("DATADIR", "DATA_DIR"),
            ("GATEWAY_API_KEY", "GATEWAY_API_KEYS"),
            ("ENABLE_EXPORTERS", "ENABLED_EXPORTERS"),
            ("OPNEAI_API_KEY", "OPENAI_API_KEY"),
        ] {
            assert!(is_slip(name, known), "{name}");
        }
        for (name, known) in [("HOSTNAME", "HOST"), ("ZAI_API_KEY", "XAI_API_KEY"), ("PORTS", "PORT")] {
            assert!(!is_slip(name, known), "{name}");
        }
    }

    /// The list of own variables is the one place where they stand together; what the code reads must be in it.
    #[test]
    fn every_variable_that_the_crate_reads_is_listed() {
        let source = concat!(
            include_str!("../load.rs"),
            include_str!("auth.rs"),
            include_str!("exporters.rs"),
            include_str!("listen.rs"),
            include_str!("serving.rs"),
            include_str!("telemetry.rs"),
            include_str!("upstream.rs"),
        );
        let is_variable = |word: &&str| {
            word.len() > 3 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        };
        let read: Vec<&str> = source.split('"').filter(is_variable).collect();
        assert!(read.contains(&"HOST") && read.contains(&"MAGICAPI_CONFIG"), "{read:?}");
        for name in read {
            assert!(OWN.contains(&name), "{name}");
        }
    }
}
