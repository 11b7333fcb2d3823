//! Modules of one folder that use each other in a circle cannot be read one after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The crates' sources.
const SOURCES: [&str; 7] =
    ["schemas/src", "ledger/src", "replay/src", "proxy/src", "workers/src", "api/src", "cli/src"];

/// Circles that may be: the folder, its modules, and why.
const ALLOWED: &[(&str, &str, &str)] = &[
    (
        "schemas/src",
        "event genesis hold judgement lease node policy release retention rollout service stack traffic upcast",
        "`event` lists every event, and each event's file says of which version it is by `event`'s macro",
    ),
    (
        "ledger/src/deployment",
        "rollback rollout served stranded waiting",
        "one consistency boundary: a rollback drops what waits, and what waits asks whether a rollback came first",
    ),
    (
        "ledger/src/deployment",
        "failure retention",
        "a failed stack is kept once it is collected, and is collected for that",
    ),
    (
        "replay/src",
        "projection reader",
        "the reader reads the projection, which finds ids by a beginning that the reader has parsed",
    ),
    (
        "workers/src",
        "collector facts poll provisioner tcp_ports touched traffic_shifter",
        "what a worker polls stands beside its `react`, and `facts` keep what polls showed beside what that touches",
    ),
    (
        "api/src",
        "ops telemetry",
        "`ops` serves what `telemetry` gathers, and the proxy's metrics are asked for as something operated",
    ),
    ("cli/src/commands/doctor", "folder running", "both look at files' modes, and the folder's findings say what runs"),
    (
        "cli/src",
        "args bootstrap client commands complete failure halted known not_allowed out progress render serving session settings usage",
        "the answers of `doctor` and `history` are drawn by `render` from types that lie beside their command or failure",
    ),
];

/// A module's place below its crate's source.
type Module = Vec<String>;

/// The modules of a crate with what each says, tests and comments aside.
fn modules(folder: &Path, place: &Module, found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if ["tests", "kit", "bin"].contains(&name.as_str()) {
            continue;
        }
        let inner = || place.iter().cloned().chain([name.clone()]).collect::<Module>();
        if path.is_dir() {
            modules(&path, &inner(), found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let is_folders_own = ["lib", "main", "mod"].contains(&name.as_str());
            let module = if is_folders_own { place.clone() } else { inner() };
            found.insert(module, code(&fs::read_to_string(&path).unwrap()));
        }
    }
}

fn code(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" && lines.peek().is_some_and(|next| next.ends_with('{')) {
            lines.by_ref().find(|inner| *inner == "}");
            continue;
        }
        kept.push_str(line.split("//").next().unwrap_or_default());
        kept.push('\n');
    }
    kept
}

/// The paths that a module names: those of each `use` that is not a re-export, and those that begin at the crate or at a parent.
fn paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    let mut rest = String::new();
    for part in code.split_inclusive(';') {
        let start = part.rfind("use ").filter(|at| part[..*at].is_empty() || part[..*at].ends_with([' ', '\n']));
        match start {
            Some(at) if part[at..].ends_with(';') && !part[at..].contains("fn ") => {
                let is_export = part[..at].trim_end().lines().last().is_some_and(|line| line.trim().starts_with("pub"));
                if !is_export {
                    paths.extend(expanded(part[at + 4..].trim_end_matches(';')));
                }
                rest.push_str(&part[..at]);
            }
            _ => rest.push_str(part),
        }
    }
    for root in ["crate::", "super::"] {
        let inline = rest.match_indices(root).map(|(at, _)| &rest[at..]);
        let whole = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
        paths.extend(inline.map(whole));
    }
    paths
}

/// The paths of a `use`, each in full.
fn expanded(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some((prefix, inner)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().to_owned()];
    };
    let inner = inner.rsplit_once('}').map_or(inner, |(inner, _)| inner);
    let (mut parts, mut depth) = (vec![String::new()], 0_usize);
    for c in inner.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        match c {
            ',' if depth == 0 => parts.push(String::new()),
            _ => parts.last_mut().unwrap().push(c),
        }
    }
    let all = parts.iter().filter(|part| !part.trim().is_empty()).flat_map(|part| expanded(part));
    all.map(|path| format!("{}{path}", prefix.trim())).collect()
}

