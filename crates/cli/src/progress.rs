//! One line on the terminal for work that takes over a second.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use netproof_audit::Progress;

/// Work is shown after this time, and not more often than this.
const QUIET: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(200);

struct Work {
    what: String,
    steps: u64,
    done: u64,
    started: Instant,
    shown: Option<Instant>,
}

/// Progress on standard error; nothing but notes where that is no terminal.
#[derive(Default)]
pub(crate) struct Terminal {
    work: Mutex<Option<Work>>,
    stop: Arc<AtomicBool>,
}

impl Terminal {
    /// One that listens for Ctrl-C.
    /// # Errors
    /// Something listens already.
    pub(crate) fn listening() -> anyhow::Result<Self> {
        Ok(Self { work: Mutex::default(), stop: interrupts("what is finished is kept")? })
    }

    fn clear() {
        eprint!("\r\x1b[2K");
    }
}

/// Set by the first Ctrl-C; the second one ends the process at once. `message` says what becomes of the work.
/// # Errors
/// Something listens already.
pub(crate) fn interrupts(message: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    let own = flag.clone();
    ctrlc::set_handler(move || {
        if own.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("\ninterrupted: {message}; once more ends at once");
    })
    .context("listening for Ctrl-C")?;
    Ok(flag)
}

impl Progress for Terminal {
    fn start(&self, what: &str, steps: u64) {
        if let Ok(mut work) = self.work.lock() {
            *work = Some(Work { what: what.to_owned(), steps, done: 0, started: Instant::now(), shown: None });
        }
    }

    fn advance(&self, steps: u64) {
        let Ok(mut guard) = self.work.lock() else { return };
        let Some(work) = guard.as_mut() else { return };
        work.done += steps;
        let due = work.shown.map_or(work.started.elapsed() > QUIET, |s| s.elapsed() > INTERVAL);
        if !due || !std::io::stderr().is_terminal() {
            return;
        }
        work.shown = Some(Instant::now());
        let share = work.done as f64 / work.steps.max(1) as f64;
        let left = work.started.elapsed().as_secs_f64() * (1.0 - share) / share.max(1e-9);
        eprint!("\r\x1b[2K{}: {} of {} rows, {:.0} s left", work.what, work.done, work.steps, left);
        let _ = std::io::stderr().flush();
    }

    fn finish(&self) {
        let Ok(mut guard) = self.work.lock() else { return };
        if guard.take().is_some_and(|w| w.shown.is_some()) {
            Self::clear();
        }
    }

    fn note(&self, text: &str) {
        eprintln!("{text}");
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
