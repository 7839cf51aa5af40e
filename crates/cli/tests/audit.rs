//! The binary as a user runs it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use netproof_tensor::{DType, Elements, Tensor};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn netproof(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netproof"));
    command.current_dir(root()).args(arguments).env_remove("NO_COLOR");
    command
}

fn run(arguments: &[&str]) -> Output {
    netproof(arguments).output().expect("the binary starts")
}

fn stderr(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

const PROJECT: &str = "examples/fashion/netproof.toml";
const FAST: [&str; 12] = [
    "--set",
    "compute-cost.seconds=0",
    "--set",
    "compute-cost.batches=[1]",
    "--set",
    "robust-accuracy.rows=3",
    "--set",
    "robust-accuracy.epsilons=[0.02]",
    "--set",
    "gradient-masking.rows=3",
    // Seconds each; they have tests of their own.
    "--skip",
    "faithfulness,sanity,stability,method-agreement,explanations,adversarial-detection,minimal-perturbation,transferability,\
     certified-accuracy",
];

fn audit(out: &Path, more: &[&str]) -> Command {
    let out = out.to_str().unwrap();
    netproof(&[&["audit", PROJECT, "--limit", "300", "--out", out][..], &FAST, more].concat())
}

fn document(out: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(out.join("audit.json")).unwrap()).unwrap()
}

#[test]
fn an_audit_leaves_its_files_and_a_second_one_takes_them_over() {
    let folder = tempfile::tempdir().unwrap();
    let first = audit(folder.path(), &[]).output().unwrap();
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    for file in ["report.html", "audit.json", "junit.xml", "results.sarif"] {
        assert!(folder.path().join(file).is_file(), "{file}");
    }
    let before = document(folder.path());
    assert!(before["findings"].as_array().unwrap().iter().all(|f| f["verdict"] != "failed"), "{before}");
    let second = audit(folder.path(), &[]).output().unwrap();
    assert!(stderr(&second).contains("performance: taken from an earlier run"), "{}", stderr(&second));
    let after = document(folder.path());
    assert_eq!(before["digest"], after["digest"]);
    let checks = before["clock"]["seconds"].as_object().unwrap().len();
    assert!(checks > 4 && after["clock"]["reused"].as_array().unwrap().len() == checks);
    let other = audit(folder.path(), &["--seed", "1"]).output().unwrap();
    assert!(!stderr(&other).contains("taken from"), "{}", stderr(&other));
}

#[test]
fn the_digest_does_not_depend_on_threads() {
    let mut documents = Vec::new();
    for threads in ["1", "3"] {
        let folder = tempfile::tempdir().unwrap();
        let done = audit(folder.path(), &["--threads", threads]).output().unwrap();
        assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        let mut d = document(folder.path());
        d.as_object_mut().unwrap().remove("clock");
        documents.push(d);
    }
    assert_eq!(documents[0], documents[1]);
}

#[test]
fn policies_decide_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let policy = folder.path().join("policy.toml");
    for (limit, code) in [("0.5", 0), ("0.99", 1)] {
        std::fs::write(&policy, format!("[thresholds]\naccuracy = {{ at_least = {limit} }}")).unwrap();
        let done = audit(&folder.path().join("out"), &["--policy", policy.to_str().unwrap()]).output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{}", stderr(&done));
    }
    std::fs::write(&policy, "[thresholds]\naccuracy = { atleast = 1 }").unwrap();
    let done = audit(&folder.path().join("out"), &["--policy", policy.to_str().unwrap()]).output().unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(stderr(&done).contains("at_least"), "{}", stderr(&done));
}

#[test]
fn checks_that_do_not_fit_the_budget_are_inconclusive_and_run_next_time() {
    let folder = tempfile::tempdir().unwrap();
    let done = audit(folder.path(), &["--budget", "0s"]).output().unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let findings = document(folder.path())["findings"].as_array().unwrap().clone();
    assert!(findings.iter().any(|f| f["id"] == "performance/time" && f["verdict"] == "inconclusive"));
    audit(folder.path(), &[]).output().unwrap();
    let findings = document(folder.path())["findings"].as_array().unwrap().clone();
    assert!(findings.iter().any(|f| f["id"] == "performance/accuracy"));
}

