//! Licences of everything that is compiled, against the list in deny.toml.
//!
//! The same list serves cargo-deny, which also knows security advisories; this check needs no tool installed.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use toml::{Table, Value};

use crate::command;

/// Checks every package that the workspace compiles on one of deny.toml's targets, tests and build scripts included.
/// # Errors
/// Names each package whose licence is not allowed, or missing.
pub(crate) fn run(root: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(root.join("deny.toml")).context("reading deny.toml")?;
    let policy = Policy::parse(&text).context("reading deny.toml")?;
    let mut tree = command::cargo(root);
    tree.args([
        "tree",
        "--quiet",
        "--workspace",
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--format",
        "{p}\t{l}",
    ]);
    for target in &policy.targets {
        tree.args(["--target", target]);
    }
    let mut refused = String::new();
    for (package, licence) in packages(&command::output(&mut tree)?) {
        if !policy.allows(package, licence) {
            let licence = if licence.is_empty() { "no licence field" } else { licence };
            let _ = write!(refused, "\n  {package}: {licence}");
        }
    }
    ensure!(refused.is_empty(), "licences that deny.toml does not allow:{refused}");
    Ok(())
}

/// Name and licence per package, each once.
fn packages(tree: &str) -> std::collections::BTreeSet<(&str, &str)> {
    tree.lines()
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(package, licence)| Some((package.split_whitespace().next()?, without_mark(licence))))
        .collect()
}

/// Cargo marks a package that it has listed before.
fn without_mark(licence: &str) -> &str {
    licence.trim().strip_suffix("(*)").unwrap_or(licence).trim()
}

/// What deny.toml says about licences.
#[derive(Debug, Default)]
struct Policy {
    allow: Vec<String>,
    /// Package and the licences allowed for it alone.
    exceptions: Vec<(String, Vec<String>)>,
    /// Package and the expression its files were read to mean, where the manifest says nothing usable.
    clarified: Vec<(String, String)>,
    targets: Vec<String>,
}

impl Policy {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let file: Table = text.parse()?;
        let licenses = file.get("licenses").and_then(Value::as_table).context("no [licenses]")?;
        let allow = strings(licenses.get("allow"));
        ensure!(!allow.is_empty(), "licenses.allow is empty");
        let rows = |name| licenses.get(name).and_then(Value::as_array).into_iter().flatten();
        // Older files say `name`, newer ones `crate`.
        let package = |row: &Value| {
            let name = row.get("crate").or_else(|| row.get("name"))?.as_str()?;
            Some(name.split('@').next()?.to_owned())
        };
        let exceptions = rows("exceptions").filter_map(|row| Some((package(row)?, strings(row.get("allow")))));
        let clarified =
            rows("clarify").filter_map(|row| Some((package(row)?, row.get("expression")?.as_str()?.to_owned())));
        let targets = file.get("graph").and_then(|graph| graph.get("targets"));
        Ok(Self { exceptions: exceptions.collect(), clarified: clarified.collect(), targets: strings(targets), allow })
    }

    fn allows(&self, package: &str, licence: &str) -> bool {
        let clarified = self.clarified.iter().find(|(name, _)| name == package).map(|(_, expression)| expression);
        let extra = self.exceptions.iter().find(|(name, _)| name == package).map(|(_, allow)| allow.as_slice());
        let known = |id: &str| self.allow.iter().chain(extra.unwrap_or_default()).any(|allowed| allowed == id);
        satisfied(clarified.map_or(licence, String::as_str), &known)
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met with licences that are `known`; `AND` binds more tightly than `OR`.
///
/// The old `MIT/Apache-2.0` means `OR`. An expression that cannot be read is not met.
/// # Source   SPDX specification 2.3, annex D
fn satisfied(expression: &str, known: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    any(&words, &mut at, known) == Some(true) && at == words.len()
}

fn any(words: &[&str], at: &mut usize, known: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut met = all(words, at, known)?;
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        met |= all(words, at, known)?;
    }
    Some(met)
}

fn all(words: &[&str], at: &mut usize, known: &dyn Fn(&str) -> bool) -> Option<bool> {
    let mut met = single(words, at, known)?;
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        met &= single(words, at, known)?;
    }
    Some(met)
}

