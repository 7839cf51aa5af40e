//! Checks that train, remedies that train, and the loop around them, on a task of points in the plane with wrong labels.

use std::sync::Arc;
use std::time::Duration;

use netproof_audit::repair::{Judgement, Settings, State, prepare};
use netproof_audit::{
    AuditError, Candidate, Case, Change, Configured, Context, Direct, Goal, Making, Plan, Policy, Progress, Remedy,
    Retraining, RunFolder, Silent, Subject, Training, changed, context, run, select,
};
use netproof_challenges::{CHECKS, GOALS, QUALITY, REMEDIES, training_registry};
use netproof_core::{AuditDocument, Evidence, Finding, Need, Verdict};
use netproof_data::{Dataset, Labels, OpenOptions};
use netproof_graph::Model;
use netproof_graph::builders::{Activation, mlp};
use netproof_stats::Level;
use netproof_stats::rng::Rng;
use netproof_tensor::Tensor;
use netproof_train::{DataSection, Job, Method, Recipe, Registry, RunOptions, train};

/// Points around three centres; every `wrong`-th label is that of the next centre.
fn points(n: usize, seed: u64, wrong: Option<usize>) -> Dataset {
    let mut rng = Rng::new(seed);
    let (mut x, mut y) = (Vec::new(), Vec::new());
    for i in 0..n {
        let class = i % 3;
        let angle = class as f64 * 2.0 * std::f64::consts::PI / 3.0;
        x.push((angle.cos() + 0.3 * rng.normal()) as f32);
        x.push((angle.sin() + 0.3 * rng.normal()) as f32);
        // A feature that means nothing, by which rows can be told apart.
        x.extend((0..8).map(|_| rng.normal() as f32));
        // To either of the other classes, so that no class looks like another one.
        y.push(if wrong.is_some_and(|w| i % w == 0) { (class + 1 + i / 5 % 2) % 3 } else { class });
    }
    let x = Tensor::f32(vec![n, 10], x).unwrap();
    Dataset::from_memory(x, Labels::Classes(y), Vec::new(), &OpenOptions::default()).unwrap()
}

fn recipe() -> Recipe {
    Recipe {
        epochs: 40,
        batch_size: 16,
        validation_fraction: 0.0,
        optimiser: Method::new("adamw").with("learning_rate", 0.01),
        schedule: Method::new("constant"),
        ..Recipe::new(DataSection::new("memory"), Method::new("mlp").with("hidden", vec![toml::Value::Integer(64)]))
    }
}

/// A network that knows its rows by heart, and the rows.
fn overfitted() -> Subject {
    let rows = points(180, 1, Some(5));
    let network = mlp(&[10], &[64], 3, Activation::Relu, 3).unwrap();
    let recipe = Recipe { epochs: 150, ..recipe() };
    let job = Job::new(&recipe, network, rows.clone(), None).unwrap();
    let trained = train(&recipe, job, &Registry::default(), &RunOptions::default()).unwrap();
    let subject = Subject::new(trained.model, "overfitted", points(600, 2, None), Some(rows)).unwrap();
    let mut own = self::recipe();
    own.validation_fraction = 0.15;
    subject.with_training(Some(Training::given(own, Arc::new(training_registry()))))
}

fn plan(only: &[&str], may_train: bool) -> Plan {
    let only: Vec<String> = only.iter().map(|s| (*s).to_owned()).collect();
    let options: toml::Table =
        "[compute-cost]\nbatches = [1]\nseconds = 0\n[seed-variance]\nseeds = 3".parse().unwrap();
    Plan {
        checks: select("check", CHECKS, &only, &[], &options).unwrap(),
        seed: 0,
        level: Level::P95,
        budget: None,
        may_train,
        policy: Policy::default(),
        tool: "test".to_owned(),
    }
}

fn that_train() -> Vec<&'static str> {
    CHECKS.iter().filter(|e| e.card.needs.contains(&Need::Training)).map(|e| e.card.id).collect()
}