/// Killed at any moment, a run loses only what it was doing.
#[cfg(unix)]
#[test]
fn a_killed_run_loses_nothing_that_was_finished() {
    let reference = tempfile::tempdir().unwrap();
    let start = Instant::now();
    assert!(audit(reference.path(), &[]).output().unwrap().status.success());
    let whole = start.elapsed();
    let digest = document(reference.path())["digest"].clone();
    let folder = tempfile::tempdir().unwrap();
    let mut kept = 0;
    for step in 0..8u32 {
        let mut child = audit(folder.path(), &[]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(whole * step / 8 + Duration::from_millis(5));
        child.kill().unwrap();
        child.wait().unwrap();
        let findings = folder.path().join("findings");
        let mut now = 0;
        for entry in std::fs::read_dir(&findings).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap();
            serde_json::from_slice::<Value>(&bytes).unwrap_or_else(|e| panic!("{name} is not whole: {e}"));
            now += 1;
        }
        assert!(now >= kept, "finished checks were lost");
        kept = now;
    }
    let done = audit(folder.path(), &[]).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    let document = document(folder.path());
    assert_eq!(document["digest"], digest);
    assert!(document["clock"]["reused"].as_array().unwrap().len() >= kept);
}

#[test]
fn what_a_user_gets_wrong_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let project = folder.path().join("p.toml");
    std::fs::write(&project, "modell = 'x'").unwrap();
    let project = project.to_str().unwrap();
    let model = "examples/fashion/fashion-cnn.onnx";
    let data = "examples/fashion/fashion-test-2000.npz";
    for (arguments, part) in [
        (vec!["audit", "nothing.onnx", "--data", data], "nothing.onnx"),
        (vec!["audit", model, "--data", "nothing.npz"], "nothing.npz"),
        (vec!["audit", model], "--data"),
        (vec!["audit", model, "--data", data, "--label", "zzz"], "zzz"),
        (vec!["audit", model, "--data", data, "--only", "zzz"], "there is no check `zzz`; there are data-summary"),
        (vec!["audit", model, "--data", data, "--set", "calibration.zzz=1"], "zzz"),
        (vec!["audit", model, "--data", data, "--set", "x"], "ID.NAME=VALUE"),
        (vec!["audit", "tests/golden/tiny-mlp.onnx", "--data", data], "do not fit"),
        (vec!["audit", data, "--data", data], "fashion-test-2000.npz"),
        (vec!["audit", project], "modell"),
        (vec!["methods", "zzz"], "there is no method `zzz`"),
        (vec!["conformance", "onnx", "docs"], "model.onnx"),
        (vec!["inspect", "README.md"], "README.md"),
    ] {
        let done = run(&arguments);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {}", stderr(&done));
        assert!(stderr(&done).contains(part), "{arguments:?}: {}", stderr(&done));
        assert!(!stderr(&done).contains("panicked"), "{arguments:?}: {}", stderr(&done));
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in ["audit", "card", "diff", "fix", "predict", "inspect", "methods", "conformance", "completions"] {
        let help = run(&[command, "--help"]);
        assert!(help.status.success());
        let text = String::from_utf8(help.stdout).unwrap();
        assert!(text.contains(&format!("netproof {command}")), "{text}");
        assert!(text.contains("Examples:"), "{command}");
    }
    assert!(String::from_utf8(run(&["--version"]).stdout).unwrap().starts_with("netproof "));
    assert!(String::from_utf8(run(&["completions", "bash"]).stdout).unwrap().contains("complete -F"));
}

