//! The talk over one batch: what was sent, what was answered, what the pipeline is told.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use magicapi_plugin::{Delivery, ItemOutcome, RequestId, RequestMetrics};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::answer::{Answer, Verdict, parse};
use crate::process::{GRACE, Output, Process};

/// Answers that wait for the pipeline to ask again are no more than these.
const UNTOLD: usize = 100_000;

/// What the pipeline has not heard, since it gave up waiting for the rest of a batch.
#[derive(Default)]
pub(super) struct Untold(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    /// Answers that hold.
    answers: HashMap<RequestId, Verdict>,
    /// What was sent and has none, until the pipeline has asked.
    unanswered: HashSet<RequestId>,
}

impl Untold {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One batch, and what is known of it.
pub(super) struct Exchange<'a> {
    batch: &'a [Arc<RequestMetrics>],
    /// What is to be sent: records without an answer, in order.
    open: Arc<[Arc<RequestMetrics>]>,
    /// How many of those have begun to be sent.
    begun: Arc<AtomicUsize>,
    answers: HashMap<RequestId, Option<Verdict>>,
    refused: Option<String>,
    untold: &'a Untold,
}

impl<'a> Exchange<'a> {
    /// Begins with the answers that came too late for an earlier try.
    pub(super) fn begin(batch: &'a [Arc<RequestMetrics>], untold: &'a Untold) -> Self {
        let mut kept = untold.kept();
        let mut answers = HashMap::with_capacity(batch.len());
        for record in batch {
            answers.entry(record.id()).or_insert_with(|| kept.answers.remove(&record.id()));
            kept.unanswered.remove(&record.id());
        }
        drop(kept);
        let is_open = |record: &&Arc<RequestMetrics>| answers.get(&record.id()).is_some_and(Option::is_none);
        let open = batch.iter().filter(is_open).cloned().collect();
        Self { batch, open, begun: Arc::default(), answers, refused: None, untold }
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
        let (open, begun) = (self.open.clone(), self.begun.clone());
        let mut sending = std::pin::pin!(async {
            for record in &*open {
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
                return Ok(());
            }
            tokio::select! {
                outcome = &mut sending, if !sent => match outcome {
                    Ok(()) => sent = true,
                    Err(error) => {
                        let rest = async { while self.hear(stdout).await.is_ok() {} };
                        let _over = timeout(GRACE, rest).await;
                        return Err(format!("it takes no more records: {error}"));
                    }
                },
                heard = self.hear(stdout) => heard?,
            }
        }
    }

    /// Takes one line of the child; an error is the end of all talk.
    async fn hear(&mut self, output: &mut Output) -> Result<(), String> {
        let line = output.next().await?;
        let taken = parse(&line, &output.discretion).and_then(|answer| match answer {
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

    /// What was sent and has no answer; nothing after a refusal.
    fn unanswered(&self) -> HashSet<RequestId> {
        let begun = if self.refused.is_some() { 0 } else { self.begun.load(Ordering::Relaxed) };
        let sent = self.open.iter().take(begun).map(|record| record.id());
        sent.filter(|id| self.answers.get(id).is_some_and(Option::is_none)).collect()
    }

    /// What the pipeline is told of a batch that it has given up waiting for.
    pub(super) fn cut_off(batch: &[Arc<RequestMetrics>], untold: &Untold) -> Delivery {
        let mut kept = untold.kept();
        let told = |record: &Arc<RequestMetrics>| {
            let (id, answer) = (record.id(), kept.answers.remove(&record.id()));
            outcome(answer.as_ref(), kept.unanswered.remove(&id))
        };
        Delivery::Items(batch.iter().map(told).collect())
    }

    /// What the pipeline is told; `otherwise` when no record has an answer and none was sent.
    pub(super) fn judge(mut self, otherwise: Delivery) -> Delivery {
        let sent = self.unanswered();
        let answers = std::mem::take(&mut self.answers);
        let answer = |id| answers.get(&id)?.as_ref();
        let ids = self.batch.iter().map(|record| record.id());
        let outcomes: Vec<ItemOutcome> = ids.map(|id| outcome(answer(id), sent.contains(&id))).collect();
        let all = |one: &ItemOutcome| outcomes.iter().all(|outcome| outcome == one);
        match self.refused.take() {
            _ if all(&ItemOutcome::Delivered) => Delivery::Delivered,
            _ if !outcomes.iter().all(is_again) => Delivery::Items(outcomes),
            Some(reason) => Delivery::Refused { reason },
            None if answers.values().all(Option::is_none) => otherwise,
            None => Delivery::Retry { after: outcomes.iter().filter_map(ItemOutcome::after).max() },
        }
    }
}

fn is_again(outcome: &ItemOutcome) -> bool {
    matches!(outcome, ItemOutcome::Retry | ItemOutcome::RetryAfter(_))
}

/// What is told of a record with this answer.
fn outcome(answer: Option<&Verdict>, sent: bool) -> ItemOutcome {
    match answer {
        Some(Verdict::Ok) => ItemOutcome::Delivered,
        Some(Verdict::Reject(reason)) => ItemOutcome::Rejected { reason: reason.clone() },
        None if sent => ItemOutcome::Unknown,
        Some(Verdict::Retry(after)) => ItemOutcome::again(*after),
        None => ItemOutcome::Retry,
    }
}

/// The pipeline may give up waiting at any moment, and then sends the batch again: what has been taken must not be.
impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        let unanswered = self.unanswered();
        let settled = |answer: &Verdict| !matches!(answer, Verdict::Retry(_));
        let answers = self.answers.drain().filter_map(|(id, answer)| Some((id, answer.filter(settled)?)));
        let mut kept = self.untold.kept();
        let room = UNTOLD.saturating_sub(kept.answers.len());
        kept.answers.extend(answers.take(room));
        let room = UNTOLD.saturating_sub(kept.unanswered.len());
        kept.unanswered.extend(unanswered.into_iter().take(room));
    }
}
