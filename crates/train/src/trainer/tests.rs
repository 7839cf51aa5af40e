//! The loop as a whole: against PyTorch, against naive versions, stopped and resumed, and when it goes wrong.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use netproof_data::{Labels, OpenOptions};
use netproof_graph::Model;
use netproof_graph::builders::{Activation, Shortcut, mlp, mobilenet_v2, resnet_cifar};
use netproof_tensor::Tensor;

use super::*;
use crate::layers::Layer;
use crate::method::Method;
use crate::penalty::Penalised;
use crate::recipe::DataSection;
use crate::test_support::{job, points, short};

/// Keeps the losses of all steps.
#[derive(Default)]
struct Losses(Mutex<Vec<f64>>);

impl Watch for Losses {
    fn step(&self, step: &StepReport) {
        self.0.lock().unwrap().push(step.loss);
    }
}

/// Asks to stop at some steps.
struct StopAt<'a> {
    steps: &'a [u64],
    flag: &'a AtomicBool,
}

impl Watch for StopAt<'_> {
    fn step(&self, step: &StepReport) {
        self.flag.store(self.steps.contains(&step.step), Ordering::Relaxed);
    }
}

fn run(recipe: &Recipe, job: Job) -> Trained {
    train(recipe, job, &Registry::default(), &RunOptions::default()).unwrap()
}

fn bits(model: &Model) -> Vec<u32> {
    let names: Vec<String> = model.parameters().filter(|p| p.dtype.is_float()).map(|p| p.name).collect();
    names.iter().flat_map(|n| model.parameter(n).unwrap().as_f32().unwrap()).map(|v| v.to_bits()).collect()
}

fn values(model: &Model) -> Vec<f32> {
    bits(model).into_iter().map(f32::from_bits).collect()
}

fn without_clock(mut record: Record) -> Record {
    record.seconds = 0.0;
    record.epochs.iter_mut().for_each(|e| e.seconds = 0.0);
    record
}

/// Recorded with PyTorch 2.15: MLP 2–8–3 with tanh, 64 rows in order, batches of 16, label smoothing 0.1, clipped at 0.3.
#[test]
fn losses_of_twenty_steps_are_those_of_pytorch() {
    let x = (0..64).flat_map(|i| [(i * 7 % 23) as f32 / 11.0 - 1.0, (i * 5 % 17) as f32 / 8.0 - 1.0]).collect();
    let y = Labels::Classes((0..64).map(|i| i * i % 3).collect());
    let x = Tensor::f32(vec![64, 2], x).unwrap();
    let data = Dataset::from_memory(x, y, Vec::new(), &OpenOptions::default()).unwrap();
    let sgd = Method::new("sgd")
        .with("learning_rate", 0.5)
        .with("momentum", 0.9)
        .with("nesterov", true)
        .with("weight_decay", 1e-3);
    let adamw = Method::new("adamw").with("learning_rate", 0.02);
    let recorded = [
        (
            sgd,
            [
                1.0223857, 0.8985455, 0.7887396, 0.8749929, 0.7848793, 0.8209742, 0.7384586, 0.8509271, 0.7762597,
                0.8290395, 0.754279, 0.8429881, 0.7744223, 0.8089646, 0.7501373, 0.8222963, 0.7681633, 0.7923653,
                0.7509153, 0.8166406,
            ],
        ),
        (
            adamw,
            [
                1.0223857, 0.977368, 0.9144056, 0.9227241, 0.8677546, 0.8455183, 0.793435, 0.8458858, 0.8042122,
                0.7908251, 0.7489823, 0.8258131, 0.7856745, 0.7814507, 0.7371955, 0.8154686, 0.7703032, 0.7861841,
                0.7394389, 0.8130842,
            ],
        ),
    ];
    for (optimiser, want) in recorded {
        let mut model = mlp(&[2], &[8], 3, Activation::Tanh, 0).unwrap();
        let parameters: Vec<_> = model.parameters().collect();
        for (k, p) in parameters.iter().enumerate() {
            let n: usize = p.shape.iter().product();
            let values = (0..n).map(|j| (((j * 13 + (k + 1) * 7) % 29) as f32 / 14.0 - 1.0) * 0.5).collect();
            model.set_parameter(&p.name, Tensor::f32(p.shape.clone(), values).unwrap()).unwrap();
        }
        let recipe = Recipe {
            epochs: 5,
            batch_size: 16,
            shuffle: false,
            validation_fraction: 0.0,
            optimiser,
            schedule: Method::new("constant"),
            objective: Method::new("cross-entropy").with("label_smoothing", 0.1),
            regularisation: crate::Regularisation { clip_norm_l2: Some(0.3), ..Default::default() },
            ..short()
        };
        let losses = Losses::default();
        let options = RunOptions { watch: &losses, ..RunOptions::default() };
        let job = Job::new(&recipe, model, data.clone(), None).unwrap();
        train(&recipe, job, &Registry::default(), &options).unwrap();
        let got = losses.0.into_inner().unwrap();
        assert_eq!(got.len(), 20);
        for (step, (got, want)) in got.iter().zip(want).enumerate() {
            assert!((got - want).abs() < 2e-6, "{} step {step}: {got}, not {want}", recipe.optimiser.kind);
        }
    }
}

