//! The Python side: one process that runs jobs on request.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::Value;

/// A Python process that has PyTorch.
pub(crate) struct Reference {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Reference {
    /// Starts the first Python that has what it takes.
    pub(crate) fn start() -> Option<Self> {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
        let named = std::env::var_os("NETPROOF_PYTHON").map(PathBuf::from);
        let candidates = named.into_iter().chain([format!("{root}/.bars/venv/bin/python").into(), "python3".into()]);
        for python in candidates {
            let has =
                Command::new(&python).args(["-c", "import torch, onnx, onnxruntime"]).stderr(Stdio::null()).status();
            if has.is_ok_and(|s| s.success()) {
                return Self::spawn(&python).ok();
            }
        }
        None
    }

    fn spawn(python: &PathBuf) -> std::io::Result<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/reference.py");
        let mut child = Command::new(python).arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let missing = || std::io::Error::other("no pipe to Python");
        let to = child.stdin.take().ok_or_else(missing)?;
        let from = BufReader::new(child.stdout.take().ok_or_else(missing)?);
        Ok(Self { child, to, from })
    }

    /// Milliseconds of each of `runs` runs.
    pub(crate) fn run(&mut self, job: &Value, runs: usize) -> Result<Vec<f64>, String> {
        let reply = self.ask(job, runs)?;
        let times = reply["ms"].as_array().ok_or("an answer without times")?;
        Ok(times.iter().filter_map(Value::as_f64).collect())
    }

    /// The whole answer.
    pub(crate) fn ask(&mut self, job: &Value, runs: usize) -> Result<Value, String> {
        let mut job = job.clone();
        job["runs"] = runs.into();
        let mut line = String::new();
        writeln!(self.to, "{job}").and_then(|()| self.to.flush()).map_err(|e| e.to_string())?;
        self.from.read_line(&mut line).map_err(|e| e.to_string())?;
        let reply: Value = serde_json::from_str(&line).map_err(|e| format!("{e} in `{line}`"))?;
        match reply["error"].as_str() {
            Some(why) => Err(why.to_owned()),
            None => Ok(reply),
        }
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // Nothing is left to be done where it has gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
