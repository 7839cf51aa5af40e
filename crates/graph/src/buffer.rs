//! Floats in memory that tensors share.

use std::sync::Arc;

use netproof_tensor::{Elements, pool};

/// Floats in memory that tensors share. Large ones return to the pool with their last holder.
#[derive(Debug, Clone)]
pub(crate) struct Buffer(Arc<Elements>);

impl Buffer {
    /// `len` floats of any value: whoever asks writes all of them.
    pub(crate) fn any(len: usize) -> Self {
        pool::any_floats(len).into()
    }

    /// The floats of a host tensor; `None` for other elements.
    pub(crate) fn of(elements: Arc<Elements>) -> Option<Self> {
        matches!(*elements, Elements::Float(_)).then_some(Self(elements))
    }

    pub(crate) fn share(&self) -> Arc<Elements> {
        self.0.clone()
    }

    /// The floats for change, where nobody else holds them.
    pub(crate) fn get_mut(&mut self) -> Option<&mut [f32]> {
        match Arc::get_mut(&mut self.0) {
            Some(Elements::Float(v)) => Some(v),
            _ => None,
        }
    }
}

impl From<Vec<f32>> for Buffer {
    fn from(values: Vec<f32>) -> Self {
        Self(Arc::new(Elements::Float(values)))
    }
}

impl std::ops::Deref for Buffer {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        match &*self.0 {
            Elements::Float(v) => v,
            _ => &[],
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        pool::give_back(&mut self.0);
    }
}
