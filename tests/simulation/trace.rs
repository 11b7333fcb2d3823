//! The trace: what happened in a run, line by line, and a hash over all of it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::hash::Hasher as _;

use crate::world::Ms;

/// How many lines before a failure are shown.
const TAIL: usize = 400;

/// A run's trace. The hash is always kept, the lines only if somebody wants to read them.
pub struct Trace {
    hasher: std::hash::DefaultHasher,
    line: String,
    lines: Option<VecDeque<String>>,
}

impl Trace {
    pub fn new(keep: bool) -> Self {
        Self { hasher: std::hash::DefaultHasher::new(), line: String::new(), lines: keep.then(VecDeque::new) }
    }

    /// Adds a line.
    pub fn add(&mut self, now: Ms, what: std::fmt::Arguments<'_>) {
        self.line.clear();
        let (s, ms) = (now / 1_000, now % 1_000);
        let _ = write!(self.line, "{:02}:{:02}:{:02}.{ms:03}  {what}", s / 3_600, s / 60 % 60, s % 60);
        self.hasher.write(self.line.as_bytes());
        if let Some(lines) = &mut self.lines {
            if lines.len() == TAIL && std::env::var_os("SIM_TRACE").is_none() {
                lines.pop_front();
            }
            lines.push_back(self.line.clone());
        }
    }

    /// Returns the hash of everything so far.
    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }

    /// Returns the lines that were kept.
    pub fn tail(&self) -> String {
        self.lines.iter().flatten().fold(String::new(), |text, line| text + line + "\n")
    }
}
