//! What the user sees while a command runs.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;

/// A progress bar on a terminal, single lines elsewhere; everything goes to standard error.
pub struct Progress {
    terminal: bool,
}

impl Progress {
    /// Looks at standard error to decide.
    pub fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal() }
    }

    /// Says what begins now.
    pub fn step(&self, text: &str) {
        eprintln!("{text}");
    }

    /// Starts a bar of `total` steps.
    pub fn bar(&self, label: &str, total: u64) -> ProgressBar {
        let target = if self.terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{msg:10} {wide_bar} {pos}/{len} {per_sec} {elapsed}")
            .expect("the template is valid");
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style);
        bar.set_message(label.to_owned());
        bar
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
