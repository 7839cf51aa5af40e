//! Runs checks one after another, keeps what they find, and puts the audit together.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use netproof_core::{AuditDocument, Card, Clock, Finding, Need, Provenance, SCHEMA, Verdict};
use netproof_data::LabelKind;
use netproof_stats::Level;
use sha2::{Digest as _, Sha256};

use crate::store::{Key, Stored};
use crate::subject::Part;
use crate::{AuditError, Check, Configured, Context, Draft, Findings, Head, Policy, Progress, RunFolder, Subject};

/// Where networks run today.
const DEVICE: &str = "cpu";

/// What to run and how.
#[derive(Debug)]
pub struct Plan {
    /// The checks, in order.
    pub checks: Vec<Configured<dyn Check>>,
    /// Seed of every random draw.
    pub seed: u64,
    /// Confidence level of intervals.
    pub level: Level,
    /// Time for the whole audit; checks that do not fit are inconclusive.
    pub budget: Option<Duration>,
    /// Whether checks may train networks, which takes minutes.
    pub may_train: bool,
    /// What must hold.
    pub policy: Policy,
    /// Program and version, for the audit document.
    pub tool: String,
}

/// Runs an audit. With a run folder, what it already holds is not computed again.
/// # Errors
/// The data cannot be read at all, the run folder cannot be written, or a person asked to end: then the folder holds every
/// check that was finished. A check that fails is a finding, not an error.
pub fn run(
    subject: &Subject,
    plan: &Plan,
    folder: Option<&RunFolder>,
    progress: &dyn Progress,
) -> Result<AuditDocument, AuditError> {
    let started = Instant::now();
    let deadline = plan.budget.and_then(|b| started.checked_add(b));
    let mut clock = Clock { started: timestamp(SystemTime::now()), ..Clock::default() };
    let mut findings = Vec::new();
    let subject_context = |deadline| Context {
        card: &SUBJECT_CARD,
        seed: plan.seed,
        level: plan.level,
        progress,
        deadline,
        may_train: false,
        folder: None,
        provenance: Provenance::default(),
    };
    // Everything is kept under the hash of the data, so that reading them once has no time limit.
    let data = subject.data_facts(&subject_context(None))?;
    let text = |key: &str| data.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    let (test_hash, train_hash) = (text("sha256"), data.get("train_sha256").map(|_| text("train_sha256")));
    for configured in &plan.checks {
        let card = configured.card;
        let retrains = configured.method.retrains();
        let mut options = configured.options.clone();
        if let Some(training) = subject.training().filter(|_| retrains && plan.may_train) {
            options += &format!(" {}", training.digest());
        }
        if retrains && subject.record().is_some() {
            options += " record";
        }
        if card.challenge == netproof_core::Challenge::Adversarial {
            options += &subject.attacker()?;
        }
        let key = Key {
            check: card.id,
            version: card.version,
            options: &options,
            model: subject.model_digest(),
            data: &test_hash,
            train: train_hash.as_deref(),
            seed: plan.seed,
            level: plan.level.get(),
            device: DEVICE,
        };
        if let Some(kept) = folder.map(|f| f.find(&key)).transpose()?.flatten() {
            progress.note(&format!("{}: taken from an earlier run", card.id));
            clock.reused.push(card.id.to_owned());
            clock.seconds.insert(card.id.to_owned(), kept.seconds);
            findings.extend(kept.findings);
            clock.findings.extend(kept.clocked);
            continue;
        }
        let provenance = Provenance {
            model: key.model.to_owned(),
            data: key.data.to_owned(),
            options: hex(&Sha256::digest(&options)),
            version: card.version,
            seed: plan.seed,
            device: DEVICE.to_owned(),
        };
        let may_train = plan.may_train;
        let cx =
            Context { card, seed: plan.seed, level: plan.level, progress, deadline, may_train, folder, provenance };
        let begun = Instant::now();
        let (found, lasting) = attempt(subject, configured, &cx)?;
        let stored = Stored::new(found, begun.elapsed().as_secs_f64());
        if lasting && let Some(folder) = folder {
            folder.keep(&key, &stored)?;
        }
        clock.seconds.insert(card.id.to_owned(), stored.seconds);
        findings.extend(stored.findings);
        clock.findings.extend(stored.clocked);
    }
    let policy_violations = plan.policy.apply(findings.iter_mut().chain(&mut clock.findings));
    let mut document = AuditDocument {
        schema: SCHEMA.to_owned(),
        tool: plan.tool.clone(),
        model: subject.model_facts(),
        data,
        seed: plan.seed,
        policy_violations,
        findings,
        digest: String::new(),
        clock,
    };
    document.digest = hex(&Sha256::digest(document.reproducible_bytes()?));
    Ok(document)
}

/// Reading the data belongs to no check.
static SUBJECT_CARD: Card = Card {
    id: "subject",
    version: 1,
    kind: netproof_core::CardKind::Check,
    title: "Subject",
    challenge: netproof_core::Challenge::DataLimits,
    measures: "",
    reference: "",
    needs: &[],
    options: &[],
};

