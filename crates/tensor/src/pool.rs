//! Memory of large tensors, used again: the pages of a fresh block cost more than most operators do (about 0.2 ms for each
//! MiB).

use std::sync::{Arc, Mutex, PoisonError};

use crate::Elements;

/// Elements from which a block is worth keeping: what allocators fetch from the system anew each time.
const LARGE: usize = 1 << 14;
/// Most bytes that wait; the oldest leave first.
const KEPT: usize = 256 << 20;

static POOL: Mutex<Vec<Vec<f32>>> = Mutex::new(Vec::new());

/// `len` floats of any value, for someone who writes all of them: from a tensor that is gone, where one fits.
pub fn any_floats(len: usize) -> Vec<f32> {
    if len < LARGE {
        return vec![0.0; len];
    }
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    // The last one that fits and does not waste more than it gives: it may still be in the cache.
    let fits = |v: &Vec<f32>| v.capacity() >= len && v.capacity() / 2 <= len;
    let found = pool.iter().rposition(fits).map(|i| pool.remove(i));
    drop(pool);
    match found {
        Some(mut v) => {
            v.resize(len, 0.0);
            v
        }
        None => vec![0.0; len],
    }
}

/// Keeps large floats that nobody else holds; for who is about to drop them.
pub fn give_back(elements: &mut Arc<Elements>) {
    let Some(Elements::Float(values)) = Arc::get_mut(elements) else { return };
    if values.capacity() < LARGE {
        return;
    }
    let mut gone = Vec::new();
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    #[test]
    fn a_tensor_that_is_gone_is_lent_again() {
        // No other test has a block of this size.
        let len = 3_141_593;
        let first = Tensor::f32(vec![len], any_floats(len)).unwrap();
        let place = first.as_f32().unwrap().as_ptr();
        let second = first.clone();
        drop(first);
        let other = any_floats(len - 1000);
        assert_ne!(other.as_ptr(), place, "someone holds it still");
        drop(second);
        let again = any_floats(len - 1000);
        assert_eq!((again.as_ptr(), again.len()), (place, len - 1000));
    }

    #[test]
    fn blocks_that_are_much_too_large_stay() {
        let len = 2_718_281;
        let large = Tensor::f32(vec![len], any_floats(len)).unwrap();
        let place = large.as_f32().unwrap().as_ptr();
        drop(large);
        let small = any_floats(len / 3);
        assert_ne!(small.as_ptr(), place);
    }

    #[test]
    fn small_ones_are_zeros() {
        assert!(any_floats(100).iter().all(|&x| x == 0.0));
    }
}