#[test]
fn gradient_checkpointing_changes_no_bit() {
    let plain = short();
    let [a, b] = [false, true].map(|gradient_checkpointing| {
        let recipe = Recipe { gradient_checkpointing, ..plain.clone() };
        run(&recipe, job(&recipe))
    });
    assert_eq!(values(&a.model), values(&b.model));
}

#[test]
fn accumulated_batches_are_one_large_batch() {
    let large = Recipe { shuffle: false, batch_size: 24, ..short() };
    let small = Recipe { batch_size: 6, accumulate: 4, ..large.clone() };
    let [a, b] = [&large, &small].map(|r| run(r, job(r)));
    assert_eq!(a.record.epochs[2].steps, b.record.epochs[2].steps);
    for (a, b) in values(&a.model).iter().zip(values(&b.model)) {
        assert!((a - b).abs() < 2e-5, "{a} {b}");
    }
}

/// One step of everything at once on a linear network, against the same in double precision.
#[test]
fn penalties_clipping_decay_and_limits_act_in_one_step() {
    let x: Vec<f32> = vec![1.0, 2.0, -1.0, 0.5, 3.0, -2.0];
    let t = [1.0f32, -1.0, 2.0];
    let features = Tensor::f32(vec![3, 2], x.clone()).unwrap();
    let data =
        Dataset::from_memory(features, Labels::Targets(t.to_vec()), Vec::new(), &OpenOptions::default()).unwrap();
    let model = mlp(&[2], &[], 1, Activation::Relu, 5).unwrap();
    let start: Vec<f64> = values(&model).iter().map(|&v| f64::from(v)).collect();
    for (clip, limit, of) in
        [(None, None, Penalised::Weights), (Some(0.5), None, Penalised::All), (None, Some(0.2), Penalised::Weights)]
    {
        let recipe = Recipe {
            epochs: 1,
            batch_size: 3,
            validation_fraction: 0.0,
            objective: Method::new("mean-squared"),
            optimiser: Method::new("sgd").with("learning_rate", 0.1).with("momentum", 0.0),
            schedule: Method::new("constant"),
            regularisation: crate::Regularisation {
                l1: 0.3,
                l2: 0.2,
                decoupled_weight_decay: 0.5,
                max_norm_l2: limit,
                clip_norm_l2: clip,
                of,
            },
            ..short()
        };
        let job = Job::new(&recipe, mlp(&[2], &[], 1, Activation::Relu, 5).unwrap(), data.clone(), None).unwrap();
        let got = values(&run(&recipe, job).model);
        let mut g = [0.0; 3];
        for (x, t) in x.chunks(2).zip(t) {
            let e = start[0] * f64::from(x[0]) + start[1] * f64::from(x[1]) + start[2] - f64::from(t);
            g[0] += 2.0 / 3.0 * e * f64::from(x[0]);
            g[1] += 2.0 / 3.0 * e * f64::from(x[1]);
            g[2] += 2.0 / 3.0 * e;
        }
        let penalised = if of == Penalised::All { 3 } else { 2 };
        for i in 0..penalised {
            g[i] += 0.3 * start[i].signum() + 0.2 * start[i];
        }
        let norm = g.iter().map(|g| g * g).sum::<f64>().sqrt();
        let factor = clip.map_or(1.0, |c: f64| (c / norm).min(1.0));
        let mut want: Vec<f64> = (0..3)
            .map(|i| start[i] * if i < penalised { 1.0 - 0.1 * 0.5 } else { 1.0 } - 0.1 * factor * g[i])
            .collect();
        if let Some(limit) = limit {
            let norm = (want[0] * want[0] + want[1] * want[1]).sqrt();
            assert!(norm > limit);
            want[..2].iter_mut().for_each(|w| *w *= limit / norm);
        }
        for (got, want) in got.iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 1e-5, "{got} {want}");
        }
    }
}

