//! The runner against checks that misbehave, and the subject against data that do not fit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use netproof_audit::{
    AuditError, Check, Configured, Context, Findings, Part, Plan, Policy, RunFolder, Silent, Subject, run,
};
use netproof_core::{Card, CardKind, Challenge, Evidence, Gallery, GalleryItem, GallerySection, Need, Verdict};
use netproof_data::{Dataset, Labels, OpenOptions};
use netproof_graph::builders::{Activation, mlp};
use netproof_stats::Level;
use netproof_tensor::Tensor;

static CARD: Card = Card {
    id: "stub",
    version: 1,
    kind: CardKind::Check,
    title: "Stub",
    challenge: Challenge::DataLimits,
    measures: "",
    reference: "",
    needs: &[],
    options: &[],
};
static NEEDS_TRAINING: Card = Card { id: "needs", needs: &[Need::TrainData], ..CARD };

type Body = fn(&Subject, &Context<'_>) -> Result<Findings, AuditError>;

struct Stub(Body);

impl Check for Stub {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        (self.0)(subject, cx)
    }
}

fn data(features: Tensor, labels: Vec<usize>) -> Dataset {
    Dataset::from_memory(features, Labels::Classes(labels), Vec::new(), &OpenOptions::default()).unwrap()
}

fn features(n: usize, width: usize) -> Tensor {
    Tensor::f32(vec![n, width], (0..n * width).map(|i| (i as f32).sin()).collect()).unwrap()
}

fn subject(data: Dataset) -> Result<Subject, AuditError> {
    Subject::new(mlp(&[4], &[5], 3, Activation::Relu, 0).unwrap(), "mlp", data, None)
}

fn plan(card: &'static Card, body: Body) -> Plan {
    Plan {
        checks: vec![Configured { card, method: Box::new(Stub(body)), options: "{}".to_owned() }],
        seed: 0,
        level: Level::P95,
        budget: None,
        may_train: false,
        policy: Policy::default(),
        tool: "test".to_owned(),
    }
}

fn verdict(plan: &Plan) -> (Verdict, String) {
    let subject = subject(data(features(10, 4), (0..10).map(|i| i % 3).collect())).unwrap();
    let d = run(&subject, plan, None, &Silent).unwrap();
    (d.findings[0].verdict, d.findings[0].explanation.clone())
}

#[test]
fn errors_and_panics_are_findings() {
    let (v, text) = verdict(&plan(&CARD, |_, _| Err(AuditError::Mismatch { message: "odd".to_owned() })));
    assert!(v == Verdict::Failed && text.contains("odd"), "{text}");
    assert_eq!(verdict(&plan(&CARD, |_, _| panic!("boom"))).0, Verdict::Failed);
}

#[test]
fn what_is_not_given_is_not_applicable() {
    let (v, text) = verdict(&plan(&NEEDS_TRAINING, |_, _| panic!("must not run")));
    assert!(v == Verdict::NotApplicable && text.contains("training data"), "{text}");
}

#[test]
fn time_that_is_over_is_inconclusive_in_the_middle_of_work_too() {
    let none = Plan { budget: Some(Duration::ZERO), ..plan(&CARD, |_, _| panic!("must not run")) };
    assert_eq!(verdict(&none).0, Verdict::Inconclusive);
    let late: Body = |s, cx| {
        while cx.check_time().is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
        s.outputs(Part::Test, cx).map(|_| Findings::default())
    };
    let short = Plan { budget: Some(Duration::from_millis(200)), ..plan(&CARD, late) };
    assert_eq!(verdict(&short).0, Verdict::Inconclusive);
}

#[test]
fn failures_are_tried_again_and_successes_are_kept() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let flaky: Body = |_, cx| match RUNS.fetch_add(1, Ordering::SeqCst) {
        0 => Err(AuditError::Mismatch { message: "once".to_owned() }),
        _ => Ok(Findings::from(vec![cx.finding("x", "X").value("x", "count", 1.0).done()])),
    };
    let folder = std::env::temp_dir().join(format!("netproof-runner-{}", std::process::id()));
    let store = RunFolder::open(&folder).unwrap();
    let subject = subject(data(features(4, 4), vec![0, 1, 2, 0])).unwrap();
    let documents: Vec<_> =
        (0..3).map(|_| run(&subject, &plan(&CARD, flaky), Some(&store), &Silent).unwrap()).collect();
    std::fs::remove_dir_all(&folder).unwrap();
    assert_eq!(documents[0].findings[0].verdict, Verdict::Failed);
    assert_eq!(documents[1].findings[0].value, Some(1.0));
    assert_eq!(documents[2].clock.reused, ["stub"]);
    assert_eq!(documents[1].digest, documents[2].digest);
    assert_eq!(RUNS.load(Ordering::SeqCst), 2);
}

