//! The rules of a deployment: every command and report in every state, each rule by itself, and what holds over any
//! history.

mod named;

mod matrix;
mod hints;
mod probed;
mod rejected;
mod renew;
mod reports;

mod failure;
mod break_glass;
mod hold;
mod retention;
mod rollback;
mod rollout;
mod stacks;
mod steps;
mod traffic;
mod waiting;

mod properties;
