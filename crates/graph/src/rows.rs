//! Whether rows of a batch are computed apart: then a large batch can be run in parts that stay in the cache.
//!
//! Each value is followed from the inputs on: along which of its axes the rows lie, if it has any. Where rows meet, or where
//! an operator does not say, the batch stays whole.

use crate::model::{Model, ValueId};
use crate::operator::{Args, Fact};
use crate::plan::{Plan, gather};

/// How a value depends on the rows of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Along {
    /// It does not.
    Same,
    /// Rows lie along this axis, each of them one or more neighbouring entries.
    Axis(usize),
    /// It depends on their number: what shape arithmetic makes of the batch size.
    Varies,
}

/// One call of an operator, asked for the rows of its outputs.
pub(crate) struct RowsOf<'a> {
    pub(crate) inputs: Args<'a, Fact>,
    pub(crate) along: &'a [Along],
    /// The first output, for the whole batch and for a part of it.
    pub(crate) output: &'a Fact,
    pub(crate) part: &'a Fact,
    /// How many outputs are used.
    pub(crate) outputs: usize,
    /// Rows of the whole batch, at least 2.
    pub(crate) count: usize,
}

impl RowsOf<'_> {
    fn at(&self, input: usize) -> Along {
        self.along.get(input).copied().unwrap_or(Along::Same)
    }

    /// The axis of input `i`, where no other input depends on the rows.
    pub(crate) fn only(&self, i: usize) -> Option<usize> {
        let others = self.along.iter().enumerate().all(|(j, &a)| j == i || a == Along::Same);
        match self.at(i) {
            Along::Axis(axis) if others => Some(axis),
            _ => None,
        }
    }

    /// The same where only the shape of input `i` counts for the other inputs.
    pub(crate) fn shaped(&self, i: usize) -> Option<usize> {
        match self.at(i) {
            Along::Axis(axis) => Some(axis),
            _ => None,
        }
    }

    /// The axis of the output, where each element meets those in the same place of the inputs, which are broadcast.
    pub(crate) fn elementwise(&self) -> Option<usize> {
        let rank = self.output.rank();
        let mut found = None;
        for (i, fact) in self.inputs.0.iter().enumerate() {
            let Some(fact) = fact else { continue };
            match self.at(i) {
                Along::Same => {}
                Along::Varies => return None,
                Along::Axis(axis) => {
                    let axis = axis + rank.checked_sub(fact.rank())?;
                    if found.is_some_and(|f| f != axis) {
                        return None;
                    }
                    found = Some(axis);
                }
            }
        }
        let axis = found?;
        let fits = self.inputs.0.iter().enumerate().all(|(i, fact)| {
            let Some(fact) = fact else { return true };
            let missing = rank - fact.rank();
            let size = axis.checked_sub(missing).map_or(1, |a| fact.shape[a]);
            size == if self.at(i) == Along::Same { 1 } else { self.output.shape[axis] }
        });
        fits.then_some(axis)
    }

    /// The axis of `to` that has the rows of `axis` of `from`, in the same row-major order.
    pub(crate) fn reshaped(&self, from: &[usize], axis: usize, to: &[usize]) -> Option<usize> {
        let before: usize = from[..axis].iter().product();
        (0..to.len())
            .find(|&k| to[..k].iter().product::<usize>() == before && to[k] > 0 && to[k].is_multiple_of(self.count))
    }

    /// The axis along which the output repeats input `i`, which is the same for all rows.
    pub(crate) fn repeated(&self, i: usize) -> Option<usize> {
        let input = self.inputs.get(i).filter(|_| self.at(i) == Along::Same)?;
        let axis = (0..self.output.rank()).find(|&a| self.output.shape[a] != self.part.shape[a])?;
        let missing = self.output.rank().checked_sub(input.rank())?;
        let size = axis.checked_sub(missing).map_or(1, |a| input.shape[a]);
        (size == 1).then_some(axis)
    }
}

impl Model {
    /// How each value depends on the rows, by the plans for `whole.0` and for `part.0` rows; `None` where rows meet, or where
    /// that is not known. Rows lie along the first axis of the inputs `given`.
    pub(crate) fn rows(
        &self,
        given: &[ValueId],
        (count, whole): (usize, &Plan),
        (fewer, part): (usize, &Plan),
    ) -> Option<Vec<Along>> {
        let mut along = vec![Along::Same; self.names.len()];
        given.iter().for_each(|&id| along[id] = Along::Axis(0));
        let fits = |axis: usize, a: &Fact, b: &Fact| {
            let others = (0..a.rank()).all(|i| i == axis || a.shape[i] == b.shape[i]);
            let each = a.shape.get(axis).filter(|s| s.is_multiple_of(count)).map(|s| s / count);
            a.rank() == b.rank() && others && each.is_some_and(|each| each > 0 && b.shape[axis] == each * fewer)
        };
        for node in &self.nodes {
            let outputs: Vec<ValueId> = node.outputs.iter().flatten().copied().collect();
            let mut facts = Vec::with_capacity(outputs.len());
            for &id in &outputs {
                facts.push((whole.facts[id].as_ref()?, part.facts[id].as_ref()?));
            }
            let values = facts.iter().map(|(a, b)| Some((a.value.as_ref()?, b.value.as_ref()?)));
            if let Some(values) = values.collect::<Option<Vec<_>>>() {
                for (&id, (a, b)) in outputs.iter().zip(values) {
                    along[id] = if a == b { Along::Same } else { Along::Varies };
                }
                continue;
            }
            let inputs: Vec<Along> = node.inputs.iter().map(|i| i.map_or(Along::Same, |id| along[id])).collect();
            let same = facts.iter().all(|(a, b)| a.shape == b.shape);
            if same && inputs.iter().all(|&i| i == Along::Same) {
                continue;
            }
            let known = gather(node, &whole.facts)?;
            let (output, part) = facts.first()?;
            let call = RowsOf { inputs: Args(&known), along: &inputs, output, part, outputs: outputs.len(), count };
            let axis = node.op.rows(&call)?;
            if !facts.iter().all(|(a, b)| fits(axis, a, b)) {
                return None;
            }
            outputs.iter().for_each(|&id| along[id] = Along::Axis(axis));
        }
        Some(along)
    }
}
