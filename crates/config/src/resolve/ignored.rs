//! Variables that are set and not read: said in `check`, never a reason not to start.

use std::collections::BTreeSet;

use crate::context::Context;
use crate::types::{Config, Source};

/// Variables of the gateway that this version does not read yet; many containers set them for other programs.
const NOT_YET: [&str; 8] = [
    "DATABASE_URL",
    "REDIS_URL",
    "POSTGRES_URL",
    "POSTGRES_TABLE",
    "DD_API_KEY",
    "DD_SITE",
    "NEW_RELIC_LICENSE_KEY",
    "NEW_RELIC_REGION",
];

/// The variables that this crate reads by itself; those of providers and plug-ins come on top.
const OWN: [&str; 22] = [
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
    let of_catalogue: BTreeSet<&str> = cx.catalogue.variables().collect();
    for name in NOT_YET.into_iter().filter(|name| !of_catalogue.contains(name)) {
        if cx.env.get(name).is_some() {
            cx.notice(name, "set but not read by this version");
        }
    }
    unused_settings(cx, config);
    let unreadable: Vec<String> = cx.env.unreadable().map(Into::into).collect();
    for name in unreadable {
        if OWN.contains(&name.as_str()) || of_catalogue.contains(name.as_str()) {
            cx.variable_problem(&name, "", "is not UTF-8 text");
        }
    }
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
            cx.notice(name, reason.as_str());
        }
    }
}
