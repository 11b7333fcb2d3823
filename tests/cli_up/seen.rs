//! What people see: on terminals of two sizes and in a pipe, with a ledger that runs and with one that nobody follows.

use super::running::{Up, ask, users};
use super::terminal::Terminal;

const WHY: &str = "the queue of the payment provider grows and nobody there answers the phone before eight o'clock";

/// A rollout of 1.2.4 that somebody has paused, for a long reason.
fn paused() -> Up {
    let up = Up::new();
    let address = up.serving("1.2.3", "");
    up.ready("1.2.4", &[]);
    up.done("roll api 1.2.3 1.2.4 1 hour");
    up.until("the first step", |deployment| deployment["rollout"]["steps_taken"] == 1);
    let why = support::binary::run(&up.data(), &["pause", "api", "--reason", WHY]);
    assert_eq!(why.code, 0, "{why:?}");
    assert_eq!(ask(address), 200);
    up
}

/// Returns what a sentence leaves on a terminal; it is high enough for all of it.
fn shown(up: &Up, columns: u16, sentence: &str) -> String {
    let (code, screen) = Terminal::run(200, columns, &up.data(), sentence).ended();
    assert_eq!(code, 0, "{sentence}: {screen}");
    screen
}

fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| c.is_whitespace() || "│├└─".contains(c)).filter(|word| !word.is_empty()).collect()
}

#[test]
fn a_terminal_gets_wrapped_lines_and_a_pipe_whole_ones() {
    let up = paused();
    for sentence in ["status api", "history api --limit 3"] {
        let [narrow, wide] = [80, 120].map(|columns| (columns, shown(&up, columns, sentence)));
        for (columns, text) in [&narrow, &wide] {
            let too_long = text.lines().find(|line| line.chars().count() > usize::from(*columns));
            assert_eq!(too_long, None, "{columns}: {text}");
            for word in WHY.split(' ') {
                assert!(words(text).contains(&word), "{word} was cut: {text}");
            }
            assert_eq!(text.matches("payment").count(), 1, "a reason is said once: {text}");
        }
        let after = narrow.1.lines().skip_while(|line| !line.contains("the queue")).nth(1).unwrap_or_default();
        assert!(after.starts_with("      "), "what follows is indented: {}", narrow.1);
    }
    let piped = up.done("history api --limit 3").stdout;
    assert!(piped.lines().any(|line| line.contains(WHY)), "{piped}");
    let fleet = shown(&up, 80, "status");
    assert!(fleet.contains("1 deployment: 1 needs attention, none is moving"), "{fleet}");
    assert!(fleet.contains("‖ production/api  1.2.3 -> 1.2.4 is paused at step 1 of 7, 1 %; for"), "{fleet}");
    assert!(fleet.lines().all(|line| line.chars().count() <= 80), "{fleet}");
    assert_eq!(up.done("status").stdout.lines().count(), 2, "a pipe gets one line per version");
}

#[test]
fn status_shows_what_requests_do() {
    let up = Up::new();
    let address = up.serving("1.2.3", "");
    let users = users(address);
    let measured = up.until("measured requests", |deployment| {
        deployment["versions"][0]["measured"]["requests"].as_u64().is_some_and(|requests| requests > 20)
    });
    let shown = shown(&up, 100, "status api");
    drop(users);
    let measured = &measured["versions"][0]["measured"];
    assert!(measured["requests_per_second"].as_f64().unwrap() > 1.0, "{measured}");
    assert!(measured["p99_ms"].as_f64() >= measured["p50_ms"].as_f64() && measured["errors"] == 0, "{measured}");
    let line = shown.lines().find(|line| line.contains("requests a second")).unwrap_or_else(|| panic!("{shown}"));
    for part in [", 0.00 % failed, p50 ", " ms, p99 "] {
        assert!(line.contains(part), "{line}");
    }
    assert!(!up.done("status --json").stdout.contains("measured"), "the fleet is not measured");
}

#[test]
fn status_without_up_says_so_first_and_shows_what_is_there() {
    let up = Up::new();
    up.serving("1.2.3", "");
    up.ready("1.2.4", &[]);
    up.done("roll api 1.2.3 1.2.4 1 hour");
    up.until("the first step", |deployment| deployment["rollout"]["steps_taken"] == 1);
    up.applied();
    let folder = up.kill();
    let data = folder.path().join("data");
    let on = |sentence: &str| Terminal::run(60, 130, &data, sentence).ended().1;

    let alone = on("status api");
    assert!(alone.starts_with("✖ no process follows the ledger"), "{alone}");
    let told = words(&alone).join(" ");
    assert!(told.contains("Seen just now: the proxy answers; 2 of 2 nodes run"), "{alone}");
    assert!(alone.contains("1.2.3 -> 1.2.4 stands still at step 1 of 7: nobody drives it"), "{alone}");
    assert!(!alone.contains(" (in ") && !alone.contains("ends  "), "a time that will not come: {alone}");
    let piped = support::binary::say(&data, "status");
    assert!(piped.stderr.starts_with("no process follows the ledger"), "{piped:?}");
    assert!(on("status").contains("⚠ production/api"), "{}", on("status"));

    // Started again, it goes on; taken down, nobody is served.
    let folder = Up::on(folder, &[]).end();
    let data = folder.path().join("data");
    let gone = Terminal::run(60, 130, &data, "status api").ended().1;
    let told = words(&gone).join(" ");
    assert!(told.contains("the proxy does not run, so nobody is served; 0 of 2 nodes run"), "{gone}");
    assert!(told.contains("✖ nobody is served: the proxy does not run; `ionledger up` starts it"), "{gone}");
    assert!(gone.contains("99 % (now 0 %)"), "{gone}");
    assert!(gone.contains("it does not run"), "{gone}");
    let status = support::binary::say(&data, "status api --json");
    let status: serde_json::Value = serde_json::from_str(&status.stdout).unwrap();
    assert_eq!(status["unattended"]["nodes_running"], 0, "{status:#}");
    assert_eq!(status["services"][0]["deployments"][0]["versions"][0]["weight_applied"], 0, "{status:#}");
}

#[test]
fn a_watch_scrolls_and_survives_a_restart() {
    let up = Up::new();
    up.serving("1.2.3", "");
    for version in ["1.2.4", "1.2.5", "1.2.6", "1.2.7"] {
        up.ready(version, &[]);
    }
    let data = up.data();
    let mut watch = Terminal::run(12, 80, &data, "status api -w");
    let first = watch.until("the first lines", |screen| screen.contains("arrows scroll, q leaves"));
    assert!(first.starts_with("production/api") && first.lines().count() <= 12, "{first}");
    watch.press("\u{1b}[B\u{1b}[B");
    watch.until("two lines further", |screen| screen.contains("... 3 to "));
    watch.press("G");
    watch.until("the end", |screen| screen.contains("1.2.3") && !screen.contains("production/api"));
    watch.press("g");
    watch.until("the head", |screen| screen.starts_with("production/api"));

    let folder = up.kill();
    watch.until("that nobody follows the ledger", |screen| screen.starts_with("✖ no process follows"));
    let whole = |screen: &str| words(screen).join(" ").contains("Seen just now: the proxy answers; 5 of 5 nodes run");
    watch.until("all that was seen, to the last character of a full line", whole);
    let up = Up::on(folder, &[]);
    watch.until("that it goes on", |screen| screen.starts_with("production/api"));
    watch.press("q");
    let (code, left) = watch.ended();
    assert_eq!(code, 0, "{left}");
    assert!(left.contains("1.2.3"), "the last frame stays: {left}");
    drop(up);
}
