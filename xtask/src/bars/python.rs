//! Python with the libraries that Netproof is compared with, and packages that carry networks.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{Bench, Measured};
use crate::command;

/// What the scripts in `tests/bars/` import.
const LIBRARIES: &[&str] = &["numpy==2.4.6", "onnx==1.23.2", "onnxruntime==1.32.0", "pyarrow==26.0.1"];

/// What the scripts that compare with Captum import besides; large, so in an environment of its own.
const CAPTUM: &[&str] = &["numpy==2.4.6", "onnx==1.23.2", "torch==2.15.0", "captum==0.9.0"];

/// Whether there is a Python that can make an environment.
pub(super) fn is_there() -> bool {
    let quiet = |command: &mut Command| command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    quiet(Command::new("python3").args(["-c", "import venv, ensurepip"])).is_ok_and(|status| status.success())
}

/// The reason for skipping what needs Python.
pub(super) const ABSENT: &str = "needs python3 with venv";

/// The interpreter of an environment with [`LIBRARIES`]: the one that `NETPROOF_PYTHON` names, or one made on first use.
pub(super) fn interpreter(bench: &Bench) -> anyhow::Result<PathBuf> {
    named_or(bench, "venv", LIBRARIES)
}

/// The same with PyTorch and Captum.
pub(super) fn with_captum(bench: &Bench) -> anyhow::Result<PathBuf> {
    named_or(bench, "venv-captum", CAPTUM)
}

fn named_or(bench: &Bench, name: &str, libraries: &[&str]) -> anyhow::Result<PathBuf> {
    std::env::var_os("NETPROOF_PYTHON").map_or_else(|| environment(bench, name, libraries), |path| Ok(path.into()))
}

/// The interpreter of an environment of its own, with [`LIBRARIES`] and more, made on first use.
pub(super) fn interpreter_with(bench: &Bench, folder: &str, more: &[&str]) -> anyhow::Result<PathBuf> {
    environment(bench, folder, &[LIBRARIES, more].concat())
}

fn environment(bench: &Bench, name: &str, libraries: &[&str]) -> anyhow::Result<PathBuf> {
    let folder = bench.folder(name)?;
    let interpreter = folder.join("bin/python");
    let marker = folder.join("libraries.txt");
    let wanted = libraries.join("\n");
    if std::fs::read_to_string(&marker).is_ok_and(|there| there == wanted) {
        return Ok(interpreter);
    }
    command::succeed(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    command::succeed(Command::new(&interpreter).args(["-m", "pip", "install", "--quiet"]).args(libraries))?;
    std::fs::write(&marker, wanted).with_context(|| format!("writing {}", marker.display()))?;
    Ok(interpreter)
}

/// The files of a package's wheel, without installing it.
pub(super) fn unpacked(bench: &Bench, package: &str, options: &[&str]) -> anyhow::Result<PathBuf> {
    let folder = bench.folder("packages")?.join(package);
    if folder.is_dir() {
        return Ok(folder);
    }
    let wheels = bench.folder("wheels")?.join(package);
    let mut download = Command::new(interpreter(bench)?);
    download.args(["-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]).args(options);
    command::succeed(download.arg("--dest").arg(&wheels).arg(package))?;
    let wheel = std::fs::read_dir(&wheels)?.next().with_context(|| format!("pip downloaded no {package}"))??.path();
    // Under another name until it is complete, so that an interrupted run is not taken for a finished one.
    let partial = folder.with_extension("partial");
    command::succeed(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(wheel).arg(&partial))?;
    std::fs::rename(&partial, &folder).with_context(|| format!("moving {}", partial.display()))?;
    Ok(folder)
}

/// Runs `tests/bars/SCRIPT`, whose last line is `{"figure": …, "pass": …}`; its details go to standard error.
pub(super) fn script(bench: &Bench, script: &str, arguments: &[&Path]) -> anyhow::Result<Measured> {
    script_with(bench, &interpreter(bench)?, script, arguments)
}

/// The same with an interpreter of one's own.
pub(super) fn script_with(
    bench: &Bench,
    interpreter: &Path,
    script: &str,
    arguments: &[impl AsRef<std::ffi::OsStr>],
) -> anyhow::Result<Measured> {
    let mut run = Command::new(interpreter);
    run.arg(bench.root.join("tests/bars").join(script)).args(arguments);
    result_of(&mut run, script)
}

/// Runs a script that is ready to run; see [`script`].
pub(super) fn result_of(run: &mut Command, script: &str) -> anyhow::Result<Measured> {
    figure(run).with_context(|| format!("reading the result of {script}"))
}

/// Runs a command whose last line is `{"figure": …, "pass": …}`.
pub(super) fn figure(command: &mut Command) -> anyhow::Result<Measured> {
    measured(&command::output(command)?)
}

fn measured(output: &str) -> anyhow::Result<Measured> {
    let last = output.lines().last().context("it wrote nothing")?;
    let value: Value = serde_json::from_str(last).with_context(|| format!("`{last}` is no JSON"))?;
    let figure = value["figure"].as_str().context("no text `figure`")?;
    let pass = value["pass"].as_bool().context("no truth value `pass`")?;
    ensure!(!figure.is_empty(), "`figure` is empty");
    Ok(Measured::Figure { figure: figure.into(), pass })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_scripts_last_line() {
        let Ok(Measured::Figure { figure, pass }) = measured("noise\n{\"figure\": \"3 of 3\", \"pass\": true}\n")
        else {
            panic!("a result was refused");
        };
        assert!(figure == "3 of 3" && pass);
        for output in ["", "3 of 3", "{\"figure\": \"x\"}", "{\"pass\": true}", "{\"figure\": \"\", \"pass\": true}"] {
            assert!(measured(output).is_err(), "{output}");
        }
    }
}
