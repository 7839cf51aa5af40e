//! Examples made on other networks, tried on this one: an attacker who sees neither gradients nor scores.
//!
//! The surrogates are networks that the attacker holds (`--surrogate`), each by itself and, where there are several,
//! all of them together (Liu, Chen, Liu and Song, ICLR 2017, arXiv:1611.02770); without any, one is learnt from the
//! classes that this network answers (Papernot et al., AsiaCCS 2017, arXiv:1602.02697). The examples are those of the
//! momentum iterative method (Dong et al., CVPR 2018, arXiv:1710.06081, algorithms 1 and 2). Checked against: the
//! closed form of a linear model, whose surrogate is itself. Weak where the surrogate is: what stands under a poor
//! surrogate says little. The note says how well a learnt one agrees.

use netproof_core::{Card, CardKind, Challenge, Need, Norm, OptionDoc, Threat};
use netproof_stats::rng::Rng;
use serde::{Deserialize, Serialize};

use crate::adversarial::AttackError;
use crate::adversarial::attack::{Access, Attack, Batch};
use crate::adversarial::certifier::Certifier;
use crate::adversarial::error::need_norm;
use crate::adversarial::harness::Harness;
use crate::adversarial::oracle::Oracle;
use crate::adversarial::projection::CONVEX;
use crate::adversarial::protocol::Protocol;
use crate::adversarial::rows::{gather, row, row_mut};
use crate::adversarial::surrogate::{Learning, climb, distil, of};
use crate::adversarial::victim::Victim;

pub(crate) static CARD: Card = Card {
    id: "transfer",
    version: 1,
    kind: CardKind::Attack,
    title: "Transfer from a surrogate",
    challenge: Challenge::Adversarial,
    measures: "Examples made on the networks of `--surrogate`, or on one that is learnt from this network's answers, carried over.",
    reference: "Papernot et al., AsiaCCS 2017, arXiv:1602.02697, algorithm 1; Dong et al., CVPR 2018, arXiv:1710.06081",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc { name: "steps", default: "10", doc: "Steps on the surrogate, 1 to 10000." },
        OptionDoc { name: "decay", default: "1.0", doc: "What remains of the sum of gradients after a step, 0 to 1." },
        OptionDoc {
            name: "rounds",
            default: "3",
            doc: "Times that a surrogate asks about new points while it is learnt, 0 to 10; each doubles the queries.",
        },
        OptionDoc { name: "epochs", default: "15", doc: "Epochs of each training of a surrogate, 1 to 1000." },
        OptionDoc {
            name: "reach",
            default: "0.1",
            doc: "How far new points are from old ones, as a fraction of the bounds' width, above 0 and up to 1.",
        },
    ],
};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Transfer {
    pub(crate) steps: usize,
    pub(crate) decay: f64,
    pub(crate) rounds: usize,
    pub(crate) epochs: u64,
    pub(crate) reach: f64,
}

impl Default for Transfer {
    fn default() -> Self {
        Self { steps: 10, decay: 1.0, rounds: 3, epochs: 15, reach: 0.1 }
    }
}

/// Climbs other networks; of the one under attack it asks nothing.
struct Carried<'a, 'm> {
    sources: Vec<&'a Victim<'m>>,
    how: (usize, f64),
}

impl Attack for Carried<'_, '_> {
    fn norms(&self) -> &'static [Norm] {
        CONVEX
    }

    fn access(&self) -> Access {
        Access::Decisions
    }

    fn propose(&self, oracle: &Oracle<'_, '_>, batch: &Batch<'_>, threat: &Threat) -> Result<Vec<f32>, AttackError> {
        oracle.check_time()?;
        let (rows, len) = (batch.right(), batch.row_len());
        let labels: Vec<usize> = rows.iter().map(|&r| batch.labels[r]).collect();
        let climbed = climb(&self.sources, &gather(batch.x, len, &rows), &labels, threat, self.how)?;
        let mut out = batch.x.to_vec();
        for (i, &r) in rows.iter().enumerate() {
            row_mut(&mut out, len, r).copy_from_slice(row(&climbed, len, i));
        }
        Ok(out)
    }
}

impl Protocol for Transfer {
    fn run(&self, harness: &mut Harness<'_, '_>, _: &[&dyn Certifier]) -> Result<(), AttackError> {
        self.check()?;
        let norm = harness.threat().norm;
        need_norm(&CARD, CONVEX, norm)?;
        let given = harness.surrogates().to_vec();
        if !given.is_empty() {
            let mut sets: Vec<(String, Vec<&Victim<'_>>)> =
                given.iter().map(|(name, v)| (format!("transfer-{name}"), vec![v])).collect();
            if given.len() > 1 {
                sets.push(("transfer-all".to_owned(), given.iter().map(|s| &s.1).collect()));
            }
            for (name, sources) in sets {
                self.carry(harness, &name, sources)?;
            }
            return Ok(());
        }
        if harness.is_empty() || harness.is_out_of_time() {
            return Ok(());
        }
        let how = self.learning(harness.threat().bounds, Rng::named(harness.seed_of(0), "surrogate").next_u64());
        let victim = harness.victim().clone();
        let found = distil(&victim, harness.clean(), &how, &|| harness.is_out_of_time())?;
        harness.note(format!(
            "the surrogate was learnt from the classes of {} rows, about {:.0} queries for each row under attack; on the last new \
             ones it agreed with the network in {:.1} % before it learnt from them",
            found.queries,
            found.queries as f64 / harness.len() as f64,
            100.0 * found.agreement
        ));
        let surrogate = of(&found.model, &victim)?;
        self.carry(harness, "transfer-learnt", vec![&surrogate])
    }
}

impl Transfer {
    pub(crate) fn learning(&self, bounds: [f64; 2], seed: u64) -> Learning {
        Learning { rounds: self.rounds, epochs: self.epochs, reach: self.reach, bounds, seed }
    }

