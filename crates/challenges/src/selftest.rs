//! What this build of Netproof can be held to, measured on networks that are built here: known values, theorems, and methods
//! that must fail. `netproof selftest` runs it on the user's machine, without data and without a network connection.

mod evidence;
mod networks;
mod statistics;
mod theorems;
mod values;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a case came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It holds; the text gives the largest error.
    Passed(String),
    /// It does not hold.
    Failed(String),
    /// This version has nothing that it could be said of.
    Absent(String),
}

/// One thing that must hold.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// `C1` to `C20`.
    pub id: &'static str,
    /// What must hold.
    pub what: &'static str,
    run: fn() -> Result<String, Failure>,
}

/// Why a case does not hold.
#[derive(Debug)]
pub(crate) enum Failure {
    Wrong(String),
    Absent(String),
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(e: E) -> Self {
        Self::Wrong(e.to_string())
    }
}

impl Case {
    /// Runs the case; a panic is a failure of this case alone.
    pub fn run(&self) -> Outcome {
        match catch_unwind(AssertUnwindSafe(self.run)) {
            Ok(Ok(text)) => Outcome::Passed(text),
            Ok(Err(Failure::Wrong(text))) => Outcome::Failed(text),
            Ok(Err(Failure::Absent(text))) => Outcome::Absent(text),
            Err(_) => Outcome::Failed("internal error; please report this".to_owned()),
        }
    }
}

/// What concerns fairness, of which this version has no checks and no remedies.
fn fairness() -> Result<String, Failure> {
    Err(Failure::Absent("of fairness, which this version has no checks of".to_owned()))
}

/// All cases.
pub static CASES: &[Case] = &[
    Case { id: "C1", what: "published values of explanations, within 1e-4", run: values::published },
    Case {
        id: "C2",
        what: "integrated gradients are complete on an MLP, a CNN and a transformer",
        run: theorems::completeness,
    },
    Case { id: "C3", what: "on a linear network all attributions are weight times input", run: theorems::linear },
    Case { id: "C4", what: "symmetry, dummy, and the same maps for equal networks", run: theorems::axioms },
    Case { id: "C5", what: "weights of quadrature and of areas sum to 1", run: values::quadrature },
    Case {
        id: "C6",
        what: "KernelSHAP is exact on all coalitions, sampling is unbiased within 4 standard errors",
        run: values::shapley,
    },
    Case { id: "C7", what: "LRP conserves relevance, across a residual sum too", run: theorems::conservation },
    Case { id: "C8", what: "a row's attributions do not depend on its batch, any method", run: theorems::batches },
    Case {
        id: "C9",
        what: "Grad-CAM's published values, and its layer in a residual network and a transformer",
        run: values::grad_cam,
    },
    Case {
        id: "C10",
        what: "attributions find a planted signal (AUROC at least 0.95), random ones do not",
        run: evidence::planted,
    },
    Case {
        id: "C11",
        what: "gradients pass randomisation; guided backpropagation and an edge detector fail",
        run: evidence::randomisation,
    },
    Case {
        id: "C12",
        what: "deletion and insertion rank an oracle above chance and chance as chance",
        run: evidence::curves,
    },
    Case { id: "C13", what: "group metrics of COMPAS, Adult and German credit", run: fairness },
    Case { id: "C14", what: "undefined groups, groups of one row, weights, direction of ratios", run: fairness },
    Case { id: "C15", what: "intervals at 95 % hold the true value in 93 to 97 % of draws", run: statistics::coverage },
    Case { id: "C16", what: "correlation remover leaves no correlation with three columns", run: fairness },
    Case { id: "C17", what: "reweighing makes the weighted parity difference 0", run: fairness },
    Case { id: "C18", what: "constrained learners meet their bounds", run: fairness },
    Case { id: "C19", what: "worst-group training lifts the worst group", run: fairness },
    Case { id: "C20", what: "the same seed gives the same bytes", run: evidence::bytes },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_its_number_and_what_is_missing_never_passes() {
        let ids: Vec<String> = (1..=20).map(|i| format!("C{i}")).collect();
        assert_eq!(CASES.iter().map(|c| c.id).collect::<Vec<_>>(), ids);
        for c in CASES.iter().filter(|c| ["C13", "C14", "C16", "C17", "C18", "C19"].contains(&c.id)) {
            assert!(matches!(c.run(), Outcome::Absent(_)), "{}", c.id);
        }
        let panics = Case { id: "C0", what: "panics", run: || panic!("on purpose") };
        assert!(matches!(panics.run(), Outcome::Failed(_)));
    }

    #[test]
    fn every_case_holds() {
        for c in CASES {
            let outcome = c.run();
            assert!(!matches!(outcome, Outcome::Failed(_)), "{}: {outcome:?}", c.id);
        }
    }
}
