//! Status for eyes, a tree for each deployment, and for pipes, a line for each version.

mod lines;

use jiff::{SignedDuration, Zoned};
use ledger::deployment::hold;
use ledger::log::Ahead;
use owo_colors::Style;
use replay::answer::{
    DeploymentStatus, HoldStatus, MeasuredStatus, NodePhase, NodeStatus, RolloutPhase, RolloutStatus,
    RouterSilentStatus, SeenStatus, ServiceStatus, StackPhase, StatusAnswer, Unattended, VerdictStatus, VersionStatus,
};
use schemas::judgement::{Counts, Verdict};
use schemas::{Timestamp, Weight, text};

pub(crate) use self::lines::{COLUMNS, lines};
use super::Render;
use super::back;
use super::rollout::{comes_back, headline as rollout_headline, name, rolling, said};
use super::shares::{shares, should_be_applied};
use super::table::{self, Cell, paint};
use super::unrecorded;
use super::waiting;
use super::words::{
    BAD, BUSY, GOOD, IDLE, WARN, age, column, count, faint, length, milliseconds, moment, moment_in_full, plain,
    strong, style_of,
};
use crate::halted::sentence;
use crate::unattended::DOES_NOT_RUN;

impl Render for StatusAnswer {
    fn eyes(&self, now: &Zoned, _: usize) -> String {
        eyes(self, now)
    }

    fn lines(&self) -> String {
        lines(self)
    }

    fn nothing(&self, _: &Zoned) -> Option<String> {
        Some("no stack of any version; the services are in `--json`".to_owned())
    }
}

/// Returns the status as trees.
pub(crate) fn eyes(status: &StatusAnswer, now: &Zoned) -> String {
    let first = head(status, now);
    if status.services.is_empty() {
        return first + "no services yet; declare one with `ionledger apply SERVICE.toml`\n";
    }
    let parts: Vec<String> = status.services.iter().map(|service| service_tree(service, now)).collect();
    first + &parts.join("\n")
}

/// Returns what comes before all else: what concerns the ledger as a whole.
pub(super) fn head(status: &StatusAnswer, now: &Zoned) -> String {
    let halted =
        status.halted.as_ref().map(|why| paint(&format!("{BAD} {}\n\n", plain(&sentence(why))), style_of(BAD)));
    let unattended = status.unattended.iter();
    let unattended = unattended.map(|seen| paint(&format!("{BAD} {}\n", plain(&told_unattended(seen))), style_of(BAD)));
    let warnings = warnings(status).into_iter();
    let warnings = warnings.map(|line| paint(&format!("{WARN} {}\n", plain(&line)), style_of(WARN)));
    let clock = status.clock.iter().map(|trouble| paint(&format!("{WARN} {}\n", plain(trouble)), style_of(WARN)));
    let silent = status.router_silent.iter();
    let silent = silent.map(|silent| paint(&format!("{BAD} {}\n", plain(&silent_router(silent, now))), style_of(BAD)));
    let first = halted.into_iter().chain(unattended).chain(silent).chain(clock).chain(warnings).collect::<String>();
    first + &unrecorded::eyes(&status.unrecorded, now)
}

/// Returns a line for each thing that concerns the ledger as a whole: where it went, what it is a copy of, streams that are
/// read-only for the program that answers, and commits whose time cannot be true.
pub(crate) fn warnings(status: &StatusAnswer) -> Vec<String> {
    let moved = status.moved_to.iter().map(|to| format!("the ledger was moved to {to}: this is how it stood then"));
    let copy = status.copy_of.iter().map(|of| {
        format!("a read-only copy of {of}: this is how it stood when it was copied, and no process runs from it")
    });
    let streams = status.read_only.iter();
    let streams = streams.map(|(stream, why)| format!("{stream} accepts nothing here but a rollback: {why}"));
    moved.chain(copy).chain(streams).chain(status.ahead.iter().map(ahead)).collect()
}

