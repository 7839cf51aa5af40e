//! The default: the standard protocol's answer for a fraction of its time.
//!
//! Rows leave as soon as they are proved or broken, and the cheap attacks go first: certificates, PGD on the margin with cycle
//! detection, APGD on the cross-entropy, APGD towards the likeliest wrong classes, a short Square, and a long one on the few
//! rows that are nearest then. FAB and the full Square on all rows, two thirds of the standard's time for at most 0.02 points of
//! accuracy in its authors' own logs, run only where a flag says that gradients lie: then Square beats them.
//!
//! The costly stages go by need. After APGD a row is as near to breaking as what is left of its margin; slices of rows are
//! searched from the nearest on until one gives next to nothing, and of the others a random sample. If that promises more
//! than a tenth of a point of accuracy, all others are searched as well. So nothing rests on the order being right: if it is
//! wrong, the sample says so. With `thorough` everything is searched.
//!
//! On MNIST at 0.3, Square breaks rows that no gradient attack breaks (published for TRADES: 92.58 % robust against 92.81 %), so
//! it belongs to every run. There, of the 402 rows of 10,000 that are nearest after the short one, the standard's 5,000 queries
//! break 66, 65 of them among the nearest 201: 92.83 % stand in the end.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_stats::rng::Rng;
use serde::{Deserialize, Serialize};

use super::autoattack::note_classes;
use crate::adversarial::AttackError;
use crate::adversarial::attack::Attack;
use crate::adversarial::attacks::ATTACKS;
use crate::adversarial::attacks::apgd::{ApgdCe, ApgdT};
use crate::adversarial::attacks::fab::FabT;
use crate::adversarial::attacks::pgd::{Objective, Pgd};
use crate::adversarial::attacks::square::Square;
use crate::adversarial::certifier::Certifier;
use crate::adversarial::error::need_norm;
use crate::adversarial::harness::Harness;
use crate::adversarial::loss::margin;
use crate::adversarial::masking;
use crate::adversarial::projection::CONVEX;
use crate::adversarial::protocol::{Protocol, card_of};

pub(crate) static CARD: Card = Card {
    id: "cascade",
    version: 1,
    kind: CardKind::Attack,
    title: "Cascade of attacks and certificates",
    challenge: Challenge::Adversarial,
    measures: "Robust accuracy between what is proved and what was broken, as close as the standard protocol comes, for a \
               fraction of its time: rows leave as soon as they are decided, cheap attacks go first.",
    reference: "Croce and Hein, ICML 2020, arXiv:2003.01690 (the attacks); Liu et al., arXiv:2211.12713 (order by yield for cost); \
                Clopper and Pearson 1934 (intervals)",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc {
            name: "targets",
            default: "3",
            doc: "Wrong classes that APGD is aimed at, likeliest first, 1 to 1000.",
        },
        OptionDoc { name: "steps", default: "50", doc: "Steps of APGD, 10 to 10000." },
        OptionDoc { name: "queries", default: "1000", doc: "Queries of the short Square, 0 to 1000000." },
        OptionDoc {
            name: "long_queries",
            default: "5000",
            doc: "Queries of the long Square, on the rows that are nearest after the short one, 0 to 1000000.",
        },
        OptionDoc {
            name: "near",
            default: "0.1",
            doc: "Size of a slice of the rows nearest to breaking, as a fraction of all rows, 0 to 1.",
        },
        OptionDoc {
            name: "sample",
            default: "0.05",
            doc: "Fraction of the other rows that is searched to see whether the rest needs it, 0 to 1.",
        },
        OptionDoc { name: "thorough", default: "false", doc: "Whether the costly stages search all rows." },
        OptionDoc { name: "certify", default: "true", doc: "Whether certificates are tried first." },
    ],
};

/// Options.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cascade {
    pub(crate) targets: usize,
    pub(crate) steps: usize,
    pub(crate) queries: usize,
    pub(crate) long_queries: usize,
    pub(crate) near: f64,
    pub(crate) sample: f64,
    pub(crate) thorough: bool,
    pub(crate) certify: bool,
}

impl Default for Cascade {
    fn default() -> Self {
        Self {
            targets: 3,
            steps: 50,
            queries: 1000,
            long_queries: 5000,
            near: 0.1,
            sample: 0.05,
            thorough: false,
            certify: true,
        }
    }
}

