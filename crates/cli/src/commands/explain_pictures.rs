//! Pictures of explanations, as files.

use std::path::Path;

use netproof_audit::write_atomically;
use netproof_challenges::interpretability::insights::Insight;
use netproof_challenges::interpretability::pictures::{
    Canvas, Column, ImageRow, beeswarm, heads, image_row, marked, picture, waterfall,
};
use netproof_challenges::interpretability::{Explained, Explanation, Question};
use netproof_data::write_png;

/// Most rows of which each gets a picture of its own.
const MOST_ROWS: usize = 64;
/// Most features in a picture of a table.
const MOST_FEATURES: usize = 15;

pub(super) struct Pictures<'a> {
    pub(super) method: &'a str,
    pub(super) net: &'a Explained<'a>,
    pub(super) q: &'a Question,
    pub(super) e: &'a Explanation,
    pub(super) scores: &'a [f64],
    pub(super) names: Option<&'a [String]>,
    pub(super) class_names: &'a [String],
    /// What to write across pictures that must not be relied on.
    pub(super) badge: Option<&'a str>,
}

impl Pictures<'_> {
    /// Writes them; answers how many.
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<usize> {
        std::fs::create_dir_all(folder)?;
        let mut count = 0;
        let row = self.net.row_shape();
        match *row {
            [c, h, w] if h > 1 && w > 1 => count += self.images(folder, [c, h, w])?,
            _ if self.e.attributions.shape().get(1..) == Some(row) => count += self.tables(folder)?,
            _ => {}
        }
        count += self.attention(folder)?;
        Ok(count)
    }

    fn target(&self, i: usize) -> String {
        let target = self.q.targets[i];
        match self.class_names.get(target) {
            Some(name) if *name != target.to_string() => format!("{target} ({name})"),
            _ => target.to_string(),
        }
    }

    fn title(&self, i: usize) -> String {
        format!("row {}, target {}, score {:.3}", self.q.rows[i], self.target(i), self.scores[i])
    }

    fn images(&self, folder: &Path, size: [usize; 3]) -> anyhow::Result<usize> {
        let Some(all) = self.e.on_input(self.net.row_shape()) else { return Ok(0) };
        let values = all.as_f32().unwrap_or_default();
        let width = self.net.row_len();
        let shown = self.q.len().min(MOST_ROWS);
        for i in 0..shown {
            let looked_at =
                if self.e.value == self.net.input() { String::new() } else { format!(" at {}", self.e.value) };
            let missed = match self.e.delta.as_ref().map(|d| d[i]) {
                Some(d) if d.abs() >= 0.001 => format!(", completeness error {d:+.3}"),
                Some(d) if d != 0.0 => format!(", completeness error {d:+.0e}"),
                _ => String::new(),
            };
            let subtitle = format!("{}{looked_at}{missed}", self.method);
            let canvas = image_row(&ImageRow {
                size,
                image: self.q.row(i),
                attributions: &values[i * width..(i + 1) * width],
                title: &self.title(i),
                subtitle: &subtitle,
                badge: self.badge,
            });
            save(folder, &format!("row-{}.png", self.q.rows[i]), &canvas)?;
        }
        Ok(shown)
    }

    /// Attributions and values by feature: one-hot parts are summed, and the part that is there names the value.
    fn columns(&self, i: usize) -> Vec<Column> {
        let width = self.net.row_len();
        let values = &self.e.attributions.as_f32().unwrap_or_default()[i * width..(i + 1) * width];
        let x = self.q.row(i);
        let name = |k: usize| self.names.and_then(|n| n.get(k)).cloned().unwrap_or_else(|| format!("element {k}"));
        let Some(f) = &self.q.features else {
            return (0..width)
                .map(|k| Column { name: name(k), value: number(x[k]), attribution: f64::from(values[k]) })
                .collect();
        };
        let mut columns: Vec<Column> =
            f.names.iter().map(|n| Column { name: n.clone(), value: String::new(), attribution: 0.0 }).collect();
        let mut parts = vec![0; columns.len()];
        f.of.iter().for_each(|&k| parts[k] += 1);
        // Methods that switch whole features give each part the value of the whole.
        let whole: Vec<bool> = (0..columns.len())
            .map(|k| {
                let mut own = f.of.iter().zip(values).filter(|(of, _)| **of == k).map(|(_, v)| v);
                let first = own.next();
                parts[k] > 1 && own.all(|v| Some(v) == first)
            })
            .collect();
        for (k, &feature) in f.of.iter().enumerate() {
            let c = &mut columns[feature];
            let v = f64::from(values[k]);
            c.attribution = if whole[feature] { v } else { c.attribution + v };
            if parts[feature] == 1 {
                c.value = number(x[k]);
            } else if x[k] == 1.0 {
                let own = name(k);
                c.value = own.get(f.names[feature].len() + 1..).unwrap_or(&own).to_owned();
            }
        }
        columns
    }

    fn tables(&self, folder: &Path) -> anyhow::Result<usize> {
        let n = self.q.len();
        let all: Vec<Vec<Column>> = (0..n).map(|i| self.columns(i)).collect();
        let Some(first) = all.first() else { return Ok(0) };
        let names: Vec<String> = first.iter().map(|c| c.name.clone()).collect();
        let by_feature = |get: &dyn Fn(usize, usize) -> f64| -> Vec<Vec<f64>> {
            (0..names.len()).map(|k| (0..n).map(|i| get(i, k)).collect()).collect()
        };
        let attributions = by_feature(&|i, k| all[i][k].attribution);
        let width = self.net.row_len();
        let value = |i: usize, k: usize| match &self.q.features {
            Some(f) => {
                let own: Vec<usize> = (0..width).filter(|&e| f.of[e] == k).collect();
                match own[..] {
                    [one] => f64::from(self.q.row(i)[one]),
                    // A category has no order, so that its dots have no colour.
                    _ => f64::NAN,
                }
            }
            None => f64::from(self.q.row(i)[k]),
        };
        let values = by_feature(&value);
        let title = format!("{}: {n} rows", self.method);
        let swarm = beeswarm(
            &title,
            "attribution to the score of each row's target",
            &names,
            &attributions,
            &values,
            MOST_FEATURES,
        );
        let warned = |svg: String| match self.badge {
            Some(badge) => marked(&svg, badge),
            None => svg,
        };
        write_atomically(&folder.join("beeswarm.svg"), warned(swarm).as_bytes())?;
        let shown = n.min(MOST_ROWS);
        for (i, columns) in all.iter().enumerate().take(shown) {
            let sum: f64 = columns.iter().map(|c| c.attribution).sum();
            let complete = self.e.difference.is_some();
            let base = self.scores[i] - sum;
            let subtitle = if complete {
                self.method.to_owned()
            } else {
                format!("{}; the bars need not end at the score: the start is chosen such that they do", self.method)
            };
            let svg = warned(waterfall(&self.title(i), &subtitle, base, columns, MOST_FEATURES));
            write_atomically(&folder.join(format!("row-{}.svg", self.q.rows[i])), svg.as_bytes())?;
        }
        Ok(shown + 1)
    }

    /// Maps per head of every attention layer, where the method gives them: `attention:LAYER [n, heads, height, width]`.
    fn attention(&self, folder: &Path) -> anyhow::Result<usize> {
        let mut count = 0;
        for (layer, (name, t)) in self.e.arrays.iter().filter(|(name, _)| name.starts_with("attention:")).enumerate() {
            let [n, all, h, w] = *t.shape() else { continue };
            let values = t.as_f32().unwrap_or_default();
            for i in 0..n.min(MOST_ROWS) {
                let maps: Vec<Vec<f32>> =
                    (0..all).map(|k| values[(i * all + k) * h * w..(i * all + k + 1) * h * w].to_vec()).collect();
                let title = format!("row {}, layer {layer}: {}", self.q.rows[i], name.trim_start_matches("attention:"));
                save(folder, &format!("row-{}-layer-{layer}.png", self.q.rows[i]), &heads(&title, &maps, [h, w]))?;
                count += 1;
            }
        }
        Ok(count)
    }
}

