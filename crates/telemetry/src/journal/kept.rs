//! What a request, then its record, holds of the journal until the last exporter is done with it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

use magicapi_plugin::{RequestId, RequestMetrics};
use magicapi_spool::{OldSegment, Ticket};

use super::{RecordJournal, lock};

/// Dropped, it tells the journal that nobody needs the record any more. Travels with the record's share of memory.
pub(crate) struct Kept {
    journal: Arc<RecordJournal>,
    held: Arc<Held>,
}

/// One request in the journal.
pub(super) struct Held {
    pub(super) id: RequestId,
    pub(super) since: SystemTime,
    place: Mutex<Place>,
    /// The record's forms, the fullest first: what is written when the entry moves on to a later segment.
    forms: Mutex<Vec<Weak<RequestMetrics>>>,
    /// Nobody needs it any more.
    done: AtomicBool,
    /// It comes back at the next start although it is done with.
    spared: AtomicBool,
}

/// Where its entry stands.
#[derive(Default)]
struct Place {
    pin: Option<Arc<Pin>>,
    /// The open entry, as long as there is no record.
    open: Option<Vec<u8>>,
    is_recorded: bool,
    /// An entry of it was ever written.
    is_written: bool,
    length: usize,
    /// Counts appends: the lower, the older its segment.
    order: u64,
}

/// Holds the segments that entries stand in.
pub(super) struct Pin {
    holds: Option<Holds>,
    spared: AtomicBool,
}

enum Holds {
    Ticket(Ticket),
    Old(OldFiles),
}

/// Files that an earlier process left, in their order; they go together, since later ones speak of earlier ones.
pub(super) struct OldFiles {
    pub(super) files: Vec<OldFile>,
    /// The count of their bytes.
    pub(super) bytes: Arc<AtomicU64>,
    /// Keeps all that is written meanwhile: done entries there speak of records here.
    pub(super) hold: Ticket,
}

/// A file that an earlier process left.
pub(super) struct OldFile {
    pub(super) segment: OldSegment,
    /// It is not what was written: kept for a person to look at.
    pub(super) corrupt: bool,
}

impl Kept {
    pub(super) fn new(journal: Arc<RecordJournal>, held: Held) -> Self {
        Self { journal, held: Arc::new(held) }
    }

    pub(super) fn held(&self) -> &Arc<Held> {
        &self.held
    }

    /// Names the record's forms.
    pub(crate) fn name_forms(&self, forms: &[Arc<RequestMetrics>]) {
        *lock(&self.held.forms) = forms.iter().map(Arc::downgrade).collect();
    }

    /// Names another form of it, which may be the only one that is left.
    pub(crate) fn add_form(&self, form: &Arc<RequestMetrics>) {
        let mut forms = lock(&self.held.forms);
        forms.retain(|form| form.strong_count() > 0);
        forms.push(Arc::downgrade(form));
    }

    /// It is given up undelivered. At the end of the process that leaves it to the next one.
    pub(crate) fn give_up(&self) {
        if self.journal.is_closing() {
            self.held.spared.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.held.done.store(true, Ordering::Relaxed);
        self.journal.inbox.done(self.held.clone());
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({})", self.held.id)
    }
}

impl Held {
    pub(super) fn new(id: RequestId) -> Self {
        Self::at(id, Place::default())
    }

    /// One that stands in an earlier process's files, and how long it is.
    pub(super) fn old(id: RequestId, pin: Arc<Pin>, length: usize) -> Self {
        let place = Place { pin: Some(pin), is_written: true, is_recorded: true, length, ..Place::default() };
        Self::at(id, place)
    }

    fn at(id: RequestId, place: Place) -> Self {
        Self {
            id,
            since: SystemTime::now(),
            place: Mutex::new(place),
            forms: Mutex::default(),
            done: AtomicBool::new(false),
            spared: AtomicBool::new(false),
        }
    }

    /// Whether an open entry would still say something.
    pub(super) fn wants_open(&self) -> bool {
        !self.is_done() && !lock(&self.place).is_recorded
    }

    pub(super) fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    pub(super) fn is_spared(&self) -> bool {
        self.spared.load(Ordering::Relaxed)
    }

    /// Its open entry was written. The record may have been before.
    pub(super) fn opened(&self, pin: Arc<Pin>, entry: Vec<u8>, order: u64) {
        let mut place = lock(&self.place);
        place.is_written = true;
        if !place.is_recorded {
            place.length = entry.len();
            place.order = order;
            place.open = Some(entry);
            place.pin = Some(pin);
        }
    }

    /// Its record was written, or written again further on.
    pub(super) fn recorded(&self, pin: Arc<Pin>, length: usize, order: u64) {
        let mut place = lock(&self.place);
        let before = place.pin.replace(pin);
        place.is_recorded = true;
        place.is_written = true;
        place.open = None;
        place.length = length;
        place.order = order;
        drop(place);
        // May remove a file.
        drop(before);
    }

    /// Lets its segment go; `true` when an entry of it was ever written.
    pub(super) fn release(&self) -> (bool, Option<Arc<Pin>>) {
        let mut place = lock(&self.place);
        let pin = place.pin.take();
        if self.is_spared()
            && let Some(pin) = &pin
        {
            pin.spare();
        }
        (place.is_written, pin)
    }

    /// Where it stands and how long it is.
    pub(super) fn order_and_length(&self) -> (u64, usize) {
        let place = lock(&self.place);
        (place.order, place.length)
    }

    /// Its entry again, for a later segment; whether it is the open one. `None` when it is just being done with.
    pub(super) fn entry(&self) -> Option<(Vec<u8>, bool)> {
        if let Some(open) = lock(&self.place).open.clone() {
            return Some((open, true));
        }
        let record = lock(&self.forms).iter().find_map(Weak::upgrade)?;
        Some((super::entry::record(self.id, &record), false))
    }
}

impl Pin {
    pub(super) fn new(ticket: Ticket) -> Arc<Self> {
        Arc::new(Self { holds: Some(Holds::Ticket(ticket)), spared: AtomicBool::new(false) })
    }

    pub(super) fn old(files: OldFiles) -> Arc<Self> {
        Arc::new(Self { holds: Some(Holds::Old(files)), spared: AtomicBool::new(false) })
    }

    /// What it holds comes back at the next start.
    pub(super) fn spare(&self) {
        self.spared.store(true, Ordering::Relaxed);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let spared = *self.spared.get_mut();
        match self.holds.take() {
            // Dropped as they are, tickets keep their segments.
            Some(Holds::Ticket(ticket)) if !spared => ticket.settle(),
            Some(Holds::Old(old)) if !spared => old.remove(),
            _ => {}
        }
    }
}

impl OldFiles {
    fn remove(self) {
        self.bytes.store(0, Ordering::Relaxed);
        for OldFile { segment, corrupt } in self.files {
            let file = segment.path().display().to_string();
            let gone = if corrupt { segment.set_aside() } else { segment.delete() };
            if let Err(error) = gone {
                tracing::warn!(file, %error, "journal: a file that is done with cannot be removed");
                // Those behind it, and what was written since, may speak of it.
                return;
            }
        }
        self.hold.settle();
    }
}