fn images(n: usize) -> Dataset {
    let mut rng = Rng::new(4);
    let x = (0..n * 3 * 64).map(|i| (rng.normal() as f32) * 0.3 + ((i / 192 % 2) as f32)).collect();
    let x = Tensor::f32(vec![n, 3, 8, 8], x).unwrap();
    let y = Labels::Classes((0..n).map(|i| i % 2).collect());
    Dataset::from_memory(x, y, Vec::new(), &OpenOptions::default()).unwrap()
}

type Start = fn(&Recipe) -> Job;

/// Recipes that between them have state of every kind: moments, averages, running statistics, dropout, augmentation,
/// plateaus and patience, frozen layers, accumulation.
fn stateful() -> Vec<(Recipe, Start)> {
    let residual: Start = |r| {
        let model = resnet_cifar(8, Shortcut::ZeroPadding, [3, 8, 8], 2, r.seed).unwrap();
        Job::new(r, model, images(40), None).unwrap()
    };
    let mobile: Start = |r| Job::new(r, mobilenet_v2([3, 8, 8], 2, 0.05, r.seed).unwrap(), images(30), None).unwrap();
    let layer = Layer {
        pattern: "layers.0.*".into(),
        learning_rate_scale: Some(0.5),
        weight_decay_scale: None,
        frozen: None,
        unfreeze_epoch: Some(2),
    };
    let base = short();
    vec![
        (
            Recipe {
                optimiser: Method::new("sgd").with("nesterov", true),
                schedule: Method::new("plateau").with("patience", 0),
                layers: vec![layer],
                accumulate: 2,
                averaging: Method::new("ema").with("decay", 0.9),
                ..base.clone()
            },
            job,
        ),
        (
            Recipe {
                optimiser: Method::new("lamb"),
                schedule: Method::new("one-cycle"),
                gradient: Method::new("sam"),
                stopping: Method::new("patience").with("patience", 1).with("min_change", 0.5),
                ..base.clone()
            },
            job,
        ),
        (
            Recipe {
                batch_size: 8,
                averaging: Method::new("swa").with("start_epoch", 2),
                augmentation: vec![Method::new("horizontal-flip"), Method::new("crop").with("padding", 1)],
                monitor: Monitor::Accuracy,
                ..base.clone()
            },
            residual,
        ),
        (Recipe { batch_size: 8, epochs: 2, optimiser: Method::new("rmsprop").with("momentum", 0.5), ..base }, mobile),
    ]
}

#[test]
fn stopping_and_resuming_changes_no_bit_at_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::default();
    for (number, (recipe, start)) in stateful().into_iter().enumerate() {
        let pool = |threads| rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let whole = pool(1).install(|| run(&recipe, start(&recipe)));
        let three = pool(3).install(|| run(&recipe, start(&recipe)));
        assert_eq!(bits(&whole.model), bits(&three.model), "recipe {number}: threads");
        let mut rng = Rng::new(number as u64);
        for _ in 0..3 {
            let path = folder.path().join(format!("{number}"));
            let last = whole.record.epochs.last().unwrap().steps;
            let steps: Vec<u64> = (0..4).map(|_| 1 + rng.below(last as usize) as u64).collect();
            let flag = AtomicBool::new(false);
            let watch = StopAt { steps: &steps, flag: &flag };
            let options = RunOptions {
                checkpoint: Some(&path),
                resume: true,
                interrupt: Some(&flag),
                watch: &watch,
                ..RunOptions::default()
            };
            let mut runs = 0;
            let result = loop {
                flag.store(false, Ordering::Relaxed);
                let got = pool(1 + runs % 2).install(|| train(&recipe, start(&recipe), &registry, &options)).unwrap();
                runs += 1;
                if got.record.ended != Ended::Interrupted {
                    break got;
                }
            };
            assert!(runs > 1, "recipe {number} was not stopped at {steps:?}");
            assert_eq!(bits(&whole.model), bits(&result.model), "recipe {number} stopped at {steps:?}");
            assert_eq!(without_clock(whole.record.clone()), without_clock(result.record), "recipe {number}");
            std::fs::remove_file(&path).unwrap();
        }
    }
}

