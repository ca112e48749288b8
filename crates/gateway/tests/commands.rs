//! The commands through the real binary: what they print, what they leave out, their exit status.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod scene;

use std::fs;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

use magicapi_testkit::ask::question;
use magicapi_testkit::http::post_json;
use magicapi_testkit::wire::until;
use magicapi_testkit::{GatewayOptions, wire};
use serde_json::{Value, json};

use crate::scene::{BINARY, hash_of};

fn run(arguments: &[&str]) -> Output {
    arguments.iter().fold(GatewayOptions::new(BINARY), |options, argument| options.arg(*argument)).output()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complained(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a successful command prints.
fn printed(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", complained(&output));
    said(&output)
}

/// `check` of this file.
fn check(yaml: &str) -> Output {
    GatewayOptions::new(BINARY).arg("check").config(yaml).output()
}

#[test]
fn check_says_line_column_what_was_expected_and_the_nearest_name() {
    let good = check("providers: { openai: { api_key: k } }\n");
    assert!(good.status.success() && said(&good).starts_with("ok: "), "{}", complained(&good));
    for (yaml, place, word) in [
        ("timeouts:\n  idel: 3s\n", ":2:3", "`idle`"),
        ("timeouts:\n  idle: soon\n", ":2:9", "soon"),
        ("auth: { mode: kyes }\n", ":1:15", "`keys`"),
        ("telemetry:\n  exporters:\n    - { type: elasticsaerch }\n", ":3:15", "`elasticsearch`"),
        ("telemetry:\n  exporters:\n    - { type: elasticsearch, url: nowhere }\n", ":3:30", "http"),
        ("providers:\n  openai:\n    base_url: ftp://x\n", ":3:5", "http"),
        ("prices: { file: absent.jsonl }\n", ":1:11", "absent.jsonl"),
        ("server: [\n", ":1:9", "bracket"),
    ] {
        let bad = check(yaml);
        let text = complained(&bad);
        assert_eq!(bad.status.code(), Some(2), "{yaml}: {text}");
        assert!(text.contains(&format!("gateway.yaml{place}: ")), "{yaml}: {text}");
        assert!(text.contains(word) && said(&bad).is_empty(), "{yaml}: {text}");
    }
    let absent = run(&["check", "--config", "absent.yaml"]);
    assert!(absent.status.code() == Some(2) && complained(&absent).contains("absent.yaml"));
}

#[test]
fn check_lists_variables_that_nobody_reads_and_opens_nothing() {
    let options = GatewayOptions::new(BINARY).arg("check").env("DATABASE_URL", "postgres://u:secret@h/d");
    let (mut command, directory) = options.command();
    let output = command.output().expect("the binary");
    assert!(said(&output).contains("DATABASE_URL") && !said(&output).contains("secret"), "{}", said(&output));
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0, "nothing was written");
}

#[test]
fn check_notes_metrics_that_no_exporter_makes() {
    let file = "telemetry: { metrics_on_data_plane: true, exporters: [ { type: console } ] }\n";
    let noted = said(&check(file));
    assert!(noted.contains("note: telemetry.metrics_on_data_plane") && noted.contains("ok: "), "{noted}");
    let made = said(&check(&file.replace("console", "prometheus")));
    assert!(!made.contains("note:"), "{made}");
}

#[test]
fn schema_is_a_json_schema_that_knows_every_key_of_the_examples() {
    let schema: Value = serde_json::from_str(&printed(&["schema"])).expect("JSON");
    assert!(
        schema["$schema"].as_str().is_some_and(|draft| draft.contains("json-schema.org")),
        "{}",
        schema["$schema"]
    );
    assert_eq!((&schema["type"], &schema["additionalProperties"]), (&json!("object"), &json!(false)));
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let mut seen = 0;
    for file in fs::read_dir(examples).expect("examples") {
        let path = file.expect("a file").path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        seen += 1;
        let variables = [
            ("OPENAI_API_KEY", "k".to_owned()),
            ("APP_1_HASH", format!("sha256:{}", "1".repeat(64))),
            ("APP_2_HASH", format!("sha256:{}", "2".repeat(64))),
        ];
        let options = variables
            .into_iter()
            .fold(GatewayOptions::new(BINARY), |all, (name, value)| all.env(name, value));
        let text = fs::read_to_string(&path).expect("text");
        let checked = options.arg("check").config(text).output();
        assert!(checked.status.success(), "{}: {}", path.display(), complained(&checked));
    }
    assert!(seen >= 4);
}

#[test]
fn config_prints_origins_and_masks_secrets() {
    let yaml = "providers: { openai: { api_key: sk-in-the-file } }\ntimeouts:\n  idle: 7s\nadmin: { token: tok-secret }\n";
    let options = GatewayOptions::new(BINARY)
        .arg("config")
        .arg("--data-dir")
        .arg("by-flag")
        .env("OTEL_SERVICE_NAME", "svc")
        .env("GROQ_API_KEY", "gsk-in-the-environment")
        .config(yaml);
    let output = options.output();
    let text = said(&output);
    for line in [
        "timeouts.idle = 7s  # file 3:3",
        "timeouts.connect = 5s  # default",
        "telemetry.service_name = svc  # env OTEL_SERVICE_NAME",
        "data_dir = by-flag  # flag",
        "providers.openai.api_key = ***  # file 1:24",
        "providers.groq.api_key = ***  # env GROQ_API_KEY",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
    for secret in ["sk-in-the-file", "tok-secret", "gsk-in-the-environment"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn lists_of_providers_models_and_exporters() {
    let options = GatewayOptions::new(BINARY).env("GROQ_API_KEY", "gsk").arg("providers").arg("list");
    let providers = said(&options.output());
    let row =
        |name: &str| providers.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(row("groq").contains(" yes ") && row("groq").ends_with("set"), "{providers}");
    assert!(row("openai").contains(" no ") && row("openai").ends_with("OPENAI_API_KEY"), "{providers}");
    assert!(!providers.contains("gsk"));

    let models = printed(&["models", "list", "openai"]);
    assert!(
        models.lines().any(|line| line.starts_with("openai/gpt-4o-mini ") && line.contains("0.15")),
        "{models}"
    );
    assert!(models.lines().skip(1).all(|line| line.starts_with("openai/")));
    assert!(printed(&["models", "list"]).lines().count() > models.lines().count());
    let unknown = run(&["models", "list", "opnai"]);
    assert!(unknown.status.code() == Some(2) && complained(&unknown).contains("openai"));

    let exporters = printed(&["exporters", "list"]);
    for name in ["console", "elasticsearch", "file", "prometheus"] {
        assert!(exporters.lines().any(|line| line == name), "{exporters}");
    }
    assert!(exporters.contains("[ELASTICSEARCH_URL]") && exporters.contains("noveum-metrics"));
}

#[test]
fn a_made_key_fits_the_hash_printed_with_it() {
    let text = printed(&["keys", "create", "--name", "team-a", "--print"]);
    let value =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).expect("a line");
    let (key, hash) = (value("key:").to_owned(), value("hash:").to_owned());
    assert_eq!(hash, hash_of(&key));
    let checked = check(&text[text.find("auth:").expect("the lines to configure")..]);
    assert!(checked.status.success() && text.contains("name: team-a,"), "{}", complained(&checked));
    assert!(text.lines().any(|line| line == format!("GATEWAY_API_KEYS=team-a:{key}")), "{text}");
    let without = printed(&["keys", "create"]);
    assert_ne!(without, printed(&["keys", "create"]), "each is another");
    assert_eq!(without.lines().count(), text.lines().count(), "--print changes nothing: {without}");
}

#[test]
fn check_notes_keys_that_can_be_guessed() {
    let keys = [("GATEWAY_API_KEYS", "weak:fifteen-letters,strong:sixteen-letters-")];
    let text = said(&GatewayOptions::new(BINARY).arg("check").envs(&keys).output());
    assert!(
        text.contains("note: GATEWAY_API_KEYS: the key of `weak` has fewer than 16 characters"),
        "{text}"
    );
    assert!(!text.contains("strong") && !text.contains("fifteen-letters") && text.contains("ok: "), "{text}");
}

#[test]
fn options_stand_before_and_after_every_command() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("any.yaml");
    fs::write(&file, "timeouts: { idle: 7s }\n").expect("a file");
    let file = file.to_str().expect("a path");
    for command in [
        vec!["--config", file, "--data-dir", "here", "config"],
        vec!["config", "--data-dir", "here", "--config", file],
        vec!["--config", file, "config", "--data-dir", "here"],
    ] {
        let text = printed(&command);
        for line in ["timeouts.idle = 7s  # file 1:13", "data_dir = here  # flag"] {
            assert!(text.lines().any(|one| one == line), "{command:?}: {text}");
        }
    }
    assert!(printed(&["--config", file, "check"]).contains("any.yaml"));
    assert!(printed(&["--config", file, "providers", "list"]).contains("openai"));
    assert!(printed(&["providers", "--data-dir", "here", "list", "--config", file]).contains("openai"));
    for command in [["--data-dir", "nowhere", "logs", "search"], ["logs", "search", "--data-dir", "nowhere"]]
    {
        assert!(complained(&run(&command)).contains("nowhere"), "{command:?}");
    }
    // The default command, named: it reads this file and ends over it.
    for command in [["--config", "absent.yaml", "serve"], ["serve", "--config", "absent.yaml"]] {
        assert!(complained(&run(&command)).starts_with("absent.yaml: "), "{command:?}");
    }
}

#[test]
fn options_that_would_do_nothing_are_refused_and_not_offered() {
    for command in
        [&["schema"][..], &["mock"], &["models", "list"], &["keys", "create"], &["completions", "bash"]]
    {
        for option in ["--config", "--data-dir"] {
            let after = run(&[command, &[option, "any"]].concat());
            let before = run(&[&[option, "any"], command].concat());
            for refused in [after, before] {
                let text = complained(&refused);
                assert_eq!(
                    (refused.status.code(), said(&refused)),
                    (Some(2), String::new()),
                    "{command:?}: {text}"
                );
                assert!(text.contains(option) && text.contains("has no effect"), "{command:?}: {text}");
            }
            let help = printed(&[command, &["--help"]].concat());
            assert!(!help.contains(option), "{help}");
        }
    }
    let help = printed(&["exporters", "test", "--help"]);
    assert!(help.contains("--config") && help.contains("--data-dir"), "{help}");
}

#[test]
fn version_completions_and_help() {
    let version = printed(&["--version"]);
    assert!(version.starts_with(concat!("magicapi-ai-gateway ", env!("CARGO_PKG_VERSION"))), "{version}");
    assert!(version.contains("commit ") && version.contains("features: "), "{version}");
    for (shell, word) in [("bash", "complete "), ("zsh", "#compdef"), ("fish", "complete -c")] {
        let script = printed(&["completions", shell]);
        assert!(script.contains(word) && script.contains("demo"), "{shell}");
    }
    let help = printed(&["--help"]);
    for command in [
        "serve",
        "demo",
        "check",
        "schema",
        "config",
        "mock",
        "providers",
        "models",
        "exporters",
        "spool",
        "logs",
        "keys",
    ] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command}\n{help}");
    }
    assert_eq!(run(&["chekc"]).status.code(), Some(2));
}

