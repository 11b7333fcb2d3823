//! Ports on which a node could listen.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use rand::RngExt as _;
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;

/// Ports are taken from here up to where the kernel's own choices for outgoing connections begin: a port among those
/// could be gone by the time the node listens.
const FIRST: u16 = 10_000;
const LAST_AT_LEAST: u16 = 20_000;

/// Hands out ports in turn, so that one that was just handed out and is not listened on yet does not come again soon.
#[derive(Debug)]
pub(super) struct Ports {
    next: AtomicU16,
    first: u16,
    last: u16,
}

impl Ports {
    pub(super) fn new() -> Self {
        let ephemeral = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let first_ephemeral = ephemeral.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(32_768_u16);
        let last = first_ephemeral.saturating_sub(1).max(LAST_AT_LEAST);
        Self::within(FIRST, last)
    }

    /// Returns the ports from `first` to `last`, of which any is handed out first.
    pub(super) fn within(first: u16, last: u16) -> Self {
        Self { next: AtomicU16::new(UnwrapErr(SysRng).random_range(first..=last)), first, last }
    }

    /// Returns `n` ports that nobody listens on and that are not among `taken`, or as many as there are.
    pub(super) fn free(&self, n: u16, taken: &BTreeSet<u16>) -> Vec<u16> {
        let all = (self.first..=self.last).map(|_| self.turn());
        all.filter(|port| !taken.contains(port) && is_free(*port)).take(n.into()).collect()
    }

    fn turn(&self) -> u16 {
        let step = |port: u16| Some(if port >= self.last { self.first } else { port + 1 });
        self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).unwrap_or(self.first)
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_different_free_and_not_handed_out_twice_in_a_row() {
        let ports = Ports::new();
        let first = ports.free(5, &BTreeSet::new());
        let taken = BTreeSet::from([ports.next.load(Ordering::Relaxed)]);
        let second = ports.free(5, &taken);
        let all: BTreeSet<u16> = first.iter().chain(&second).copied().collect();
        assert_eq!((all.len(), all.is_disjoint(&taken)), (10, true));
    }

    #[test]
    fn a_port_that_is_listened_on_is_not_free() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(listener.local_addr().unwrap().port()));
    }
}
