//! The checks on a real network and 2,000 real images, against the values that PyTorch and scikit-learn gave.

use std::path::{Path, PathBuf};

use netproof_audit::repair::{Judgement, Settings, goals_of, prepare};
use netproof_audit::{Plan, Policy, RunFolder, Silent, Subject, run, select};
use netproof_challenges::{CHECKS, GOALS, QUALITY, REMEDIES};
use netproof_core::{AuditDocument, Finding, Verdict};
use netproof_data::{Dataset, OpenOptions};
use netproof_graph::Model;
use netproof_stats::Level;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/fashion")
}

fn network() -> Model {
    Model::load(&examples().join("fashion-cnn.onnx")).unwrap()
}

fn images() -> Dataset {
    let options = OpenOptions { image_size: Some([1, 28, 28]), ..OpenOptions::default() };
    Dataset::open(examples().join("fashion-test-2000.npz").to_str().unwrap(), &options).unwrap()
}

fn audit(subject: &Subject, only: &[&str]) -> AuditDocument {
    let only: Vec<String> = only.iter().map(|s| (*s).to_owned()).collect();
    let plan = Plan {
        checks: select("check", CHECKS, &only, &[], &toml::Table::new()).unwrap(),
        seed: 0,
        level: Level::P95,
        budget: None,
        may_train: false,
        policy: Policy::default(),
        tool: "test".to_owned(),
    };
    run(subject, &plan, None, &Silent).unwrap()
}

fn metric<'d>(document: &'d AuditDocument, name: &str) -> &'d Finding {
    let found = document.all_findings().find(|f| f.metric.as_deref() == Some(name));
    found.unwrap_or_else(|| panic!("no finding with metric {name}"))
}

