//! What the API says of spools. The commands read the same types, so that both speak alike whether a gateway runs.

use std::time::SystemTime;

use magicapi_telemetry::{
    FileTotals, Purged, Replayed, SpoolContents, SpoolSummary, SpooledRecord, UnreadableFile,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// Every directory that holds something.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SpoolListView {
    /// By name.
    pub data: Vec<SpoolView>,
}

/// One exporter's directory.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SpoolView {
    /// The exporter's name; the directory's where no exporter is configured.
    pub exporter: String,
    /// No exporter of this name is configured: nothing delivers what is here.
    pub orphaned: bool,
    /// Batches that wait.
    pub waiting: SpoolTotalsView,
    /// Dead letters: records that the back end will never take.
    pub dead: SpoolTotalsView,
    /// Why they are dead, the most frequent reason first; of many, the newest 32 MiB of files.
    pub reasons: Vec<ReasonView>,
    /// Files that cannot be read.
    pub unreadable: Vec<SpoolFileView>,
    /// Why the directory cannot be read; `null` when it can.
    pub error: Option<String>,
}

/// What files hold.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SpoolTotalsView {
    /// How many there are.
    pub files: u64,
    /// Records in them.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// When the oldest record was made, RFC 3339; `null` when there is none.
    pub oldest: Option<String>,
}

/// A reason, and how many records it holds for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReasonView {
    /// What the back end said.
    pub reason: String,
    /// Dead letters.
    pub records: u64,
}

/// A file that cannot be read.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SpoolFileView {
    /// Its name below the exporter's directory.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Records that its name speaks of.
    pub records: u64,
    /// What is wrong with it.
    pub reason: String,
}

/// Records of one exporter.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SpoolRecordsView {
    /// The oldest file first.
    pub data: Vec<SpoolRecordView>,
    /// Files that cannot be read.
    pub unreadable: Vec<SpoolFileView>,
    /// There are more records than were asked for.
    pub more: bool,
}

/// A record on disk.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SpoolRecordView {
    /// Its id.
    pub id: String,
    /// When its request began, RFC 3339.
    pub timestamp: String,
    /// The provider asked last.
    pub provider: Option<String>,
    /// The model sent upstream last.
    pub model: Option<String>,
    /// `waiting` or `dead`.
    pub state: String,
    /// Why it is dead; `null` for one that waits.
    pub reason: Option<String>,
    /// The file below the exporter's directory.
    pub file: String,
    /// The record itself, where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub record: Option<Box<RawValue>>,
}

/// What became of a replay.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ReplayedView {
    /// Records that wait to be delivered again.
    pub records: u64,
    /// What was not put back.
    pub kept: Vec<KeptView>,
}

/// A record or file that was not put back.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeptView {
    /// The record's id or the file's name.
    pub id: String,
    /// Why not.
    pub reason: String,
}

/// What was removed.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PurgedView {
    /// Files.
    pub files: u64,
    /// Records in them.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that stay because they are on their way to the back end.
    pub busy: u64,
    /// Nothing was removed: this is what would be.
    pub dry_run: bool,
}

/// A time as RFC 3339, in milliseconds; `None` for one that no calendar has.
pub(crate) fn rfc3339(at: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(at).ok().map(|at| format!("{at:.3}"))
}

impl From<Vec<SpoolSummary>> for SpoolListView {
    fn from(listed: Vec<SpoolSummary>) -> Self {
        Self { data: listed.into_iter().map(SpoolView::from).collect() }
    }
}

impl From<SpoolSummary> for SpoolView {
    fn from(summary: SpoolSummary) -> Self {
        let SpoolSummary { exporter, orphaned, waiting, dead, reasons, unreadable, error } = summary;
        let reasons = reasons.into_iter().map(|(reason, records)| ReasonView { reason, records });
        Self {
            exporter,
            orphaned,
            waiting: waiting.into(),
            dead: dead.into(),
            reasons: reasons.collect(),
            unreadable: unreadable.into_iter().map(SpoolFileView::from).collect(),
            error,
        }
    }
}

impl From<FileTotals> for SpoolTotalsView {
    fn from(totals: FileTotals) -> Self {
        let FileTotals { files, records, bytes, oldest } = totals;
        Self { files, records, bytes, oldest: oldest.and_then(rfc3339) }
    }
}

impl From<UnreadableFile> for SpoolFileView {
    fn from(file: UnreadableFile) -> Self {
        let UnreadableFile { file, bytes, records, reason } = file;
        Self { file, bytes, records, reason }
    }
}

impl SpoolRecordsView {
    /// With the records themselves when `content` is asked for.
    pub fn of(contents: SpoolContents, content: bool) -> Self {
        let record = |spooled: SpooledRecord| {
            let facts = spooled.record.facts();
            let document = || String::from_utf8(spooled.record.otel_log_json().to_vec()).ok();
            let raw = content.then(document).flatten().and_then(|text| RawValue::from_string(text).ok());
            SpoolRecordView {
                id: facts.id.to_string(),
                timestamp: rfc3339(facts.timestamp).unwrap_or_default(),
                provider: facts.provider.clone(),
                model: facts.model.clone(),
                state: if spooled.reason.is_some() { "dead" } else { "waiting" }.into(),
                reason: spooled.reason,
                file: spooled.file,
                record: raw,
            }
        };
        Self {
            data: contents.records.into_iter().map(record).collect(),
            unreadable: contents.unreadable.into_iter().map(SpoolFileView::from).collect(),
            more: contents.more,
        }
    }
}

impl From<Replayed> for ReplayedView {
    fn from(replayed: Replayed) -> Self {
        let kept = replayed.kept.into_iter().map(|(id, reason)| KeptView { id, reason });
        Self { records: replayed.records, kept: kept.collect() }
    }
}

impl PurgedView {
    /// What was removed, or with `dry_run` would be.
    pub fn of(purged: Purged, dry_run: bool) -> Self {
        let Purged { files, records, bytes, busy } = purged;
        Self { files, records, bytes, busy, dry_run }
    }
}
