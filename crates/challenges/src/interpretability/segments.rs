//! What is switched on and off together: columns of a table, or segments of an image.

use netproof_core::OptionDoc;

use super::{ExplainError, Explained, Question};

pub(crate) const SEGMENTS: OptionDoc = OptionDoc {
    name: "segments",
    default: "\"slic\"",
    doc: "How an image is cut: `slic` (superpixels), `grid`, or `none` (every element alone). Tables are cut by their columns.",
};

pub(crate) const COUNT: OptionDoc =
    OptionDoc { name: "count", default: "49", doc: "About how many segments an image is cut into, at least 1." };

/// Which part each element of a row belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Partition {
    pub(crate) of: Vec<usize>,
    pub(crate) count: usize,
}

impl Partition {
    /// One number per part, given to all elements of the part.
    pub(crate) fn spread<'a>(&'a self, parts: &'a [f64]) -> impl Iterator<Item = f32> + 'a {
        self.of.iter().map(|&p| parts[p] as f32)
    }
}

/// The parts of each row: those of the question, else segments of an image `[channels, height, width]`, else elements.
pub(crate) fn partitions(
    net: &Explained<'_>,
    q: &Question,
    segments: &str,
    count: usize,
) -> Result<Vec<Partition>, ExplainError> {
    if count == 0 {
        return Err(ExplainError::option("count", count, "at least 1"));
    }
    if !["slic", "grid", "none"].contains(&segments) {
        return Err(ExplainError::option("segments", segments, "slic, grid or none"));
    }
    if let Some(f) = &q.features {
        let one = Partition { of: f.of.clone(), count: f.names.len() };
        return Ok(vec![one; q.len()]);
    }
    let width = net.row_len();
    let alone = || Partition { of: (0..width).collect(), count: width };
    let [c, h, w] = *net.row_shape() else { return Ok(vec![alone(); q.len()]) };
    Ok(match segments {
        "slic" => (0..q.len()).map(|i| slic(q.row(i), [c, h, w], count)).collect(),
        "grid" => vec![grid([c, h, w], count); q.len()],
        _ => vec![alone(); q.len()],
    })
}

/// Rectangles of about equal size; all channels of a place belong together.
pub(crate) fn grid([c, h, w]: [usize; 3], count: usize) -> Partition {
    let side = (count as f64).sqrt().round().max(1.0) as usize;
    let (rows, columns) = (side.min(h).max(1), side.min(w).max(1));
    let of = (0..c * h * w).map(|e| {
        let (y, x) = (e / w % h, e % w);
        (y * rows / h) * columns + x * columns / w
    });
    Partition { of: of.collect(), count: rows * columns }
}

/// Weight of place against colour, where colours are scaled to a range of 10; and rounds of assignment.
const COMPACTNESS: f32 = 1.0;
const ROUNDS: usize = 10;

/// Simple linear iterative clustering: k-means over colour and place, from a grid, each centre looking around itself only.
/// Achanta et al., IEEE Transactions on Pattern Analysis 34(11), 2012, algorithm 1; channels as colours, scaled by the image's
/// own range, and without the last step that joins stray pixels.
pub(crate) fn slic(row: &[f32], [c, h, w]: [usize; 3], count: usize) -> Partition {
    let places = h * w;
    let (low, high) = row.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let scale = if high > low { 10.0 / (high - low) } else { 0.0 };
    let start = grid([1, h, w], count);
    let step = (places as f32 / start.count as f32).sqrt().max(1.0);
    let mut of = start.of;
    let colour = |p: usize, k: usize| row[k * places + p] * scale;
    for _ in 0..ROUNDS {
        // Centres: mean colour and place.
        let mut sums = vec![vec![0.0f32; c + 3]; start.count];
        for (p, &s) in of.iter().enumerate() {
            let sum = &mut sums[s];
            (0..c).for_each(|k| sum[k] += colour(p, k));
            sum[c] += (p / w) as f32;
            sum[c + 1] += (p % w) as f32;
            sum[c + 2] += 1.0;
        }
        let mut best = vec![f32::INFINITY; places];
        let mut next = of.clone();
        for (s, sum) in sums.iter().enumerate().filter(|(_, sum)| sum[c + 2] > 0.0) {
            let n = sum[c + 2];
            let (cy, cx) = (sum[c] / n, sum[c + 1] / n);
            let around = |centre: f32, end: usize| {
                let low = (centre - 2.0 * step).max(0.0) as usize;
                low..((centre + 2.0 * step).ceil() as usize + 1).min(end)
            };
            for y in around(cy, h) {
                for x in around(cx, w) {
                    let p = y * w + x;
                    let near = (y as f32 - cy).powi(2) + (x as f32 - cx).powi(2);
                    let like: f32 = (0..c).map(|k| (colour(p, k) - sum[k] / n).powi(2)).sum();
                    let distance = like + near * (COMPACTNESS * 10.0 / step).powi(2) / 10.0;
                    if distance < best[p] {
                        (best[p], next[p]) = (distance, s);
                    }
                }
            }
        }
        if next == of {
            break;
        }
        of = next;
    }
    // Segments that lost all pixels are left out.
    let mut name = vec![usize::MAX; start.count];
    let mut used = 0;
    for s in &mut of {
        if name[*s] == usize::MAX {
            name[*s] = used;
            used += 1;
        }
        *s = name[*s];
    }
    Partition { of: (0..c).flat_map(|_| of.iter().copied()).collect(), count: used }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_covers_the_image_evenly() {
        let p = grid([2, 4, 6], 4);
        assert_eq!(p.count, 4);
        assert_eq!(p.of[..24], p.of[24..]);
        assert_eq!((p.of[0], p.of[5], p.of[18], p.of[23]), (0, 1, 2, 3));
        assert!((0..4).all(|s| p.of.iter().filter(|&&x| x == s).count() == 12));
        assert_eq!(grid([1, 2, 2], 100).count, 4);
    }

    #[test]
    fn superpixels_follow_an_edge() {
        // Left of column 3 dark, right of it bright: no segment holds both.
        let row: Vec<f32> = (0..64).map(|p| if p % 8 < 3 { 0.0 } else { 1.0 }).collect();
        let s = slic(&row, [1, 8, 8], 4);
        for a in 0..64 {
            for b in 0..64 {
                assert!(s.of[a] != s.of[b] || row[a] == row[b], "{a} {b}");
            }
        }
        assert!(s.count >= 2 && s.of.iter().all(|&x| x < s.count));
        assert_eq!(slic(&[0.5; 16], [1, 4, 4], 4).of.len(), 16);
    }
}
