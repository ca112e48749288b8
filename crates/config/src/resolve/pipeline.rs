//! The pipeline around one exporter: defaults, and values that cannot be meant.

use std::time::Duration;

use magicapi_model::{Money, Outcome};
use magicapi_plugin::ContentLevel;

use super::meaningless;
use super::serving::bytes;
use crate::context::Context;
use crate::effective;
use crate::raw;
use crate::types::{Batch, Breaker, Buffer, DeadLetters, Only, Pipeline, RateLimit, Retry, Sample, WhenFull};

const KIB: u64 = 1 << 10;
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);

/// How long records wait on disk for a back end that takes old ones.
const MAX_AGE: Duration = Duration::from_hours(7 * 24);

/// Resolves the entry at the path `at`; its plug-in may know how long waiting makes sense.
pub(super) fn pipeline(
    cx: &mut Context<'_>,
    at: &str,
    file: &raw::Pipeline,
    captured: ContentLevel,
    max_age: Option<Duration>,
) -> Pipeline {
    let content = file.content.unwrap_or(captured);
    if content > captured {
        let problem = format!(
            "`{}` is more than `telemetry.capture.bodies: {}` lets records hold",
            effective::word(content),
            effective::word(captured)
        );
        cx.problem(&format!("{at}.content"), problem);
    }
    let (batch, buffer) = (batch(&file.batch), buffer(cx, at, &file.buffer, max_age));
    if batch.bytes > buffer.memory / 2 || batch.bytes == 0 {
        let problem =
            "must be more than 0 and no more than half of `buffer.memory`, which counts bodies twice";
        cx.problem(&format!("{at}.batch.bytes"), problem);
    }
    let half_a_minute = Duration::from_secs(30);
    let waits = if buffer.when_full == WhenFull::DropOldest { HOUR } else { buffer.max_age };
    let rate = &file.rate_limit;
    Pipeline {
        content,
        only: file.only.as_ref().map(|written| only(cx, at, written)).unwrap_or_default(),
        sample: sample(cx, at, file.sample.as_ref()),
        require_healthy: file.require_healthy.unwrap_or(false),
        init_timeout: cx.positive(&format!("{at}.init_timeout"), file.init_timeout, half_a_minute),
        timeout: cx.positive(&format!("{at}.timeout"), file.timeout, half_a_minute),
        concurrency: file.concurrency.unwrap_or(1),
        rate_limit: RateLimit {
            requests: rate.requests,
            bytes: rate.bytes.map(|size| cx.positive_size(&format!("{at}.rate_limit.bytes"), Some(size), 1)),
        },
        batch,
        buffer,
        retry: retry(cx, at, &file.retry, waits),
        breaker: Breaker {
            failures: file.breaker.failures.unwrap_or(5),
            refused: cx.positive(&format!("{at}.breaker.refused"), file.breaker.refused, half_a_minute),
        },
        dead_letters: DeadLetters {
            disk: cx.positive_size(&format!("{at}.dead_letters.disk"), file.dead_letters.disk, 256 << 20),
            max_age: cx.positive(&format!("{at}.dead_letters.max_age"), file.dead_letters.max_age, 30 * DAY),
        },
    }
}

fn retry(cx: &mut Context<'_>, at: &str, file: &raw::Retry, waits: Duration) -> Retry {
    let first = cx.positive(&format!("{at}.retry.first"), file.first, Duration::from_millis(500));
    let longest =
        cx.positive(&format!("{at}.retry.longest"), file.longest, Duration::from_mins(1).max(first));
    if longest < first {
        cx.problem(&format!("{at}.retry.longest"), "must not be less than `retry.first`".to_owned());
    }
    Retry { first, longest, max_age: cx.positive(&format!("{at}.retry.max_age"), file.max_age, waits) }
}

fn batch(file: &raw::Batch) -> Batch {
    Batch {
        records: file.records.unwrap_or(1000),
        bytes: bytes(file.bytes, 4096 * KIB),
        age: file.age.map_or(Duration::from_secs(1), |span| span.0),
    }
}

fn buffer(cx: &mut Context<'_>, at: &str, file: &raw::Buffer, max_age: Option<Duration>) -> Buffer {
    let when_full = file.when_full.unwrap_or_default();
    let disk = file.disk.map_or(2 << 30, |size| size.0);
    if disk == 0 && when_full == WhenFull::Spool {
        let problem = "must be more than 0 with `when_full: spool`; write `when_full: drop_oldest` instead";
        cx.problem(&format!("{at}.buffer.disk"), problem);
    }
    meaningless::refuse_disk(cx, at, file);
    Buffer {
        memory: bytes(file.memory, 64 * 1024 * KIB),
        disk,
        max_age: cx.positive(&format!("{at}.buffer.max_age"), file.max_age, max_age.unwrap_or(MAX_AGE)),
        when_full,
    }
}

fn only(cx: &mut Context<'_>, at: &str, file: &raw::Only) -> Only {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let mut outcomes = Vec::new();
    for (index, word) in file.outcome.iter().flatten().enumerate() {
        if let Some(outcome) = Outcome::ALL.iter().copied().find(|outcome| outcome.as_str() == word) {
            outcomes.push(outcome);
            continue;
        }
        let known: Vec<_> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        let problem = format!("expected one of {}; found `{word}`", known.join(", "));
        let problem = cx.at(&format!("{at}.only.outcome[{index}]"), problem).nearest(word, known);
        cx.report(problem);
    }
    Only {
        status: file.status.iter().flatten().map(effective::word).collect(),
        outcome: outcomes,
        provider: list(&file.provider),
        model: list(&file.model),
        operation: list(&file.operation),
        key: list(&file.key),
        min_cost: money(cx, &format!("{at}.only.min_cost_usd"), file.min_cost_usd),
        min_latency: file.min_latency.map(|span| span.0),
        min_status_code: file.min_status_code,
    }
}

fn sample(cx: &mut Context<'_>, at: &str, file: Option<&raw::Sample>) -> Sample {
    let everything = raw::Keep::default();
    let (key, rate, keep, keeps_errors) = match file {
        None => (format!("{at}.sample"), 1.0, &everything, false),
        Some(raw::Sample::Rate(rate)) => (format!("{at}.sample"), *rate, &everything, false),
        Some(raw::Sample::Rules(rules)) => {
            let errors = rules.keep.errors.unwrap_or(true);
            (format!("{at}.sample.rate"), rules.rate.unwrap_or(1.0), &rules.keep, errors)
        }
    };
    if !(0.0..=1.0).contains(&rate) {
        cx.problem(&key, format!("expected a share from 0 to 1, found `{rate}`"));
    }
    Sample {
        rate,
        keep_errors: keeps_errors,
        keep_slower_than: keep.slower_than.map(|span| span.0),
        keep_cost_over: money(cx, &format!("{at}.sample.keep.cost_usd_over"), keep.cost_usd_over),
    }
}

fn money(cx: &mut Context<'_>, key: &str, written: Option<f64>) -> Option<Money> {
    let dollars = written?;
    let money = Money::from_usd(dollars).filter(|_| dollars >= 0.0);
    if money.is_none() {
        cx.problem(key, format!("expected US dollars, 0 or more, found `{dollars}`"));
    }
    money
}
