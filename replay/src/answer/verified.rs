//! Verified: what `verify` found when it recomputed the ledger from its first record.

use std::collections::BTreeMap;

use schemas::{Hash, LedgerId, Offset, Timestamp};
use serde::{Deserialize, Serialize};

/// What `verify` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The version of this form.
    pub schema_version: u16,
    /// Whether all of it holds: no bad place, and the cache does not contradict the log.
    pub ok: bool,
    /// The ledger's id; none if its first record could not be read.
    pub ledger: Option<LedgerId>,
    /// How many records were read and hashed.
    pub records: u64,
    /// How many of them count.
    pub counted: u64,
    /// How many do not count, by their reason: `stale`, `fork`, `duplicate`, `malformed`.
    pub voids: BTreeMap<String, u64>,
    /// How many events the counting records hold.
    pub events: u64,
    /// How many streams have a head.
    pub streams: u64,
    /// Streams that hold events this program does not understand, and the first such event of each.
    pub read_only: BTreeMap<String, String>,
    /// The root of the Merkle tree (RFC 6962) over all records that were read.
    pub root: Hash,
    /// The ledger's time at the last of them.
    pub time: Option<Timestamp>,
    /// The first place that is wrong, if one is.
    pub bad: Option<BadPlace>,
    /// How the cache in the data folder compares; none without one.
    pub projection: Option<Compared>,
}

/// A place in the log that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadPlace {
    /// The record.
    pub offset: Offset,
    /// What is wrong with it, and what to do.
    pub what: String,
}

/// How the cache compares with the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cache", rename_all = "snake_case")]
pub enum Compared {
    /// It holds what the log's first `records` records fold to.
    Agrees {
        /// How many records it has folded.
        records: u64,
        /// The root it holds.
        root: Hash,
    },
    /// It contradicts the log: the log was changed or cut, or the cache belongs to another one.
    Differs {
        /// How many records it has folded.
        records: u64,
        /// In what they differ.
        what: String,
    },
    /// It is damaged and will be rebuilt at the next start.
    Damaged {
        /// What is wrong with it.
        what: String,
    },
    /// A running `up` holds it.
    InUse,
}