    fn carry(&self, harness: &mut Harness<'_, '_>, name: &str, sources: Vec<&Victim<'_>>) -> Result<(), AttackError> {
        let rows = harness.standing();
        harness.attack(&CARD, name, &Carried { sources, how: (self.steps, self.decay) }, &rows).map(drop)
    }

    pub(crate) fn check(&self) -> Result<(), AttackError> {
        let fail = |name, value, allowed| Err(AttackError::Value { name, value, allowed });
        if !(1..=10_000).contains(&self.steps) {
            return fail("steps", self.steps as f64, "1 to 10000");
        }
        if !(0.0..=1.0).contains(&self.decay) {
            return fail("decay", self.decay, "0 to 1");
        }
        if self.rounds > 10 {
            return fail("rounds", self.rounds as f64, "0 to 10");
        }
        if !(1..=1000).contains(&self.epochs) {
            return fail("epochs", self.epochs as f64, "1 to 1000");
        }
        if !(self.reach > 0.0 && self.reach <= 1.0) {
            return fail("reach", self.reach, "above 0 and up to 1");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use netproof_audit::Silent;
    use netproof_graph::Model;
    use netproof_tensor::Tensor;

    use super::*;
    use crate::adversarial::test_support::{linear, rows, small, victim};

    fn harness<'v, 'm>(v: &'v Victim<'m>, epsilon: f64, x: &[f32], labels: &[usize]) -> Harness<'v, 'm> {
        let ids: Vec<u64> = (0..labels.len() as u64).collect();
        let x = Tensor::f32([&[labels.len()], v.row()].concat(), x.to_vec()).unwrap();
        let threat = Threat::new(Norm::Linf, epsilon, [-9.0, 9.0]).unwrap();
        Harness::new(v, threat, &x, labels, &ids, 0, &Silent).unwrap()
    }

    fn robust(h: &Harness<'_, '_>) -> usize {
        h.outcomes().iter().filter(|o| o.fate.is_robust()).count()
    }

    /// A linear surrogate with the same slope breaks exactly the rows within reach; one that slopes the other way
    /// breaks none.
    #[test]
    fn what_carries_over_from_a_linear_surrogate_has_its_closed_form() {
        let (w, zero) = ([0.5f32, -2.0, 1.0], [0.0f32; 3]);
        let model = linear(&[zero, w], &[0.0, 0.3]);
        let (same, other) = (linear(&[zero, w.map(|v| 3.0 * v)], &[0.0, -9.0]), linear(&[w, zero], &[0.0, 0.0]));
        let (x, labels) = rows(&model, 3, 60, 2);
        let v = victim(&model, &[3]);
        let z = v.logits(&x).unwrap();
        let within = (0..60).filter(|&i| f64::from((z[2 * i] - z[2 * i + 1]).abs()) / 3.5 < 0.15).count();
        let run = |surrogate: &Model| {
            let own = vec![("twin".to_owned(), victim(surrogate, &[3]))];
            let mut h = harness(&v, 0.15, &x, &labels).with_surrogates(own);
            Transfer::default().run(&mut h, &[]).unwrap();
            assert_eq!(h.stages()[0].count.forward, 0, "the network itself is not asked");
            60 - robust(&h)
        };
        assert!(run(&same).abs_diff(within) <= 1 && within > 5, "{} {within}", run(&same));
        assert_eq!(run(&other), 0);
    }

    #[test]
    fn a_learnt_surrogate_breaks_rows_and_says_what_it_asked() {
        let model = small(6, 3, 5);
        let (x, labels) = rows(&model, 6, 60, 7);
        let v = victim(&model, &[6]);
        let mut h = harness(&v, 0.3, &x, &labels);
        Transfer { epochs: 30, ..Transfer::default() }.run(&mut h, &[]).unwrap();
        let mut white = harness(&v, 0.3, &x, &labels).with_surrogates(vec![("itself".to_owned(), v.clone())]);
        Transfer::default().run(&mut white, &[]).unwrap();
        assert!(robust(&h) < 55 && robust(&white) <= robust(&h) + 2, "{} {}", robust(&h), robust(&white));
        assert!(h.notes().iter().any(|n| n.contains("classes of 480 rows")), "{:?}", h.notes());
    }

    #[test]
    fn several_surrogates_are_climbed_alone_and_together_and_options_are_checked() {
        let (model, one, two) = (small(6, 3, 5), small(6, 3, 8), small(6, 3, 9));
        let (x, labels) = rows(&model, 6, 30, 7);
        let v = victim(&model, &[6]);
        let both = vec![("one".to_owned(), victim(&one, &[6])), ("two".to_owned(), victim(&two, &[6]))];
        let mut h = harness(&v, 0.3, &x, &labels).with_surrogates(both);
        Transfer::default().run(&mut h, &[]).unwrap();
        let ids: Vec<&str> = h.stages().iter().map(|s| s.id.as_str()).collect();
        assert_eq!(ids, ["transfer-one", "transfer-two", "transfer-all"]);
        for bad in [
            Transfer { steps: 0, ..Transfer::default() },
            Transfer { decay: 2.0, ..Transfer::default() },
            Transfer { rounds: 11, ..Transfer::default() },
            Transfer { reach: 0.0, ..Transfer::default() },
        ] {
            assert!(matches!(bad.run(&mut h, &[]), Err(AttackError::Value { .. })), "{bad:?}");
        }
    }
}
