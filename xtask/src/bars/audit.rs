//! Bars of whole audits: time and memory.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::process::{Run, measured, on_two_cores, shown_bytes};
use super::{Bench, Measured, python};
use crate::command;

const GIBIBYTE: u64 = 1 << 30;

/// The network's accuracy on all test images, recorded by PyTorch: an audit that is fast because it looked at
/// something else must not pass.
const FASHION_ACCURACY: f64 = 0.8739;

/// Audits the example network on the 10,000 test images of Fashion-MNIST.
pub(super) fn fashion_audit(bench: &Bench) -> anyhow::Result<Measured> {
    let Some(model) = model(bench, "fashion-cnn.onnx") else {
        return Ok(Measured::Skipped("needs fashion-cnn.onnx in examples/fashion".into()));
    };
    let Some([images, labels]) = fashion_mnist(bench)? else {
        return Ok(Measured::Skipped("needs the Debian package dataset-fashion-mnist".into()));
    };
    let out = empty_folder(bench, "fashion-audit")?;
    let mut audit = on_two_cores(bench.netproof()?);
    audit.arg("audit").arg(model).arg("--data").arg(format!("{}:{}", images.display(), labels.display()));
    let run = measured(audit.arg("--out").arg(&out), &log(bench, "fashion-audit")?, None)?;
    let findings = findings(&run, &out)?;
    let accuracy = accuracy(&findings).context("audit.json has no finding with metric `accuracy`")?;
    let figure = format!(
        "{:.1} s, {}, {} findings, accuracy {accuracy:.4}",
        run.seconds,
        shown_bytes(run.peak_bytes),
        findings.len()
    );
    let right = (accuracy - FASHION_ACCURACY).abs() < 2e-4;
    Ok(Measured::Figure { figure, pass: right && run.seconds < 60.0 && run.peak_bytes < GIBIBYTE })
}

/// Audits 4 GiB of Parquet while the program may hold 1 GiB.
pub(super) fn big_parquet(bench: &Bench) -> anyhow::Result<Measured> {
    let Some(model) = model(bench, "adult-mlp.onnx") else {
        return Ok(Measured::Skipped("needs adult-mlp.onnx in examples/ or ../shared/golden".into()));
    };
    if !python::is_there() {
        return Ok(Measured::Skipped(python::ABSENT.into()));
    }
    let table = bench.folder("data")?.join("big.parquet");
    if !table.is_file() {
        let script = bench.root.join("tests/bars/big_parquet.py");
        command::succeed(Command::new(python::interpreter(bench)?).arg(script).arg(&table))?;
    }
    let size = std::fs::metadata(&table)?.len();
    ensure!(size >= 4 * GIBIBYTE, "{} has {}; delete it to make it again", table.display(), shown_bytes(size));
    let out = empty_folder(bench, "big-parquet")?;
    let mut audit = on_two_cores(bench.netproof()?);
    audit.arg("audit").arg(model).arg("--data").arg(&table).args(["--label", "label"]).arg("--out").arg(&out);
    let run = measured(&mut audit, &log(bench, "big-parquet")?, Some(GIBIBYTE))?;
    let findings = findings(&run, &out)?.len();
    let figure = format!(
        "{} in {:.0} s, peak {}, {findings} findings",
        shown_bytes(size),
        run.seconds,
        shown_bytes(run.peak_bytes)
    );
    Ok(Measured::Figure { figure, pass: true })
}

/// A network of the repository's examples, or of the reference values.
pub(super) fn model(bench: &Bench, name: &str) -> Option<PathBuf> {
    let examples = bench.root.join("examples");
    let folders = std::fs::read_dir(examples).into_iter().flatten().flatten().map(|entry| entry.path());
    folders.chain(bench.golden()).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Test images and labels: installed, or from the Debian package, unpacked without installing it.
pub(super) fn fashion_mnist(bench: &Bench) -> anyhow::Result<Option<[PathBuf; 2]>> {
    const INSTALLED: &str = "usr/share/datasets/fashion-mnist";
    let files = |folder: PathBuf| {
        let files = ["t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"].map(|name| folder.join(name));
        files.iter().all(|file| file.is_file()).then_some(files)
    };
    let unpacked = bench.folder("debian")?;
    let there = || files(Path::new("/").join(INSTALLED)).or_else(|| files(unpacked.join(INSTALLED)));
    if there().is_none() {
        let script = "apt-get download --quiet dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb .";
        // Without apt or network the bar is skipped, so its status says nothing more.
        let _ = Command::new("sh").args(["-c", script]).current_dir(&unpacked).status();
    }
    Ok(there())
}

pub(super) fn log(bench: &Bench, name: &str) -> anyhow::Result<PathBuf> {
    Ok(bench.folder("logs")?.join(name))
}

/// A run folder without earlier findings, which an audit would rightly reuse.
pub(super) fn empty_folder(bench: &Bench, name: &str) -> anyhow::Result<PathBuf> {
    let folder = bench.folder("runs")?.join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(folder)
}

/// The findings of an audit that ran: 0 is nothing of concern, 1 a concern.
pub(super) fn findings(run: &Run, out: &Path) -> anyhow::Result<Vec<Value>> {
    ensure!(matches!(run.code, Some(0 | 1)), run.ended("`netproof audit`"));
    ensure!(out.join("report.html").is_file(), "the audit left no report.html in {}", out.display());
    let text = std::fs::read_to_string(out.join("audit.json")).context("reading audit.json")?;
    let audit: Value = serde_json::from_str(&text).context("audit.json is no JSON")?;
    let findings = audit["findings"].as_array().context("audit.json has no list `findings`")?.clone();
    ensure!(!findings.is_empty(), "audit.json has no finding");
    let failed: Vec<&str> = findings
        .iter()
        .filter(|finding| finding["verdict"] == "failed")
        .filter_map(|finding| finding["check"].as_str())
        .collect();
    ensure!(failed.is_empty(), "checks that failed: {}", failed.join(", "));
    Ok(findings)
}

fn accuracy(findings: &[Value]) -> Option<f64> {
    findings.iter().find(|finding| finding["metric"] == "accuracy").and_then(|finding| finding["value"].as_f64())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run(code: Option<i32>) -> Run {
        Run { code, seconds: 1.0, peak_bytes: 1, logs: ["a.out".into(), "a.err".into()] }
    }

    #[test]
    fn an_audit_counts_only_when_it_ended_well_and_left_its_findings() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("report.html", "");
        write(
            "audit.json",
            &json!({ "findings": [{ "check": "performance", "metric": "accuracy", "value": 0.5 }] }).to_string(),
        );
        for code in [0, 1] {
            let found = findings(&run(Some(code)), folder.path()).unwrap();
            assert_eq!(accuracy(&found), Some(0.5));
        }
        for code in [None, Some(2), Some(101)] {
            assert!(findings(&run(code), folder.path()).is_err(), "{code:?}");
        }
        write("audit.json", &json!({ "findings": [{ "check": "calibration", "verdict": "failed" }] }).to_string());
        assert!(findings(&run(Some(1)), folder.path()).unwrap_err().to_string().contains("calibration"));
        write("audit.json", "{\"findings\": []}");
        assert!(findings(&run(Some(0)), folder.path()).is_err());
    }
}