/// A context for work on a subject outside an audit, such as a remedy.
/// # Errors
/// The data cannot be read.
pub fn context<'a>(
    subject: &Subject,
    card: &'static Card,
    options: &str,
    seed: u64,
    level: Level,
    progress: &'a dyn Progress,
) -> Result<Context<'a>, AuditError> {
    let how = Work { seed, level, deadline: None, may_train: true, folder: None };
    work(subject, card, options, &how, progress)
}

/// How work outside an audit is done.
pub(crate) struct Work<'a> {
    pub(crate) seed: u64,
    pub(crate) level: Level,
    pub(crate) deadline: Option<Instant>,
    pub(crate) may_train: bool,
    pub(crate) folder: Option<&'a RunFolder>,
}

pub(crate) fn work<'a>(
    subject: &Subject,
    card: &'static Card,
    options: &str,
    how: &Work<'a>,
    progress: &'a dyn Progress,
) -> Result<Context<'a>, AuditError> {
    let Work { seed, level, deadline, may_train, folder } = *how;
    // Reading the data has no time limit, since everything is kept under their hash.
    let none = Provenance::default();
    let cx = Context { card, seed, level, progress, deadline: None, may_train, folder, provenance: none };
    let scan = subject.scan(Part::Test, &cx)?;
    let provenance = Provenance {
        model: subject.model_digest().to_owned(),
        data: scan.map(|s| s.content.clone()).unwrap_or_default(),
        options: hex(&Sha256::digest(options)),
        version: card.version,
        seed,
        device: DEVICE.to_owned(),
    };
    Ok(Context { deadline, provenance, ..cx })
}

/// The findings of one check, and whether they will be the same next time; an error only where a person asked to end.
fn attempt(
    subject: &Subject,
    configured: &Configured<dyn Check>,
    cx: &Context<'_>,
) -> Result<(Findings, bool), AuditError> {
    let only = |d: Draft| Findings::from(vec![d.done()]);
    if let Some(need) = missing_need(subject, configured.card) {
        let f = cx.finding("applicable", configured.card.title).verdict(Verdict::NotApplicable);
        return Ok((
            only(f.explain(format!("This check needs {}, which this audit does not have.", need.name()))),
            true,
        ));
    }
    if configured.card.needs.contains(&Need::Training) && !cx.may_train {
        let f = cx.finding("applicable", configured.card.title).verdict(Verdict::NotApplicable);
        let text = "This check trains networks, which may take minutes: --retrain turns it on, or name it with --only. What \
                    is trained is kept in the run folder, and --budget limits the time.";
        return Ok((only(f.explain(text)), false));
    }
    let out_of_time = || {
        let f = cx.finding("time", configured.card.title).verdict(Verdict::Inconclusive);
        only(f.explain("Out of time: the budget was spent before this check ended. Raise --budget."))
    };
    match cx.check_time() {
        Ok(()) => {}
        Err(AuditError::Interrupted) => return Err(AuditError::Interrupted),
        Err(_) => return Ok((out_of_time(), false)),
    }
    Ok(match catch_unwind(AssertUnwindSafe(|| configured.method.run(subject, cx))) {
        Ok(Ok(found)) => (found, true),
        // A method may say no more than that it could not finish.
        Ok(Err(AuditError::Interrupted | AuditError::OutOfTime)) if cx.progress.stopped() => {
            return Err(AuditError::Interrupted);
        }
        Ok(Err(AuditError::OutOfTime)) => (out_of_time(), false),
        Ok(Err(e)) => {
            let f = cx.finding("error", configured.card.title).verdict(Verdict::Failed);
            (only(f.explain(format!("The check could not run: {e}."))), false)
        }
        Err(_) => {
            let f = cx.finding("error", configured.card.title).verdict(Verdict::Failed);
            (only(f.explain("The check stopped with an internal error; please report this.")), false)
        }
    })
}

fn missing_need(subject: &Subject, card: &Card) -> Option<Need> {
    let labels = subject.data().label_kind();
    card.needs.iter().copied().find(|need| match need {
        Need::Labels => matches!(labels, LabelKind::None),
        Need::Classifier => !matches!(labels, LabelKind::Classes { .. }) || subject.head() == Head::Value,
        Need::TrainData => subject.part(Part::Train).is_none(),
        Need::Training => subject.training().is_none(),
        Need::Groups => subject.data().groups().is_empty(),
        _ => false,
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// RFC 3339 in UTC. Civil date from days: Howard Hinnant, "chrono-compatible low-level date algorithms", 2021.
fn timestamp(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Worst verdict of a document, for exit codes.
pub fn has_concern(document: &AuditDocument) -> bool {
    !document.policy_violations.is_empty() || document.all_findings().any(|f| f.verdict == Verdict::Concern)
}

/// How often each verdict occurs.
pub fn verdict_counts<'f>(findings: impl Iterator<Item = &'f Finding>) -> BTreeMap<Verdict, usize> {
    let mut counts = BTreeMap::new();
    findings.for_each(|f| *counts.entry(f.verdict).or_default() += 1);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_civil_dates() {
        let at = |s| timestamp(UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(951_827_696), "2000-02-29T12:34:56Z");
        assert_eq!(at(1_795_351_999), "2026-11-22T12:53:19Z");
    }
}
