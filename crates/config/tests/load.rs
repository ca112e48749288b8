//! What a configuration means: precedence, defaults, origins, notices, reload.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use magicapi_config::{
    AuthMode, Environment, Flags, ListenSource, LogFormat, OnFull, Origin, PersonalData, Source, Sources,
    StoreUrl, load,
};
use magicapi_plugin::{ContentLevel, SettingsSpec};
use serde_json::json;
use support::{bad, catalogue, effective, good, load_env, load_text};

fn addresses(loaded: &magicapi_config::Loaded) -> Vec<String> {
    loaded.config.server.listen.addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn nothing_configured() {
    for loaded in
        [load_env(&[]), load_text(&[], ""), load_text(&[], "# a comment\n"), load_text(&[], "server:\n")]
    {
        let loaded = good(loaded);
        let config = &loaded.config;
        assert_eq!(addresses(&loaded), ["127.0.0.1:3000", "[::1]:3000"]);
        assert_eq!(config.server.listen.source, ListenSource::Default);
        assert_eq!(config.admin.listen.addresses[1].to_string(), "[::1]:3001");
        assert!(config.admin.token.is_none() && config.providers.is_empty());
        assert_eq!(config.store.url, StoreUrl::Sqlite(PathBuf::from("./magicapi-data/magicapi.db")));
        assert_eq!((config.auth.mode, config.auth.explicit_mode), (AuthMode::Passthrough, false));
        assert_eq!((config.ledger.on_full, config.ledger.explicit), (OnFull::Count, false));
        assert_eq!((config.timeouts.first_token, config.timeouts.total), (Duration::from_mins(10), None));
        let [prometheus] = config.telemetry.exporters.as_slice() else { panic!("one exporter") };
        assert_eq!((prometheus.name.as_str(), prometheus.source), ("prometheus", Source::Default));
        assert!(!config.telemetry.metrics_on_data_plane);
        assert_eq!((config.log.filter.as_str(), config.log.format), ("info", LogFormat::Text));
        assert!(loaded.notices.is_empty(), "{:?}", loaded.notices);
        assert!(loaded.origins.iter().all(|one| one.origin == Origin::Default), "{:?}", loaded.origins);
    }
}

#[test]
fn an_empty_text_is_not_set() {
    let yaml = "server: { listen: \"\", heartbeat: \"${UNSET:-}\" }\nadmin: { token: \"\" }\ndata_dir: \"\"\nstore: { url: \"\" }\nprices: { file: \"\" }\nupstream: { proxy: \"\", tls: { ca_file: \"\" } }\nproviders: { openai: { type: \"\", api_key: \"\", base_url: \"\" } }\ntelemetry: { service_name: \"\", exporters: [ { type: elasticsearch, name: \"\", url: \"\" } ] }\n";
    let empty = good(load_text(&[], yaml));
    let bare = "providers: { openai: }\ntelemetry: { exporters: [ { type: elasticsearch } ] }";
    let bare = good(load_text(&[], bare));
    assert!(empty.config == bare.config);
    let defaults = |key: &str| effective(&empty, key).origin == Origin::Default;
    assert!(defaults("server.heartbeat") && defaults("store.url") && defaults("data_dir"));
}

#[test]
fn redaction_has_its_values_and_hides_its_key() {
    let of = |yaml: &str| good(load_text(&[("K", "0123456789abcdef")], yaml));
    let plain = of("telemetry:\n  redact:\n");
    assert!(plain.config.telemetry.redaction.pii.is_empty());
    assert_eq!(effective(&plain, "telemetry.redact.pii").value, "[]");
    let all = of("telemetry: { redact: { pii: true } }").config.telemetry.redaction;
    assert_eq!(all.pii, PersonalData::ALL);
    let some = of(
        "telemetry:\n  redact:\n    pii: [ip, email, ip]\n    patterns:\n      - { name: t, regex: 'T\\d' }\n    paths: [\"..a\"]\n    replace: hash\n    hash_key: \"${K}\"\n",
    );
    assert_eq!(some.config.telemetry.redaction.pii, [PersonalData::Email, PersonalData::Ip]);
    let at = |line, column| Origin::File { line, column };
    for (key, value, origin) in [
        ("telemetry.redact.pii", r#"["email","ip"]"#, at(3, 5)),
        ("telemetry.redact.patterns[0].regex", r"T\d", at(5, 20)),
        ("telemetry.redact.paths[0]", "..a", at(6, 13)),
        ("telemetry.redact.replace", "hash", at(7, 5)),
        ("telemetry.redact.hash_key", "***", at(8, 5)),
    ] {
        let shown = effective(&some, key);
        assert_eq!((shown.value.as_str(), &shown.origin), (value, &origin), "{key}");
    }
}

#[test]
fn host_and_port() {
    let of = |env: &[(&str, &str)], yaml: &str| {
        let loaded = good(load_text(env, yaml));
        (addresses(&loaded), loaded.config.server.listen.source)
    };
    let file = "server: { listen: [ \"127.0.0.1:8080\", \"[::1]:8080\" ] }";
    assert_eq!(of(&[("HOST", "0.0.0.0")], ""), (vec!["0.0.0.0:3000".into()], ListenSource::Named));
    assert_eq!(of(&[("HOST", "::1"), ("PORT", "0")], ""), (vec!["[::1]:0".into()], ListenSource::Named));
    let both = vec!["127.0.0.1:8000".into(), "[::1]:8000".into()];
    assert_eq!(of(&[("PORT", "8000")], ""), (both.clone(), ListenSource::Default));
    assert_eq!(of(&[("HOST", "localhost"), ("PORT", "8000")], ""), (both.clone(), ListenSource::Default));
    assert_eq!(of(&[("PORT", "8000")], file), (both, ListenSource::Named));
    assert_eq!(of(&[("HOST", "127.0.0.2")], file), (vec!["127.0.0.2:8080".into()], ListenSource::Named));
    assert_eq!(of(&[("HOST", "")], "server: { listen: \"localhost:1\" }").1, ListenSource::Default);
    assert_eq!(of(&[], "server:\n  listen: ${MISSING:-127.0.0.1:5}").0, ["127.0.0.1:5"]);
}

#[test]
fn data_dir_has_its_own_order() {
    let of = |flag: Option<&str>, env: &[(&str, &str)], yaml: &str| {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("gateway.yaml");
        std::fs::write(&file, yaml).expect("a file");
        let flags = Flags { data_dir: flag.map(Into::into), ..Flags::default() };
        let env = Environment::from_pairs(env.iter().copied());
        let loaded = good(load(&Sources { file: Some(file), flags, env }, &catalogue()));
        let origin = effective(&loaded, "data_dir").origin.clone();
        (loaded.config.data_dir, origin, loaded.config.store.url)
    };
    let all = [("DATA_DIR", "/env"), ("STATE_DIRECTORY", "/state:/other")];
    let (dir, origin, _) = of(Some("/flag"), &all, "data_dir: /file");
    assert_eq!((dir.as_path(), origin), (Path::new("/flag"), Origin::Flag));
    let (dir, origin, _) = of(None, &all, "data_dir: /file");
    assert_eq!((dir.as_path(), origin), (Path::new("/env"), Origin::Env("DATA_DIR".into())));
    let (dir, origin, store) = of(None, &all[1..], "data_dir: /file\nstore: { url: sqlite://a/b.db }");
    assert_eq!((dir.as_path(), origin), (Path::new("/file"), Origin::File { line: 1, column: 1 }));
    assert_eq!(store, StoreUrl::Sqlite("/file/a/b.db".into()));
    let (dir, _, store) = of(None, &all[1..], "store: { url: sqlite:///abs.db }");
    assert_eq!((dir.as_path(), store), (Path::new("/state"), StoreUrl::Sqlite("/abs.db".into())));
    assert_eq!(of(None, &[], "store: { url: none }").2, StoreUrl::None);
}

#[test]
fn keys_imply_their_mode() {
    let env = [
        ("GATEWAY_API_KEYS", "app-1:secret:with:colons, app-2:x"),
        ("HOST", "0.0.0.0"),
        ("OPENAI_API_KEY", "k"),
    ];
    let loaded = good(load_env(&env));
    let auth = &loaded.config.auth;
    assert_eq!((auth.mode, auth.explicit_mode, auth.keys.len()), (AuthMode::Keys, false, 2));
    // printf 'secret:with:colons' | sha256sum
    assert_eq!(auth.keys[0].hash, "sha256:902b118e2814e2f59c5864c18daaf23735606bd2bbc73a20a72e2cf2bc502b68");
    assert_eq!(loaded.config.ledger.on_full, OnFull::Refuse);
    let yaml = "auth: { mode: passthrough, keys: [ { name: a, hash: \"sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\" } ] }";
    let loaded = good(load_text(&env[..1], yaml));
    assert_eq!(loaded.config.auth.mode, AuthMode::Passthrough);
    assert_eq!(loaded.config.auth.keys.len(), 3);
    assert!(loaded.config.auth.keys[0].hash.ends_with(&"a".repeat(64)));
    let notices: Vec<_> = loaded.notices.iter().map(ToString::to_string).collect();
    let [short, unused] = notices.as_slice() else { panic!("{notices:?}") };
    assert!(
        short.starts_with("GATEWAY_API_KEYS: the key of `app-2` has fewer than 16 characters"),
        "{short}"
    );
    assert!(unused.starts_with("auth.mode: "), "{unused}");
}

#[test]
fn providers() {
    let yaml = "providers:\n  openai: { api_key: file-key, trace: true }\n  local: { type: openai, base_url: \"http://h:1/v1/\" }\n  ollama:\n";
    let env = [
        ("OPENAI_API_KEY", " env-key\n"),
        ("ANTHROPIC_BASE_URL", "http://127.0.0.1:9"),
        ("AZURE_API_KEY", ""),
    ];
    let loaded = good(load_text(&env, yaml));
    let names: Vec<_> = loaded.config.providers.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["anthropic", "local", "ollama", "openai"]);
    let [anthropic, local, _, openai] = loaded.config.providers.as_slice() else { panic!("four") };
    assert_eq!(openai.api_key.as_ref().map(magicapi_model::Secret::expose), Some("env-key"));
    assert!(openai.trace && anthropic.api_key.is_none());
    assert_eq!((local.catalogue.as_str(), local.base_url.as_deref()), ("openai", Some("http://h:1/v1")));
    assert!(local.api_key.is_none(), "OPENAI_API_KEY is that of `openai` alone");
    let shown = effective(&loaded, "providers.openai.api_key");
    assert_eq!((shown.value.as_str(), &shown.origin), ("***", &Origin::Env("OPENAI_API_KEY".into())));
    assert_eq!(effective(&loaded, "providers.openai.trace").origin, Origin::File { line: 2, column: 32 });
    // A key of digits needs no quotes.
    let loaded = good(load_text(&[("K", "0123")], "providers:\n  openai:\n    api_key: ${K}"));
    assert_eq!(loaded.config.providers[0].api_key.as_ref().map(magicapi_model::Secret::expose), Some("0123"));
    let explicit = load_text(&[("AZURE_BASE_URL", "https://x.example")], "auth: { mode: passthrough }");
    assert_eq!(good(explicit).config.providers.len(), 1);
    let shadowed = good(load_text(&[("OPENAI_API_KEY", "k")], "providers: { openai: { type: ollama } }"));
    assert_eq!(shadowed.config.providers[0].api_key.as_ref().map(magicapi_model::Secret::expose), None);
    assert_eq!(shadowed.notices.len(), 1);
}

#[test]
fn exporters_from_the_environment() {
    let env = [
        ("ENABLED_EXPORTERS", "prometheus, elasticsearch"),
        ("ELASTICSEARCH_URL", "http://u:p@es:9200"),
        ("ELASTICSEARCH_PASSWORD", "hidden"),
        ("ELASTICSEARCH_SHARDS", "3"),
        ("ELASTICSEARCH_HEADERS", "x-a=1%202"),
        ("FILE_EXPORTER_PATH", "x"),
    ];
    let loaded = good(load_env(&env));
    let telemetry = &loaded.config.telemetry;
    assert!(telemetry.metrics_on_data_plane, "the user named prometheus");
    let [_, es] = telemetry.exporters.as_slice() else { panic!("two") };
    assert_eq!(es.source, Source::Environment);
    let expected =
        json!({"url": "http://u:p@es:9200", "password": "hidden", "shards": 3, "headers": {"x-a": "1 2"}});
    assert_eq!(serde_json::Value::Object(es.settings.values().clone()), expected);
    let shown: String =
        loaded.origins.iter().flat_map(|one| [one.key.as_str(), " ", one.value.as_str(), "\n"]).collect();
    assert!(!shown.contains("hidden") && !shown.contains("u:p@") && !shown.contains("1 2"), "{shown}");
    assert!(shown.contains("exporters[1].url http://***@es:9200"), "{shown}");
    let notices: Vec<_> = loaded.notices.iter().map(ToString::to_string).collect();
    assert_eq!(notices, ["FILE_EXPORTER_PATH: set but not read: the exporter `file` is not on"]);

    assert!(good(load_env(&[("ENABLED_EXPORTERS", "")])).config.telemetry.exporters.is_empty());
    let alias = good(load_env(&[("ENABLE_ELASTICSEARCH", "true")]));
    let names: Vec<_> = alias.config.telemetry.exporters.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["prometheus", "elasticsearch"]);
    assert!(!alias.config.telemetry.metrics_on_data_plane);
    let both = good(load_env(&[("ENABLE_ELASTICSEARCH", "1"), ("ENABLED_EXPORTERS", "elasticsearch")]));
    assert_eq!(both.config.telemetry.exporters.len(), 1);
}

