//! The shape of the workspace as a table: who may depend on whom, and who may do what.
//!
//! Each rule is one row of [`RULES`]; `cargo xtask rules` checks them all and names every place that breaks one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{bail, ensure};

use crate::command;
use crate::lexer::{Token, paths};
use crate::workspace::{Crate, Workspace};

/// The default build may not grow beyond this many crates, its own included.
pub(crate) const MOST_CRATES: usize = 400;

/// A rule and its reason.
pub(crate) struct Rule {
    law: Law,
    why: &'static str,
}

/// What a rule demands. Crates are named without `netproof-`.
enum Law {
    /// Of the workspace's crates, `of` depends on these at most, its tests aside.
    DependsAtMostOn { of: &'static str, on: &'static [&'static str] },
    /// Every crate of the workspace has a row of the kind above.
    EveryCrateIsListed,
    /// Only `crates` name one of `packages` in their manifest; a trailing `*` stands for any ending.
    PackageOnlyIn { packages: &'static [&'static str], crates: &'static [&'static str] },
    /// Only files under `folders` name a path that holds one of `segments` in a row, tests aside.
    PathOnlyIn { segments: &'static [&'static [&'static str]], folders: &'static [&'static str] },
    /// `by` holds no string literal that is the id of a method in `of`.
    NamesNoMethod { by: &'static str, of: &'static str },
    /// Every crate takes the workspace's lints.
    LintsAreInherited,
    /// Cargo.lock has at most one version of each.
    OneVersionOf(&'static [&'static str]),
}

/// The rules.
pub(crate) static RULES: &[Rule] = &[
    Rule { law: Law::EveryCrateIsListed, why: "a new crate says here what it may depend on" },
    Rule { law: Law::DependsAtMostOn { of: "tensor", on: &[] }, why: "arrays are the ground floor" },
    Rule { law: Law::DependsAtMostOn { of: "core", on: &[] }, why: "findings are plain data and know no tensor" },
    Rule { law: Law::DependsAtMostOn { of: "stats", on: &[] }, why: "statistics take slices and know no tensor" },
    Rule { law: Law::DependsAtMostOn { of: "onnx", on: &["tensor"] }, why: "the file knows nothing of its execution" },
    Rule {
        law: Law::DependsAtMostOn { of: "graph", on: &["onnx", "stats", "tensor"] },
        why: "a network knows no data set and no finding",
    },
    Rule {
        law: Law::DependsAtMostOn { of: "data", on: &["stats", "tensor"] },
        why: "a data set knows no network and no finding",
    },
    Rule {
        law: Law::DependsAtMostOn { of: "train", on: &["data", "graph", "stats", "tensor"] },
        why: "the trainer knows no check and no finding",
    },
    Rule {
        law: Law::DependsAtMostOn { of: "audit", on: &["core", "data", "graph", "onnx", "stats", "tensor", "train"] },
        why: "the runner knows no method and no report; what is retrained is kept in its run folder",
    },
    Rule {
        law: Law::DependsAtMostOn {
            of: "challenges",
            on: &["audit", "core", "data", "graph", "stats", "tensor", "train"],
        },
        why: "methods work on what the runner hands them",
    },
    Rule { law: Law::DependsAtMostOn { of: "report", on: &["core"] }, why: "a report sees findings only" },
    Rule {
        law: Law::DependsAtMostOn {
            of: "cli",
            on: &["audit", "challenges", "core", "data", "graph", "onnx", "report", "stats", "tensor", "train"],
        },
        why: "the binary puts everything together; nothing depends on it",
    },
    Rule {
        law: Law::PackageOnlyIn { packages: &["burn", "burn-*", "cubecl", "cubecl-*"], crates: &["graph"] },
        why: "one crate touches the engine, so that it can be replaced",
    },
    Rule {
        law: Law::PathOnlyIn { segments: &[&["burn"]], folders: &["crates/graph/"] },
        why: "one crate touches the engine, so that it can be replaced",
    },
    Rule {
        law: Law::PathOnlyIn {
            segments: &[
                &["fs"],
                &["File", "open"],
                &["File", "create"],
                &["File", "create_new"],
                &["File", "options"],
                &["OpenOptions", "new"],
                &["memmap2"],
                &["tempfile"],
            ],
            folders: &[
                "crates/onnx/",
                "crates/data/",
                "crates/audit/",
                "crates/train/src/checkpoint",
                "crates/train/src/logs",
                "crates/cli/",
            ],
        },
        why: "user files are read by `onnx` and `data`, the run folder is kept by `audit`, checkpoints and logs by \
              `train`; methods do no input or output",
    },
    Rule {
        law: Law::PathOnlyIn {
            segments: &[&["std", "net"], &["process", "Command"], &["Command", "new"]],
            folders: &["crates/cli/"],
        },
        why: "no library talks to the network or starts programs",
    },
    Rule {
        law: Law::PathOnlyIn {
            segments: &[&["clippy", "print_stdout"], &["clippy", "print_stderr"]],
            folders: &["crates/cli/"],
        },
        why: "libraries print nothing, so none may switch off the lint that says so",
    },
    Rule {
        law: Law::NamesNoMethod { by: "cli", of: "challenges" },
        why: "the binary goes through the registries, so that a method is one file and one line",
    },
    Rule { law: Law::LintsAreInherited, why: "the workspace's lints hold everywhere" },
    Rule {
        law: Law::OneVersionOf(&["arrow", "arrow-array", "burn", "parquet", "prost"]),
        why: "their types cross crates, and they are slow to compile",
    },
];

/// Checks every rule and the number of crates.
/// # Errors
/// Lists each place that breaks a rule, with the rule's reason.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let workspace = Workspace::read(root)?;
    let mut broken = String::new();
    for rule in RULES {
        for violation in rule.law.violations(&workspace) {
            let _ = write!(broken, "\n  {violation}: {}", rule.why);
        }
    }
    ensure!(broken.is_empty(), "dependency rules are broken:{broken}");
    let crates = crate_count(root)?;
    if crates > MOST_CRATES {
        bail!("the default build has {crates} crates; the limit is {MOST_CRATES}, see `cargo tree -p netproof-cli`");
    }
    Ok(())
}

/// Crates that the default build compiles.
/// # Errors
/// Cargo cannot resolve the workspace.
pub(crate) fn crate_count(root: &Path) -> anyhow::Result<usize> {
    let mut tree = command::cargo(root);
    tree.args(["tree", "--quiet", "--package", "netproof-cli", "--edges", "normal,build", "--prefix", "none"]);
    Ok(unique_packages(&command::output(&mut tree)?))
}

/// Lines are `name v1.2.3 (proc-macro) (*)`; the first two words are the package.
fn unique_packages(tree: &str) -> usize {
    let package = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    };
    tree.lines().filter_map(package).collect::<BTreeSet<_>>().len()
}