/// The module that a path in `me` names, or lies in.
fn named(me: &Module, path: &str, all: &BTreeMap<Module, String>) -> Option<Module> {
    let mut names = path.split("::").peekable();
    let mut at = match *names.peek()? {
        "crate" => {
            names.next();
            Module::new()
        }
        "self" => {
            names.next();
            me.clone()
        }
        "super" => {
            let mut at = me.clone();
            while names.next_if_eq(&"super").is_some() {
                at.pop();
            }
            at
        }
        first if all.contains_key(&[&me[..], &[first.to_owned()]].concat()) => me.clone(),
        _ => return None,
    };
    for name in names {
        let inner = [&at[..], &[name.to_owned()]].concat();
        if !all.contains_key(&inner) {
            break;
        }
        at = inner;
    }
    Some(at)
}

/// The circles within one folder each: the folder's place and the modules.
fn circles(all: &BTreeMap<Module, String>) -> BTreeSet<(Module, BTreeSet<String>)> {
    let mut uses: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (me, code) in all {
        for other in paths(code).iter().filter_map(|path| named(me, path, all)) {
            let common = me.iter().zip(&other).take_while(|(a, b)| a == b).count();
            if let (Some(from), Some(to)) = (me.get(common), other.get(common)) {
                let folder = uses.entry(me[..common].to_vec()).or_default();
                folder.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    let mut found = BTreeSet::new();
    for (folder, uses) in &uses {
        let reached: BTreeMap<&String, BTreeSet<&String>> = uses.keys().map(|from| (from, reach(from, uses))).collect();
        for (from, reached_from) in &reached {
            let back = |to: &&&String| reached.get(**to).is_some_and(|back| back.contains(from));
            let circle: BTreeSet<String> = reached_from.iter().filter(back).map(|to| (**to).clone()).collect();
            if circle.len() > 1 {
                found.insert((folder.clone(), circle));
            }
        }
    }
    found
}

fn reach<'a>(from: &'a String, uses: &'a BTreeMap<String, BTreeSet<String>>) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&String> = uses.get(from).into_iter().flatten().collect();
    while let Some(name) = next.pop() {
        if reached.insert(name) {
            next.extend(uses.get(name).into_iter().flatten());
        }
    }
    reached
}

#[test]
fn modules_of_a_folder_use_each_other_in_no_circle_but_those_that_are_named_here() {
    let mut found = Vec::new();
    for source in SOURCES {
        let mut all = BTreeMap::new();
        modules(&super::root().join(source), &Module::new(), &mut all);
        assert!(all.len() > 10, "{source} has its modules");
        for (folder, circle) in circles(&all) {
            let folder = [&[source.to_owned()], &folder[..]].concat().join("/");
            found.push((folder, circle));
        }
    }
    let is_in = |(folder, circle): &(String, BTreeSet<String>), (place, names, _): &(&str, &str, &str)| {
        let names: BTreeSet<String> = names.split(' ').map(str::to_owned).collect();
        folder == place && circle.is_subset(&names)
    };
    let new: Vec<_> = found.iter().filter(|circle| !ALLOWED.iter().any(|allowed| is_in(circle, allowed))).collect();
    assert!(new.is_empty(), "they use each other in a circle: move what they share to a module below both: {new:#?}");
    let gone: Vec<_> = ALLOWED.iter().filter(|allowed| !found.iter().any(|circle| is_in(circle, allowed))).collect();
    assert!(gone.is_empty(), "these circles are gone: take them out of the list: {gone:#?}");
}

#[test]
fn a_circle_is_found_however_it_is_written() {
    let text = |text: &str| code(text);
    let all = BTreeMap::from([
        (vec!["a".to_owned()], text("use std::fs;\nuse super::{b::{B, C as D}, e};\n")),
        (vec!["b".to_owned(), "inner".to_owned()], text("fn f() {\n    crate::c::g();\n}\n")),
        (vec!["b".to_owned()], text("mod inner;\n")),
        (vec!["c".to_owned()], text("use crate::a::A;\n")),
        (
            vec!["d".to_owned()],
            text("// use super::e;\npub use super::e::E;\n#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n"),
        ),
        (vec!["e".to_owned()], text("use super::d;\n")),
    ]);
    let circle = ["a", "b", "c"].map(str::to_owned).into();
    assert_eq!(circles(&all), [(vec![], circle)].into());
}
