//! The recorder behind `/metrics`, in Prometheus' text format.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// The content type of [`MetricsEndpoint::render`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Seconds: from half a millisecond to half a minute.
const SECONDS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];
/// Counts of rows, for names that end in `_rows`.
const ROWS: &[f64] = &[
    1.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 20_000.0, 50_000.0,
];

/// What has been counted, ready to be read.
#[derive(Clone)]
pub struct MetricsEndpoint(PrometheusHandle);

impl MetricsEndpoint {
    /// Installs the process's recorder.
    ///
    /// # Errors
    /// If the process has one already.
    pub fn install() -> Result<Self, BuildError> {
        PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)?
            .set_buckets_for_metric(Matcher::Suffix("_rows".to_owned()), ROWS)?
            .install_recorder()
            .map(Self)
    }

    /// All metrics, as Prometheus reads them. Also keeps the recorder's memory bounded, so it is to be
    /// called now and then even when nobody scrapes.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.run_upkeep();
        self.0.render()
    }
}
