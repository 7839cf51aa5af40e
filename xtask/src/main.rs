//! Developer tasks of the Netproof workspace; `cargo xtask` lists them.
//!
//! This crate is compiled before anything else can be checked, so it depends on little, and the rules
//! it enforces are tables: [`rules::RULES`], [`generate::GENERATED`], [`check::STEPS`], [`bars::BARS`].

// A command-line tool talks to the terminal; the libraries of the workspace may not.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod bars;
mod check;
mod command;
mod generate;
mod lexer;
mod licences;
mod methods;
mod rules;
mod test;
mod workspace;

use std::process::ExitCode;

use anyhow::bail;

const HELP: &str = "\
developer tasks

  cargo xtask test [ARGS]        every test of the workspace, doc tests included; ARGS go to `cargo test` instead
  cargo xtask check              format, dependency rules, licences, generated files, clippy, docs; the cheapest first
  cargo xtask rules              the dependency rules alone
  cargo xtask licences           the licences alone
  cargo xtask generate           write everything that is generated
  cargo xtask generate --check   fail if something generated is out of date
  cargo xtask bars               measure the slow end-to-end bars
      --list                     name them
      --only NAME                measure this one (repeatable)
      --binary PATH              use this netproof instead of building one
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = workspace::root()?;
    match words.as_slice() {
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        ["test", rest @ ..] => test::run(&root, rest),
        ["check"] => Ok(check::run(&root)),
        ["rules"] => rules::run(&root).map(|()| ExitCode::SUCCESS),
        ["licences"] => licences::run(&root).map(|()| ExitCode::SUCCESS),
        ["generate"] => generate::write(&root).map(|()| ExitCode::SUCCESS),
        ["generate", "--check"] => generate::check(&root).map(|()| ExitCode::SUCCESS),
        ["bars", rest @ ..] => bars::run(&root, rest),
        other => bail!("unknown task `{}`; `cargo xtask help` lists the tasks", other.join(" ")),
    }
}
