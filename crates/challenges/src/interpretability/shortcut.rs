//! Whether one small place decides: a corner, a border, a patch, or one column of a table. The place is cut out of a row of
//! another class and put into a row; how far that moves the log-odds from the row's class to the other's, of what putting in
//! the whole other row moves them, is the place's share of the decision. The place is sought on some rows and measured on
//! others, so that the search does not flatter it. Shortcuts: Geirhos et al., Nature Machine Intelligence 2, 2020,
//! arXiv:2004.07780; marks in corners: Lapuschkin et al., Nature Communications 10, 2019, arXiv:1902.10178.
//! A patch that carries too much is a concern where it is a mark, that is, where what varies in it goes with the label: parts of an
//! object differ from row to row of a class. This is asked of the patch's core, the smallest window in it that carries nine
//! tenths of its share, so that a mark is not diluted by what is beside it.
//! Checked against: a network trained on images with the class in a corner block (0.16 for 2 % of the image), four networks
//! trained without (at most 0.08); closed forms on linear networks.
//! Weak: a place that every class shares cannot be seen; a shortcut spread thinly over the image is no place. Where a small
//! part of the object rightly decides, the answer is inconclusive: look at the place.

use netproof_audit::{AuditError, Check, Context, Findings, Subject};
use netproof_core::{
    Card, CardKind, Challenge, Comparison, Evidence, Finding, Need, OptionDoc, Table, Threshold, Verdict,
};
use netproof_stats::Estimate;
use netproof_stats::bootstrap::{Method, Options, bootstrap};
use netproof_stats::rng::Rng;
use serde::{Deserialize, Serialize};

use super::assess::{self, Rows, affordable, cell};
use super::{ExplainError, Explained, Features, Question, explain, explanation};

pub(crate) static CARD: Card = Card {
    id: "shortcut",
    version: 2,
    kind: CardKind::Check,
    title: "Shortcuts",
    challenge: Challenge::Interpretability,
    measures: "Whether one small place of an image (patch, corner, border) or one column of a table decides: its share of the \
               decision, from exchanging it between rows of different classes.",
    reference: "Geirhos et al., Nature Machine Intelligence 2, 2020, arXiv:2004.07780; Lapuschkin et al., Nature Communications \
                10, 2019, arXiv:1902.10178",
    needs: &[Need::Labels, Need::Classifier],
    options: &[
        OptionDoc {
            name: "rows",
            default: "320",
            doc: "Rows, evenly spaced: a fifth to search, the rest to measure; at least 20.",
        },
        OptionDoc {
            name: "most_times",
            default: "6.0",
            doc: "Largest share of the decision of a patch without concern, in times its share of the image; at most one half.",
        },
        OptionDoc { name: "most_border", default: "0.5", doc: "Largest share of the border without concern, 0 to 1." },
        OptionDoc { name: "most_column", default: "0.75", doc: "Largest share of one column without concern, 0 to 1." },
    ],
};

/// Fraction of the variance of a place's core that goes with the label, from which on it is called a mark; a convention: a mark is
/// the same in all rows of a class (1), the parts of an object are not (no pixel of Fashion-MNIST reaches 0.67).
const MARK: f64 = 0.8;

/// Part of a patch's share that its core carries.
const CORE: f64 = 0.9;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Shortcut {
    rows: usize,
    most_times: f64,
    most_border: f64,
    most_column: f64,
}

impl Default for Shortcut {
    fn default() -> Self {
        Self { rows: 320, most_times: 6.0, most_border: 0.5, most_column: 0.75 }
    }
}

/// A place in a row.
struct Place {
    name: String,
    elements: Vec<usize>,
    kind: Kind,
    /// First and last row, first and last column of a patch.
    window: Option<[usize; 4]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Patch,
    Border,
    Column,
}

impl Kind {
    fn id(self) -> &'static str {
        match self {
            Self::Patch => "patch",
            Self::Border => "border",
            Self::Column => "column",
        }
    }
}

