//! What a server with a parser that is not ours makes of a push: VictoriaLogs, which takes Loki's pushes and can be asked.
//!
//! `eval "$(tests/servers/victoria/start.sh)"` starts one; without it this test says that it is skipped.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use serde_json::Value;

/// A form sent to a path, and the body of the answer.
fn ask(server: &str, path: &str, form: &str) -> String {
    let mut stream = TcpStream::connect(server).unwrap();
    let length = form.len();
    let head = format!("POST {path} HTTP/1.0\r\nHost: {server}\r\nContent-Length: {length}\r\n");
    write!(stream, "{head}Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{answer}");
    body.to_owned()
}

#[test]
fn a_pushed_record_can_be_asked_for() {
    let Ok(url) = std::env::var("MAGICAPI_TEST_VICTORIALOGS") else {
        println!("skipped: eval \"$(tests/servers/victoria/start.sh)\" sets MAGICAPI_TEST_VICTORIALOGS");
        return;
    };
    let server = url.strip_prefix("http://").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_loki-gateway"))
        .args(["exporters", "test", "loki", "--config", concat!(env!("CARGO_MANIFEST_DIR"), "/gateway.yaml")])
        .env_clear()
        .env("DATA_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/loki"))
        .envs([("OPENAI_API_KEY", "sk-ours"), ("LOKI_URL", &format!("{url}/insert/loki/api/v1/push"))])
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let id = told.split_whitespace().find(|word| word.starts_with("msg_")).unwrap();
    ask(server, "/internal/force_flush", "");
    let found = ask(server, "/select/logsql/query", &format!("query=id:=\"{id}\""));
    let [line] = found.lines().collect::<Vec<_>>().try_into().expect("one line");
    let line: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["id"], &line["model"]), (&id.into(), &"exporters-test".into()), "{line}");
    assert_eq!(line["_stream"], "{outcome=\"completed\",service_name=\"noveum_ai_gateway\"}", "{line}");
    assert_eq!(line["attributes.id"], id, "the line itself is read as JSON: {line}");
}
