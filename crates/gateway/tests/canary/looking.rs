//! Where it is looked: pages, commands, files.

use std::path::Path;
use std::sync::Arc;

use magicapi_testkit::canary::Canary;
use magicapi_testkit::http::get;
use magicapi_testkit::wire::until;
use magicapi_testkit::{Gateway, GatewayOptions};
use tempfile::TempDir;

use crate::places::secret;
use crate::scene::{BINARY, Scene, stderr, stdout};

/// Files whose purpose it is to hold the admin token.
const HOLDERS: [&str; 2] = ["gateway.json", "admin.token"];

/// A gateway whose outputs are looked through.
pub(crate) struct Subject {
    pub(crate) directory: Arc<TempDir>,
    pub(crate) variables: Vec<(&'static str, String)>,
    /// The place of its admin token.
    pub(crate) token: &'static str,
    /// Exporters that cannot deliver.
    pub(crate) failing: Vec<&'static str>,
}

impl Subject {
    /// How it, and each of its commands, is started.
    pub(crate) fn options(&self) -> GatewayOptions {
        let variables: Vec<_> = self.variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        GatewayOptions::new(BINARY).envs(&variables).env("RUST_LOG", "trace").data_dir(&self.directory)
    }

    /// Every page of both planes, once all requests and all refusals show in them. Gives ids of requests.
    pub(crate) async fn pages(&self, scene: &Scene, canary: &mut Canary) -> Vec<String> {
        let bearer = format!("Bearer {}", secret(self.token));
        let page = async |path: &str| get(&scene.admin_url(path), &[("authorization", &bearer)]).await;
        until("every back end's refusal", async || {
            let exporters = page("/api/v1/exporters").await.json();
            let rows = exporters["data"].as_array().cloned().unwrap_or_default();
            let failed =
                |name: &&str| rows.iter().any(|row| row["name"] == *name && row["last_error"].is_string());
            self.failing.iter().all(failed).then_some(())
        })
        .await;
        let asked = scene.mock.received().len();
        let (list, ids) = until("every request in the log", async || {
            let list = page("/api/v1/logs?limit=500").await;
            let rows = list.json()["data"].as_array().cloned().unwrap_or_default();
            let ids = rows.iter().filter_map(|row| Some(row["id"].as_str()?.to_owned()));
            let ids: Vec<String> = ids.collect();
            (ids.len() >= asked).then_some((list, ids))
        })
        .await;
        assert!(asked > 20, "{asked}");
        canary.look("the log's page", list.text());
        for id in &ids {
            canary.look("a logged request", page(&format!("/api/v1/logs/{id}")).await.text());
        }
        for path in [
            "/metrics",
            "/health/details",
            "/api/v1/exporters",
            "/api/v1/spool",
            "/api/v1/openapi.json",
            "/nowhere",
        ] {
            canary.look(path, page(path).await.text());
        }
        for name in &self.failing {
            for path in [format!("/api/v1/spool/{name}"), format!("/api/v1/spool/{name}?dead=true")] {
                canary.look(&path, page(&path).await.text());
            }
        }
        let wrong = secret("a wrong admin token");
        let bearer = format!("Bearer {wrong}");
        for path in ["/health/details", &format!("/api/v1/logs?token={wrong}"), &format!("/{wrong}")] {
            let refused = get(&scene.admin_url(path), &[("authorization", &bearer)]).await;
            assert_eq!(refused.status, 401, "{path}");
            canary.look(path.split(&wrong).next().unwrap_or_default(), refused.text());
        }
        for path in ["/health", "/ready", "/v1/models"] {
            canary.look(path, get(&scene.url(path), &[]).await.text());
        }
        ids
    }

    /// What commands print, beside the gateway or without it.
    pub(crate) fn commands(&self, is_running: bool, ids: &[String], canary: &mut Canary) {
        for arguments in [
            &["check"][..],
            &["config"],
            &["providers", "list"],
            &["exporters", "list"],
            &["exporters", "list", "--json"],
            &["spool", "list", "--json"],
            &["logs", "search", "--limit", "500", "--json"],
            &["logs", "tail", "--no-follow", "-n", "500"],
        ] {
            let code = self.command(arguments, canary);
            assert_eq!(code, Some(0), "{arguments:?}");
        }
        for id in ids.iter().step_by(10) {
            assert_eq!(self.command(&["logs", "show", id], canary), Some(0), "{id}");
        }
        for name in &self.failing {
            // Both forms, one with the gateway and one without: each command is a process.
            let (kind, form) = if is_running { ("--dead", None) } else { ("--content", Some("--json")) };
            assert_eq!(self.command(&["spool", "list", name, kind], canary), Some(0), "{name}");
            let test: Vec<&str> = ["exporters", "test", name].into_iter().chain(form).collect();
            assert_eq!(self.command(&test, canary), Some(1), "{name}");
        }
    }

    /// What one command prints and says; its exit code.
    fn command(&self, arguments: &[&str], canary: &mut Canary) -> Option<i32> {
        let with_file = self.options().arg("--config").arg("gateway.yaml");
        let options = arguments.iter().fold(with_file, |options, argument| options.arg(*argument));
        let output = tokio::task::block_in_place(|| options.output());
        canary.look(&arguments.join(" "), stdout(&output) + &stderr(&output));
        output.status.code()
    }
}

/// All files of a data directory: store, spool, dead letters, journals.
pub(crate) fn files(data: &Path, canary: &mut Canary) {
    canary.look_below(data, &HOLDERS);
}

/// The log, and these files of exporters.
pub(crate) fn written(gateway: &Gateway, files: &[&str], canary: &mut Canary) {
    let log = gateway.log().join("\n");
    assert!(log.contains("\"DEBUG\""), "{} bytes", log.len());
    canary.look("stderr", log);
    for file in files {
        let records = std::fs::read(gateway.path(file)).expect("records");
        assert!(records.len() > 20_000, "{file}: {}", records.len());
        canary.look(file, records);
    }
}
