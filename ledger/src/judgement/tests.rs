//! The judge as a whole: known verdicts, the theorem, and the awkward cases.

mod awkward;
#[path = "../../../tests/support/canary.rs"]
mod canary;
mod hearing;
mod kit;
mod known;
mod nodes;
mod theorem;
mod told;