/// Fewest rows of a slice or a sample.
const FEW: usize = 20;
/// Fraction of all rows for which a costly search goes on: a tenth of a point of accuracy.
const WORTH: f64 = 0.001;
/// The part of a usual slice that the long Square takes: as much work as the short one has.
const LONG: f64 = 0.2;

/// A stage that goes by need.
struct Costly<'a> {
    /// Of the attack.
    id: &'static str,
    /// In this run.
    name: &'static str,
    attack: &'a dyn Attack,
    /// Size of its slices as a part of the usual one.
    share: f64,
    /// Whether some of the rows that it leaves out are tried: not where an earlier stage has tried them with the same attack.
    sampled: bool,
}

impl Protocol for Cascade {
    fn run(&self, harness: &mut Harness<'_, '_>, certifiers: &[&dyn Certifier]) -> Result<(), AttackError> {
        self.check()?;
        let norm = harness.threat().norm;
        need_norm(&CARD, CONVEX, norm)?;
        note_classes(harness);
        if harness.victim().is_random() {
            harness.set_draws(20);
        }
        if self.certify {
            certify(harness, certifiers)?;
        }
        let quick = Pgd { steps: 10, relative_step: 0.25, random_start: false, restarts: 1, loss: Objective::Margin };
        stage(harness, "pgd", "pgd-margin", &quick)?;
        stage(harness, "apgd-ce", "apgd-ce", &ApgdCe { steps: self.steps, ..ApgdCe::default() })?;
        let targeted = ApgdT { targets: 1, steps: self.steps, ..ApgdT::default() };
        stage(harness, "apgd-t", "apgd-t-1", &targeted)?;
        if self.targets > 1 {
            let all = ApgdT { targets: self.targets, tried: 1, ..targeted };
            self.by_need(harness, &Costly { id: "apgd-t", name: "apgd-t", attack: &all, share: 1.0, sampled: true })?;
        }
        let short = Square { queries: self.queries.max(1), redraw: true, ..Square::default() };
        if self.queries > 0 && short.norms().contains(&norm) {
            self.by_need(harness, &Costly { id: "square", name: "square", attack: &short, share: 1.0, sampled: true })?;
        }
        let long = Square { queries: self.long_queries.max(1), again: true, ..short };
        if self.long_queries > 0 && long.norms().contains(&norm) {
            let attack = &long;
            self.by_need(harness, &Costly { id: "square", name: "square-long", attack, share: LONG, sampled: false })?;
        }
        let flags = masking::flags(harness)?;
        for flag in flags.iter().filter(|f| f.raised) {
            harness.note(format!("{}: {}", flag.id, flag.text));
        }
        if flags.iter().any(|f| f.raised && f.escalates) {
            if harness.victim().need_gradient().is_ok() {
                stage(harness, "fab-t", "fab-t-full", &FabT { minimal: false, ..FabT::default() })?;
            }
            if short.norms().contains(&norm) {
                stage(harness, "square", "square-full", &Square::default())?;
            }
        }
        Ok(())
    }
}

impl Cascade {
    fn check(&self) -> Result<(), AttackError> {
        let fail = |name, value, allowed| Err(AttackError::Value { name, value, allowed });
        if !(1..=1000).contains(&self.targets) {
            return fail("targets", self.targets as f64, "1 to 1000");
        }
        if !(10..=10_000).contains(&self.steps) {
            return fail("steps", self.steps as f64, "10 to 10000");
        }
        for (name, value) in [("queries", self.queries), ("long_queries", self.long_queries)] {
            if value > 1_000_000 {
                return fail(name, value as f64, "0 to 1000000");
            }
        }
        for (name, value) in [("near", self.near), ("sample", self.sample)] {
            if !(0.0..=1.0).contains(&value) {
                return fail(name, value, "0 to 1");
            }
        }
        Ok(())
    }

