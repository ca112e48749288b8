//! The talk over one batch: what was sent, what was answered, what the pipeline is told.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use magicapi_plugin::{Delivery, ItemOutcome, RequestId, RequestMetrics};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::answer::{Answer, Verdict, parse};
use crate::process::{GRACE, Output, Process};

/// Answers that wait for the pipeline to ask again are no more than these.
const UNTOLD: usize = 100_000;

/// Answers that the pipeline has not heard, since it gave up waiting for the rest of their batch.
pub(super) type Untold = Mutex<HashMap<RequestId, Verdict>>;

/// One batch, and what is known of it.
pub(super) struct Exchange<'a> {
    batch: &'a [Arc<RequestMetrics>],
    /// What is to be sent: records without an answer, in order.
    open: Vec<Arc<RequestMetrics>>,
    /// How many of those have begun to be sent.
    begun: AtomicUsize,
    answers: HashMap<RequestId, Option<Verdict>>,
    refused: Option<String>,
    untold: &'a Untold,
}

impl<'a> Exchange<'a> {
    /// Begins with the answers that came too late for an earlier try.
    pub(super) fn begin(batch: &'a [Arc<RequestMetrics>], untold: &'a Untold) -> Self {
        let mut kept = untold.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answers = HashMap::with_capacity(batch.len());
        for record in batch {
            answers.entry(record.id()).or_insert_with(|| kept.remove(&record.id()));
        }
        let is_open = |record: &&Arc<RequestMetrics>| answers.get(&record.id()).is_some_and(Option::is_none);
        let open = batch.iter().filter(is_open).cloned().collect();
        Self { batch, open, begun: AtomicUsize::new(0), answers, refused: None, untold }
    }

    /// Whether nothing more need be heard.
    pub(super) fn is_over(&self) -> bool {
        self.refused.is_some() || self.answers.values().all(Option::is_some)
    }

    /// Sends what is open and hears answers, both at once, until there is one for each. An error is the end of this
    /// child; what it has answered holds.
    pub(super) async fn talk(&mut self, child: &mut Process) -> Result<(), String> {
        let Process { stdin: Some(stdin), stdout, .. } = child else {
            return Err("its input is closed".into());
        };
        let (open, begun) = (std::mem::take(&mut self.open), std::mem::take(&mut self.begun));
        let outcome = {
            let mut sending = std::pin::pin!(async {
                for record in &open {
                    begun.fetch_add(1, Ordering::Relaxed);
                    for piece in record.otel_log_pieces() {
                        stdin.write_all(piece).await?;
                    }
                    stdin.write_all(b"\n").await?;
                }
                // An empty line: the batch is complete.
                stdin.write_all(b"\n").await?;
                stdin.flush().await
            });
            let mut sent = false;
            loop {
                if sent && self.is_over() {
                    break Ok(());
                }
                tokio::select! {
                    outcome = &mut sending, if !sent => match outcome {
                        Ok(()) => sent = true,
                        Err(error) => {
                            let rest = async { while self.hear(stdout).await.is_ok() {} };
                            let _over = timeout(GRACE, rest).await;
                            break Err(format!("it takes no more records: {error}"));
                        }
                    },
                    heard = self.hear(stdout) => if let Err(end) = heard { break Err(end) },
                }
            }
        };
        (self.open, self.begun) = (open, begun);
        outcome
    }

    /// Takes one line of the child; an error is the end of all talk.
    async fn hear(&mut self, output: &mut Output) -> Result<(), String> {
        let line = output.next().await?;
        let taken = parse(&line).and_then(|answer| match answer {
            Answer::Ready => Err("ready once more".into()),
            Answer::Refuse(reason) => {
                self.refused = Some(reason);
                Ok(())
            }
            Answer::Record(id, verdict) => match self.answers.get_mut(&id) {
                Some(answer @ None) => {
                    *answer = Some(verdict);
                    Ok(())
                }
                Some(Some(_)) => Err(format!("a second answer for {id}")),
                None => Err(format!("an answer for {id}, which is not in this batch")),
            },
        });
        taken.unwrap_or_else(|problem| output.remarks.make(&problem));
        Ok(())
    }

    /// What the pipeline is told; `otherwise` when no record has an answer and none was sent.
    pub(super) fn judge(mut self, otherwise: Delivery) -> Delivery {
        let begun = if self.refused.is_some() { 0 } else { self.begun.load(Ordering::Relaxed) };
        let sent: HashSet<RequestId> = self.open.iter().take(begun).map(|record| record.id()).collect();
        let answers = std::mem::take(&mut self.answers);
        let delay = |answer: &Verdict| if let Verdict::Retry(delay) = answer { *delay } else { None };
        let answer = |record: &RequestMetrics| answers.get(&record.id())?.as_ref();
        let outcome = |record: &Arc<RequestMetrics>| match answer(record) {
            Some(Verdict::Ok) => ItemOutcome::Delivered,
            Some(Verdict::Reject(reason)) => ItemOutcome::Rejected { reason: reason.clone() },
            None if sent.contains(&record.id()) => ItemOutcome::Unknown,
            Some(Verdict::Retry(_)) | None => ItemOutcome::Retry,
        };
        let outcomes: Vec<ItemOutcome> = self.batch.iter().map(outcome).collect();
        let all = |one: &ItemOutcome| outcomes.iter().all(|outcome| outcome == one);
        match self.refused.take() {
            _ if all(&ItemOutcome::Delivered) => Delivery::Delivered,
            _ if !all(&ItemOutcome::Retry) => Delivery::Items(outcomes),
            Some(reason) => Delivery::Refused { reason },
            None if answers.values().all(Option::is_none) => otherwise,
            None => Delivery::Retry { after: answers.values().flatten().filter_map(delay).max() },
        }
    }
}

/// The pipeline may give up waiting at any moment, and then sends the batch again: what has been taken must not be.
impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let settled = |answer: &Verdict| !matches!(answer, Verdict::Retry(_));
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        let room = UNTOLD.saturating_sub(untold.len());
        let answers = self.answers.drain().filter_map(|(id, answer)| Some((id, answer.filter(settled)?)));
        untold.extend(answers.take(room));
    }
}
