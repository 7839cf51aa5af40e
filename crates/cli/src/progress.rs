//! One line on the terminal for work that takes over a second.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::time::{Duration, Instant};

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
pub(crate) struct Terminal(Mutex<Option<Work>>);

impl Terminal {
    fn clear() {
        eprint!("\r\x1b[2K");
    }
}

impl Progress for Terminal {
    fn start(&self, what: &str, steps: u64) {
        if let Ok(mut work) = self.0.lock() {
            *work = Some(Work { what: what.to_owned(), steps, done: 0, started: Instant::now(), shown: None });
        }
    }

    fn advance(&self, steps: u64) {
        let Ok(mut guard) = self.0.lock() else { return };
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
        let Ok(mut guard) = self.0.lock() else { return };
        if guard.take().is_some_and(|w| w.shown.is_some()) {
            Self::clear();
        }
    }

    fn note(&self, text: &str) {
        eprintln!("{text}");
    }
}
