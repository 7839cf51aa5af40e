//! Rows that can be: what is kept of a changed row of a table, feature by feature.
//!
//! Budgets, bounds, directions and whole steps act on each feature alone, so clipping and rounding is the nearest row;
//! a one-hot group takes the category whose features are largest. Everything is relative to the clean row, which is
//! therefore always possible, whatever is declared. Simonetto et al., NeurIPS 2024, arXiv:2408.07579 (TabularBench),
//! section 3, for the kinds of constraints; relations between features are not among those here.

use netproof_audit::Subject;
use netproof_core::Constraints;
use serde::{Deserialize, Serialize};

use super::AttackError;
use super::projection::{Ball, distance};

/// What a feature may do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allowed {
    /// Whether it may grow.
    pub up: bool,
    /// Whether it may fall.
    pub down: bool,
    /// Largest change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most: Option<f32>,
    /// Changes are multiples of this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<f32>,
    /// Least and largest value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bounds: Option<[f32; 2]>,
}

impl Default for Allowed {
    fn default() -> Self {
        Self { up: true, down: true, most: None, step: None, bounds: None }
    }
}

/// What a changed row must keep, feature by feature.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Possible {
    /// One entry per feature.
    pub features: Vec<Allowed>,
    /// Groups of features of which exactly one is 1.
    pub groups: Vec<Vec<usize>>,
}

/// How far a value may be beyond what is allowed by rounding alone, relative to its size.
const ROUNDING: f64 = 1e-5;

impl Possible {
    /// What is declared, for rows of `len` features of these names.
    /// # Errors
    /// A name is none of a feature, a number makes no sense, or a feature is in two groups.
    pub fn of(declared: &Constraints, names: Option<&[String]>, len: usize) -> Result<Self, AttackError> {
        let find = |name: &str| find(name, names, len);
        let mut own = Self { features: vec![Allowed::default(); len], groups: Vec::new() };
        let mut each = |list: &[String], f: &dyn Fn(&mut Allowed)| -> Result<(), AttackError> {
            for name in list {
                find(name)?.into_iter().for_each(|i| f(&mut own.features[i]));
            }
            Ok(())
        };
        each(&declared.immutable, &|a| (a.up, a.down) = (false, false))?;
        each(&declared.increase, &|a| a.down = false)?;
        each(&declared.decrease, &|a| a.up = false)?;
        each(&declared.integer, &|a| a.step = Some(1.0))?;
        let number = |name: &str, what: &str, value: f64, fits: bool, allowed: &str| {
            let message = format!("the constraint `{what}` of `{name}` is {value}, it must be {allowed}");
            if fits && value.is_finite() { Ok(value as f32) } else { Err(AttackError::Mismatch(message)) }
        };
        for (name, &value) in &declared.steps {
            let step = number(name, "steps", value, value > 0.0, "above 0")?;
            find(name)?.into_iter().for_each(|i| own.features[i].step = Some(step));
        }
        for (name, &value) in &declared.budgets {
            let most = number(name, "budgets", value, value >= 0.0, "0 or more")?;
            find(name)?.into_iter().for_each(|i| own.features[i].most = Some(most));
        }
        for (name, &[low, high]) in &declared.bounds {
            let low = number(name, "bounds", low, true, "finite")?;
            let high = number(name, "bounds", high, high as f32 >= low, "at least the lower bound")?;
            find(name)?.into_iter().for_each(|i| own.features[i].bounds = Some([low, high]));
        }
        let mut taken = vec![false; len];
        for columns in &declared.one_hot {
            let mut group = Vec::new();
            for name in columns {
                group.append(&mut find(name)?);
            }
            group.sort_unstable();
            if let Some(i) = group.iter().find(|&&i| std::mem::replace(&mut taken[i], true)) {
                let name = names.and_then(|n| n.get(*i)).cloned().unwrap_or_else(|| i.to_string());
                return Err(AttackError::Mismatch(format!(
                    "the constraint `one_hot` names the feature `{name}` twice"
                )));
            }
            own.groups.push(group);
        }
        Ok(own)
    }