#[test]
fn a_training_that_was_killed_goes_on_from_its_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let recipe = short();
    let whole = run(&recipe, job(&recipe));
    /// Dies, as a killed process does, without a word to the trainer.
    struct Dies(AtomicU64);
    impl Watch for Dies {
        fn step(&self, _: &StepReport) {
            assert!(self.0.fetch_sub(1, Ordering::Relaxed) > 0, "killed");
        }
    }
    for life in [1, 4, 9, 11, 100] {
        let dies = Dies(AtomicU64::new(life));
        let options = RunOptions {
            checkpoint: Some(&path),
            checkpoint_every_steps: Some(3),
            resume: true,
            watch: &dies,
            ..RunOptions::default()
        };
        let attempt = || train(&recipe, job(&recipe), &Registry::default(), &options);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(attempt));
        // Nine steps are an epoch; before its end there is a checkpoint every three.
        assert_eq!(path.exists(), life > 1, "{life}");
        if let Ok(result) = outcome {
            assert_eq!(bits(&whole.model), bits(&result.unwrap().model));
            assert_eq!(life, 100);
        }
    }
}

#[test]
fn a_checkpoint_of_another_training_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("c");
    let options = RunOptions { checkpoint: Some(&path), resume: true, ..RunOptions::default() };
    let recipe = short();
    let first = train(&recipe, job(&recipe), &Registry::default(), &options).unwrap();
    // A finished training that is resumed gives its result again.
    let again = train(&recipe, job(&recipe), &Registry::default(), &options).unwrap();
    assert_eq!(without_clock(first.record), without_clock(again.record));
    let other = Recipe { epochs: 4, ..short() };
    let error = train(&other, job(&other), &Registry::default(), &options).err().unwrap().to_string();
    assert!(error.contains("belongs to another training"), "{error}");
}

#[test]
fn seeds_decide() {
    let [a, b, c] = [0, 0, 1].map(|seed| {
        let recipe = Recipe { seed, ..short() };
        bits(&run(&recipe, job(&recipe)).model)
    });
    assert!(a == b && a != c);
}

#[test]
fn frozen_layers_stay_and_thaw_in_their_epoch() {
    let layer = |frozen, unfreeze_epoch| Layer {
        pattern: "layers.0.*".into(),
        learning_rate_scale: None,
        weight_decay_scale: None,
        frozen,
        unfreeze_epoch,
    };
    let after = |epochs, layer: Layer| {
        let recipe = Recipe {
            epochs,
            layers: vec![layer],
            schedule: Method::new("constant"),
            validation_fraction: 0.0,
            ..short()
        };
        let start = job(&recipe);
        let before = [0, 1].map(|l| start.model.parameter(&format!("layers.{l}.weight")).unwrap().clone());
        let model = run(&recipe, start).model;
        [0, 1].map(|l| *model.parameter(&format!("layers.{l}.weight")).unwrap() != before[l])
    };
    assert_eq!(after(2, layer(Some(true), None)), [false, true]);
    assert_eq!(after(2, layer(None, Some(3))), [false, true]);
    assert_eq!(after(3, layer(None, Some(3))), [true, true]);
}

