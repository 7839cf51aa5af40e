//! Explanations beside Captum.

use std::process::Command;

use super::{Bench, Measured, python};

/// Integrated gradients: time and memory beside Captum in one run, and the same values.
pub(super) fn integrated_gradients(bench: &Bench) -> anyhow::Result<Measured> {
    let Some(golden) = bench.golden() else {
        return Ok(Measured::Skipped("needs ../shared/golden".into()));
    };
    if !python::is_there() {
        return Ok(Measured::Skipped(python::ABSENT.into()));
    }
    let model = golden.join("fashion-resnet.onnx");
    let data = bench.root.join("examples/fashion/fashion-test-2000.npz");
    let mut run = Command::new(python::with_captum(bench)?);
    run.arg(bench.root.join("tests/bars/explanations.py")).args([bench.netproof()?, &model, &data]);
    python::figure(&mut run)
}