    /// What is declared of the rows of a subject, if anything.
    /// # Errors
    /// See [`Possible::of`].
    pub fn of_subject(subject: &Subject, len: usize) -> Result<Option<Self>, AttackError> {
        let declared = subject.constraints().filter(|c| !c.is_empty());
        declared.map(|c| Self::of(c, subject.data().feature_names(), len)).transpose()
    }

    /// Whether a feature cannot change.
    pub fn is_fixed(&self, feature: usize) -> bool {
        self.features.get(feature).is_some_and(|a| !a.up && !a.down)
    }

    /// The least and the largest value of a feature whose clean value is `o`, which is always allowed.
    fn ends(&self, feature: usize, o: f32) -> [f32; 2] {
        let a = self.features[feature];
        let [low, high] = a.bounds.unwrap_or([f32::NEG_INFINITY, f32::INFINITY]);
        let most = a.most.unwrap_or(f32::INFINITY);
        let low = if a.down { low.max(o - most) } else { o };
        let high = if a.up { high.min(o + most) } else { o };
        [low.min(o), high.max(o)]
    }

    /// Moves `x` to a near row that can be, given the clean row; within `ball` where it is given and `x` is.
    ///
    /// # Shapes   both `[features]`
    pub fn project(&self, origin: &[f32], x: &mut [f32], ball: Option<&Ball>) {
        let wanted = x.to_vec();
        self.numbers(origin, x, ball, f64::round);
        for &i in self.groups.iter().flatten() {
            x[i] = origin[i];
        }
        let within = |x: &[f32]| {
            ball.is_none_or(|b| {
                distance(b.norm, origin, x) <= f64::from(b.epsilon) * (1.0 + 1e-6) + f64::from(f32::EPSILON)
            })
        };
        if !within(x) {
            // Rounding led out of the ball; towards the clean row it cannot.
            x.copy_from_slice(&wanted);
            self.numbers(origin, x, ball, f64::trunc);
            for &i in self.groups.iter().flatten() {
                x[i] = origin[i];
            }
        }
        // Categories that are wanted most come first, as long as there is room for them.
        let mut turns: Vec<(f32, usize, usize)> =
            self.groups.iter().filter_map(|g| self.turn(g, origin, &wanted)).collect();
        turns.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for (_, from, to) in turns {
            (x[from], x[to]) = (0.0, 1.0);
            if !within(x) {
                (x[from], x[to]) = (1.0, 0.0);
            }
        }
    }

    fn numbers(&self, origin: &[f32], x: &mut [f32], ball: Option<&Ball>, whole: fn(f64) -> f64) {
        for (i, (x, &o)) in x.iter_mut().zip(origin).enumerate() {
            let [mut low, mut high] = self.ends(i, o);
            if let Some(b) = ball {
                (low, high) = (low.max(b.low.min(o)), high.min(b.high.max(o)));
            }
            *x = if x.is_nan() { o } else { x.clamp(low, high) };
            if let Some(step) = self.features[i].step {
                let step = f64::from(step);
                let mut k = whole((f64::from(*x) - f64::from(o)) / step);
                let at = |k: f64| (f64::from(o) + k * step) as f32;
                while k != 0.0 && !(low..=high).contains(&at(k)) {
                    k -= k.signum();
                }
                *x = at(k);
            }
        }
    }

    /// How much another category of a group is wanted more than the present one, and both; nothing where the present
    /// one is, where it cannot change, or where the clean row has none.
    fn turn(&self, group: &[usize], origin: &[f32], wanted: &[f32]) -> Option<(f32, usize, usize)> {
        let from = self.category(group, origin)?;
        if !self.features[from].down {
            return None;
        }
        let others = group.iter().copied().filter(|&i| i != from && self.features[i].up && wanted[i] > wanted[from]);
        let to = others.max_by(|&a, &b| wanted[a].total_cmp(&wanted[b]).then(b.cmp(&a)))?;
        Some((wanted[to] - wanted[from], from, to))
    }

