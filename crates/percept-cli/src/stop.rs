//! Ends of a run that come from outside.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a run that a signal stopped, as shells have it for Ctrl-C.
pub const STOPPED: u8 = 130;

/// A flag that SIGINT and SIGTERM raise, with a line that says what happens now. A second signal ends
/// the process at once.
///
/// # Errors
/// The system refuses, or this was asked for before.
pub fn on_signal(told: &'static str) -> anyhow::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let raised = stop.clone();
    ctrlc::set_handler(move || {
        if raised.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(STOPPED));
        }
        // Nobody is left to tell if this fails.
        let _ = writeln!(std::io::stderr(), "\n{told}");
    })?;
    Ok(stop)
}

/// Has SIGINT and SIGTERM end the process, with a last line, for work that keeps what it has as it goes.
///
/// # Errors
/// As [`on_signal`].
pub fn end_on_signal(told: &'static str) -> anyhow::Result<()> {
    ctrlc::set_handler(move || {
        // Nobody is left to tell if this fails.
        let _ = writeln!(std::io::stderr(), "\n{told}");
        std::process::exit(i32::from(STOPPED));
    })?;
    Ok(())
}