/// Returns the line that comes first where nobody runs who follows the ledger.
pub(crate) fn told_unattended(seen: &Unattended) -> String {
    let proxy = seen.proxy.as_ref().map_or("the proxy answers".to_owned(), |why| match why.as_str() {
        DOES_NOT_RUN => "the proxy does not run, so nobody is served".to_owned(),
        why => format!("the proxy does not answer ({why})"),
    });
    let nodes = format!("{} of {} run", seen.nodes_running, count(seen.nodes, "node", "nodes"));
    let why = match &seen.silent {
        Some(silent) => format!("{silent}. This is what its folder holds; no rollout goes on and no node is replaced."),
        None => "no process follows the ledger: no rollout goes on and no node is replaced until `ionledger up` runs."
            .to_owned(),
    };
    format!("{why} Seen just now: {proxy}; {nodes}")
}

/// Returns the line about a router that does not answer.
pub(crate) fn silent_router(RouterSilentStatus { since, why, next }: &RouterSilentStatus, now: &Zoned) -> String {
    let next = match next {
        Some(next) => format!("`{next}` ends its process, and a running `ionledger up` starts another within seconds"),
        None => "`ionledger doctor` says what helps".to_owned(),
    };
    format!("the router has not answered since {} ({why}): users may wait or get errors; {next}", moment(*since, now))
}

/// Returns the line about a commit whose time cannot be true.
pub(crate) fn ahead(Ahead { offset, time, taken }: &Ahead) -> String {
    format!(
        "the commit at offset {offset} says it was made at {time}, its broker took it in at {taken}: its writer's clock is \
         wrong, or it was forged"
    )
}

fn service_tree(service: &ServiceStatus, now: &Zoned) -> String {
    if service.deployments.is_empty() {
        return format!("{}  {}\n", paint(service.service.as_str(), strong()), paint(&nowhere(service), faint()));
    }
    service.deployments.iter().map(|deployment| deployment_tree(deployment, now)).collect::<Vec<_>>().join("\n")
}

/// What a service lacks that runs nowhere.
pub(super) fn nowhere(service: &ServiceStatus) -> String {
    match (&service.owner, &service.latest_release) {
        (None, _) => "not declared".to_owned(),
        (_, None) => format!("no release yet; `ionledger release {} VERSION --artifact FILE`", service.service),
        (_, Some(version)) => format!("release {version} runs nowhere; `ionledger new {} {version}`", service.service),
    }
}

