//! The binary with a ledger that runs: the talk's sentences from declaration to history, and what scripts rely on.

mod cli {
    #[path = "binary.rs"]
    pub mod binary;
    #[path = "completion.rs"]
    pub mod completion;
    #[path = "running.rs"]
    pub mod running;

    #[path = "alone.rs"]
    mod alone;
    #[path = "failing.rs"]
    mod failing;
    #[path = "forecast.rs"]
    mod forecast;
    #[path = "holds.rs"]
    mod holds;
    #[path = "metrics.rs"]
    mod metrics;
    #[path = "refusals.rs"]
    mod refusals;
    #[path = "renewals.rs"]
    mod renewals;
    #[path = "seen.rs"]
    mod seen;
    #[path = "sentences.rs"]
    mod sentences;
    #[path = "terminal.rs"]
    pub mod terminal;
    #[path = "upgrade.rs"]
    mod upgrade;
    #[path = "waiting.rs"]
    mod waiting;
}
