//! Attention in memory; `None` where a tensor is elsewhere.

use super::{Real, broadcast};
use crate::kernels::attention::{Attention, Gradients, Mask, Sizes};
use crate::kernels::layout;

/// What attention has besides q, k and v.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attend<'a> {
    /// Whether k is `[..., size, keys]`.
    pub(crate) turned: bool,
    pub(crate) scale: f32,
    /// Added to the scores, broadcast over all but the last axis.
    pub(crate) mask: Option<&'a Real>,
}

/// Where the mask of each head begins.
fn starts(mask: &[usize], lead: &[usize]) -> Vec<usize> {
    let [queries, keys] =
        [mask.get(mask.len().wrapping_sub(2)).copied().unwrap_or(1), mask.last().copied().unwrap_or(1)];
    let own = &mask[..mask.len().saturating_sub(2)];
    let padded = [vec![1; lead.len() - own.len()], own.to_vec()].concat();
    let steps = layout::steps(&padded);
    (0..lead.iter().product())
        .map(|mut head| {
            let mut at = 0;
            for (i, &size) in lead.iter().enumerate().rev() {
                at += if padded[i] == 1 { 0 } else { head % size * steps[i] };
                head /= size;
            }
            at * queries * keys
        })
        .collect()
}

impl Real {
    fn heads(&self, k: &Self, v: &Self, turned: bool) -> Sizes {
        let r = self.rank();
        let keys = k.shape[if turned { r - 1 } else { r - 2 }];
        let heads = self.shape[..r - 2].iter().product();
        Sizes { heads, queries: self.shape[r - 2], keys, size: self.shape[r - 1], values: v.shape[r - 1], turned }
    }

    /// `softmax(scale · self kᵀ + mask) · v` over the last two axes; the others are the same for all three.
    pub(crate) fn attention(&self, k: &Self, v: &Self, attend: Attend<'_>) -> Option<Self> {
        let mut shape = self.shape.to_vec();
        *shape.last_mut()? = *v.shape.last()?;
        self.with_attention(k, v, attend, |a| Self::build(&shape, |y| a.forward(y)))
    }

    /// Gradients of [`Real::attention`]; of q, k and v those that are wanted.
    pub(crate) fn attention_backward(
        &self,
        k: &Self,
        v: &Self,
        attend: Attend<'_>,
        gradient: &Self,
        wanted: [bool; 3],
    ) -> Option<[Option<Self>; 3]> {
        let g = gradient.slice()?;
        self.with_attention(k, v, attend, |a| {
            let mut made = [None, None, None];
            for ((made, of), wanted) in made.iter_mut().zip([self, k, v]).zip(wanted) {
                // The kernel writes all of it.
                *made = wanted.then(|| Self::build(&of.shape, |_| {}));
            }
            let [q, k, v] = &mut made;
            let [q, k, v] = [q, k, v].map(|r| r.as_mut().and_then(Self::slice_mut));
            a.backward(&g, Gradients { q, k, v });
            made
        })
    }

    fn with_attention<T>(
        &self,
        k: &Self,
        v: &Self,
        attend: Attend<'_>,
        work: impl FnOnce(&Attention<'_>) -> T,
    ) -> Option<T> {
        let sizes = self.heads(k, v, attend.turned);
        let lead = &self.shape[..self.rank() - 2];
        let full = [lead, &[sizes.queries, sizes.keys]].concat();
        let mask = match attend.mask {
            None => None,
            Some(m) if broadcast(&m.shape, &full)? != full || m.shape.last() != Some(&sizes.keys) => return None,
            Some(m) => Some((m.slice()?, starts(&m.shape, lead), &m.shape)),
        };
        let rows = |shape: &[usize]| if shape.len() > 1 { shape[shape.len() - 2] } else { 1 };
        let mask = mask.as_ref().map(|(numbers, starts, shape)| Mask { numbers, starts, rows: rows(shape) });
        let (q, k, v) = (self.slice()?, k.slice()?, v.slice()?);
        Some(work(&Attention { sizes, q: &q, k: &k, v: &v, scale: attend.scale, mask }))
    }
}