#[tokio::test]
async fn demo_runs_once_without_key_or_network_on_free_ports() {
    // Its own ports are taken, by us unless somebody else has them.
    let _taken = [TcpListener::bind("127.0.0.1:3000"), TcpListener::bind("127.0.0.1:3001")];
    let mut options = GatewayOptions::new(BINARY).arg("demo").arg("--once");
    for name in ["PORT", "ADMIN_LISTEN", "LOG_FORMAT"] {
        options = options.without_env(name);
    }
    let output = tokio::task::spawn_blocking(move || options.output()).await.expect("ended");
    let text = said(&output);
    assert!(output.status.success(), "{text}{}", complained(&output));
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name}: {text}")).trim().to_owned()
    };
    let (gateway, admin) = (value("gateway "), value("admin plane "));
    assert!(gateway.starts_with("http://127.0.0.1:") && !gateway.contains(":3000/"), "{text}");
    assert!(admin.starts_with("http://127.0.0.1:") && !admin.ends_with(":3001"), "{text}");
    assert!(value("curl ").starts_with(&gateway) && text.contains("logs --data-dir"), "{text}");
    let requests: Vec<&str> = text.split("Requests").nth(1).expect("its requests").lines().skip(1).collect();
    // A column of its own: the digits may stand in an id, too.
    let of = |status: &str| requests.iter().filter(|line| line.contains(status)).count();
    assert!(requests.len() >= 4 && of(" 429 ") == 1 && of(" 200 ") >= 3, "{text}");
}

