//! The table: every secret, and the place where it is put.

use std::fmt::Write as _;

use magicapi_testkit::canary::Canary;

/// What a secret looks like.
#[derive(Clone, Copy)]
enum Look {
    /// 34 letters and digits, by which nobody could tell it from an id: the gateway has to know it by its place.
    Plain,
    /// As vendors make them: nothing but its form tells what it is, where it stands in content.
    Formed,
    /// As its setting has to be.
    Fixed(&'static str),
}
use Look::{Fixed, Formed, Plain};

const PLACES: &[(&str, Look)] = &[
    // The file of the first gateway.
    ("admin.token", Plain),
    ("providers.openai.api_key", Plain),
    ("upstream.proxy", Plain),
    ("telemetry.redact.hash_key", Plain),
    ("elasticsearch, password", Plain),
    ("elasticsearch, api_key", Plain),
    ("datadog, api_key", Fixed("c0ffee0123456789abcdef0123456789")),
    ("newrelic, license_key", Fixed("c0ffee0123456789abcdef0123456789FFFFNRAL")),
    ("otlp, preset newrelic, license_key", Fixed("decaf00123456789abcdef0123456789FFFFNRAL")),
    ("otlp, headers", Plain),
    ("otlp, traces_headers", Plain),
    ("otlp over gRPC, headers", Plain),
    ("postgres, url", Plain),
    ("exec, env", Plain),
    ("webhook, url", Plain),
    ("webhook, secret", Fixed("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
    ("webhook, headers", Plain),
    ("an exporter's auth.basic", Plain),
    ("an exporter's auth.bearer", Plain),
    ("an exporter's auth.header", Plain),
    ("an exporter's proxy", Plain),
    // Variables of the second gateway, and the key in its file.
    ("ADMIN_TOKEN", Plain),
    ("OPENAI_API_KEY", Plain),
    ("GATEWAY_API_KEYS", Plain),
    ("auth.keys", Plain),
    ("HTTP_PROXY", Plain),
    ("HTTPS_PROXY", Plain),
    ("ELASTICSEARCH_PASSWORD", Plain),
    ("DD_API_KEY", Fixed("f00dcafe23456789abcdef0123456789")),
    ("NEW_RELIC_LICENSE_KEY", Fixed("f00dcafe23456789abcdef0123456789FFFFNRAL")),
    ("OTEL_EXPORTER_OTLP_HEADERS", Plain),
    ("POSTGRES_URL", Plain),
    ("WEBHOOK_URL", Plain),
    ("WEBHOOK_SECRET", Fixed("whsec_Xg7Wn2Vt5Yb8Kq1Zr4Lc9Md3Hf6Jp0Sa")),
    // Requests.
    ("authorization", Plain),
    ("x-api-key", Plain),
    ("api-key", Plain),
    ("x-goog-api-key", Plain),
    ("x-aws-access-key-id", Plain),
    ("x-aws-secret-access-key", Plain),
    ("x-aws-session-token", Plain),
    ("cookie", Plain),
    ("proxy-authorization", Plain),
    ("the query", Plain),
    ("a wrong virtual key", Plain),
    ("a wrong admin token", Plain),
    // Content: bodies, and labels of every kind, a path and a model among them.
    ("a request", Formed),
    ("an answer", Formed),
    ("a stream", Formed),
    ("a form", Formed),
    ("an error of the provider's", Formed),
    ("a label", Formed),
];

/// Headers of a caller that stand in the table.
pub(crate) const CREDENTIALS: [&str; 9] = [
    "authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "x-aws-access-key-id",
    "x-aws-secret-access-key",
    "x-aws-session-token",
    "cookie",
    "proxy-authorization",
];
/// Those of them that go to the provider, so that it can repeat them.
pub(crate) const SENT_ON: &[&str] = CREDENTIALS.split_at(4).0;

/// The secret of a place. Put together here, so that no scanner takes this file for a leak.
pub(crate) fn secret(place: &str) -> String {
    let number =
        PLACES.iter().position(|(one, _)| *one == place).unwrap_or_else(|| panic!("no place {place}"));
    let plain = format!("{number:02}q7Zt4Lw9Xk2Vb8Nm5Rc1Hd6Js3Gf{number:02}");
    match PLACES[number].1 {
        Plain => plain,
        Formed => format!("sk-{}-{plain}", "proj"),
        Fixed(text) => text.to_owned(),
    }
}

/// The same, percent-encoded: every byte of it.
pub(crate) fn encoded(place: &str) -> String {
    secret(place).bytes().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "%{byte:02X}");
        all
    })
}

/// Who looks for all of them, and for a private key.
pub(crate) fn canary(private_key: &str) -> Canary {
    let secrets: Vec<(&str, String)> = PLACES.iter().map(|(place, _)| (*place, secret(place))).collect();
    let all = secrets.iter().map(|(place, secret)| (*place, secret.as_str()));
    Canary::new(all.chain([("an exporter's tls.key", private_key)]))
}