/// A value for people: four significant digits at most.
fn number(v: f32) -> String {
    let places = if v.fract() == 0.0 { 0 } else { (3 - v.abs().log10().floor() as i32).clamp(0, 6) as usize };
    format!("{v:.places$}")
}

/// Images that a method made; answers how many.
pub(super) fn insight(found: &Insight, folder: &Path) -> anyhow::Result<usize> {
    std::fs::create_dir_all(folder)?;
    let mut count = 0;
    for (_, t) in found.arrays.iter().filter(|(name, _)| name == "images") {
        let [n, c, h, w] = *t.shape() else { continue };
        let values = t.as_f32().unwrap_or_default();
        for i in 0..n {
            let image = &values[i * c * h * w..(i + 1) * c * h * w];
            let label = match found
                .arrays
                .iter()
                .find(|(name, _)| name == "targets")
                .and_then(|(_, t)| t.as_i64()?.get(i).copied())
            {
                Some(target) => format!("target {target}"),
                None => format!("image {i}"),
            };
            let canvas = picture([c, h, w], image, &label);
            save(folder, &format!("image-{i}.png"), &canvas)?;
            count += 1;
        }
    }
    Ok(count)
}

fn save(folder: &Path, name: &str, canvas: &Canvas) -> anyhow::Result<()> {
    Ok(write_png(&folder.join(name), [canvas.size[0], canvas.size[1], 3], &canvas.pixels)?)
}
