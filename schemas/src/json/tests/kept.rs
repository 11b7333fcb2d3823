//! What is kept of the events for good: the schema of every version, examples of each, and their hashes in `KEPT.sha256`.
//!
//! An example is named `KIND.vVERSION[.WHAT].json`. The one of the same name with the next version holds what the event's
//! upcaster makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::Hash;
use crate::event::Kind;

/// Lists every example, and every schema of an older version, with its SHA-256; only ever added to.
const LIST: &str = "KEPT.sha256";

/// What is kept, in a folder with `json/` and `examples/`.
pub(super) struct Kept {
    folder: PathBuf,
    updating: bool,
}

impl Kept {
    /// What is checked in. With `UPDATE_SCHEMAS=1` it takes in what is new.
    pub(super) fn checked_in() -> Self {
        let updating = std::env::var_os("UPDATE_SCHEMAS").is_some_and(|value| value == "1");
        Self { folder: env!("CARGO_MANIFEST_DIR").into(), updating }
    }

    fn files(&self, name: &str) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.folder.join(name)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".json")).collect()
    }

    fn schema(&self, kind: &str, version: u16) -> Result<String, String> {
        let file = format!("json/{kind}.v{version}.json");
        std::fs::read_to_string(self.folder.join(&file)).map_err(|error| format!("schemas/{file}: {error}"))
    }

    /// Returns the text of an example.
    pub(super) fn example(&self, file: &str) -> String {
        read(&self.folder.join("examples").join(file))
    }

    /// Returns every example: its file's name, its type and version, and its text.
    pub(super) fn examples(&self) -> Vec<(String, String, u16, String)> {
        let named = self.files("examples").into_iter().map(|file| {
            let (kind, version, _) = parts(&file);
            let text = self.example(&file);
            (file.clone(), kind.to_owned(), version, text)
        });
        named.collect()
    }

    /// Checks that the schemas of the newest versions are `wanted`.
    pub(super) fn check_schemas(&self, wanted: &BTreeMap<String, String>) -> Result<(), String> {
        for (file, text) in wanted {
            let path = self.folder.join("json").join(file);
            if self.updating {
                std::fs::write(path, text).unwrap();
            } else if std::fs::read_to_string(path).ok().as_ref() != Some(text) {
                return Err(format!(
                    "schemas/json/{file} is not the type's: if the payload changed, append an upcaster to its event, which \
                     makes a new version, and put this file back; then run `UPDATE_SCHEMAS=1 cargo test --workspace --lib -q -- json::`"
                ));
            }
        }
        Ok(())
    }

    /// Checks that every version of `kinds` has a schema and examples that fit it, and that nothing else is kept.
    pub(super) fn check_examples(&self, kinds: impl Iterator<Item = Kind>) -> Result<(), String> {
        let mut versions = BTreeSet::new();
        for kind in kinds {
            versions.extend((1..=kind.version()).map(|version| (kind.name.to_owned(), version)));
        }
        let stray = self.files("json").into_iter().find(|file| {
            let (kind, version, rest) = if file == "command.json" { return false } else { parts(file) };
            rest != ".json" || !versions.contains(&(kind.to_owned(), version))
        });
        if let Some(file) = stray {
            return Err(format!("schemas/json/{file}: no event has this version"));
        }
        let mut missing = versions.clone();
        for (file, kind, version, text) in self.examples() {
            let version = (kind, version);
            missing.remove(&version);
            if !versions.contains(&version) {
                return Err(format!("schemas/examples/{file}: no event has this version"));
            }
            let value: Value = serde_json::from_str(&text).map_err(|error| format!("{file}: {error}"))?;
            let schema = validator(&self.schema(&version.0, version.1)?);
            let problems: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
            if !problems.is_empty() {
                return Err(format!("schemas/examples/{file}: {problems:?}"));
            }
        }
        match missing.first() {
            None => Ok(()),
            Some((kind, version)) => Err(format!("write schemas/examples/{kind}.v{version}.json")),
        }
    }

    /// Checks that each example of an older version is read as the stored example of the next, step by step.
    pub(super) fn check_upcasters(&self, kinds: impl Iterator<Item = Kind>) -> Result<(), String> {
        let kinds: BTreeMap<&str, Kind> = kinds.map(|kind| (kind.name, kind)).collect();
        for (file, kind, version, text) in self.examples() {
            let upcasters = kinds.get(kind.as_str()).map(|kind| kind.upcasters).unwrap_or_default();
            let Some(upcaster) = upcasters.get(usize::from(version - 1)) else { continue };
            let next = format!("{kind}.v{}{}", version + 1, parts(&file).2);
            let path = self.folder.join("examples").join(&next);
            let made = upcaster(serde_json::from_str(&text).unwrap());
            if self.updating && !path.exists() {
                std::fs::write(&path, serde_json::to_string_pretty(&made).unwrap() + "\n").unwrap();
            }
            let stored = std::fs::read_to_string(&path).map_err(|_| {
                format!("{file} has no successor: run `UPDATE_SCHEMAS=1 cargo test --workspace --lib -q -- json::` to store {next}")
            })?;
            if serde_json::from_str::<Value>(&stored).unwrap() != made {
                return Err(format!("the upcaster makes {made} of {file}; {next} holds something else"));
            }
        }
        Ok(())
    }

    /// Checks that no example, and no schema of an older version, was changed or dropped since it was listed: what was
    /// once written must be readable for ever.
    pub(super) fn check_hashes(&self, kinds: impl Iterator<Item = Kind>) -> Result<(), String> {
        let list = self.folder.join("examples").join(LIST);
        let lines = read(&list);
        let line = |line: &str| {
            let (hash, file) = line.split_once("  ").expect("a hash, two blanks, a file");
            (file.to_owned(), hash.to_owned())
        };
        let mut listed: BTreeMap<String, String> = lines.lines().map(line).collect();
        for (file, text) in self.kept(kinds)? {
            let hash = Hash::of(text.as_bytes()).to_string();
            match listed.remove(&file) {
                Some(known) if known == hash => {}
                Some(_) => return Err(format!("{file} was changed: put it back")),
                None if self.updating => append(&list, &format!("{hash}  {file}")),
                None => {
                    return Err(format!(
                        "{file} is new: run `UPDATE_SCHEMAS=1 cargo test --workspace --lib -q -- json::`"
                    ));
                }
            }
        }
        match listed.first_key_value() {
            None => Ok(()),
            Some((file, _)) => Err(format!("{file} is gone: put it back")),
        }
    }

    /// Every file that may not change any more, with its text: the examples, and the schemas of older versions.
    fn kept(&self, kinds: impl Iterator<Item = Kind>) -> Result<Vec<(String, String)>, String> {
        let mut files: Vec<(String, String)> =
            self.examples().into_iter().map(|(file, _, _, text)| (file, text)).collect();
        for kind in kinds {
            for version in 1..kind.version() {
                let file = format!("../json/{}.v{version}.json", kind.name);
                files.push((file, self.schema(kind.name, version)?));
            }
        }
        Ok(files)
    }
}

