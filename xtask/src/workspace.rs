//! The facts about this workspace that rules are checked against.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::command;
use crate::lexer::{self, Placed};

/// Crates of the workspace, without xtask, and what is locked.
#[derive(Debug, Default)]
pub(crate) struct Workspace {
    pub(crate) crates: Vec<Crate>,
    /// Versions of every package in Cargo.lock.
    pub(crate) locked: BTreeMap<String, Vec<String>>,
}

/// A crate of the workspace.
#[derive(Debug, Default)]
pub(crate) struct Crate {
    /// Name without `netproof-`.
    pub(crate) name: String,
    pub(crate) dependencies: Vec<Dependency>,
    /// Whether its manifest takes the workspace's lints.
    pub(crate) inherits_lints: bool,
    /// Sources under `src/`.
    pub(crate) sources: Vec<Source>,
}

/// What a manifest names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dependency {
    /// Name of the package, whatever it is renamed to.
    pub(crate) package: String,
    /// Used by the crate's tests, examples and benches only.
    pub(crate) dev: bool,
}

/// A Rust file, without what is compiled for tests only.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path from the workspace's root, with `/`.
    pub(crate) path: String,
    pub(crate) tokens: Vec<Placed>,
}

impl Source {
    /// Reads the text of the file at `path`.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), tokens: lexer::tokens(text) }
    }
}

/// The folder of the workspace's Cargo.toml.
/// # Errors
/// The folder that this program was compiled in is gone.
pub(crate) fn root() -> anyhow::Result<PathBuf> {
    let here =
        std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let root = here.parent().context("xtask lies in a folder of the workspace")?;
    ensure!(
        root.join("Cargo.toml").is_file(),
        "no Cargo.toml in {}; run `cargo xtask` in the workspace",
        root.display()
    );
    Ok(root.to_path_buf())
}

impl Workspace {
    /// Reads the workspace under `root`.
    /// # Errors
    /// Cargo cannot read a manifest, or a source cannot be read.
    pub(crate) fn read(root: &Path) -> anyhow::Result<Self> {
        let metadata =
            command::output(command::cargo(root).args(["metadata", "--quiet", "--format-version", "1", "--no-deps"]))?;
        let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata wrote no JSON")?;
        let mut workspace = Self::from_metadata(&metadata)?;
        for (one, folder) in workspace.crates.iter_mut().zip(folders(&metadata)) {
            let manifest = folder.join("Cargo.toml");
            let text = std::fs::read_to_string(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
            one.inherits_lints = inherits_lints(&text).with_context(|| format!("reading {}", manifest.display()))?;
            for file in rust_files(&folder.join("src"))? {
                let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
                let path = file.strip_prefix(root).unwrap_or(&file).to_string_lossy().replace('\\', "/");
                one.sources.push(Source::new(&path, &text));
            }
        }
        let lock = std::fs::read_to_string(root.join("Cargo.lock")).context("reading Cargo.lock")?;
        workspace.locked = locked(&lock)?;
        Ok(workspace)
    }

    /// The crates and their dependencies, from `cargo metadata --no-deps`.
    /// # Errors
    /// A field is missing that format version 1 has.
    pub(crate) fn from_metadata(metadata: &Value) -> anyhow::Result<Self> {
        let crates = packages(metadata).map(Crate::from_metadata).collect::<anyhow::Result<_>>()?;
        Ok(Self { crates, locked: BTreeMap::new() })
    }
}

impl Crate {
    fn from_metadata(package: &Value) -> anyhow::Result<Self> {
        let name = package["name"].as_str().context("a package has no name")?;
        let name = name.strip_prefix("netproof-").unwrap_or(name).to_owned();
        let mut dependencies = Vec::new();
        for dependency in package["dependencies"].as_array().context("a package has no list of dependencies")? {
            let package = dependency["name"].as_str().context("a dependency has no name")?.to_owned();
            dependencies.push(Dependency { package, dev: dependency["kind"].as_str() == Some("dev") });
        }
        Ok(Self { name, dependencies, ..Self::default() })
    }
}

/// The workspace's packages in cargo's order; xtask checks and is not checked.
fn packages(metadata: &Value) -> impl Iterator<Item = &Value> {
    metadata["packages"].as_array().into_iter().flatten().filter(|package| package["name"] != "xtask")
}

fn folders(metadata: &Value) -> impl Iterator<Item = PathBuf> {
    packages(metadata)
        .filter_map(|package| package["manifest_path"].as_str())
        .filter_map(|manifest| Path::new(manifest).parent().map(Path::to_path_buf))
}

fn inherits_lints(manifest: &str) -> anyhow::Result<bool> {
    let manifest: toml::Table = manifest.parse()?;
    let workspace = manifest.get("lints").and_then(|lints| lints.get("workspace"));
    Ok(workspace.and_then(toml::Value::as_bool) == Some(true))
}

fn locked(lock: &str) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let lock: toml::Table = lock.parse().context("Cargo.lock is no TOML")?;
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in lock.get("package").and_then(toml::Value::as_array).into_iter().flatten() {
        let field = |name| package.get(name).and_then(toml::Value::as_str);
        if let (Some(name), Some(version)) = (field("name"), field("version")) {
            versions.entry(name.into()).or_default().push(version.into());
        }
    }
    Ok(versions)
}