    /// Slices of rows by how near they are to breaking, until one gives next to nothing, then a sample of the others and, if
    /// that promises more than [`WORTH`], all others.
    fn by_need(&self, harness: &mut Harness<'_, '_>, stage: &Costly<'_>) -> Result<(), AttackError> {
        let Costly { id, name: called, attack, share, sampled } = *stage;
        let mut rows = harness.standing();
        let relative = |&i: &usize| {
            // Against the clean margin: a row that has lost most of it is near.
            harness.outcomes()[i].margin / margin(harness.row_logits(i), harness.labels()[i]).max(1e-6)
        };
        rows.sort_by(|a, b| relative(a).total_cmp(&relative(b)).then(a.cmp(b)));
        let part =
            |share: f64, of: usize, least: usize| ((share * of as f64 - 1e-6).ceil() as usize).max(least).min(of);
        let least = ((share * FEW as f64) as usize).max(1);
        let slice = if self.thorough { rows.len() } else { part(share * self.near, harness.len(), least) }.max(1);
        let worth = (WORTH * harness.len() as f64).max(1.0);
        let mut searched = 0;
        while searched < rows.len() {
            let end = (searched + slice).min(rows.len());
            let name = format!("{called}-{}", searched / slice + 1);
            let broken = run(harness, id, &name, attack, &rows[searched..end])?;
            searched = end;
            if (broken as f64) < worth {
                break;
            }
        }
        let mut far = rows.split_off(searched);
        if far.is_empty() {
            return Ok(());
        }
        if !sampled {
            harness.note(format!(
                "{called} searched the {searched} rows nearest to breaking of {}; `thorough` searches all",
                searched + far.len()
            ));
            return Ok(());
        }
        // By the row's own seed, so that the sample is the same whatever the other rows are.
        far.sort_by_key(|&i| Rng::named(harness.seed_of(i), called).next_u64());
        let rest = far.split_off(part(self.sample, far.len(), FEW));
        let broken = run(harness, id, &format!("{called}-sample"), attack, &far)?;
        let expected = broken as f64 / far.len() as f64 * rest.len() as f64;
        if expected > worth {
            run(harness, id, &format!("{called}-rest"), attack, &rest)?;
        } else if !rest.is_empty() {
            harness.note(format!(
                "{called} searched the {searched} rows nearest to breaking and {} of the other {}, of which it broke {broken}; \
                 `thorough` searches all",
                far.len(),
                far.len() + rest.len()
            ));
        }
        Ok(())
    }
}

fn stage(
    harness: &mut Harness<'_, '_>,
    id: &'static str,
    name: &str,
    attack: &dyn Attack,
) -> Result<usize, AttackError> {
    let rows = harness.standing();
    run(harness, id, name, attack, &rows)
}

fn run(
    harness: &mut Harness<'_, '_>,
    id: &'static str,
    name: &str,
    attack: &dyn Attack,
    rows: &[usize],
) -> Result<usize, AttackError> {
    if rows.is_empty() {
        return Ok(0);
    }
    harness.attack(card_of(ATTACKS, id), name, attack, rows)
}

/// Tries certificates, cheapest first, each on a few rows before all: a network that was not trained for certificates has
/// none worth their time.
fn certify(harness: &mut Harness<'_, '_>, certifiers: &[&dyn Certifier]) -> Result<(), AttackError> {
    for certifier in certifiers {
        let mut rows = harness.standing();
        rows.sort_by_key(|&i| Rng::named(harness.seed_of(i), certifier.id()).next_u64());
        let rest = rows.split_off(FEW.min(rows.len()));
        for part in [rows, rest] {
            if part.is_empty() || harness.is_out_of_time() {
                break;
            }
            match prove(harness, *certifier, part) {
                Ok(0) => break,
                Ok(_) => {}
                Err(e @ AttackError::CertifiedBroken { .. }) => return Err(e),
                Err(e) => {
                    harness.note(format!("{} proves nothing here: {e}", certifier.id()));
                    break;
                }
            }
        }
    }
    Ok(())
}

/// How many of these rows a certificate proves.
fn prove(harness: &mut Harness<'_, '_>, certifier: &dyn Certifier, mut rows: Vec<usize>) -> Result<usize, AttackError> {
    rows.sort_unstable();
    let mut count = 0;
    for part in rows.chunks(256) {
        if harness.is_out_of_time() {
            break;
        }
        let (x, labels) = harness.pick(part);
        let proved = certifier.certify(harness.victim(), &x, &labels, harness.threat())?;
        let proved: Vec<usize> = part.iter().zip(proved).filter(|(_, p)| *p).map(|(&i, _)| i).collect();
        count += proved.len();
        harness.certify(&proved)?;
    }
    Ok(count)
}