impl Check for Shortcut {
    fn run(&self, subject: &Subject, cx: &Context<'_>) -> Result<Findings, AuditError> {
        let net = Explained::of(subject)?;
        // Few rows tell which columns belong together.
        let few = assess::rows(subject, &net, 20, cx.seed)?;
        let places = places(net.row_shape(), few.question.features.as_ref());
        if places.len() < 2 {
            let f = cx.finding("places", CARD.title).verdict(Verdict::NotApplicable);
            let why = "Rows are neither images nor tables of several columns.";
            return Ok(vec![f.explain(why).done()].into());
        }
        let (count, fewer) = affordable(&net, self.rows.max(20), places.len() / 4 + 4);
        let rows = assess::rows(subject, &net, count, cx.seed)?;
        let mut kinds = vec![Kind::Patch, Kind::Border, Kind::Column];
        kinds.retain(|k| places.iter().any(|p| p.kind == *k));
        let mut findings = Vec::new();
        for kind in kinds {
            cx.check_time()?;
            let of_kind: Vec<&Place> = places.iter().filter(|p| p.kind == kind).collect();
            findings.push(self.finding(subject, cx, &net, &rows, &of_kind, fewer.clone())?);
        }
        Ok(findings.into())
    }
}

/// Pairs of a row and a donor whose decision is another class.
fn pairs(q: &Question, rows: &[usize], class: Option<usize>, seed: u64) -> Vec<(usize, usize)> {
    let mut rng = Rng::named(seed, "donors");
    rows.iter()
        .filter_map(|&i| {
            let other = |j: &usize| q.targets[*j] != q.targets[i] && class.is_none_or(|c| q.targets[*j] == c);
            let donors: Vec<usize> = rows.iter().copied().filter(other).collect();
            // One draw per row, whether it is used or not.
            let at = rng.unit();
            (!donors.is_empty()).then(|| (i, donors[((at * donors.len() as f64) as usize).min(donors.len() - 1)]))
        })
        .collect()
}

/// What exchanging a place does to pairs of rows.
struct Moves {
    /// Change of the log-odds from the row's class to the donor's, per pair.
    by: Vec<f64>,
    /// Pairs whose prediction changes.
    changed: usize,
}

/// Log-odds of the donor's class over the row's, with some elements taken from the donor.
fn moves(
    net: &Explained<'_>,
    q: &Question,
    elements: &[usize],
    pairs: &[(usize, usize)],
    before: Option<&[f64]>,
) -> Result<Moves, ExplainError> {
    let answers = net.answers(q, pairs.len(), |i, row| {
        let (to, from) = pairs[i];
        row.copy_from_slice(q.row(to));
        elements.iter().for_each(|&e| row[e] = q.row(from)[e]);
        to
    })?;
    let width = answers.len().checked_div(pairs.len()).unwrap_or(1).max(1);
    let mut found = Moves { by: Vec::with_capacity(pairs.len()), changed: 0 };
    for (i, (row, &(to, from))) in answers.chunks(width).zip(pairs).enumerate() {
        let odds = net.score(row, q.targets[from]) - net.score(row, q.targets[to]);
        found.by.push(odds - before.map_or(0.0, |b| b[i]));
        found.changed += usize::from(net.predicted(row) != Some(q.targets[to]));
    }
    Ok(found)
}

/// Pairs with the log-odds before, and by how much the whole other row moves them.
struct Exchange {
    pairs: Vec<(usize, usize)>,
    before: Vec<f64>,
    whole: Vec<f64>,
}

impl Exchange {
    fn new(net: &Explained<'_>, q: &Question, pairs: Vec<(usize, usize)>) -> Result<Self, ExplainError> {
        let before = moves(net, q, &[], &pairs, None)?.by;
        let all: Vec<usize> = (0..net.row_len()).collect();
        let whole = moves(net, q, &all, &pairs, Some(&before))?.by;
        Ok(Self { pairs, before, whole })
    }

    fn of(&self, net: &Explained<'_>, q: &Question, place: &Place) -> Result<Moves, ExplainError> {
        moves(net, q, &place.elements, &self.pairs, Some(&self.before))
    }

    /// Share of the decision over some pairs: ratio of means.
    fn share(&self, by: &[f64], pairs: impl Iterator<Item = usize>) -> Option<f64> {
        let (mut part, mut whole) = (0.0, 0.0);
        for k in pairs {
            part += by[k];
            whole += self.whole[k];
        }
        (whole > 0.0).then(|| part / whole).filter(|s| s.is_finite())
    }
}