    /// The feature of a group that is 1, where all others are 0.
    fn category(&self, group: &[usize], row: &[f32]) -> Option<usize> {
        let one = group.iter().copied().find(|&i| row[i] == 1.0)?;
        group.iter().all(|&i| i == one || row[i] == 0.0).then_some(one)
    }

    /// What of a changed row cannot be.
    pub fn violation(&self, origin: &[f32], x: &[f32]) -> Option<String> {
        for (i, (&v, &o)) in x.iter().zip(origin).enumerate() {
            let [low, high] = self.ends(i, o).map(f64::from);
            let (v, o) = (f64::from(v), f64::from(o));
            let slack = ROUNDING * v.abs().max(o.abs()).max(1e-3);
            if !(low - slack..=high + slack).contains(&v) {
                return Some(format!("feature {i} went from {o} to {v}, allowed is {low} to {high}"));
            }
            if let Some(step) = self.features[i].step.map(f64::from) {
                let k = (v - o) / step;
                if (k - k.round()).abs() * step > slack {
                    return Some(format!("feature {i} went from {o} to {v}, which is no multiple of {step}"));
                }
            }
        }
        let changed = |g: &&Vec<usize>| g.iter().any(|&i| x[i] != origin[i]);
        let group = self.groups.iter().filter(changed).find(|g| self.category(g, x).is_none())?;
        Some(format!("of the features {group:?} not exactly one is 1"))
    }
}

