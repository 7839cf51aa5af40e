//! How kernels share their work: outputs written by several tasks, scratch memory of a thread, and tasks on every core.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;

/// An output that several tasks write at the same time, each its own places.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    owner: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `Shared` is a slice that was borrowed mutably for 'a; who writes through it promises, at each call, that no
// other task touches the same places.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(crate) fn new(slice: &'a mut [f32]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), owner: PhantomData }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `len` elements from `at`.
    /// # Safety
    /// Nobody else uses any of them while the slice lives.
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "that the parts are disjoint is what the caller promises")]
    pub(crate) unsafe fn part(&self, at: usize, len: usize) -> &'a mut [f32] {
        assert!(at <= self.len && len <= self.len - at, "a kernel writes outside its output");
        // SAFETY: the range was checked; that nobody else uses it is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(at), len) }
    }
}

/// Floats of a line of the cache, which is also the widest vector: a vector that begins on one is read in one step.
pub(crate) const LINE: usize = 16;

/// A line of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct CacheLine([f32; LINE]);

thread_local! {
    static SCRATCH: RefCell<Vec<Vec<CacheLine>>> = const { RefCell::new(Vec::new()) };
}

/// Lends `len` floats of this thread's scratch memory, with whatever was in them; they begin on a line of the cache.
pub(crate) fn with_scratch<T>(len: usize, work: impl FnOnce(&mut [f32]) -> T) -> T {
    let mut buffer = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    let lines = len.div_ceil(LINE);
    if buffer.len() < lines {
        buffer.resize(lines, CacheLine([0.0; LINE]));
    }
    // SAFETY: a `CacheLine` is `LINE` floats without a gap, so the buffer's lines are at least `len` floats in a row, all
    // initialised; they are borrowed from the buffer alone, which lives until `work` has ended.
    let floats = unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<f32>(), len) };
    let result = work(floats);
    SCRATCH.with_borrow_mut(|all| all.push(buffer));
    result
}

/// Runs `work` on `0..tasks`: on every core where the whole is worth it, else here.
pub(crate) fn parallel(tasks: usize, operations: usize, work: impl Fn(usize) + Sync + Send) {
    use rayon::prelude::*;
    if tasks > 1 && worth(operations) {
        (0..tasks).into_par_iter().with_max_len(1).for_each(work);
    } else {
        (0..tasks).for_each(work);
    }
}

/// [`parallel`] with what each task answers, in order.
pub(crate) fn collected<T: Send>(tasks: usize, operations: usize, work: impl Fn(usize) -> T + Sync + Send) -> Vec<T> {
    use rayon::prelude::*;
    if tasks > 1 && worth(operations) {
        (0..tasks).into_par_iter().with_max_len(1).map(work).collect()
    } else {
        (0..tasks).map(work).collect()
    }
}

/// Products and sums of which a vector unit does as many in the time of one other operation.
pub(crate) const PRODUCTS: usize = 4;

/// Whether other threads are worth waking: that costs about 5 µs of one core, and several times as much from outside their
/// pool.
pub(crate) fn worth(operations: usize) -> bool {
    let least = if rayon::current_thread_index().is_some() { 1 << 19 } else { 1 << 22 };
    operations >= least && !ALONE.get() && rayon::current_num_threads() > 1
}

thread_local! {
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on this thread alone: the others have enough of their own.
pub(crate) fn alone<T>(work: impl FnOnce() -> T) -> T {
    let before = ALONE.replace(true);
    let result = work();
    ALONE.set(before);
    result
}
