//! Bars of evidence for explanations: shortcuts that are there, weights that say nothing, the self test.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::audit::{empty_folder, fashion_mnist, findings, log, model};
use super::process::{measured, on_two_cores};
use super::{Bench, Measured, python};
use crate::command;

const NETWORKS: [&str; 4] = ["fashion-cnn", "fashion-resnet", "fashion-vit", "fashion-mobilenet"];

/// Data with the class in a corner block, and the same test images without.
fn data(bench: &Bench) -> anyhow::Result<Result<PathBuf, String>> {
    let Some([images, _]) = fashion_mnist(bench)? else {
        return Ok(Err("needs the Debian package dataset-fashion-mnist".into()));
    };
    if !python::is_there() {
        return Ok(Err(python::ABSENT.into()));
    }
    let out = bench.folder("corner")?;
    if !out.join("clean.npz").is_file() {
        let folder = images.parent().context("the images lie in a folder")?;
        command::succeed(corner_block(bench)?.arg("data").arg(folder).arg(&out))?;
    }
    Ok(Ok(out))
}

fn corner_block(bench: &Bench) -> anyhow::Result<Command> {
    let mut script = Command::new(python::interpreter(bench)?);
    script.arg(bench.root.join("tests/bars/corner_block.py"));
    Ok(script)
}

/// The findings of one check.
fn audit(bench: &Bench, name: &str, model: &Path, data: &Path, options: &[&str]) -> anyhow::Result<Vec<Value>> {
    let out = empty_folder(bench, name)?;
    let mut audit = on_two_cores(bench.netproof()?);
    audit.arg("audit").arg(model).arg("--data").arg(data).args(options);
    let run = measured(audit.arg("--out").arg(&out), &log(bench, name)?, None)?;
    findings(&run, &out)
}

fn verdict<'f>(findings: &'f [Value], id: &str) -> anyhow::Result<(&'f str, f64)> {
    let finding = findings.iter().find(|f| f["id"] == id).with_context(|| format!("no finding {id}"))?;
    let verdict = finding["verdict"].as_str().context("a finding without a verdict")?;
    Ok((verdict, finding["value"].as_f64().unwrap_or(f64::NAN)))
}

/// Trains a network on images with the class in a corner, and audits it and networks that were trained without.
pub(super) fn shortcut(bench: &Bench) -> anyhow::Result<Measured> {
    let data = match data(bench)? {
        Ok(folder) => folder,
        Err(why) => return Ok(Measured::Skipped(why)),
    };
    let trained = data.join("corner.onnx");
    if !trained.is_file() {
        let recipe = data.join("recipe.toml");
        let text = "epochs = 4\nbatch_size = 32\n[data]\ntrain = \"train.npz\"\n[network]\nkind = \"cnn\"\nchannels = [16, 32]\n\
                    hidden = 64\n";
        std::fs::write(&recipe, text)?;
        let mut train = Command::new(bench.netproof()?);
        command::succeed(train.arg("train").arg(&recipe).arg("--out").arg(&trained))?;
    }
    let only = ["--only", "shortcut"];
    let found = audit(bench, "shortcut", &trained, &data.join("test.npz"), &only)?;
    let (corner, share) = verdict(&found, "shortcut/patch")?;
    let where_ = found.iter().find(|f| f["id"] == "shortcut/patch").and_then(|f| f["explanation"].as_str());
    let mut pass =
        corner == "concern" && where_.is_some_and(|t| t.starts_with("The corner at rows 24 to 27, columns 24 to 27"));
    let mut figure = format!("corner block: {corner}, share {share:.3}; clean:");
    for name in NETWORKS {
        let Some(network) = model(bench, &format!("{name}.onnx")) else { continue };
        let found = audit(bench, &format!("shortcut-{name}"), &network, &data.join("clean.npz"), &only)?;
        for id in ["shortcut/patch", "shortcut/border"] {
            let (clean, share) = verdict(&found, id)?;
            figure += &format!(" {name} {clean} {share:.3}");
            pass &= clean != "concern";
        }
    }
    Ok(Measured::Figure { figure, pass })
}

/// An untrained network, and one with shuffled weights.
pub(super) fn sanity(bench: &Bench) -> anyhow::Result<Measured> {
    let data = match data(bench)? {
        Ok(folder) => folder,
        Err(why) => return Ok(Measured::Skipped(why)),
    };
    let Some(network) = model(bench, "fashion-cnn.onnx") else {
        return Ok(Measured::Skipped("needs fashion-cnn.onnx".into()));
    };
    let mut figure = String::new();
    let mut pass = true;
    let methods = "sanity.methods=[\"guided-backpropagation\", \"saliency\", \"input-x-gradient\", \"grad-cam\"]";
    for kind in ["untrained", "shuffle"] {
        let copy = data.join(format!("{kind}.onnx"));
        command::succeed(corner_block(bench)?.arg(kind).arg(&network).arg(&copy).arg("1"))?;
        let options = ["--only", "sanity", "--set", methods, "--set", "sanity.draws=8"];
        let found = audit(bench, &format!("sanity-{kind}"), &copy, &data.join("clean.npz"), &options)?;
        figure += &format!("{kind}:");
        for (id, wanted) in [
            ("guided-backpropagation", "concern"),
            ("saliency", "pass"),
            ("input-x-gradient", "pass"),
            ("grad-cam", "pass"),
        ] {
            let (verdict, kept) = verdict(&found, &format!("sanity/{id}"))?;
            figure += &format!(" {id} {verdict} {kept:.2}");
            pass &= verdict == wanted;
        }
        figure += "; ";
    }
    Ok(Measured::Figure { figure, pass })
}

/// The self test's time.
pub(super) fn selftest(bench: &Bench) -> anyhow::Result<Measured> {
    let result = bench.folder("selftest")?.join("result.json");
    let mut selftest = on_two_cores(bench.netproof()?);
    let run = measured(selftest.arg("selftest").arg("--json").arg(&result), &log(bench, "selftest")?, None)?;
    ensure!(matches!(run.code, Some(0 | 1)), run.ended("`netproof selftest`"));
    let value: Value = serde_json::from_str(&std::fs::read_to_string(&result)?)?;
    let count = |key: &str| value[key].as_u64().unwrap_or(u64::MAX);
    let figure = format!(
        "{:.1} s, {} passed, {} failed, {} not in this version",
        run.seconds,
        count("passed"),
        count("failed"),
        count("absent")
    );
    Ok(Measured::Figure { figure, pass: count("failed") == 0 && run.seconds < 60.0 })
}
