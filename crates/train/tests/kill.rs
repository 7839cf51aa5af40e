//! A training in a process of its own, killed at random moments and resumed, ends with the bits of one that was left alone.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use netproof_data::{Dataset, Labels, OpenOptions};
use netproof_graph::builders::{CnnOptions, cnn};
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;
use netproof_train::{DataSection, Job, Method, Recipe, Registry, RunOptions, train};

const FOLDER: &str = "NETPROOF_TRAIN_KILL";

fn images() -> Dataset {
    let mut rng = Rng::new(1);
    let x = (0..400 * 64).map(|i| rng.unit() as f32 + (i / 64 % 2) as f32 * 0.2).collect();
    let x = Tensor::f32(vec![400, 1, 8, 8], x).unwrap();
    let y = Labels::Classes((0..400).map(|i| i % 2).collect());
    Dataset::from_memory(x, y, Vec::new(), &OpenOptions::default()).unwrap()
}

fn go(checkpoint: Option<&Path>) -> netproof_train::Trained {
    let recipe = Recipe {
        epochs: 6,
        batch_size: 8,
        averaging: Method::new("ema"),
        augmentation: vec![Method::new("crop").with("padding", 1)],
        ..Recipe::new(DataSection::new("-"), Method::new("cnn"))
    };
    let model = cnn(&CnnOptions { channels: vec![4, 8], hidden: 16, ..CnnOptions::new([1, 8, 8], 2) }).unwrap();
    let options = RunOptions { checkpoint, checkpoint_every_steps: Some(2), resume: true, ..RunOptions::default() };
    train(&recipe, Job::new(&recipe, model, images(), None).unwrap(), &Registry::default(), &options).unwrap()
}

/// What the process that is killed does; nothing where nobody asks for it.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    go(Some(&folder.join("checkpoint"))).model.save(&folder.join("done.onnx")).unwrap();
}

/// `NETPROOF_KILLS` says how many kills; the bar is 100, which takes a minute or two.
#[test]
fn killed_trainings_end_with_the_same_bits() {
    let wanted: u32 = std::env::var("NETPROOF_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    let whole = go(None).model.sha256().unwrap();
    let mut rng = Rng::new(7);
    let mut kills = 0;
    while kills < wanted {
        let folder = tempfile::tempdir().unwrap();
        loop {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "child", "--test-threads=1"])
                .env(FOLDER, folder.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_millis(20 + rng.below(400) as u64));
            if child.try_wait().unwrap().is_some() {
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        }
        let model = netproof_graph::Model::load(&folder.path().join("done.onnx")).unwrap();
        assert_eq!(model.sha256().unwrap(), whole, "after {kills} kills");
    }
}
