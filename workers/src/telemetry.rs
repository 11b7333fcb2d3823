//! What the workers count of themselves, for `/metrics`.

use std::sync::LazyLock;

use ledger::telemetry::SECONDS;
use prometheus::{HistogramVec, IntCounterVec, register_histogram_vec, register_int_counter_vec};

/// Effects that ended, by role, kind and outcome (`done` or `failed`).
pub static EFFECTS: LazyLock<IntCounterVec> = LazyLock::new(|| {
    let help = "Effects of this process that ended, by role, kind and outcome";
    register_int_counter_vec!("ionledger_effects_total", help, &["role", "effect", "outcome"]).expect("registered once")
});

/// How long effects took, by kind.
pub static EFFECT_SECONDS: LazyLock<HistogramVec> = LazyLock::new(|| {
    let help = "Seconds that effects of this process took";
    register_histogram_vec!("ionledger_effect_seconds", help, &["effect"], SECONDS.to_vec()).expect("registered once")
});