#[test]
fn rates_of_layers_scale_their_steps() {
    let step = |rate: Option<f64>| {
        let layers = rate.map(|r| Layer {
            pattern: "layers.1.weight".into(),
            learning_rate_scale: Some(r),
            weight_decay_scale: None,
            frozen: None,
            unfreeze_epoch: None,
        });
        let recipe = Recipe {
            epochs: 1,
            batch_size: 1000,
            validation_fraction: 0.0,
            optimiser: Method::new("sgd").with("momentum", 0.0),
            layers: layers.into_iter().collect(),
            ..short()
        };
        let start = job(&recipe);
        let before = values(&start.model);
        let after = values(&run(&recipe, start).model);
        before.iter().zip(after).map(|(b, a)| a - b).collect::<Vec<f32>>()
    };
    let (plain, half) = (step(None), step(Some(0.5)));
    for (i, (p, h)) in plain.iter().zip(half).enumerate() {
        // 2·8 + 8 values of the first layer, then 8·3 of the second layer's matrix, then its biases.
        let want = if (24..48).contains(&i) { 0.5 * p } else { *p };
        assert!((h - want).abs() < 1e-6, "{i}: {h} {want}");
    }
}

#[test]
fn the_best_weights_are_given_back_however_it_ends() {
    // A rate that is too large for the points makes the loss jump about.
    let wild = Recipe {
        epochs: 11,
        optimiser: Method::new("sgd").with("learning_rate", 3.0),
        schedule: Method::new("constant"),
        ..short()
    };
    let check = |recipe: &Recipe| {
        let trained = run(recipe, job(recipe));
        let record = &trained.record;
        let of = |e: u64| if e == 0 { record.start } else { record.epochs[e as usize - 1].validation };
        let best = of(record.best_epoch).unwrap();
        assert!((0..=record.epochs.len() as u64).all(|e| of(e).unwrap().loss >= best.loss));
        let again = Job::new(recipe, trained.model, points(150, 1), None).unwrap();
        let silent = RunOptions::default();
        let mut trainer = Trainer::new(recipe, again, &Registry::default(), &silent).unwrap();
        trainer.begin().unwrap();
        assert_eq!(trainer.state.progress.start, Some(best));
        trained.record
    };
    let record = check(&wild);
    assert!(record.best_epoch > 0 && record.best_epoch < 11, "{record:?}");
    let stopped = check(&Recipe { stopping: Method::new("patience").with("patience", 1), ..wild.clone() });
    assert!(matches!(stopped.ended, Ended::Stopped { .. }) && stopped.epochs.len() < 11, "{stopped:?}");
}

#[test]
fn a_training_that_diverges_gives_back_the_last_good_weights() {
    for (rate, objective) in [(1e30, "cross-entropy"), (1e5, "mean-squared"), (1e20, "mean-squared")] {
        let recipe = Recipe {
            optimiser: Method::new("sgd").with("learning_rate", rate),
            objective: Method::new(objective),
            schedule: Method::new("constant"),
            ..short()
        };
        let start = job(&recipe);
        let before = bits(&start.model);
        let trained = run(&recipe, start);
        let Ended::Diverged { reason, .. } = &trained.record.ended else { panic!("{:?}", trained.record) };
        assert!(reason.contains("smaller learning rate"), "{reason}");
        assert!(values(&trained.model).iter().all(|v| v.is_finite()));
        if trained.record.best_epoch == 0 {
            assert_eq!(bits(&trained.model), before);
        }
        serde_json::from_str::<Record>(&serde_json::to_string(&trained.record).unwrap()).unwrap();
    }
}

#[test]
fn the_result_is_a_file_that_opens_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let recipe = Recipe { optimiser: Method::new("adamw").with("learning_rate", 0.05), ..short() };
    let trained = run(&recipe, job(&recipe));
    trained.model.save(&path).unwrap();
    let again = Model::load(&path).unwrap();
    assert_eq!(bits(&again), bits(&trained.model));
    assert_eq!(again.sha256().unwrap(), trained.record.result_sha256);
    let last = trained.record.epochs.last().unwrap();
    assert!(last.validation.unwrap().accuracy.unwrap() > 0.7, "{last:?}");
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let refuse = |recipe: &Recipe, model: Model, data: Dataset| {
        let job = Job::new(recipe, model, data, None);
        job.and_then(|j| train(recipe, j, &Registry::default(), &RunOptions::default())).err().unwrap().to_string()
    };
    let recipe = short();
    let network = |inputs, classes| mlp(&[inputs], &[4], classes, Activation::Relu, 0).unwrap();
    let error = refuse(&recipe, network(2, 2), points(30, 1));
    assert_eq!(error, "the network has 2 outputs, the labels have 3 classes; replace its last layer");
    let error = refuse(&recipe, network(5, 3), points(30, 1));
    assert!(error.starts_with("rows of the data have shape [2], the input of the network is [5]"), "{error}");
    let error = refuse(&recipe, network(2, 3), points(30, 1).take(0));
    assert_eq!(error, "the data has no rows to train on");
    let x = Tensor::zeros(vec![4, 2]).unwrap();
    let bare = Dataset::from_memory(x, Labels::None, Vec::new(), &OpenOptions::default()).unwrap();
    assert!(refuse(&recipe, network(2, 3), bare).contains("labels"));
    let error = refuse(&Recipe { epochs: 0, ..short() }, network(2, 3), points(30, 1));
    assert_eq!(error, "`epochs` is 0; allowed: 1 or more");
}

