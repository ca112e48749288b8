//! A real PostgreSQL, as its administrator sees it through `psql`: one that the environment names, or a test's own.

#![allow(clippy::print_stdout, reason = "a skipped test says so")]

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

/// The server.
pub struct Postgres {
    /// `postgres://user:password@host:port`, of its administrator.
    root: String,
    /// The file with the certificate that it shows.
    pub ca: String,
    own: Option<Own>,
}

/// Where a server of a test's own lives.
struct Own {
    run: TempDir,
    port: u16,
}

impl Postgres {
    /// The server that the environment names; says that the test is skipped when there is none.
    #[expect(clippy::disallowed_methods, reason = "which server to test with is no setting of the product")]
    pub fn named() -> Option<Self> {
        let url = std::env::var("MAGICAPI_TEST_POSTGRES").ok();
        let ca = std::env::var("MAGICAPI_TEST_POSTGRES_CA").unwrap_or_default();
        let root = url.as_deref().and_then(|url| url.rsplit_once('/')).map(|(root, _)| root.to_owned());
        if root.is_none() {
            println!(
                "skipped: no server; eval \"$(tests/servers/postgres/start.sh)\" sets MAGICAPI_TEST_POSTGRES"
            );
        }
        root.map(|root| Self { root, ca, own: None })
    }

    /// A server of the test's own, which it may stop and start, where there is a named one too.
    ///
    /// # Panics
    /// When it does not start.
    pub fn own() -> Option<Self> {
        Self::named()?;
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free address");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let own = Own { run: TempDir::new().expect("a directory"), port };
        let printed = String::from_utf8(script(&own, "start.sh", false).stdout).expect("text");
        let value = |name: &str| {
            let found = printed.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            found.expect("a variable").to_owned()
        };
        let url = value("MAGICAPI_TEST_POSTGRES");
        let root = url.rsplit_once('/').expect("an address").0.to_owned();
        Some(Self { root, ca: value("MAGICAPI_TEST_POSTGRES_CA"), own: Some(own) })
    }

    /// Stops a server of the test's own, which cuts its connections.
    ///
    /// # Panics
    /// When it is another's.
    pub fn stop(&self) {
        script(self.own.as_ref().expect("a server of one's own"), "stop.sh", true);
    }

    /// Starts it again with its data.
    ///
    /// # Panics
    /// When it is another's, or does not start.
    pub fn start(&self) {
        script(self.own.as_ref().expect("a server of one's own"), "start.sh", true);
    }

    /// The address of a database, as its administrator.
    pub fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.root)
    }

    /// The address of a database, as somebody else.
    ///
    /// # Panics
    /// When the administrator's address has no host.
    pub fn url_as(&self, user: &str, password: &str, database: &str) -> String {
        let host = self.root.rsplit_once('@').expect("a host").1;
        format!("postgres://{user}:{password}@{host}/{database}")
    }

    /// The administrator's password.
    ///
    /// # Panics
    /// When the address has none.
    pub fn password(&self) -> &str {
        let user = self.root.rsplit_once('@').expect("a host").0;
        user.rsplit_once(':').expect("a password").1
    }

    /// Runs statements; the answer's rows as lines, columns separated by `|`.
    ///
    /// # Panics
    /// When one fails.
    pub fn sql(&self, database: &str, statements: &str) -> String {
        let output = self.try_sql(database, statements);
        assert!(output.status.success(), "{statements}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
    }

    /// The same, for what may fail.
    ///
    /// # Panics
    /// When there is no `psql`.
    pub fn try_sql(&self, database: &str, statements: &str) -> Output {
        let mut command = Command::new("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.url(database), "-c", statements]);
        command.output().expect("psql")
    }

    /// An empty database of that name.
    pub fn database(&self, name: &str) {
        self.sql("postgres", &format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            script(own, "stop.sh", true);
        }
    }
}

fn script(own: &Own, name: &str, keep: bool) -> Output {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/servers/postgres").join(name);
    let mut command = Command::new(path);
    command.env("MAGICAPI_TEST_RUN", own.run.path());
    command.env("MAGICAPI_TEST_POSTGRES_PORT", own.port.to_string());
    if keep {
        command.env("MAGICAPI_TEST_POSTGRES_KEEP", "1");
    }
    let output = command.output().expect("the script");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
