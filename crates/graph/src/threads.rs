//! The threads that share the work, one pool for the process.

/// Starts the pool with `count` threads, one per core that this process may use where `None`. If they are as many as the
/// cores, each stays on a core of its own: woken together, two threads may else share one core for the first 50 ms.
///
/// Without this call the pool starts with the first work, and its threads move as the system likes.
/// # Errors
/// The pool runs already, or the system refuses threads.
pub fn start_threads(count: Option<usize>) -> Result<(), rayon::ThreadPoolBuildError> {
    let mut cores = cores();
    // A container may have less time than cores.
    cores.truncate(std::thread::available_parallelism().map_or(1, usize::from));
    let count = count.unwrap_or(cores.len()).max(1);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(count);
    if count != cores.len() {
        return pool.build_global();
    }
    pool.start_handler(move |i| stay_on(cores[i])).build_global()
}

/// Numbers of the cores that this process may use.
#[cfg(target_os = "linux")]
fn cores() -> Vec<usize> {
    // SAFETY: a set of cores is plain bits, for which zeros are valid; the call writes at most the size that is given.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        (libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) == 0).then_some(set)
    };
    // SAFETY: only numbers that the set has bits for are asked.
    let found =
        set.map(|set| (0..libc::CPU_SETSIZE as usize).filter(|&i| unsafe { libc::CPU_ISSET(i, &set) }).collect());
    found.filter(|all: &Vec<usize>| !all.is_empty()).unwrap_or_else(|| vec![0])
}

#[cfg(not(target_os = "linux"))]
fn cores() -> Vec<usize> {
    (0..std::thread::available_parallelism().map_or(1, usize::from)).collect()
}

/// Keeps the calling thread on a core. Where the system refuses, it moves on as before.
#[cfg(target_os = "linux")]
fn stay_on(core: usize) {
    // SAFETY: as above; `core` came out of such a set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

#[cfg(not(target_os = "linux"))]
fn stay_on(_core: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_at_least_as_many_cores_as_may_be_used_at_once() {
        assert!(cores().len() >= std::thread::available_parallelism().unwrap().get());
    }

    #[test]
    fn a_thread_stays_where_it_is_put() {
        let last = *cores().last().unwrap();
        let seen = std::thread::spawn(move || {
            stay_on(last);
            cores()
        });
        if cfg!(target_os = "linux") {
            assert_eq!(seen.join().unwrap(), [last]);
        }
    }
}