fn metric<'d>(d: &'d AuditDocument, name: &str) -> &'d Finding {
    d.all_findings().find(|f| f.metric.as_deref() == Some(name)).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn checks_that_train_answer_with_intervals_and_are_kept() {
    let subject = overfitted();
    let mut checks = that_train();
    checks.extend(["generalisation-gap", "learning-curves"]);
    let folder = tempfile::tempdir().unwrap();
    let run_folder = RunFolder::open(folder.path()).unwrap();
    let first = run(&subject, &plan(&checks, true), Some(&run_folder), &Silent).unwrap();
    for id in &checks {
        let own: Vec<&Finding> = first.findings.iter().filter(|f| f.check == *id).collect();
        assert!(!own.is_empty(), "{id}");
        for f in own {
            assert!(!matches!(f.verdict, Verdict::Failed | Verdict::NotApplicable), "{}: {}", f.id, f.explanation);
            let excused = f.caveats.iter().any(|c| c.starts_with("no interval"));
            assert!(f.value.is_none() || f.interval.is_some() || excused, "{} has no interval", f.id);
            if let (Some(v), Some(i)) = (f.value, &f.interval) {
                assert!(i.low <= i.high && v.is_finite(), "{}", f.id);
            }
        }
    }
    // The gap is called, by the two data sets and by folds.
    let gap = metric(&first, "accuracy_gap");
    assert!(gap.verdict == Verdict::Concern && gap.interval.as_ref().unwrap().low > 0.0, "{gap:?}");
    assert!(metric(&first, "accuracy_gap_k_fold").value.unwrap() > 0.05);
    // Thirty-six labels of 180 are wrong: rows 0, 5, 10, …
    let memorised = metric(&first, "memorised_fraction");
    assert_eq!(memorised.verdict, Verdict::Concern);
    let ids = memorised.evidence.iter().find_map(|e| if let Evidence::Rows { ids, .. } = e { Some(ids) } else { None });
    let ids = ids.unwrap();
    let found = ids.iter().filter(|id| *id % 5 == 0).count();
    assert!(found >= 29 && 2 * found >= ids.len(), "{found} of {} flagged rows are wrong", ids.len());
    // A second run trains nothing and finds the same; a third network in the folder would have its own key.
    let trained = std::fs::read_dir(folder.path().join("trained")).unwrap().count();
    let second = run(&subject, &plan(&checks, true), Some(&run_folder), &Silent).unwrap();
    assert_eq!(first.digest, second.digest);
    assert_eq!(second.clock.reused.len(), checks.len());
    std::fs::remove_dir_all(folder.path().join("findings")).unwrap();
    let run_folder = RunFolder::open(folder.path()).unwrap();
    let third = run(&subject, &plan(&checks, true), Some(&run_folder), &Silent).unwrap();
    assert_eq!(
        (first.digest, trained),
        (third.digest, std::fs::read_dir(folder.path().join("trained")).unwrap().count())
    );
}

#[test]
fn nothing_trains_unless_it_is_asked_for() {
    let subject = overfitted();
    let folder = tempfile::tempdir().unwrap();
    let run_folder = RunFolder::open(folder.path()).unwrap();
    let off = run(&subject, &plan(&that_train(), false), Some(&run_folder), &Silent).unwrap();
    assert!(off.findings.iter().all(|f| f.verdict == Verdict::NotApplicable && f.explanation.contains("--retrain")));
    assert!(!folder.path().join("trained").exists());
    let plain =
        Subject::new(Model::from_file(subject.model().to_file().unwrap()).unwrap(), "p", points(60, 3, None), None);
    let none = run(&plain.unwrap(), &plan(&that_train(), true), None, &Silent).unwrap();
    assert!(none.findings.iter().all(|f| f.verdict == Verdict::NotApplicable));
    // Out of time, and nothing is kept that would hide it later.
    let late = Plan { budget: Some(Duration::from_millis(1)), ..plan(&["memorisation"], true) };
    let late = run(&subject, &late, Some(&run_folder), &Silent).unwrap();
    assert_eq!(late.findings[0].verdict, Verdict::Inconclusive);
    let now = run(&subject, &plan(&["memorisation"], true), Some(&run_folder), &Silent).unwrap();
    assert_eq!(metric(&now, "memorised_fraction").verdict, Verdict::Concern);
}

