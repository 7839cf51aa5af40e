//! Floats in memory that tensors share.

use std::ops::Range;
use std::sync::Arc;

use netproof_tensor::{Elements, pool};

/// Floats in memory that tensors share, all of a block or a part of it. Large blocks return to the pool with their last
/// holder.
#[derive(Debug, Clone)]
pub(crate) struct Buffer {
    block: Arc<Elements>,
    part: Range<usize>,
}

impl Buffer {
    /// `len` floats of any value: whoever asks writes all of them.
    pub(crate) fn any(len: usize) -> Self {
        pool::any_floats(len).into()
    }

    /// The floats of a host tensor; `None` for other elements.
    pub(crate) fn of(elements: Arc<Elements>) -> Option<Self> {
        let Elements::Float(v) = &*elements else { return None };
        let part = 0..v.len();
        Some(Self { block: elements, part })
    }

    /// Some of the floats, where they lie.
    pub(crate) fn view(&self, start: usize, len: usize) -> Self {
        assert!(start <= self.len() && len <= self.len() - start, "a part of what is there");
        let from = self.part.start + start;
        Self { block: self.block.clone(), part: from..from + len }
    }

    /// The floats as a host tensor has them: a copy where they are a part of a larger block.
    pub(crate) fn share(&self) -> Arc<Elements> {
        if self.part.len() == self.whole().len() {
            return self.block.clone();
        }
        let mut copy = pool::any_floats(self.len());
        copy.copy_from_slice(self);
        Arc::new(Elements::Float(copy))
    }

    /// The floats for change, where nobody else holds the block.
    pub(crate) fn get_mut(&mut self) -> Option<&mut [f32]> {
        match Arc::get_mut(&mut self.block) {
            Some(Elements::Float(v)) => Some(&mut v[self.part.clone()]),
            _ => None,
        }
    }

    fn whole(&self) -> &[f32] {
        match &*self.block {
            Elements::Float(v) => v,
            _ => &[],
        }
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(values: Vec<f32>) -> Self {
        let part = 0..values.len();
        Self { block: Arc::new(Elements::Float(values)), part }
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.whole()[self.part.clone()]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        pool::give_back(&mut self.block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_is_a_part_and_is_shared_as_a_copy() {
        let mut all = Buffer::from(vec![1.0, 2.0, 3.0, 4.0, 5.0]);
        let mut view = all.view(1, 3).view(1, 2);
        assert_eq!((&*view, &*all.view(5, 0)), (&[3.0, 4.0][..], &[][..]));
        assert!(matches!(&*view.share(), Elements::Float(v) if *v == [3.0, 4.0]));
        assert!(all.get_mut().is_none() && view.get_mut().is_none(), "two hold the block");
        drop(all);
        view.get_mut().unwrap()[0] = 7.0;
        assert_eq!(*view, [7.0, 4.0]);
    }
}
