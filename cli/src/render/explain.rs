//! Explanations for eyes and pipes.

use jiff::Zoned;
use ledger::judgement::hearing::{hits, odds, percent};
use replay::answer::{EvidenceStatus, Explanation, History, HistoryEntry};
use schemas::judgement::{Evidence, MetricEvidence};

use super::table::{self, Cell};
use super::words::{BAD, GOOD, WARN, faint, grouped, strong, style_of};
use super::{history, status};

/// Returns an explanation for eyes: how the rollout stands, what it rests on, and what happened.
pub(crate) fn eyes(explanation: &Explanation, now: &Zoned) -> String {
    let mut text = String::new();
    if let (Some(deployment), None) = (&explanation.deployment, &explanation.rollout) {
        return format!("{deployment} has had no rollout; start one with `ionledger roll`\n");
    }
    if let (Some(deployment), Some(rollout)) = (&explanation.deployment, &explanation.rollout) {
        text.push_str(&format!("{deployment}  {}\n", status::rollout_in_words(rollout)));
        if let Some(held) = rollout.held.as_ref().filter(|_| rollout.live) {
            text.push_str(&format!("  holds: {held}\n"));
        }
        if let Some(evidence) = &rollout.evidence {
            text.push_str(&format!("  {}\n", evidence.reason));
            remarks(evidence).iter().for_each(|remark| text.push_str(&format!("  {remark}\n")));
            text.push('\n');
            table::lines(&metrics(&evidence.evidence)).iter().for_each(|line| text.push_str(&format!("  {line}\n")));
        }
        text.push('\n');
    }
    text + &history::eyes(&as_history(explanation), now)
}

/// Returns what happened as lines, as history has them.
pub(crate) fn lines(explanation: &Explanation) -> String {
    history::lines(&as_history(explanation))
}

fn as_history(explanation: &Explanation) -> History {
    let entries: Vec<HistoryEntry> = explanation.entries.clone();
    let (service, environment) = (None, None);
    History {
        schema_version: explanation.schema_version,
        service,
        environment,
        entries,
        more: false,
        unrecorded: vec![],
    }
}

/// What the evidence comes to, in a few lines.
pub(super) fn remarks(status: &EvidenceStatus) -> Vec<String> {
    let evidence = &status.evidence;
    let mut remarks = vec![format!(
        "evidence {} that it is worse, {} needed; {} that it is not, {} needed of every metric",
        odds(evidence.worse_milli),
        needed(evidence.worse_needed_milli),
        odds(evidence.not_worse_milli),
        needed(evidence.not_worse_needed_milli)
    )];
    let excluded =
        evidence.excluded_ppm.map(|ppm| format!("that it fails {} more of its requests is excluded", percent(ppm)));
    let missing = match evidence.requests_still_needed {
        Some(0) => None,
        Some(requests) => Some(format!("about {} more requests of it until it is accepted", grouped(requests))),
        None => Some("how many more requests it takes to accept it cannot be told yet".to_owned()),
    };
    remarks.extend([missing, excluded].into_iter().flatten());
    if evidence.in_incident {
        remarks.push(format!("{WARN} the baseline itself is in an incident; nothing speaks for the canary meanwhile"));
    }
    if evidence.routing_broken {
        remarks.push(format!(
            "{BAD} the router does not share requests out as the weights say; that is not the version's doing"
        ));
    }
    if !evidence.bad_nodes.is_empty() {
        let places: Vec<String> = status.bad_places.iter().map(|place| format!("node {place}")).collect();
        let nodes: Vec<String> = evidence.bad_nodes.iter().map(ToString::to_string).collect();
        let named = if places.is_empty() { nodes.join(", ") } else { places.join(", ") };
        remarks.push(format!("{BAD} {named} of the canary alone is bad; the version without it is not known to be"));
    }
    remarks
}

/// How many to 1 are needed.
fn needed(milli: i64) -> String {
    odds(milli + 1).trim_end_matches(" to 1").to_owned()
}

fn metrics(evidence: &Evidence) -> Vec<Vec<Cell>> {
    let head = ["metric", "canary", "baseline", "tolerance", "worse", "not worse", ""];
    let head = head.map(|name| Cell::styled(name, faint())).to_vec();
    let row = |metric: &MetricEvidence| {
        let accepted =
            if metric.accepted { Cell::styled(format!("{GOOD} accepted"), style_of(GOOD)) } else { Cell::new("") };
        vec![
            Cell::styled(&metric.name, strong()),
            Cell::new(hits(metric.canary)),
            Cell::new(hits(metric.baseline)),
            Cell::new(percent(metric.tolerated_ppm)),
            Cell::new(odds(metric.worse_milli)),
            Cell::new(odds(metric.not_worse_milli)),
            accepted,
        ]
    };
    std::iter::once(head).chain(evidence.metrics.iter().map(row)).collect()
}