impl Shortcut {
    /// Largest share without concern, and where it is from.
    fn limit(&self, place: &Place, row: usize) -> (f64, &'static str) {
        match place.kind {
            Kind::Column => {
                (self.most_column, "option `most_column`; a column may weigh much, but hardly decide alone")
            }
            Kind::Border => {
                (self.most_border, "option `most_border`; half of the decision on the border is a convention")
            }
            Kind::Patch => {
                let even = place.elements.len() as f64 / row.max(1) as f64;
                (
                    (self.most_times * even).min(0.5),
                    "option `most_times`, a convention: times the patch's share of the image",
                )
            }
        }
    }

    fn finding(
        &self,
        subject: &Subject,
        cx: &Context<'_>,
        net: &Explained<'_>,
        rows: &Rows,
        places: &[&Place],
        fewer: Option<String>,
    ) -> Result<Finding, AuditError> {
        let q = &rows.question;
        let what = match places[0].kind {
            Kind::Patch => "Share of one patch in the decision",
            Kind::Border => "Share of the border in the decision",
            Kind::Column => "Share of one column in the decision",
        };
        let draft = cx.finding(places[0].kind.id(), what).caveats(fewer);
        let (search, measure): (Vec<usize>, Vec<usize>) = (0..q.len()).partition(|i| i % 5 == 0);
        let sought = Exchange::new(net, q, pairs(q, &search, None, cx.seed))?;
        if sought.pairs.len() < 4 {
            let why = "The network says the same class of nearly all rows, so that nothing can be exchanged.";
            return Ok(draft.verdict(Verdict::Inconclusive).explain(why).done());
        }
        // The place with the largest share; and the one with the largest share among donors of one class, for a mark that
        // only one class has.
        let classes: std::collections::BTreeSet<usize> = search.iter().map(|&i| q.targets[i]).collect();
        let (mut best, mut marked): ((usize, f64), Option<(usize, usize, f64)>) = ((0, f64::NEG_INFINITY), None);
        for (p, place) in places.iter().enumerate() {
            let found = sought.of(net, q, place)?;
            let share = sought.share(&found.by, 0..found.by.len()).unwrap_or(f64::NEG_INFINITY);
            if share > best.1 {
                best = (p, share);
            }
            for &class in &classes {
                let of: Vec<usize> =
                    (0..sought.pairs.len()).filter(|&k| q.targets[sought.pairs[k].1] == class).collect();
                let share = sought.share(&found.by, of.iter().copied()).unwrap_or(f64::NEG_INFINITY);
                if of.len() >= 4 && marked.is_none_or(|(_, _, m)| share > m) {
                    marked = Some((p, class, share));
                }
            }
        }
        let measured = |place: &Place, class: Option<usize>| -> Result<_, AuditError> {
            let exchange = Exchange::new(net, q, pairs(q, &measure, class, cx.seed ^ 1))?;
            let found = exchange.of(net, q, place)?;
            let options = Options { resamples: 1000, seed: cx.seed, level: cx.level, method: Method::Bca };
            let share = bootstrap(found.by.len(), &options, |rows| exchange.share(&found.by, rows.iter().copied()))?;
            Ok(share.map(|b| (b.estimate, found.changed as f64 / found.by.len() as f64, exchange)))
        };
        let Some(overall) = measured(places[best.0], None)? else {
            let why = "The network decides the same whatever the row is, so that no place has a share.";
            return Ok(draft.verdict(Verdict::Inconclusive).explain(why).done());
        };
        let low = |e: &Estimate| e.interval.map_or(e.value, |i| i.low);
        let high = |e: &Estimate| e.interval.map_or(e.value, |i| i.high);
        let mut place = places[best.0];
        let (mut e, mut changed, mut exchange) = overall;
        let (mut limit, mut source) = self.limit(place, net.row_len());
        let mut whose = "rows of other classes".to_owned();
        if low(&e) <= limit
            && let Some((p, class, _)) = marked
            && let Some((of_class, changes, among)) = measured(places[p], Some(class))?
        {
            let (l, s) = self.limit(places[p], net.row_len());
            if low(&of_class) > l {
                (place, e, changed, exchange, limit, source) = (places[p], of_class, changes, among, l, s);
                whose = format!("rows of class {}", subject.class_name(class));
            }
        }
        let core = core(net, q, &exchange, place)?;
        let coded = coded_by_label(rows, &measure, core.as_ref().map_or(&place.elements, |c| &c.elements));
        let within = core.as_ref().map_or("what varies there", |_| "what varies in its core");
        let verdict = match (low(&e) > limit, high(&e) <= limit) {
            // What differs from row to row of a class may be a part of the object.
            (true, _) if place.kind != Kind::Column && coded.is_none_or(|c| c < MARK) => Verdict::Inconclusive,
            (true, _) => Verdict::Concern,
            (_, true) => Verdict::Pass,
            _ => Verdict::Inconclusive,
        };
        let share = place.elements.len() as f64 / net.row_len().max(1) as f64;
        let attributed = attribution_share(net, q, &measure, place);
        let mut text = format!(
            "{} is {:.1} % of a row and carries {:.1} % of the decision ({}): taken from {whose} into a row, it moves the \
             log-odds so far towards their class, and changes {:.1} % of the predictions.{}",
            place.name,
            100.0 * share,
            100.0 * e.value,
            percent_range(&e),
            100.0 * changed,
            if places.len() > 1 { " No other place sought carries more." } else { "" }
        );
        if verdict == Verdict::Concern {
            text += " Look at what is there: a mark that goes with the class in these data will not be there, or will mislead, in \
                     others.";
            if let Some(coded) = coded.filter(|&c| c > 0.5) {
                text += &format!(" {:.0} % of {within} goes with the label.", 100.0 * coded);
            }
        }
        if verdict == Verdict::Inconclusive && low(&e) > limit {
            text += &format!(
                " That is more than {:.1} %, but only {:.0} % of {within} goes with the label, where a mark would be the same in \
                 all rows of a class: it may be a part of the object. Look at what is there.",
                100.0 * limit,
                100.0 * coded.unwrap_or(0.0)
            );
        }
        if let Some(core) = &core {
            text += &format!(" Its core, with nine tenths of that or more: {}.", core.name);
        }
        let cells = vec![
            vec!["share of a row".into(), cell(Some(share))],
            vec!["share of the decision, where it was sought".into(), cell(Some(best.1))],
            vec!["share of the decision, on other rows".into(), cell(Some(e.value))],
            vec!["predictions that it changes".into(), cell(Some(changed))],
            vec!["share of integrated gradients".into(), cell(attributed)],
            vec![format!("fraction of {within} that goes with the label").into(), cell(coded)],
        ];
        let ids: Vec<u64> = measure.iter().map(|&i| q.rows[i]).take(10).collect();
        let mut draft =
            draft.verdict(verdict).estimate("decision_share", "fraction", &e).explain(text).evidence(Table {
                title: place.name.clone(),
                columns: ["what", "value"].map(str::to_owned).to_vec(),
                rows: cells,
            });
        if low(&e) > limit {
            draft = draft.evidence(Evidence::Rows { title: "Rows to look at".to_owned(), ids });
        }
        if verdict == Verdict::Inconclusive {
            return Ok(draft.done());
        }
        let threshold = Threshold { value: limit, comparison: Comparison::AtMost, source: source.to_owned() };
        Ok(draft.threshold(threshold).done())
    }
}

