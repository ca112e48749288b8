//! A child process of an exporter, spoken to in lines: how it begins and ends, and what it says besides.
//!
//! It has a process group of its own: a Ctrl-C at a terminal is the gateway's, which ends the child after its last
//! batch; and what the child has started ends with it. However this value goes away, no process of the group stays, nor
//! does a zombie.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use magicapi_plugin::Secret;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, waitpgid};
use tokio::io::BufWriter;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{Instrument, info, warn};

use crate::discretion::{Discretion, Pieces};
use crate::lines::{Line, Lines};

/// The longest line of standard output.
const LONGEST_LINE: usize = 64 << 10;
/// Longer lines of standard error are several in the log.
const LONGEST_REMARK: usize = 1 << 10;
/// How many remarks reach the log in one second, from each output.
const REMARKS: u32 = 20;
/// How long one that shall end may take to do so by itself, and one that takes no more may go on answering.
pub(crate) const GRACE: Duration = Duration::from_secs(1);
/// How long children may take to end when no more comes, and how long more after SIGTERM. The pipeline gives 2 s.
const END: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(500)];

/// How often, and how many times, it is looked whether the last of a group that was killed has ended.
const REAP: (Duration, u32) = (Duration::from_millis(20), 500);

/// What is run.
pub(crate) struct CommandLine {
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    /// All variables of the child.
    pub(crate) env: BTreeMap<String, Secret>,
}

impl CommandLine {
    /// Starts it; its standard error goes to our log. A failure is the operator's to mend.
    pub(crate) fn spawn(&self) -> Result<Process, String> {
        let program = self.program.as_str();
        let explain = |why: String| format!("{program} cannot be started: {why}");
        let mut command = Command::new(program);
        command.args(&self.arguments).env_clear();
        command.envs(self.env.iter().map(|(name, value)| (name, value.expose())));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true).process_group(0);
        let mut child = command.spawn().map_err(|error| explain(error.to_string()))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take(), child.id());
        let (Some(stdin), Some(stdout), Some(stderr), Some(pid)) = pipes else {
            return Err(explain("it has no pipes".into()));
        };
        info!(program, pid, "exec: started");
        let discretion = Discretion::about(&self.env);
        let remarks = Remarks::new(program, pid, "stderr");
        tokio::spawn(relay(stderr, discretion.clone(), remarks).in_current_span());
        let remarks = Remarks::new(program, pid, "stdout");
        Ok(Process {
            program: program.to_owned(),
            pid,
            stdin: Some(BufWriter::new(stdin)),
            stdout: Output { lines: Lines::new(stdout, LONGEST_LINE), discretion, remarks },
            child,
            has_ended: false,
        })
    }
}

/// A child process.
pub(crate) struct Process {
    pub(crate) program: String,
    pub(crate) pid: u32,
    /// `None` once no more comes.
    pub(crate) stdin: Option<BufWriter<ChildStdin>>,
    pub(crate) stdout: Output,
    child: tokio::process::Child,
    has_ended: bool,
}

/// What it says on its standard output.
pub(crate) struct Output {
    lines: Lines<ChildStdout>,
    /// For what it says in other words than those of a line.
    pub(crate) discretion: Discretion,
    /// For what nobody asked for.
    pub(crate) remarks: Remarks,
}

