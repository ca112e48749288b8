//! The gateway's binary as a process: started with an environment of its own, watched, signalled, ended.
//!
//! It is asked for free ports and for a log in JSON, where the line `listening` tells the addresses.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::DEADLINE;
use crate::traced::{Secrets, is_asked_for};

/// How to start it.
#[derive(Clone)]
pub struct GatewayOptions {
    binary: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    config: Option<String>,
    data_dir: Option<Arc<TempDir>>,
    keeps_stdout: bool,
    has_own_disk: bool,
}

/// Where [`GatewayOptions::keep_stdout`] puts it, below the working directory.
pub const STDOUT: &str = "stdout";

// === impl GatewayOptions ===

impl GatewayOptions {
    /// The binary with nothing configured. In the gateway's own tests its path is
    /// `env!("CARGO_BIN_EXE_magicapi-ai-gateway")`.
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let ports = [("LOG_FORMAT", "json"), ("PORT", "0"), ("ADMIN_LISTEN", "127.0.0.1:0")];
        Self {
            binary: binary.into(),
            arguments: Vec::new(),
            environment: ports.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            config: None,
            data_dir: None,
            keeps_stdout: false,
            has_own_disk: false,
        }
    }

    /// The binary for an unprivileged user, in a directory that is that user's: where tests run as root, which may
    /// write anywhere, it runs as `nobody`.
    pub fn unprivileged(binary: &str, directory: &Arc<TempDir>) -> Self {
        const NOBODY: u32 = 65534;
        if fs::metadata("/proc/self").expect("/proc").uid() != 0 {
            return Self::new(binary).data_dir(directory);
        }
        std::os::unix::fs::chown(directory.path(), Some(NOBODY), Some(NOBODY)).expect("an owner");
        let arguments = ["--reuid=nobody", "--regid=nogroup", "--clear-groups", binary];
        arguments.into_iter().fold(Self::new("setpriv").data_dir(directory), Self::arg)
    }

    /// With `DATA_DIR` on a file system of its own of this size, which ends with the process: the binary runs in a mount
    /// namespace, and [`Gateway::data_path`] leads there.
    pub fn on_small_disk(mut self, size: &str) -> Self {
        let mount = format!("mkdir -p data && mount -t tmpfs -o size={size} tmpfs data && exec \"$@\"");
        let binary = std::mem::replace(&mut self.binary, "unshare".into());
        let own = std::mem::take(&mut self.arguments);
        let before = ["--user", "--map-root-user", "--mount", "sh", "-c", &mount, "sh"];
        self.arguments.extend(before.map(str::to_owned));
        self.arguments.push(binary.to_str().expect("a path in UTF-8").to_owned());
        self.arguments.extend(own);
        self.has_own_disk = true;
        self
    }

    /// Sets a variable. There are no others but `PATH`, `HOME`, `DATA_DIR` and those that [`Self::new`] sets.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// Sets several variables.
    pub fn envs(self, variables: &[(&str, &str)]) -> Self {
        variables.iter().fold(self, |options, (name, value)| options.env(name, *value))
    }

    /// Takes a variable away again.
    pub fn without_env(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Starts it with this configuration file, which then is [`Gateway::config_path`].
    pub fn config(mut self, yaml: impl Into<String>) -> Self {
        self.config = Some(yaml.into());
        self
    }

    /// Keeps what it writes to stdout, in the file [`STDOUT`].
    pub fn keep_stdout(mut self) -> Self {
        self.keeps_stdout = true;
        self
    }

    /// Uses the data directory of an earlier start.
    pub fn data_dir(mut self, directory: &Arc<TempDir>) -> Self {
        self.data_dir = Some(directory.clone());
        self
    }

    /// The process, not started, and its data directory: for starts that are meant to fail.
    pub fn command(&self) -> (Command, Arc<TempDir>) {
        let fresh = || Arc::new(TempDir::new().expect("a temporary directory"));
        let directory = self.data_dir.clone().unwrap_or_else(fresh);
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", directory.path())
            .env("DATA_DIR", directory.path().join("data"))
            .envs(&self.environment)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .args(&self.arguments);
        if let Some(yaml) = &self.config {
            let path = directory.path().join("gateway.yaml");
            fs::write(&path, yaml).expect("the configuration file");
            command.arg("--config").arg(path);
        }
        (command, directory)
    }

    /// Runs it to its end.
    pub fn output(&self) -> Output {
        let (mut command, _directory) = self.command();
        command.output().expect("the gateway's binary")
    }
}

/// A running gateway; it is killed when dropped.
pub struct Gateway {
    /// The data plane, `http://127.0.0.1:PORT`.
    pub address: String,
    /// The admin plane, in the same form.
    pub admin_address: String,
    /// Where it runs: `data` (its `DATA_DIR`), `gateway.yaml`, whatever it writes under a relative path.
    pub data_dir: Arc<TempDir>,
    /// Its process id.
    pub pid: u32,
    child: Child,
    log: Log,
    has_own_disk: bool,
    /// What its log, at TRACE, must not hold.
    secrets: Option<Secrets>,
}

// === impl Gateway ===

