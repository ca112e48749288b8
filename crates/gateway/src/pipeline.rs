//! From the configuration's words for one exporter's pipeline to the pipeline's own.

use std::path::Path;
use std::time::Duration;

use magicapi_config::Pipeline;
use magicapi_telemetry::{DurableSettings, Fsync, Keep, Only, PipelineSettings, RateLimit, Sample, WhenFull};

/// How an exporter is driven.
pub(crate) fn settings(pipeline: &Pipeline) -> PipelineSettings {
    PipelineSettings {
        content: pipeline.content,
        only: only(&pipeline.only),
        sample: sample(&pipeline.sample),
        require_healthy: pipeline.require_healthy,
        init_timeout: pipeline.init_timeout,
        timeout: pipeline.timeout,
        concurrency: pipeline.concurrency,
        rate_limit: RateLimit { requests: pipeline.rate_limit.requests, bytes: pipeline.rate_limit.bytes },
        batch_records: pipeline.batch.records,
        batch_bytes: pipeline.batch.bytes,
        batch_age: pipeline.batch.age,
        buffer_memory: pipeline.buffer.memory,
        buffer_disk: pipeline.buffer.disk,
        buffer_max_age: pipeline.buffer.max_age,
        when_full: match pipeline.buffer.when_full {
            magicapi_config::WhenFull::Spool => WhenFull::Spool,
            magicapi_config::WhenFull::DropOldest => WhenFull::DropOldest,
            magicapi_config::WhenFull::Refuse => WhenFull::Refuse,
        },
        retry_max_age: pipeline.retry.max_age,
        retry_first: pipeline.retry.first,
        retry_longest: pipeline.retry.longest,
        breaker_failures: pipeline.breaker.failures,
        breaker_refused: pipeline.breaker.refused,
        dead_disk: pipeline.dead_letters.disk,
        dead_max_age: pipeline.dead_letters.max_age,
    }
}

/// Where durable records stand, below the data directory.
pub(crate) fn durable(durable: &magicapi_config::Durable, data_dir: &Path) -> DurableSettings {
    DurableSettings {
        dir: data_dir.join("journal").join("telemetry"),
        disk: durable.disk,
        fsync: match durable.fsync {
            magicapi_config::Fsync::Never => Fsync::Never,
            magicapi_config::Fsync::Interval => Fsync::Interval(Duration::from_secs(1)),
            magicapi_config::Fsync::Always => Fsync::Always,
        },
    }
}

fn only(only: &magicapi_config::Only) -> Only {
    Only {
        status: only.status.clone(),
        outcome: only.outcome.iter().map(|outcome| outcome.as_str().to_owned()).collect(),
        provider: only.provider.clone(),
        model: only.model.clone(),
        operation: only.operation.clone(),
        key: only.key.clone(),
        min_cost: only.min_cost,
        min_latency: only.min_latency,
        min_status_code: only.min_status_code,
    }
}

fn sample(sample: &magicapi_config::Sample) -> Sample {
    Sample {
        rate: sample.rate,
        keep: Keep {
            errors: sample.keep_errors,
            slower_than: sample.keep_slower_than,
            cost_over: sample.keep_cost_over,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use magicapi_config::Sources;
    use magicapi_telemetry::Fsync;

    #[test]
    fn telemetry_exporters_retry_breaker_and_dead_letters_are_the_pipelines() {
        let text = "telemetry: { exporters: [{ type: console, retry: { first: 7ms, longest: 8s },
            breaker: { failures: 9, refused: 10s }, dead_letters: { disk: 11KiB, max_age: 12s } }] }";
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("gateway.yaml");
        std::fs::write(&file, text).expect("a file");
        let sources = Sources { file: Some(file), ..Sources::default() };
        let catalogue = crate::catalogue::catalogue().expect("a sound build");
        let loaded =
            magicapi_config::load(&sources, &catalogue).map_err(|errors| errors.to_string()).expect("valid");
        let settings = super::settings(&loaded.config.telemetry.exporters[0].pipeline);
        assert_eq!(
            (settings.retry_first, settings.retry_longest),
            (Duration::from_millis(7), Duration::from_secs(8))
        );
        assert_eq!((settings.breaker_failures, settings.breaker_refused), (9, Duration::from_secs(10)));
        assert_eq!((settings.dead_disk, settings.dead_max_age), (11 << 10, Duration::from_secs(12)));
    }

    /// What each does is the spool's own test.
    #[test]
    fn telemetry_journal_fsync_is_the_journals() {
        let words = [
            (magicapi_config::Fsync::Never, Fsync::Never),
            (magicapi_config::Fsync::Interval, Fsync::Interval(Duration::from_secs(1))),
            (magicapi_config::Fsync::Always, Fsync::Always),
        ];
        for (fsync, wanted) in words {
            let settings = super::durable(&magicapi_config::Durable { fsync, disk: 7 }, Path::new("data"));
            assert_eq!((settings.fsync, settings.disk), (wanted, 7));
            assert_eq!(settings.dir, Path::new("data/journal/telemetry"));
        }
    }
}