#[test]
fn records_wait_as_long_as_their_back_end_takes_them() {
    let age = |entry: &str| {
        let loaded = good(load_text(&[], &format!("telemetry: {{ exporters: [ {{ {entry} }} ] }}\n")));
        let [entry] = &loaded.config.telemetry.exporters[..] else { panic!("one") };
        (entry.pipeline.buffer.max_age.as_secs() / 3600, entry.pipeline.retry.max_age.as_secs() / 3600)
    };
    assert_eq!(age("type: elasticsearch"), (168, 168));
    assert_eq!(age("type: console"), (17, 17), "what the plug-in says");
    assert_eq!(age("type: console, buffer: { max_age: 2d }"), (48, 48), "what the file says");
    let named = good(load_env(&[("ENABLED_EXPORTERS", "console")]));
    assert_eq!(named.config.telemetry.exporters[0].pipeline.buffer.max_age, Duration::from_hours(17));
}

#[test]
fn variables_of_other_programs_that_are_not_read_are_noted() {
    let env = [("DATABASE_URL", "x"), ("OTEL_METRIC_EXPORT_TIMEOUT", "9"), ("OTEL_LOG_LEVEL", "x")];
    let notices: Vec<String> = good(load_env(&env)).notices.iter().map(ToString::to_string).collect();
    let noted = |name: &str| format!("{name}: set but not read by this version");
    assert_eq!(notices, [noted("DATABASE_URL"), noted("OTEL_METRIC_EXPORT_TIMEOUT")]);
}