impl Gateway {
    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it ends, or does not listen within [`DEADLINE`]: with what it logged.
    pub async fn start(options: GatewayOptions) -> Self {
        let (mut command, data_dir) = options.command();
        let traced = is_asked_for() && !options.environment.contains_key("RUST_LOG");
        let secrets = traced.then(|| Secrets::of(&options.environment, options.config.as_deref()));
        if traced {
            command.env("RUST_LOG", "trace");
        }
        let stdout = if options.keeps_stdout {
            fs::File::create(data_dir.path().join(STDOUT)).expect("a file").into()
        } else {
            Stdio::null()
        };
        let mut child = command.stdout(stdout).stderr(Stdio::piped()).spawn().expect("the gateway's binary");
        let log = Log::read(child.stderr.take().expect("stderr"));
        let (pid, has_own_disk) = (child.id(), options.has_own_disk);
        let mut this = Self {
            address: String::new(),
            admin_address: String::new(),
            data_dir,
            pid,
            child,
            log,
            has_own_disk,
            secrets,
        };
        let line = this.wait_for_log(|line| line["message"] == "listening").await;
        let field = |name: &str| line[name].as_str().expect("an address").to_owned();
        (this.address, this.admin_address) = (field("address"), field("admin"));
        let token = fs::read_to_string(this.data_path().join("admin.token")).unwrap_or_default();
        if let Some(secrets) = &mut this.secrets {
            secrets.add(&token);
        }
        this
    }

    /// The URL of a path on the data plane.
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    /// The data plane as a socket's address.
    pub fn socket(&self) -> SocketAddr {
        let (_, authority) = self.address.split_once("://").expect("a URL");
        authority.parse().expect("an address")
    }

    /// The URL of a path on the admin plane.
    pub fn admin_url(&self, path: &str) -> String {
        format!("{}{path}", self.admin_address)
    }

    /// Its `DATA_DIR`.
    pub fn data_path(&self) -> PathBuf {
        let path = self.data_dir.path().join("data");
        if !self.has_own_disk {
            return path;
        }
        let root = PathBuf::from(format!("/proc/{}/root", self.pid));
        root.join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// The file that [`GatewayOptions::config`] wrote.
    pub fn config_path(&self) -> PathBuf {
        self.data_dir.path().join("gateway.yaml")
    }

    /// A path below its working directory.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.data_dir.path().join(relative)
    }

    /// The admin token that it made.
    pub fn admin_token(&self) -> String {
        let path = self.data_path().join("admin.token");
        fs::read_to_string(&path).expect("the generated token").trim().to_owned()
    }

    /// Every line that it logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lines()
    }

    /// Waits until a line of the log, read as JSON, is the one that is looked for.
    ///
    /// # Panics
    /// When it does not come within [`DEADLINE`], or the process ends before.
    pub async fn wait_for_log(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut changes = self.log.changes.clone();
        let mut read = 0;
        let waiting = async {
            loop {
                // Read before the lines, so that the last ones are seen before an end is.
                let ended = *changes.borrow_and_update() == LOG_ENDED;
                let lines = self.log.lines_from(read);
                read += lines.len();
                let values = lines.into_iter().filter_map(|line| serde_json::from_str(&line).ok());
                if let Some(found) = values.into_iter().find(|value| wanted(value)) {
                    return Some(found);
                }
                if ended || changes.changed().await.is_err() {
                    return None;
                }
            }
        };
        let waited = tokio::time::timeout(DEADLINE, waiting).await.ok();
        let found =
            waited.unwrap_or_else(|| panic!("not logged in {DEADLINE:?}; the log:\n{}", self.log.tail()));
        found.unwrap_or_else(|| panic!("the gateway ended first; its log:\n{}", self.log.tail()))
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid)).expect("/proc").count()
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        resident(self.pid)
    }

    /// The most memory that was ever resident, in bytes.
    pub fn peak(&self) -> u64 {
        memory(self.pid, "VmHWM:")
    }

    /// Sends a signal by name, `TERM` or `HUP`.
    pub fn signal(&self, name: &str) {
        // std cannot send signals, and a crate for one call in tests is not worth its place.
        let name = format!("-{}", name.trim_start_matches("SIG"));
        let status = Command::new("kill").arg(name).arg(self.pid.to_string()).status().expect("kill");
        assert!(status.success(), "no process {}", self.pid);
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it still runs after the deadline.
    pub async fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let end = Instant::now() + deadline;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(Instant::now() < end, "still running after {deadline:?}; the log:\n{}", self.log.tail());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it as a machine that loses power would.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
        if let Some(secrets) = self.secrets.take().filter(|_| !std::thread::panicking()) {
            self.log.wait_for_the_end();
            secrets.refuse(&self.log.lines());
        }
    }
}

/// Resident memory of a process, in bytes; nothing once it has ended.
pub fn resident(pid: u32) -> u64 {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = status
        .lines()
        .find_map(|line| line.strip_prefix(field)?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// The count that stands for "the process closed its log".
const LOG_ENDED: usize = usize::MAX;

/// The lines of stderr, gathered by a thread.
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    changes: watch::Receiver<usize>,
}

// === impl Log ===

impl Log {
    fn read(stderr: ChildStderr) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (change, changes) = watch::channel(0);
        let kept = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push(line);
                change.send_replace(kept.len());
            }
            change.send_replace(LOG_ENDED);
        });
        Self { lines, changes }
    }

    fn lines(&self) -> Vec<String> {
        self.lines_from(0)
    }

    fn lines_from(&self, first: usize) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)[first..].to_vec()
    }

    /// All lines are there once the process has closed its end; a child of its own may hold it open.
    fn wait_for_the_end(&self) {
        let end = Instant::now() + Duration::from_secs(5);
        while *self.changes.borrow() != LOG_ENDED && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn tail(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}
