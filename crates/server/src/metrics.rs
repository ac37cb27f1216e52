//! What `/metrics` says, in Prometheus' text format.
//!
//! The recorder belongs to the server and not to the process, so that two servers in one process do not count together.

use edgethink_engine::EngineStats;
use edgethink_reason::Answer;
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

/// Seconds; the upper ends of the histograms' buckets.
const SECONDS: [f64; 18] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 120.0, 300.0,
];

/// Every counter, gauge and histogram of a server.
pub(crate) struct Metrics {
    handle: PrometheusHandle,
    blocks_used: Gauge,
    blocks_total: Gauge,
    blocks_cached: Gauge,
    running: Gauge,
    waiting: Gauge,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    generated_tokens: Counter,
    thinking_tokens: Counter,
    verifier_tokens: Counter,
    preemptions: Counter,
    requests: Counter,
    pub(crate) failed: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) expired: Counter,
    decided: [Counter; 2],
    pub(crate) ttft_seconds: Histogram,
    pub(crate) inter_token_seconds: Histogram,
    pub(crate) queue_seconds: Histogram,
    request_seconds: Histogram,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

const METADATA: Metadata<'static> = Metadata::new("edgethink", Level::INFO, None);

impl Metrics {
    /// All at zero.
    pub(crate) fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new()
            .set_buckets(&SECONDS)?
            .build_recorder();
        let counter = |name: &'static str, what: &'static str| {
            recorder.describe_counter(KeyName::from(name), None, what.into());
            recorder.register_counter(&Key::from_name(name), &METADATA)
        };
        let gauge = |name: &'static str, what: &'static str| {
            recorder.describe_gauge(KeyName::from(name), None, what.into());
            recorder.register_gauge(&Key::from_name(name), &METADATA)
        };
        let seconds = |name: &'static str, what: &'static str| {
            recorder.describe_histogram(KeyName::from(name), Some(Unit::Seconds), what.into());
            recorder.register_histogram(&Key::from_name(name), &METADATA)
        };
        let decided = ["false", "true"].map(|thinks| {
            let label = vec![Label::new("thinks", thinks)];
            let key = Key::from_parts("edgethink_decisions_total", label);
            recorder.register_counter(&key, &METADATA)
        });
        recorder.describe_counter(
            KeyName::from("edgethink_decisions_total"),
            None,
            "Decisions of the switcher".into(),
        );
        Ok(Self {
            blocks_used: gauge(
                "edgethink_kv_blocks_used",
                "KV blocks held by running requests",
            ),
            blocks_total: gauge("edgethink_kv_blocks_total", "KV blocks in all"),
            blocks_cached: gauge(
                "edgethink_kv_blocks_cached",
                "KV blocks in the prefix cache, some of them also held by requests",
            ),
            running: gauge("edgethink_requests_running", "Requests that are worked on"),
            waiting: gauge("edgethink_requests_waiting", "Requests in the queue"),
            prompt_tokens: counter("edgethink_prompt_tokens_total", "Tokens of prompts"),
            cached_tokens: counter(
                "edgethink_prefix_cache_hit_tokens_total",
                "Tokens of prompts whose KV was there already",
            ),
            generated_tokens: counter(
                "edgethink_tokens_generated_total",
                "Tokens of thoughts and answers",
            ),
            thinking_tokens: counter(
                "edgethink_thinking_tokens_total",
                "Tokens of thoughts, of requests that were answered",
            ),
            verifier_tokens: counter(
                "edgethink_verifier_tokens_total",
                "Tokens computed to score answers",
            ),
            preemptions: counter(
                "edgethink_preemptions_total",
                "Sequences that lost their KV blocks to an older one",
            ),
            requests: counter("edgethink_requests_total", "Requests that were answered"),
            failed: counter("edgethink_requests_failed_total", "Requests that failed"),
            cancelled: counter(
                "edgethink_requests_cancelled_total",
                "Requests whose client went away, or that were out of time while running",
            ),
            expired: counter(
                "edgethink_requests_expired_total",
                "Requests that were out of time",
            ),
            ttft_seconds: seconds(
                "edgethink_ttft_seconds",
                "From a request's arrival to its first text",
            ),
            inter_token_seconds: seconds(
                "edgethink_inter_token_seconds",
                "Between two pieces of text of a stream",
            ),
            queue_seconds: seconds(
                "edgethink_queue_seconds",
                "From a request's arrival to its start",
            ),
            request_seconds: seconds(
                "edgethink_request_seconds",
                "From a request's start to its end",
            ),
            decided,
            handle: recorder.handle(),
        })
    }

    /// The engine's state, and the requests that run and wait.
    pub(crate) fn observe(&self, stats: &EngineStats, running: usize, waiting: usize) {
        let counters = &stats.counters;
        self.blocks_used.set(stats.blocks_held as f64);
        self.blocks_total.set(stats.blocks_total as f64);
        self.blocks_cached.set(stats.blocks_cached as f64);
        self.running.set(running as f64);
        self.waiting.set(waiting as f64);
        self.prompt_tokens.absolute(counters.prompt_tokens);
        self.cached_tokens.absolute(counters.cached_tokens);
        self.generated_tokens.absolute(counters.generated_tokens);
        self.preemptions.absolute(stats.preemptions);
    }

    /// An answer and what it cost.
    pub(crate) fn answered(&self, answer: &Answer) {
        self.requests.increment(1);
        self.thinking_tokens
            .increment(answer.usage.reasoning_tokens as u64);
        self.verifier_tokens
            .increment(answer.usage.verifier_tokens as u64);
        self.request_seconds.record(answer.timings.total_ms / 1e3);
        if let Some(decision) = &answer.decision {
            self.decided[usize::from(decision.thinks)].increment(1);
        }
    }

    /// The text of `/metrics`.
    pub(crate) fn render(&self) -> String {
        self.handle.render()
    }

    /// Puts recorded times into their buckets; without it they pile up until somebody asks.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}
