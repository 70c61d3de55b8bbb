//! Says what long work is doing: a spinner with the elapsed time on a terminal, plain lines elsewhere.
//! Everything goes to standard error, so that results on standard output stay clean.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// One piece of work under way. Dropping it removes the spinner.
pub(crate) struct Progress {
    title: &'static str,
    spinner: ProgressBar,
}

impl Progress {
    /// Starts one, named `title` at the start of each of its lines.
    pub(crate) fn start(title: &'static str) -> Self {
        let spinner = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix}: {msg} ({elapsed})") {
            spinner.set_style(style);
        }
        spinner.set_prefix(title);
        if !spinner.is_hidden() {
            spinner.enable_steady_tick(TICK);
        }
        Self { title, spinner }
    }

    /// What is being done from now on.
    pub(crate) fn doing(&self, what: impl Into<String>) {
        let what = what.into();
        if self.spinner.is_hidden() {
            eprintln!("{}: {what}", self.title);
        } else {
            self.spinner.set_message(what);
        }
    }

    /// A line that stays.
    pub(crate) fn note(&self, text: &str) {
        self.spinner.suspend(|| eprintln!("{}: {text}", self.title));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.spinner.finish_and_clear();
    }
}
