//! Bars of the build and of the binary as such.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use super::process::median;
use super::{Bench, Measured};
use crate::{command, rules};

/// Crates of the default build.
pub(super) fn crates(bench: &Bench) -> anyhow::Result<Measured> {
    let crates = rules::crate_count(&bench.root)?;
    Ok(Measured::Figure { figure: format!("{crates} crates"), pass: crates <= rules::MOST_CRATES })
}

/// The README's first command, compiled from nothing with two jobs; downloads are not counted.
pub(super) fn cold_build(bench: &Bench) -> anyhow::Result<Measured> {
    command::succeed(command::cargo(&bench.root).args(["fetch", "--quiet", "--locked"]))?;
    let target = bench.root.join(".bars/cold-target");
    if target.exists() {
        std::fs::remove_dir_all(&target).context("removing the last cold build")?;
    }
    let mut build = command::cargo(&bench.root);
    build.arg("build").args(command::quiet()).args(["--release", "--locked", "--jobs", "2"]);
    // A compiler cache would make it warm.
    build.env("CARGO_TARGET_DIR", &target).env_remove("RUSTC_WRAPPER").env_remove("CARGO_BUILD_RUSTC_WRAPPER");
    let start = Instant::now();
    command::succeed(&mut build)?;
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    std::fs::remove_dir_all(&target).context("removing the cold build")?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Measured::Figure { figure: format!("{minutes:.1} min, 2 jobs on {cores} cores"), pass: minutes <= 10.0 })
}

const STARTS: usize = 21;

/// The table of `cargo bench`, which needs a Python with PyTorch.
pub(super) fn kernels(bench: &Bench) -> anyhow::Result<Measured> {
    let mut table = command::cargo(&bench.root);
    table.args(["bench", "--quiet", "--package", "netproof-graph", "--bench", "table"]);
    let text = command::output(&mut table)?;
    eprint!("{text}");
    let line = text.lines().rev().find_map(|l| l.strip_prefix("bars met: ")).context("the table has no last line")?;
    let (met, all) = line.split_once(" of ").context("the table's last line counts bars")?;
    if all == "0" {
        let needs = "needs a Python with torch, onnx and onnxruntime; name it in NETPROOF_PYTHON";
        return Ok(Measured::Skipped(needs.to_owned()));
    }
    Ok(Measured::Figure { figure: format!("{met} of {all} met"), pass: met == all })
}

/// The tests of the kernels, all widths of vectors, under the address sanitizer of a nightly compiler.
pub(super) fn sanitizer(bench: &Bench) -> anyhow::Result<Measured> {
    let host = command::output(Command::new("rustc").args(["+nightly", "--print", "host-tuple"]));
    let Ok(host) = host else {
        return Ok(Measured::Skipped("needs a nightly toolchain: rustup toolchain install nightly".to_owned()));
    };
    let mut test = Command::new("cargo");
    test.current_dir(&bench.root).args(["+nightly", "test", "--quiet", "--package", "netproof-graph", "--lib"]);
    test.args(["--target", host.trim(), "--target-dir"]).arg(bench.root.join(".bars/sanitizer"));
    // What is kept for the whole process, such as the pool of threads, is no leak.
    test.arg("kernels::").env("RUSTFLAGS", "-Zsanitizer=address").env("ASAN_OPTIONS", "detect_leaks=0");
    tested(&mut test)
}

/// Runs tests; the figure is the last line of the runner.
pub(super) fn tested(test: &mut Command) -> anyhow::Result<Measured> {
    let done = test.output().context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&done.stdout);
    let last = text.lines().rev().find_map(|l| l.strip_prefix("test result: "));
    let last = last.with_context(|| format!("no test ran: {}", String::from_utf8_lossy(&done.stderr)))?;
    Ok(Measured::Figure { figure: last.to_owned(), pass: done.status.success() })
}

/// Median of how long `netproof --version` takes, from start to exit.
pub(super) fn start_up(bench: &Bench) -> anyhow::Result<Measured> {
    let binary = bench.netproof()?;
    let mut milliseconds = Vec::with_capacity(STARTS);
    for _ in 0..STARTS {
        let mut version = Command::new(binary);
        version.arg("--version").stdin(Stdio::null());
        let start = Instant::now();
        let output = version.output().with_context(|| format!("cannot start {}", binary.display()))?;
        milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
        ensure!(output.status.success(), "`netproof --version` ended with {}", output.status);
        ensure!(output.stdout.starts_with(b"netproof "), "`netproof --version` does not print its name");
    }
    let median = median(&mut milliseconds).context("there are runs")?;
    Ok(Measured::Figure { figure: format!("{median:.1} ms, median of {STARTS}"), pass: median < 30.0 })
}
