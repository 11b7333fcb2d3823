//! The Merkle tree over all records, voids included: one root that is the same wherever the ledger lies.
//!
//! Source: RFC 6962, section 2.1: a leaf is `SHA-256(0x00, record)`, a node `SHA-256(0x01, left, right)`, and a tree
//! of n leaves splits at the largest power of two below n.

use schemas::Hash;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Returns the hash that is the leaf of a record.
pub fn leaf_hash(record: &[u8]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([0]);
    hasher.update(record);
    Hash(hasher.finalize().into())
}

fn node_hash(left: Hash, right: Hash) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update([1]);
    hasher.update(left.0);
    hasher.update(right.0);
    Hash(hasher.finalize().into())
}

/// The right edge of a growing tree: the roots of its full subtrees, largest first. Enough to append and to give
/// the root.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Frontier {
    size: u64,
    full: Vec<Hash>,
}

/// A frontier as it was stored, before it is known to be one.
#[derive(Deserialize)]
struct Stored {
    size: u64,
    full: Vec<Hash>,
}

impl TryFrom<Stored> for Frontier {
    type Error = &'static str;

    fn try_from(Stored { size, full }: Stored) -> Result<Self, Self::Error> {
        let fits = full.len() == size.count_ones() as usize;
        if fits { Ok(Self { size, full }) } else { Err("a frontier holds one subtree for every bit of its size") }
    }
}

impl Frontier {
    /// Returns the number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf.
    pub fn push(&mut self, leaf: Hash) {
        let mut hash = leaf;
        let mut size = self.size;
        while size & 1 == 1 {
            hash = node_hash(self.full.pop().expect("a full subtree for every bit of the size"), hash);
            size >>= 1;
        }
        self.full.push(hash);
        self.size += 1;
    }

    /// Returns the tree's root; of an empty tree the SHA-256 of nothing.
    pub fn root(&self) -> Hash {
        let mut full = self.full.iter().rev().copied();
        let Some(last) = full.next() else { return Hash::of(b"") };
        full.fold(last, |right, left| node_hash(left, right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, taken literally from RFC 6962.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => Hash::of(b""),
            [leaf] => *leaf,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node_hash(by_definition(&leaves[..split]), by_definition(&leaves[split..]))
            }
        }
    }

    #[test]
    fn the_frontier_gives_the_root_of_the_definition_at_every_size() {
        let leaves: Vec<Hash> = (0..130_u32).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        let mut frontier = Frontier::default();
        for size in 0..=leaves.len() {
            assert_eq!(frontier.root(), by_definition(&leaves[..size]), "size {size}");
            if let Some(next) = leaves.get(size) {
                frontier.push(*next);
            }
        }
    }

    #[test]
    fn a_stored_frontier_that_does_not_fit_its_size_is_refused() {
        let mut frontier = Frontier::default();
        (0..5_u32).for_each(|n| frontier.push(leaf_hash(&n.to_be_bytes())));
        let stored = serde_json::to_string(&frontier).unwrap();
        assert_eq!(serde_json::from_str::<Frontier>(&stored).unwrap(), frontier);
        assert!(serde_json::from_str::<Frontier>(&stored.replace("\"size\":5", "\"size\":7")).is_err());
    }

    /// Source: the known answers of the Certificate Transparency reference implementation.
    #[test]
    fn the_roots_are_those_of_certificate_transparency() {
        let records: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let mut frontier = Frontier::default();
        assert_eq!(frontier.root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        for record in records {
            frontier.push(leaf_hash(record));
        }
        assert_eq!(frontier.root().to_string(), "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328");
    }
}
