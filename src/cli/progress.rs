//! How progress is shown: spinners on a terminal, lines elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use cluster::Progress;

/// Tells phases on standard error: a spinner on a terminal, else a line per phase, or nothing.
pub(super) fn reporter(quiet: bool) -> Box<dyn Progress> {
    if quiet {
        Box::new(Silent)
    } else if std::io::stderr().is_terminal() {
        Box::new(Spinner::default())
    } else {
        Box::new(Lines)
    }
}

/// `12.3 s`, or `45 ms` for what is short.
pub(super) fn human(time: Duration) -> String {
    match time.as_millis() {
        ms if ms < 1000 => format!("{ms} ms"),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

fn say(line: &str) {
    // Progress that nobody reads stops nothing.
    let _ = writeln!(std::io::stderr(), "{line}");
}

struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str) {}
    fn detail(&self, _: &str) {}
    fn done(&self, _: &str, _: Duration) {}
    fn failed(&self, _: &str) {}
    fn warn(&self, text: &str) {
        say(&format!("warning: {text}"));
    }
}

struct Lines;

impl Progress for Lines {
    fn begin(&self, _: &str) {}

    fn detail(&self, text: &str) {
        // Long work tells its milestones only: the steps of a build, not its every line.
        if ["Step ", "pulling ", "no registry", "adding "].iter().any(|start| text.starts_with(start)) {
            say(&format!("  {text}"));
        }
    }

    fn done(&self, phase: &str, took: Duration) {
        say(&format!("{phase}: {}", human(took)));
    }

    fn failed(&self, phase: &str) {
        say(&format!("{phase}: failed"));
    }

    fn warn(&self, text: &str) {
        say(&format!("warning: {text}"));
    }
}

/// One line that changes, and a line that stays for every phase that is over.
#[derive(Default)]
struct Spinner {
    bar: Mutex<Option<ProgressBar>>,
}

impl Spinner {
    fn replace(&self, bar: Option<ProgressBar>) -> Option<ProgressBar> {
        std::mem::replace(&mut *self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner), bar)
    }

    fn end(&self, line: &str) {
        if let Some(bar) = self.replace(None) {
            bar.finish_and_clear();
        }
        say(line);
    }
}

impl Progress for Spinner {
    fn begin(&self, phase: &str) {
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {prefix} {elapsed:.dim} {msg:.dim}")
        {
            bar.set_style(style);
        }
        bar.set_prefix(phase.to_owned());
        bar.enable_steady_tick(Duration::from_millis(80));
        if let Some(before) = self.replace(Some(bar)) {
            before.finish_and_clear();
        }
    }

    fn detail(&self, text: &str) {
        let bar = self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(bar) = bar.as_ref() {
            bar.set_message(text.chars().take(100).collect::<String>());
        }
    }

    fn done(&self, phase: &str, took: Duration) {
        self.end(&format!("\u{1b}[32m✓\u{1b}[0m {phase} \u{1b}[2m{}\u{1b}[0m", human(took)));
    }

    fn failed(&self, phase: &str) {
        self.end(&format!("\u{1b}[31m✗\u{1b}[0m {phase}"));
    }

    fn warn(&self, text: &str) {
        let bar = self.bar.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match bar.as_ref() {
            Some(bar) => bar.suspend(|| say(&format!("warning: {text}"))),
            None => say(&format!("warning: {text}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        assert_eq!(human(Duration::from_millis(45)), "45 ms");
        assert_eq!(human(Duration::from_millis(12_340)), "12.3 s");
    }
}
