//! Occlusion: by how much the score falls where a window is replaced by the baseline. Zeiler and Fergus, ECCV 2014,
//! arXiv:1311.2901, section 4.2. Checked against: Captum 0.9.0 (golden/fashion-golden.npz), a naive version. As in Captum, an
//! element that several windows cover gets the mean of their effects; the last window of a row of windows may be cut off.

use netproof_core::{Card, CardKind, Challenge, OptionDoc};
use serde::{Deserialize, Serialize};

use crate::interpretability::{ExplainError, Explained, Explainer, Explanation, Question};

pub(crate) static CARD: Card = Card {
    id: "occlusion",
    version: 1,
    kind: CardKind::Explanation,
    title: "Occlusion",
    challenge: Challenge::Interpretability,
    measures: "By how much the score falls where a window of the input is replaced by the baseline.",
    reference: "Zeiler and Fergus, ECCV 2014, arXiv:1311.2901, section 4.2",
    needs: &[],
    options: &[
        OptionDoc {
            name: "window",
            default: "0",
            doc: "Side of the square window; 0: a quarter of the image's shorter side, or one element of a table.",
        },
        OptionDoc { name: "stride", default: "0", doc: "Distance between windows, at most the side; 0: the side." },
    ],
};

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Occlusion {
    window: usize,
    stride: usize,
}

impl Explainer for Occlusion {
    fn explain(&self, net: &Explained<'_>, q: &Question) -> Result<Explanation, ExplainError> {
        // Whatever the rank, the last two axes are the grid, and what is before them goes together.
        let row = net.row_shape();
        let (h, w) = match *row {
            [.., h, w] if row.len() >= 3 => (h, w),
            _ => (1, net.row_len()),
        };
        let image = h > 1;
        let side = match self.window {
            0 if image => (h.min(w) / 4).max(1),
            0 => 1,
            n => n,
        };
        let (side_y, side_x) = (side.min(h), side.min(w));
        let stride = if self.stride == 0 { side } else { self.stride };
        if stride > side {
            return Err(ExplainError::option("stride", stride, "at most the window, or elements would be left out"));
        }
        let starts = |end: usize, side: usize| -> Vec<usize> {
            let count = 1 + (end - side).div_ceil(stride);
            (0..count).map(|i| i * stride).collect()
        };
        let (ys, xs) = (starts(h, side_y), starts(w, side_x));
        let windows: Vec<(usize, usize)> = ys.iter().flat_map(|&y| xs.iter().map(move |&x| (y, x))).collect();
        let inside = |(y0, x0): (usize, usize), e: usize| {
            let (y, x) = (e / w % h, e % w);
            (y0..y0 + side_y).contains(&y) && (x0..x0 + side_x).contains(&x)
        };
        let own = net.own_scores(q)?;
        let k = windows.len();
        let scores = net.scores(q, q.len() * k, |i, out| {
            let (of, window) = (i / k, windows[i % k]);
            for (e, ((o, &x), &b)) in out.iter_mut().zip(q.row(of)).zip(q.baseline_row(of)).enumerate() {
                *o = if inside(window, e) { b } else { x };
            }
            of
        })?;
        let width = net.row_len();
        let mut covered = vec![0.0f64; width];
        for &window in &windows {
            (0..width).filter(|&e| inside(window, e)).for_each(|e| covered[e] += 1.0);
        }
        let mut all = vec![0.0f64; q.len() * width];
        for (i, score) in scores.iter().enumerate() {
            let (of, window) = (i / k, windows[i % k]);
            for e in (0..width).filter(|&e| inside(window, e)) {
                all[of * width + e] += (own[of] - score) / covered[e];
            }
        }
        let e = Explanation::of_input(net, q.len(), all.into_iter().map(|v| v as f32).collect())?;
        Ok(if image { e.note(format!("windows of {side_y} × {side_x} pixels, {stride} apart")) } else { e })
    }
}

#[cfg(test)]
mod tests {
    use crate::interpretability::test_support::{attributions, close, golden, kinked};

    #[test]
    fn it_gives_the_printed_values_of_captums_tests() {
        close(&attributions("occlusion", &kinked(), &[[20.0, 50.0, 30.0]], ""), &[80.0, 200.0, 120.0], 1e-6);
        // Two elements at once, one apart: the middle one gets the mean of 280 and 320.
        let found = attributions("occlusion", &kinked(), &[[20.0, 50.0, 30.0]], "window = 2\nstride = 1");
        close(&found, &[280.0, 300.0, 320.0], 1e-6);
    }

    #[test]
    fn it_is_captums() {
        let options = "window = 7\nstride = 7";
        golden("occlusion", options, "occlusion_7x7_stride_7_zero", &["cnn", "resnet", "vit", "mobilenet"]);
    }
}