#[test]
fn a_class_with_one_row_is_noted_and_learnt() {
    let x = Tensor::f32(vec![11, 2], (0..22).map(|i| (i as f32 * 0.7).sin()).collect()).unwrap();
    let y = Labels::Classes((0..11).map(|i| if i == 10 { 2 } else { i % 2 }).collect());
    let data = Dataset::from_memory(x, y, Vec::new(), &OpenOptions::default()).unwrap();
    let recipe = short();
    let job = Job::new(&recipe, mlp(&[2], &[4], 3, Activation::Relu, 0).unwrap(), data, None).unwrap();
    let record = run(&recipe, job).record;
    assert!(record.notes.iter().any(|n| n.starts_with("class 2 has one training row")), "{:?}", record.notes);
}

/// The constant schedule, no validation, rows in order: what a prefix of the training gives is what a shorter one gives.
fn plain() -> Recipe {
    Recipe {
        shuffle: false,
        validation_fraction: 0.0,
        schedule: Method::new("constant"),
        optimiser: Method::new("sgd").with("learning_rate", 0.05),
        ..short()
    }
}

/// The weights after the last epoch, whichever are the best, and the rates of all epochs.
fn last(recipe: &Recipe, job: Job) -> (Vec<f32>, Vec<f64>) {
    let silent = RunOptions::default();
    let mut trainer = Trainer::new(recipe, job, &Registry::default(), &silent).unwrap();
    trainer.begin().unwrap();
    trainer.run().unwrap();
    let rates = trainer.state.progress.epochs.iter().map(|e| e.learning_rate).collect();
    let candidate = trainer.candidate().unwrap();
    (candidate.tensors().iter().flat_map(|t| t.as_f32().unwrap().to_vec()).collect(), rates)
}

#[test]
fn averages_are_those_of_the_weights_after_each_step_or_epoch() {
    let model = || mlp(&[2], &[4], 3, Activation::Tanh, 0).unwrap();
    let one = |recipe: &Recipe, rows| last(recipe, Job::new(recipe, model(), points(rows, 1), None).unwrap()).0;
    // Rows in order: n batches of 16 rows are the first n steps.
    let steps: Vec<Vec<f32>> = (1..=4).map(|n| one(&Recipe { epochs: 1, ..plain() }, 16 * n)).collect();
    let ema = Method::new("ema").with("decay", 0.5).with("warm_up", false);
    let got = one(&Recipe { epochs: 1, averaging: ema, ..plain() }, 64);
    for (i, got) in got.iter().enumerate() {
        let want = steps[1..].iter().fold(steps[0][i], |a, w| 0.5 * a + 0.5 * w[i]);
        assert!((got - want).abs() < 1e-6, "{i}: {got} {want}");
    }
    let epochs: Vec<Vec<f32>> = (1..=4).map(|epochs| one(&Recipe { epochs, ..plain() }, 64)).collect();
    let swa = Method::new("swa").with("start_epoch", 2);
    let got = one(&Recipe { epochs: 4, averaging: swa, ..plain() }, 64);
    for (i, got) in got.iter().enumerate() {
        let want = (epochs[1][i] + epochs[2][i] + epochs[3][i]) / 3.0;
        assert!((got - want).abs() < 1e-6, "{i}: {got} {want}");
    }
}