fn deployment_tree(deployment: &DeploymentStatus, now: &Zoned) -> String {
    let (glyph, words) = headline(deployment, now);
    let mut text = format!(
        "{}  {}\n",
        paint(&deployment.deployment.to_string(), strong()),
        paint(&format!("{glyph} {}", plain(&words)), style_of(glyph))
    );
    let facts: Vec<Vec<Cell>> = facts(deployment, now)
        .into_iter()
        .map(|(name, fact)| vec![Cell::styled(name, faint()), Cell::styled(fact, style_of_fact(name))])
        .collect();
    for line in table::lines(&facts) {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str(&versions(deployment, now));
    text
}

/// A rollout that has a line of its own name has ended: it is the past.
fn style_of_fact(name: &str) -> Style {
    if name == "rollout" { faint() } else { Style::new() }
}

/// How a deployment stands, in a glyph and some words.
pub(super) fn headline(deployment: &DeploymentStatus, now: &Zoned) -> (&'static str, String) {
    if let Some(retired) = deployment.retired_at {
        let because = because(deployment.retired_because.as_ref());
        return (IDLE, format!("retired {} ago{because}", age(retired, now)));
    }
    let rollout = deployment.rollout.as_ref().filter(|rollout| rollout.live);
    if let Some(silent) = &deployment.router_silent {
        return silent_headline(deployment, silent, rollout, now);
    }
    if let Some(seen) = &deployment.seen {
        return seen_headline(deployment, seen, rollout);
    }
    if let Some(rollout) = rollout {
        return rollout_headline(rollout);
    }
    if let Some(target) = deployment.rolling_back_to_name() {
        return back::headline(deployment, &target);
    }
    let serving: Vec<&VersionStatus> =
        deployment.versions.iter().filter(|version| version.weight_set > Weight::ZERO).collect();
    let unwell = serving.iter().find(|version| version.phase == StackPhase::Unhealthy);
    match (&serving[..], unwell) {
        (_, Some(version)) if version.weight_applied == Weight::ZERO && deployment.users_get.is_some() => {
            (BAD, format!("{} is set and cannot be served yet", version.name()))
        }
        (_, Some(version)) => (BAD, format!("{} serves and is unhealthy", version.name())),
        ([], _) if deployment.versions.iter().any(|version| version.phase == StackPhase::Starting) => {
            (BUSY, "starting".to_owned())
        }
        ([], _) => (WARN, "serves nothing".to_owned()),
        ([only], _) if only.weight_applied != only.weight_set && !deployment.applied_unknown => {
            unapplied_headline(deployment, only, now)
        }
        ([only], _) => (GOOD, format!("{} serves", only.name())),
        (several, _) => (GOOD, format!("{} versions serve", several.len())),
    }
}

/// How a deployment stands whose router has not confirmed what is set.
fn unapplied_headline(deployment: &DeploymentStatus, set: &VersionStatus, now: &Zoned) -> (&'static str, String) {
    let served = shares(deployment, |version| version.weight_applied).unwrap_or_else(|| "nothing".to_owned());
    (
        if should_be_applied(deployment, now.timestamp()) { BAD } else { BUSY },
        format!("{} is set, and the router serves {served}", set.name()),
    )
}

/// How a deployment stands whose router does not answer: what its users get is not known.
fn silent_headline(
    deployment: &DeploymentStatus,
    silent: &RouterSilentStatus,
    rollout: Option<&RolloutStatus>,
    now: &Zoned,
) -> (&'static str, String) {
    let confirmed = shares(deployment, |version| version.weight_applied).filter(|_| !deployment.applied_unknown);
    let last = confirmed.map(|shares| format!("; it last served {shares}")).unwrap_or_default();
    let stands = rollout.map(|rollout| format!("; {} waits for it", rolling(rollout))).unwrap_or_default();
    (BAD, format!("the router has not answered since {}{last}{stands}", moment(silent.since, now)))
}

/// How a deployment stands that nobody drives: what its users were seen to get.
fn seen_headline(
    deployment: &DeploymentStatus,
    seen: &SeenStatus,
    rollout: Option<&RolloutStatus>,
) -> (&'static str, String) {
    let stands = rollout.map(|rollout| {
        let step = format!("step {} of {}", rollout.steps_taken, rollout.steps);
        let rolling = rolling(rollout);
        match &rollout.comes_back_to {
            Some(to) => format!("; {rolling} {}", comes_back(to, rollout.came_back)),
            None => format!("; {rolling} stands still at {step}: nobody drives it"),
        }
    });
    let stands = stands.unwrap_or_default();
    let shares: Vec<String> =
        seen.weights.iter().map(|(stack, weight)| format!("{} {weight}", name_of(deployment, *stack))).collect();
    match (&shares[..], &seen.trouble) {
        (_, Some(why)) if why == DOES_NOT_RUN => {
            (BAD, format!("nobody is served: the proxy does not run; `ionledger up` starts it{stands}"))
        }
        (_, Some(why)) => (BAD, format!("users cannot connect: {why}{stands}")),
        ([], None) => (BAD, format!("serves nobody{stands}")),
        (_, None) => {
            let serves = format!("the proxy serves {}", shares.join(", "));
            match without_nodes(deployment, seen) {
                Some(dead) => (BAD, format!("users get failures: {serves}, and no node of {dead} runs{stands}")),
                None => (WARN, format!("{serves}{stands}")),
            }
        }
    }
}

/// Names the versions that users were seen to be on and of which no node runs.
fn without_nodes(deployment: &DeploymentStatus, seen: &SeenStatus) -> Option<String> {
    let has_users =
        |version: &&VersionStatus| seen.weights.get(&version.stack).is_some_and(|weight| *weight > Weight::ZERO);
    let dead = |version: &&VersionStatus| {
        !version.nodes.is_empty() && version.nodes.iter().all(|node| node.runs == Some(false))
    };
    let dead = deployment.versions.iter().filter(has_users).filter(dead).map(|version| version.name().to_string());
    Some(dead.collect::<Vec<_>>().join(" and ")).filter(|dead| !dead.is_empty())
}

/// What there is to know besides the versions, by its short name.
fn facts(deployment: &DeploymentStatus, now: &Zoned) -> Vec<(&'static str, String)> {
    let mut facts = Vec::new();
    if let Some(listen) = deployment.listen.filter(|_| deployment.retired_at.is_none()) {
        facts.push(("users at", format!("http://{listen}")));
    }
    facts.extend(back::rolling_back(deployment).map(|told| ("rolls back", told)));
    facts.extend(back::users_get(deployment).map(|told| ("users get", told)));
    facts.extend(back::stranded(deployment).map(|told| ("stranded", told)));
    if let Some((set, recorded)) = deployment.weights_set_at.zip(deployment.weights_recorded_at) {
        let [set, recorded] = [set, recorded].map(|at| moment_in_full(at, now));
        facts.push(("rolled back", format!("without the ledger at {set}, recorded at {recorded}")));
    }
    if let Some(drift) = &deployment.drift {
        let seen = drift.seen.iter().map(|(stack, weight)| format!("{} {weight}", name_of(deployment, *stack)));
        let seen: Vec<String> = seen.collect();
        facts.push(("drift", format!("the router serves {} since {}", seen.join(", "), moment(drift.at, now))));
    }
    if let Some(rollout) = &deployment.rollout {
        rollout_facts(&mut facts, rollout, deployment.seen.is_none(), now);
    }
    facts.extend(deployment.holds.iter().map(|hold| hold_fact(deployment, hold, now)));
    if let Some(waiting) = &deployment.waiting {
        facts.extend(waiting::facts(waiting, &deployment.holds));
    }
    match &deployment.rollback_target {
        Some(target) if deployment.retired_at.is_none() && deployment.rolling_back_to.is_none() => {
            facts.push(("rollback to", back::target(target, deployment.seen.is_none())));
        }
        _ => {}
    }
    facts
}

/// Since when, why and until when pipelines' releases are held, and what ends that.
fn hold_fact(deployment: &DeploymentStatus, hold: &HoldStatus, now: &Zoned) -> (&'static str, String) {
    let until = hold.until.map(|until| format!(", until {}", moment(until, now))).unwrap_or_default();
    let lift = match deployment.holds.len() {
        1 => hold::lift(&deployment.deployment),
        _ => hold::lift_one(&deployment.deployment, hold.cause),
    };
    let reason = without_the_rollouts(&hold.reason, deployment);
    let by = hold.actor.as_ref().map(|actor| format!(" by {actor}")).unwrap_or_default();
    let text = format!("since {}{until}{by}: {reason}; pipelines' releases wait; `{lift}`", moment(hold.since, now));
    ("on hold", text)
}

/// A hold's reason, without that of the rollback or abort that set it where the rollout above gives the same.
fn without_the_rollouts<'h>(reason: &'h str, deployment: &DeploymentStatus) -> &'h str {
    let shown = deployment.rollout.as_ref().and_then(|rollout| text::given(rollout.reason.as_deref()?));
    shown.and_then(|shown| reason.strip_suffix(shown)?.strip_suffix(": ")).unwrap_or(reason)
}

