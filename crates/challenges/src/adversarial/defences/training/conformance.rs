//! What every rule owes: a training that can be stopped anywhere, the same bits again, validation under attack.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use netproof_core::{Norm, Threat};
use netproof_data::{Dataset, Labels, OpenOptions};
use netproof_graph::Model;
use netproof_graph::builders::{Activation, mlp};
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;
use netproof_train::{
    DataSection, Ended, Job, Method, Monitor, Recipe, RunOptions, StepReport, TrainError, Trained, Watch, train,
};

use crate::adversarial::certificates::{Ladder, proved};

/// Every rule with options for small rows between −3 and 3.
fn methods() -> Vec<Method> {
    let with = |kind: &str| Method::new(kind).with("epsilon", 0.3).with("bounds", vec![-9.0, 9.0]);
    let few = |kind: &str| with(kind).with("steps", 2).with("step_size", 0.2);
    let mut of = few("trades").options;
    of.insert("kind".to_owned(), "trades".into());
    vec![
        with("fast"),
        few("pgd-at"),
        few("trades"),
        few("mart"),
        Method::new("awp").with("of", of.clone()).with("warm_up_epochs", 1),
        with("free").with("replays", 3),
        with("ibp").with("warm_up_steps", 5).with("ramp_steps", 10),
        with("crown-ibp").with("warm_up_steps", 5).with("ramp_steps", 10),
        Method::new("weight-noise").with("of", of),
        Method::new("distillation").with("temperature", 3.0).with("teacher_epochs", 1),
    ]
}

/// Whether validation under attack makes sense of a rule.
fn attacks(rule: &Method) -> bool {
    rule.kind != "distillation"
}

fn points(n: usize) -> Dataset {
    let mut rng = Rng::new(5);
    let classes: Vec<usize> = (0..n).map(|i| i % 3).collect();
    let place = |c: usize| [(0.0, 1.0), (1.0, -0.5), (-1.0, -0.5)][c];
    let x = classes.iter().flat_map(|&c| {
        let (a, b) = place(c);
        [(a + 0.3 * rng.normal()) as f32, (b + 0.3 * rng.normal()) as f32]
    });
    let x = Tensor::f32(vec![n, 2], x.collect()).unwrap();
    Dataset::from_memory(x, Labels::Classes(classes), Vec::new(), &OpenOptions::default()).unwrap()
}

fn recipe(rule: Method) -> Recipe {
    let monitor = if attacks(&rule) { Monitor::RobustAccuracy } else { Monitor::Accuracy };
    Recipe {
        epochs: 3,
        batch_size: 16,
        gradient: rule,
        monitor,
        ..Recipe::new(DataSection::new("-"), Method::new("mlp"))
    }
}

fn run(recipe: &Recipe, options: &RunOptions<'_>) -> Result<Trained, TrainError> {
    let model = mlp(&[2], &[8], 3, Activation::Relu, 2).unwrap();
    let job = Job::new(recipe, model, points(110), None).unwrap();
    train(recipe, job, &crate::training_registry(), options)
}

fn bits(model: &Model) -> Vec<u32> {
    let names: Vec<String> = model.parameters().map(|p| p.name).collect();
    names.iter().flat_map(|n| model.parameter(n).unwrap().as_f32().unwrap()).map(|v| v.to_bits()).collect()
}

struct StopAt<'a>(u64, &'a AtomicBool);

