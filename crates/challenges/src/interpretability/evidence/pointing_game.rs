//! Pointing game: whether the largest attribution of a row lies on the object; beside the object's share of the row, which is
//! what random attributions reach. Zhang et al., ECCV 2016, arXiv:1608.00507, section 4.1. Checked against: closed forms.
//! Needs masks. Differs from the paper: no tolerance of 15 pixels around the object.

use netproof_core::{Card, CardKind, Challenge};

use super::ranks::largest;
use super::{Better, Case, Measured};
use crate::interpretability::ExplainError;

pub(super) static CARD: Card = Card {
    id: "pointing-game",
    version: 1,
    kind: CardKind::Evidence,
    title: "Pointing game",
    challenge: Challenge::Interpretability,
    measures: "Whether the largest attribution lies on the object; beside the object's share of the row.",
    reference: "Zhang, Lin, Brandt, Shen and Sclaroff, ECCV 2016, arXiv:1608.00507, section 4.1",
    needs: &[],
    options: &[],
};

pub(super) fn measure(case: &Case<'_, '_>) -> Result<Measured, ExplainError> {
    localised(case, |units, on| f64::from(u8::from(on[largest(units)[0]])))
}

/// A metric of maps and masks by unit, beside the object's share; undefined without an object, where everything is object, or
/// where a map is constant.
pub(super) fn localised(case: &Case<'_, '_>, value: impl Fn(&[f64], &[bool]) -> f64) -> Result<Measured, ExplainError> {
    let Some(masks) = case.bench.masks else {
        return Err(ExplainError::not_applicable("localisation needs masks of the object"));
    };
    let width = case.bench.net.row_len();
    let (mut values, mut random) = (Vec::new(), Vec::new());
    for i in 0..case.len() {
        let mask = &masks[i * width..(i + 1) * width];
        let on: Vec<bool> =
            (0..case.bench.units.len()).map(|u| case.bench.units.members(u).iter().any(|&e| mask[e])).collect();
        let count = on.iter().filter(|&&o| o).count();
        let units = case.units(i);
        let varies = units.iter().any(|&v| v != units[0]) && units.iter().all(|v| v.is_finite());
        let defined = count > 0 && count < on.len() && varies;
        values.push(if defined { value(&units, &on) } else { f64::NAN });
        random.push(if defined { count as f64 / on.len() as f64 } else { f64::NAN });
    }
    Ok(Measured { random: Some(random), ..Measured::plain(values, Better::Higher) })
}

#[cfg(test)]
mod tests {

    use super::super::test_support::{Fixed, on};
    use super::super::{relevance_mass, relevance_rank};
    use crate::interpretability::test_support::linear;

    #[test]
    fn maps_that_find_the_object_and_maps_that_miss_it() {
        on(&linear(&[1.0; 4], 0.0), &[[1.0; 4], [1.0; 4], [1.0; 4]], |bench| {
            let masks = [[true, true, false, false], [true, true, false, false], [false; 4]].concat();
            let bench = bench.with_masks(&masks).unwrap();
            let map = vec![5.0, 1.0, 2.0, -4.0, 0.0, 1.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0];
            let fixed = Fixed::new(map);
            let case = bench.case(&fixed).unwrap();
            let pointing = super::measure(&case).unwrap();
            assert_eq!(pointing.values[..2], [1.0, 0.0]);
            assert!(pointing.values[2].is_nan(), "no object");
            assert_eq!(pointing.random.unwrap()[..2], [0.5, 0.5]);
            let mass = relevance_mass::measure(&case).unwrap();
            assert!((mass.values[0] - 0.75).abs() < 1e-12 && (mass.values[1] - 0.125).abs() < 1e-12, "{mass:?}");
            let rank = relevance_rank::measure(&case).unwrap();
            assert_eq!(rank.values[..2], [0.5, 0.0]);
        });
    }

    #[test]
    fn without_masks_it_does_not_apply() {
        on(&linear(&[1.0; 2], 0.0), &[[1.0; 2]], |bench| {
            assert!(super::measure(&bench.case(&Fixed::new(vec![1.0, 2.0])).unwrap()).is_err());
        });
    }
}
