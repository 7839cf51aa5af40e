//! Trains the default network on MNIST: `cargo run --release -p netproof-train --example mnist -- FOLDER [ROWS] [EPOCHS]`.

#![allow(clippy::print_stderr, reason = "an example talks to its reader")]

use netproof_data::Dataset;
use netproof_train::{DataSection, EpochRecord, Job, Method, Recipe, Registry, RunOptions, Watch, train};

struct Lines;

impl Watch for Lines {
    fn epoch(&self, e: &EpochRecord) {
        eprintln!("{} {:.4} {:?} {:.1} s", e.epoch, e.train.loss, e.validation, e.seconds);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("give the folder with the MNIST files")?;
    let rows = arguments.next().map(|n| n.parse()).transpose()?;
    let epochs = arguments.next().map_or(Ok(5), |n| n.parse())?;
    let pair =
        |name: &str| format!("{folder}/mnist-{name}-images-idx3-ubyte.gz:{folder}/mnist-{name}-labels-idx1-ubyte.gz");
    let data = DataSection { limit: rows, ..DataSection::new(pair("train")) };
    let recipe = Recipe { epochs, ..Recipe::new(data, Method::new("cnn")) };
    let registry = Registry::default();
    let job = Job::open(&recipe, &registry)?;
    let trained = train(&recipe, job, &registry, &RunOptions { watch: &Lines, ..RunOptions::default() })?;
    let (mut right, mut all) = (0, 0);
    for batch in Dataset::open(&pair("t10k"), &Default::default())?.batches(500) {
        let batch = batch?;
        let logits = trained.model.predict(&batch.features)?;
        for (row, &label) in
            logits.as_f32().unwrap_or_default().chunks(10).zip(batch.labels.classes().unwrap_or_default())
        {
            let best = (0..10).max_by(|&a, &b| row[a].total_cmp(&row[b]));
            right += usize::from(best == Some(label));
            all += 1;
        }
    }
    eprintln!("best epoch {}, {right} of {all} test images right", trained.record.best_epoch);
    Ok(())
}
