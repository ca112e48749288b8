//! The canary: known secrets in every place that the gateway reads, at TRACE, with back ends that are away and back ends
//! that repeat what they were sent. Then every byte that came out is looked through. The places stand in `places.rs`.
#![allow(clippy::expect_used, clippy::panic, reason = "clippy does not see that this is part of tests")]

mod asking;
mod back_ends;
mod looking;
mod places;
#[path = "../scene/mod.rs"]
mod scene;
mod settings;
mod wrong;

use std::path::Path;
use std::sync::Arc;

use magicapi_testkit::configuration::RECORDS;
use magicapi_testkit::gateway::STDOUT;
use magicapi_testkit::wire::until;
use magicapi_testkit::{DEADLINE, Gateway};
use tempfile::TempDir;

use crate::back_ends::BackEnds;
use crate::looking::Subject;
use crate::places::canary;
use crate::scene::{Scene, mock};
use crate::settings::{AWAY, REPEATING, by_file, by_variables, with_keys};

fn files_in(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, |entries| {
        entries.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().is_file())).count()
    })
}

fn directory() -> Arc<TempDir> {
    Arc::new(TempDir::new().expect("a directory"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_comes_out_anywhere() {
    let (back_ends, mock) = (BackEnds::start("canary_by_file").await, mock().await);
    let failing = REPEATING.into_iter().chain(AWAY).chain(back_ends.postgres.is_none().then_some("postgres"));
    let subject = Subject {
        directory: directory(),
        variables: Vec::new(),
        token: "admin.token",
        failing: failing.collect(),
    };
    let config = by_file(&mock.base_url(), &back_ends).to_string();
    let gateway = Gateway::start(subject.options().config(config).keep_stdout()).await;
    let scene = Scene { mock, gateway };
    let mut canary = canary(back_ends.private_key());
    asking::credentials(&scene, &mut canary).await;
    asking::content(&scene).await;
    let spool = scene.gateway.data_path().join("spool");
    until("dead letters and a spool", async || {
        (files_in(&spool.join("webhook/dead")) > 0 && files_in(&spool.join("dead")) > 0).then_some(())
    })
    .await;
    let ids = subject.pages(&scene, &mut canary).await;
    subject.commands(true, &ids, &mut canary);
    let under_way = asking::under_way(&scene).await;
    looking::files(&scene.gateway.data_path(), &mut canary);
    drop(under_way);
    scene.gateway.signal("TERM");
    let mut gateway = scene.gateway;
    gateway.wait(DEADLINE).await;
    looking::files(&gateway.data_path(), &mut canary);
    looking::written(&gateway, &[STDOUT, RECORDS], &mut canary);
    subject.commands(false, &ids, &mut canary);
    back_ends.heard(&[
        "upstream.proxy",
        "elasticsearch, password",
        "elasticsearch, api_key",
        "datadog, api_key",
        "newrelic, license_key",
        "otlp, preset newrelic, license_key",
        "otlp, headers",
        "otlp, traces_headers",
        "otlp over gRPC, headers",
        "webhook, url",
        "webhook, headers",
        "an exporter's auth.basic",
        "an exporter's auth.bearer",
        "an exporter's auth.header",
        "an exporter's proxy",
    ]);
    if let Some(table) = back_ends.table() {
        assert!(table.lines().count() > 100, "{table}");
        canary.look("the table", table);
    }
    assert!(canary.looked() > 5_000_000, "{}", canary.looked());
    canary.silent();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_of_variables_and_no_virtual_key_comes_out() {
    let (back_ends, mock) = (BackEnds::start("canary_by_variables").await, mock().await);
    let subject = Subject {
        directory: directory(),
        variables: by_variables(&mock.base_url(), &back_ends),
        token: "ADMIN_TOKEN",
        failing: vec!["elasticsearch", "datadog", "newrelic", "otlp", "postgres", "webhook"],
    };
    let start = subject.options().config(with_keys().to_string()).keep_stdout();
    let scene = Scene { mock, gateway: Gateway::start(start).await };
    let mut canary = canary(back_ends.private_key());
    asking::virtual_keys(&scene, &mut canary).await;
    let ids = subject.pages(&scene, &mut canary).await;
    subject.commands(true, &ids, &mut canary);
    scene.gateway.signal("TERM");
    let mut gateway = scene.gateway;
    gateway.wait(DEADLINE).await;
    looking::files(&gateway.data_path(), &mut canary);
    looking::written(&gateway, &[STDOUT], &mut canary);
    subject.commands(false, &ids, &mut canary);
    back_ends.heard(&[
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ELASTICSEARCH_PASSWORD",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "WEBHOOK_URL",
    ]);
    assert!(canary.looked() > 1_000_000, "{}", canary.looked());
    canary.silent();
}

#[test]
fn no_secret_is_quoted_from_settings_that_are_wrong() {
    let mut canary = canary("no private key here");
    let seen = wrong::look(&mut canary);
    assert!(seen > 80, "{seen}");
    canary.silent();
}