#[test]
fn results_are_written_as_json() {
    let cards: Value = serde_json::from_slice(&run(&["methods", "--json", "-"]).stdout).unwrap();
    assert!(cards.as_array().unwrap().iter().any(|c| c["id"] == "calibration" && c["kind"] == "check"));
    let inspected = run(&["inspect", "examples/fashion/fashion-cnn.onnx", "--json", "-"]);
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!(inspected["cost"]["parameters"], 105_866);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("p.npz");
    let data = "examples/fashion/fashion-test-2000.npz";
    let arguments = ["predict", "examples/fashion/fashion-cnn.onnx", "--data", data, "--limit", "10", "--json", "-"];
    let done = run(&[&arguments[..], &["--out", out.to_str().unwrap()]].concat());
    let summary: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(&done)));
    assert_eq!(summary["rows"], 10);
    assert!(out.is_file());
}

#[test]
fn a_remedy_that_is_not_proved_saves_no_network() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let done = run(&["fix", PROJECT, "--goal", "calibrated", "--out", out, "--json", "-"]);
    let result: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(&done)));
    let repaired = result["outcome"] == "repaired";
    assert_eq!(done.status.code(), Some(i32::from(!repaired)), "{}", stderr(&done));
    assert_eq!(result["models"].as_array().unwrap().len(), usize::from(repaired));
    assert!(folder.path().join("plan.json").is_file() && folder.path().join("report.html").is_file());
}

#[test]
fn a_dry_run_ends_with_the_plan_and_an_audit_without_concern_needs_no_repair() {
    let folder = tempfile::tempdir().unwrap();
    let (audited, out) = (folder.path().join("audit"), folder.path().join("fix"));
    let (audited, out) = (audited.to_str().unwrap(), out.to_str().unwrap());
    assert!(audit(Path::new(audited), &[]).output().unwrap().status.success());
    let plain = run(&["fix", audited, "--out", out]);
    assert!(plain.status.code() == Some(0) && stderr(&plain).contains("--goal names"), "{}", stderr(&plain));
    let plan = run(&["fix", audited, "--goal", "calibrated", "--dry-run", "--out", out, "--json", "-"]);
    let result: Value = serde_json::from_slice(&plan.stdout).unwrap_or_else(|e| panic!("{e}: {}", stderr(&plan)));
    assert_eq!((plan.status.code(), &result["outcome"]), (Some(0), &Value::from("dry-run")));
    assert_eq!(result["plan"]["candidates"][0]["name"], "temperature");
    for (arguments, part) in [
        (vec!["fix", audited, "--goal", "zzz"], "there is no goal `zzz`; there are overfitting"),
        (vec!["fix", audited, "--only", "zzz"], "there is no remedy `zzz`"),
        (vec!["fix", audited, "--choose", "1"], "--choose is 1"),
        (vec!["fix", "docs"], "no run folder of an audit"),
    ] {
        let done = run(&arguments);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {}", stderr(&done));
        assert!(stderr(&done).contains(part), "{arguments:?}: {}", stderr(&done));
    }
}

#[test]
fn predict_takes_the_inputs_of_a_network_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let model = netproof_graph::Model::load(&root().join("examples/fashion/fashion-cnn.onnx")).unwrap();
    let name = model.inputs()[0].name.clone();
    let bytes = Tensor::new(DType::U8, vec![1, 1, 28, 28], Elements::Int((0..784).map(|v| v % 2).collect())).unwrap();
    netproof_data::write_npz(folder.path().join("in.npz").as_path(), &[(name.as_str(), &bytes)]).unwrap();
    let network = "examples/fashion/fashion-cnn.onnx";
    let arguments = ["predict", network, "--inputs", &path("in.npz"), "--all-outputs", "--out", &path("out.npz")];
    let done = run(&arguments);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let wanted = format!("output:{}", model.outputs()[0].name);
    let limits = netproof_data::Limits::default();
    let y = netproof_data::read_npz(&folder.path().join("out.npz"), &[&wanted], limits).unwrap().remove(0);
    let x = Tensor::f32(vec![1, 1, 28, 28], (0..784u16).map(|v| f32::from(v % 2)).collect()).unwrap();
    assert_eq!(y, model.predict(&x).unwrap());
    netproof_data::write_npz(folder.path().join("in.npz").as_path(), &[("other", &x)]).unwrap();
    let missing = run(&arguments);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains(&name) && stderr(&missing).contains("other"), "{}", stderr(&missing));
}

