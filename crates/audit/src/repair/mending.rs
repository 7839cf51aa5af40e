//! What a repair makes worse of goals that nobody asked for, mended where a treatment of the network can: one that is more
//! often right but no longer knows how sure it is gets a temperature.

use netproof_graph::Model;

use super::compare::Judgement;
use super::{Bench, Made, Prepared, Proposal, Tried};
use crate::AuditError;
use crate::remedy::{Candidate, Case, Goal, Making};

impl Prepared<'_> {
    /// The best candidate with a treatment after it, where that makes good what it made worse and costs the goals nothing.
    pub(super) fn mended(&self, best: &Tried, bench: &Bench<'_>) -> Result<Option<Tried>, AuditError> {
        let (Some(made), Some(limit)) = (&best.made, best.score) else { return Ok(None) };
        let own = self.choose.with_model(Model::from_file(made.model.to_file()?)?)?;
        let broken = self.measure(&own, bench.folder, bench.progress)?;
        let asked = |g: &Goal| self.settings.goals.iter().any(|own| own.id == g.id);
        for goal in self.settings.others.iter().filter(|g| !asked(g)) {
            let Some(aim) = goal.aims.iter().copied().find(|a| self.is_measured(a)) else { continue };
            let change = self.change(aim, [&self.choose, &own], [&bench.given, &broken]);
            if change.is_none_or(|c| c.judgement != Judgement::Worse) {
                continue;
            }
            for remedy in self.settings.remedies.iter().filter(|r| r.method.goals().contains(&goal.id)) {
                let (deadline, folder) = (bench.deadline, Some(bench.folder));
                let cx = self.context(remedy.card, &remedy.options, deadline, bench.progress, folder)?;
                for candidate in remedy.method.propose(&Case { subject: &own, findings: &[] }, &cx)? {
                    let Making::Direct(direct) = &candidate.making else { continue };
                    let Some(model) = (direct.0)(&own, &cx)? else { continue };
                    let first = &best.proposal;
                    let after = Candidate {
                        name: format!("{}+{}", first.candidate.name, candidate.name),
                        what: format!("The best so far, then this: {}", candidate.what),
                        making: candidate.making.clone(),
                    };
                    let proposal = Proposal { remedy: remedy.card.id, candidate: after, recipe: first.recipe.clone() };
                    let made = Made { model, trainings: made.trainings.clone() };
                    let tried = self.judged(proposal, made, bench)?;
                    let Some(made) = &tried.made else { continue };
                    let treated = self.choose.with_model(Model::from_file(made.model.to_file()?)?)?;
                    let now = self.measure(&treated, bench.folder, bench.progress)?;
                    let change = self.change(aim, [&own, &treated], [&broken, &now]);
                    let mends = change.is_some_and(|c| c.judgement == Judgement::Better);
                    if mends && tried.score.is_some_and(|s| s >= limit) {
                        return Ok(Some(tried));
                    }
                }
            }
        }
        Ok(None)
    }
}
