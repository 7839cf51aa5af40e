//! Makes a candidate: trains it, or treats the network as it is.

use std::collections::HashSet;

use netproof_train::{Job, Recipe, average};

use super::{Bench, Made, Prepared, Proposal, REPAIR};
use crate::AuditError;
use crate::remedy::{Making, Retraining};
use crate::workshop::training_rows;

impl Prepared<'_> {
    pub(super) fn make(&self, proposal: &Proposal, bench: &Bench<'_>) -> Result<Option<Made>, AuditError> {
        let cx = self.context(&REPAIR, &proposal.candidate.name, bench.deadline, bench.progress, Some(bench.folder))?;
        cx.check_time()?;
        match (&proposal.candidate.making, &proposal.recipe) {
            (Making::Direct(direct), _) => {
                let model = (direct.0)(&self.choose, &cx)?;
                Ok(model.map(|model| Made { model, trainings: Vec::new() }))
            }
            (Making::Train(how), Some(recipe)) => self.train(how, recipe, &proposal.candidate.name, &cx).map(Some),
            (Making::Train(_), None) => Ok(None),
        }
    }

    fn train(
        &self,
        how: &Retraining,
        recipe: &Recipe,
        name: &str,
        cx: &crate::Context<'_>,
    ) -> Result<Made, AuditError> {
        let training = cx.training(self.subject)?;
        let rows = training_rows(self.subject)?;
        let rows = if how.without.is_empty() {
            rows.clone()
        } else {
            let without: HashSet<usize> = how.without.iter().copied().collect();
            let left: Vec<usize> = (0..rows.len()).filter(|r| !without.contains(r)).collect();
            rows.select(&left)?
        };
        let (mut models, mut trainings) = (Vec::new(), Vec::new());
        let members = how.members.max(recipe.members as usize).max(1);
        for member in 0..members {
            let own = Recipe { seed: recipe.seed + member as u64, members: 1, ..recipe.clone() };
            let mut network = training.network(&own, self.subject, own.seed)?;
            if let Some(before) = &how.before {
                network = (before.apply)(&network, own.seed)?;
            }
            let what =
                if members > 1 { format!("{name}, member {} of {members}", member + 1) } else { name.to_owned() };
            let job = Job::new(&own, network, rows.clone(), None)?;
            let trained = cx.train(&what, &own, job, training.registry())?;
            models.push(match &how.after {
                Some(after) => (after.apply)(&trained.model, own.seed)?,
                None => trained.model,
            });
            trainings.push((own, trained.record));
        }
        let model = average(recipe, models, training.registry())?;
        Ok(Made { model, trainings })
    }
}