#[test]
fn every_remedy_proposes_what_can_be_made() {
    let subject = overfitted();
    let remedies = select("remedy", REMEDIES, &[], &[], &toml::Table::new()).unwrap();
    let training = subject.training().unwrap();
    for remedy in &remedies {
        assert!(!remedy.method.goals().is_empty(), "{}", remedy.card.id);
        for goal in remedy.method.goals() {
            assert!(GOALS.iter().any(|g| g.id == *goal), "{} serves `{goal}`, which is no goal", remedy.card.id);
        }
        let cx = context(&subject, remedy.card, &remedy.options, 0, Level::P95, &Silent).unwrap();
        for c in remedy.method.propose(&Case { subject: &subject, findings: &[] }, &cx).unwrap() {
            assert!(c.what.ends_with('.') && !c.name.contains(' '), "{}", c.name);
            if let Making::Train(r) = &c.making {
                let recipe = changed(training.recipe(), &r.changes, training.registry());
                assert!(recipe.is_ok(), "{}: {}", c.name, recipe.unwrap_err());
            }
        }
    }
    for goal in GOALS {
        for aim in goal.aims {
            assert!(CHECKS.iter().any(|e| e.card.id == aim.check), "{} is measured by no check", goal.id);
        }
    }
}

fn settings<'a>(remedies: &'a [Configured<dyn Remedy>], plans: &'a [Plan; 2], goals: &[&str]) -> Settings<'a> {
    Settings {
        goals: goals.iter().map(|id| GOALS.iter().find(|g: &&Goal| g.id == *id).unwrap()).collect(),
        others: GOALS,
        guards: QUALITY,
        remedies,
        measure: &plans[0],
        audit: &plans[1],
        choose: 0.4,
        tolerance: 0.05,
        budget: None,
        seed: 0,
        level: Level::P95,
    }
}

#[test]
fn an_overfitted_network_is_repaired_and_proved_on_other_rows() {
    let subject = overfitted();
    let plans = [plan(&["performance"], false), plan(&["performance", "generalisation-gap", "compute-cost"], false)];
    let only = ["early-stopping", "weight-decay", "ensemble"].map(str::to_owned);
    let remedies = select("remedy", REMEDIES, &only, &[], &"[ensemble]\nmembers = 3".parse().unwrap()).unwrap();
    let settings = settings(&remedies, &plans, &["overfitting"]);
    let folder = tempfile::tempdir().unwrap();
    let run_folder = RunFolder::open(folder.path()).unwrap();
    let prepared = prepare(&subject, &[], None, &settings, &Silent).unwrap();
    let summary = prepared.summary();
    assert_eq!(summary.rows, [180, 240, 360]);
    assert!(summary.notes.is_empty() && summary.candidates.len() == 4, "{summary:?}");
    let outcome = prepared.carry_out(&run_folder, &Silent).unwrap();
    for t in &outcome.tried {
        assert!(matches!(t.state, State::Measured { .. }), "{}: {:?}", t.proposal.candidate.name, t.state);
    }
    // A second round puts the best together, and averages them.
    assert!(outcome.tried.len() > 4, "{}", outcome.tried.len());
    let model = outcome.model.as_ref().unwrap_or_else(|| panic!("nothing helps: {:?}", outcome.tried));
    let change = outcome.changes.iter().find(|c| c.metric == "accuracy").unwrap();
    assert!(
        change.change.value > 0.05 && change.change.n == 360 && change.change.interval.unwrap().low > 0.0,
        "{change}"
    );
    assert!(outcome.findings.iter().all(|f| f.provenance.version == 1));
    assert_eq!(
        outcome.trainings.len(),
        outcome.trainings.iter().map(|(r, _)| r.seed).collect::<std::collections::HashSet<_>>().len()
    );
    let sides: Vec<&str> = outcome.changes.iter().map(|c| c.metric.as_str()).collect();
    for name in ["accuracy", "log_loss", "accuracy_gap", "parameters"] {
        assert!(sides.contains(&name), "{sides:?}");
    }
    // The document is what a report is made of.
    let document = outcome.document();
    assert!(document.findings[0].evidence.iter().any(|e| matches!(e, Evidence::Plot(_))));
    // A second run trains nothing and ends with the same network.
    let count = || std::fs::read_dir(folder.path().join("trained")).unwrap().count();
    let before = count();
    let again = prepared.carry_out(&run_folder, &Silent).unwrap();
    assert_eq!((again.model.unwrap().sha256().unwrap(), count()), (model.sha256().unwrap(), before));
}

