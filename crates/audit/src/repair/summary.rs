//! The plan as a person reads it and as a file keeps it.

use std::fmt::Write as _;

use netproof_data::Dataset;
use serde::Serialize;

use super::Prepared;
use crate::Part;
use crate::remedy::Making;

/// Layout of [`PlanSummary`].
pub const SCHEMA: &str = "netproof-repair/1";

/// What will be tried, before it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanSummary {
    /// [`SCHEMA`].
    pub schema: String,
    /// Ids of the goals.
    pub goals: Vec<String>,
    /// Training rows, rows to choose on, rows of the proof.
    pub rows: [usize; 3],
    /// Whether the recipe was given or made up.
    pub recipe_given: Option<bool>,
    /// The recipe before changes, where there is one.
    pub recipe: Option<String>,
    /// Of every random draw.
    pub seed: u64,
    /// Seconds for all candidates.
    pub budget: Option<f64>,
    /// Candidates of the first round.
    pub candidates: Vec<Proposed>,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// A candidate of the plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proposed {
    /// Its name.
    pub name: String,
    /// Id of the remedy.
    pub remedy: String,
    /// What is changed.
    pub what: String,
    /// Changes of the recipe; rewrites before and after.
    pub changes: Vec<String>,
    /// Networks that are trained; 0: none.
    pub trainings: usize,
    /// Training rows left out.
    pub without: usize,
}

impl Prepared<'_> {
    /// The plan, to be kept.
    pub fn summary(&self) -> PlanSummary {
        let training = self.subject.training();
        let candidates = self.proposals.iter().map(|p| {
            let (changes, trainings, without) = match &p.candidate.making {
                Making::Direct(_) => (Vec::new(), 0, 0),
                Making::Train(r) => {
                    let rewrites = [("before: ", &r.before), ("after: ", &r.after)];
                    let rewrites = rewrites.iter().filter_map(|(when, w)| Some(format!("{when}{}", w.as_ref()?.text)));
                    let changes = r.changes.iter().map(ToString::to_string).chain(rewrites).collect();
                    (changes, r.members.max(1), r.without.len())
                }
            };
            Proposed {
                name: p.candidate.name.clone(),
                remedy: p.remedy.to_owned(),
                what: p.candidate.what.clone(),
                changes,
                trainings,
                without,
            }
        });
        PlanSummary {
            schema: SCHEMA.to_owned(),
            goals: self.settings.goals.iter().map(|g| g.id.to_owned()).collect(),
            rows: [
                self.subject.part(Part::Train).map_or(0, Dataset::len),
                self.choose.data().len(),
                self.verify.data().len(),
            ],
            recipe_given: training.map(|t| t.is_given()),
            recipe: training.map(|t| t.recipe().to_toml()),
            seed: self.settings.seed,
            budget: self.settings.budget.map(|b| b.as_secs_f64()),
            candidates: candidates.collect(),
            notes: self.notes.clone(),
        }
    }
}

impl PlanSummary {
    /// The plan in words.
    pub fn text(&self) -> String {
        let mut text = format!("Plan for: {}\n", self.goals.join(", "));
        let [train, choose, prove] = self.rows;
        let _ = writeln!(text, "{train} rows to learn from, {choose} to choose on, {prove} for the proof");
        if let Some(given) = self.recipe_given {
            let _ = writeln!(
                text,
                "{}",
                if given { "Recipe: as given" } else { "Recipe: of our own, the same graph from fresh weights" }
            );
        }
        for c in &self.candidates {
            let _ = write!(text, "  {:<22} {}", c.name, c.what);
            let mut more = c.changes.clone();
            more.extend((c.without > 0).then(|| format!("without {} training rows", c.without)));
            more.extend((c.trainings > 1).then(|| format!("{} trainings", c.trainings)));
            if !more.is_empty() {
                let _ = write!(text, " ({})", more.join("; "));
            }
            text.push('\n');
        }
        if self.candidates.iter().filter(|c| c.trainings > 0).count() > 1 {
            text += "  then the best of these together\n";
        }
        self.notes.iter().for_each(|n| {
            let _ = writeln!(text, "  note: {n}");
        });
        text
    }
}
