//! Bars of training and of the repair loop.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, ensure};

use super::{Bench, Measured, python};
use crate::command;

const NO_DATA: &str = "needs the folder `shared/data` beside the repository";
const NO_TORCH: &str = "needs a Python with torch, onnx and onnxruntime; name it in NETPROOF_PYTHON";

/// The CNN on all of MNIST.
pub(super) fn mnist_cnn(bench: &Bench) -> anyhow::Result<Measured> {
    scripted(bench, "mnist_cnn.py", false)
}

/// The same training in PyTorch.
pub(super) fn pytorch_training(bench: &Bench) -> anyhow::Result<Measured> {
    scripted(bench, "pytorch_training.py", true)
}

/// Overfitting found and repaired.
pub(super) fn wrong_labels(bench: &Bench) -> anyhow::Result<Measured> {
    scripted(bench, "wrong_labels.py", false)
}

/// Networks of others, trained on.
pub(super) fn fine_tune(bench: &Bench) -> anyhow::Result<Measured> {
    let Some(golden) = bench.golden() else { return Ok(Measured::Skipped("needs the folder `shared/golden`".into())) };
    if !python::is_there() {
        return Ok(Measured::Skipped(python::ABSENT.into()));
    }
    let rows = bench.root.join("examples/fashion/fashion-test-2000.npz");
    python::script(bench, "fine_tune.py", &[bench.netproof()?, &golden, &rows, &bench.folder("training")?])
}

/// Images per second, in turns with PyTorch.
pub(super) fn training_throughput(bench: &Bench) -> anyhow::Result<Measured> {
    let Some(interpreter) = with_torch() else { return Ok(Measured::Skipped(NO_TORCH.into())) };
    let arguments = [bench.netproof()?.to_path_buf(), bench.folder("training")?];
    python::script_with(bench, &interpreter, "training_throughput.py", &arguments)
}

/// Trainings that are killed again and again.
pub(super) fn training_kills(bench: &Bench) -> anyhow::Result<Measured> {
    const KILLS: &str = "100";
    let mut test = command::cargo(&bench.root);
    test.args(["test", "--quiet", "--package", "netproof-train", "--test", "kill"]).env("NETPROOF_KILLS", KILLS);
    let done = test.output().context("cannot start cargo")?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    ensure!(text.contains("test result"), "the test did not run: {}", String::from_utf8_lossy(&done.stderr));
    let pass = done.status.success();
    let figure = if pass { "every result bit-identical" } else { "a result differs" };
    Ok(Measured::Figure { figure: format!("{KILLS} kills, {figure}"), pass })
}

/// A script that takes the binary, the data and a folder to work in.
fn scripted(bench: &Bench, script: &str, torch: bool) -> anyhow::Result<Measured> {
    let data = bench.root.parent().map(|p| p.join("shared/data")).filter(|p| p.is_dir());
    let Some(data) = data else { return Ok(Measured::Skipped(NO_DATA.into())) };
    let interpreter = match (torch, with_torch()) {
        (_, Some(interpreter)) => interpreter,
        (true, None) => return Ok(Measured::Skipped(NO_TORCH.into())),
        (false, None) if python::is_there() => python::interpreter(bench)?,
        (false, None) => return Ok(Measured::Skipped(python::ABSENT.into())),
    };
    let data = data.canonicalize().context("resolving the data folder")?;
    let arguments = [bench.netproof()?.to_path_buf(), data, bench.folder("training")?];
    python::script_with(bench, &interpreter, script, &arguments)
}

/// The interpreter that a person names, where it has PyTorch.
fn with_torch() -> Option<PathBuf> {
    let path = PathBuf::from(std::env::var_os("NETPROOF_PYTHON")?);
    let imports = Command::new(&path).args(["-c", "import torch, onnx, onnxruntime"]).output();
    imports.is_ok_and(|o| o.status.success()).then_some(path)
}
