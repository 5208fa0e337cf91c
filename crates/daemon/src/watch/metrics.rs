//! The metrics of the watch.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::{Watch, WatchEntry};
use crate::metrics::MetricsRegistry;

impl Watch {
    /// Adds `newswire_<part>_loop_lag_seconds` and `newswire_<part>_loop_stalls_total` per event loop,
    /// `newswire_<part>_listener_silent_seconds` per listener, and `newswire_<part>_pauses_total`.
    pub fn register_loops(&self, metrics: &MetricsRegistry, part: &str) {
        let per_loop = |kind, value| PerLoop { watch: self.clone(), kind, value };
        metrics.register(
            &format!("newswire_{part}_loop_lag_seconds"),
            "Maximum delay of an event loop in the last minute; its clients or tasks waited that long",
            per_loop(MetricType::Gauge, |entry| entry.lag_ms_max.load(Relaxed)),
        );
        metrics.register(
            &format!("newswire_{part}_loop_stalls_total"),
            "Times that an event loop made no progress for more than a second; each is logged with its stack",
            per_loop(MetricType::Counter, |entry| entry.stalls.load(Relaxed)),
        );
        metrics.register(
            &format!("newswire_{part}_listener_silent_seconds"),
            "How long a socket of the process has not answered to the process itself; 0 while it answers",
            PerListener(self.clone()),
        );
        let watch = self.clone();
        metrics.register_counter(
            &format!("newswire_{part}_pauses_total"),
            "Pauses of the whole process longer than a second (SIGSTOP, suspend, CPU starvation)",
            move || watch.history().pauses.count,
        );
    }

    /// Adds `newswire_<part>_clock_jumps_total`.
    pub fn register_clock_jumps(&self, metrics: &MetricsRegistry, part: &str) {
        let watch = self.clone();
        metrics.register_counter(
            &format!("newswire_{part}_clock_jumps_total"),
            "Jumps of the wall clock by more than a second, when it was set",
            move || watch.history().clock_jumps.count,
        );
    }
}

struct PerLoop {
    watch: Watch,
    kind: MetricType,
    value: fn(&WatchEntry) -> u64,
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

struct PerListener(Watch);

impl fmt::Debug for PerListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PerListener").finish_non_exhaustive()
    }
}

impl EncodeMetric for PerListener {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for listener in self.0.listeners().clone() {
            let labels = [("listener", listener.name())];
            #[expect(clippy::cast_precision_loss, reason = "milliseconds of days")]
            let seconds = listener.mute_ms() as f64 / 1000.0;
            encoder.encode_family(&labels)?.encode_gauge(&seconds)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}