fn single(words: &[&str], at: &mut usize, known: &dyn Fn(&str) -> bool) -> Option<bool> {
    let word = *words.get(*at)?;
    *at += 1;
    match word {
        "(" => {
            let met = any(words, at, known)?;
            let closed = words.get(*at) == Some(&")");
            *at += 1;
            closed.then_some(met)
        }
        ")" | "AND" | "OR" | "WITH" => None,
        id if words.get(*at) == Some(&"WITH") => {
            let exception = words.get(*at + 1)?;
            *at += 2;
            // An exception only adds rights, so the licence alone is enough.
            Some(known(id) || known(&format!("{id} WITH {exception}")))
        }
        id => Some(known(id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(expression: &str) -> bool {
        satisfied(expression, &|id| ["MIT", "Apache-2.0", "GPL-2.0 WITH Classpath-exception-2.0"].contains(&id))
    }

    #[test]
    fn reads_expressions_as_spdx_does() {
        for expression in [
            "MIT",
            "MIT OR GPL-3.0",
            "GPL-3.0 OR MIT",
            "MIT/GPL-3.0",
            "MIT / GPL-3.0",
            "MIT AND Apache-2.0",
            "(MIT OR GPL-3.0) AND Apache-2.0",
            "GPL-3.0 AND ISC OR MIT",
            "MIT OR ISC AND GPL-3.0",
            "Apache-2.0 WITH LLVM-exception",
            "GPL-2.0 WITH Classpath-exception-2.0",
        ] {
            assert!(met(expression), "{expression}");
        }
        for expression in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR Apache-2.0) AND GPL-3.0",
            "GPL-2.0",
            "GPL-2.0 WITH GCC-exception-2.0",
            "MIT OR",
            "OR MIT",
            "(MIT",
            "MIT)",
            "MIT Apache-2.0",
            "MIT WITH",
        ] {
            assert!(!met(expression), "{expression}");
        }
    }

    const DENY: &str = r#"
        [graph]
        targets = ["x86_64-unknown-linux-gnu"]
        [licenses]
        allow = ["MIT"]
        exceptions = [{ crate = "a", allow = ["MPL-2.0"] }]
        [[licenses.clarify]]
        crate = "b@1.0"
        expression = "MIT"
        license-files = []
    "#;

    #[test]
    fn takes_the_list_the_exceptions_and_the_clarifications_from_the_file() {
        let policy = Policy::parse(DENY).unwrap();
        assert_eq!(policy.targets, ["x86_64-unknown-linux-gnu"]);
        assert!(policy.allows("any", "MIT"));
        assert!(policy.allows("a", "MPL-2.0"));
        assert!(!policy.allows("any", "MPL-2.0"));
        assert!(policy.allows("b", ""));
        assert!(!policy.allows("any", ""));
        assert!(Policy::parse("[licenses]\nallow = []").is_err());
        assert!(Policy::parse("").is_err());
    }

    #[test]
    fn reads_packages_once_from_the_tree() {
        let tree = "a v1.0.0\tMIT\nb v2.0.0 (proc-macro)\tMIT OR Apache-2.0\nb v2.0.0 (proc-macro)\tMIT OR Apache-2.0 (*)\nc v1.0.0\t\n\n";
        let found: Vec<_> = packages(tree).into_iter().collect();
        assert_eq!(found, [("a", "MIT"), ("b", "MIT OR Apache-2.0"), ("c", "")]);
    }

    /// Licences that demand publication of the user's own code must never slip into the list.
    #[test]
    fn the_repository_allows_no_strong_copyleft() {
        let text = std::fs::read_to_string(crate::workspace::root().unwrap().join("deny.toml")).unwrap();
        let policy = Policy::parse(&text).unwrap();
        for licence in ["GPL-2.0", "GPL-3.0-only", "AGPL-3.0-only", "LGPL-3.0-only", "SSPL-1.0", "BUSL-1.1"] {
            assert!(!policy.allows("any", licence), "{licence}");
        }
        assert!(policy.allows("any", "MIT OR Apache-2.0"));
    }
}