#[test]
fn metrics_are_those_of_the_references() {
    let subject = Subject::new(network(), "cnn", images(), None).unwrap();
    let d = audit(&subject, &["performance", "calibration"]);
    for (name, want) in [
        ("accuracy", 0.882_499_992_847_442_6),
        ("log_loss", 0.338_189_005_851_745_6),
        ("brier", 0.173_497_244_715_690_6),
        ("ece", 0.016_765_319_786_645_493),
        ("macro_f1", 0.883_364_713_937_685_2),
        ("auroc", 0.990_206_513_223_958_4),
    ] {
        let f = metric(&d, name);
        let value = f.value.unwrap();
        assert!((value - want).abs() < 1e-4, "{name}: {value}, recorded {want}");
        let i = f.interval.as_ref().unwrap_or_else(|| panic!("{name} has no interval"));
        assert!(i.low <= value && value <= i.high, "{name}: {i:?}");
        assert_eq!(f.n, Some(2000));
    }
    // The recorded temperature, 0.97685, is where an optimiser stopped; its loss is recorded too, and the minimum is no higher.
    let text = &metric(&d, "temperature").explanation;
    let loss: f64 = text.split(" to ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((loss - 0.338_075_131_177_902_2).abs() < 1e-4 && loss <= 0.338_076, "{text}");
}

#[test]
fn the_network_on_its_own_data_has_no_gap_and_leaks_everything() {
    let data = images().take(400);
    let subject = Subject::new(network(), "cnn", data.clone(), Some(data)).unwrap();
    let d = audit(&subject, &["generalisation-gap", "data-summary"]);
    assert_eq!(metric(&d, "accuracy_gap").value, Some(0.0));
    assert_eq!(metric(&d, "overlap_fraction").value, Some(1.0));
    assert_eq!(metric(&d, "overlap_fraction").verdict, Verdict::Concern);
    assert_eq!(metric(&d, "rows").value, Some(400.0));
}

#[test]
fn temperature_scaling_repairs_a_network_that_is_too_sure() {
    // Dividing by 0.4 makes the network overconfident on purpose.
    let sharp = network().scale_logits(0.4).unwrap();
    let subject = Subject::new(sharp, "sharp", images(), None).unwrap();
    let found = audit(&subject, &["calibration"]).findings;
    assert_eq!(found.iter().find(|f| f.metric.as_deref() == Some("ece")).unwrap().verdict, Verdict::Concern);
    let goals = goals_of(&found, GOALS);
    assert_eq!(goals.iter().map(|g| g.id).collect::<Vec<_>>(), ["calibrated"]);
    let remedies = select("remedy", REMEDIES, &[], &[], &toml::Table::new()).unwrap();
    let plan = |only: &[&str]| Plan {
        checks: select(
            "check",
            CHECKS,
            &only.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(),
            &[],
            &toml::Table::new(),
        )
        .unwrap(),
        seed: 0,
        level: Level::P95,
        budget: None,
        may_train: false,
        policy: Policy::default(),
        tool: "test".to_owned(),
    };
    let (measure, proof) = (plan(&["performance"]), plan(&["performance", "calibration"]));
    let settings = Settings {
        goals,
        others: GOALS,
        guards: QUALITY,
        remedies: &remedies,
        measure: &measure,
        audit: &proof,
        choose: 0.5,
        tolerance: 0.05,
        budget: None,
        seed: 0,
        level: Level::P95,
    };
    let folder = tempfile::tempdir().unwrap();
    let run = RunFolder::open(folder.path()).unwrap();
    let prepared = prepare(&subject, &found, None, &settings, &Silent).unwrap();
    // Half of each class, each rounded by itself.
    let [learn, choose, prove] = prepared.summary().rows;
    assert_eq!((learn, choose + prove), (0, 2000));
    assert!(choose.abs_diff(1000) <= 5, "{choose}");
    let outcome = prepared.carry_out(&run, &Silent).unwrap();
    let change = outcome.changes.iter().find(|c| c.metric == "log_loss").unwrap();
    assert!(change.change.interval.unwrap().high < 0.0 && change.judgement == Judgement::Better, "{change}");
    let ece = outcome.changes.iter().find(|c| c.metric == "ece").unwrap();
    assert_eq!(ece.judgement, Judgement::Better, "{ece}");
    // Dividing logits changes no answer.
    let accuracy = outcome.changes.iter().find(|c| c.metric == "accuracy").unwrap();
    assert_eq!((accuracy.change.value, accuracy.judgement), (0.0, Judgement::Noise));
    assert_eq!(outcome.findings[0].verdict, Verdict::Pass, "{}", outcome.findings[0].explanation);
    let repaired = Subject::new(outcome.model.unwrap(), "repaired", images(), None).unwrap();
    assert!((metric(&audit(&repaired, &["calibration"]), "temperature").value.unwrap() - 1.0).abs() < 0.1);
    // The network is right as it was before; nothing helps it then, and nothing is given back.
    let fine = Subject::new(network(), "fine", images(), None).unwrap();
    let prepared = prepare(&fine, &[], None, &settings, &Silent).unwrap();
    let outcome = prepared.carry_out(&run, &Silent).unwrap();
    assert!(outcome.model.is_none() && outcome.findings[0].verdict == Verdict::Inconclusive);
}

#[test]
fn cost_is_what_the_layers_add_up_to() {
    let subject = Subject::new(network(), "cnn", images(), None).unwrap();
    let options: toml::Table = toml::from_str("[compute-cost]\nbatches = [2]\nseconds = 0").unwrap();
    let plan = Plan {
        checks: select("check", CHECKS, &["compute-cost".to_owned()], &[], &options).unwrap(),
        seed: 0,
        level: Level::P95,
        budget: None,
        may_train: false,
        policy: Policy::default(),
        tool: "test".to_owned(),
    };
    let d = run(&subject, &plan, None, &Silent).unwrap();
    // conv 1→16 and 16→32 of 3×3, 1568→64 and 64→10.
    assert_eq!(metric(&d, "parameters").value, Some(105_866.0));
    let macs = 28.0 * 28.0 * 9.0 * 16.0 + 14.0 * 14.0 * 9.0 * 16.0 * 32.0 + 1568.0 * 64.0 + 640.0;
    assert_eq!(metric(&d, "macs").value, Some(macs));
    assert!(d.clock.findings.iter().any(|f| f.metric.as_deref() == Some("latency_p50_ms")));
    assert!(d.findings.iter().all(|f| f.unit.as_deref() != Some("ms")), "times belong to the clock");
}
