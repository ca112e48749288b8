//! Every exporter's spool as a person looks at it and works on it: `spool list | replay | purge`.
//!
//! Looking reads names and files and changes nothing. Working goes through the [`Spool`] that owns the directory: the
//! running exporter's, or one that is opened for the moment by a process that has the data directory alone. A directory
//! that belongs to no configured exporter is an orphan: it is listed and can be purged.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use magicapi_plugin::MetricRegistry;
use magicapi_spool::{SpoolError, list_batches, list_set_aside, set_aside_dir};

use super::dead;
use super::look::{SpoolContents, SpoolSummary, set_aside_file, summary};
use super::work::{Purge, Purged, Replayed};
use super::{Spool, name, thread};
use crate::metrics::GatewayMetrics;
use crate::settings::PipelineSettings;
use crate::tally::Tally;

/// See the module.
pub struct Spools {
    root: PathBuf,
    owners: Vec<Owner>,
}

/// An exporter and its directory.
struct Owner {
    name: String,
    dir: PathBuf,
    holds: Holds,
}

/// Who has an owner's directory open.
enum Holds {
    /// The running exporter.
    Running(Arc<Spool>),
    /// An exporter that was taken away, and is ending.
    Leaving,
    /// Nobody: it is opened for as long as it is worked on.
    Nobody(Box<PipelineSettings>),
}

/// Why spools cannot be worked on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpoolsError {
    /// No exporter and no directory has this name.
    #[error("no exporter and no directory of the spool is named `{name}`; there are: {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// Nothing would deliver what is replayed.
    #[error(
        "no exporter named `{0}` is configured, so nothing would deliver its records: configure it again, or purge them"
    )]
    Orphaned(String),
    /// The exporter has just been taken away.
    #[error("the exporter `{0}` is being ended; try again in some seconds")]
    Leaving(String),
    /// Nothing has this id.
    #[error(
        "no dead letter and no file set aside of `{name}` has the id `{id}`; `spool list {name}` shows them"
    )]
    NoSuchId {
        /// The exporter.
        name: String,
        /// The id.
        id: String,
    },
    /// The disk.
    #[error("{0}")]
    Io(String),
}

impl From<SpoolError> for SpoolsError {
    fn from(error: SpoolError) -> Self {
        Self::Io(error.to_string())
    }
}

impl Spools {
    /// Of a process that has the data directory alone; `root` is `DATA_DIR/spool`.
    pub fn of_nobody(root: PathBuf, exporters: Vec<(String, PipelineSettings)>) -> Self {
        let owners = exporters.into_iter().map(|(name, pipeline)| Owner {
            dir: root.join(name::directory(&name)),
            name,
            holds: Holds::Nobody(Box::new(pipeline)),
        });
        Self { owners: owners.collect(), root }
    }

    /// Of exporters that run, and of the names of those that are ending.
    pub(crate) fn of_running(root: PathBuf, running: Vec<Arc<Spool>>, leaving: Vec<String>) -> Self {
        let owner = |name: String, holds| Owner { dir: root.join(name::directory(&name)), name, holds };
        let mut owners: Vec<Owner> = running
            .into_iter()
            .map(|spool| owner(spool.tally.name().to_owned(), Holds::Running(spool)))
            .collect();
        for name in leaving {
            if !owners.iter().any(|owner| owner.name == name) {
                owners.push(owner(name, Holds::Leaving));
            }
        }
        Self { root, owners }
    }

    /// Every directory that holds something, by name.
    pub fn list(&self) -> Result<Vec<SpoolSummary>, SpoolsError> {
        let mut found = Vec::new();
        for (dir, owner) in self.directories()? {
            let path = self.root.join(&dir);
            let summary = SpoolSummary {
                exporter: owner.map_or_else(|| dir.clone(), |owner| owner.name.clone()),
                orphaned: owner.is_none_or(|owner| matches!(owner.holds, Holds::Leaving)),
                ..summary(&path)
            };
            if !summary.is_empty() {
                found.push(summary);
            }
        }
        Ok(found)
    }

    /// The records of one exporter, `limit` at most: dead letters, and unless `dead_only` those that wait.
    pub fn records(&self, name: &str, dead_only: bool, limit: usize) -> Result<SpoolContents, SpoolsError> {
        let path = match self.owner(name) {
            Some(owner) => owner.dir.clone(),
            None => self.orphan(name)?,
        };
        let mut contents = SpoolContents::default();
        if !dead_only {
            contents.add(&path, "", limit)?;
        }
        contents.add(&path, dead::DIRECTORY, limit)?;
        for info in list_set_aside(&path)?.iter().filter(|_| !dead_only) {
            contents.unreadable.push(set_aside_file(&path, info));
        }
        Ok(contents)
    }

