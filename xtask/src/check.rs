//! `cargo xtask check`: everything about the code that is not a test, the cheapest step first.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use crate::{command, generate, licences, rules};

/// One step of the check.
pub(crate) struct Step {
    name: &'static str,
    run: fn(&Path) -> anyhow::Result<()>,
    /// What to do when it fails.
    remedy: &'static str,
}

/// In order of cost on a fresh machine: the first two compile nothing, the last three compile everything.
pub(crate) static STEPS: &[Step] = &[
    Step { name: "format", run: format, remedy: "run `cargo fmt --all`" },
    Step {
        name: "dependency rules",
        run: rules::run,
        remedy: "move the code to the crate that may do this, or change the table in xtask/src/rules.rs and say why",
    },
    Step {
        name: "licences",
        run: licences::run,
        remedy: "use another crate, or allow the licence in deny.toml if the project can accept it",
    },
    Step { name: "generated files", run: generate::check, remedy: "run `cargo xtask generate` and commit the result" },
    Step { name: "clippy", run: clippy, remedy: "follow the lint; `cargo clippy --fix` can apply many of them" },
    Step { name: "docs", run: docs, remedy: "repair the link or the markup that rustdoc names" },
];

/// Runs the steps and stops at the first that fails.
pub(crate) fn run(root: &Path) -> ExitCode {
    for step in STEPS {
        let start = Instant::now();
        let result = (step.run)(root);
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => println!("ok      {:<18} {seconds:>7.1} s", step.name),
            Err(error) => {
                println!("FAILED  {:<18} {seconds:>7.1} s", step.name);
                println!("{error:#}");
                println!("what to do: {}", step.remedy);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

fn format(root: &Path) -> anyhow::Result<()> {
    command::succeed(command::cargo(root).args(["fmt", "--all", "--check"]))
}

/// Every crate, and xtask's program that is left out otherwise.
const EVERYTHING: [&str; 3] = ["--workspace", "--features", "xtask/messages"];

fn clippy(root: &Path) -> anyhow::Result<()> {
    let mut clippy = command::cargo(root);
    clippy.arg("clippy").args(command::quiet()).args(EVERYTHING).args(["--all-targets", "--", "-D", "warnings"]);
    command::succeed(&mut clippy)
}

fn docs(root: &Path) -> anyhow::Result<()> {
    let mut doc = command::cargo(root);
    doc.arg("doc").args(command::quiet()).args(EVERYTHING).arg("--no-deps").env("RUSTDOCFLAGS", "-D warnings");
    command::succeed(&mut doc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_name_of_its_own_and_says_what_to_do() {
        for (i, step) in STEPS.iter().enumerate() {
            assert!(!step.remedy.is_empty(), "{}", step.name);
            assert!(STEPS[..i].iter().all(|other| other.name != step.name), "{}", step.name);
        }
    }
}