/// Rust files under `folder`, in order of path, without `tests.rs` and folders `tests`: by custom they hold a
/// module that is compiled for tests only, which the files themselves do not say.
fn rust_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            if path.file_stem().is_some_and(|stem| stem == "tests") {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lints_and_locked_versions() {
        assert!(inherits_lints("[lints]\nworkspace = true").unwrap());
        assert!(inherits_lints("lints.workspace = true").unwrap());
        assert!(!inherits_lints("[lints]\nworkspace = false").unwrap());
        assert!(!inherits_lints("[package]\nname = \"a\"").unwrap());

        let versions =
            locked("[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n[[package]]\nname = \"a\"\nversion = \"2.0.0\"");
        assert_eq!(versions.unwrap()["a"], ["1.0.0", "2.0.0"]);
    }

    /// Manifests as people write them, through cargo itself: renamed, for one platform, inherited, for tests.
    #[test]
    fn reads_manifests_through_cargo() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write(
            "Cargo.toml",
            r#"
                [workspace]
                members = ["a", "b"]
                resolver = "3"
                [workspace.dependencies]
                data = { package = "netproof-data", path = "b" }
                [workspace.lints.rust]
                unused = "warn"
            "#,
        );
        write(
            "a/Cargo.toml",
            r#"
                [package]
                name = "netproof-report"
                edition = "2024"
                [lints]
                workspace = true
                [dependencies]
                rows = { package = "netproof-data", path = "../b" }
                [target.'cfg(unix)'.dependencies]
                engine = { package = "burn", version = "0.22" }
                [dev-dependencies]
                data.workspace = true
            "#,
        );
        write("a/src/lib.rs", "mod inner;");
        write("a/src/inner/mod.rs", "use std::fs;");
        write("a/src/inner/tests.rs", "use std::fs;");
        write("a/src/tests/more.rs", "use std::fs;");
        write("b/Cargo.toml", "[package]\nname = \"netproof-data\"\nedition = \"2024\"");
        write("b/src/lib.rs", "");
        write("Cargo.lock", "version = 4");

        let workspace = Workspace::read(folder.path()).unwrap();
        let report = workspace.crates.iter().find(|one| one.name == "report").unwrap();
        let named: Vec<(&str, bool)> =
            report.dependencies.iter().map(|dependency| (dependency.package.as_str(), dependency.dev)).collect();
        assert_eq!(named.len(), 3, "{named:?}");
        for expected in [("netproof-data", false), ("burn", false), ("netproof-data", true)] {
            assert!(named.contains(&expected), "{expected:?} is missing in {named:?}");
        }
        assert!(report.inherits_lints);
        let paths: Vec<&str> = report.sources.iter().map(|source| source.path.as_str()).collect();
        assert_eq!(paths, ["a/src/inner/mod.rs", "a/src/lib.rs"]);
    }
}
