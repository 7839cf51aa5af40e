//! Bars of the network's meaning: the standard's own cases, recorded values, another runtime.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::process::measured;
use super::{Bench, Measured, python};
use crate::command;
use crate::test::Tally;

const FOLDERS: &[&str] = &["node", "simple", "pytorch-operator", "pytorch-converted"];
const CASES: usize = 1428;
const LEAST_PASSED: usize = 950;

/// Records of the 1.17 suite that contradict the specification: `QLinearMatMul` saturates (these wrap around; corrected in
/// later releases), and a cast to bfloat16 rounds to nearest even (these cut off).
const DISPUTED: &str = include_str!("../../../tests/onnx-disputed.txt");

/// The cases that the standard ships for anyone who executes it.
pub(super) fn conformance(bench: &Bench) -> anyhow::Result<Measured> {
    if !python::is_there() {
        return Ok(Measured::Skipped(python::ABSENT.into()));
    }
    // One wheel for every machine: only its data files are used.
    let wheel = ["--python-version", "3.11", "--platform", "manylinux2014_x86_64"];
    let data = python::unpacked(bench, "onnx==1.17.0", &wheel)?.join("onnx/backend/test/data");
    let mut total = Cases::default();
    for folder in FOLDERS {
        let log = bench.folder("logs")?.join(format!("conformance-{folder}"));
        let mut run = Command::new(bench.netproof()?);
        run.args(["conformance", "onnx"]).arg(data.join(folder)).args(["--json", "-"]);
        let run = measured(&mut run, &log, None)?;
        ensure!(matches!(run.code, Some(0 | 1)), run.ended(&format!("`netproof conformance onnx` on {folder}")));
        let text = std::fs::read_to_string(&run.logs[0])?;
        total.add(Cases::parse(&text).with_context(|| format!("reading {}", run.logs[0].display()))?);
    }
    let Cases { passed, failed, unsupported, disputed } = total;
    let all = passed + failed + unsupported + disputed;
    let figure = format!("{passed} pass, {unsupported} refused, {failed} wrong, {disputed} disputed, {all} in all");
    Ok(Measured::Figure { figure, pass: passed >= LEAST_PASSED && failed == 0 && all == CASES })
}

/// How many cases ended how.
#[derive(Debug, Default, PartialEq, Eq)]
struct Cases {
    passed: usize,
    failed: usize,
    unsupported: usize,
    disputed: usize,
}

impl Cases {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let value: Value = serde_json::from_str(text).context("no JSON")?;
        let count = |name: &str| Some(value[name].as_array()?.len());
        let count = |name: &str| count(name).with_context(|| format!("no list `{name}`"));
        let wrong = value["failed"].as_array().context("no list `failed`")?;
        let disputed = |case: &&Value| case["case"].as_str().is_some_and(|name| DISPUTED.lines().any(|d| d == name));
        let disputed = wrong.iter().filter(disputed).count();
        Ok(Self {
            passed: count("passed")?,
            failed: count("failed")? - disputed,
            unsupported: count("unsupported")?,
            disputed,
        })
    }

    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.unsupported += other.unsupported;
        self.disputed += other.disputed;
    }
}

/// Logits and gradients that PyTorch recorded; the comparison itself is a test of `graph`.
pub(super) fn golden(bench: &Bench) -> anyhow::Result<Measured> {
    if bench.golden().is_none() {
        return Ok(Measured::Skipped("needs ../shared/golden".into()));
    }
    let mut test = command::cargo(&bench.root);
    test.args(["test", "--quiet", "--package", "netproof-graph", "--release", "--test", "golden"]);
    let log = bench.folder("logs")?.join("golden");
    let run = measured(&mut test, &log, None)?;
    let tally = Tally::of_output(&std::fs::read_to_string(&run.logs[0])?);
    ensure!(tally != Tally::default(), run.ended("`cargo test --test golden`"));
    Ok(Measured::Figure { figure: tally.closing_line(), pass: run.code == Some(0) && tally.passed > 0 })
}

/// Loads, saves, and compares in onnxruntime.
pub(super) fn round_trip(bench: &Bench) -> anyhow::Result<Measured> {
    let Some(golden) = bench.golden() else {
        return Ok(Measured::Skipped("needs ../shared/golden".into()));
    };
    if !python::is_there() {
        return Ok(Measured::Skipped(python::ABSENT.into()));
    }
    python::script(bench, "round_trip.py", &[bench.netproof()?, &golden])
}

/// Networks that others ship.
pub(super) fn packages(bench: &Bench) -> anyhow::Result<Measured> {
    if !python::is_there() {
        return Ok(Measured::Skipped(python::ABSENT.into()));
    }
    let mut folders = Vec::new();
    for package in ["magika==1.0.3", "silero-vad==6.2.3", "rapidocr-onnxruntime==1.4.4"] {
        folders.push(python::unpacked(bench, package, &[])?);
    }
    let mut arguments: Vec<&Path> = vec![bench.netproof()?];
    arguments.extend(folders.iter().map(|folder| folder.as_path()));
    python::script(bench, "packages.py", &arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_cases_and_refuses_a_summary_that_lacks_a_list() {
        let mut total = Cases::parse("{\"passed\": [\"a\", \"b\"], \"failed\": [{}], \"unsupported\": []}").unwrap();
        total.add(Cases::parse("{\"passed\": [], \"failed\": [], \"unsupported\": [1, 2]}").unwrap());
        assert_eq!(total, Cases { passed: 2, failed: 1, unsupported: 2, disputed: 0 });
        assert!(Cases::parse("{\"passed\": [], \"unsupported\": []}").is_err());
        assert!(Cases::parse("{\"passed\": 3, \"failed\": [], \"unsupported\": []}").is_err());
        assert!(Cases::parse("").is_err());
    }
}