#[test]
fn networks_and_data_that_do_not_fit_are_refused() {
    let e = subject(data(features(10, 5), vec![0; 10])).unwrap_err().to_string();
    assert!(e.contains("[5]") && e.contains("--features"), "{e}");
    let subject = subject(data(features(2, 4), vec![0, 7])).unwrap();
    let check = plan(&CARD, |s, cx| s.outputs(Part::Test, cx).map(|_| Findings::default()));
    let text = run(&subject, &check, None, &Silent).unwrap().findings[0].explanation.clone();
    assert!(text.contains("label 7, the network has 3 classes"), "{text}");
}

#[test]
fn rows_without_an_answer_are_counted_and_left_out() {
    let mut x = features(6, 4);
    x.as_f32_mut().unwrap()[5] = f32::NAN;
    let model = mlp(&[4], &[], 3, Activation::Relu, 0).unwrap();
    let subject = Subject::new(model, "m", data(x, vec![0, 1, 2, 0, 1, 2]), None).unwrap();
    let check = plan(&CARD, |s, cx| {
        let outputs = s.outputs(Part::Test, cx)?.unwrap();
        let c = outputs.classified().unwrap();
        assert_eq!((c.undefined, c.rows(), c.sample.labels.len(), c.log_loss.count()), (1, 6, 5, 5));
        Ok(Findings::from(vec![cx.finding("fine", "Fine").value("x", "count", f64::NAN).done()]))
    });
    let d = run(&subject, &check, None, &Silent).unwrap();
    assert_eq!(d.findings[0].id, "stub/fine", "{}", d.findings[0].explanation);
    assert!(d.findings[0].value.is_none() && d.findings[0].caveats[0].contains("not a finite number"));
}

#[test]
fn pictures_lie_in_the_run_folder_and_are_made_again_where_they_are_gone() {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    let draw: Body = |_, cx| {
        RUNS.fetch_add(1, Ordering::SeqCst);
        let grey = cx.picture("grey", "two pixels", [2, 1, 1], &[0, 255])?;
        let red = cx.picture("red", "one pixel", [1, 1, 3], &[255, 0, 0])?.warn("do not rely on this");
        let item = GalleryItem { title: "row 0".to_owned(), note: String::new(), pictures: vec![red] };
        let section = GallerySection { title: "wrong".to_owned(), items: vec![item] };
        let gallery = Gallery { title: "rows".to_owned(), sections: vec![section] };
        Ok(Findings::from(vec![cx.finding("x", "X").evidence(grey).evidence(gallery).done()]))
    };
    let folder = std::env::temp_dir().join(format!("netproof-pictures-{}", std::process::id()));
    let store = RunFolder::open(&folder).unwrap();
    let subject = subject(data(features(4, 4), vec![0, 1, 2, 0])).unwrap();
    let audit = |store| run(&subject, &plan(&CARD, draw), store, &Silent).unwrap();
    let without = audit(None);
    let first = audit(Some(&store));
    assert_eq!(without.digest, first.digest, "findings do not depend on the folder");
    let shown = store.pictures(&first, 1 << 20);
    let pictures: Vec<_> = first.findings[0].evidence.iter().flat_map(Evidence::pictures).collect();
    assert_eq!((shown.len(), pictures.len()), (2, 2));
    assert!(shown.values().all(|bytes| bytes.starts_with(b"\x89PNG")));
    assert_eq!((pictures[0].width, pictures[0].height), (2, 1));
    assert_eq!(store.pictures(&first, shown[&pictures[0].file].len()).len(), 1, "the bound holds");

    assert_eq!(audit(Some(&store)).clock.reused, ["stub"]);
    std::fs::write(folder.join(&pictures[1].file), b"cut").unwrap();
    assert_eq!(store.pictures(&first, 1 << 20).len(), 1, "a changed picture is not shown");
    assert!(audit(Some(&store)).clock.reused.is_empty(), "its finding is not taken over");
    assert_eq!(store.pictures(&first, 1 << 20).len(), 2);
    assert_eq!(RUNS.load(Ordering::SeqCst), 3);

    let mut hostile = first.clone();
    std::fs::write(folder.join("secret"), b"secret").unwrap();
    for file in ["secret", "../secret", "pictures/../secret", "/etc/passwd"] {
        if let Some(Evidence::Image(p)) = hostile.findings[0].evidence.first_mut() {
            p.file = file.to_owned();
        }
        assert_eq!(store.pictures(&hostile, 1 << 20).len(), 1, "{file}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn pixels_that_are_no_picture_are_refused() {
    let wrong: Body = |_, cx| {
        for (size, n) in [([0, 1, 1], 0), ([1, 1, 2], 2), ([2, 2, 1], 3), ([1, 5000, 1], 5000), ([usize::MAX, 2, 1], 0)]
        {
            let error = cx.picture("t", "a", size, &vec![0; n]).unwrap_err().to_string();
            assert!(error.contains("from 1 to 4096"), "{error}");
        }
        Ok(Findings::from(vec![cx.finding("fine", "Fine").done()]))
    };
    assert_eq!(verdict(&plan(&CARD, wrong)).0, Verdict::Pass);
}
