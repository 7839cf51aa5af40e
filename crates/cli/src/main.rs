//! The `netproof` binary: parses, calls, prints, exits. Exit codes: 0 nothing of concern, 1 a concern or a broken policy,
//! 2 could not run.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod commands;
mod documents;
mod output;
mod progress;
mod project;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use netproof_audit::AuditError;

/// Proves neural networks before they are trusted.
#[derive(Parser)]
#[command(name = "netproof", version, about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure a network on data and write a report.
    Audit(commands::audit::Audit),
    /// Write a model card, an annex for technical documentation and a bill of materials from an audit.
    Card(commands::card::Card),
    /// Compare two audits: what differs between them, and which findings changed beyond noise.
    Diff(commands::diff::Diff),
    /// Treat a network, prove the treatment on rows that it has not seen, and save the result as ONNX.
    Fix(commands::fix::Fix),
    /// Attack a network: how many rows stay right under small deliberate changes.
    Attack(commands::attack::Attack),
    /// Check every claim of an attack's run: replay its examples in one forward pass.
    Verify(commands::verify::Verify),
    /// Train a network, or fine-tune one, as a recipe says.
    Train(commands::train::Train),
    /// Explain a network's answers, row by row: arrays and pictures.
    Explain(commands::explain::Explain),
    /// Run a network on data and save its answers.
    Predict(commands::predict::Predict),
    /// Show inputs, outputs, nodes, parameters and cost of a network.
    Inspect(commands::inspect::Inspect),
    /// List every method with its source, or show one.
    Methods(commands::methods::Methods),
    /// Run the test cases of a standard.
    Conformance(commands::conformance::Conformance),
    /// Check this program against known values, theorems and methods that must fail.
    Selftest(commands::selftest::Selftest),
    /// Print shell completions.
    Completions(commands::completions::Completions),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Audit(c) => c.run(),
        Command::Card(c) => c.run(),
        Command::Diff(c) => c.run(),
        Command::Fix(c) => c.run(),
        Command::Attack(c) => c.run(),
        Command::Verify(c) => c.run(),
        Command::Train(c) => c.run(),
        Command::Explain(c) => c.run(),
        Command::Predict(c) => c.run(),
        Command::Inspect(c) => c.run(),
        Command::Methods(c) => c.run(),
        Command::Conformance(c) => c.run(),
        Command::Selftest(c) => c.run(),
        Command::Completions(c) => c.run(),
    };
    match done {
        Ok(fine) => ExitCode::from(u8::from(!fine)),
        Err(e) if matches!(e.downcast_ref(), Some(AuditError::Interrupted)) => {
            eprintln!("interrupted: the same command goes on from what is finished");
            ExitCode::from(1)
        }
        Err(e) => {
            let mut text = e.to_string();
            for cause in e.chain().skip(1) {
                // Transparent errors repeat what is below them.
                if !text.contains(&cause.to_string()) {
                    text += &format!(": {cause}");
                }
            }
            eprintln!("error: {text}");
            ExitCode::from(2)
        }
    }
}