#[test]
fn a_variable_that_the_file_names_is_read() {
    let env = [
        ("ELASTICSEARCH_URL", "http://es:9200"),
        ("ELASTICSEARCH_SHARDS", "3"),
        ("OPENAI_BASEURL", "http://x"),
    ];
    let notices = |yaml: &str| -> Vec<String> {
        good(load_text(&env, yaml)).notices.iter().map(|notice| notice.key.clone()).collect()
    };
    let entry =
        |url: &str| format!("telemetry: {{ exporters: [ {{ type: elasticsearch, url: \"{url}\" }} ] }}\n");
    assert_eq!(notices(&entry("http://a")), ["ELASTICSEARCH_URL", "ELASTICSEARCH_SHARDS", "OPENAI_BASEURL"]);
    assert_eq!(notices(&entry("${ELASTICSEARCH_URL}")), ["ELASTICSEARCH_SHARDS", "OPENAI_BASEURL"]);
    // As it stands, not expanded, it is not read.
    assert_eq!(notices(&entry("http://$${ELASTICSEARCH_URL}")).len(), 3);
    let of_another = entry("${OPENAI_BASEURL:-http://a}");
    assert_eq!(notices(&of_another), ["ELASTICSEARCH_URL", "ELASTICSEARCH_SHARDS"]);
}