/// Gives a network that is right and hardly dares to say so.
struct Hesitates(Model);

impl Remedy for Hesitates {
    fn goals(&self) -> &'static [&'static str] {
        &["overfitting"]
    }

    fn propose(&self, _: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        let file = self.0.scale_logits(1000.0)?.to_file()?;
        let hesitating = Direct::new(move |_, _| Ok(Some(Model::from_file(file.clone())?)));
        let (name, what) = ("hesitating".to_owned(), "Right, and unsure.".to_owned());
        Ok(vec![Candidate { name, what, making: Making::Direct(hesitating) }])
    }
}

#[test]
fn what_a_repair_makes_worse_is_mended_without_training() {
    // Right in part and about as sure as it should be, from few rows and few steps; and one that knows the task.
    let trained = |rows: Dataset, epochs: u64| {
        let recipe = Recipe { epochs, ..recipe() };
        let network = mlp(&[10], &[16], 3, Activation::Relu, 1).unwrap();
        let job = Job::new(&recipe, network, rows, None).unwrap();
        train(&recipe, job, &Registry::default(), &RunOptions::default()).unwrap().model
    };
    let weak = trained(points(30, 9, None), 8);
    let subject = Subject::new(weak, "weak", points(600, 2, None), None).unwrap();
    let plans = [plan(&["performance"], false), plan(&["performance"], false)];
    let good = trained(points(600, 77, None), 20);
    let early = REMEDIES.iter().find(|e| e.card.id == "early-stopping").unwrap().card;
    let hesitates = || Configured {
        card: early,
        method: Box::new(Hesitates(Model::from_file(good.to_file().unwrap()).unwrap())) as Box<dyn Remedy>,
        options: "{}".to_owned(),
    };
    let temperature = select("remedy", REMEDIES, &["temperature-scaling".to_owned()], &[], &toml::Table::new());
    let all: Vec<_> = std::iter::once(hesitates()).chain(temperature.unwrap()).collect();
    for (remedies, mended) in [(all, true), (vec![hesitates()], false)] {
        let folder = tempfile::tempdir().unwrap();
        let run_folder = RunFolder::open(folder.path()).unwrap();
        let settings = settings(&remedies, &plans, &["overfitting"]);
        let outcome =
            prepare(&subject, &[], None, &settings, &Silent).unwrap().carry_out(&run_folder, &Silent).unwrap();
        let names: Vec<&str> = outcome.tried.iter().map(|t| t.proposal.candidate.name.as_str()).collect();
        let of = |metric: &str| outcome.changes.iter().find(|c| c.metric == metric).unwrap();
        assert_eq!(of("accuracy").judgement, Judgement::Better, "{names:?}");
        assert_eq!(names.contains(&"hesitating+temperature"), mended, "{names:?}");
        assert_eq!(of("log_loss").judgement, if mended { Judgement::Better } else { Judgement::Worse });
    }
}

/// A person who asks to end after some rows.
struct Impatient {
    left: std::sync::atomic::AtomicI64,
}

impl Progress for Impatient {
    fn start(&self, _: &str, _: u64) {}
    fn advance(&self, steps: u64) {
        self.left.fetch_sub(steps as i64, std::sync::atomic::Ordering::Relaxed);
    }
    fn finish(&self) {}
    fn note(&self, _: &str) {}
    fn stopped(&self) -> bool {
        self.left.load(std::sync::atomic::Ordering::Relaxed) < 0
    }
}

