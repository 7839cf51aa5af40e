//! `netproof audit --retrain` and `netproof fix` as a user runs them.

use std::path::Path;
use std::process::{Command, Output};

use netproof_data::write_npz;
use netproof_stats::rng::Rng;
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

fn json(o: &Output) -> Value {
    serde_json::from_slice(&o.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(o)))
}

/// Two noisy classes of 12 features; every `wrong`-th label is wrong.
fn rows(path: &Path, n: usize, from: usize, wrong: Option<usize>) {
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let mut rng = Rng::new(from as u64 + 1);
    for row in from..from + n {
        let class = row % 2;
        x.extend((0..12).map(|i| rng.normal() as f32 + if (i % 2 == 0) == (class == 0) { 0.4 } else { -0.4 }));
        y.push(if wrong.is_some_and(|w| row % w == 0) { 1 - class as i64 } else { class as i64 });
    }
    let (x, y) = (Tensor::f32(vec![n, 12], x).unwrap(), Tensor::i64(vec![n], y).unwrap());
    write_npz(path, &[("x", &x), ("y", &y)]).unwrap();
}

/// A network that knows 120 rows by heart.
fn overfitted(folder: &Path) {
    rows(&folder.join("train.npz"), 120, 0, Some(5));
    rows(&folder.join("test.npz"), 500, 1000, None);
    let recipe = "epochs = 120\nbatch_size = 16\nvalidation_fraction = 0.0\n[data]\ntrain = \"train.npz\"\n[network]\n\
                  kind = \"mlp\"\nhidden = [64]\n[optimiser]\nkind = \"adamw\"\nlearning_rate = 0.01\n[schedule]\n\
                  kind = \"constant\"\n";
    std::fs::write(folder.join("plain.toml"), recipe).unwrap();
    let trained = netproof(folder, &["train", "plain.toml", "--out", "model.onnx"]);
    assert_eq!(trained.status.code(), Some(0), "{}", stderr(&trained));
}

#[test]
fn an_audit_finds_it_and_a_repair_from_its_folder_proves_it_and_can_be_repeated() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    overfitted(path);
    let only = "performance,generalisation-gap,memorisation,learning-curves";
    let arguments = ["audit", "model.onnx", "--data", "test.npz", "--train-data", "train.npz", "--only", only];
    let audited = netproof(path, &[&arguments[..], &["--out", "audit", "--json", "-"]].concat());
    assert_eq!(audited.status.code(), Some(1), "{}", stderr(&audited));
    let document = json(&audited);
    let found = |metric: &str| {
        let all = document["findings"].as_array().unwrap().iter();
        all.clone().find(|f| f["metric"] == metric).unwrap_or_else(|| panic!("no {metric}: {document}")).clone()
    };
    assert_eq!(found("accuracy_gap")["verdict"], "concern");
    assert_eq!(found("memorised_fraction")["verdict"], "concern");
    // The record beside the network is that of its training, which had no validation rows.
    let curves = document["findings"].as_array().unwrap().iter().find(|f| f["check"] == "learning-curves").unwrap();
    assert!(curves["explanation"].as_str().unwrap().contains("no validation rows"), "{curves}");

    let fix = ["fix", "audit", "--only", "early-stopping,weight-decay", "--out", "fixed", "--json", "-"];
    let dry = netproof(path, &[&fix[..], &["--dry-run"]].concat());
    assert_eq!(json(&dry)["outcome"], "dry-run", "{}", stderr(&dry));
    assert!(!path.join("fixed/trained").exists());
    let fixed = netproof(path, &fix);
    let result = json(&fixed);
    assert_eq!((fixed.status.code(), &result["outcome"]), (Some(0), &Value::from("repaired")), "{}", stderr(&fixed));
    let changes = result["changes"].as_array().unwrap();
    let accuracy = changes.iter().find(|c| c["metric"] == "accuracy").unwrap();
    assert!(accuracy["judgement"] == "better" && accuracy["n"] == 350, "{accuracy}");
    let report = std::fs::read_to_string(path.join("fixed/report.html")).unwrap();
    assert!(report.contains("Every metric of every check") && report.contains("Loss by epoch"));

    // The recipe that is left gives the repaired network again, bit for bit.
    let again = netproof(path, &["train", "fixed/model-repaired.recipe.toml", "--out", "again.onnx"]);
    assert_eq!(again.status.code(), Some(0), "{}", stderr(&again));
    let [a, b] = ["fixed/model-repaired.onnx", "again.onnx"].map(|f| std::fs::read(path.join(f)).unwrap());
    assert!(a == b, "the recipe gives another network");

    // A network that has changed since is not repaired by an old audit.
    std::fs::copy(path.join("again.onnx"), path.join("model.onnx")).unwrap();
    let stale = netproof(path, &fix);
    assert!(stale.status.code() == Some(2) && stderr(&stale).contains("has changed since"), "{}", stderr(&stale));
}

