//! Half a cosine from the base learning rate down, step by step.
//! Loshchilov and Hutter, ICLR 2017, arXiv:1608.03983, equation 5, without restarts. Checked against: `CosineAnnealingLR` of
//! PyTorch 2.15.

use serde::Deserialize;

use super::{Position, Schedule, Setting, check_factor, cosine_between};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Schedule> = Entry {
    id: "cosine",
    summary: "half a cosine down to `end` (Loshchilov and Hutter 2017)",
    build: |options, _| {
        let own: Cosine = options.read()?;
        check_factor("end", own.end)?;
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Cosine {
    /// Factor after the last step.
    end: f64,
}

impl Schedule for Cosine {
    fn setting(&self, at: &Position) -> Setting {
        let part = at.step as f64 / at.total.max(1) as f64;
        cosine_between(1.0, self.end, part.min(1.0)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::check;
    use crate::method::Method;

    #[test]
    fn recorded_rates_of_pytorch() {
        let want = [
            1.0,
            0.977975432,
            0.914057647,
            0.814503364,
            0.689057647,
            0.55,
            0.410942353,
            0.285496636,
            0.185942353,
            0.122024568,
            0.1,
        ];
        check(&Method::new("cosine").with("end", 0.1), 10, 5, &want);
    }
}
