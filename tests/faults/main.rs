//! Faults on the real log in files: killed processes, failed syncs, power cuts, full disks, flipped bits. What was
//! acknowledged is there afterwards, nothing is there twice, and damage is named.
//!
//! They need root, strace, and mke2fs; without them a test says that it was skipped, and fails where `CI` is `true`.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]

mod bits;
mod full;
mod kill;
mod power;
mod sync;
mod world;