fn percent_range(e: &Estimate) -> String {
    e.interval.map_or_else(|| "no interval".to_owned(), |i| format!("{:.1} to {:.1} %", 100.0 * i.low, 100.0 * i.high))
}

/// Share of the magnitude of integrated gradients that falls on a place, mean over at most 12 rows.
fn attribution_share(net: &Explained<'_>, q: &Question, rows: &[usize], place: &Place) -> Option<f64> {
    let few: Vec<usize> = rows.iter().copied().take(12).collect();
    let q = q.select(&few).ok()?;
    let method = explanation("integrated-gradients", toml::from_str("steps = 20").ok()?).ok()?;
    let e = explain(&*method.method, net, &q).ok()?;
    let shares: Vec<f64> = e
        .attributions
        .as_f32()?
        .chunks(net.row_len().max(1))
        .filter_map(|row| {
            let total: f64 = row.iter().map(|v| f64::from(v.abs())).sum();
            let inside: f64 = place.elements.iter().map(|&i| f64::from(row[i].abs())).sum();
            (total > 0.0 && total.is_finite()).then(|| inside / total)
        })
        .collect();
    (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
}

/// The smallest window inside a patch that still carries [`CORE`] of its share: sides are taken off while that holds. `None` for
/// other places, and where nothing can be taken off.
fn core(net: &Explained<'_>, q: &Question, exchange: &Exchange, place: &Place) -> Result<Option<Place>, ExplainError> {
    let (Some(mut window), &[_, h, w]) = (place.window, net.row_shape()) else { return Ok(None) };
    let share = |window: [usize; 4]| -> Result<(f64, Place), ExplainError> {
        let inside = place.elements.iter().copied().filter(|e| within(window, e % (h * w) / w, e % w));
        let [top, bottom, left, right] = window;
        let part = Place {
            name: format!("rows {top} to {bottom}, columns {left} to {right}"),
            elements: inside.collect(),
            kind: place.kind,
            window: Some(window),
        };
        let by = exchange.of(net, q, &part)?.by;
        Ok((exchange.share(&by, 0..by.len()).unwrap_or(f64::NEG_INFINITY), part))
    };
    let wanted = CORE * share(window)?.0;
    let mut found = None;
    loop {
        let mut best: Option<(f64, Place)> = None;
        for side in 0..4 {
            let [top, bottom, left, right] = window;
            let smaller = match side {
                0 => [top + 1, bottom, left, right],
                1 => [top, bottom.wrapping_sub(1), left, right],
                2 => [top, bottom, left + 1, right],
                _ => [top, bottom, left, right.wrapping_sub(1)],
            };
            let thin = if side < 2 { top == bottom } else { left == right };
            if thin {
                continue;
            }
            let (carried, part) = share(smaller)?;
            if carried >= wanted && best.as_ref().is_none_or(|(c, _)| carried > *c) {
                best = Some((carried, part));
            }
        }
        let Some((_, part)) = best else { return Ok(found) };
        window = part.window.unwrap_or(window);
        found = Some(part);
    }
}

/// How much of the variance in a place lies between the labels, or between the network's decisions where a row has no label: 1 for a
/// label-coded mark.
fn coded_by_label(rows: &Rows, of: &[usize], elements: &[usize]) -> Option<f64> {
    let q = &rows.question;
    let class = |i: usize| rows.labels.get(i).copied().unwrap_or(q.targets[i]);
    let mut by_class: std::collections::BTreeMap<usize, Vec<usize>> = std::collections::BTreeMap::new();
    of.iter().for_each(|&i| by_class.entry(class(i)).or_default().push(i));
    let (mut between, mut total) = (0.0, 0.0);
    for &e in elements {
        let value = |i: &usize| f64::from(q.row(*i)[e]);
        let mean = |rows: &[usize]| rows.iter().map(value).sum::<f64>() / rows.len() as f64;
        let centre = mean(of);
        total += of.iter().map(|i| (value(i) - centre).powi(2)).sum::<f64>();
        between += by_class.values().map(|own| own.len() as f64 * (mean(own) - centre).powi(2)).sum::<f64>();
    }
    (total > 0.0).then(|| between / total)
}

/// Whether a window of rows and columns, ends included, holds a pixel.
fn within([top, bottom, left, right]: [usize; 4], y: usize, x: usize) -> bool {
    (top..=bottom).contains(&y) && (left..=right).contains(&x)
}

/// Places of an image: windows of a seventh of each side, half overlapping, the corners among them, and the border; of a
/// table: its columns.
fn places(row: &[usize], features: Option<&Features>) -> Vec<Place> {
    match *row {
        [channels, h, w] if h >= 7 && w >= 7 => {
            let (wh, ww) = (h.div_ceil(7), w.div_ceil(7));
            let starts = |side: usize, window: usize| {
                let mut all: Vec<usize> = (0..=side - window).step_by(window.div_ceil(2)).collect();
                if all.last() != Some(&(side - window)) {
                    all.push(side - window);
                }
                all
            };
            let elements = |inside: &dyn Fn(usize, usize) -> bool| -> Vec<usize> {
                let at = |c: usize| (0..h * w).filter(|p| inside(p / w, p % w)).map(move |p| c * h * w + p);
                (0..channels).flat_map(at).collect()
            };
            let mut all = Vec::new();
            for y in starts(h, wh) {
                for x in starts(w, ww) {
                    let corner = (y == 0 || y + wh == h) && (x == 0 || x + ww == w);
                    let edge = y == 0 || y + wh == h || x == 0 || x + ww == w;
                    let name = match (corner, edge) {
                        (true, _) => "The corner",
                        (_, true) => "The patch on the border",
                        _ => "The patch",
                    };
                    let window = [y, y + wh - 1, x, x + ww - 1];
                    all.push(Place {
                        name: format!("{name} at rows {y} to {}, columns {x} to {}", window[1], window[3]),
                        elements: elements(&|r, c| within(window, r, c)),
                        kind: Kind::Patch,
                        window: Some(window),
                    });
                }
            }
            let ring = (h.min(w) / 14).max(1);
            all.push(Place {
                name: format!("The border, {ring} wide,"),
                elements: elements(&|r, c| r < ring || r >= h - ring || c < ring || c >= w - ring),
                kind: Kind::Border,
                window: None,
            });
            all
        }
        [width] if width > 1 => {
            let plain =
                |i: usize| Place { name: format!("Column {i}"), elements: vec![i], kind: Kind::Column, window: None };
            let Some(f) = features else { return (0..width).map(plain).collect() };
            let of = |k: usize| (0..width).filter(|&i| f.of[i] == k).collect();
            let column = |(k, name): (usize, &String)| Place {
                name: format!("Column `{name}`"),
                elements: of(k),
                kind: Kind::Column,
                window: None,
            };
            f.names.iter().enumerate().map(column).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use netproof_audit::{Silent, context};
    use netproof_data::{Dataset, Labels, OpenOptions};
    use netproof_graph::{FileBuilder, Model};
    use netproof_stats::Level;
    use netproof_tensor::Tensor;

    use super::*;
    use crate::interpretability::test_support::stored;

    /// Images of 8 × 8 with the class in a block of the corner, or nowhere but in the brightness of the whole.
    fn images(coded: bool) -> (Tensor, Vec<usize>) {
        let n = 200;
        let labels: Vec<usize> = (0..n).map(|i| i % 2).collect();
        let mut rng = Rng::new(3);
        let mut x = Vec::with_capacity(n * 64);
        for &label in &labels {
            for p in 0..64 {
                let corner = p / 8 < 2 && p % 8 < 2;
                let base = if coded { 0.5 } else { 0.4 + 0.2 * label as f64 };
                let v = if coded && corner { label as f64 } else { base + 0.1 * rng.normal() };
                x.push(v as f32);
            }
        }
        (Tensor::f32(vec![n, 1, 8, 8], x).unwrap(), labels)
    }

    /// Class 1 where the weighted sum is above a half.
    fn network(weights: [f32; 64]) -> Model {
        let mut file = FileBuilder::new("weighted");
        let x = file.add_batch_input("x", &[1, 8, 8]);
        let flat = file.node("Flatten", "flat", &[&x], &[]);
        let both: Vec<f32> = weights.iter().flat_map(|&w| [-w, w]).collect();
        let w = stored(&mut file, "w", &[64, 2], &both);
        let b = stored(&mut file, "b", &[2], &[0.5, -0.5]);
        let y = file.node("Gemm", "y", &[&flat, &w, &b], &[]);
        file.batch_output(&y, &[2]);
        Model::from_file(file.build().unwrap()).unwrap()
    }

    fn check(model: Model, coded: bool) -> Vec<Finding> {
        check_on(model, images(coded))
    }

    fn check_on(model: Model, (x, labels): (Tensor, Vec<usize>)) -> Vec<Finding> {
        let data = Dataset::from_memory(x, Labels::Classes(labels), Vec::new(), &OpenOptions::default()).unwrap();
        let subject = Subject::new(model, "test", data, None).unwrap();
        let cx = context(&subject, &CARD, "", 0, Level::P95, &Silent).unwrap();
        Shortcut::default().run(&subject, &cx).unwrap().reproducible
    }

    #[test]
    fn a_network_that_looks_at_a_corner_is_found_and_one_that_looks_everywhere_is_not() {
        let corner = std::array::from_fn(|p| if p / 8 < 2 && p % 8 < 2 { 0.25 } else { 0.0 });
        let found = check(network(corner), true);
        assert_eq!(found[0].id, "shortcut/patch");
        assert_eq!(found[0].verdict, Verdict::Concern, "{}", found[0].explanation);
        assert!(
            found[0].explanation.starts_with("The corner at rows 0 to 1, columns 0 to 1"),
            "{}",
            found[0].explanation
        );
        assert!((found[0].value.unwrap() - 1.0).abs() < 1e-4);
        assert!(found[0].explanation.contains("100 % of what varies there"), "{}", found[0].explanation);
        let fine = check(network([1.0 / 64.0; 64]), false);
        assert_eq!(fine[0].verdict, Verdict::Pass, "{}", fine[0].explanation);
        // Every pixel weighs the same: four of 64.
        assert!((fine[0].value.unwrap() - 4.0 / 64.0).abs() < 0.02, "{:?}", fine[0].value);
    }

    /// The corner that decides is no mark if it differs among the rows of a class; and a mark is seen beside what differs.
    #[test]
    fn a_part_of_an_object_is_not_called_a_mark_and_a_mark_is_seen_beside_noise() {
        let only = |inside: fn(usize) -> bool| std::array::from_fn(|p| if inside(p) { 0.25 } else { 0.0 });
        let noisy = |value: fn(usize, usize, f64) -> Option<f64>| {
            let n = 400;
            let labels: Vec<usize> = (0..n).map(|i| i % 2).collect();
            let mut rng = Rng::new(5);
            let mut x = Vec::with_capacity(n * 64);
            for &label in &labels {
                let own = rng.normal();
                x.extend((0..64).map(|p| value(p, label, own).unwrap_or(0.5 + 0.4 * rng.normal()) as f32));
            }
            (Tensor::f32(vec![n, 1, 8, 8], x).unwrap(), labels)
        };
        let corner: fn(usize) -> bool = |p| p / 8 < 2 && p % 8 < 2;
        // The corner says the class, but every row in its own way.
        let found = check_on(
            network(only(corner)),
            noisy(|p, label, own| (p / 8 < 2 && p % 8 < 2).then_some(label as f64 + 0.6 * own)),
        );
        assert_eq!(found[0].verdict, Verdict::Inconclusive, "{}", found[0].explanation);
        // One pixel of the corner says the class, the others are noise.
        let found =
            check_on(network(only(|p| p == 0).map(|w| 4.0 * w)), noisy(|p, label, _| (p == 0).then_some(label as f64)));
        assert_eq!(found[0].verdict, Verdict::Concern, "{}", found[0].explanation);
        let core = "Its core, with nine tenths of that or more: rows 0 to 0, columns 0 to 0.";
        assert!(found[0].explanation.ends_with(core), "{}", found[0].explanation);
    }

    #[test]
    fn windows_cover_the_image_and_end_with_it() {
        let all = places(&[3, 28, 30], None);
        let mut covered = vec![false; 3 * 28 * 30];
        for p in all.iter().filter(|p| p.kind == Kind::Patch) {
            assert_eq!(p.elements.len(), 3 * 4 * 5);
            p.elements.iter().for_each(|&e| covered[e] = true);
        }
        assert!(covered.iter().all(|&c| c));
        assert_eq!(all.last().unwrap().elements.len(), 3 * (28 * 30 - 24 * 26));
        assert_eq!(places(&[4], None).len(), 4);
        assert!(places(&[1], None).is_empty() && places(&[3, 5], None).is_empty());
    }

    #[test]
    fn one_column_that_decides_is_named() {
        let n = 200;
        let mut rng = Rng::new(4);
        let x: Vec<f32> = (0..n).flat_map(|i| [rng.normal() as f32, (i % 2) as f32]).collect();
        let x = Tensor::f32(vec![n, 2], x).unwrap();
        let labels = Labels::Classes((0..n).map(|i| i % 2).collect());
        let data = Dataset::from_memory(x, labels, Vec::new(), &OpenOptions::default()).unwrap();
        let mut file = FileBuilder::new("column");
        let x = file.add_batch_input("x", &[2]);
        let w = stored(&mut file, "w", &[2, 2], &[0.0, 0.1, -2.0, 2.0]);
        let b = stored(&mut file, "b", &[2], &[1.0, -1.0]);
        let y = file.node("Gemm", "y", &[&x, &w, &b], &[]);
        file.batch_output(&y, &[2]);
        let model = Model::from_file(file.build().unwrap()).unwrap();
        let subject = Subject::new(model, "test", data, None).unwrap();
        let cx = context(&subject, &CARD, "", 0, Level::P95, &Silent).unwrap();
        let found = Shortcut::default().run(&subject, &cx).unwrap().reproducible;
        assert_eq!((found[0].id.as_str(), found[0].verdict), ("shortcut/column", Verdict::Concern));
        assert!(found[0].explanation.starts_with("Column 1"), "{}", found[0].explanation);
    }
}
