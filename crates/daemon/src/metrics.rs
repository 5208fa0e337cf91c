//! The numbers of the process, in OpenMetrics text, which Prometheus reads.
//!
//! Names are `newswire_<part>_<noun>_<unit>`, with `_total` for counters. Labels come from enums or configured names,
//! never from feeds or clients, so that the number of series has a bound.

mod process;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Metric, Registry};

/// The media type of [`MetricsRegistry::encode`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const END: &str = "# EOF\n";

/// All metrics of one process. Cheap to clone; every clone is the same registry.
#[derive(Clone, Debug, Default)]
pub struct MetricsRegistry(Arc<Mutex<Registry>>);

impl MetricsRegistry {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a metric under its full name, for a counter with or without its `_total`: the encoder appends that
    /// itself, so it is taken off here. `help` is one sentence without its full stop, which is added likewise.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        debug_assert!(name.starts_with("newswire_"), "metric {name} does not begin with newswire_");
        let name = name.strip_suffix("_total").unwrap_or(name);
        let help = help.trim_end_matches('.');
        self.registry().register(name, help, metric);
    }

    /// Adds a counter that somebody else counts, such as [`panics::count`](crate::panics::count); `read` is called at
    /// each scrape and must neither block nor go backwards.
    pub fn register_counter(&self, name: &str, help: &str, read: impl Fn() -> u64 + Send + Sync + 'static) {
        self.register(name, help, Reading { read });
    }

    /// Makes a metric that starts at nothing, adds it as [`MetricsRegistry::register`] does, and returns it.
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

    /// Makes a metric for each value of one label, adds it as [`MetricsRegistry::register`] does, and returns it. Every value is
    /// there from the start, at nothing: what was not there before cannot be seen to increase.
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

    /// Adds numbers that belong together and are asked for together at each scrape. `tell` must not wait for anything.
    pub fn ask(&self, tell: impl Fn(&mut MetricsSink<'_>) -> fmt::Result + Send + Sync + 'static) {
        self.registry().register_collector(Box::new(Asked { tell }));
    }

    /// The current value of everything, in OpenMetrics text, ended by `# EOF`.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::new();
        text::encode(&mut out, &self.registry()).expect("a String takes every write");
        out
    }

    fn registry(&self) -> std::sync::MutexGuard<'_, Registry> {
        // A panic while the registry is held leaves a complete registry behind: its list only grows.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A counter whose value is asked for when it is needed.
struct Reading<F> {
    read: F,
}

impl<F> fmt::Debug for Reading<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").finish_non_exhaustive()
    }
}

impl<F: Fn() -> u64> EncodeMetric for Reading<F> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, _, u64>(&(self.read)(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// Takes the numbers of [`MetricsRegistry::ask`]; names and help as in [`MetricsRegistry::register`].
pub struct MetricsSink<'a>(DescriptorEncoder<'a>);

impl fmt::Debug for MetricsSink<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").finish_non_exhaustive()
    }
}

impl MetricsSink<'_> {
    /// A number that goes up and down.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let help = sentence(help);
        self.0.encode_descriptor(name, &help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A number that only grows.
    ///
    /// # Errors
    /// Those of the encoder.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        let (name, help) = (name.strip_suffix("_total").unwrap_or(name), sentence(help));
        let mut encoder = self.0.encode_descriptor(name, &help, None, MetricType::Counter)?;
        encoder.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    /// A number that goes up and down, for each value of one label.
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
        let help = sentence(help);
        let mut encoder = self.0.encode_descriptor(name, &help, None, MetricType::Gauge)?;
        for (of, value) in values {
            encoder.encode_family(&[(label, of)])?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

/// With its full stop, which the registry sets itself for what is registered one by one.
fn sentence(help: &str) -> String {
    format!("{}.", help.trim_end_matches('.'))
}

/// Numbers that are asked for when they are needed.
struct Asked<F> {
    tell: F,
}

impl<F> fmt::Debug for Asked<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
}

impl<F: Fn(&mut MetricsSink<'_>) -> fmt::Result + Send + Sync + 'static> Collector for Asked<F> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.tell)(&mut MetricsSink(encoder))
    }
}

/// Joins what several processes encoded into one text with one end. Their names must differ by `<part>`.
#[must_use]
pub fn join<'a>(encoded: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = String::new();
    for text in encoded {
        let body = text.strip_suffix(END).unwrap_or(text);
        out.push_str(body);
        if !body.is_empty() && !body.ends_with('\n') {
            out.push('\n');
        }
    }
    out.push_str(END);
    out
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn a_counter_ends_in_total_once_however_it_was_named() {
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
    fn what_others_count_is_asked_at_each_scrape() {
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
    fn joined_texts_have_one_end() {
        let metrics = MetricsRegistry::new();
        metrics.register("newswire_test_items", "Items seen", Counter::<u64>::default());
        let one = metrics.encode();
        let both = join([one.as_str(), "", "x 1\n# EOF\n"]);
        assert_eq!(both.matches("# EOF").count(), 1);
        assert!(both.ends_with("x 1\n# EOF\n"), "{both}");
    }
}
