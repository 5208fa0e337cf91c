//! The text of the metrics: made at most a few times per second, and then for all requests that wait for it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use daemon::metrics::MetricsFormat;
use tokio::time::Instant;

/// The shortest time between two texts.
const INTERVAL: Duration = Duration::from_millis(250);

/// The last text.
#[derive(Debug, Default)]
pub(crate) struct MetricsTexts {
    prometheus: Mutex<Option<MetricsText>>,
    openmetrics: Mutex<Option<MetricsText>>,
}

#[derive(Clone, Debug)]
struct MetricsText {
    made: Instant,
    text: Bytes,
}

impl MetricsTexts {
    fn last(&self, format: MetricsFormat) -> MutexGuard<'_, Option<MetricsText>> {
        let last = match format {
            MetricsFormat::Prometheus => &self.prometheus,
            MetricsFormat::OpenMetrics => &self.openmetrics,
        };
        // Every change under it is complete before it can panic.
        last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A text that was made after `requested`, so that no request gets older values. Call it on the pool's
    /// thread only: jobs there take turns, so that no two make the same text.
    pub(crate) async fn get(
        &self,
        format: MetricsFormat,
        requested: Instant,
        make: impl Fn() -> String,
    ) -> Bytes {
        loop {
            let last = self.last(format).clone();
            let due = match last {
                Some(last) if last.made > requested => return last.text,
                Some(last) => last.made + INTERVAL,
                None => requested,
            };
            if Instant::now() >= due {
                let text = MetricsText { made: Instant::now(), text: make().into() };
                return self.last(format).insert(text).text.clone();
            }
            tokio::time::sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_scrapes_costs_four_texts_per_second_and_none_gets_an_old_one() {
        let (texts, made) = (MetricsTexts::default(), AtomicU32::new(0));
        let make = || (made.fetch_add(1, Relaxed) + 1).to_string();
        let first = texts.get(MetricsFormat::Prometheus, Instant::now(), make).await;
        assert_eq!(first, "1");
        let began = Instant::now();
        for _ in 0..4 {
            let before = made.load(Relaxed);
            let requested = Instant::now();
            let all = (
                texts.get(MetricsFormat::Prometheus, requested, make),
                texts.get(MetricsFormat::Prometheus, requested, make),
                texts.get(MetricsFormat::Prometheus, requested, make),
            );
            let (a, b, c) = tokio::join!(all.0, all.1, all.2);
            assert_eq!([&a, &b, &c], [(before + 1).to_string().as_str(); 3]);
        }
        assert_eq!(began.elapsed(), INTERVAL * 4);
        tokio::time::advance(INTERVAL).await;
        let rested = Instant::now();
        texts.get(MetricsFormat::Prometheus, rested, make).await;
        assert_eq!(rested.elapsed(), Duration::ZERO, "a single scrape does not wait");
    }
}
