//! The states of an exporter.

/// What an exporter is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExporterState {
    /// Its `init` has not succeeded yet; records wait.
    Starting,
    /// It works.
    Running,
    /// The back end does not take records just now; they wait.
    Retrying,
    /// The back end refuses the credential or set-up; records wait.
    Refused,
    /// It delivers what is left.
    Draining,
    /// It is done.
    Stopped,
}

impl ExporterState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Starting, Self::Running, Self::Retrying, Self::Refused, Self::Draining, Self::Stopped];

    /// The state's word, in status and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Retrying => "retrying",
            Self::Refused => "refused",
            Self::Draining => "draining",
            Self::Stopped => "stopped",
        }
    }
}