#[test]
fn exporters_from_the_file() {
    let yaml = "telemetry:\n  capture: { bodies: no_chunks }\n  exporters:\n    - { type: elasticsearch, url: \"http://a\", batch: { age: 2s } }\n    - { type: elasticsearch, name: b, content: metadata, username: 123 }\n";
    let loaded = good(load_text(&[("ELASTICSEARCH_URL", "http://env")], yaml));
    let [a, b] = loaded.config.telemetry.exporters.as_slice() else { panic!("two") };
    assert_eq!((a.source, a.pipeline.content), (Source::File { index: 0 }, ContentLevel::NoChunks));
    assert_eq!(a.pipeline.batch.age, Duration::from_secs(2));
    assert_eq!(serde_json::Value::Object(a.settings.values().clone()), json!({"url": "http://a"}));
    assert_eq!((b.name.as_str(), b.pipeline.content), ("b", ContentLevel::Metadata));
    assert_eq!(serde_json::Value::Object(b.settings.values().clone()), json!({"username": "123"}));
    assert_eq!(loaded.notices.len(), 1, "{:?}", loaded.notices);
    let problem = loaded.exporter_problem(
        b,
        &SettingsSpec::of::<support::Elasticsearch>(),
        &magicapi_plugin::ConfigError::new("username", "is odd"),
    );
    assert!(
        problem.to_string().ends_with("gateway.yaml:5:58: telemetry.exporters[1].username: is odd"),
        "{problem}"
    );
    let none = good(load_text(&[], "telemetry: { exporters: [] }"));
    assert!(none.config.telemetry.exporters.is_empty());
}

