//! Adversarial training as a remedy: the network is trained anew by rules that attack it on the way.
//! The rules and their sources are in `training`. Weak when: the network is small for the change it shall bear, or epochs
//! are few; a robust network is a little less accurate on rows as they are (Tsipras et al., ICLR 2019, arXiv:1805.12152).

use netproof_audit::{AuditError, Candidate, Case, Change, Context, Making, Part, Remedy, Retraining};
use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use serde::{Deserialize, Serialize};

pub(crate) static CARD: Card = Card {
    id: "adversarial-training",
    version: 1,
    kind: CardKind::Remedy,
    title: "Adversarial training",
    challenge: Challenge::Adversarial,
    measures: "Trains the network anew on rows that an attack changes in every step, and keeps the weights that are best \
               under attack on validation rows.",
    reference: "Madry et al., ICLR 2018, arXiv:1706.06083; Zhang et al., ICML 2019, arXiv:1901.08573; Wong, Rice and \
                Kolter, ICLR 2020, arXiv:2001.03994; Wang et al., ICLR 2020; Wu, Xia and Wang, NeurIPS 2020, \
                arXiv:2004.05884; Shafahi et al., NeurIPS 2019, arXiv:1904.12843",
    needs: &[Need::Training, Need::Classifier, Need::InputGradient],
    options: &[
        OptionDoc {
            name: "rules",
            default: "[\"trades\", \"fast\"]",
            doc: "Rules that are tried, each a candidate: trades, fast, pgd-at, mart, free, awp (around trades), ibp (certified \
                  by intervals; linf only), crown-ibp (by linear bounds over them).",
        },
        OptionDoc { name: "norm", default: "\"linf\"", doc: "How the size of a change is measured: linf or l2." },
        OptionDoc { name: "epsilon", default: "0.1", doc: "Size of the change, over 0, in units of the features." },
        OptionDoc { name: "bounds", default: "[0.0, 1.0]", doc: "Least and largest value of a feature." },
        OptionDoc { name: "steps", default: "10", doc: "Steps of the attack where a rule takes several, at least 1." },
        OptionDoc { name: "beta", default: "3.0", doc: "Weight of robustness in trades and mart, 0 or more." },
    ],
};

/// How far the steps of an attack reach together, in units of epsilon.
const REACH: f64 = 2.0;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AdversarialTraining {
    rules: Vec<String>,
    norm: String,
    epsilon: f64,
    bounds: [f64; 2],
    steps: i64,
    beta: f64,
}

impl Default for AdversarialTraining {
    fn default() -> Self {
        Self {
            rules: vec!["trades".to_owned(), "fast".to_owned()],
            norm: "linf".to_owned(),
            epsilon: 0.1,
            bounds: [0.0, 1.0],
            steps: 10,
            // Of the values in table 4 of Zhang et al. for MNIST the first from which more gains little.
            beta: 3.0,
        }
    }
}

impl Remedy for AdversarialTraining {
    fn goals(&self) -> &'static [&'static str] {
        &["robust"]
    }

    fn propose(&self, case: &Case<'_>, _: &Context<'_>) -> Result<Vec<Candidate>, AuditError> {
        if self.steps < 1 {
            let message = format!("`steps` is {}; allowed: 1 or more", self.steps);
            return Err(AuditError::Option { id: CARD.id.to_owned(), message });
        }
        // Steps of the whole training, for schedules.
        let rows = case.subject.part(Part::Train).map_or(0, |d| d.len()) as u64;
        let steps =
            case.training().map_or(0, |t| t.recipe().epochs * rows.div_ceil(t.recipe().batch_size.max(1) as u64));
        self.rules.iter().map(|rule| self.candidate(rule, steps)).collect()
    }
}

impl AdversarialTraining {
    fn candidate(&self, rule: &str, all: u64) -> Result<Candidate, AuditError> {
        let gradient = self.gradient(rule, all)?;
        let registry = crate::training_registry();
        let method = netproof_train::Method { kind: rule.to_owned(), options: without_kind(&gradient) };
        registry.rules.build(&method, &registry)?;
        Ok(Candidate {
            name: format!("{rule}-{}-{}", self.norm, self.epsilon),
            what: format!("Trains by `{rule}` against changes of at most {} {}.", self.norm, self.epsilon),
            making: Making::Train(Retraining::new([
                Change::set("gradient", gradient),
                Change::set("monitor", "robust-accuracy"),
            ])),
        })
    }

    fn gradient(&self, rule: &str, all: u64) -> Result<toml::Table, AuditError> {
        let mut table = toml::Table::new();
        let mut set = |name: &str, value: toml::Value| {
            table.insert(name.to_owned(), value);
        };
        set("kind", rule.into());
        if rule == "awp" {
            set("of", self.gradient("trades", all)?.into());
            set("warm_up_epochs", 0.into());
            return Ok(table);
        }
        set("norm", self.norm.as_str().into());
        set("epsilon", self.epsilon.into());
        set("bounds", self.bounds.to_vec().into());
        match rule {
            "fast" | "free" => {}
            "ibp" | "crown-ibp" => {
                // The fractions of Gowal et al. 2019: 2,000 and 10,000 of 60,000 steps.
                set("warm_up_steps", ((all / 30) as i64).into());
                set("ramp_steps", ((all / 6) as i64).into());
            }
            "trades" | "mart" | "pgd-at" => {
                set("steps", self.steps.into());
                set("step_size", (REACH * self.epsilon / self.steps as f64).into());
                if rule != "pgd-at" {
                    set("beta", self.beta.into());
                }
            }
            other => {
                let message =
                    format!("`rules` has `{other}`; there are trades, fast, pgd-at, mart, free, awp, ibp, crown-ibp");
                return Err(AuditError::Option { id: CARD.id.to_owned(), message });
            }
        }
        Ok(table)
    }
}

fn without_kind(table: &toml::Table) -> toml::Table {
    table.iter().filter(|(k, _)| *k != "kind").map(|(k, v)| (k.clone(), v.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_makes_a_recipe() {
        let rules = ["trades", "fast", "pgd-at", "mart", "free", "awp", "ibp", "crown-ibp"];
        let own = AdversarialTraining { epsilon: 0.25, ..AdversarialTraining::default() };
        let registry = crate::training_registry();
        let base =
            netproof_train::Recipe::new(netproof_train::DataSection::new("a.npz"), netproof_train::Method::new("mlp"));
        for rule in rules {
            let candidate = own.candidate(rule, 600).unwrap();
            let Making::Train(retraining) = candidate.making else { panic!("{rule}") };
            let recipe = netproof_audit::changed(&base, &retraining.changes, &registry).unwrap();
            assert_eq!(recipe.gradient.kind, rule);
            assert_eq!(recipe.monitor, netproof_train::Monitor::RobustAccuracy);
        }
        assert!(own.candidate("mean", 600).unwrap_err().to_string().contains("there are trades"));
        let negative = AdversarialTraining { epsilon: -0.1, ..AdversarialTraining::default() };
        assert!(negative.candidate("fast", 600).unwrap_err().to_string().contains("epsilon"));
    }
}
