//! The fleet: a line for each deployment, first those that need attention, then those that move, then the rest. What needs
//! attention is never cut off: it goes on below.

use jiff::Zoned;
use ledger::deployment::hold;
use replay::answer::{DeploymentStatus, RolloutPhase, ServiceStatus, StackPhase, StatusAnswer, VersionStatus};
use schemas::Weight;
use schemas::text::{given, nodes_ready};
use serde::Serialize;

use super::Render;
use super::back::where_stranded;
use super::status::{head, headline, nowhere};
use super::table::paint;
use super::words::{BAD, BUSY, IDLE, STILL, WARN, age, count, faint, grouped, length, plain, strong, style_of};

/// In which order lines stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    NeedsAttention,
    Moves,
    Rests,
}

/// What a line says.
struct Line {
    rank: Rank,
    glyph: &'static str,
    /// Whether anything about it is under way, whoever has to look at it.
    moves: bool,
    name: String,
    words: String,
}

/// The status of all services; for people, one line per deployment.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Fleet<'a>(pub(crate) &'a StatusAnswer);

impl Render for Fleet<'_> {
    fn eyes(&self, now: &Zoned, columns: usize) -> String {
        eyes(self.0, now, columns)
    }

    fn lines(&self) -> String {
        self.0.lines()
    }

    fn nothing(&self, now: &Zoned) -> Option<String> {
        self.0.nothing(now)
    }
}

/// Returns the fleet, each line at most so many columns wide.
pub(crate) fn eyes(status: &StatusAnswer, now: &Zoned, columns: usize) -> String {
    let first = head(status, now);
    if status.services.is_empty() {
        return first + "no services yet; declare one with `ionledger apply SERVICE.toml`\n";
    }
    let mut lines: Vec<Line> = status.services.iter().flat_map(|service| lines_of(service, now)).collect();
    lines.sort_by(|a, b| (a.rank, &a.name).cmp(&(b.rank, &b.name)));
    let width = lines.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
    let shown: String = lines.iter().map(|line| shown(line, width, columns)).collect();
    format!(
        "{first}{}\n{shown}{}\n",
        paint(&summary(&lines), strong()),
        paint("one in full: `ionledger status SERVICE`", faint())
    )
}

fn summary(lines: &[Line]) -> String {
    let of = |of: fn(&Line) -> bool, one: &str, many: &str| match lines.iter().filter(|line| of(line)).count() {
        0 => format!("none {one}"),
        1 => format!("1 {one}"),
        several => format!("{} {many}", grouped(several as u64)),
    };
    let all = count(lines.len() as u64, "deployment", "deployments");
    let needs = of(|line| line.rank == Rank::NeedsAttention, "needs attention", "need attention");
    format!("{all}: {needs}, {}", of(|line| line.moves, "is moving", "are moving"))
}

fn shown(line: &Line, width: usize, columns: usize) -> String {
    let style = if line.glyph == IDLE { faint() } else { style_of(line.glyph) };
    // Where names leave no room beside them, the words stand below.
    let is_below = columns < width + 4 + ROOM_MIN;
    let indent = if is_below { 4 } else { width + 4 };
    let room = columns.saturating_sub(indent);
    let words: Vec<String> = match line.rank {
        Rank::NeedsAttention => broken(&line.words, room).iter().map(|part| paint(part, style)).collect(),
        Rank::Moves => vec![paint(&cut(&line.words, room), style)],
        Rank::Rests if line.glyph == IDLE => vec![paint(&cut(&line.words, room), faint())],
        Rank::Rests => vec![cut(&line.words, room)],
    };
    let below = format!("\n{}", " ".repeat(indent));
    let first = if is_below { below.clone() } else { " ".repeat(width - line.name.chars().count() + 2) };
    format!("{} {}{first}{}\n", paint(line.glyph, style), paint(&line.name, strong()), words.join(&below))
}

/// How many columns of words there are at least beside a name, and on a line however narrow the terminal is.
const ROOM_MIN: usize = 20;

