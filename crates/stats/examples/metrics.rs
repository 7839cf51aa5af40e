//! Accuracy with its interval, and what is confused with what.
//! `cargo run -p netproof-stats --example metrics`
#![allow(clippy::print_stdout)]

use netproof_stats::classification::{ConfusionMatrix, argmax};
use netproof_stats::{Level, StatsError};

fn main() -> Result<(), StatsError> {
    let probabilities = [0.7, 0.2, 0.1, 0.3, 0.4, 0.3, 0.1, 0.8, 0.1, 0.2, 0.3, 0.5];
    let labels = [0, 1, 0, 2];
    let confusion = ConfusionMatrix::new(3, &labels, &argmax(&probabilities, 3)?)?;
    if let Some(accuracy) = confusion.accuracy(Level::P95) {
        println!("accuracy {:.2} on {} rows, 95 % interval {:?}", accuracy.value, accuracy.n, accuracy.interval);
    }
    for (truth, predicted, count) in confusion.most_confused(3) {
        println!("class {truth} taken for class {predicted}: {count}");
    }
    Ok(())
}
