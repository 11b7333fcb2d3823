//! The tree itself: every file under `tests/` belongs to a target, and no source file is longer than a reader can hold.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest source file, in lines.
const LINES_MAX: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every Rust file below a folder, build results aside.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let wanted = entries.filter(|path| !path.ends_with("target") && !path.ends_with(".git"));
    wanted
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| is_rust(path))
        .collect()
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "rs")
}

/// The words between `from` and `to`, for every place where a line has both.
fn between<'t>(text: &'t str, from: &'t str, to: &'t str) -> impl Iterator<Item = &'t str> {
    text.lines().filter_map(move |line| Some(line.split_once(from)?.1.split_once(to)?.0.trim()))
}

/// The targets that the packages name, as files.
fn targets(root: &Path) -> Vec<PathBuf> {
    let manifests = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path().join("Cargo.toml"));
    let named = |manifest: PathBuf| {
        let text = fs::read_to_string(&manifest).unwrap_or_default();
        let paths: Vec<_> =
            between(&text, "path = \"../tests/", "\"").map(|path| root.join("tests").join(path)).collect();
        paths
    };
    manifests.flat_map(named).collect()
}

/// The files that a file may name as its modules.
fn modules(file: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(file).unwrap();
    let beside = file.parent().unwrap();
    let inline = between(&text, "mod ", " {").map(|name| beside.join(name));
    let folders: Vec<PathBuf> =
        [beside.to_owned(), beside.join(file.file_stem().unwrap())].into_iter().chain(inline).collect();
    let named = between(&text, "mod ", ";").flat_map(|name| [format!("{name}.rs"), format!("{name}/mod.rs")]);
    let paths = between(&text, "#[path = \"", "\"").map(str::to_owned);
    let names: Vec<String> = named.chain(paths).collect();
    let all = folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name)));
    all.filter_map(|path| path.canonicalize().ok()).collect()
}

#[test]
fn every_file_under_tests_belongs_to_a_target() {
    let root = root();
    let mut found = BTreeSet::new();
    let mut next = targets(&root);
    assert!(next.len() > 20, "the packages name their targets: {next:?}");
    while let Some(file) = next.pop() {
        if found.insert(file.clone()) {
            next.extend(modules(&file));
        }
    }
    let lost: Vec<_> = sources(&root.join("tests")).into_iter().filter(|file| !found.contains(file)).collect();
    assert_eq!(lost, Vec::<PathBuf>::new(), "no target has them: name them in a Cargo.toml, or as a module");
}

#[test]
fn no_source_file_is_longer_than_a_reader_can_hold() {
    let long = sources(&root()).into_iter().filter_map(|path| {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        (lines > LINES_MAX).then_some((path, lines))
    });
    assert_eq!(long.collect::<Vec<_>>(), [], "divide them");
}
