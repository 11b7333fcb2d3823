//! What is written down is kept, is its writer's alone, and nothing else is taken for it.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::break_glass::kit::intent;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_is_written_reads_back_and_is_its_owners_alone() {
    let data = tempfile::tempdir().unwrap();
    let folder = Folder::of(data.path());
    assert!(folder.waiting().unwrap().is_empty() && !folder.path.exists(), "looking makes nothing");
    let file = folder.write(&intent()).unwrap();
    folder.write(&intent()).unwrap();
    let found = folder.waiting().unwrap();
    assert_eq!(found.len(), 1, "written twice it is one");
    assert_eq!((&found[0].file, found[0].intent.as_ref()), (&file, Ok(&intent())));
    assert_eq!([mode(&file), mode(&folder.key_file()), mode(&folder.path)], [0o600, 0o600, 0o700]);
}

#[test]
fn what_was_changed_is_of_another_folder_or_is_not_an_intent_is_named_so() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (folder, other) = (Folder::of(data.path()), Folder::of(other.path()));
    let (file, foreign) = (folder.write(&intent()).unwrap(), other.write(&intent()).unwrap());
    let text = fs::read_to_string(&file).unwrap();
    let cases = [
        (text.replace("1.2.2", "1.2.1"), "was changed after it was signed"),
        (text.replace("\"name\":\"ana\"", "\"name\":\"bob\""), "was changed after it was signed"),
        (fs::read_to_string(foreign).unwrap(), "key of another data folder"),
        (text.replace("\"format\":1", "\"format\":2"), "upgrade ionledger"),
        (text[..text.len() / 2].to_owned(), "not an intent"),
        (String::new(), "not an intent"),
    ];
    for (wrong, why) in cases {
        fs::write(&file, wrong).unwrap();
        let said = folder.waiting().unwrap().remove(0).intent.unwrap_err();
        assert!(said.contains(why), "{why}: {said}");
    }
}

#[test]
fn what_is_put_away_waits_no_more_and_is_not_lost() {
    let data = tempfile::tempdir().unwrap();
    let folder = Folder::of(data.path());
    let file = folder.write(&intent()).unwrap();
    folder.done(&file).unwrap();
    folder.done(&file).unwrap();
    assert!(folder.waiting().unwrap().is_empty());
    assert!(folder.path.join("done").join(file.file_name().unwrap()).exists());
    let file = folder.write(&intent()).unwrap();
    let aside = folder.set_aside(&file, "it was changed").unwrap();
    assert!(folder.waiting().unwrap().is_empty());
    assert_eq!(folder.aside().unwrap(), [Aside { file: aside, why: "it was changed".to_owned() }]);
}

#[test]
fn a_key_that_was_made_stays_and_a_damaged_one_is_named() {
    let data = tempfile::tempdir().unwrap();
    let folder = Folder::of(data.path());
    folder.prepare().unwrap();
    let first = fs::read(folder.key_file()).unwrap();
    folder.prepare().unwrap();
    assert_eq!(fs::read(folder.key_file()).unwrap(), first);
    fs::write(folder.key_file(), "not hexadecimal").unwrap();
    let said = folder.write(&intent()).unwrap_err().to_string();
    assert!(said.contains("is not a key"), "{said}");
}
