//! Pressure stall information (PSI): how long threads waited for processors, memory and disks.

use std::path::Path;

use serde::Serialize;

use super::kernel_files::KernelFiles;

/// Of the machine, or of one control group. A part is `None` where the kernel does not count it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Pressures {
    pub(crate) cpu: Option<Pressure>,
    pub(crate) memory: Option<Pressure>,
    pub(crate) io: Option<Pressure>,
}

/// Of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Pressure {
    /// Percent of the last 10 s in which at least one thread waited for it.
    pub(crate) some_percent: f64,
    /// Percent of the last 10 s in which no thread did anything else.
    pub(crate) full_percent: f64,
    /// The same between two samples, in milliseconds.
    pub(crate) some_ms: u64,
    pub(crate) full_ms: u64,
}

impl Pressures {
    pub(crate) fn of_machine(files: &KernelFiles) -> Self {
        Self::read(files, |resource| format!("/proc/pressure/{resource}").into())
    }

    pub(crate) fn of_group(files: &KernelFiles, group: &Path) -> Self {
        Self::read(files, |resource| group.join(format!("{resource}.pressure")))
    }

    fn read(files: &KernelFiles, path: impl Fn(&str) -> std::path::PathBuf) -> Self {
        let one = |resource: &str| parse(&files.text(path(resource))?);
        Self { cpu: one("cpu"), memory: one("memory"), io: one("io") }
    }

    /// With the milliseconds since an earlier sample.
    pub(crate) fn since(self, before: &Self) -> Self {
        let one = |now: Option<Pressure>, was: Option<Pressure>| {
            let (now, was) = (now?, was?);
            let some_ms = now.some_ms.saturating_sub(was.some_ms);
            Some(Pressure { some_ms, full_ms: now.full_ms.saturating_sub(was.full_ms), ..now })
        };
        Self {
            cpu: one(self.cpu, before.cpu),
            memory: one(self.memory, before.memory),
            io: one(self.io, before.io),
        }
    }
}

/// `some avg10=1.00 avg60=… avg300=… total=MICROSECONDS`, and the same for `full`.
fn parse(text: &str) -> Option<Pressure> {
    let value = |line: &str, name: &str| {
        let line = text.lines().find_map(|found| found.strip_prefix(line))?;
        line.split_whitespace().find_map(|word| word.strip_prefix(name)).map(str::to_owned)
    };
    let percent = |line: &str| value(line, "avg10=")?.parse::<f64>().ok();
    let ms = |line: &str| Some(value(line, "total=")?.parse::<u64>().ok()? / 1_000);
    Some(Pressure {
        some_percent: percent("some ")?,
        // Older kernels have no such line for processors.
        full_percent: percent("full ").unwrap_or(0.0),
        some_ms: ms("some ")?,
        full_ms: ms("full ").unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::KernelFixture, *};

    #[test]
    fn pressure_is_read_for_the_machine_and_counted_between_two_samples() {
        let fixture = KernelFixture::new();
        fixture.write("/proc/pressure/io", "some avg10=1.50 avg60=0.00 avg300=0.00 total=5000\nfull avg10=0.50 avg60=0.00 avg300=0.00 total=2000\n");
        let before = Pressures::of_machine(&fixture.files());
        assert_eq!(before.io.unwrap().some_percent, 1.5);
        fixture.write("/proc/pressure/io", "some avg10=90.00 avg60=0.00 avg300=0.00 total=905000\nfull avg10=80.00 avg60=0.00 avg300=0.00 total=802000\n");
        let now = Pressures::of_machine(&fixture.files()).since(&before);
        let io = Pressure { some_percent: 90.0, full_percent: 80.0, some_ms: 900, full_ms: 800 };
        assert_eq!(now, Pressures { io: Some(io), ..Pressures::default() });
    }
}
