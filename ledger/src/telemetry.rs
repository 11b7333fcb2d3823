//! What the write side counts of itself, for `/metrics`. Counted by the edges; nothing that follows rules reads it.

use std::sync::LazyLock;

use prometheus::{Histogram, IntCounterVec, register_histogram, register_int_counter_vec};

/// The upper edges of durations of commits, effects and rollbacks, in seconds.
pub const SECONDS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0];

/// Appended commits by their verdict: `counted`, `void`, `refused` (not in the log), `unknown` (no verdict in time).
pub static APPENDS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Commits that this process appended, by their verdict";
    register_int_counter_vec!("ionledger_appends_total", help, &["outcome"]).expect("registered once")
});

/// From an append to its verdict.
pub static APPEND_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    let help = "Seconds from an append to its verdict";
    register_histogram!("ionledger_append_seconds", help, SECONDS.to_vec()).expect("registered once")
});