/// What there is to know of a rollout; `driven` says whether somebody drives it, so that its times will come.
fn rollout_facts(facts: &mut Vec<(&'static str, String)>, rollout: &RolloutStatus, driven: bool, now: &Zoned) {
    let because = because(rollout.reason.as_ref());
    match rollout.phase {
        RolloutPhase::Running => {}
        RolloutPhase::Paused => {
            let since = rollout.paused_since.map(|since| format!("for {}", age(since, now))).unwrap_or_default();
            facts.push(("paused", format!("{since}{because}").trim_start_matches(": ").to_owned()));
        }
        RolloutPhase::Completed => facts.push(("rollout", format!("{} {GOOD} complete", rolling(rollout)))),
        RolloutPhase::CameBack => facts.push(("rollout", format!("{} {BAD} came back{because}", rolling(rollout)))),
        RolloutPhase::Aborted => facts.push(("rollout", format!("{} {BAD} aborted{because}", rolling(rollout)))),
        RolloutPhase::Promoted => facts.push(("rollout", format!("{} {GOOD} promoted{because}", rolling(rollout)))),
        RolloutPhase::Superseded => facts.push(("rollout", format!("{} {IDLE} superseded{because}", rolling(rollout)))),
    }
    if let Some(held) = rollout.held.as_ref().filter(|_| rollout.live) {
        facts.push(("holds", held.clone()));
    }
    if let Some(next) = rollout.next.as_ref().filter(|_| rollout.live) {
        let left = next.due_at.duration_since(now.timestamp());
        let when = if left.is_positive() { format!("in {}", length(left)) } else { "due".to_owned() };
        let then = bake(rollout).map(|bake| format!(", {bake}")).unwrap_or_default();
        let when = match (driven, rollout.paused_since) {
            (true, Some(paused)) => after_resume(next.due_at.duration_since(paused)),
            (true, None) => format!("at {} ({when})", moment(next.due_at, now)),
            (false, _) => "when `ionledger up` runs again and it is due".to_owned(),
        };
        facts.push(("next", format!("{} {when}{then}", next.weight)));
    }
    if let Some(end) = expected_end(rollout, now).filter(|_| driven && rollout.paused_since.is_none()) {
        let left = length(end.duration_since(now.timestamp()));
        facts.push(("ends", format!("about {} (in {left})", moment(end, now))));
    }
    if let Some(remaining) = rollout.remaining_ms.filter(|_| driven && rollout.live) {
        let once = if rollout.paused_since.is_some() { "it is resumed" } else { "it goes on" };
        let left = length(SignedDuration::from_millis(i64::try_from(remaining).unwrap_or(i64::MAX)));
        facts.push(("ends", format!("{left} of steps remain once {once}")));
    }
    // What was said of a rollout that has ended well says nothing of how it stands.
    let told = |verdict: &&VerdictStatus| rollout.live || verdict.verdict == Verdict::Worse;
    let known = rollout.evidence.as_ref().filter(|_| rollout.live);
    if let Some(known) = known {
        let (canary, baseline) = (errors(known.canary), errors(known.baseline));
        facts.push(("judge", format!("{}: canary {canary}, baseline {baseline}", said(known.verdict))));
        let remarks = super::explain::remarks(known, rollout.held.as_deref(), true);
        facts.extend(remarks.into_iter().map(|remark| ("", remark)));
    }
    if let Some(verdict) = rollout.verdict.as_ref().filter(told).filter(|_| known.is_none()) {
        let said = said(verdict.verdict);
        let (canary, baseline) = (errors(verdict.canary), errors(verdict.baseline));
        facts.push(("judge", format!("{said} at step {}: canary {canary}, baseline {baseline}", verdict.step)));
    }
}

/// When a paused rollout's next step comes, so long after it goes on.
fn after_resume(left: SignedDuration) -> String {
    match left.is_positive() {
        true => format!("{} after it is resumed", length(left)),
        false => "once it is resumed".to_owned(),
    }
}

/// What the old version keeps while the canary bakes, and at the step before that how long it will.
fn bake(rollout: &RolloutStatus) -> Option<String> {
    let step = rollout.plan.bake_step()?;
    let control = Weight::FULL.basis_points() - rollout.plan.steps.get(usize::from(step))?.basis_points();
    let keeps = format!("{} keeps {}", name(rollout.baseline_name()), Weight::from_basis_points(control).ok()?);
    if rollout.baking {
        return Some(format!("until then {keeps} to be compared with"));
    }
    let bake = SignedDuration::from_millis(i64::try_from(rollout.plan.bake_ms).ok()?);
    (rollout.steps_taken == step).then(|| format!("then a bake of {}: {keeps} meanwhile", length(bake)))
}

/// A reason, after what it is the reason of.
fn because(reason: Option<&String>) -> String {
    reason.map(|reason| text::because(reason)).unwrap_or_default()
}

/// When a live rollout is expected to end if its next step is let as soon as it may be: a step that is overdue moves the end.
fn expected_end(rollout: &RolloutStatus, now: &Zoned) -> Option<Timestamp> {
    let (end, next) = (rollout.expected_end_at?, rollout.next.as_ref().filter(|_| rollout.live)?);
    let paused = rollout.paused_since.map(|since| now.timestamp().duration_since(since)).unwrap_or_default();
    let due = next.due_at.checked_add(paused).ok()?.max(now.timestamp());
    let then = SignedDuration::from_millis(i64::try_from(next.then_ms).ok()?);
    due.checked_add(then).ok().map(|soonest| soonest.max(end))
}

/// Errors of requests, with their share: `3 of 1,204 failed (0.25 %)`.
fn errors(counts: Counts) -> String {
    match counts.errors_ppm() {
        None => "no requests".to_owned(),
        Some(ppm) => {
            let requests = super::words::grouped(counts.requests);
            format!("{} of {requests} failed ({})", counts.errors, share(ppm))
        }
    }
}

fn name_of(deployment: &DeploymentStatus, stack: schemas::StackId) -> String {
    let version = deployment.versions.iter().find(|version| version.stack == stack);
    version.map_or_else(|| format!("stack {stack}"), |version| version.name().to_string())
}

fn versions(deployment: &DeploymentStatus, now: &Zoned) -> String {
    // The newest stack first: it is the one that is looked for.
    let shown: Vec<&VersionStatus> = deployment.versions.iter().rev().collect();
    let rows: Vec<Vec<Cell>> = shown.iter().map(|version| version_row(deployment, version, now)).collect();
    let mut text = String::new();
    for (n, (version, row)) in shown.iter().zip(table::lines(&rows)).enumerate() {
        let (branch, below) = if n + 1 == shown.len() { ("└─", "   ") } else { ("├─", "│  ") };
        text.push_str(&format!("{branch} {row}\n"));
        if let Some(measured) = &version.measured {
            let beside = if version.nodes.is_empty() { " " } else { "│" };
            text.push_str(&format!("{below}{beside} {}\n", told_measured(measured)));
        }
        for (n, node) in version.nodes.iter().enumerate() {
            let branch = if n + 1 == version.nodes.len() { "└─" } else { "├─" };
            text.push_str(&format!("{below}{branch} {}\n", node_line(node, role(deployment, version), now)));
            if let Some(log) = &node.log {
                let beside = if n + 1 == version.nodes.len() { "   " } else { "│  " };
                text.push_str(&format!("{below}{beside}{}\n", table::paint(&format!("log {}", plain(log)), faint())));
            }
        }
    }
    text
}

/// What a version's requests did: `last 45 s: 12 requests a second, 0.25 % failed, p50 12 ms, p99 85 ms`.
fn told_measured(measured: &MeasuredStatus) -> String {
    let failed = measured.errors.filter(|_| measured.requests > 0).map(|errors| {
        let counts = Counts { requests: measured.requests, errors };
        format!("{} failed", share(counts.errors_ppm().unwrap_or(0)))
    });
    let slow = |name: &str, ms: Option<f64>| ms.map(|ms| format!("{name} {}", milliseconds(ms)));
    let seconds = length(SignedDuration::from_secs(measured.seconds.round() as i64));
    let rate = format!("last {seconds}: {} requests a second", rate(measured.requests_per_second));
    let told = [Some(rate), failed, slow("p50", measured.p50_ms), slow("p99", measured.p99_ms)];
    told.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn share(ppm: u64) -> String {
    format!("{}.{:02} %", ppm / 10_000, ppm % 10_000 / 100)
}

/// A number a second, with two figures at least.
fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate < 1.0 => format!("{rate:.2}"),
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate => super::words::grouped(rate.round() as u64),
    }
}