#[test]
fn a_repair_that_a_person_ends_goes_on_with_the_same_bits() {
    let subject = overfitted();
    let plans = [plan(&["performance"], false), plan(&["performance"], false)];
    let remedies = select("remedy", REMEDIES, &["weight-decay".to_owned()], &[], &toml::Table::new()).unwrap();
    let settings = settings(&remedies, &plans, &["overfitting"]);
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [whole, parts] = folders.each_ref().map(|f| RunFolder::open(f.path()).unwrap());
    let prepared = prepare(&subject, &[], None, &settings, &Silent).unwrap();
    let expected = prepared.carry_out(&whole, &Silent).unwrap();
    let mut interruptions = 0;
    let got = loop {
        let progress = Impatient { left: 2500.into() };
        match prepared.carry_out(&parts, &progress) {
            Ok(outcome) => break outcome,
            Err(AuditError::Interrupted) => interruptions += 1,
            Err(e) => panic!("{e}"),
        }
        assert!(interruptions < 1000, "no run goes on from the one before");
    };
    assert!(interruptions > 2, "{interruptions}");
    let digest = |o: &netproof_audit::repair::Outcome| o.model.as_ref().map(|m| m.sha256().unwrap());
    assert_eq!(digest(&got), digest(&expected));
    // An audit that a person ends says so, and is no finding.
    let stopped = Impatient { left: (-1).into() };
    let audit = run(&subject, &plans[0], None, &stopped);
    assert!(matches!(audit, Err(AuditError::Interrupted)));
}

#[test]
fn without_time_nothing_is_changed_and_without_training_data_nothing_is_tried() {
    let subject = overfitted();
    let plans = [plan(&["performance"], false), plan(&["performance"], false)];
    let remedies = select("remedy", REMEDIES, &["dropout".to_owned()], &[], &toml::Table::new()).unwrap();
    let late = Settings { budget: Some(Duration::ZERO), ..settings(&remedies, &plans, &["overfitting"]) };
    let folder = tempfile::tempdir().unwrap();
    let run_folder = RunFolder::open(folder.path()).unwrap();
    let outcome = prepare(&subject, &[], None, &late, &Silent).unwrap().carry_out(&run_folder, &Silent).unwrap();
    assert!(outcome.model.is_none() && outcome.tried.iter().all(|t| matches!(t.state, State::OutOfTime)));
    assert!(outcome.findings[0].explanation.contains("did not fit the budget"));
    let model = Model::from_file(subject.model().to_file().unwrap()).unwrap();
    let plain = Subject::new(model, "plain", points(60, 3, None), None).unwrap();
    let settings = settings(&remedies, &plans, &["overfitting"]);
    let prepared = prepare(&plain, &[], None, &settings, &Silent).unwrap();
    assert!(prepared.summary().candidates.is_empty() && !prepared.summary().notes.is_empty());
    let few =
        Subject::new(Model::from_file(subject.model().to_file().unwrap()).unwrap(), "few", points(30, 3, None), None);
    assert!(prepare(&few.unwrap(), &[], None, &settings, &Silent).is_err());
}

#[test]
fn rows_that_are_left_out_are_not_learnt_from() {
    let subject = overfitted();
    struct Clean;
    impl Remedy for Clean {
        fn goals(&self) -> &'static [&'static str] {
            &["overfitting"]
        }

        fn propose(&self, _: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
            let without = (0..180).step_by(5).collect();
            let how = Retraining { without, ..Retraining::new([Change::set("epochs", 30)]) };
            Ok(vec![Candidate { name: "clean".into(), what: "Leaves out.".into(), making: Making::Train(how) }])
        }
    }
    let card = REMEDIES[0].card;
    let remedies = [Configured { card, method: Box::new(Clean) as _, options: "{}".into() }];
    let plans = [plan(&["performance"], false), plan(&["performance"], false)];
    let settings = settings(&remedies, &plans, &["overfitting"]);
    let folder = tempfile::tempdir().unwrap();
    let run_folder = RunFolder::open(folder.path()).unwrap();
    let prepared = prepare(&subject, &[], None, &settings, &Silent).unwrap();
    assert_eq!(prepared.summary().candidates[0].without, 36);
    let outcome = prepared.carry_out(&run_folder, &Silent).unwrap();
    let change = outcome.changes.iter().find(|c| c.metric == "accuracy").unwrap();
    // Without the wrong labels it is as good as the task allows.
    assert!(change.after.0 > 0.85 && outcome.model.is_some(), "{change}");
}
