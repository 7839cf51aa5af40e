//! Trainings as other tools read them: one file per format, each a [`Watch`](crate::Watch).

mod mlflow;
mod tensorboard;

pub use mlflow::MlflowFolder;
pub use tensorboard::TensorBoard;

use std::sync::{Mutex, PoisonError};

use crate::record::EpochRecord;

/// The scalars of an epoch, under the names that TensorBoard and MLflow group by.
fn scalars(epoch: &EpochRecord) -> Vec<(&'static str, f64)> {
    let mut all = vec![("train/loss", epoch.train.loss), ("learning_rate", epoch.learning_rate)];
    all.extend(epoch.train.accuracy.map(|a| ("train/accuracy", a)));
    if let Some(v) = &epoch.validation {
        all.push(("validation/loss", v.loss));
        all.extend(v.accuracy.map(|a| ("validation/accuracy", a)));
    }
    if let Some(v) = &epoch.robust {
        all.push(("robust/loss", v.loss));
        all.extend(v.accuracy.map(|a| ("robust/accuracy", a)));
    }
    all.extend([("gradient_norm", epoch.gradient_norm), ("penalty", epoch.penalty), ("seconds", epoch.seconds)]);
    all
}

/// The first thing that went wrong. A log that cannot be written does not end a training.
#[derive(Debug, Default)]
struct Failure(Mutex<Option<String>>);

impl Failure {
    fn keep(&self, done: std::io::Result<()>) {
        if let Err(e) = done {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| e.to_string());
        }
    }

    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64())
}
