//! `cargo xtask test`: every test of the workspace, closed by one line that sums the runner's own numbers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::Context as _;

use crate::command;

/// Runs `cargo test` over the whole workspace, or with `arguments` if there are any, and passes its output on.
///
/// One invocation without `--no-run`, so that unit, integration and doc tests all count; without
/// fail-fast, so that one failing crate does not hide the next.
pub(crate) fn run(root: &Path, arguments: &[&str]) -> anyhow::Result<ExitCode> {
    let mut test = command::cargo(root);
    test.arg("test");
    if arguments.is_empty() {
        test.args(["--workspace", "--no-fail-fast"]);
    } else {
        test.args(arguments);
    }
    let shown = command::shown(&test);
    let mut child =
        test.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start {shown}"))?;
    let mut total = Tally::default();
    if let Some(pipe) = child.stdout.take() {
        let mut reader = BufReader::new(pipe);
        let mut out = std::io::stdout().lock();
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            out.write_all(&line)?;
            out.flush()?;
            if let Some(tally) = Tally::of_line(&String::from_utf8_lossy(&line)) {
                total.add(tally);
            }
            line.clear();
        }
    }
    let status = child.wait()?;
    println!();
    if !status.success() && total.failed == 0 {
        println!("{shown} ended with {status}, though no test was reported as failed");
    }
    println!("{}", total.closing_line());
    // A signal has no code; anything but success must not become 0.
    let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| status.success() || *code != 0);
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// Tests that a runner reported.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Tally {
    /// The numbers of `test result: ok. 3 passed; 0 failed; 1 ignored; …`; nothing for any other line.
    fn of_line(line: &str) -> Option<Self> {
        let rest = line.strip_prefix("test result: ")?;
        let rest = rest.strip_prefix("ok. ").or_else(|| rest.strip_prefix("FAILED. "))?;
        let mut parts = rest.split("; ");
        let mut next = |word: &str| parts.next()?.strip_suffix(word)?.parse().ok();
        Some(Self { passed: next(" passed")?, failed: next(" failed")?, ignored: next(" ignored")? })
    }

    /// The sum over all lines of `text`.
    pub(crate) fn of_output(text: &str) -> Self {
        let mut total = Self::default();
        text.lines().filter_map(Self::of_line).for_each(|tally| total.add(tally));
        total
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    /// `3 passed, 0 failed`, and what was skipped, if anything was.
    pub(crate) fn closing_line(self) -> String {
        let Self { passed, failed, ignored } = self;
        match ignored {
            0 => format!("{passed} passed, {failed} failed"),
            _ => format!("{passed} passed, {failed} failed, {ignored} skipped"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.00s\n";
    const BAD: &str = "test result: FAILED. 4 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out\n";

    #[test]
    fn sums_the_results_of_all_binaries() {
        let total = Tally::of_output(&[BAD, "running 3 tests\n", OK, BAD, "test a ... ok\n"].concat());
        assert_eq!(total, Tally { passed: 20, failed: 4, ignored: 2 });
        assert_eq!(total.closing_line(), "20 passed, 4 failed, 2 skipped");
    }

    #[test]
    fn says_nothing_of_skipped_tests_where_there_are_none() {
        assert_eq!(Tally::of_line(OK).map(Tally::closing_line).as_deref(), Some("12 passed, 0 failed"));
    }

    #[test]
    fn takes_no_other_line_for_a_result() {
        for line in [
            " test result: ok. 12 passed; 0 failed; 0 ignored",
            "test result: ok",
            "test result: maybe. 12 passed; 0 failed; 0 ignored",
            "test result: ok. many passed; 0 failed; 0 ignored",
            "test result: ok. 12 failed; 0 passed; 0 ignored",
        ] {
            assert_eq!(Tally::of_line(line), None, "{line}");
        }
    }
}