#[test]
fn names_of_the_gateway() {
    let env = [
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "service.name=a,deployment.environment=e1,team=t%201,service.instance.id=i",
        ),
        ("DEPLOYMENT_ENVIRONMENT", "e2"),
    ];
    let loaded = good(load_text(&env, "telemetry: { service_name: file }"));
    let names = &loaded.config.telemetry.config;
    assert_eq!((names.service_name.as_str(), names.deployment_environment.as_deref()), ("a", Some("e2")));
    assert_eq!(
        (names.service_instance_id.as_deref(), names.resource_attributes["team"].as_str()),
        (Some("i"), "t 1")
    );
    let loaded = good(load_env(&[env[0], ("OTEL_SERVICE_NAME", "b")]));
    assert_eq!(loaded.config.telemetry.config.service_name, "b");
}

#[test]
fn proxies_and_trust() {
    let yaml = "upstream: { proxy: \"http://u:p@file:1\", tls: { ca_file: corp.pem } }";
    let env = [("https_proxy", "proxy:3128"), ("NO_PROXY", "a, .b"), ("SSL_CERT_FILE", "/env.pem")];
    let loaded = good(load_text(&env, yaml));
    let upstream = &loaded.config.upstream;
    assert_eq!(upstream.https_proxy.as_deref(), Some("http://proxy:3128"));
    assert_eq!(upstream.http_proxy.as_deref(), Some("http://u:p@file:1"));
    assert_eq!(
        (upstream.no_proxy.as_slice(), upstream.ca_file.as_deref()),
        (["a".to_owned(), ".b".into()].as_slice(), Some(Path::new("corp.pem")))
    );
    assert_eq!(effective(&loaded, "upstream.proxy").value, "http://***@file:1");
    assert_eq!(good(load_env(&env)).config.upstream.ca_file.as_deref(), Some(Path::new("/env.pem")));
}

#[test]
fn metrics_on_the_data_plane_that_nobody_makes_are_said() {
    let said = |yaml: &str| -> Vec<String> {
        let notices = good(load_text(&[], yaml)).notices;
        notices.into_iter().map(|notice| notice.key).collect()
    };
    let file = "telemetry: { metrics_on_data_plane: true, exporters: [ { type: file, path: x } ] }";
    assert_eq!(said(file), ["telemetry.metrics_on_data_plane"]);
    assert_eq!(said(&file.replace("true", "false")), [""; 0]);
    assert_eq!(said(&file.replace("type: file, path: x", "type: prometheus")), [""; 0]);
    assert_eq!(said("telemetry: { metrics_on_data_plane: true }"), [""; 0], "prometheus is the default");
}

#[test]
fn other_programs_variables_never_stop_the_start() {
    let env = [("DATABASE_URL", "postgres://x"), ("REDIS_URL", "not a url"), ("DD_API_KEY", "x")];
    let loaded = good(load_env(&env));
    let keys: Vec<_> = loaded.notices.iter().map(|notice| notice.key.as_str()).collect();
    assert_eq!(keys, ["DATABASE_URL", "REDIS_URL", "DD_API_KEY"]);
}