/// Returns all words, on as many lines as they take.
fn broken(words: &str, room: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![];
    for word in words.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room.max(ROOM_MIN) => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Returns as many whole words as there is room for.
fn cut(words: &str, room: usize) -> String {
    if words.chars().count() <= room {
        return words.to_owned();
    }
    let mut kept = String::new();
    for word in words.split_inclusive(' ') {
        if kept.chars().count() + word.trim_end().chars().count() + 2 > room {
            break;
        }
        kept.push_str(word);
    }
    format!("{} …", kept.trim_end_matches([' ', ';', ',', ':']))
}

fn lines_of(service: &ServiceStatus, now: &Zoned) -> Vec<Line> {
    if service.deployments.is_empty() {
        let (rank, name) = (Rank::Rests, plain(service.service.as_str()));
        return vec![Line { rank, glyph: IDLE, moves: false, name, words: nowhere(service) }];
    }
    service.deployments.iter().map(|deployment| line_of(deployment, now)).collect()
}

fn line_of(deployment: &DeploymentStatus, now: &Zoned) -> Line {
    let (glyph, words) = headline(deployment, now);
    let under_way = glyph == BUSY;
    let (rank, glyph, note) = match glyph {
        BAD | WARN | STILL => (Rank::NeedsAttention, glyph, trouble(deployment, now)),
        _ => match (trouble(deployment, now), motion(deployment, now)) {
            _ if deployment.retired_at.is_some() => (Rank::Rests, glyph, None),
            (Some(trouble), _) => (Rank::NeedsAttention, WARN, Some(trouble)),
            (None, Some(motion)) => (Rank::Moves, BUSY, Some(motion)),
            (None, None) if glyph == BUSY => (Rank::Moves, glyph, None),
            (None, None) => (Rank::Rests, glyph, rest(deployment, now)),
        },
    };
    let note = note.filter(|note| !note.is_empty()).map(|note| format!("; {note}")).unwrap_or_default();
    Line {
        rank,
        glyph,
        moves: under_way || rank == Rank::Moves,
        name: plain(&deployment.deployment.to_string()),
        words: plain(&format!("{words}{note}")),
    }
}

/// What somebody has to look at, if there is anything, and after it the release that waits behind a hold.
fn trouble(deployment: &DeploymentStatus, now: &Zoned) -> Option<String> {
    let first = first_trouble(deployment, now)?;
    let held = deployment.waiting.as_ref().filter(|_| !deployment.holds.is_empty());
    let held = held.map(|waiting| {
        let version = waiting.name().map_or("a release".to_owned(), |name| name.to_string());
        format!("; {version} waits until the hold is lifted: `{}`", hold::lift(&deployment.deployment))
    });
    Some(first + &held.unwrap_or_default())
}

fn first_trouble(deployment: &DeploymentStatus, now: &Zoned) -> Option<String> {
    let rollout = deployment.rollout.as_ref().filter(|rollout| rollout.live);
    if deployment.drift.is_some() {
        return Some("the router serves what nobody asked for".to_owned());
    }
    if let (Some(stranded), None) = (deployment.stranded.first(), &deployment.rolling_back_to) {
        return Some(where_stranded(stranded));
    }
    if let Some(told) = &deployment.users_get {
        return Some(format!("users get {}", told.why));
    }
    if deployment.rolling_back_to.is_some() {
        return deployment.rolling_back.as_ref().map(|waits| waits.why.clone());
    }
    if let Some(paused) = rollout.filter(|rollout| rollout.phase == RolloutPhase::Paused) {
        let since = paused.paused_since.map(|since| format!("for {}", age(since, now)));
        let reason = paused.reason.as_deref().and_then(given).map(str::to_owned);
        return Some(since.into_iter().chain(reason).collect::<Vec<_>>().join(": "));
    }
    if let Some(held) = rollout.and_then(|rollout| rollout.held.clone()) {
        return Some(held);
    }
    let unwell = |version: &&VersionStatus| version.phase == StackPhase::Unhealthy && version.weight_set > Weight::ZERO;
    if let Some(unwell) = deployment.versions.iter().find(unwell) {
        let nodes = nodes_ready(unwell.nodes_ready, unwell.nodes_wanted);
        return Some(unwell.last_failure.as_ref().map_or(nodes.clone(), |why| format!("{nodes}: {why}")));
    }
    if let Some(failed) = deployment.versions.iter().rfind(|version| version.phase == StackPhase::Failed) {
        let why = failed.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        return Some(format!("{} failed{why}", failed.name()));
    }
    if let Some(hold) = deployment.holds.first() {
        return Some(format!("on hold: {}", hold.reason));
    }
    let waiting = deployment.waiting.as_ref()?;
    let obstacle = waiting.waits_for.iter().find(|obstacle| obstacle.next.is_some())?;
    let version = waiting.name().map(|name| format!("{name} waits: ")).unwrap_or_default();
    Some(format!("{version}{}", obstacle.why))
}

/// What goes on, if anything does.
fn motion(deployment: &DeploymentStatus, now: &Zoned) -> Option<String> {
    if let Some(rollout) = deployment.rollout.as_ref().filter(|rollout| rollout.live) {
        let Some(next) = &rollout.next else { return Some(String::new()) };
        let left = next.due_at.duration_since(now.timestamp());
        let when = if left.is_positive() { format!("in {}", length(left)) } else { "due".to_owned() };
        return Some(format!("{} {when}", next.weight));
    }
    if let Some(waiting) = &deployment.waiting {
        let version = waiting.name().map_or("a version".to_owned(), |name| name.to_string());
        return Some(format!("{version} is about to be rolled out"));
    }
    let starting = deployment.versions.iter().rfind(|version| version.phase == StackPhase::Starting)?;
    let nodes = nodes_ready(starting.nodes_ready, starting.nodes_wanted);
    let why = starting.last_failure.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    Some(format!("{} is starting, {nodes}{why}", starting.name()))
}

/// How much of what serves there is, and for how long.
fn rest(deployment: &DeploymentStatus, now: &Zoned) -> Option<String> {
    let serving = deployment.versions.iter().filter(|version| version.weight_set > Weight::ZERO);
    let (ready, wanted) = serving.fold((0, 0), |(ready, wanted), version| {
        (ready + u64::from(version.nodes_ready), wanted + u64::from(version.nodes_wanted))
    });
    let since = deployment.weights_set_at.map(|at| format!(" for {}", age(at, now))).unwrap_or_default();
    let back = deployment.rollout.as_ref().filter(|rollout| rollout.phase == RolloutPhase::CameBack);
    let back = back.and_then(|rollout| rollout.canary_name()).map(|canary| format!("; {canary} came back"));
    let back = back.unwrap_or_default();
    (wanted > 0).then(|| format!("{ready}/{}{since}{back}", count(wanted, "node", "nodes")))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::{Value, json};

    use super::super::examples::{bare, now, status};
    use super::*;

    /// What makes a deployment of a name from the example.
    type Named<'n> = (&'n str, fn(&mut Value));

    /// A fleet of what `changes` make of a deployment.
    fn fleet(changes: &[Named<'_>]) -> StatusAnswer {
        let of = |(name, change): &Named<'_>| {
            let mut one = status(|deployment| {
                deployment["deployment"] = json!(format!("production/{name}"));
                change(deployment);
            });
            one.services.remove(0)
        };
        StatusAnswer { services: changes.iter().map(of).collect(), ..status(|_| {}) }
    }

    fn serves(deployment: &mut Value) {
        deployment["rollout"] = json!(null);
        deployment["versions"].as_array_mut().unwrap().truncate(1);
        deployment["versions"][0]["weight_set"] = json!(10_000);
        deployment["versions"][0]["weight_applied"] = json!(10_000);
    }

    #[test]
    fn who_needs_somebody_stands_first_then_who_moves_then_the_rest() {
        let status = fleet(&[
            ("account", serves),
            ("albums", |deployment| {
                let mut back = deployment["rollout"].take();
                back["phase"] = json!("came_back");
                back["live"] = json!(false);
                serves(deployment);
                deployment["rollout"] = back;
            }),
            ("billing", |deployment| {
                serves(deployment);
                deployment["retired_at"] = json!("2026-11-20T13:30:00Z");
                deployment["retired_because"] = json!("replaced by invoices");
            }),
            ("cart", |_| {}),
            ("chat", |deployment| {
                serves(deployment);
                deployment["holds"] =
                    json!([{"cause": "rollback", "reason": "1.2.4 was rolled back", "since": "2026-11-22T13:30:05Z"}]);
            }),
            ("delivery", |deployment| {
                deployment["rollout"]["held"] =
                    json!("the canary got 12 requests, 50 are needed, and nothing else is in its way");
            }),
            ("emails", |deployment| {
                serves(deployment);
                deployment["versions"][0]["phase"] = json!("unhealthy");
                deployment["versions"][0]["last_failure"] = json!("exited with 1");
            }),
            ("feed", |deployment| {
                deployment["rollout"]["phase"] = json!("paused");
                deployment["rollout"]["paused_since"] = json!("2026-11-22T13:30:05Z");
                deployment["rollout"]["reason"] = json!("looking");
            }),
            ("goods", |deployment| {
                deployment["rollout"] = json!(null);
                deployment["versions"][1]["phase"] = json!("failed");
                deployment["versions"][1]["weight_set"] = json!(0);
                deployment["versions"][1]["reason"] = json!("no program");
            }),
        ]);
        assert_snapshot!(bare(&eyes(&status, &now(), 100)), @r"
9 deployments: 5 need attention, 1 is moving
⚠ production/chat      1.2.3 serves; on hold: 1.2.4 was rolled back
⚠ production/delivery  1.2.3 -> 1.2.4 holds at step 3 of 7, 5 %; the canary got 12 requests, 50 are
                       needed, and nothing else is in its way
✖ production/emails    1.2.3 serves and is unhealthy; 2 of 2 nodes ready: exited with 1
‖ production/feed      1.2.3 -> 1.2.4 is paused at step 3 of 7, 5 %; for 2 min: looking
⚠ production/goods     1.2.3 serves; 1.2.4 failed: no program
◌ production/cart      rolling 1.2.3 -> 1.2.4, step 3 of 7, 5 %; 10 % in 10 min
✔ production/account   1.2.3 serves; 2/2 nodes for 2 min
✔ production/albums    1.2.3 serves; 2/2 nodes for 2 min; 1.2.4 came back
· production/billing   retired 2 d ago: replaced by invoices
one in full: `ionledger status SERVICE`
");
        let narrow = bare(&eyes(&status, &now(), 60));
        assert!(narrow.lines().all(|line| line.chars().count() <= 60), "{narrow}");
        for whole in ["needed, and nothing else is in its way", "serves; on hold: 1.2.4 was rolled back"] {
            let all = narrow.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(all.contains(whole), "{whole}: {narrow}");
        }
        let narrower = bare(&eyes(&status, &now(), 44));
        assert!(narrower.contains(" …"), "what needs nobody is cut: {narrower}");
    }

    #[test]
    fn beside_long_names_on_a_narrow_terminal_the_words_stand_below() {
        let long: Named<'_> = ("payment-provider-notifications", serves);
        let failing: Named<'_> = ("checkout-and-invoices", |deployment| {
            serves(deployment);
            deployment["versions"][0]["phase"] = json!("unhealthy");
            deployment["versions"][0]["last_failure"] = json!("its check answered 503 after 2 s");
        });
        assert_snapshot!(bare(&eyes(&fleet(&[long, failing]), &now(), 50)), @r"
2 deployments: 1 needs attention, none is moving
✖ production/checkout-and-invoices
    1.2.3 serves and is unhealthy; 2 of 2 nodes
    ready: its check answered 503 after 2 s
✔ production/payment-provider-notifications
    1.2.3 serves; 2/2 nodes for 2 min
one in full: `ionledger status SERVICE`
");
        for columns in 24..100 {
            let shown = bare(&eyes(&fleet(&[long, failing]), &now(), columns));
            let too_wide = |line: &&str| line.chars().count() > columns && line.split_whitespace().count() > 2;
            let of_fleet = shown.lines().skip(1).filter(|line| !line.contains("one in full"));
            assert_eq!(of_fleet.filter(too_wide).collect::<Vec<_>>(), Vec::<&str>::new(), "{columns}: {shown}");
            assert!(shown.contains("503") && shown.contains("unhealthy;"), "{columns}: {shown}");
        }
    }

    #[test]
    fn a_release_that_waits_behind_a_hold_is_said_whatever_the_width() {
        let held: Named<'_> = ("chat", |deployment| {
            serves(deployment);
            deployment["holds"] = json!([{"cause": "rollback", "reason": "1.2.4 was rolled back: the queue of the payment provider grows",
                    "since": "2026-11-22T13:30:05Z"}]);
            deployment["waiting"] = json!({"version": "1.2.5", "stack": "01900000-0000-7000-8000-000000000003",
                "asked_at": "2026-11-22T13:30:00Z", "plan": {"steps": [10_000], "duration_ms": 0}, "waits_for": [
                    {"kind": "hold", "why": "the deployment is on hold", "next": "ionledger hold api --lift"}]});
        });
        assert_snapshot!(bare(&eyes(&fleet(&[held]), &now(), 60)), @r"
1 deployment: 1 needs attention, none is moving
⚠ production/chat  1.2.3 serves; on hold: 1.2.4 was rolled
                   back: the queue of the payment provider
                   grows; 1.2.5 waits until the hold is
                   lifted: `ionledger hold chat --lift`
one in full: `ionledger status SERVICE`
");
    }

    #[test]
    fn where_nothing_needs_attention_that_is_said() {
        let shown = bare(&eyes(&fleet(&[("account", serves), ("cart", |_| {})]), &now(), 100));
        assert!(shown.starts_with("2 deployments: none needs attention, 1 is moving\n"), "{shown}");
    }

    #[test]
    fn words_that_do_not_fit_are_left_out_whole() {
        assert_eq!(cut("one two three", 13), "one two three");
        assert_eq!(cut("one two, three", 12), "one two …");
        assert_eq!(cut("onetwothree", 5), " …");
    }
}