#[tokio::test]
async fn demo_ends_at_the_first_signal() {
    let (mut command, directory) = GatewayOptions::new(BINARY).arg("demo").env("RUST_LOG", "info").command();
    let out = directory.path().join("out");
    let log = directory.path().join("log");
    let file = |path| Stdio::from(fs::File::create(path).expect("a file"));
    let mut child = command.stdout(file(&out)).stderr(file(&log)).spawn().expect("the binary");
    let printed = async || fs::read_to_string(&out).unwrap_or_default().contains("429").then_some(());
    until("its last request", printed).await;
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupted.is_ok_and(|status| status.success()));
    let ended = until("its end", || std::future::ready(child.try_wait().expect("a child"))).await;
    let said = fs::read_to_string(&log).expect("its log");
    assert!(ended.success() && said.contains("draining: accepting for 0ns"), "{said}");
}

#[tokio::test]
async fn mock_serves_alone() {
    let (mut command, _directory) =
        GatewayOptions::new(BINARY).arg("mock").arg("--listen").arg("127.0.0.1:0").command();
    let out = tempfile::NamedTempFile::new().expect("a file");
    let stdout = Stdio::from(out.reopen().expect("the file"));
    let mut child = command.stdout(stdout).spawn().expect("the binary");
    let url = until("an address", async || {
        let text = fs::read_to_string(out.path()).unwrap_or_default();
        text.split_whitespace().find(|word| word.starts_with("http://")).map(str::to_owned)
    })
    .await;
    let answer = post_json(&format!("{url}/chat/completions"), &[], &question()).await;
    let text = answer.json()["choices"][0]["message"]["content"].to_string();
    assert!(text.contains("hello there"), "{text}");
    let mut streamed = question();
    streamed["stream"] = json!(true);
    let script = [("x-mock", r#"{"cut_after":2,"status":200}"#)];
    let headers = [("content-type", "application/json"), script[0]];
    let address = url.trim_start_matches("http://").trim_end_matches("/v1").parse().expect("an address");
    let mut cut = wire::Wire::connect(address).await;
    cut.send(&wire::request("POST", "/v1/chat/completions", &headers, streamed.to_string().as_bytes())).await;
    assert!(!cut.answer().await.expect("a head").whole, "a scripted fault");
    child.kill().expect("killed");
    child.wait().expect("ended");
}
