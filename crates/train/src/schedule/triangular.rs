//! Up to the base learning rate and down to 0 along two straight lines.
//! Smith, WACV 2017, arXiv:1506.01186, with one cycle that ends at 0, as fast adversarial training uses it (Wong, Rice and
//! Kolter, ICLR 2020, arXiv:2001.03994, section 5). Checked against: closed form.

use serde::Deserialize;

use super::{Position, Schedule, Setting, check_factor};
use crate::method::Entry;

pub(super) const ENTRY: Entry<dyn Schedule> = Entry {
    id: "triangular",
    summary: "up to the base learning rate and down to 0 along two straight lines",
    build: |options, _| {
        let own: Triangular = options.read()?;
        check_factor("rise", own.rise)?;
        Ok(Box::new(own))
    },
};

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Triangular {
    /// Fraction of the steps in which the rate rises.
    rise: f64,
}

impl Default for Triangular {
    /// Of the paper on fast adversarial training.
    fn default() -> Self {
        Self { rise: 0.4 }
    }
}

impl Schedule for Triangular {
    fn setting(&self, at: &Position) -> Setting {
        let total = at.total.max(1) as f64;
        // The rate of a step is that of its end: the first step moves, the last one does not.
        let (done, top) = (((at.step + 1) as f64).min(total), self.rise * total);
        let factor = if done <= top { done / top } else { (total - done) / (total - top).max(f64::MIN_POSITIVE) };
        factor.into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::check;
    use crate::method::Method;

    #[test]
    fn factors_lie_on_two_lines() {
        check(
            &Method::new("triangular"),
            10,
            5,
            &[0.25, 0.5, 0.75, 1.0, 5.0 / 6.0, 4.0 / 6.0, 0.5, 2.0 / 6.0, 1.0 / 6.0, 0.0],
        );
        check(&Method::new("triangular").with("rise", 1.0), 4, 2, &[0.25, 0.5, 0.75, 1.0]);
        check(&Method::new("triangular").with("rise", 0.0), 4, 2, &[0.75, 0.5, 0.25, 0.0]);
    }
}
