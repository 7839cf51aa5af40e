//! `netproof train` as a user runs it.

use std::path::Path;
use std::process::{Command, Output};

use netproof_data::write_npz;
use netproof_tensor::Tensor;
use serde_json::Value;

fn netproof(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_netproof"))
        .current_dir(folder)
        .args(arguments)
        .output()
        .expect("the binary starts")
}

fn stderr(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

/// Images of 8×8 whose class is the brighter half, and a recipe beside them.
fn task(folder: &Path) {
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for row in 0..200usize {
        let class = row % 2;
        y.push(class as i64);
        x.extend((0..64).map(|i| {
            let noise = ((row * 64 + i) * 2_654_435_761 % 1000) as f32 / 2500.0;
            noise + if (i % 8 < 4) == (class == 0) { 0.6 } else { 0.0 }
        }));
    }
    let (x, y) = (Tensor::f32(vec![200, 1, 8, 8], x).unwrap(), Tensor::i64(vec![200], y).unwrap());
    std::fs::create_dir_all(folder.join("data")).unwrap();
    write_npz(&folder.join("data/halves.npz"), &[("x", &x), ("y", &y)]).unwrap();
    let recipe = "epochs = 3\nbatch_size = 20\n[data]\ntrain = \"data/halves.npz\"\n[network]\nkind = \"cnn\"\n\
                  channels = [4]\nhidden = 8\n[optimiser]\nkind = \"adamw\"\nlearning_rate = 0.01\n";
    std::fs::write(folder.join("recipe.toml"), recipe).unwrap();
}

#[test]
fn a_recipe_gives_a_network_that_predicts() {
    let folder = tempfile::tempdir().unwrap();
    task(folder.path());
    let logs = ["--tensorboard", "events", "--mlflow", "runs"];
    let trained = netproof(folder.path(), &[&["train", "recipe.toml"][..], &logs].concat());
    assert_eq!(trained.status.code(), Some(0), "{}", stderr(&trained));
    assert!(stderr(&trained).contains("epoch 3: training loss"), "{}", stderr(&trained));
    let record: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("recipe.train.json")).unwrap()).unwrap();
    assert_eq!(record["epochs"].as_array().unwrap().len(), 3);
    assert!(record["epochs"][2]["validation"]["accuracy"].as_f64().unwrap() > 0.9, "{record}");
    assert!(!folder.path().join("recipe.checkpoint").exists());
    assert!(folder.path().join("runs/0/meta.yaml").is_file());
    assert_eq!(std::fs::read_dir(folder.path().join("events")).unwrap().count(), 1);
    let audit = ["audit", "recipe.onnx", "--data", "data/halves.npz", "--only", "performance", "--out", "audit"];
    let audited = netproof(folder.path(), &audit);
    assert!(audited.status.code().is_some_and(|c| c < 2), "{}", stderr(&audited));
}

#[test]
fn paths_of_a_recipe_are_relative_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("inner");
    task(&inner);
    let trained = netproof(folder.path(), &["train", "inner/recipe.toml", "--epochs", "1", "--out", "m.onnx"]);
    assert_eq!(trained.status.code(), Some(0), "{}", stderr(&trained));
    assert!(folder.path().join("m.onnx").is_file() && folder.path().join("m.train.json").is_file());
}

#[test]
fn a_training_that_does_not_help_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    task(folder.path());
    std::fs::write(folder.path().join("recipe.onnx"), "someone's").unwrap();
    let recipe = std::fs::read_to_string(folder.path().join("recipe.toml")).unwrap();
    let recipe = recipe.replace("learning_rate = 0.01", "learning_rate = 1e30");
    std::fs::write(folder.path().join("recipe.toml"), recipe).unwrap();
    let trained = netproof(folder.path(), &["train", "recipe.toml"]);
    assert_eq!(trained.status.code(), Some(1), "{}", stderr(&trained));
    assert!(stderr(&trained).contains("diverged"), "{}", stderr(&trained));
    assert_eq!(std::fs::read_to_string(folder.path().join("recipe.onnx")).unwrap(), "someone's");
}

#[test]
fn a_preview_is_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    task(folder.path());
    let shown = netproof(folder.path(), &["train", "recipe.toml", "--preview", "sheet.png"]);
    assert_eq!(shown.status.code(), Some(0), "{}", stderr(&shown));
    assert!(std::fs::read(folder.path().join("sheet.png")).unwrap().starts_with(b"\x89PNG\r\n"));
    assert!(!folder.path().join("recipe.onnx").exists());
}

#[test]
fn the_example_is_a_recipe_and_mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let example = netproof(folder.path(), &["train", "--example"]);
    assert_eq!(example.status.code(), Some(0));
    std::fs::write(folder.path().join("example.toml"), &example.stdout).unwrap();
    // Its data are not there, which is all that is wrong with it.
    let run = netproof(folder.path(), &["train", "example.toml"]);
    assert!(run.status.code() == Some(2) && stderr(&run).contains("train.npz"), "{}", stderr(&run));
    for (text, part) in [
        ("", "is empty"),
        ("lr = 1\n[data]\ntrain = \"a.npz\"\n[network]\nkind = \"cnn\"\n", "line 1"),
        ("[data]\ntrain = \"a.npz\"\n[network]\nkind = \"cnm\"\n", "cnm"),
        ("epochs = \"many\"\n[data]\ntrain = \"a.npz\"\n[network]\nkind = \"cnn\"\n", "line 1"),
        ("[data]\ntrain = \"a.npz\"\n[network]\nkind = \"cnn\"\n[optimiser]\nkind = \"sgd\"\nspeed = 1\n", "line 7"),
    ] {
        std::fs::write(folder.path().join("bad.toml"), text).unwrap();
        let run = netproof(folder.path(), &["train", "bad.toml"]);
        assert!(run.status.code() == Some(2) && stderr(&run).contains(part), "{part}: {}", stderr(&run));
    }
}
