//! What happens outside: react to state and facts, act at the edge, record the outcome.

pub mod artifacts;
pub mod checks;
pub mod nodes;
pub mod proxy;
pub mod traffic;
