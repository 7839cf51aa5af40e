//! Which vectors the kernels use.

use std::sync::OnceLock;

use pulp::{Arch, MemMask, Simd, WithSimd};

/// The widest vectors of this machine, or narrower ones where the environment variable `NETPROOF_VECTORS` says `avx2` or
/// `portable`: to compare machines, and to test the code for other ones.
#[inline]
pub(crate) fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(|| {
        let narrower = std::env::var("NETPROOF_VECTORS").ok();
        narrower.and_then(|name| named(&name)).unwrap_or_default()
    })
}

#[cfg(target_arch = "x86_64")]
fn named(name: &str) -> Option<Arch> {
    match name {
        "avx2" => pulp::x86::V3::try_new().map(Arch::V3),
        "portable" => Some(Arch::Scalar),
        _ => None,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn named(_: &str) -> Option<Arch> {
    None
}

/// Runs `work` compiled for the widest vectors of this machine: a plain loop in it, over slices whose lengths the compiler
/// sees to be equal, becomes vectors. The bits do not depend on the width, as long as no sum goes from element to element.
#[inline(always)]
pub fn vectorised<T>(work: impl FnOnce() -> T) -> T {
    arch().dispatch(work)
}

/// Asks for the line of the cache around an element, which will be read soon.
#[inline(always)]
pub(crate) fn prefetch(at: &f32) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch reads nothing that the program sees; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(at).cast()) }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Floats of a vector.
pub(crate) fn lanes() -> usize {
    arch().dispatch(Lanes)
}

/// A mask of the first `len` lanes, for memory. Made anew, as the one that pulp hands out calls a function at each use.
#[inline(always)]
pub(crate) fn first<S: Simd>(simd: S, len: usize) -> MemMask<S::m32s> {
    MemMask::new(simd.mask_between_m32s(0, len as u32).mask())
}

/// A vector of the first floats of `from`, zeros behind the last.
#[inline(always)]
pub(crate) fn read<S: Simd>(simd: S, from: &[f32]) -> S::f32s {
    if from.len() >= S::F32_LANES {
        // SAFETY: there are as many floats as the vector has lanes.
        unsafe { from.as_ptr().cast::<S::f32s>().read_unaligned() }
    } else {
        // SAFETY: the mask covers what there is.
        unsafe { simd.mask_load_ptr_f32s(first(simd, from.len()), from.as_ptr()) }
    }
}

/// Writes the first lanes, as many as there is room for.
#[inline(always)]
pub(crate) fn write<S: Simd>(simd: S, to: &mut [f32], value: S::f32s) {
    if to.len() >= S::F32_LANES {
        // SAFETY: as in `read`.
        unsafe { to.as_mut_ptr().cast::<S::f32s>().write_unaligned(value) }
    } else {
        // SAFETY: as in `read`.
        unsafe { simd.mask_store_ptr_f32s(first(simd, to.len()), to.as_mut_ptr(), value) }
    }
}

/// Repeats a block for each number `r` below the constant `R`, at most 16, each time with a number that is constant: what a
/// loop of as many steps is not always made into, and then sums live in memory instead of registers.
macro_rules! unrolled {
    ($r:ident < $R:ident, $block:block) => {
        unrolled!(@ $r $R $block 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
    };
    (@ $r:ident $R:ident $block:block $($n:literal)*) => {
        const { assert!($R <= 16) };
        $(if $n < $R {
            let $r: usize = $n;
            $block
        })*
    };
}
pub(crate) use unrolled;

struct Lanes;

impl WithSimd for Lanes {
    type Output = usize;
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> usize {
        S::F32_LANES
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    /// Runs the tests of all kernels again, in a process of their own for each kind of vectors.
    #[test]
    fn narrower_vectors_pass_the_same_tests() {
        if std::env::var_os("NETPROOF_VECTORS").is_some() {
            return;
        }
        let program = std::env::current_exe().unwrap();
        for name in ["avx2", "portable"] {
            let run = std::process::Command::new(&program)
                .args(["kernels::", "--test-threads", "2"])
                .env("NETPROOF_VECTORS", name)
                .output()
                .unwrap();
            assert!(run.status.success(), "{name}: {}", String::from_utf8_lossy(&run.stdout));
        }
    }
}