#[test]
fn documents_are_made_from_an_audit_and_keep_what_people_wrote() {
    let folder = tempfile::tempdir().unwrap();
    assert!(audit(folder.path(), &["--only", "performance"]).output().unwrap().status.success());
    let run_folder = folder.path().to_str().unwrap();
    let first = run(&["card", run_folder]);
    assert_eq!(first.status.code(), Some(0), "{}", stderr(&first));
    assert!(
        stderr(&first).contains("for people to write") && stderr(&first).contains("not measured"),
        "{}",
        stderr(&first)
    );
    let card = folder.path().join("model-card.md");
    let text = std::fs::read_to_string(&card).unwrap();
    assert!(text.contains("finding: \"performance/accuracy\"") && text.contains("pipeline_tag: image-classification"));
    let bom: Value = serde_json::from_slice(&std::fs::read(folder.path().join("bom.cdx.json")).unwrap()).unwrap();
    assert_eq!(bom["specVersion"], "1.6");
    assert!(folder.path().join("technical-documentation.html").is_file());

    let mine = text.replacen("> **☐ To be written by a person.** What the model is for", "Sorting clothes", 1);
    std::fs::write(&card, &mine).unwrap();
    assert!(run(&["card", run_folder]).status.success());
    assert_eq!(std::fs::read_to_string(&card).unwrap(), mine);
    std::fs::write(&card, text.replacen("## Uses", "## My uses", 1)).unwrap();
    let refused = run(&["card", run_folder]);
    assert!(refused.status.code() == Some(2) && stderr(&refused).contains("--force"), "{}", stderr(&refused));
    assert!(run(&["card", run_folder, "--force"]).status.success());
    assert_eq!(std::fs::read_to_string(&card).unwrap(), text);
    let wrong = run(&["card", "README.md"]);
    assert!(wrong.status.code() == Some(2) && stderr(&wrong).contains("no audit.json"), "{}", stderr(&wrong));
}

#[test]
fn a_comparison_fails_only_where_something_became_worse() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    assert!(audit(&a, &["--only", "performance"]).output().unwrap().status.success());
    std::fs::create_dir(&b).unwrap();
    let mut worse = document(&a);
    let accuracy =
        worse["findings"].as_array_mut().unwrap().iter_mut().find(|f| f["id"] == "performance/accuracy").unwrap();
    (accuracy["value"], accuracy["interval"]["low"], accuracy["interval"]["high"]) =
        (0.5.into(), 0.4437.into(), 0.5563.into());
    std::fs::write(b.join("audit.json"), worse.to_string()).unwrap();
    let (a, b) = (a.to_str().unwrap(), b.to_str().unwrap());
    let same = run(&["diff", a, a, "--strict"]);
    assert_eq!(same.status.code(), Some(0), "{}", stderr(&same));
    let page = folder.path().join("diff.html");
    let done = run(&["diff", a, b, "--json", "-", "--html", page.to_str().unwrap()]);
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    let json: Value = serde_json::from_slice(&done.stdout).unwrap();
    let found = json["findings"].as_array().unwrap().iter().find(|f| f["id"] == "performance/accuracy").unwrap();
    assert!(found["change"] == "worse" && found["difference"]["test"] == "two-proportion z", "{found}");
    assert!(std::fs::read_to_string(page).unwrap().contains("Two audits compared"));
    assert_eq!(run(&["diff", b, a]).status.code(), Some(0), "better is not worse");
}
