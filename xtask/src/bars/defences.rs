//! Bars of defences: networks trained here, and attacked by the cascade.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::process::on_two_cores;
use super::{Bench, Measured};
use crate::command;

const FAST: &str = include_str!("recipes/fast-mnist.toml");
const TRADES: &str = include_str!("recipes/trades-mnist.toml");

/// Fast adversarial training of the small network on MNIST; published: 98.5 % clean, 82.9 % under AutoAttack.
pub(super) fn fast(bench: &Bench) -> anyhow::Result<Measured> {
    let Some(data) = mnist(bench) else { return Ok(skipped()) };
    let [clean, robust] = trained(bench, "fast-mnist", FAST, &data)?;
    Ok(Measured::Figure { figure: shown(clean, robust), pass: clean >= 0.98 && robust >= 0.80 })
}

/// TRADES on the same network: more robust than fast training, and at least 86 %.
pub(super) fn trades(bench: &Bench) -> anyhow::Result<Measured> {
    let Some(data) = mnist(bench) else { return Ok(skipped()) };
    let [_, fast] = trained(bench, "fast-mnist", FAST, &data)?;
    let [clean, robust] = trained(bench, "trades-mnist", TRADES, &data)?;
    let figure = format!("{}; fast: {:.2} %", shown(clean, robust), 100.0 * fast);
    Ok(Measured::Figure { figure, pass: robust >= 0.86 && robust > fast })
}

fn skipped() -> Measured {
    Measured::Skipped("needs MNIST in ../shared/data".into())
}

fn shown(clean: f64, robust: f64) -> String {
    format!("{:.2} % clean, {:.2} % robust", 100.0 * clean, 100.0 * robust)
}

fn mnist(bench: &Bench) -> Option<PathBuf> {
    let folder = bench.root.parent()?.join("shared/data");
    folder.join("mnist-train-images-idx3-ubyte.gz").is_file().then_some(folder)
}

/// Trains by a recipe, unless the network is there, and gives clean and robust accuracy on the 10,000 test images.
fn trained(bench: &Bench, name: &str, recipe: &str, data: &Path) -> anyhow::Result<[f64; 2]> {
    let folder = bench.folder("defences")?;
    let model = folder.join(format!("{name}.onnx"));
    if !model.is_file() {
        let path = folder.join(format!("{name}.toml"));
        std::fs::write(&path, recipe.replace("DATA", &data.display().to_string()))?;
        let mut train = on_two_cores(bench.netproof()?);
        command::succeed(train.arg("train").arg(&path).arg("--out").arg(&model))?;
    }
    ensure!(model.is_file(), "the training gave no network; see {}", folder.display());
    let [images, labels] = ["images-idx3", "labels-idx1"].map(|p| data.join(format!("mnist-t10k-{p}-ubyte.gz")));
    let result = folder.join(format!("{name}.json"));
    let mut attack = on_two_cores(bench.netproof()?);
    attack.arg("attack").arg(&model).arg("--data").arg(format!("{}:{}", images.display(), labels.display()));
    command::succeed(attack.args(["--norm", "linf", "--eps", "0.3", "--json"]).arg(&result))?;
    let result: Value = serde_json::from_slice(&std::fs::read(&result)?)?;
    let number = |v: &Value, name: &str| v.as_f64().with_context(|| format!("the result has no {name}"));
    Ok([
        number(&result["clean_accuracy"], "clean accuracy")?,
        number(&result["robust_accuracy"]["attacked"], "robust accuracy")?,
    ])
}
