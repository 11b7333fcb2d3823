//! Progress: what is shown of a thing that takes longer than two seconds, to somebody who looks.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::out::Out;
use crate::render::words::plain;

/// How long a thing may take before anything is shown of it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A thing that is under way; it is wiped off the screen when this is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    shown: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Progress {
    /// Begins a thing. Nothing is shown for two seconds, and nothing at all if nobody looks.
    pub(crate) fn begin(out: Out, what: &str) -> Self {
        let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("a right template");
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style);
        bar.set_message(plain(what));
        let shown = out.shows_progress().then(|| {
            let (ended, end) = mpsc::channel();
            let bar = bar.clone();
            let thread = std::thread::spawn(move || {
                if end.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                    bar.enable_steady_tick(Duration::from_millis(120));
                }
            });
            (ended, thread)
        });
        Self { bar, shown }
    }

    /// Says how far it is.
    pub(crate) fn say(&self, what: &str) {
        self.bar.set_message(plain(what));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((ended, thread)) = self.shown.take() {
            drop(ended);
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}