fn version_row(deployment: &DeploymentStatus, version: &VersionStatus, now: &Zoned) -> Vec<Cell> {
    let (glyph, word) = phase(version.phase);
    let role = role(deployment, version);
    let weight = match version.weight_set == version.weight_applied {
        _ if deployment.applied_unknown => {
            Cell::styled(format!("{} (now unknown)", version.weight_set), style_of(BUSY))
        }
        true => Cell::styled(
            version.weight_set.to_string(),
            if version.weight_set == Weight::ZERO { faint() } else { strong() },
        ),
        false => Cell::styled(format!("{} (now {})", version.weight_set, version.weight_applied), style_of(BUSY)),
    };
    vec![
        Cell::styled(version.name().to_string(), strong()),
        Cell::styled(role, if role == "warm" { faint() } else { strong() }),
        weight,
        Cell::styled(format!("{glyph} {word}"), style_of_phase(deployment, version)),
        Cell::new(format!(
            "{}/{} {}",
            version.nodes_ready,
            version.nodes_wanted,
            if version.nodes_wanted == 1 { "node" } else { "nodes" }
        )),
        Cell::styled(age(version.requested_at, now), faint()),
        Cell::styled(remark(deployment, version, now), faint()),
    ]
}

/// The colour of a version's phase: red is for what somebody must look at, and a stack that nobody uses may be unwell.
fn style_of_phase(deployment: &DeploymentStatus, version: &VersionStatus) -> Style {
    let unused = matches!(role(deployment, version), "unused" | "leaving");
    if unused { faint() } else { style_of(phase(version.phase).0) }
}

