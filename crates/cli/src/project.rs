//! Project files: everything that an audit needs, in one TOML file.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use netproof_core::Constraints;
use serde::{Deserialize, Serialize};

use crate::args::DataArgs;

/// A project file. Paths of networks, data and policies are relative to it.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Project {
    pub(crate) model: Option<PathBuf>,
    pub(crate) mean: Option<Vec<f32>>,
    pub(crate) std: Option<Vec<f32>>,
    /// Other networks for the same task that an attacker may hold.
    pub(crate) surrogates: Vec<PathBuf>,
    pub(crate) data: DataSection,
    pub(crate) train_data: DataSection,
    pub(crate) audit: AuditSection,
    /// What a changed row of a table must keep.
    pub(crate) constraints: Constraints,
    /// Options by check id.
    pub(crate) checks: toml::Table,
}

/// Where data are and how they are read.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct DataSection {
    pub(crate) path: Option<String>,
    #[serde(flatten)]
    pub(crate) reading: DataArgs,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AuditSection {
    pub(crate) only: Vec<String>,
    pub(crate) skip: Vec<String>,
    pub(crate) limit: Option<usize>,
    pub(crate) budget: Option<String>,
    pub(crate) policy: Option<PathBuf>,
    pub(crate) seed: Option<u64>,
    pub(crate) out: Option<PathBuf>,
    /// How the network is trained.
    pub(crate) recipe: Option<PathBuf>,
    /// Whether checks may train networks.
    pub(crate) retrain: bool,
}

impl Project {
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let mut project: Self =
            toml::from_str(&text).with_context(|| format!("the project file {} is not right", path.display()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        project.model = project.model.map(|p| folder.join(p));
        project.surrogates = project.surrogates.into_iter().map(|p| folder.join(p)).collect();
        project.audit.policy = project.audit.policy.map(|p| folder.join(p));
        project.audit.recipe = project.audit.recipe.map(|p| folder.join(p));
        for section in [&mut project.data, &mut project.train_data] {
            section.path = section.path.take().map(|spec| resolve(folder, &spec));
        }
        Ok(project)
    }

    /// Makes all paths whole, so that the file means the same wherever it lies.
    pub(crate) fn make_absolute(&mut self) -> anyhow::Result<()> {
        let own = [&mut self.model, &mut self.audit.recipe, &mut self.audit.policy].into_iter().flatten();
        for path in own.chain(&mut self.surrogates) {
            *path = std::path::absolute(&*path).with_context(|| format!("resolving {}", path.display()))?;
        }
        for section in [&mut self.data, &mut self.train_data] {
            section.path = section.path.take().map(|spec| absolute_spec(&spec)).transpose()?;
        }
        Ok(())
    }
}

/// Data by whole paths.
pub(crate) fn absolute_spec(spec: &str) -> anyhow::Result<String> {
    Ok(resolve(&std::env::current_dir().context("finding the current folder")?, spec))
}

/// Both files of a pair are relative to the folder.
fn resolve(folder: &Path, spec: &str) -> String {
    let join = |part: &str| folder.join(part).display().to_string();
    if folder.join(spec).exists() {
        return join(spec);
    }
    spec.split(':').map(join).collect::<Vec<_>>().join(":")
}