    /// Puts dead letters and files that were set aside back to be delivered: all, or the one with this id.
    pub fn replay(&self, name: &str, id: Option<&str>) -> Result<Replayed, SpoolsError> {
        let Some(owner) = self.owner(name) else {
            self.orphan(name)?;
            return Err(SpoolsError::Orphaned(name.into()));
        };
        let replayed = owner.work(|spool| spool.replay(id))?;
        match id {
            Some(id) if replayed.records == 0 && replayed.kept.is_empty() => {
                Err(SpoolsError::NoSuchId { name: name.into(), id: id.into() })
            }
            _ => Ok(replayed),
        }
    }

    /// Removes what `purge` names, or only says what that would be. What is on its way to the back end stays.
    pub fn purge(&self, name: &str, purge: &Purge) -> Result<Purged, SpoolsError> {
        if let Some(owner) = self.owner(name) {
            return owner.work(|spool| spool.purge(purge));
        }
        let dir = self.orphan(name)?;
        let holds = Holds::Nobody(Box::default());
        let orphan = Owner { name: name.into(), dir: dir.clone(), holds };
        let purged = orphan.work(|spool| spool.purge(purge))?;
        if !purge.dry {
            // Only empty ones go; what is left in them keeps them.
            for empty in [dir.join(dead::DIRECTORY), set_aside_dir(&dir), dir] {
                let _kept = std::fs::remove_dir(empty);
            }
        }
        Ok(purged)
    }

    /// Says which directories belong to no exporter, so that what waits there is not forgotten.
    pub(crate) fn say_orphans(&self) {
        let directories = self.directories().unwrap_or_default();
        for (dir, _) in directories.into_iter().filter(|(_, owner)| owner.is_none()) {
            let path = self.root.join(&dir);
            let count =
                |dir: &Path| list_batches(dir).map_or(0, |all| all.iter().map(|info| info.records).sum());
            let (waiting, dead): (u64, u64) = (count(&path), count(&path.join(dead::DIRECTORY)));
            if waiting + dead > 0 {
                tracing::warn!(
                    directory = %path.display(),
                    records = waiting,
                    dead_letters = dead,
                    "spool: no exporter is configured for the records that wait here; configure it again, or \
                     `spool purge {dir}`"
                );
            }
        }
    }

    fn owner(&self, name: &str) -> Option<&Owner> {
        self.owners.iter().find(|owner| owner.name == name)
    }

    /// The directory of that name which no exporter owns.
    fn orphan(&self, name: &str) -> Result<PathBuf, SpoolsError> {
        let directories = self.directories()?;
        if directories.iter().any(|(dir, owner)| dir == name && owner.is_none()) {
            return Ok(self.root.join(name));
        }
        let orphans = directories.iter().filter(|(_, owner)| owner.is_none()).map(|(dir, _)| dir.as_str());
        let mut known: Vec<&str> =
            self.owners.iter().map(|owner| owner.name.as_str()).chain(orphans).collect();
        known.sort_unstable();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(SpoolsError::Unknown { name: name.into(), known })
    }

    /// Every directory below the root with its owner, by name.
    fn directories(&self) -> Result<Vec<(String, Option<&Owner>)>, SpoolsError> {
        let io = |error: std::io::Error| SpoolsError::Io(format!("{}: {error}", self.root.display()));
        let entries = match std::fs::read_dir(&self.root) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(io)?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let dir = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
            let owner = self.owners.iter().find(|owner| name::directory(&owner.name) == dir);
            found.push((dir, owner));
        }
        found.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(found)
    }
}

impl Owner {
    fn work<T>(&self, act: impl FnOnce(&Arc<Spool>) -> Result<T, SpoolsError>) -> Result<T, SpoolsError> {
        match &self.holds {
            Holds::Running(spool) => act(spool),
            Holds::Leaving => Err(SpoolsError::Leaving(self.name.clone())),
            Holds::Nobody(pipeline) => {
                let spool = unattended(self.dir.clone(), &self.name, pipeline);
                spool.open();
                let done = act(&spool);
                spool.close();
                done
            }
        }
    }
}

/// A spool without exporter, thread and metrics.
fn unattended(dir: PathBuf, name: &str, pipeline: &PipelineSettings) -> Arc<Spool> {
    let registry = Arc::new(MetricRegistry::default());
    let metrics = Arc::new(GatewayMetrics::new(&registry.meter("unattended"), &registry.meter("")));
    Arc::new(Spool::at(dir, &Tally::new(name, &metrics), pipeline, Arc::<thread::Signal>::default()))
}

/// How long ago, as a bound of ages.
pub(super) fn before(older_than: Option<Duration>) -> Option<SystemTime> {
    SystemTime::now().checked_sub(older_than?)
}
