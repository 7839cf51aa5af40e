//! `cargo xtask generate`: everything in the repository that is made from something else in it.
//!
//! [`GENERATED`] is the whole list. Adding to it: a file (and a marker, if only a part of it is generated), and
//! a function that returns the text.

use std::cell::OnceCell;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::methods::Method;
use crate::{command, methods};

/// Something generated.
pub(crate) struct Generated {
    /// Path from the workspace's root.
    file: &'static str,
    /// The part between `<!-- generated: MARKER -->` and `<!-- /generated -->`; without one, the whole file.
    marker: Option<&'static str>,
    /// Where the text comes from, in words.
    source: &'static str,
    produce: fn(&Sources) -> anyhow::Result<String>,
}

/// Everything that is generated.
pub(crate) static GENERATED: &[Generated] = &[
    Generated {
        file: "crates/onnx/src/generated.rs",
        marker: None,
        source: "crates/onnx/proto/onnx.proto",
        produce: |sources| messages(sources.root),
    },
    Generated {
        file: "README.md",
        marker: Some("methods"),
        source: "the registries of methods",
        produce: |sources| Ok(methods::summary(sources.methods()?)),
    },
    Generated {
        file: "docs/methods.md",
        marker: Some("methods"),
        source: "the registries of methods",
        produce: |sources| Ok(methods::reference(sources.methods()?)),
    },
];

/// What producers read, each at most once.
pub(crate) struct Sources<'a> {
    root: &'a Path,
    methods: OnceCell<Vec<Method>>,
}

impl<'a> Sources<'a> {
    fn new(root: &'a Path) -> Self {
        Self { root, methods: OnceCell::new() }
    }

    /// The methods that the binary knows, in its order.
    fn methods(&self) -> anyhow::Result<&[Method]> {
        if self.methods.get().is_none() {
            let text = command::output(
                std::process::Command::new(binary(self.root)?).args(["methods", "--json", "-"]).current_dir(self.root),
            )?;
            let value: Value = serde_json::from_str(&text).context("`netproof methods --json -` wrote no JSON")?;
            let _ = self.methods.set(methods::parse(&value)?);
        }
        self.methods.get().map(Vec::as_slice).context("the methods were just read")
    }
}

/// Rust messages for ONNX files, from a program that only this needs.
fn messages(root: &Path) -> anyhow::Result<String> {
    let mut run = command::cargo(root);
    run.args(["run", "--quiet", "--package", "xtask", "--features", "messages", "--bin", "generate-messages"]);
    command::output(&mut run)
}

/// Builds the binary with the features and the profile that `cargo test --workspace` uses, so that nothing is
/// compiled twice, and returns its path.
fn binary(root: &Path) -> anyhow::Result<PathBuf> {
    let mut build = command::cargo(root);
    build.arg("build").args(command::quiet()).args(["--workspace", "--bin", "netproof"]);
    build.arg("--message-format=json-render-diagnostics");
    executable(&command::output(&mut build)?).context("cargo built no binary named `netproof`")
}

/// Where cargo's messages say that the binary lies.
pub(crate) fn executable(messages: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let built = messages.filter(|message| message["target"]["name"] == "netproof");
    built.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next()
}

/// Writes everything that differs from what its source says.
/// # Errors
/// A source cannot be read or built, or a file lacks its markers.
pub(crate) fn write(root: &Path) -> anyhow::Result<()> {
    let sources = Sources::new(root);
    for generated in GENERATED {
        let (old, new) = generated.texts(&sources)?;
        if old == new {
            println!("unchanged  {}", generated.file);
        } else {
            std::fs::write(root.join(generated.file), new).with_context(|| format!("writing {}", generated.file))?;
            println!("written    {}", generated.file);
        }
    }
    Ok(())
}

/// Compares everything generated with what its source says.
/// # Errors
/// Names each file that is out of date and how it differs; or as for [`write()`].
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let sources = Sources::new(root);
    let mut stale = String::new();
    for generated in GENERATED {
        let (old, new) = generated.texts(&sources)?;
        if old != new {
            let _ = write!(stale, "\n{}, made from {}:\n{}", generated.file, generated.source, difference(&old, &new));
        }
    }
    ensure!(stale.is_empty(), "generated files are out of date:{stale}");
    Ok(())
}