impl Law {
    /// Every place that breaks the rule, in words.
    fn violations(&self, workspace: &Workspace) -> Vec<String> {
        let mut found = Vec::new();
        let one = |name: &'static str| workspace.crates.iter().filter(move |one| one.name == name);
        match self {
            Self::DependsAtMostOn { of, on } => {
                for dependency in one(of).flat_map(|one| &one.dependencies).filter(|dependency| !dependency.dev) {
                    if let Some(name) = dependency.package.strip_prefix("netproof-")
                        && !on.contains(&name)
                    {
                        found.push(format!("`{of}` depends on `{name}`"));
                    }
                }
            }
            Self::EveryCrateIsListed => {
                for Crate { name, .. } in &workspace.crates {
                    let listed = |rule: &Rule| matches!(&rule.law, Self::DependsAtMostOn { of, .. } if of == name);
                    if !RULES.iter().any(listed) {
                        found.push(format!("`{name}` has no row in the table of dependencies"));
                    }
                }
            }
            Self::PackageOnlyIn { packages, crates } => {
                for one in workspace.crates.iter().filter(|one| !crates.contains(&one.name.as_str())) {
                    for dependency in &one.dependencies {
                        if packages.iter().any(|pattern| matches_pattern(pattern, &dependency.package)) {
                            found.push(format!("`{}` names `{}` in its manifest", one.name, dependency.package));
                        }
                    }
                }
            }
            Self::PathOnlyIn { segments, folders } => {
                let outside = |path: &str| !folders.iter().any(|folder| path.starts_with(folder));
                for source in workspace.crates.iter().flat_map(|one| &one.sources).filter(|one| outside(&one.path)) {
                    for (line, path) in paths(&source.tokens) {
                        if segments.iter().any(|wanted| path.windows(wanted.len()).any(|window| window == *wanted)) {
                            found.push(format!("{}:{line} names `{}`", source.path, path.join("::")));
                        }
                    }
                }
            }
            Self::NamesNoMethod { by, of } => {
                let ids: BTreeSet<&str> = one(of).flat_map(method_ids).collect();
                for source in one(by).flat_map(|one| &one.sources) {
                    for placed in &source.tokens {
                        if let Token::Text(text) = &placed.token
                            && ids.contains(text.as_str())
                        {
                            found.push(format!("{}:{} names the method `{text}`", source.path, placed.line));
                        }
                    }
                }
            }
            Self::LintsAreInherited => {
                for Crate { name, .. } in workspace.crates.iter().filter(|one| !one.inherits_lints) {
                    found.push(format!("the manifest of `{name}` has no `[lints] workspace = true`"));
                }
            }
            Self::OneVersionOf(packages) => {
                for name in *packages {
                    if let Some(versions) = workspace.locked.get(*name).filter(|versions| versions.len() > 1) {
                        found.push(format!("Cargo.lock has `{name}` in versions {}", versions.join(" and ")));
                    }
                }
            }
        }
        found
    }
}

