//! Running a program under limits and reading what it used.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program's end.
pub(super) struct Run {
    /// Exit code; none if a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) seconds: f64,
    /// Largest resident set, in bytes.
    pub(super) peak_bytes: u64,
    /// What it wrote to standard output and standard error, in this order.
    pub(super) logs: [PathBuf; 2],
}

impl Run {
    /// `name` with how it ended and where its messages are, for errors.
    pub(super) fn ended(&self, name: &str) -> String {
        let how =
            self.code.map_or_else(|| "was ended by a signal".into(), |code| format!("ended with exit code {code}"));
        format!("{name} {how}; its messages are in {}", self.logs[1].display())
    }
}

/// `program`, kept on two cores where the machine has more.
pub(super) fn on_two_cores(program: &Path) -> Command {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores <= 2 {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", "0,1"]).arg(program);
    command
}

/// Runs `command` to its end. Its output goes to `.out` and `.err` files that start with `log`.
///
/// `memory` bounds what the program may allocate for itself, in bytes: an allocation beyond it fails. Pages of
/// files that are only mapped, which the system can drop at any time, do not count.
/// # Errors
/// The program cannot be started, or this is no Unix.
#[cfg(unix)]
pub(super) fn measured(command: &mut Command, log: &Path, memory: Option<u64>) -> anyhow::Result<Run> {
    use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
    use std::time::Instant;

    use anyhow::Context as _;

    let logs = [log.with_extension("out"), log.with_extension("err")];
    let create = |path: &Path| File::create(path).with_context(|| format!("creating {}", path.display()));
    command.stdin(Stdio::null()).stdout(create(&logs[0])?).stderr(create(&logs[1])?);
    if let Some(bytes) = memory {
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        let set = move || match unsafe { libc::setrlimit(libc::RLIMIT_DATA, &raw const limit) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        };
        // SAFETY: between fork and exec only setrlimit is called, which is safe there.
        unsafe { command.pre_exec(set) };
    }
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {}", crate::command::shown(command)))?;
    let mut status = 0;
    // SAFETY: all-zero bytes are a valid `rusage`, which holds only numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    let process = libc::pid_t::try_from(child.id()).context("process ids fit their type")?;
    // SAFETY: both pointers are to live variables, and nobody else waits for this child.
    while unsafe { libc::wait4(process, &raw mut status, 0, &raw mut usage) } != process {
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).context("waiting for the program");
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    // Linux counts kibibytes, macOS bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    let peak_bytes = u64::try_from(usage.ru_maxrss).unwrap_or(0) * unit;
    Ok(Run { code: std::process::ExitStatus::from_raw(status).code(), seconds, peak_bytes, logs })
}

#[cfg(not(unix))]
pub(super) fn measured(_: &mut Command, _: &Path, _: Option<u64>) -> anyhow::Result<Run> {
    anyhow::bail!("memory is measured on Unix only")
}

/// The middle value; of an even number of values, the upper of the two.
pub(super) fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Bytes as `1.50 GiB` or `340 MiB`.
pub(super) fn shown_bytes(bytes: u64) -> String {
    let mebibytes = bytes as f64 / f64::from(1 << 20);
    if mebibytes < 1024.0 { format!("{mebibytes:.0} MiB") } else { format!("{:.2} GiB", mebibytes / 1024.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_bytes() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut []), None);
        assert_eq!(shown_bytes(340 << 20), "340 MiB");
        assert_eq!(shown_bytes(3 << 29), "1.50 GiB");
    }

    /// The figures must be those of the program and not of this one.
    #[cfg(target_os = "linux")]
    #[test]
    fn reads_code_output_and_memory_of_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let shell = |script: &str, memory| {
            measured(Command::new("sh").args(["-c", script]), &folder.path().join("log"), memory).unwrap()
        };
        let run = shell("echo out; echo err >&2; exit 3", None);
        assert_eq!(run.code, Some(3));
        assert_eq!(std::fs::read_to_string(&run.logs[0]).unwrap(), "out\n");
        assert_eq!(std::fs::read_to_string(&run.logs[1]).unwrap(), "err\n");
        assert!(run.peak_bytes > 100 << 10 && run.peak_bytes < 50 << 20, "{}", run.peak_bytes);
        assert_eq!(shell("kill -9 $$", None).code, None);

        let fill = "head -c 67108864 /dev/zero | tail -c 67108864 | wc -c";
        let free = shell(fill, None);
        assert_eq!(std::fs::read_to_string(&free.logs[0]).unwrap().trim(), "67108864");
        let bounded = shell(fill, Some(32 << 20));
        assert_ne!(std::fs::read_to_string(&bounded.logs[0]).unwrap().trim(), "67108864", "the limit does not hold");
    }
}
