//! Metrics that every process has: its version, the resources it uses and their limits.

use std::{fmt, fs};

use prometheus_client::metrics::info::Info;
use rustix::{
    system::sysinfo,
    time::{ClockId, clock_gettime},
};
use tokio::time::Instant;

use super::{MetricsRegistry, MetricsSink};
use crate::{Clock, black_box, limits, logs::Logs, panics};

impl MetricsRegistry {
    /// Adds the metrics of the process, as `newswire_<part>_…`. Call once, at the start.
    pub fn register_process(&self, part: &str, version: &'static str, clock: &Clock, logs: &Logs) {
        let name = |noun: &str| format!("newswire_{part}_{noun}");
        self.register(
            &name("build"),
            "Always 1; the label has the running version",
            Info::new([("version", version)]),
        );
        self.register_counter(
            &name("panics_total"),
            "Bugs in newswire that were caught as panics; each cost one visit or one request and is logged",
            panics::count,
        );
        logs.register(self, part);
        black_box::register(self, part);
        let usage =
            ResourceUsage { part: part.to_owned(), started: Instant::now(), memory_max: memory_max() };
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit")]
        let started_s = clock.now_millis() as f64 / 1000.0;
        self.register_collector(move |sink| usage.collect(sink, started_s));
    }
}

/// Read from the kernel at each scrape.
struct ResourceUsage {
    part: String,
    started: Instant,
    memory_max: u64,
}

impl ResourceUsage {
    #[expect(clippy::cast_precision_loss, reason = "bytes and descriptors are far below 2^53")]
    fn collect(&self, sink: &mut MetricsSink<'_>, started_s: f64) -> fmt::Result {
        let name = |noun: &str| format!("newswire_{}_{noun}", self.part);
        let (files, files_max) = limits::open_files();
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        sink.gauge(
            &name("uptime_seconds"),
            "Time since the process started",
            self.started.elapsed().as_secs_f64(),
        )?;
        sink.gauge(
            &name("process_start_time_seconds"),
            "Start time of the process in seconds since 1970; a change means a restart",
            started_s,
        )?;
        sink.counter(
            &name("process_cpu_seconds_total"),
            "CPU time used by all threads, user and system",
            cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9,
        )?;
        sink.gauge(
            &name("process_resident_memory_bytes"),
            "Memory in use (resident set size)",
            field(&status, "VmRSS:") as f64 * 1024.0,
        )?;
        sink.gauge(
            &name("process_memory_max_bytes"),
            "Memory limit: that of the control group, otherwise the memory of the machine",
            self.memory_max as f64,
        )?;
        sink.gauge(&name("process_threads"), "Number of threads", field(&status, "Threads:") as f64)?;
        sink.gauge(&name("process_open_files"), "Open files and sockets", files as f64)?;
        sink.gauge(
            &name("process_open_files_max"),
            "Limit of open files and sockets (LimitNOFILE); once it is reached, no connection can be opened or accepted",
            files_max as f64,
        )
    }
}

/// The number of a field in `/proc/self/status` (proc_pid_status(5)); 0 if it is missing.
fn field(status: &str, name: &str) -> u64 {
    let value = status.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// The lower of `memory.high` and `memory.max` (cgroups(7), version 2), otherwise the memory of the machine, in bytes.
fn memory_max() -> u64 {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let limit = |file: &str| {
        let text = fs::read_to_string(format!("/sys/fs/cgroup{group}/{file}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let machine = sysinfo();
    let all = (machine.totalram as u64).saturating_mul(machine.mem_unit.into());
    [limit("memory.high"), limit("memory.max")].into_iter().flatten().fold(all, u64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_reports_its_resource_usage_and_limits() {
        let metrics = MetricsRegistry::new();
        metrics.register_process("test", "1.2.3", &Clock::system(), &Logs::detached());
        let text = metrics.encode();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("newswire_test_{name} ")));
            line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
        };
        assert!(text.contains("newswire_test_build_info{version=\"1.2.3\"} 1\n"), "{text}");
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_resident_memory_bytes") < value("process_memory_max_bytes"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_open_files") <= value("process_open_files_max"));
        assert!(value("process_cpu_seconds_total") > 0.0);
        assert!(value("process_start_time_seconds") > 1.7e9);
        assert!(text.contains("# TYPE newswire_test_process_cpu_seconds counter\n"), "{text}");
    }
}
