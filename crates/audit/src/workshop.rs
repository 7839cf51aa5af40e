//! Training for checks and remedies: what was trained once is kept in the run folder and never trained again.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use netproof_data::Dataset;
use netproof_graph::Model;
use netproof_train::{
    CrossValidation, Ended, Folds, Job, Recipe, Record, Registry, RunOptions, StepReport, Trained, Watch,
    cross_validate, identity, train,
};

use crate::progress::Progress;
use crate::{AuditError, Context, Part, Subject, Training, write_atomically};

impl Context<'_> {
    /// How the network of a subject is trained.
    /// # Errors
    /// Nothing is known about it, or this run may not train.
    pub fn training<'s>(&self, subject: &'s Subject) -> Result<&'s Training, AuditError> {
        let message = || "there is no recipe and no training data to train on".to_owned();
        let training = subject.training().ok_or_else(|| AuditError::Mismatch { message: message() })?;
        if self.may_train {
            Ok(training)
        } else {
            Err(AuditError::Mismatch { message: "training is turned off".into() })
        }
    }

    /// Trains, unless the run folder has the result already. A training that the deadline or a person ends leaves a checkpoint there,
    /// and the next run goes on from it with the same bits.
    ///
    /// `what` is shown while it works.
    /// # Errors
    /// See [`train`]; or the time is over, or a person asked to end.
    pub fn train(&self, what: &str, recipe: &Recipe, job: Job, registry: &Registry) -> Result<Trained, AuditError> {
        self.check_time()?;
        let Some(folder) = self.folder else { return self.run_training(what, recipe, job, registry, None) };
        let id = identity(recipe, &job)?;
        let place = folder.folder(&format!("trained/{}", &id[..32]))?;
        if let Some(kept) = kept(&place) {
            return Ok(kept);
        }
        let trained = self.run_training(what, recipe, job, registry, Some(&place))?;
        write_atomically(&place.join("model.onnx"), &trained.model.to_file()?.to_bytes())?;
        write_atomically(&place.join("recipe.toml"), recipe.to_toml().as_bytes())?;
        // Written last: what has a record is whole.
        write_atomically(&place.join("record.json"), &serde_json::to_vec_pretty(&trained.record)?)?;
        // What is finished needs no checkpoint; one that cannot be removed does no harm.
        let _ = std::fs::remove_file(place.join("checkpoint"));
        Ok(trained)
    }

    fn run_training(
        &self,
        what: &str,
        recipe: &Recipe,
        job: Job,
        registry: &Registry,
        place: Option<&Path>,
    ) -> Result<Trained, AuditError> {
        let timer = Timer { progress: self.progress, deadline: self.deadline, over: AtomicBool::new(false) };
        let checkpoint = place.map(|p| p.join("checkpoint"));
        let options = RunOptions {
            checkpoint: checkpoint.as_deref(),
            resume: true,
            interrupt: Some(&timer.over),
            watch: &timer,
            ..RunOptions::default()
        };
        self.progress.start(&format!("training {what}"), (job.train.len() as u64).saturating_mul(recipe.epochs));
        let trained = train(recipe, job, registry, &options);
        self.progress.finish();
        let trained = trained?;
        match trained.record.ended {
            Ended::Interrupted if self.progress.stopped() => Err(AuditError::Interrupted),
            Ended::Interrupted => Err(AuditError::OutOfTime),
            _ => Ok(trained),
        }
    }

    /// Cross-validation by the subject's recipe over its training rows; each fold is kept as any training is.
    /// # Errors
    /// There are no training rows or they cannot be dealt so; a training fails; the time is over.
    pub fn cross_validate(&self, subject: &Subject, folds: &Folds) -> Result<CrossValidation, AuditError> {
        let training = self.training(subject)?;
        let rows = training_rows(subject)?;
        let recipe = Recipe { seed: self.seed, ..training.recipe().clone() };
        let of = folds.count * folds.repeats;
        let mut done = 0;
        let mut run = |recipe: &Recipe, job: Job| {
            done += 1;
            self.train(&format!("fold {done} of {of}"), recipe, job, training.registry())
        };
        let network = |seed| training.network(&recipe, subject, seed);
        cross_validate(&recipe, &network, rows, folds, training.registry(), &mut run)
    }
}

/// The rows that a subject's network is trained on.
/// # Errors
/// There are none.
pub(crate) fn training_rows(subject: &Subject) -> Result<&Dataset, AuditError> {
    let message = || "there is no training data".to_owned();
    subject.part(Part::Train).ok_or_else(|| AuditError::Mismatch { message: message() })
}

/// What an earlier run has trained here; what is damaged counts as not there.
fn kept(place: &Path) -> Option<Trained> {
    let record: Record = serde_json::from_slice(&std::fs::read(place.join("record.json")).ok()?).ok()?;
    let model = Model::from_bytes(&std::fs::read(place.join("model.onnx")).ok()?).ok()?;
    (model.sha256().ok()? == record.result_sha256).then_some(Trained { model, record })
}

/// Shows progress, and ends a training at its deadline or where a person asks for it.
struct Timer<'a> {
    progress: &'a dyn Progress,
    deadline: Option<Instant>,
    over: AtomicBool,
}

impl Watch for Timer<'_> {
    fn step(&self, step: &StepReport) {
        self.progress.advance(step.rows);
        if self.progress.stopped() || self.deadline.is_some_and(|d| Instant::now() >= d) {
            self.over.store(true, Ordering::Relaxed);
        }
    }
}