fn matches_pattern(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

/// What follows `id:` as a literal: the ids of cards.
fn method_ids(one: &Crate) -> Vec<&str> {
    let mut ids = Vec::new();
    for source in &one.sources {
        for window in source.tokens.windows(3) {
            if let [name, colon, value] = window
                && name.token == Token::Word("id".into())
                && colon.token == Token::Mark(':')
                && let Token::Text(id) = &value.token
            {
                ids.push(id.as_str());
            }
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workspace::Source;

    /// A workspace of one crate, as cargo describes its manifest.
    fn manifest(name: &str, dependencies: &[(&str, Option<&str>)]) -> Workspace {
        let dependencies: Vec<_> =
            dependencies.iter().map(|(name, kind)| json!({ "name": name, "kind": kind })).collect();
        let metadata = json!({ "packages": [
            { "name": format!("netproof-{name}"), "dependencies": dependencies },
            { "name": "xtask", "dependencies": [{ "name": "burn", "kind": null }] },
        ]});
        let mut workspace = Workspace::from_metadata(&metadata).unwrap();
        for one in &mut workspace.crates {
            one.inherits_lints = true;
        }
        workspace
    }

    fn with_source(name: &str, text: &str) -> Workspace {
        let mut workspace = manifest(name, &[]);
        workspace.crates[0].sources.push(Source::new(&format!("crates/{name}/src/lib.rs"), text));
        workspace
    }

    fn violations(workspace: &Workspace) -> Vec<String> {
        RULES.iter().flat_map(|rule| rule.law.violations(workspace)).collect()
    }

    #[test]
    fn the_table_of_dependencies_is_enforced_row_by_row() {
        let crates = ["tensor", "core", "stats", "onnx", "graph", "data", "audit", "challenges", "report", "cli"];
        for (of, forbidden) in [
            ("tensor", &crates[1..]),
            ("core", &["tensor", "graph", "data", "stats", "onnx", "audit"]),
            ("stats", &["tensor", "graph", "data", "core"]),
            ("onnx", &["graph", "data", "core", "stats"]),
            ("graph", &["data", "core", "audit", "challenges"]),
            ("data", &["graph", "onnx", "core", "audit"]),
            ("audit", &["challenges", "report", "cli"]),
            ("challenges", &["report", "cli", "onnx"]),
            ("report", &["tensor", "stats", "audit", "graph", "challenges"]),
            ("cli", &["cli"]),
        ] {
            for other in forbidden {
                let package = format!("netproof-{other}");
                let found = violations(&manifest(of, &[(&package, None)]));
                assert_eq!(found, [format!("`{of}` depends on `{other}`")]);
                assert_eq!(
                    violations(&manifest(of, &[(&package, Some("build"))])).len(),
                    1,
                    "build dependency of {of}"
                );
                assert!(violations(&manifest(of, &[(&package, Some("dev"))])).is_empty(), "tests may use {other}");
            }
        }
        assert!(violations(&manifest("report", &[("netproof-core", None), ("serde", None)])).is_empty());
    }

    #[test]
    fn a_crate_that_is_not_in_the_table_is_a_violation() {
        assert_eq!(violations(&manifest("new", &[])), ["`new` has no row in the table of dependencies"]);
    }

    #[test]
    fn only_graph_names_the_engine() {
        assert!(violations(&manifest("graph", &[("burn", None), ("burn-flex", None)])).is_empty());
        for package in ["burn", "burn-flex", "cubecl-cpu"] {
            for kind in [None, Some("dev")] {
                let found = violations(&manifest("stats", &[(package, kind)]));
                assert_eq!(found, [format!("`stats` names `{package}` in its manifest")]);
            }
        }
        assert!(violations(&manifest("stats", &[("burner", None)])).is_empty());

        assert!(violations(&with_source("graph", "use burn::tensor::Tensor;")).is_empty());
        let found = violations(&with_source("audit", "// burn::x\nuse burn::{tensor::Tensor};"));
        assert_eq!(found, ["crates/audit/src/lib.rs:2 names `burn::tensor::Tensor`"]);
    }

    #[test]
    fn files_are_opened_only_where_the_table_says_so() {
        for line in [
            "use std::fs;",
            "use std::{io, fs::File};",
            "fn f() { std::fs::read(\"a\"); }",
            "fn f() { File::open(\"a\"); }",
            "fn f() { fs::write(\"a\", \"b\"); }",
            "fn f() { OpenOptions::new(); }",
            "fn f() { memmap2::Mmap::map(file); }",
        ] {
            for name in ["tensor", "core", "stats", "graph", "challenges", "report"] {
                assert_eq!(violations(&with_source(name, line)).len(), 1, "{name}: {line}");
            }
            for name in ["onnx", "data", "audit", "cli"] {
                assert!(violations(&with_source(name, line)).is_empty(), "{name}: {line}");
            }
            assert!(violations(&with_source("report", &format!("#[cfg(test)] mod tests {{ {line} }}"))).is_empty());
        }
        assert!(violations(&with_source("stats", "fn f(fs: f64) -> f64 { fs * profile.fs }")).is_empty());
    }

    #[test]
    fn libraries_start_nothing_and_print_nothing() {
        for line in [
            "use std::net::TcpStream;",
            "fn f() { std::process::Command::new(\"sh\"); }",
            "#![allow(clippy::print_stdout)]",
            "#[expect(clippy::print_stderr)] fn f() {}",
        ] {
            assert_eq!(violations(&with_source("data", line)).len(), 1, "{line}");
            assert!(violations(&with_source("cli", line)).is_empty(), "{line}");
        }
    }

    #[test]
    fn the_binary_names_no_method() {
        let mut workspace =
            with_source("challenges", "static CARD: Card = Card { id: \"calibration\", title: \"t\" };");
        let mut cli = with_source(
            "cli",
            "fn f() {\n    run(\"calibration\");\n    about(\"the calibration of a network\", \"t\") }",
        );
        workspace.crates.append(&mut cli.crates);
        assert_eq!(violations(&workspace), ["crates/cli/src/lib.rs:2 names the method `calibration`"]);
    }

    #[test]
    fn lints_are_inherited_and_shared_types_come_in_one_version() {
        let mut workspace = manifest("core", &[]);
        workspace.crates[0].inherits_lints = false;
        assert_eq!(violations(&workspace).len(), 1);

        let mut workspace = manifest("core", &[]);
        workspace.locked.insert("parquet".into(), vec!["59.0.0".into(), "60.0.0".into()]);
        workspace.locked.insert("syn".into(), vec!["1.0.0".into(), "2.0.0".into()]);
        assert_eq!(violations(&workspace), ["Cargo.lock has `parquet` in versions 59.0.0 and 60.0.0"]);
    }

    #[test]
    fn a_package_counts_once_however_often_it_is_listed() {
        let tree = "a v1.0.0\nb v1.0.0 (proc-macro)\nb v1.0.0 (proc-macro) (*)\nb v2.0.0\n\na v1.0.0 (/path)\n";
        assert_eq!(unique_packages(tree), 3);
    }

    #[test]
    fn every_rule_says_why() {
        assert!(RULES.iter().all(|rule| !rule.why.is_empty()));
    }
}
