//! The README's way, followed word for word: what stands in its blocks is run by a shell, in its order.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use support::installation::{Installation, eventually};

const README: &str = include_str!("../README.md");

/// Returns the code blocks of a chapter: their language and text.
fn blocks(chapter: &str) -> Vec<(&'static str, &'static str)> {
    let (_, rest) = README.split_once(&format!("\n## {chapter}\n")).expect("the chapter is there");
    let text = rest.split_once("\n## ").map_or(rest, |(chapter, _)| chapter);
    let blocks = text.split("\n```").collect::<Vec<_>>();
    blocks.chunks(2).filter_map(|pair| pair.get(1)?.split_once('\n')).collect()
}

#[test]
fn the_readme_works_as_printed() {
    let mut installation = Installation::empty();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let data = installation.data();
    let (mut script, mut setting) = (String::from("set -e\n"), String::new());
    for (language, text) in blocks("Use it") {
        // Only what this machine cannot share: the place and the port.
        let text = text
            .replace("/tmp/ionledger", data.to_str().unwrap())
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{port}"));
        match language {
            "toml" => script.push_str(&format!("cat > api.toml <<'END_OF_FILE'\n{text}\nEND_OF_FILE\n")),
            "sh" if text.contains("ionledger up &") => setting = text,
            _ => script.push_str(&format!("{text}\n")),
        }
    }
    let mut exported = Vec::new();
    for line in setting.lines().filter_map(|line| line.strip_prefix("export ")) {
        let (name, value) = line.split('#').next().unwrap().trim().split_once('=').unwrap();
        exported.push((name.to_owned(), value.to_owned()));
    }
    assert!(exported.iter().any(|(name, _)| name == "DB_PASSWORD"), "{setting}");
    let environment = exported.clone();
    installation.up_in(environment);
    let bin = installation.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(support::program(), bin.join("ionledger")).unwrap();

    // A watch goes on until somebody ends it, and the verdicts of a day are asked for, not waited for.
    let script = script
        .replace("ionledger status -w ", "ionledger status ")
        .replace("ionledger judge counts.ndjson", ": ionledger judge counts.ndjson");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell
        .args(["-x", "-c", &script])
        .env("PATH", path)
        .envs(exported)
        .current_dir(installation.path())
        .stdin(Stdio::null());
    let ran = shell.output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{script}\n{out}\n{err}\n{}", installation.log());
    assert!(!err.contains("is not set where ionledger runs"), "{err}");
    eventually("all traffic is back on 1.2.2", || installation.weight("1.2.2") == 10_000);
}