impl Output {
    /// The next line; an error is the end of all talk.
    pub(crate) async fn next(&mut self) -> Result<Vec<u8>, String> {
        match self.lines.next().await {
            Ok(Some(Line::Whole(line))) => Ok(self.discretion.keep(line)),
            Ok(Some(Line::Cut(_))) => Err(format!("it says a line of more than {LONGEST_LINE} bytes")),
            Ok(None) => Err("it says no more".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Process {
    /// How it has ended, if it has.
    fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(self.bury(status))
    }

    /// Waits for its end, which may never come.
    async fn wait(&mut self) -> String {
        match self.child.wait().await {
            Ok(status) => self.bury(status),
            Err(error) => error.to_string(),
        }
    }

    /// Makes sure that it has ended, says why it had to, and how it did.
    pub(crate) async fn give_up(mut self, reason: &str) -> String {
        self.stdin = None;
        // One that is ending by itself has something to say with its exit code.
        let ended = timeout(GRACE, self.wait()).await;
        let how = if let Ok(how) = ended { how } else { self.kill().await };
        warn!(program = self.program, pid = self.pid, reason, how, "exec: child given up");
        format!("{}: {reason} ({how})", self.program)
    }

    async fn kill(&mut self) -> String {
        self.signal(Signal::KILL);
        self.wait().await
    }

    /// It has ended, and with it whatever it has started.
    fn bury(&mut self, status: ExitStatus) -> String {
        self.signal(Signal::KILL);
        self.reap();
        self.has_ended = true;
        status.to_string()
    }

    /// Nobody's once the child is gone, when its number may be another's.
    fn group(&self) -> Option<Pid> {
        i32::try_from(self.pid).ok().and_then(Pid::from_raw).filter(|_| !self.has_ended)
    }

    fn signal(&self, signal: Signal) {
        // An error means that nobody is left in it.
        let _sent = self.group().map(|group| kill_process_group(group, signal));
    }

    /// Waits for what is left of the group, which was killed. Orphans are given to process 1, which in a container is us;
    /// elsewhere there is nothing to wait for.
    fn reap(&self) {
        let Some(group) = self.group().filter(|group| !is_reaped(*group)) else { return };
        let (pause, times) = REAP;
        let wait = move || {
            (0..times).any(|_| {
                std::thread::sleep(pause);
                is_reaped(group)
            })
        };
        // Without a thread they stay in the list of processes, and do no other harm. A runtime may be gone already.
        let _reaping = std::thread::Builder::new().name("exec-reaper".into()).spawn(wait);
    }
}

/// Takes those of a group that have ended; whether nobody of it is our child any more.
fn is_reaped(group: Pid) -> bool {
    loop {
        match waitpgid(group, WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) => return false,
            Err(_) => return true,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        // Now, and not by its own drop, since the child itself is reaped here too.
        let _killed = self.child.start_kill();
        self.reap();
    }
}

/// Children that wait for work.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<Vec<Process>>);

impl Waiting {
    fn all(&self) -> MutexGuard<'_, Vec<Process>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that can be given work.
    pub(crate) fn take(&self) -> Option<Process> {
        self.bury();
        self.all().pop()
    }

    /// Gives one back.
    pub(crate) fn put(&self, process: Process) {
        self.all().push(process);
    }

    /// Looks after those that have ended by themselves; what to say of the last.
    pub(crate) fn bury(&self) -> Option<String> {
        let mut said = None;
        self.all().retain_mut(|process| {
            let Some(how) = process.ended() else { return true };
            let Process { program, pid, .. } = process;
            warn!(program, pid, how, "exec: child ended by itself");
            said = Some(format!("{program} ended by itself ({how}); it is started again for the next batch"));
            false
        });
        said
    }

    /// Ends all: no more comes, then SIGTERM, then SIGKILL.
    pub(crate) async fn end(&self) {
        let mut ending = std::mem::take(&mut *self.all());
        for process in &mut ending {
            process.stdin = None;
        }
        let mut deadline = Instant::now();
        for patience in END {
            deadline += patience;
            for process in &mut ending {
                let _in_time = timeout_at(deadline, process.wait()).await;
            }
            for process in &ending {
                process.signal(Signal::TERM);
            }
        }
        for process in &mut ending {
            process.kill().await;
        }
    }
}

/// What a child says to people, at a bounded rate.
pub(crate) struct Remarks {
    program: String,
    pid: u32,
    output: &'static str,
    since: Instant,
    made: u32,
    left_out: u64,
}

impl Remarks {
    fn new(program: &str, pid: u32, output: &'static str) -> Self {
        Self { program: program.to_owned(), pid, output, since: Instant::now(), made: 0, left_out: 0 }
    }

    /// Passes one on, or counts it.
    pub(crate) fn make(&mut self, text: &str) {
        if self.since.elapsed() >= Duration::from_secs(1) {
            self.account();
            (self.since, self.made) = (Instant::now(), 0);
        }
        self.made += 1;
        if self.made > REMARKS {
            self.left_out += 1;
            return;
        }
        // Nothing of it is the terminal's.
        let text = text.replace(|c: char| c.is_control() && c != '\t', "\u{fffd}");
        info!(program = self.program, pid = self.pid, output = self.output, text, "exec: the child says");
    }

    fn account(&mut self) {
        let lines = std::mem::take(&mut self.left_out);
        if lines > 0 {
            warn!(program = self.program, pid = self.pid, output = self.output, lines, "exec: left out");
        }
    }
}

impl Drop for Remarks {
    fn drop(&mut self) {
        self.account();
    }
}

async fn relay(stderr: ChildStderr, discretion: Discretion, mut remarks: Remarks) {
    let (mut lines, mut pieces) = (Lines::new(stderr, LONGEST_REMARK), Pieces::new(discretion));
    while let Ok(Some(line)) = lines.next().await {
        if let Some(text) = pieces.next(line) {
            remarks.make(&String::from_utf8_lossy(&text));
        }
    }
    if let Some(text) = pieces.rest() {
        remarks.make(&String::from_utf8_lossy(&text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The states of the processes of a group, from `/proc/<pid>/stat`: `Z` is a zombie, whose command line is gone.
    #[cfg(target_os = "linux")]
    fn states(group: u32) -> Vec<char> {
        let entries = std::fs::read_dir("/proc")
            .expect("/proc")
            .filter_map(|entry| Some(entry.ok()?.path().join("stat")));
        let of_group = |stat: String| {
            let (_, fields) = stat.rsplit_once(") ")?;
            let mut fields = fields.split(' ');
            let (state, _parent, of) = (fields.next()?, fields.next()?, fields.next()?);
            (of == group.to_string()).then(|| state.chars().next())?
        };
        entries.filter_map(|path| of_group(std::fs::read_to_string(path).ok()?)).collect()
    }

    #[cfg(target_os = "linux")]
    async fn until(what: &str, group: u32, holds: impl Fn(&[char]) -> bool) {
        let begun = Instant::now();
        while !holds(&states(group)) {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {:?}", states(group));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// As process 1 of a container we are given what a child leaves behind.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn no_zombie_stays_of_what_a_child_has_started() {
        use rustix::process::{getpid, set_child_subreaper};
        set_child_subreaper(Some(getpid())).expect("orphans are ours");
        let three = "sleep 600 & sleep 600 & ";
        for (script, way) in [
            ("read line", "dropped"),
            ("read line", "given up"),
            ("trap '' TERM; read line; read line", "killed"),
            ("sleep 0.2; exit 3", "ended by itself"),
        ] {
            let arguments = vec!["-c".into(), format!("{three}{script}")];
            let env = [("PATH".to_owned(), Secret::new("/usr/bin:/bin"))].into();
            let command = CommandLine { program: "sh".into(), arguments, env };
            let mut process = command.spawn().expect("a shell");
            let group = process.pid;
            until(way, group, |states| states.len() >= 3).await;
            match way {
                "dropped" => drop(process),
                "given up" => drop(process.give_up("enough").await),
                "killed" => drop(process.kill().await),
                _ => drop(process.wait().await),
            }
            until(way, group, <[char]>::is_empty).await;
        }
    }
}
