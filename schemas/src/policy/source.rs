//! Who measures a service's requests, as its policy names it.

use super::JudgementPolicy;

/// The name of the router's own counters. A policy that names no source means them.
pub const ROUTER: &str = "router";

/// A source of measurements by its name in the policy. `workers::measures::registry` has the adapter for each name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedSource {
    /// Its name, as the policy's key.
    pub name: &'static str,
    /// How often it has something new, in milliseconds; none for the router, whose counters are read with its routes.
    pub interval_ms: Option<u64>,
}

impl NamedSource {
    /// Says whether the router's own counters are meant.
    pub fn is_router(&self) -> bool {
        self.name == ROUTER
    }
}

impl JudgementPolicy {
    /// Returns the source that the policy names.
    pub fn source(&self) -> NamedSource {
        match &self.prometheus {
            None => NamedSource { name: ROUTER, interval_ms: None },
            Some(server) => NamedSource { name: "prometheus", interval_ms: Some(server.scrape_interval_ms) },
        }
    }
}
