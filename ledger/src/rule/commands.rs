//! Which commands counted: an entry for every commit, so the largest thing that the rule remembers.

use std::collections::HashMap;

use bytes::Bytes;
use schemas::{CommandId, Hash, Offset};

use super::Done;

/// How many bytes an entry takes in a sorted block: the command's id, the hash of its content, where its commit stands.
const ENTRY: usize = 16 + 32 + 8;

/// The commands that counted.
///
/// Those that came from a cache are one sorted block of bytes, which need not be put into a table first and is shared by every
/// copy. Those that counted since are in a table.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    sorted: Bytes,
    since: HashMap<CommandId, Done>,
    last: Option<Offset>,
}

/// A block of bytes is no sorted block of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the commands are not in the order of their ids")]
pub struct NotSorted;

impl Commands {
    /// Takes a block that [`Commands::to_sorted`] made.
    ///
    /// # Errors
    ///
    /// [`NotSorted`] if it is none.
    pub fn from_sorted(sorted: Bytes) -> Result<Self, NotSorted> {
        let (entries, rest) = sorted.as_chunks::<ENTRY>();
        if !rest.is_empty() || !entries.is_sorted_by(|one, next| id_of(one) < id_of(next)) {
            return Err(NotSorted);
        }
        let last = entries.iter().map(|entry| done_of(entry).offset).max();
        Ok(Self { since: HashMap::new(), last, sorted })
    }

    /// Returns all of them as one block of bytes, sorted by id: 56 bytes for each command.
    pub fn to_sorted(&self) -> Vec<u8> {
        let mut since: Vec<_> = self.since.iter().map(|(id, done)| entry_of(*id, done)).collect();
        since.sort_unstable();
        let mut block = Vec::with_capacity(self.sorted.len() + since.len() * ENTRY);
        let mut before = &*self.sorted;
        for entry in since {
            let (earlier, rest) = before.split_at(place(before, id_of(&entry)) * ENTRY);
            block.extend_from_slice(earlier);
            block.extend_from_slice(&entry);
            before = rest;
        }
        block.extend_from_slice(before);
        block
    }

    /// Returns what became of a command, if it counted.
    pub fn get(&self, id: CommandId) -> Option<Done> {
        self.since.get(&id).copied().or_else(|| {
            let (entries, _) = self.sorted.as_chunks::<ENTRY>();
            let entry = entries.get(place(&self.sorted, id.0.as_bytes()))?;
            (id_of(entry) == id.0.as_bytes()).then(|| done_of(entry))
        })
    }

    /// Adds a command that counts; none has its id yet.
    pub fn insert(&mut self, id: CommandId, done: Done) {
        self.last = self.last.max(Some(done.offset));
        self.since.insert(id, done);
    }

    /// Returns where the last commit stands that counted.
    pub fn last(&self) -> Option<Offset> {
        self.last
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.sorted.len() / ENTRY + self.since.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PartialEq for Commands {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.to_sorted() == other.to_sorted()
    }
}

/// Returns the number of the first entry of a sorted block whose id is not smaller.
fn place(sorted: &[u8], id: &[u8]) -> usize {
    let (entries, _) = sorted.as_chunks::<ENTRY>();
    // Ids that are made now are larger than those made before.
    match entries.last() {
        Some(last) if id_of(last) < id => entries.len(),
        _ => entries.partition_point(|entry| id_of(entry) < id),
    }
}

fn entry_of(id: CommandId, done: &Done) -> [u8; ENTRY] {
    let mut entry = [0; ENTRY];
    entry[..16].copy_from_slice(id.0.as_bytes());
    entry[16..48].copy_from_slice(&done.hash.0);
    entry[48..].copy_from_slice(&done.offset.0.to_be_bytes());
    entry
}

fn id_of(entry: &[u8; ENTRY]) -> &[u8] {
    &entry[..16]
}

fn done_of(entry: &[u8; ENTRY]) -> Done {
    let hash = entry[16..48].try_into().expect("thirty-two bytes");
    let offset = entry[48..].try_into().expect("eight bytes");
    Done { hash: Hash(hash), offset: Offset(u64::from_be_bytes(offset)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn commands(numbers: impl IntoIterator<Item = u128>) -> Commands {
        let mut commands = Commands::default();
        add(&mut commands, numbers);
        commands
    }

    fn add(commands: &mut Commands, numbers: impl IntoIterator<Item = u128>) {
        numbers.into_iter().for_each(|number| commands.insert(CommandId(Uuid::from_u128(number)), done(number)));
    }

    fn done(number: u128) -> Done {
        Done { hash: Hash::of(&number.to_be_bytes()), offset: Offset(number as u64 % 1_000) }
    }

    proptest! {
        #[test]
        fn they_are_the_same_however_many_of_them_are_sorted(
            numbers in prop::collection::btree_set(1..2_000_u128, 0..80), cuts in (0..80_usize, 0..80_usize),
        ) {
            let shuffled: Vec<u128> = numbers.iter().map(|number| number.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
            let (first, second) = (cuts.0.min(shuffled.len()), cuts.1.min(shuffled.len()));
            let (first, second) = (first.min(second), first.max(second));
            let mut some = commands(shuffled[..first].iter().copied());
            for range in [first..second, second..shuffled.len()] {
                some = Commands::from_sorted(some.to_sorted().into()).unwrap();
                add(&mut some, shuffled[range].iter().copied());
            }
            let all = commands(shuffled.iter().copied());
            prop_assert_eq!(&some, &all);
            prop_assert_eq!((some.len(), some.last()), (numbers.len(), all.last()));
            for number in 0..2_000_u128 {
                let id = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let expected = numbers.contains(&number).then(|| done(id));
                prop_assert_eq!(some.get(CommandId(Uuid::from_u128(id))), expected);
            }
        }
    }

    #[test]
    fn what_is_not_sorted_is_refused() {
        let block = Bytes::from(commands(1..4).to_sorted());
        assert_eq!(Commands::from_sorted(block.slice(1..)), Err(NotSorted));
        let swapped = [&block[ENTRY..2 * ENTRY], &block[..ENTRY]].concat();
        assert_eq!(Commands::from_sorted(swapped.into()), Err(NotSorted));
        let twice = [&block[..ENTRY], &block[..ENTRY]].concat();
        assert_eq!(Commands::from_sorted(twice.into()), Err(NotSorted));
    }
}
