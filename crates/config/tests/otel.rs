//! Variables of OpenTelemetry's specification that configuration itself reads.

mod support;

use std::path::PathBuf;
use std::time::Duration;

use magicapi_config::{Catalogue, Environment, Origin, PluginSpec, Sources, load};
use magicapi_plugin::{SettingsSpec, TlsVariables};
use support::{bad, catalogue, effective, good, load_env, load_text};

#[test]
fn metrics_are_pushed_as_often_as_the_variable_says_or_else_the_file() {
    let interval = "telemetry.metrics.interval";
    let variable = |text| [("OTEL_METRIC_EXPORT_INTERVAL", text)];
    assert_eq!(good(load_env(&[])).config.telemetry.metrics_interval, Duration::from_secs(15));
    let loaded = good(load_env(&variable("2500")));
    assert_eq!(loaded.config.telemetry.metrics_interval, Duration::from_millis(2500));
    let env = Origin::Env("OTEL_METRIC_EXPORT_INTERVAL".into());
    assert_eq!(effective(&loaded, interval).origin, env);
    let file = "telemetry: { metrics: { interval: 4s } }";
    assert_eq!(good(load_text(&[], file)).config.telemetry.metrics_interval, Duration::from_secs(4));
    let loaded = good(load_text(&variable("2500"), file));
    assert_eq!(loaded.config.telemetry.metrics_interval, Duration::from_millis(2500));
    assert_eq!((&effective(&loaded, interval).origin, loaded.notices.len()), (&env, 0));
    for (text, named) in [
        ("0", "must be longer than"),
        ("-1", "expected a whole number"),
        ("1m", "expected"),
        ("2.5", "expected"),
    ] {
        let problem = bad(load_env(&variable(text)));
        assert!(problem.starts_with(&format!("OTEL_METRIC_EXPORT_INTERVAL: {named}")), "{problem}");
    }
}

#[test]
fn certificates_of_one_signal_must_be_those_of_all() {
    const PARTS: [TlsVariables; 2] =
        [TlsVariables::new("A_CA", "A_CERT", "A_KEY"), TlsVariables::new("B_CA", "B_CERT", "B_KEY")];
    const ALL: TlsVariables = TlsVariables::new("CA", "CERT", "KEY").with_parts(&PARTS);
    let settings = SettingsSpec::of::<support::Empty>().tls_variables(ALL);
    let catalogue = Catalogue { plugins: vec![PluginSpec { name: "sent", settings }], ..catalogue() };
    let load_on = |on: &str, variables: &[(&str, &str)]| {
        let env = Environment::from_pairs(variables.iter().copied().chain([("ENABLED_EXPORTERS", on)]));
        load(&Sources { env, ..Sources::default() }, &catalogue)
    };
    let with = |variables: &[(&str, &str)]| load_on("sent", variables);
    let reach =
        |variables: &[(&str, &str)]| good(with(variables)).config.telemetry.exporters[0].reach.clone();
    let path = |text: &str| Some(PathBuf::from(text));
    assert_eq!(reach(&[("CA", "x")]).ca_file, path("x"));
    assert_eq!(reach(&[("A_CA", "x"), ("B_CA", "x")]).ca_file, path("x"), "each on its own");
    assert_eq!(reach(&[("CA", "x"), ("A_CA", "x")]).ca_file, path("x"));
    assert_eq!(reach(&[("CA", "x"), ("A_CA", "y"), ("B_CA", "y")]).ca_file, path("y"), "they win");
    let pair = reach(&[("A_CERT", "c"), ("B_CERT", "c"), ("KEY", "k")]);
    assert_eq!(pair.identity, Some(("c".into(), "k".into())));
    for (variables, named) in [
        (&[("A_CA", "x")][..], "A_CA: says nothing for B_CA, and"),
        (&[("CA", "x"), ("A_CA", "y")], "A_CA: is not what CA says, and"),
        (&[("A_CA", "x"), ("B_CA", "y")], "A_CA: is not what B_CA says, and"),
        (&[("B_KEY", "k"), ("CERT", "c")], "B_KEY: says nothing for A_KEY, and"),
    ] {
        let problems = bad(with(variables));
        assert!(problems.starts_with(named) && problems.lines().count() == 1, "{problems}");
    }
    // Of an exporter that is not on, they are noted as its others are.
    let notices = good(load_on("", &[("A_CA", "x")])).notices;
    assert!(notices.iter().any(|one| one.key == "A_CA" && one.text.contains("is not on")), "{notices:?}");
}
