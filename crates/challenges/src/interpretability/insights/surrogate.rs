//! A surrogate: a shallow tree fitted to what the network says, with its fidelity on rows that it was not fitted to. Craven and
//! Shavlik, NeurIPS 1995; CART: Breiman et al. 1984. For tables. Checked: a network that is a tree of that depth is imitated
//! without an error. Weak: rules describe the network only as far as the fidelity says.

use netproof_core::{Card, CardKind, Challenge, Need, OptionDoc};
use netproof_stats::interval::proportion::proportion;
use netproof_stats::{Estimate, Level};
use serde::{Deserialize, Serialize};

use super::linear_surrogate::frequent;
use super::{Examiner, Inquiry, Insight, floats, said, table};
use crate::interpretability::{ExplainError, Explained};

pub(crate) static CARD: Card = Card {
    id: "surrogate",
    version: 1,
    kind: CardKind::Explanation,
    title: "Surrogate tree",
    challenge: Challenge::Interpretability,
    measures: "A shallow tree of rules that imitates the network, and on how many unseen rows it says the same.",
    reference: "Craven and Shavlik, NeurIPS 1995; Breiman, Friedman, Olshen and Stone 1984 (CART)",
    needs: &[Need::Classifier],
    options: &[
        OptionDoc { name: "depth", default: "4", doc: "Most questions on the way to a leaf, 1 to 10." },
        OptionDoc { name: "leaf", default: "20", doc: "Fewest rows in a leaf, at least 1." },
    ],
};

#[derive(Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Surrogate {
    depth: usize,
    leaf: usize,
}

impl Default for Surrogate {
    fn default() -> Self {
        Self { depth: 4, leaf: 20 }
    }
}

/// A tree of rules.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    /// Where `element <= at` holds the first branch follows, else the second.
    Split {
        /// Element of the row.
        element: usize,
        /// Threshold.
        at: f32,
        /// Both branches.
        branches: Box<[Self; 2]>,
    },
    /// A class, and how many rows were fitted here.
    Leaf {
        /// The class.
        class: usize,
        /// Rows that came here.
        rows: usize,
    },
}

/// On how many rows the tree says what the network says.
#[derive(Debug, Clone)]
pub struct Fidelity {
    /// The tree.
    pub tree: Tree,
    /// Fraction of unseen rows on which both agree, with its interval.
    pub agreement: Estimate,
    /// Fraction that would agree if always the network's most frequent answer were said.
    pub chance: f64,
}

impl Tree {
    /// Fits a tree to rows and classes by the Gini index.
    /// # Shapes
    /// `rows`: one slice per row, all of one length; `classes`: one per row
    pub fn fit(rows: &[&[f32]], classes: &[usize], depth: usize, leaf: usize) -> Self {
        let count = classes.iter().max().map_or(1, |m| m + 1);
        let all: Vec<usize> = (0..rows.len()).collect();
        Self::grow(rows, classes, count, all, depth, leaf.max(1))
    }

    fn grow(rows: &[&[f32]], classes: &[usize], count: usize, own: Vec<usize>, depth: usize, leaf: usize) -> Self {
        let mut totals = vec![0usize; count];
        own.iter().for_each(|&i| totals[classes[i]] += 1);
        let class = totals.iter().enumerate().rev().max_by_key(|(_, n)| **n).map_or(0, |(c, _)| c);
        let stop = Self::Leaf { class, rows: own.len() };
        if depth == 0 || totals[class] == own.len() || own.len() < 2 * leaf {
            return stop;
        }
        // Σ n_c² / n on each side: the higher, the purer.
        let whole = totals.iter().map(|&n| (n * n) as f64).sum::<f64>() / own.len() as f64;
        let mut best: Option<(f64, usize, f32)> = None;
        let width = rows.first().map_or(0, |r| r.len());
        let mut order = own.clone();
        for element in 0..width {
            order.sort_by(|&a, &b| rows[a][element].total_cmp(&rows[b][element]).then(a.cmp(&b)));
            let mut left = vec![0usize; count];
            for (k, &i) in order.iter().enumerate().take(order.len() - 1) {
                left[classes[i]] += 1;
                let (here, next) = (rows[i][element], rows[order[k + 1]][element]);
                let (n, m) = (k + 1, order.len() - k - 1);
                if here == next || n < leaf || m < leaf {
                    continue;
                }
                let side = |counts: &mut dyn Iterator<Item = usize>, n: usize| {
                    counts.map(|c| (c * c) as f64).sum::<f64>() / n as f64
                };
                let purity =
                    side(&mut left.iter().copied(), n) + side(&mut totals.iter().zip(&left).map(|(t, l)| t - l), m);
                if purity > whole + 1e-9 && best.is_none_or(|(p, _, _)| purity > p + 1e-12) {
                    best = Some((purity, element, here + 0.5 * (next - here)));
                }
            }
        }
        let Some((_, element, at)) = best else { return stop };
        let (yes, no): (Vec<usize>, Vec<usize>) = own.into_iter().partition(|&i| rows[i][element] <= at);
        if yes.is_empty() || no.is_empty() {
            return stop;
        }
        let branch = |own| Self::grow(rows, classes, count, own, depth - 1, leaf);
        match (branch(yes), branch(no)) {
            // A question whose answers say the same is none.
            (Self::Leaf { class: a, rows: n }, Self::Leaf { class: b, rows: m }) if a == b => {
                Self::Leaf { class: a, rows: n + m }
            }
            (yes, no) => Self::Split { element, at, branches: Box::new([yes, no]) },
        }
    }

