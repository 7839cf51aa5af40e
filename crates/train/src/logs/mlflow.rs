//! A run as MLflow's file store lays it out: `FOLDER/0/RUN/{meta.yaml,metrics,params,tags}`; `mlflow ui --backend-store-uri
//! FOLDER` shows it.
//! Format: MLflow 2 documentation, "Backend stores", file store: a metric is a file of lines `milliseconds value step`.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{Failure, now, scalars};
use crate::recipe::Recipe;
use crate::record::{EpochRecord, Watch};

/// A run in the making.
#[derive(Debug)]
pub struct MlflowFolder {
    run: PathBuf,
    failure: Failure,
}

impl MlflowFolder {
    /// Begins a new run of the experiment 0, `Default`, with the recipe's fields as parameters.
    /// # Errors
    /// A folder or file cannot be made.
    pub fn create(folder: &Path, recipe: &Recipe) -> std::io::Result<Self> {
        let experiment = folder.join("0");
        fs::create_dir_all(&experiment)?;
        let store = folder.canonicalize()?;
        let meta = experiment.join("meta.yaml");
        if !meta.exists() {
            let location = format!("file://{}/0", store.display());
            let text =
                format!("artifact_location: {location}\nexperiment_id: '0'\nlifecycle_stage: active\nname: Default\n");
            fs::write(meta, text)?;
        }
        let started = now();
        let id = format!("{:x}", Sha256::digest(format!("{started} {}", std::process::id())))[..32].to_owned();
        let run = experiment.join(&id);
        for part in ["metrics", "params", "tags", "artifacts"] {
            fs::create_dir_all(run.join(part))?;
        }
        let text = format!(
            "artifact_uri: file://{}/0/{id}/artifacts\nend_time: null\nentry_point_name: ''\nexperiment_id: '0'\n\
             lifecycle_stage: active\nrun_id: {id}\nrun_name: netproof\nrun_uuid: {id}\nsource_name: netproof\n\
             source_type: 4\nsource_version: ''\nstart_time: {}\nstatus: 1\ntags: []\nuser_id: ''\n",
            store.display(),
            (started * 1e3) as u64,
        );
        fs::write(run.join("meta.yaml"), text)?;
        if let Ok(table) = recipe.to_toml().parse::<toml::Table>() {
            parameters(&run.join("params"), "", &table)?;
        }
        fs::write(run.join("tags/mlflow.runName"), "netproof")?;
        Ok(Self { run, failure: Failure::default() })
    }

    fn metric(&self, name: &str, value: f64, step: u64) -> std::io::Result<()> {
        let path = self.run.join("metrics").join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{} {value} {step}", (now() * 1e3) as u64)
    }
}

/// A file per field; fields of a table are named `table.field`.
fn parameters(folder: &Path, prefix: &str, table: &toml::Table) -> std::io::Result<()> {
    for (key, value) in table {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) => parameters(folder, &name, inner)?,
            toml::Value::String(text) => fs::write(folder.join(&name), text)?,
            other => fs::write(folder.join(&name), other.to_string())?,
        }
    }
    Ok(())
}

impl Watch for MlflowFolder {
    fn epoch(&self, epoch: &EpochRecord) {
        for (name, value) in scalars(epoch) {
            self.failure.keep(self.metric(name, value, epoch.epoch));
        }
    }

    fn failure(&self) -> Option<String> {
        self.failure.get()
    }
}

impl Drop for MlflowFolder {
    fn drop(&mut self) {
        // Status 3 is FINISHED. A run that is not marked so is shown as running, which does no harm.
        let meta = self.run.join("meta.yaml");
        if let Ok(text) = fs::read_to_string(&meta) {
            let ended = format!("end_time: {}", (now() * 1e3) as u64);
            let _ = fs::write(meta, text.replace("end_time: null", &ended).replace("status: 1", "status: 3"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::Method;
    use crate::recipe::DataSection;
    use crate::record::Metrics;

    #[test]
    fn a_run_has_parameters_and_metrics_by_epoch() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe::new(DataSection::new("a.npz"), Method::new("cnn"));
        let log = MlflowFolder::create(folder.path(), &recipe).unwrap();
        let metrics = Metrics { loss: 0.5, accuracy: Some(0.75), rows: 4 };
        for epoch in [1, 2] {
            log.epoch(&EpochRecord {
                epoch,
                steps: 1,
                learning_rate: 0.1,
                train: metrics,
                validation: Some(metrics),
                robust: None,
                penalty: 0.0,
                gradient_norm: 1.0,
                is_best: true,
                seconds: 1.0,
            });
        }
        assert_eq!(log.failure(), None);
        let run = log.run.clone();
        drop(log);
        let lines = fs::read_to_string(run.join("metrics/validation/accuracy")).unwrap();
        let ends: Vec<&str> = lines.lines().map(|l| l.split_once(' ').unwrap().1).collect();
        assert_eq!(ends, ["0.75 1", "0.75 2"]);
        assert_eq!(fs::read_to_string(run.join("params/optimiser.kind")).unwrap(), "adamw");
        assert!(fs::read_to_string(run.join("meta.yaml")).unwrap().contains("status: 3\n"));
    }
}
