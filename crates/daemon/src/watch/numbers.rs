//! The watch in metrics.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::{Entry, Watch};
use crate::metrics::MetricsRegistry;

impl Watch {
    /// Adds `newswire_<part>_loop_lag_seconds` and `newswire_<part>_loop_stalls_total` of each loop, and
    /// `newswire_<part>_pauses_total`.
    pub fn register_loops(&self, metrics: &MetricsRegistry, part: &str) {
        let show = |kind, value| PerLoop { watch: self.clone(), kind, value };
        metrics.register(
            &format!("newswire_{part}_loop_lag_seconds"),
            "How late an event loop was at most in the last minute; what it serves waited that long",
            show(MetricType::Gauge, |entry| entry.lag_ms_max.load(Relaxed)),
        );
        metrics.register(
            &format!("newswire_{part}_loop_stalls_total"),
            "Times that an event loop made no progress for more than a second; the log has the stack of each",
            show(MetricType::Counter, |entry| entry.stalls.load(Relaxed)),
        );
        let watch = self.clone();
        metrics.register_counter(
            &format!("newswire_{part}_pauses_total"),
            "Times that the whole process did not run for over a second: stopped, the machine asleep or without a free processor",
            move || watch.found().pauses.count,
        );
    }

    /// Adds `newswire_<part>_clock_jumps_total`.
    pub fn register_clock_jumps(&self, metrics: &MetricsRegistry, part: &str) {
        let watch = self.clone();
        metrics.register_counter(
            &format!("newswire_{part}_clock_jumps_total"),
            "Jumps of the wall clock by more than a second: somebody set it",
            move || watch.found().clock.count,
        );
    }
}

struct PerLoop {
    watch: Watch,
    kind: MetricType,
    value: fn(&Entry) -> u64,
}

impl fmt::Debug for PerLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerLoop").finish_non_exhaustive()
    }
}

impl EncodeMetric for PerLoop {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for entry in self.watch.entries().clone() {
            let value = (self.value)(&entry);
            let labels = [("loop", &*entry.name)];
            let mut encoder = encoder.encode_family(&labels)?;
            match self.kind {
                MetricType::Counter => encoder.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                #[expect(clippy::cast_precision_loss, reason = "milliseconds of a minute")]
                _ => encoder.encode_gauge(&(value as f64 / 1000.0))?,
            }
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        match self.kind {
            MetricType::Counter => MetricType::Counter,
            _ => MetricType::Gauge,
        }
    }
}
