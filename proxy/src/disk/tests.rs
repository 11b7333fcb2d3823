//! What a kill, a power cut, flipped bits and a full disk leave of the routes.

use schemas::StreamVersion;

use super::*;

fn retired(generation: u64) -> Entry {
    Entry::Retired { generation: StreamVersion(generation) }
}

fn id() -> DeploymentId {
    "test/api".parse().unwrap()
}

/// A folder where the changes 1 to `changes` were stored.
fn folder_after(changes: u64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    (1..=changes).for_each(|generation| store(folder.path(), &id(), &retired(generation)).unwrap());
    folder
}

fn generation(folder: &Path) -> Option<u64> {
    let (entries, damaged) = load(folder).unwrap();
    assert_eq!(entries.len() + damaged.len(), 1);
    assert!(damaged.iter().all(|damaged| damaged.aside.exists()));
    match entries.into_values().next()? {
        Entry::Retired { generation } => Some(generation.0),
        Entry::Routed(held) => Some(held.routes.generation.0),
    }
}

#[test]
fn what_was_stored_last_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let [api, web]: [DeploymentId; 2] = ["production/api", "test/web"].map(|id| id.parse().unwrap());
    for (id, generation) in [(&api, 1), (&web, 5), (&api, 2), (&api, 3), (&api, 4)] {
        store(folder.path(), id, &retired(generation)).unwrap();
    }
    fs::write(folder.path().join("production.api.new"), "a write that was cut off").unwrap();
    let (entries, damaged) = load(folder.path()).unwrap();
    assert_eq!(entries, [(api, retired(4)), (web, retired(5))].into());
    assert!(damaged.is_empty());
}

#[test]
fn a_change_takes_no_space_and_replaces_no_file() {
    use std::os::unix::fs::MetadataExt as _;
    let folder = folder_after(1);
    let path = path_of(folder.path(), &id());
    let before = fs::metadata(&path).unwrap();
    assert!(before.blocks() * 512 >= before.len(), "its space is taken from the beginning");
    store(folder.path(), &id(), &retired(2)).unwrap();
    let after = fs::metadata(&path).unwrap();
    assert_eq!((after.ino(), after.len(), after.blocks()), (before.ino(), before.len(), before.blocks()));
}

#[test]
fn an_entry_that_outgrows_its_place_is_kept_all_the_same() {
    let folder = folder_after(3);
    let nodes = |count: u128| {
        let node = |n: u128| serde_json::json!({ "effect": uuid::Uuid::from_u128(n), "address": "127.0.0.1:9" });
        let stack = uuid::Uuid::from_u128(1);
        let nodes: Vec<_> = (0..count).map(node).collect();
        let held = serde_json::json!({ "routed": {
            "listening": "127.0.0.1:8",
            "routes": {
                "deployment": "test/api", "generation": 4, "weights": { stack.to_string(): 10_000 },
                "backends": { stack.to_string(): { "version": "1.0.0", "nodes": nodes } },
            },
        }});
        serde_json::from_value::<Entry>(held).unwrap()
    };
    for count in [1, 1_000, 1] {
        store(folder.path(), &id(), &nodes(count)).unwrap();
        assert_eq!(load(folder.path()).unwrap().0, [(id(), nodes(count))].into());
    }
}

#[test]
fn a_write_that_was_cut_off_anywhere_leaves_the_change_before_it() {
    let folder = folder_after(4);
    let path = path_of(folder.path(), &id());
    let before = fs::read(&path).unwrap();
    store(folder.path(), &id(), &retired(5)).unwrap();
    let after = fs::read(&path).unwrap();
    let cut_at = |end| [&before[..BLOCK], &after[BLOCK..end], &before[end..]].concat();
    let changed: Vec<usize> = (BLOCK..before.len()).filter(|at| before[*at] != after[*at]).collect();
    let (first, last) = (changed[0], changed[changed.len() - 1]);
    for end in first..=last {
        assert_eq!(newest(&cut_at(end)).unwrap().change.entry, retired(4), "cut at {end}");
    }
    assert_eq!(newest(&cut_at(last + 1)).unwrap().change.entry, retired(5));
    fs::write(&path, cut_at(first + 1)).unwrap();
    assert_eq!(generation(folder.path()), Some(4));
    store(folder.path(), &id(), &retired(6)).unwrap();
    assert_eq!(generation(folder.path()), Some(6));
}

#[test]
fn any_flipped_bit_leaves_the_last_change_or_is_found_out() {
    for changes in [1, 4, 5] {
        let folder = folder_after(changes);
        let path = path_of(folder.path(), &id());
        let bytes = fs::read(&path).unwrap();
        let last = place(&bytes, 1 - newest(&bytes).unwrap().older_place);
        let (mut kept, mut found) = (0, 0);
        // The texts are short: what comes after them is never looked at.
        for at in [0, place(&bytes, 0), place(&bytes, 1)].into_iter().flat_map(|start| start..start + 200) {
            for bit in 0..8 {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << bit;
                match newest(&flipped) {
                    Ok(newest) => {
                        assert_eq!(newest.change.entry, retired(changes), "bit {bit} of byte {at}");
                        kept += 1;
                    }
                    Err(_) => {
                        assert!((last..last + 200).contains(&at), "byte {at} is not the last change's");
                        found += 1;
                    }
                }
            }
        }
        assert!(kept > 0 && (found > 0) == (changes > 1), "{kept} kept, {found} found out");
    }
}

#[test]
fn a_damaged_file_is_moved_aside_and_the_others_are_served() {
    let folder = folder_after(3);
    let good: DeploymentId = "test/good".parse().unwrap();
    store(folder.path(), &good, &retired(1)).unwrap();
    let path = path_of(folder.path(), &id());
    let mut bytes = fs::read(&path).unwrap();
    let last = place(&bytes, 1 - newest(&bytes).unwrap().older_place);
    bytes[last + 70] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (entries, damaged) = load(folder.path()).unwrap();
    assert_eq!(entries, [(good, retired(1))].into());
    assert_eq!(damaged.len(), 1);
    assert_eq!(damaged[0].reason, "change 3 was synced, and 2 is the newest that matches its hash");
}

#[test]
fn a_write_that_the_disk_lost_is_found_out_and_the_next_change_mends_it() {
    let folder = folder_after(4);
    let path = path_of(folder.path(), &id());
    let before = fs::read(&path).unwrap();
    store(folder.path(), &id(), &retired(5)).unwrap();
    let after = fs::read(&path).unwrap();
    fs::write(&path, [&after[..BLOCK], &before[BLOCK..]].concat()).unwrap();
    assert_eq!(generation(folder.path()), None);
    fs::remove_file(path.with_extension("damaged")).unwrap();
    store(folder.path(), &id(), &retired(6)).unwrap();
    assert_eq!(generation(folder.path()), Some(6));
}