#[test]
fn a_variable_that_is_nearly_ours_is_said_and_starts() {
    let said = |env: &[(&str, &str)]| -> Vec<String> {
        good(load_env(env)).notices.iter().map(ToString::to_string).collect()
    };
    let slips =
        [("OPENAI_BASEURL", "http://127.0.0.1:9/v1"), ("GATEWAY_API_KEY", "a:secret"), ("HOSTNAME", "box")];
    let notices = said(&slips);
    assert_eq!(
        notices,
        [
            "GATEWAY_API_KEY: set but not read: no variable has this name; did you mean `GATEWAY_API_KEYS`?",
            "OPENAI_BASEURL: set but not read: no variable has this name; did you mean `OPENAI_BASE_URL`?",
        ]
    );
    assert_eq!(
        said(&[("OPENAI_BASEURL", "x"), ("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")]),
        [""; 0],
        "the right one is set"
    );
    assert_eq!(said(&[("OPENAI_BASEURL", "")]), [""; 0], "an empty one is not set");
}

#[test]
fn closed_by_default_but_not_more() {
    let outside = ("HOST", "0.0.0.0");
    good(load_env(&[outside]));
    good(load_env(&[outside, ("OLLAMA_BASE_URL", "http://127.0.0.1:11434/v1")]));
    good(load_env(&[("HOST", "127.0.0.9"), ("OPENAI_API_KEY", "k")]));
    good(load_env(&[("HOST", "::ffff:127.0.0.1"), ("OPENAI_API_KEY", "k")]));
    good(load_env(&[("ADMIN_LISTEN", "0.0.0.0:3001"), ("ADMIN_TOKEN", "t")]));
    good(load_text(&[("OPENAI_API_KEY", "k")], "auth: { mode: open }"));
    assert!(
        bad(load_env(&[outside, ("ADMIN_LISTEN", "[::]:1"), ("OPENAI_API_KEY", "k")]))
            .contains("ADMIN_LISTEN:")
    );
}

#[test]
fn reload() {
    let old = good(load_text(&[], "data_dir: a\n"));
    let yaml = "data_dir: b\nserver: { listen: \"127.0.0.1:1\", tls: { cert: c, key: k } }\nadmin: { listen: \"127.0.0.1:2\", token: t, metrics: open, hosts: [ x ] }\nstore: { url: none }\ntelemetry: { threads: 2, service_name: x, metrics: { interval: 1s } }\ntimeouts: { idle: 1s }\n";
    let mut new = good(load_text(&[], yaml));
    let keys = [
        "admin.hosts",
        "admin.listen",
        "admin.metrics",
        "admin.token",
        "data_dir",
        "server.listen",
        "server.tls.cert",
        "server.tls.key",
        "store.url",
        "telemetry.metrics.interval",
        "telemetry.service_name",
        "telemetry.threads",
    ];
    assert_eq!(new.keep_restart_only(&old, &catalogue()), keys);
    assert_eq!(new.keep_restart_only(&old, &catalogue()), [""; 0]);
    assert_eq!(new.config.timeouts.idle, Duration::from_secs(1));
    // What is in force is what this file says.
    let same = good(load_text(&[], "data_dir: a\ntimeouts: { idle: 1s }\n"));
    let values = |loaded: &magicapi_config::Loaded| -> Vec<_> {
        loaded.origins.iter().map(|one| (one.key.clone(), one.value.clone())).collect()
    };
    assert_eq!(values(&new), values(&same));
    assert_eq!(new.hash, same.hash);
}

#[test]
fn the_hash_tells_configurations_apart() {
    let hash = |yaml: &str| good(load_text(&[], yaml)).hash;
    assert_eq!(hash(""), hash("timeouts: { idle: 120s }"));
    assert_ne!(hash(""), hash("timeouts: { idle: 121s }"));
    assert_eq!(hash("").len(), 16);
    assert_eq!(hash("providers: { openai: { api_key: a } }"), hash("providers: { openai: { api_key: b } }"));
}

#[test]
fn anchors_are_copied_and_bounded() {
    let yaml = "providers:\n  openai: &p { api_key: k }\n  anthropic: *p\n";
    assert_eq!(good(load_text(&[], yaml)).config.providers.len(), 2);
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb = format!("{bomb}a{level}: &a{level} [{aliases}]\n");
    }
    assert!(bad(load_text(&[], &bomb)).contains("more values than a configuration can have"));
}
