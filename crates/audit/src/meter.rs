//! What the machine says about itself: energy counters, processor, memory.

use std::fs;
use std::path::{Path, PathBuf};

/// Running average power limit counters of the processor packages (Intel and AMD, through Linux's powercap).
#[derive(Debug, Clone)]
pub struct EnergyMeter {
    packages: Vec<(PathBuf, u64)>,
}

impl EnergyMeter {
    /// The meter of this machine; `None` where there is none that may be read.
    pub fn open() -> Option<Self> {
        Self::open_in(Path::new("/sys/class/powercap"))
    }

    fn open_in(folder: &Path) -> Option<Self> {
        let mut packages = Vec::new();
        for entry in fs::read_dir(folder).ok()?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // `intel-rapl:0` is a package, `intel-rapl:0:0` a part of it.
            if !name.starts_with("intel-rapl:") || name.matches(':').count() != 1 {
                continue;
            }
            let counter = entry.path().join("energy_uj");
            if number(&counter).is_some() {
                packages.push((counter, number(&entry.path().join("max_energy_range_uj"))?));
            }
        }
        packages.sort();
        (!packages.is_empty()).then_some(Self { packages })
    }

    /// Counters now, in microjoules.
    pub fn read(&self) -> Option<Vec<u64>> {
        self.packages.iter().map(|(path, _)| number(path)).collect()
    }

    /// Joules between two readings; a counter that has wrapped round once is counted right.
    pub fn joules(&self, before: &[u64], after: &[u64]) -> f64 {
        let spent = self.packages.iter().zip(before.iter().zip(after));
        spent.map(|((_, range), (&b, &a))| if a >= b { a - b } else { a + range - b }).sum::<u64>() as f64 * 1e-6
    }
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Processor model as the system names it, and how many threads a program may use.
pub fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':')).map(|(_, n)| n.trim());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {threads} threads", name.unwrap_or("unknown processor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_summed_and_a_counter_may_wrap() {
        let folder = tempfile::tempdir().unwrap();
        for (name, now) in [("intel-rapl:0", "100"), ("intel-rapl:1", "900"), ("intel-rapl:0:0", "5"), ("dtpm", "1")] {
            let sub = folder.path().join(name);
            fs::create_dir(&sub).unwrap();
            fs::write(sub.join("energy_uj"), format!("{now}\n")).unwrap();
            fs::write(sub.join("max_energy_range_uj"), "1000").unwrap();
        }
        let meter = EnergyMeter::open_in(folder.path()).unwrap();
        let before = meter.read().unwrap();
        assert_eq!(before, [100, 900]);
        assert!((meter.joules(&before, &[150, 30]) - 180e-6).abs() < 1e-12);
    }

    #[test]
    fn a_machine_without_counters_has_no_meter() {
        assert!(EnergyMeter::open_in(Path::new("/nonexistent")).is_none());
        assert!(EnergyMeter::open_in(tempfile::tempdir().unwrap().path()).is_none());
        assert!(processor().ends_with("threads"));
    }
}