    /// What the tree says of a row.
    pub fn predict(&self, row: &[f32]) -> usize {
        match self {
            Self::Leaf { class, .. } => *class,
            Self::Split { element, at, branches } => branches[usize::from(row[*element] > *at)].predict(row),
        }
    }

    /// One rule per leaf: the conditions on the way, the class, the rows.
    pub fn rules(&self, names: &[String]) -> Vec<(String, usize, usize)> {
        match self {
            Self::Leaf { class, rows } => vec![(String::new(), *class, *rows)],
            Self::Split { element, at, branches } => {
                let name = names.get(*element).cloned().unwrap_or_else(|| format!("element {element}"));
                let mut all = Vec::new();
                for (branch, sign) in branches.iter().zip(["≤", ">"]) {
                    for (rest, class, rows) in branch.rules(names) {
                        let here = format!("{name} {sign} {at}");
                        all.push((if rest.is_empty() { here } else { format!("{here} and {rest}") }, class, rows));
                    }
                }
                all
            }
        }
    }
}

impl Fidelity {
    /// Fits to one half of the rows and counts agreement on the other.
    pub fn measure(
        rows: &[&[f32]],
        said: &[usize],
        depth: usize,
        leaf: usize,
        seed: u64,
        level: Level,
    ) -> Option<Self> {
        let order = netproof_stats::rng::Rng::named(seed, "surrogate").permutation(rows.len());
        let (fitted, held) = order.split_at(rows.len() / 2);
        let pick = |of: &[usize]| {
            (of.iter().map(|&i| rows[i]).collect::<Vec<_>>(), of.iter().map(|&i| said[i]).collect::<Vec<_>>())
        };
        let (own, classes) = pick(fitted);
        if own.is_empty() || held.is_empty() {
            return None;
        }
        let tree = Tree::fit(&own, &classes, depth, leaf);
        let agree = held.iter().filter(|&&i| tree.predict(rows[i]) == said[i]).count();
        let agreement = proportion(agree as u64, held.len() as u64, level)?;
        Some(Self { tree, agreement, chance: frequent(fitted, held, said) })
    }
}

impl Examiner for Surrogate {
    fn examine(&self, net: &Explained<'_>, asked: &Inquiry) -> Result<Insight, ExplainError> {
        if !(1..=10).contains(&self.depth) {
            return Err(ExplainError::option("depth", self.depth, "1 to 10"));
        }
        if net.row_shape().len() != 1 {
            return Err(ExplainError::not_applicable("a surrogate of rules is for tables [n, columns]"));
        }
        let answers = said(net, asked)?;
        let kept: Vec<usize> = (0..asked.len()).filter(|&i| answers[i].is_some()).collect();
        let rows: Vec<&[f32]> = kept.iter().map(|&i| asked.known(i)).collect();
        let classes: Vec<usize> = kept.iter().filter_map(|&i| answers[i]).collect();
        let Some(f) = Fidelity::measure(&rows, &classes, self.depth, self.leaf, asked.q.seed, Level::P95) else {
            return Err(ExplainError::not_applicable("too few rows to fit a surrogate and to prove it"));
        };
        let columns: Vec<String> = (0..net.row_len()).map(|k| asked.column(k)).collect();
        let mut t = table("Rules of the tree", &["rule", "class", "rows fitted"]);
        t.rows = f
            .tree
            .rules(&columns)
            .into_iter()
            .map(|(rule, class, rows)| vec![rule.into(), class.into(), rows.into()])
            .collect();
        let interval = f.agreement.interval.map_or(String::new(), |i| format!(" ({:.3} to {:.3})", i.low, i.high));
        Ok(Insight {
            tables: vec![t],
            arrays: vec![("fidelity".to_owned(), floats(vec![2], [f.agreement.value, f.chance])?)],
            notes: vec![format!(
                "the tree says what the network says on {:.3}{interval} of {} unseen rows; always the most frequent answer: {:.3}",
                f.agreement.value, f.agreement.n, f.chance
            )],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_imitated_without_an_error() {
        let rows: Vec<[f32; 2]> = (0..400).map(|i| [(i % 20) as f32, (i / 20) as f32]).collect();
        let said: Vec<usize> = rows
            .iter()
            .map(|r| {
                if r[0] <= 6.5 {
                    0
                } else if r[1] <= 12.5 {
                    1
                } else {
                    2
                }
            })
            .collect();
        let rows: Vec<&[f32]> = rows.iter().map(|r| &r[..]).collect();
        let tree = Tree::fit(&rows, &said, 2, 1);
        assert!(rows.iter().zip(&said).all(|(r, s)| tree.predict(r) == *s));
        assert_eq!(tree.rules(&["a".into(), "b".into()])[0].0, "a ≤ 6.5");
        let f = Fidelity::measure(&rows, &said, 2, 5, 0, Level::P95).unwrap();
        assert!(f.agreement.value > 0.95 && f.chance < 0.5, "{f:?}");
        // One question cannot tell three classes apart.
        assert!(Fidelity::measure(&rows, &said, 1, 5, 0, Level::P95).unwrap().agreement.value < 0.9);
        assert!(Fidelity::measure(&[], &[], 1, 5, 0, Level::P95).is_none());
    }
}