#[test]
fn running_statistics_follow_the_rows_and_are_measured_again_for_averages() {
    let recipe = |epochs, averaging| Recipe { epochs, batch_size: 8, averaging: Method::new(averaging), ..plain() };
    let start = || {
        let model = resnet_cifar(8, Shortcut::ZeroPadding, [3, 8, 8], 2, 1).unwrap();
        Job::new(&recipe(1, "off"), model, images(16), None).unwrap()
    };
    let Job { model, .. } = start();
    let trainable: usize = model.parameters().filter(|p| p.trainable).map(|p| p.shape.iter().product::<usize>()).sum();
    let [one, two] = [1, 2].map(|e| last(&recipe(e, "off"), start()).0);
    let fresh = Net::new(start().model, true).unwrap().weights;
    let fresh: Vec<f32> = fresh.tensors().iter().flat_map(|t| t.as_f32().unwrap().to_vec()).collect();
    assert!(fresh[trainable..].iter().zip(&one[trainable..]).all(|(a, b)| a != b));
    let swa = last(&recipe(2, "swa"), start()).0;
    let mean: Vec<f32> = one.iter().zip(&two).map(|(a, b)| a + 0.5 * (b - a)).collect();
    assert!(mean[..trainable].iter().zip(&swa).all(|(a, b)| (a - b).abs() < 1e-6));
    assert!(mean[trainable..].iter().zip(&swa[trainable..]).filter(|(a, b)| (*a - *b).abs() > 1e-6).count() > 20);
}

#[test]
fn plateaus_lower_the_rate() {
    let schedule = Method::new("plateau").with("patience", 0).with("min_change", 10.0).with("relative", false);
    let recipe = Recipe { epochs: 4, schedule, ..plain() };
    let rates = last(&recipe, job(&recipe)).1;
    for (rate, want) in rates.iter().zip([0.05, 0.05, 0.005, 0.0005]) {
        assert!((rate - want).abs() < 1e-9, "{rates:?}");
    }
}

#[test]
fn augmented_rows_are_what_is_learnt() {
    let turned = |data: &Dataset| {
        let batch = data.load().unwrap();
        let (shape, mut x) = (batch.features.shape().to_vec(), batch.features.as_f32().unwrap().to_vec());
        x.chunks_mut(8).for_each(<[f32]>::reverse);
        let x = Tensor::f32(shape, x).unwrap();
        Dataset::from_memory(x, batch.labels, Vec::new(), &OpenOptions::default()).unwrap()
    };
    let flip = vec![Method::new("horizontal-flip").with("probability", 1.0)];
    let network = || mlp(&[3, 8, 8], &[4], 2, Activation::Relu, 0).unwrap();
    let one = |augmentation, data| {
        let recipe = Recipe { augmentation, ..plain() };
        last(&recipe, Job::new(&recipe, network(), data, None).unwrap()).0
    };
    let data = images(32);
    assert_eq!(one(flip, data.clone()), one(Vec::new(), turned(&data)));
    assert_ne!(one(Vec::new(), data.clone()), one(Vec::new(), turned(&data)));
}

#[test]
fn decay_of_layers_and_momentum_of_schedules_reach_the_optimiser() {
    let layer = |scale| Layer {
        pattern: "*".into(),
        learning_rate_scale: None,
        weight_decay_scale: Some(scale),
        frozen: None,
        unfreeze_epoch: None,
    };
    let one = |decay: f64, scale, momentum: f64, cycle: Option<f64>| {
        let mut schedule = Method::new("one-cycle").with("cycle_momentum", cycle.is_some());
        if let Some(m) = cycle {
            schedule = schedule.with("momentum", vec![m, m]);
        }
        let optimiser = Method::new("sgd").with("weight_decay", decay).with("momentum", momentum);
        let recipe = Recipe { layers: vec![layer(scale)], optimiser, schedule, ..plain() };
        last(&recipe, job(&recipe)).0
    };
    assert_eq!(one(0.1, 0.0, 0.5, None), one(0.0, 1.0, 0.5, None));
    assert_ne!(one(0.1, 0.0, 0.5, None), one(0.1, 1.0, 0.5, None));
    assert_eq!(one(0.0, 1.0, 0.9, Some(0.5)), one(0.0, 1.0, 0.5, None));
}