#[test]
fn members_are_trained_and_averaged_into_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    rows(&path.join("train.npz"), 120, 0, Some(5));
    let recipe = "members = 3\nepochs = 3\n[data]\ntrain = \"train.npz\"\n[network]\nkind = \"mlp\"\nhidden = [8]\n";
    std::fs::write(path.join("r.toml"), recipe).unwrap();
    let trained = netproof(path, &["train", "r.toml"]);
    assert!(trained.status.code().is_some_and(|c| c < 2), "{}", stderr(&trained));
    let inspected = json(&netproof(path, &["inspect", "r.onnx", "--json", "-"]));
    assert_eq!(inspected["cost"]["parameters"].as_u64().unwrap() / (12 * 8 + 8 + 8 * 2 + 2), 3, "{inspected}");
    assert!(path.join("r.member3.train.json").is_file() && !path.join("r.member1.checkpoint").exists());
    let audit = ["audit", "r.onnx", "--data", "train.npz", "--only", "performance", "--out", "a"];
    assert!(netproof(path, &audit).status.code().is_some_and(|c| c < 2));
}

#[test]
fn checks_that_train_wait_to_be_asked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    overfitted(path);
    let arguments =
        ["audit", "model.onnx", "--data", "test.npz", "--train-data", "train.npz", "--out", "a", "--json", "-"];
    let fast = ["--set", "compute-cost.seconds=0", "--set", "compute-cost.batches=[1]"];
    let plain = netproof(path, &[&arguments[..], &fast].concat());
    let text = json(&plain).to_string();
    assert!(text.contains("--retrain turns it on") && !path.join("a/trained").exists(), "{text}");
}

#[test]
fn trainings_that_cannot_be_are_refused_or_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    rows(&path.join("train.npz"), 40, 0, None);
    let x = Tensor::f32(vec![3, 2], vec![0.0, 1.0, f32::NAN, 2.0, 3.0, 4.0]).unwrap();
    write_npz(&path.join("nan.npz"), &[("x", &x), ("y", &Tensor::i64(vec![3], vec![0, 1, 0]).unwrap())]).unwrap();
    std::fs::write(path.join("table.csv"), "a,b,label\n1,2,0\n2,1,1\n3,3,0\n4,1,1\n1,1,0\n").unwrap();
    let network = "[network]\nkind = \"mlp\"\nhidden = [4]\n";
    for (text, part) in [
        (format!("[data]\ntrain = \"table.csv\"\nlabel = \"zzz\"\n{network}"), "zzz"),
        (format!("[data]\ntrain = \"table.csv\"\nfeatures = [\"zzz\"]\n{network}"), "zzz"),
        (format!("validation_fraction = 0.0\n[data]\ntrain = \"nan.npz\"\n{network}"), "feature 0 is NaN"),
        (format!("[data]\ntrain = \"train.npz\"\n{network}[stochastic_depth]\nrate = 0.5\n"), "no residual"),
        (format!("[data]\ntrain = \"train.npz\"\n{network}[stochastic_depth]\nrate = 2\n"), "line 7"),
    ] {
        std::fs::write(path.join("r.toml"), &text).unwrap();
        let done = netproof(path, &["train", "r.toml"]);
        assert!(done.status.code() == Some(2) && stderr(&done).contains(part), "{part}: {}", stderr(&done));
        assert!(!stderr(&done).contains("panicked"), "{}", stderr(&done));
    }
}
