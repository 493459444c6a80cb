//! What is said on standard error, and the progress bar.

use std::io::{IsTerminal, Write};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work that is over sooner needs no bar.
const BAR_AFTER: Duration = Duration::from_secs(2);

/// A line without what terminals take as commands, as names of files may hold.
fn without_controls(line: &str) -> String {
    let shown = |c: char| match c {
        '\n' | '\t' => c,
        _ if c.is_control() => char::REPLACEMENT_CHARACTER,
        _ => c,
    };
    line.chars().map(shown).collect()
}

/// Standard error, at the level of talk that was asked for.
#[derive(Debug)]
pub struct Console {
    quiet: bool,
    verbose: bool,
}

impl Console {
    /// A console that says less or more.
    pub fn new(quiet: bool, verbose: bool) -> Self {
        Self { quiet, verbose }
    }

    /// Something failed.
    pub fn error(&self, message: &str) {
        // Nobody is left to tell if this fails.
        let _ = writeln!(std::io::stderr(), "error: {}", without_controls(message));
    }

    /// Something that changes the result in a way the user may not expect.
    pub fn note(&self, message: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "note: {}", without_controls(message));
        }
    }

    /// As many threads as were asked for, but no more than there are cores; `flag` is named where that are fewer.
    pub fn at_most_cores(&self, flag: &str, threads: usize) -> usize {
        let cores = std::thread::available_parallelism().map_or(threads, usize::from);
        if threads > cores {
            self.note(&format!(
                "{flag} {threads}: more than the {cores} cores here help nothing; using {cores}"
            ));
        }
        threads.min(cores)
    }

    /// A line of a long work's progress.
    pub fn progress(&self, line: &str) {
        if !self.quiet {
            let _ = writeln!(std::io::stderr(), "{}", without_controls(line));
        }
    }

    /// A bar of `total` steps that are worth a line of their own; `None` where there is no terminal.
    pub fn live_bar(&self, total: u64) -> Option<ProgressBar> {
        if self.quiet || !std::io::stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = "{elapsed} [{bar:24}] {pos}/{len} {wide_msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        Some(bar)
    }

    /// Something for those who asked.
    pub fn detail(&self, message: &str) {
        if self.verbose {
            let _ = writeln!(std::io::stderr(), "{}", without_controls(message));
        }
    }

    /// A bar that counts `total` things, for terminals and for work of more than two seconds.
    pub fn bar(&self, total: u64, what: &str) -> Bar {
        let style = format!(
            "{{elapsed}} [{{bar:30}}] {{pos}}/{{len}} {what} ({{per_sec}}, {{eta}} left) {{msg}}"
        );
        self.styled_bar(Some(total), &style)
    }

    /// As [`Console::bar`], for bytes of a file.
    pub fn bytes_bar(&self, file: &str, total: Option<u64>) -> Bar {
        let name = file.replace(['{', '}'], "");
        let style = if total.is_some() {
            format!(
                "{name} [{{bar:30}}] {{bytes}}/{{total_bytes}} ({{bytes_per_sec}}, {{eta}} left)"
            )
        } else {
            format!("{name} {{bytes}} ({{bytes_per_sec}})")
        };
        let bar = self.styled_bar(total, &style);
        if let Some(total) = total {
            self.detail(&format!("{file}: {}", HumanBytes(total)));
        }
        bar
    }

    fn styled_bar(&self, total: Option<u64>, style: &str) -> Bar {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        Bar {
            bar,
            wanted: !self.quiet && std::io::stderr().is_terminal(),
            start: Instant::now(),
            shown: OnceLock::new(),
        }
    }
}

/// A progress bar that appears when there is something to wait for.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
    wanted: bool,
    start: Instant,
    shown: OnceLock<()>,
}

impl Bar {
    /// Counts `amount` more.
    pub fn advance(&self, amount: u64) {
        if self.wanted && self.start.elapsed() > BAR_AFTER {
            self.shown
                .get_or_init(|| self.bar.set_draw_target(ProgressDrawTarget::stderr()));
        }
        self.bar.inc(amount);
    }

    /// Sets how much there is, once that is known.
    pub fn set_length(&self, total: u64) {
        self.bar.set_length(total);
    }

    /// Runs `print` with the bar out of the way.
    pub fn suspend<R>(&self, print: impl FnOnce() -> R) -> R {
        self.bar.suspend(print)
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
