//! The tree itself: every file under `tests/` belongs to a target, and no source file is longer than a reader can hold, and
//! modules use each other in no circle.

mod cycles;

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

/// The targets that the packages name, as files, and the package that lies under `tests/` itself.
fn targets(root: &Path) -> Vec<PathBuf> {
    let manifests = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path().join("Cargo.toml"));
    let named = |manifest: PathBuf| {
        let text = fs::read_to_string(&manifest).unwrap_or_default();
        let paths: Vec<_> =
            between(&text, "path = \"../tests/", "\"").map(|path| root.join("tests").join(path)).collect();
        paths
    };
    let support = root.join("tests/support/src/lib.rs");
    manifests.flat_map(named).chain([support]).collect()
}

/// The files that a file may name as its modules.
fn modules(file: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(file).unwrap();
    let beside = file.parent().unwrap();
    let inline = between(&text, "mod ", " {").map(|name| beside.join(name));
    let folders: Vec<PathBuf> =
        [beside.to_owned(), beside.join(file.file_stem().unwrap())].into_iter().chain(inline).collect();
    let named = between(&text, "mod ", ";").flat_map(|name| [format!("{name}.rs"), format!("{name}/mod.rs")]);
    let names: Vec<String> = named.collect();
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
fn the_proxy_uses_no_room_but_schemas() {
    let manifest = fs::read_to_string(root().join("proxy/Cargo.toml")).unwrap();
    let rooms = ["schemas", "ledger", "replay", "workers", "api", "ionledger", "support"];
    let is_used = |room: &&str| manifest.lines().any(|line| line.starts_with(&format!("{room}.")));
    let used: Vec<&str> = rooms.into_iter().filter(is_used).collect();
    assert_eq!(used, ["schemas"], "users' traffic depends on nothing else of ionledger");
}

#[test]
fn what_tests_share_is_a_crate_and_no_file_that_each_of_them_compiles() {
    let chained = sources(&root().join("tests")).into_iter().filter(|path| {
        let text = fs::read_to_string(path).unwrap();
        text.lines().any(|line| line.trim_start().starts_with("#[path"))
    });
    assert_eq!(chained.collect::<Vec<_>>(), Vec::<PathBuf>::new(), "make a module of tests/support of it");
}

#[test]
fn no_source_file_is_longer_than_a_reader_can_hold() {
    let long = sources(&root()).into_iter().filter_map(|path| {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        (lines > LINES_MAX).then_some((path, lines))
    });
    assert_eq!(long.collect::<Vec<_>>(), [], "divide them");
}

/// Where the name of a source of measurements may stand: its adapter and the registry, the policy with its keys, and what counts for
/// it, with the crate of that name.
const SAY_PROMETHEUS: [&str; 8] = [
    "workers/src/measures.rs",
    "workers/src/measures/prometheus",
    "workers/src/measures/registry.rs",
    "schemas/src/policy",
    "schemas/src/declaration",
    "api/src/ops.rs",
    "/src/telemetry",
    "benches/",
];

#[test]
fn a_source_of_measurements_is_named_by_the_policy_and_the_registry_alone() {
    let root = root();
    let is_test = |path: &str| path.starts_with("tests/") || path.contains("/tests");
    let mut seen = 0;
    let named = sources(&root).into_iter().filter_map(|path| {
        let file = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap().lines().filter(|line| !line.trim().starts_with("//"));
        let says = code.map(str::to_lowercase).any(|line| line.contains("prometheus"));
        let may = SAY_PROMETHEUS.iter().any(|place| file.contains(place));
        seen += usize::from(says && may);
        (says && !may && !is_test(&file)).then_some(file)
    });
    assert_eq!(named.collect::<Vec<_>>(), Vec::<String>::new(), "ask the policy's `source()` or `measures::registry`");
    assert!(seen > 3, "the places that may name it do");
}

/// What implements a port by asking another adapter of it, and so is for no system of its own.
const NO_SYSTEM: [&str; 2] = ["probing", "traffic::monitored"];

#[test]
fn the_front_page_of_the_workers_lists_every_adapter() {
    let source = root().join("workers/src");
    let page = fs::read_to_string(source.join("lib.rs")).unwrap();
    let is_listed = |adapter: &String| page.lines().any(|line| line.contains(&format!("| [`{adapter}`] |")));
    let adapters = sources(&source).into_iter().filter_map(|path| {
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        let ports = ["Nodes", "Router", "Source", "Checks"].map(|port| format!("impl {port} for "));
        let names = path.with_extension("").strip_prefix(&source).unwrap().display().to_string().replace('/', "::");
        ports.iter().any(|port| code.contains(port)).then_some(names)
    });
    let adapters: Vec<String> = adapters.filter(|name| !name.ends_with("tests")).collect();
    assert!(adapters.len() > 3, "adapters are found: {adapters:?}");
    let missing: Vec<_> =
        adapters.iter().filter(|name| !NO_SYSTEM.contains(&name.as_str()) && !is_listed(name)).collect();
    assert_eq!(missing, Vec::<&String>::new(), "say in workers/src/lib.rs which system each is for");
}

/// Words of this project's own that had to be decoded, and what is said instead.
const DECODED: [(&str, &str); 7] = [
    ("hearing", "analysis"),
    ("lookout", "poller"),
    ("newcomer", "canary"),
    ("keeper", "reconciler"),
    ("shelf", "segment index"),
    ("the ear", "the failure detector"),
    ("the house", "the server, or the installation"),
];

#[test]
fn words_that_had_to_be_decoded_do_not_come_back() {
    let root = root();
    let pages = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages = pages.filter(|path| path.extension().is_some_and(|extension| extension == "md" || extension == "toml"));
    let front = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "UPGRADING.md"].map(|name| root.join(name));
    let all = sources(&root).into_iter().chain(pages).chain(front);
    let found = all.filter(|path| !path.ends_with("tests/tree/main.rs")).flat_map(|path| {
        let text = fs::read_to_string(&path).unwrap().to_lowercase();
        let is_word = |at: usize, word: &str| {
            let letter = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
            let bytes = text.as_bytes();
            !letter(at.checked_sub(1).and_then(|before| bytes.get(before))) && !letter(bytes.get(at + word.len()))
        };
        let is_said = |word: &str| text.match_indices(word).any(|(at, _)| is_word(at, word));
        let said = DECODED.into_iter().filter(|(word, _)| is_said(word));
        said.map(|(word, instead)| format!("{}: {word} is {instead}", path.display())).collect::<Vec<_>>()
    });
    assert_eq!(found.collect::<Vec<_>>(), Vec::<String>::new());
}
