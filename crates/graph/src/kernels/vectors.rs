//! Which vectors the kernels use.

use std::sync::OnceLock;

use pulp::{Arch, Simd, WithSimd};

/// The widest vectors of this machine, or narrower ones where the environment variable `NETPROOF_VECTORS` says `avx2` or
/// `portable`: to compare machines, and to test the code for other ones.
#[inline]
pub(crate) fn arch() -> Arch {
    static ARCH: OnceLock<Arch> = OnceLock::new();
    *ARCH.get_or_init(|| {
        let narrower = std::env::var("NETPROOF_VECTORS").ok();
        narrower.and_then(|name| named(&name)).unwrap_or_else(Arch::new)
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

/// Floats of a vector.
pub(crate) fn lanes() -> usize {
    arch().dispatch(Lanes)
}

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