/// What else there is to say about a version.
fn remark(deployment: &DeploymentStatus, version: &VersionStatus, now: &Zoned) -> String {
    if let Some(why) = &version.leaves_because {
        return format!("is taken down: {why}");
    }
    match version.phase {
        StackPhase::Failed => {
            let ago = version.failed_at.map(|at| format!("{} ago: ", age(at, now))).unwrap_or_default();
            let why = version.reason.clone().or_else(|| version.last_failure.clone()).unwrap_or_default();
            format!("{ago}{why}")
        }
        StackPhase::Starting => {
            let then = if version.rolls_when_ready { "then rolls out" } else { "" };
            version.last_failure.clone().unwrap_or_else(|| then.to_owned())
        }
        StackPhase::Unhealthy => {
            let wanted = count(u64::from(version.nodes_ready_min), "node", "nodes");
            let why = version.last_failure.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            format!("needs {wanted}{why}")
        }
        StackPhase::Collecting => {
            version.collecting_since.map(|since| format!("for {}", age(since, now))).unwrap_or_default()
        }
        StackPhase::Ready => {
            let unused = version.unused_since.map(|since| format!("unused for {}", age(since, now)));
            let rejected = version.rejected.as_ref().map(|rejected| without_told(&rejected.why, deployment));
            unused.into_iter().chain(rejected).collect::<Vec<_>>().join(", ")
        }
    }
}