impl Generated {
    /// The file's text as it is and as it should be.
    fn texts(&self, sources: &Sources) -> anyhow::Result<(String, String)> {
        let path = sources.root.join(self.file);
        let old = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.marker.is_none() => String::new(),
            read => read.with_context(|| format!("reading {}", self.file))?,
        };
        let produced = (self.produce)(sources).with_context(|| format!("generating {}", self.file))?;
        let new = match self.marker {
            None => produced,
            Some(marker) => replace_section(&old, marker, &produced).with_context(|| self.file)?,
        };
        Ok((old, new))
    }
}

const END: &str = "<!-- /generated -->";

/// `text` with `section` between the markers, which stay on lines of their own.
fn replace_section(text: &str, marker: &str, section: &str) -> anyhow::Result<String> {
    let start = format!("<!-- generated: {marker} -->");
    let Some((before, rest)) = text.split_once(&start) else {
        bail!("no line `{start}`; add it, and `{END}` below it, where the text belongs");
    };
    ensure!(!rest.contains(&start), "`{start}` stands there twice");
    let Some((old, after)) = rest.split_once(END) else {
        bail!("`{start}` is not followed by `{END}`");
    };
    ensure!(!old.contains("<!-- generated:"), "`{start}` is not closed by `{END}` before the next section");
    Ok(format!("{before}{start}\n{}\n{END}{after}", section.trim_end()))
}

/// How many lines differ and the first of them.
fn difference(old: &str, new: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let tail = old[same..].iter().rev().zip(new[same..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (removed, added) = (&old[same..old.len() - tail], &new[same..new.len() - tail]);
    let mut text = format!("  line {}: {} lines become {}", same + 1, removed.len(), added.len());
    for (sign, lines) in [('-', removed), ('+', added)] {
        if let Some(line) = lines.first() {
            let shown: String = line.chars().take(160).collect();
            let _ = write!(text, "\n  {sign} {shown}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_what_is_between_the_markers_and_nothing_else() {
        let text =
            "a\n<!-- generated: x -->\nold\n<!-- /generated -->\nb\n<!-- generated: y -->\n<!-- /generated -->\n";
        let new = replace_section(text, "x", "new\n\n").unwrap();
        assert_eq!(new, text.replace("old", "new"));
        assert_eq!(replace_section(&new, "x", "new").unwrap(), new, "a second run changes nothing");
        assert!(replace_section(text, "y", "z").unwrap().ends_with("<!-- generated: y -->\nz\n<!-- /generated -->\n"));
    }

    #[test]
    fn refuses_markers_that_are_missing_or_ambiguous() {
        for (text, reason) in [
            ("", "no line"),
            ("<!-- generated: x -->", "not followed"),
            ("<!-- generated: x -->\n<!-- generated: y -->\n<!-- /generated -->", "not closed"),
            ("<!-- generated: x --><!-- /generated --><!-- generated: x -->", "twice"),
        ] {
            let error = replace_section(text, "x", "new").unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn shows_where_texts_part() {
        assert_eq!(difference("a\nb\nc\nd\n", "a\nx\ny\nd\n"), "  line 2: 2 lines become 2\n  - b\n  + x");
        assert_eq!(difference("a\n", "a\nb\n"), "  line 2: 0 lines become 1\n  + b");
        assert_eq!(difference("a\na\n", "a\n"), "  line 2: 1 lines become 0\n  - a");
        assert_eq!(difference("", "a"), "  line 1: 0 lines become 1\n  + a");
    }

    #[test]
    fn finds_the_binary_among_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"netproof_cli\"},\"executable\":null}\nnoise\n\
                        {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"netproof\"},\"executable\":\"/t/debug/netproof\"}\n\
                        {\"reason\":\"build-finished\",\"success\":true}";
        assert_eq!(executable(messages), Some(PathBuf::from("/t/debug/netproof")));
        assert_eq!(executable("{}"), None);
    }
}
