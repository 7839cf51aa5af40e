//! Bars of adversarial robustness: recorded masks of AutoAttack, published accuracies, and time beside PyTorch.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::audit::fashion_mnist;
use super::build::tested;
use super::process::{measured, on_two_cores};
use super::{Bench, Measured, python};
use crate::command;

/// What the script imports besides the other scripts' libraries.
const LIBRARIES: &[&str] = &["torchattacks==3.5.1"];

const NO_GOLDEN: &str = "needs ../shared/golden and ../shared/data";

/// `mnist-trades.onnx` at l-infinity 0.3, 200 rows.
pub(super) fn trades(bench: &Bench) -> anyhow::Result<Measured> {
    let (Some(golden), Some([images, labels])) = (bench.golden(), mnist(bench)) else {
        return Ok(Measured::Skipped(NO_GOLDEN.into()));
    };
    let mask = golden.join("mnist-trades-autoattack-mask-200.npy").display().to_string();
    beside(bench, &golden.join("mnist-trades.onnx"), [&images, &labels], "0.3", &mask, ["1.2", "0.25"])
}

/// `fashion-cnn.onnx` at l-infinity 0.02.
pub(super) fn fashion_small(bench: &Bench) -> anyhow::Result<Measured> {
    fashion(bench, "0.02", "0.25")
}

/// `fashion-cnn.onnx` at l-infinity 0.05.
pub(super) fn fashion_large(bench: &Bench) -> anyhow::Result<Measured> {
    fashion(bench, "0.05", "0.1")
}

fn fashion(bench: &Bench, epsilon: &str, cascade: &str) -> anyhow::Result<Measured> {
    let (Some(golden), Some([images, labels])) = (bench.golden(), fashion_mnist(bench)?) else {
        return Ok(Measured::Skipped("needs ../shared/golden and the Debian package dataset-fashion-mnist".into()));
    };
    let mask = format!("{}:mask_{epsilon}", golden.join("fashion-cnn-autoattack.npz").display());
    beside(bench, &golden.join("fashion-cnn.onnx"), [&images, &labels], epsilon, &mask, ["1.2", cascade])
}

/// All 10,000 test images of MNIST under the cascade. Published for AutoAttack: 92.81 %.
pub(super) fn trades_cascade(bench: &Bench) -> anyhow::Result<Measured> {
    let (Some(golden), Some([images, labels])) = (bench.golden(), mnist(bench)) else {
        return Ok(Measured::Skipped(NO_GOLDEN.into()));
    };
    let mut attack = on_two_cores(bench.netproof()?);
    attack.arg("attack").arg(golden.join("mnist-trades.onnx"));
    attack.arg("--data").arg(format!("{}:{}", images.display(), labels.display()));
    attack.args(["--norm", "linf", "--eps", "0.3", "--json", "-"]);
    let run = measured(&mut attack, &bench.folder("logs")?.join("trades-cascade"), None)?;
    ensure!(run.code == Some(0), run.ended("`netproof attack`"));
    let result: Value =
        serde_json::from_str(&std::fs::read_to_string(&run.logs[0])?).context("the result is no JSON")?;
    let robust = result["robust_accuracy"]["attacked"].as_f64().context("no `robust_accuracy.attacked`")?;
    let figure = format!("{:.2} % of {} rows in {:.0} s", 100.0 * robust, result["rows"], run.seconds);
    Ok(Measured::Figure { figure, pass: (robust - 0.928).abs() <= 0.003 && result["rows"] == 10_000 })
}

/// Bounds of published networks, and points of the golden networks that were attacked.
pub(super) fn bounds(bench: &Bench) -> anyhow::Result<Measured> {
    let data = bench.root.parent().map(|p| p.join("shared/data")).filter(|d| d.join("models").is_dir());
    let (Some(_), Some(data)) = (bench.golden(), data) else { return Ok(Measured::Skipped(NO_GOLDEN.into())) };
    if !python::is_there() {
        return Ok(Measured::Skipped(python::ABSENT.into()));
    }
    let folder = bench.folder("bounds")?;
    let mut reference = Command::new(python::with_captum(bench)?);
    command::succeed(reference.arg(bench.root.join("tests/bars/bounds_reference.py")).arg(data).arg(&folder))?;
    let mut test = Command::new("cargo");
    test.current_dir(&bench.root).args(["test", "--quiet", "--workspace", "--test", "bounds"]);
    tested(test.env("NETPROOF_BOUNDS", &folder))
}

fn mnist(bench: &Bench) -> Option<[PathBuf; 2]> {
    let data = bench.root.parent()?.join("shared/data");
    let files = ["mnist-t10k-images-idx3-ubyte.gz", "mnist-t10k-labels-idx1-ubyte.gz"].map(|f| data.join(f));
    files.iter().all(|f| f.is_file()).then_some(files)
}

fn beside(
    bench: &Bench,
    model: &Path,
    [images, labels]: [&Path; 2],
    epsilon: &str,
    mask: &str,
    [standard, cascade]: [&str; 2],
) -> anyhow::Result<Measured> {
    if !python::is_there() {
        return Ok(Measured::Skipped(python::ABSENT.into()));
    }
    let mut run = Command::new(python::interpreter_with(bench, "venv-attacks", LIBRARIES)?);
    run.arg(bench.root.join("tests/bars/autoattack.py")).arg(bench.netproof()?).arg(model).arg(images).arg(labels);
    run.args(["200", epsilon, mask, standard, cascade]);
    python::result_of(&mut run, "autoattack.py")
}