/// Returns the type, the version, and the rest of an example's name: `.early.json`, `.json`.
fn parts(file: &str) -> (&str, u16, &str) {
    let named = file.split_once(".v").and_then(|(kind, rest)| {
        let digits = rest.find('.')?;
        Some((kind, rest[..digits].parse().ok()?, &rest[digits..]))
    });
    named.unwrap_or_else(|| panic!("{file}: name it KIND.vVERSION[.WHAT].json"))
}

fn append(list: &Path, line: &str) {
    use std::io::Write as _;
    let mut file = std::fs::File::options().append(true).open(list).unwrap();
    writeln!(file, "{line}").unwrap();
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns what checks a payload against `schema`.
pub(super) fn validator(schema: &str) -> jsonschema::Validator {
    let schema: Value = serde_json::from_str(schema).unwrap();
    jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
}

/// A made-up change of one event: version 2 of `stack.failed` has a field `cause`.
mod made_up {
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::Event;
    use crate::upcast;

    #[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
    struct Failed {
        stack: crate::StackId,
        reason: String,
        cause: String,
    }

    fn with_cause(mut v1: Value) -> Value {
        v1["cause"] = "unknown".into();
        v1
    }

    const CHANGED: Kind =
        Kind { name: "stack.failed", upcasters: &[with_cause], schema: || schemars::schema_for!(Failed) };

    fn kinds() -> impl Iterator<Item = Kind> {
        Event::kinds().map(|kind| if kind.name == CHANGED.name { CHANGED } else { kind })
    }

    /// A copy of what is checked in.
    fn copied(updating: bool) -> (tempfile::TempDir, Kept) {
        let folder = tempfile::tempdir().unwrap();
        for name in ["json", "examples"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            for entry in std::fs::read_dir(Kept::checked_in().folder.join(name)).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), folder.path().join(name).join(entry.file_name())).unwrap();
            }
        }
        let kept = Kept { folder: folder.path().to_owned(), updating };
        (folder, kept)
    }

    fn check(kept: &Kept) -> Result<(), String> {
        let schemas = kinds().map(crate::json::schema_file).collect();
        kept.check_schemas(&schemas)?;
        kept.check_upcasters(kinds())?;
        kept.check_examples(kinds())?;
        kept.check_hashes(kinds())
    }

    fn all(kept: &Kept) -> BTreeMap<String, String> {
        let named = |folder: &'static str| {
            let entries = std::fs::read_dir(kept.folder.join(folder)).unwrap();
            entries
                .map(move |entry| entry.unwrap().path())
                .map(move |path| (format!("{folder}/{}", path.file_name().unwrap().to_str().unwrap()), read(&path)))
        };
        named("json").chain(named("examples")).collect()
    }

    #[test]
    fn it_touches_its_stored_schema_its_example_and_the_list_of_hashes_and_nothing_else() {
        let (_folder, mut kept) = copied(true);
        let before = all(&kept);
        check(&kept).unwrap();
        kept.updating = false;
        check(&kept).unwrap();
        let touched: Vec<String> = all(&kept)
            .into_iter()
            .filter(|(file, text)| before.get(file) != Some(text))
            .map(|(file, _)| file)
            .collect();
        assert_eq!(touched, ["examples/KEPT.sha256", "examples/stack.failed.v2.json", "json/stack.failed.v2.json"]);
        let old = kept.example("stack.failed.v1.json");
        let event: Failed = upcast::read(CHANGED.name, 1, CHANGED.upcasters, &old).unwrap();
        assert_eq!(serde_json::to_value(event).unwrap()["cause"], "unknown");
    }

    #[test]
    fn whatever_of_it_is_missing_is_named() {
        for (file, change, wanted) in [
            ("json/stack.failed.v2.json", None, "json/stack.failed.v2.json is not the type's"),
            ("json/stack.failed.v1.json", None, "json/stack.failed.v1.json"),
            ("json/stack.failed.v1.json", Some("{}"), "stack.failed.v1.json was changed: put it back"),
            ("examples/stack.failed.v1.json", None, "write schemas/examples/stack.failed.v1.json"),
            ("examples/stack.failed.v2.json", None, "has no successor"),
            ("examples/stack.failed.v2.json", Some("{}"), "holds something else"),
        ] {
            let (_folder, mut kept) = copied(true);
            check(&kept).unwrap();
            kept.updating = false;
            match change {
                None => std::fs::remove_file(kept.folder.join(file)).unwrap(),
                Some(text) => std::fs::write(kept.folder.join(file), text).unwrap(),
            }
            let error = check(&kept).unwrap_err();
            assert!(error.contains(wanted), "{file}: {error}");
        }
    }

    #[test]
    fn without_a_new_version_the_changed_schema_is_refused() {
        let (_folder, kept) = copied(false);
        let schemas = [crate::json::schema_file(Kind { upcasters: &[], ..CHANGED })].into();
        let error = kept.check_schemas(&schemas).unwrap_err();
        assert!(error.contains("append an upcaster"), "{error}");
    }
}