/// The features of a name.
fn find(name: &str, names: Option<&[String]>, len: usize) -> Result<Vec<usize>, AttackError> {
    let named = |fits: &dyn Fn(&str) -> bool| -> Vec<usize> {
        names.unwrap_or_default().iter().enumerate().filter(|(_, n)| fits(n)).map(|(i, _)| i).collect()
    };
    let mut found = named(&|n| n == name || n.strip_prefix(name).is_some_and(|rest| rest.starts_with('=')));
    if let Some(start) = name.strip_suffix('*') {
        found = named(&|n| n.starts_with(start));
    }
    if found.is_empty() {
        let number = |t: &str| t.trim().parse::<usize>().ok();
        found = match name.split_once("..") {
            Some((from, to)) => number(from).zip(number(to)).map(|(a, b)| (a..b).collect()).unwrap_or_default(),
            None => number(name).into_iter().collect(),
        };
        found.retain(|&i| i < len);
    }
    if found.is_empty() {
        let known = names.map_or_else(|| format!("numbers from 0 to {}", len.saturating_sub(1)), |n| n.join(", "));
        return Err(AttackError::Mismatch(format!(
            "the constraints name `{name}`, which is no feature; there are {known}"
        )));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use netproof_core::Norm;
    use netproof_stats::rng::Rng;

    use super::*;

    fn names() -> Vec<String> {
        ["age", "hours", "gain", "job=a", "job=b", "job=c", "sex"].map(str::to_owned).to_vec()
    }

    fn declared() -> Constraints {
        declaring(|c| {
            c.immutable = vec!["sex".to_owned()];
            c.increase = vec!["age".to_owned()];
            c.integer = vec!["age".to_owned(), "hours".to_owned()];
            c.budgets.insert("hours".to_owned(), 5.5);
            c.bounds.insert("gain".to_owned(), [0.0, 2.0]);
            c.one_hot = vec![vec!["job".to_owned()]];
        })
    }

    fn declaring(f: impl FnOnce(&mut Constraints)) -> Constraints {
        let mut c = Constraints::default();
        f(&mut c);
        c
    }

    fn possible() -> Possible {
        Possible::of(&declared(), Some(&names()), 7).unwrap()
    }

    const ORIGIN: [f32; 7] = [30.0, 40.0, 0.5, 0.0, 1.0, 0.0, 1.0];

    #[test]
    fn each_kind_of_constraint_has_its_closed_form() {
        let p = possible();
        let mut x = [28.0, 46.7, -1.0, 0.9, 0.2, 0.4, 0.0];
        p.project(&ORIGIN, &mut x, None);
        assert_eq!(x, [30.0, 45.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
        let mut x = [33.4, 38.6, 9.0, 0.0, 1.0, 0.0, f32::NAN];
        p.project(&ORIGIN, &mut x, None);
        assert_eq!(x, [33.0, 39.0, 2.0, 0.0, 1.0, 0.0, 1.0]);
        assert!(p.is_fixed(6) && !p.is_fixed(0));
    }

    #[test]
    fn what_is_projected_can_be_stays_and_is_within_the_ball() {
        let (p, mut rng) = (possible(), Rng::new(4));
        for norm in Norm::OF_VECTORS {
            for epsilon in [0.0, 0.4, 1.5, 3.0] {
                let ball = Ball { norm, epsilon, low: -100.0, high: 100.0 };
                for _ in 0..200 {
                    let mut x: Vec<f32> = ORIGIN.iter().map(|o| o + (4.0 * rng.normal()) as f32).collect();
                    ball.project(&ORIGIN, &mut x);
                    p.project(&ORIGIN, &mut x, Some(&ball));
                    assert_eq!(p.violation(&ORIGIN, &x), None);
                    assert!(distance(norm, &ORIGIN, &x) <= f64::from(epsilon) + 1e-4, "{norm} {epsilon}: {x:?}");
                    let mut again = x.clone();
                    p.project(&ORIGIN, &mut again, Some(&ball));
                    assert_eq!(again, x, "{norm} {epsilon}");
                }
            }
        }
    }

    #[test]
    fn every_violation_is_found() {
        let p = possible();
        assert_eq!(p.violation(&ORIGIN, &ORIGIN), None);
        for (i, v, word) in [
            (0, 29.0, "allowed is 30"),
            (0, 30.5, "no multiple"),
            (1, 46.0, "allowed is"),
            (2, 2.5, "allowed is 0 to 2"),
            (2, f32::NAN, "NaN"),
            (3, 1.0, "exactly one"),
            (4, 0.0, "exactly one"),
            (6, 0.0, "allowed is 1 to 1"),
        ] {
            let mut x = ORIGIN;
            x[i] = v;
            let found = p.violation(&ORIGIN, &x).unwrap_or_default();
            assert!(found.contains(word), "{i} {v}: {found}");
        }
    }

    #[test]
    fn a_fixed_category_stays_and_a_row_without_one_is_left_alone() {
        let c = declaring(|c| {
            c.immutable = vec!["job=b".to_owned()];
            c.one_hot = vec![vec!["job".to_owned()]];
        });
        let p = Possible::of(&c, Some(&names()), 7).unwrap();
        let mut x = ORIGIN;
        x[3] = 7.0;
        p.project(&ORIGIN, &mut x, None);
        assert_eq!(x, ORIGIN);
        let mut none = ORIGIN;
        none[4] = 0.0;
        let mut x = none;
        x[3] = 7.0;
        p.project(&none, &mut x, None);
        assert_eq!(x, none);
    }

    #[test]
    fn names_are_columns_features_numbers_and_ranges() {
        let n = names();
        let at = |name: &str| find(name, Some(&n), 7);
        assert_eq!(at("job").unwrap(), [3, 4, 5]);
        assert_eq!(at("job=b").unwrap(), [4]);
        assert_eq!((at("ho*").unwrap(), at("2").unwrap(), at("3..5").unwrap()), (vec![1], vec![2], vec![3, 4]));
        assert!(at("jo").unwrap_err().to_string().contains("there are age, hours"));
        assert!(find("9", None, 7).unwrap_err().to_string().contains("numbers from 0 to 6"));
        for bad in [
            declaring(|c| c.one_hot = vec![vec!["job".to_owned()], vec!["job=a".to_owned()]]),
            declaring(|c| c.budgets = [("age".to_owned(), -1.0)].into()),
            declaring(|c| c.steps = [("age".to_owned(), 0.0)].into()),
            declaring(|c| c.bounds = [("age".to_owned(), [2.0, 1.0])].into()),
        ] {
            assert!(matches!(Possible::of(&bad, Some(&n), 7), Err(AttackError::Mismatch(_))), "{bad:?}");
        }
    }
}
