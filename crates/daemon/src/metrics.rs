//! The metrics of a process, in OpenMetrics text, the format that Prometheus scrapes, or in the older Prometheus text.
//!
//! Names are `newswire_<part>_<noun>_<unit>`, with `_total` for counters. Label values come from enums or configured
//! names, never from feeds or clients, so that the number of series is bounded.

mod process;
mod text_format;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Metric, Registry};

pub use self::text_format::MetricsFormat;

/// The media type of [`MetricsRegistry::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const END_MARKER: &str = "# EOF\n";

/// All metrics of one process. Cheap to clone; every clone is the same registry.
#[derive(Clone, Debug, Default)]
pub struct MetricsRegistry(Arc<Mutex<Registry>>);

impl MetricsRegistry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metric under its full name. The encoder appends `_total` to counters, so it is optional in `name` and
    /// removed here. `help` is one sentence without the final full stop, which the encoder appends too.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        debug_assert!(name.starts_with("newswire_"), "metric {name} does not begin with newswire_");
        let name = name.strip_suffix("_total").unwrap_or(name);
        let help = help.trim_end_matches('.');
        self.registry().register(name, help, metric);
    }

    /// Adds a counter that is counted elsewhere, such as [`panics::count`](crate::panics::count). `read` is called at each
    /// scrape; it must not block, and its value must not decrease.
    pub fn register_counter(&self, name: &str, help: &str, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.register(name, help, CounterFn { read });
    }

    /// Creates a metric that starts at zero, adds it as [`MetricsRegistry::register`] does, and returns it.
    #[must_use]
    pub fn add<M: Metric + Clone + Default>(&self, name: &str, help: &str) -> M {
        self.add_this(name, help, M::default())
    }

    /// Adds a metric as [`MetricsRegistry::register`] does, and returns it.
    #[must_use]
    pub fn add_this<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.register(name, help, metric.clone());
        metric
    }

    /// Creates a metric per value of one label, adds it as [`MetricsRegistry::register`] does, and returns it. Every series
    /// exists from the start, at zero: Prometheus cannot see an increase of a series that did not exist before.
    #[must_use]
    pub fn add_by<M>(
        &self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = &'static str>,
    ) -> Family<[(&'static str, &'static str); 1], M>
    where
        M: Clone + Default + 'static,
        Family<[(&'static str, &'static str); 1], M>: Metric,
    {
        let family = Family::default();
        for value in values {
            drop(family.get_or_create(&[(label, value)]));
        }
        self.add_this(name, help, family)
    }

    /// Adds metrics that are read together at each scrape. `collect` must not block.
    pub fn register_collector(
        &self,
        collect: impl Fn(&mut MetricsSink<'_>) -> fmt::Result + Send + Sync + 'static,
    ) {
        self.registry().register_collector(Box::new(CollectorFn { collect }));
    }

    /// The current value of everything, in OpenMetrics text, ended by `# EOF`.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry()).expect("a String takes every write");
        out
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        // A panic while the lock is held leaves a valid registry: its list only grows.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A counter whose value is read at each scrape.
struct CounterFn<F> {
    read: F,
}

impl<F> fmt::Debug for CounterFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CounterFn").finish_non_exhaustive()
    }
}

impl<F: Fn() -> u64> EncodeMetric for CounterFn<F> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, _, u64>(&(self.read)(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// Receives the values of [`MetricsRegistry::register_collector`]; names and help as in [`MetricsRegistry::register`].
pub struct MetricsSink<'a>(DescriptorEncoder<'a>);

impl fmt::Debug for MetricsSink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsSink").finish_non_exhaustive()
    }
}

impl MetricsSink<'_> {
    /// A value that can rise and fall.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let help = with_full_stop(help);
        self.0.encode_descriptor(name, &help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A value that only grows.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let (name, help) = (name.strip_suffix("_total").unwrap_or(name), with_full_stop(help));
        let mut encoder = self.0.encode_descriptor(name, &help, None, MetricType::Counter)?;
        encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    /// A value that can rise and fall, per value of one label.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn gauges(
        &mut self,
        name: &str,
        help: &str,
        label: &'static str,
        values: impl IntoIterator<Item = (&'static str, f64)>,
    ) -> fmt::Result {
        let help = with_full_stop(help);
        let mut encoder = self.0.encode_descriptor(name, &help, None, MetricType::Gauge)?;
        for (of, value) in values {
            encoder.encode_family(&[(label, of)])?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

/// Appends the full stop, as the registry does for metrics that are registered one by one.
fn with_full_stop(help: &str) -> String {
    format!("{}.", help.trim_end_matches('.'))
}

/// Metrics that are read at each scrape.
struct CollectorFn<F> {
    collect: F,
}

impl<F> fmt::Debug for CollectorFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectorFn").finish_non_exhaustive()
    }
}

impl<F: Fn(&mut MetricsSink<'_>) -> fmt::Result + Send + Sync + 'static> Collector for CollectorFn<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.collect)(&mut MetricsSink(encoder))
    }
}

/// Joins the encoded metrics of several processes into one text with one end marker. Their names must differ in
/// `<part>`.
#[must_use]
pub fn join<'a>(encoded: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for text in encoded {
        let body = text.strip_suffix(END_MARKER).unwrap_or(text);
        out.push_str(body);
        if !body.is_empty() && !body.ends_with('\n') {
            out.push('\n');
        }
    }
    out.push_str(END_MARKER);
    out
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn a_counter_ends_in_total_exactly_once_with_or_without_it_in_the_name() {
        let metrics = MetricsRegistry::new();
        let (a, b) = (Counter::<u64>::default(), Counter::<u64>::default());
        metrics.register("newswire_test_visits_total", "Visits made.", a.clone());
        metrics.register("newswire_test_items", "Items seen", b);
        a.inc();
        let text = metrics.encode();
        assert!(text.contains("\nnewswire_test_visits_total 1\n"), "{text}");
        assert!(text.contains("\nnewswire_test_items_total 0\n"), "{text}");
        assert!(text.contains("# HELP newswire_test_visits Visits made.\n"), "{text}");
        assert!(!text.contains("total_total"), "{text}");
    }

    #[test]
    fn a_counter_that_is_counted_elsewhere_is_read_at_each_scrape() {
        let metrics = MetricsRegistry::new();
        let now = Arc::new(std::sync::atomic::AtomicU64::new(3));
        let a = Arc::clone(&now);
        metrics.register_counter("newswire_test_panics_total", "Panics", move || a.load(Ordering::Relaxed));
        now.store(7, Ordering::Relaxed);
        let text = metrics.encode();
        assert!(
            text.contains("# TYPE newswire_test_panics counter\nnewswire_test_panics_total 7\n"),
            "{text}"
        );
    }

    #[test]
    fn joined_texts_have_one_end_marker() {
        let metrics = MetricsRegistry::new();
        metrics.register("newswire_test_items", "Items seen", Counter::<u64>::default());
        let one = metrics.encode();
        let both = join([one.as_str(), "", "x 1\n# EOF\n"]);
        assert_eq!(both.matches("# EOF").count(), 1);
        assert!(both.ends_with("x 1\n# EOF\n"), "{both}");
    }
}