impl Watch for StopAt<'_> {
    fn step(&self, step: &StepReport) {
        if step.step == self.0 {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn the_registry_lists_what_is_tested_here() {
    let tested: Vec<String> = methods().into_iter().map(|m| m.kind).collect();
    let listed: Vec<String> = super::RULES.iter().map(|r| r.id.to_owned()).collect();
    // Diversity works on ensembles only; its tests are beside it.
    for id in listed.iter().filter(|id| *id != "diversity") {
        assert!(tested.contains(id), "{id} has no conformance test");
    }
    assert_eq!(tested.len() + 1, listed.len());
}

#[test]
fn a_training_that_was_stopped_goes_on_with_the_same_bits() {
    for method in methods() {
        let recipe = recipe(method);
        let whole = run(&recipe, &RunOptions::default()).unwrap();
        let id = format!("netproof-{}-{}", recipe.gradient.kind, std::process::id());
        let path: PathBuf = std::env::temp_dir().join(id);
        // In the middle of an epoch, of the replays of a batch, and at the end of an epoch.
        let steps = whole.record.epochs[0].steps;
        for at in [4, steps, steps + 5] {
            let flag = AtomicBool::new(false);
            let watch = StopAt(at, &flag);
            let options = RunOptions {
                checkpoint: Some(&path),
                resume: true,
                interrupt: Some(&flag),
                watch: &watch,
                ..RunOptions::default()
            };
            assert_eq!(run(&recipe, &options).unwrap().record.ended, Ended::Interrupted, "{}", recipe.gradient.kind);
        }
        let options = RunOptions { checkpoint: Some(&path), resume: true, ..RunOptions::default() };
        let resumed = run(&recipe, &options).unwrap();
        files::remove(&path);
        assert_eq!(bits(&resumed.model), bits(&whole.model), "{}", recipe.gradient.kind);
        assert_eq!(resumed.record.epochs.len(), 3);
        for (a, b) in resumed.record.epochs.iter().zip(&whole.record.epochs) {
            assert_eq!((a.train, a.robust, a.is_best), (b.train, b.robust, b.is_best), "{}", recipe.gradient.kind);
        }
    }
}

#[test]
fn the_best_weights_are_best_under_attack() {
    for method in methods().into_iter().filter(attacks) {
        let recipe = recipe(method);
        let record = run(&recipe, &RunOptions::default()).unwrap().record;
        let robust = |e: &netproof_train::EpochRecord| e.robust.and_then(|r| r.accuracy).unwrap();
        let start = record.start_robust.and_then(|r| r.accuracy).unwrap();
        let best = record.epochs.iter().map(robust).fold(start, f64::max);
        let chosen = record.epochs.iter().find(|e| e.epoch == record.best_epoch).map_or(start, robust);
        assert_eq!(chosen, best, "{}", recipe.gradient.kind);
        for e in &record.epochs {
            let clean = e.validation.unwrap().accuracy.unwrap();
            assert!(robust(e) <= clean + 1e-9, "{}: {} under attack, {clean} without", recipe.gradient.kind, robust(e));
        }
    }
}

#[test]
fn certified_training_certifies_more_rows_than_plain_training() {
    let batch = points(110).load().unwrap();
    let threat = Threat::new(Norm::Linf, 0.3, [-9.0, 9.0]).unwrap();
    let ladder = Ladder::of(&["ibp", "crown-ibp"]).unwrap();
    let certified = |rule: Method, monitor: Monitor| {
        let recipe = Recipe { epochs: 30, monitor, ..recipe(rule) };
        let model = run(&recipe, &RunOptions::default()).unwrap().model;
        proved(&model, &batch.features, batch.labels.classes().unwrap(), &threat, &ladder).unwrap().count()
    };
    let with = |kind: &str| {
        let rule = Method::new(kind).with("epsilon", 0.3).with("bounds", vec![-9.0, 9.0]);
        rule.with("warm_up_steps", 20).with("ramp_steps", 80)
    };
    let plain = certified(Method::new("mean"), Monitor::Accuracy);
    for kind in ["ibp", "crown-ibp"] {
        let own = certified(with(kind), Monitor::RobustAccuracy);
        assert!(own > plain && own > 50, "{kind}: {own} of 110 are certified, {plain} after plain training");
    }
}

#[test]
fn replays_are_steps() {
    let free = methods().into_iter().find(|m| m.kind == "free").unwrap();
    let record = run(&recipe(free), &RunOptions::default()).unwrap().record;
    // 99 training rows make 7 batches, each taken three times.
    assert_eq!(record.epochs[0].steps, 21);
}

#[test]
fn rules_without_an_attack_have_no_robust_accuracy() {
    let error =
        run(&Recipe { monitor: Monitor::RobustAccuracy, ..recipe(Method::new("mean")) }, &RunOptions::default())
            .err()
            .unwrap()
            .to_string();
    assert!(error.contains("needs a gradient rule that attacks, such as `pgd-at`; `mean` does not"), "{error}");
    let none = Recipe { validation_fraction: 0.0, ..recipe(methods().remove(0)) };
    let error = run(&none, &RunOptions::default()).err().unwrap().to_string();
    assert!(error.contains("needs validation rows"), "{error}");
}

#[test]
fn epsilon_or_a_preset_is_needed() {
    let registry = crate::training_registry();
    for rule in ["fast", "pgd-at", "trades", "mart", "free", "ibp", "crown-ibp"] {
        let error = registry.rules.build(&Method::new(rule), &registry).err().unwrap().to_string();
        assert!(error.contains("name a `preset`"), "{rule}: {error}");
        let bad = Method::new(rule).with("epsilon", -1.0);
        assert!(registry.rules.build(&bad, &registry).is_err(), "{rule}");
    }
    for (rule, preset) in [
        ("fast", "wong-mnist"),
        ("fast", "wong-cifar10"),
        ("pgd-at", "madry-mnist"),
        ("pgd-at", "madry-cifar10"),
        ("pgd-at", "rice-cifar10"),
        ("trades", "zhang-mnist"),
        ("trades", "zhang-cifar10"),
        ("mart", "wang-cifar10"),
        ("free", "shafahi-cifar10"),
        ("ibp", "gowal-mnist"),
        ("crown-ibp", "zhang-mnist"),
    ] {
        let method = Method::new(rule).with("preset", preset);
        assert!(registry.rules.build(&method, &registry).is_ok(), "{rule} {preset}");
        let entry = super::RULES.iter().find(|e| e.id == rule).unwrap();
        assert!(entry.summary.contains(preset), "{rule} {preset}");
    }
}

#[cfg(test)]
mod files {
    pub(super) fn remove(path: &std::path::Path) {
        std::fs::remove_file(path).unwrap();
    }
}
