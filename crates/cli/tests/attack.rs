//! `netproof attack` and `netproof verify` as a user runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use netproof_data::{Limits, read_npz, write_npz};
use netproof_tensor::Tensor;
use serde_json::Value;

const MODEL: &str = "examples/fashion/fashion-cnn.onnx";
const DATA: &str = "examples/fashion/fashion-test-2000.npz";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_netproof"))
        .current_dir(root())
        .args(arguments)
        .output()
        .expect("the binary starts")
}

fn attack(dir: &Path, more: &[&str]) -> Output {
    let dir = dir.to_str().unwrap();
    run(&[&["attack", MODEL, "--data", DATA, "--limit", "30", "--dir", dir][..], more].concat())
}

fn stderr(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

fn record(dir: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(dir.join("attack.json")).unwrap()).unwrap()
}

#[test]
fn an_attack_leaves_examples_that_verify_confirms_and_notices_when_they_are_changed() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let done = attack(dir, &["--norm", "linf", "--eps", "0.05", "--method", "pgd"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let r = record(dir);
    assert_eq!((&r["schema"], &r["rows"]), (&"netproof-attack/1".into(), &30.into()));
    let (clean, robust) = (r["clean_accuracy"].as_f64().unwrap(), r["robust_accuracy"]["attacked"].as_f64().unwrap());
    assert!(robust < clean && r["robust_accuracy"]["certified"] == 0.0, "{clean} {robust}");
    assert!(r["robust_accuracy"]["interval"]["high"].as_f64().unwrap() >= robust);
    assert_eq!(r["stages"].as_array().unwrap().len(), 1);
    let dir_text = dir.to_str().unwrap();
    let fine = run(&["verify", dir_text, "--json", "-"]);
    assert_eq!(fine.status.code(), Some(0), "{}", stderr(&fine));
    let found: Value = serde_json::from_slice(&fine.stdout).unwrap();
    assert!(found["confirmed"].as_u64().unwrap() > 5 && found["confirmed"] == found["examples"], "{found}");
    // The same seed gives the same bytes.
    let again = tempfile::tempdir().unwrap();
    attack(again.path(), &["--norm", "linf", "--eps", "0.05", "--method", "pgd", "--threads", "1"]);
    let bytes = |d: &Path| std::fs::read(d.join("adversarial.npz")).unwrap();
    assert_eq!(bytes(dir), bytes(again.path()));
    // Back to the clean rows: no example holds.
    let names = ["clean", "robust", "norm", "label", "row"];
    let file = dir.join("adversarial.npz");
    let arrays = read_npz(&file, &names, Limits::default()).unwrap();
    let all: Vec<(&str, &Tensor)> = names.iter().copied().zip(&arrays).chain([("adversarial", &arrays[0])]).collect();
    write_npz(&file, &all).unwrap();
    let broken = run(&["verify", dir_text]);
    assert_eq!(broken.status.code(), Some(1), "{}", stderr(&broken));
    assert!(stderr(&broken).contains("the network is right on its example"), "{}", stderr(&broken));
}

#[test]
fn a_budget_ends_early_and_resume_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let first = attack(dir, &["--eps", "0.05", "--method", "fgsm"]);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    let before = record(dir)["robust_accuracy"]["attacked"].as_f64().unwrap();
    let second = attack(dir, &["--eps", "0.05", "--resume", "--budget", "0"]);
    assert_eq!(second.status.code(), Some(0), "{}", stderr(&second));
    let r = record(dir);
    assert_eq!(r["stages"][0]["id"], "earlier run");
    assert_eq!(r["robust_accuracy"]["attacked"].as_f64().unwrap(), before);
    let other = attack(dir, &["--eps", "0.05", "--resume", "--limit", "20"]);
    assert_eq!(other.status.code(), Some(2));
}

#[test]
fn what_makes_no_sense_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    for (more, words) in [
        (&["--eps", "-1"][..], "`epsilon` is -1, it must be finite and at least 0"),
        (&["--eps", "0.1", "--method", "nothing"], "there is no attack `nothing`; there are cascade"),
        (&["--eps", "0.1", "--bounds", "0,0.5"], "outside the bounds 0,0.5; give the bounds"),
        (&["--eps", "1", "--norm", "l0", "--method", "autoattack"], "is not made for l0; it takes linf, l2, l1"),
        (&["--eps", "0.1", "--set", "cascade.target=1"], "it has targets = 3"),
    ] {
        let done = attack(folder.path(), more);
        assert_eq!(done.status.code(), Some(2), "{}", stderr(&done));
        assert!(stderr(&done).contains(words), "{}", stderr(&done));
    }
    let done = run(&["verify", folder.path().to_str().unwrap()]);
    assert!(done.status.code() == Some(2) && stderr(&done).contains("netproof attack --dir"), "{}", stderr(&done));
}
