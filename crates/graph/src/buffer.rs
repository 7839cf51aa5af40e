//! Memory of tensors on the CPU: large blocks go back to a pool, since the pages of a fresh one cost more than most
//! operators do (about 0.2 ms for each MiB).

use std::sync::{Arc, Mutex};

use netproof_tensor::Elements;

/// Elements from which a block is worth keeping: what allocators fetch from the system anew each time.
const LARGE: usize = 1 << 14;
/// Most bytes that wait in the pool; the oldest leave first.
const KEPT: usize = 256 << 20;

/// Lets this process's allocator keep what is freed, up to 256 MiB, instead of giving it back to the system at once; for
/// programs that make large tensors again and again. Does nothing where the C library is not GNU's.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: only sets two limits of the allocator, as its manual allows at any time.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 256 << 20);
    }
}

static POOL: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// Floats in memory that tensors share. Large ones are lent by the pool and return to it with their last holder.
#[derive(Debug, Clone)]
pub(crate) struct Buffer(Arc<Elements>);

impl Buffer {
    /// `len` floats of any value: whoever asks writes all of them.
    pub(crate) fn any(len: usize) -> Self {
        if len < LARGE {
            return vec![0.0; len].into();
        }
        let mut pool = POOL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The smallest that fits, and that does not waste more than it gives.
        let fits = |v: &Vec<f32>| v.capacity() >= len && v.capacity() / 2 <= len;
        let best = pool.iter().enumerate().filter(|(_, v)| fits(v)).min_by_key(|(_, v)| v.capacity()).map(|(i, _)| i);
        let found = best.map(|i| pool.remove(i));
        drop(pool);
        match found {
            Some(mut v) => {
                v.resize(len, 0.0);
                v.into()
            }
            None => vec![0.0; len].into(),
        }
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
        let Some(Elements::Float(values)) = Arc::get_mut(&mut self.0) else { return };
        if values.capacity() < LARGE {
            return;
        }
        let mut gone = Vec::new();
        let mut pool = POOL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        pool.push(std::mem::take(values));
        let mut bytes: usize = pool.iter().map(|v| v.capacity() * size_of::<f32>()).sum();
        while bytes > KEPT {
            let oldest = pool.remove(0);
            bytes -= oldest.capacity() * size_of::<f32>();
            gone.push(oldest);
        }
        // What leaves is given back to the system after the lock.
        drop(pool);
        drop(gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_was_dropped_is_lent_again() {
        // No other test has a block of this size.
        let len = 3_141_593;
        let mut first = Buffer::any(len);
        first.get_mut().unwrap()[len - 1] = 7.0;
        let place = first.as_ptr();
        drop(first);
        let second = Buffer::any(len - 1000);
        assert_eq!((second.as_ptr(), second.len()), (place, len - 1000));
    }

    #[test]
    fn blocks_that_are_much_too_large_stay() {
        let len = 2_718_281;
        let large = Buffer::any(len);
        let place = large.as_ptr();
        drop(large);
        assert_ne!(Buffer::any(len / 3).as_ptr(), place);
    }

    #[test]
    fn small_ones_are_zeros() {
        assert!(Buffer::any(100).iter().all(|&x| x == 0.0));
    }
}