/// What is held against a version, without the reason where the rollout or a hold above gives the same.
fn without_told(why: &str, deployment: &DeploymentStatus) -> String {
    let rollout = deployment.rollout.iter().filter_map(|rollout| rollout.reason.as_deref());
    let told = rollout.chain(deployment.holds.iter().map(|hold| hold.reason.as_str()));
    let short = why.strip_suffix(')').and_then(|open| open.split_once(" ("));
    let is_told = |reason: &str| told.clone().any(|told| told == reason || told.ends_with(&format!(": {reason}")));
    short.filter(|(_, reason)| is_told(reason)).map_or(why, |(what, _)| what).to_owned()
}

fn node_line(node: &NodeStatus, role: &str, now: &Zoned) -> String {
    let (glyph, word) = match node.phase {
        NodePhase::Launching => (BUSY, "launching"),
        NodePhase::Launched => (BUSY, "checking"),
        NodePhase::Ready => (GOOD, "ready"),
        NodePhase::Unhealthy => (BAD, "unhealthy"),
    };
    let again = if node.attempt > 0 { format!(", attempt {}", node.attempt + 1) } else { String::new() };
    let row = vec![
        Cell::styled(format!("node {}", node.slot + 1), faint()),
        Cell::styled(
            format!("{glyph} {word}"),
            if matches!(role, "unused" | "leaving") { faint() } else { style_of(glyph) },
        ),
        Cell::styled(column(node.address), faint()),
        Cell::styled(format!("{}{again}", age(node.started_at, now)), faint()),
        Cell::new(node.failing.as_deref().unwrap_or_default()),
    ];
    table::lines(&[row]).concat()
}

/// What a version is to its deployment.
fn role(deployment: &DeploymentStatus, version: &VersionStatus) -> &'static str {
    let rollout = deployment.rollout.as_ref().filter(|rollout| rollout.live);
    match rollout {
        Some(rollout) if rollout.canary_stack == version.stack => "canary",
        Some(rollout) if rollout.baseline_stack == version.stack => "baseline",
        _ if version.weight_set > Weight::ZERO => "serving",
        _ => match version.phase {
            StackPhase::Starting => "new",
            StackPhase::Ready => "warm",
            StackPhase::Unhealthy => "unused",
            StackPhase::Failed => "failed",
            StackPhase::Collecting => "leaving",
        },
    }
}

fn phase(phase: StackPhase) -> (&'static str, &'static str) {
    match phase {
        StackPhase::Starting => (BUSY, "starting"),
        StackPhase::Ready => (GOOD, "ready"),
        StackPhase::Unhealthy => (BAD, "unhealthy"),
        StackPhase::Failed => (BAD, "failed"),
        StackPhase::Collecting => (BUSY, "collecting"),
    }
}

#[cfg(test)]
mod tests;
