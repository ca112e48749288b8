//! A telemetry back end with a fault: it reads records in its vendor's own form, notes each under its id, and answers as
//! the fault says, until it is mended.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};

use crate::asked::Asked;
use crate::reserved::Reserved;

/// What is wrong with a back end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody listens.
    Dead,
    /// It takes records, and answers after this long.
    Slow(Duration),
    /// Every request with records gets this status.
    Refusing(u16),
    /// Every request with records is a 429 with `retry-after: 1`.
    Throttling,
    /// Records marked as poison are refused: alone where the vendor answers for each, else with their whole request.
    RejectingItems,
    /// It takes records, and closes the connection without an answer.
    Closing,
}

/// One record in a request.
pub struct Item {
    /// Its id.
    pub id: String,
    /// What the back end knows a record by that it has already, if it knows it by anything.
    pub key: Option<String>,
    /// Whether a back end that rejects single records rejects this one.
    pub poison: bool,
}

/// What a back end says of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It has it from now on.
    Taken,
    /// It had it already, by its key.
    Known,
    /// It never takes it.
    Refused,
}

/// How a vendor is spoken to.
#[derive(Clone, Copy)]
pub struct Vendor {
    /// The records of a request; `None` for every other request, which is answered with `200` and [`Self::other`].
    pub items: fn(&Asked) -> Option<Vec<Item>>,
    /// The answer to records that were read. Status and body.
    pub answer: fn(&[Said]) -> (u16, Vec<u8>),
    /// The body of every other answer.
    pub other: &'static str,
}

/// What became of the records.
#[derive(Default)]
pub struct Seen {
    /// How often each record was taken.
    pub taken: BTreeMap<String, usize>,
    /// When each was taken first.
    pub arrived: BTreeMap<String, Instant>,
    /// How often each was read in a request that was never answered.
    pub unanswered: BTreeMap<String, usize>,
    /// Requests with records that came earlier after a 429 than it said.
    pub hasty: usize,
    keys: BTreeSet<String>,
    fault: Option<Fault>,
    not_before: Option<Instant>,
}

impl Vendor {
    /// Whether its answer says yes and no at once.
    fn answers_for_each(self) -> bool {
        (200..300).contains(&(self.answer)(&[Said::Taken, Said::Refused]).0)
    }
}

impl Seen {
    /// The ids of all records that are there.
    pub fn ids(&self) -> BTreeSet<String> {
        self.taken.keys().cloned().collect()
    }

    /// Takes the records of a request; with `all`, poison too.
    fn take(&mut self, items: &[Item], all: bool) -> Vec<Said> {
        let one = |item: &Item| {
            if item.poison && !all {
                return Said::Refused;
            }
            if item.key.as_ref().is_some_and(|key| !self.keys.insert(key.clone())) {
                return Said::Known;
            }
            *self.taken.entry(item.id.clone()).or_default() += 1;
            self.arrived.entry(item.id.clone()).or_insert_with(Instant::now);
            Said::Taken
        };
        items.iter().map(one).collect()
    }

    fn leave_unanswered(&mut self, items: &[Item]) {
        for item in items {
            *self.unanswered.entry(item.id.clone()).or_default() += 1;
        }
    }
}

/// The back end.
pub struct BackEnd {
    /// Where it listens.
    pub address: SocketAddr,
    place: Reserved,
    vendor: Vendor,
    seen: Arc<Mutex<Seen>>,
    serving: Option<JoinHandle<()>>,
}

impl BackEnd {
    /// A back end with this fault, if any.
    pub fn start(vendor: Vendor, fault: Option<Fault>) -> Self {
        let place = Reserved::new();
        let seen = Arc::new(Mutex::new(Seen { fault, ..Seen::default() }));
        let mut back_end = Self { address: place.address, place, vendor, seen, serving: None };
        if fault != Some(Fault::Dead) {
            back_end.serve();
        }
        back_end
    }

    fn serve(&mut self) {
        let listener = self.place.listen();
        let (vendor, seen) = (self.vendor, self.seen.clone());
        self.serving = Some(tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(serve(socket, vendor, seen.clone()));
            }
        }));
    }

    /// From now on nothing is wrong with it.
    pub fn mend(&mut self) {
        self.seen().fault = None;
        if self.serving.is_none() {
            self.serve();
        }
    }

    /// What it has seen so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for BackEnd {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn serve(mut socket: TcpStream, vendor: Vendor, seen: Arc<Mutex<Seen>>) -> Option<()> {
    let mut received = Vec::new();
    loop {
        let asked = Asked::read(&mut socket, &mut received).await?;
        let Some(items) = (vendor.items)(&asked) else {
            answer(&mut socket, 200, "", vendor.other.as_bytes()).await?;
            continue;
        };
        let (status, headers, body) = react(&mut socket, vendor, &items, &seen).await?;
        answer(&mut socket, status, headers, &body).await?;
    }
}

/// The answer to a request with records; `None` when there is none.
async fn react(
    socket: &mut TcpStream,
    vendor: Vendor,
    items: &[Item],
    seen: &Mutex<Seen>,
) -> Option<(u16, &'static str, Vec<u8>)> {
    let lock = || seen.lock().unwrap_or_else(PoisonError::into_inner);
    let fault = {
        let mut seen = lock();
        seen.hasty += usize::from(seen.not_before.take().is_some_and(|at| Instant::now() < at));
        seen.fault
    };
    match fault {
        None | Some(Fault::Dead) => {
            let (status, body) = (vendor.answer)(&lock().take(items, true));
            Some((status, "", body))
        }
        Some(Fault::Slow(delay)) => {
            let said = lock().take(items, true);
            let mut sink = [0; 16];
            // Whoever waits that long gets an answer; whoever leaves has not got one.
            let left = tokio::time::timeout(delay, tokio::io::AsyncReadExt::read(socket, &mut sink)).await;
            if left.is_ok() {
                lock().leave_unanswered(items);
                return None;
            }
            let (status, body) = (vendor.answer)(&said);
            Some((status, "", body))
        }
        Some(Fault::Refusing(status)) => Some((status, "", b"{}".to_vec())),
        Some(Fault::Throttling) => {
            lock().not_before = Some(Instant::now() + Duration::from_secs(1));
            Some((429, "retry-after: 1\r\n", b"{}".to_vec()))
        }
        Some(Fault::RejectingItems) => {
            let whole = items.iter().any(|item| item.poison) && !vendor.answers_for_each();
            let said = if whole { vec![Said::Refused; items.len()] } else { lock().take(items, false) };
            let (status, body) = (vendor.answer)(&said);
            Some((status, "", body))
        }
        Some(Fault::Closing) => {
            let mut seen = lock();
            seen.take(items, true);
            seen.leave_unanswered(items);
            None
        }
    }
}

async fn answer(socket: &mut TcpStream, status: u16, headers: &str, body: &[u8]) -> Option<()> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} x\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    socket.write_all(&[head.as_bytes(), body].concat()).await.ok()
}