static SEEN: Mutex<Vec<Vec<u64>>> = Mutex::new(Vec::new());

/// A rule of another crate: notes the rows, and leaves some out by their weights.
struct Spy {
    noting: bool,
}

impl GradientRule for Spy {
    fn gradient(&mut self, step: &mut Step<'_>, batch: &Batch) -> Result<Gradient, TrainError> {
        if self.noting {
            SEEN.lock().unwrap().push(batch.row_ids.clone());
            return step.gradient(batch);
        }
        let weights = batch.row_ids.iter().map(|id| f32::from(u8::from(id % 2 == 0))).collect();
        step.gradient(&Batch { weights: Some(weights), ..batch.clone() })
    }
}

/// A rule that changes the gradient of the step, as noise does.
struct Halves;

impl GradientRule for Halves {
    fn gradient(&mut self, step: &mut Step<'_>, batch: &Batch) -> Result<Gradient, TrainError> {
        step.gradient(batch)
    }

    fn finish(&mut self, _: &mut Step<'_>, total: &mut Gradient) -> Result<(), TrainError> {
        total.divide();
        for tensor in total.tensors.iter_mut().flatten() {
            scale(tensor.as_f32_mut().unwrap_or_default(), 0.5);
        }
        Ok(())
    }
}

static SPIES: &[crate::Entry<dyn GradientRule>] = &[
    crate::Entry { id: "spy", summary: "", build: |_, _| Ok(Box::new(Spy { noting: true })) },
    crate::Entry { id: "even", summary: "", build: |_, _| Ok(Box::new(Spy { noting: false })) },
    crate::Entry { id: "halves", summary: "", build: |_, _| Ok(Box::new(Halves)) },
];

#[test]
fn rules_of_other_crates_need_no_change_of_the_loop() {
    let mut registry = Registry::default();
    registry.rules.add(SPIES);
    let with = |rule: &str, batch_size, data| {
        let recipe = Recipe { gradient: Method::new(rule), batch_size, ..plain() };
        let job = Job::new(&recipe, mlp(&[2], &[4], 3, Activation::Tanh, 0).unwrap(), data, None).unwrap();
        train(&recipe, job, &registry, &RunOptions::default()).unwrap().model
    };
    // Rows without weight leave no trace: half the rows in half the batch are the same training.
    let data = points(96, 1);
    let even = data.select(&(0..96).step_by(2).collect::<Vec<_>>()).unwrap();
    for (a, b) in values(&with("even", 16, data.clone())).iter().zip(values(&with("mean", 8, even))) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    let halved = |rule: &str, rate: f64, accumulate| {
        let optimiser = Method::new("sgd").with("learning_rate", rate);
        let recipe = Recipe { gradient: Method::new(rule), optimiser, accumulate, ..plain() };
        values(&train(&recipe, job(&recipe), &registry, &RunOptions::default()).unwrap().model)
    };
    for (a, b) in halved("halves", 0.1, 2).iter().zip(halved("mean", 0.05, 2)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
    let recipe = Recipe { gradient: Method::new("spy"), shuffle: true, batch_size: 32, ..plain() };
    let job = Job::new(&recipe, mlp(&[2], &[4], 3, Activation::Tanh, 0).unwrap(), data, None).unwrap();
    train(&recipe, job, &registry, &RunOptions::default()).unwrap();
    let seen = SEEN.lock().unwrap();
    let epochs: Vec<Vec<u64>> = seen.chunks(3).map(<[_]>::concat).collect();
    assert!(epochs.len() == 3 && epochs[0] != epochs[1] && epochs[1] != epochs[2]);
    for mut epoch in epochs {
        epoch.sort_unstable();
        assert_eq!(epoch, (0..96).collect::<Vec<_>>());
    }
}

#[test]
fn rows_read_in_every_epoch_train_the_same() {
    let streamed = DataSection { memory_mib: 0, ..DataSection::new("-") };
    let recipe = Recipe { data: streamed, ..short() };
    assert_eq!(bits(&run(&recipe, job(&recipe)).model), bits(&run(&short(), job(&short())).model));
}
