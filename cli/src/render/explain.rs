//! Explanations for eyes and pipes.

use jiff::Zoned;
use ledger::judgement::analysis::{hits, odds, percent};
use replay::answer::{
    EvidenceStatus, Explanation, HistoryAnswer, HistoryEntry, MeasuredStatus, RolloutMeasured, RolloutStatus,
};
use schemas::judgement::{Evidence, MetricEvidence};

use super::Render;
use super::table::{self, Cell};
use super::words::{BAD, GOOD, WARN, faint, grouped, milliseconds, strong, style_of};
use super::{history, rollout};

impl Render for Explanation {
    fn eyes(&self, now: &Zoned, _: usize) -> String {
        eyes(self, now)
    }

    fn lines(&self) -> String {
        lines(self)
    }
}

/// Returns an explanation for eyes: how the rollout stands, what it rests on, and what happened.
fn eyes(explanation: &Explanation, now: &Zoned) -> String {
    let mut text = String::new();
    if let (Some(deployment), None) = (&explanation.deployment, &explanation.rollout) {
        return format!("{deployment} has had no rollout; start one with `ionledger roll`\n");
    }
    if let (Some(deployment), Some(rollout)) = (&explanation.deployment, &explanation.rollout) {
        text.push_str(&format!("{deployment}  {}\n", rollout::in_words(rollout)));
        if let Some(held) = rollout.held.as_ref().filter(|_| rollout.live) {
            text.push_str(&format!("  holds: {held}\n"));
        }
        if let Some(evidence) = &rollout.evidence {
            text.push_str(&evidence_in_full(evidence, rollout));
        }
        text.push('\n');
    }
    text + &history::eyes(&without_told(as_history(explanation), explanation.rollout.as_ref()), now)
}

/// The verdict, what it rests on in odds, and below that the counts. Where there are none, the judge's own sentence has them.
fn evidence_in_full(status: &EvidenceStatus, rollout: &RolloutStatus) -> String {
    let said = match status.evidence.metrics.is_empty() {
        true => status.reason.clone(),
        false => rollout::said(status.verdict),
    };
    let held = rollout.held.as_deref().filter(|_| rollout.live);
    let remarks = remarks(status, held, rollout.live);
    let mut text: String = std::iter::once(said).chain(remarks).map(|line| format!("  {line}\n")).collect();
    let table = table::lines(&metrics(&status.evidence, rollout.measured.as_ref()));
    text.push('\n');
    text.extend(table.into_iter().map(|line| format!("  {line}\n")));
    text
}

/// History below a rollout: why that is held, and what it rests on, stands above already.
fn without_told(mut history: HistoryAnswer, rollout: Option<&RolloutStatus>) -> HistoryAnswer {
    let Some(rollout) = rollout else { return history };
    let held = rollout.held.as_deref().filter(|_| rollout.live);
    let judged = rollout.evidence.as_ref().filter(|known| !known.evidence.metrics.is_empty());
    let judged = judged.map(|known| known.reason.as_str());
    for event in history.entries.iter_mut().flat_map(|entry| &mut entry.events) {
        let told = [held, judged].into_iter().flatten();
        let short = told.filter_map(|told| event.summary.strip_suffix(told)?.strip_suffix(": ")).next();
        if let Some(short) = short.map(str::to_owned) {
            event.summary = short;
        }
    }
    history
}

/// Returns what happened as lines, as history has them.
fn lines(explanation: &Explanation) -> String {
    history::lines(&as_history(explanation))
}

fn as_history(explanation: &Explanation) -> HistoryAnswer {
    let entries: Vec<HistoryEntry> = explanation.entries.clone();
    let (service, environment) = (None, None);
    HistoryAnswer {
        schema_version: explanation.schema_version,
        service,
        environment,
        entries,
        more: false,
        unrecorded: vec![],
    }
}

/// What the evidence comes to, in a few lines; of a rollout that goes on also what is missing. What `held`, the reason that is
/// shown above, says already is left out.
pub(super) fn remarks(status: &EvidenceStatus, held: Option<&str>, live: bool) -> Vec<String> {
    let evidence = &status.evidence;
    let is_told = |what: &str| held.is_some_and(|held| held.starts_with(what));
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
        _ if !live => None,
        Some(0) => None,
        // Before that it is only what a service is taken to be like.
        _ if unseen(evidence) => {
            Some("how many requests it takes to accept it can be told once both versions had some".to_owned())
        }
        Some(requests) => Some(format!("about {} more requests of it until it is accepted", grouped(requests))),
        None => Some("how many more requests it takes to accept it cannot be told yet".to_owned()),
    };
    remarks.extend([missing, excluded].into_iter().flatten());
    if evidence.in_incident && !is_told(INCIDENT) {
        remarks.push(format!("{WARN} {INCIDENT}; nothing speaks for the canary meanwhile"));
    }
    if evidence.routing_broken && !is_told(ROUTING) {
        remarks.push(format!("{BAD} {ROUTING}; that is not the version's doing"));
    }
    if !evidence.bad_nodes.is_empty() {
        let places: Vec<String> = status.bad_places.iter().map(|place| format!("node {place}")).collect();
        let nodes: Vec<String> = evidence.bad_nodes.iter().map(ToString::to_string).collect();
        let named = if places.is_empty() { nodes.join(", ") } else { places.join(", ") };
        remarks.push(format!("{BAD} {named} of the canary alone is bad; the version without it is not known to be"));
    }
    remarks
}

/// How the reasons begin for which a rollout is held, where the evidence says the same (`ledger::deployment::step`).
const INCIDENT: &str = "the baseline itself is in an incident";
const ROUTING: &str = "the router does not share requests out as the weights say";

/// Says whether one of the two versions has had no request yet.
fn unseen(evidence: &Evidence) -> bool {
    let requests = |of: fn(&MetricEvidence) -> u64| evidence.metrics.iter().map(of).max();
    requests(|metric| metric.canary.requests) == Some(0) || requests(|metric| metric.baseline.requests) == Some(0)
}

/// How many to 1 are needed.
fn needed(milli: i64) -> String {
    odds(milli + 1).trim_end_matches(" to 1").to_owned()
}

fn metrics(evidence: &Evidence, measured: Option<&RolloutMeasured>) -> Vec<Vec<Cell>> {
    let head = ["metric", "canary", "baseline", "tolerance", "worse", "not worse", ""];
    let head = head.map(|name| Cell::styled(name, faint())).to_vec();
    let row = |metric: &MetricEvidence| {
        let accepted =
            if metric.accepted { Cell::styled(format!("{GOOD} accepted"), style_of(GOOD)) } else { Cell::new("") };
        vec![
            Cell::styled(&metric.name, strong()),
            Cell::new(with_ms(metric, hits(metric.canary), measured.map(|both| &both.canary))),
            Cell::new(with_ms(metric, hits(metric.baseline), measured.map(|both| &both.baseline))),
            Cell::new(tolerance(metric)),
            Cell::new(odds(metric.worse_milli)),
            Cell::new(odds(metric.not_worse_milli)),
            accepted,
        ]
    };
    std::iter::once(head).chain(evidence.metrics.iter().map(row)).collect()
}

/// What is tolerated, once both versions had a request: before that it is only what services usually do.
fn tolerance(metric: &MetricEvidence) -> String {
    match metric.canary.requests.min(metric.baseline.requests) {
        0 => "nothing yet".to_owned(),
        _ => percent(metric.tolerated_ppm),
    }
}

/// What was counted of a metric, after what was measured of it in milliseconds: `212 ms, 3 of 500 slow`.
fn with_ms(metric: &MetricEvidence, counted: String, measured: Option<&MeasuredStatus>) -> String {
    let ms = measured.and_then(|measured| match metric.name.as_str() {
        "p50" => measured.p50_ms,
        "p99" => measured.p99_ms,
        _ => None,
    });
    ms.map_or(counted.clone(), |ms| format!("{}, {counted} slow", milliseconds(ms)))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use serde_json::json;

    use super::super::examples::bare;
    use super::super::status;
    use super::*;

    fn evidence(change: impl FnOnce(&mut serde_json::Value)) -> EvidenceStatus {
        let node = "5b8e2c1a-6d3f-5e7a-9b40-1c2d3e4f5a6b";
        let mut evidence = json!({
            "verdict": "inconclusive", "reason": "inconclusive: ...", "ticks": 50,
            "baseline": {"requests": 4500, "errors": 5}, "canary": {"requests": 500, "errors": 2},
            "worse_milli": 1200, "worse_needed_milli": 4605, "not_worse_milli": 700, "not_worse_needed_milli": 2995,
            "requests_still_needed": 31000, "excluded_ppm": 30000, "bad_nodes": [], "bad_places": [],
            "metrics": [
                {"name": "errors", "baseline": [4500, 5, 5], "canary": [500, 2, 0], "tolerated_ppm": 1500,
                 "worse_milli": 1893, "not_worse_milli": 700, "accepted": false},
                {"name": "p99", "baseline": [4500, 44, 30], "canary": [500, 3, 0], "tolerated_ppm": 9800,
                 "worse_milli": -690, "not_worse_milli": 3100, "accepted": true}
            ]
        });
        evidence["bad_nodes"] = json!([node]);
        change(&mut evidence);
        serde_json::from_value(evidence).unwrap()
    }

    #[test]
    fn the_evidence_says_what_is_known_what_is_missing_and_which_node_is_bad() {
        let shown = |change: fn(&mut serde_json::Value)| remarks(&evidence(change), None, true).join("\n");
        assert_snapshot!(shown(|evidence| evidence["bad_places"] = json!([3])), @r"
evidence 3.3 to 1 that it is worse, 100 needed; 2.0 to 1 that it is not, 20 needed of every metric
about 31,000 more requests of it until it is accepted
that it fails 3 % more of its requests is excluded
✖ node 3 of the canary alone is bad; the version without it is not known to be
");
        assert_snapshot!(shown(|evidence| {
            evidence["bad_nodes"] = json!([]);
            evidence["requests_still_needed"] = json!(0);
            evidence["excluded_ppm"] = json!(null);
            evidence["in_incident"] = json!(true);
            evidence["routing_broken"] = json!(true);
        }), @r"
evidence 3.3 to 1 that it is worse, 100 needed; 2.0 to 1 that it is not, 20 needed of every metric
⚠ the baseline itself is in an incident; nothing speaks for the canary meanwhile
✖ the router does not share requests out as the weights say; that is not the version's doing
");
        let measured = |p99| json!({"seconds": 40.0, "requests": 500, "requests_per_second": 12.5, "errors": 2, "p50_ms": 9.5, "p99_ms": p99});
        let both: RolloutMeasured =
            serde_json::from_value(json!({"baseline": measured(180.2), "canary": measured(212.4)})).unwrap();
        let known = bare(&table::lines(&metrics(&evidence(|_| ()).evidence, Some(&both))).join("\n"));
        assert!(known.contains("p99     212 ms, 3 of 500 slow  180 ms, 44 of 4,500 slow"), "{known}");
        let unseen = remarks(
            &evidence(|evidence| {
                evidence["metrics"].as_array_mut().unwrap().iter_mut().for_each(|one| one["canary"] = json!([0, 0, 0]));
            }),
            None,
            true,
        );
        assert!(unseen[1].starts_with("how many requests it takes to accept it can be told once"), "{unseen:?}");
        let none_yet = evidence(|evidence| {
            evidence["metrics"].as_array_mut().unwrap().iter_mut().for_each(|one| one["canary"] = json!([0, 0, 0]));
        });
        let known = bare(&table::lines(&metrics(&none_yet.evidence, None)).join("\n"));
        assert_eq!((known.matches("nothing yet").count(), known.contains("0.15 %")), (2, false), "{known}");
        let ended = remarks(&evidence(|_| ()), None, false).join("\n");
        assert!(!ended.contains("more requests of it until it is accepted"), "{ended}");
        let table = table::lines(&metrics(&evidence(|_| ()).evidence, None)).join("\n");
        assert_snapshot!(bare(&table), @r"
metric  canary    baseline     tolerance  worse     not worse
errors  2 of 500  5 of 4,500   0.15 %     6.6 to 1  2.0 to 1
p99     3 of 500  44 of 4,500  0.98 %     0.5 to 1  22 to 1    ✔ accepted
");
    }

    #[test]
    fn why_a_rollout_is_held_and_what_it_rests_on_is_said_once() {
        let held = "the baseline itself has an incident; nothing can be learned about the canary until it is over";
        let judged =
            "inconclusive: canary 1.2.4: 2 of 500 requests failed, baseline 5 of 4,500; evidence 6.6 to 1, 100 needed";
        let mut status = super::super::examples::status(|deployment| {
            deployment["rollout"]["held"] = json!(held);
            deployment["rollout"]["evidence"] = serde_json::to_value(evidence(|evidence| {
                evidence["reason"] = json!(judged);
                evidence["in_incident"] = json!(true);
            }))
            .unwrap();
        });
        let now = super::super::examples::now();
        let shown = bare(&status::eyes(&status, &now));
        assert_eq!(shown.matches("is in an incident").count(), 1, "{shown}");
        let rollout = status.services[0].deployments.remove(0).rollout;
        let event = |offset: u64, kind: &str, summary: &str| {
            json!({"offset": offset, "time": "2026-11-22T13:25:00Z", "written_at": null, "effective_at": null,
                "commit": null, "command": null, "actor": null, "on_behalf_of": null, "reason": null, "void": null,
                "events": [{"stream": "deployment/production/api", "version": 1, "type": kind, "summary": summary,
                    "data": {}}]})
        };
        let explanation = json!({"schema_version": 1, "at": null, "deployment": "production/api", "rollout": rollout,
            "entries": [event(7, "judgement.judged", &format!("1.2.4 could not be judged at step 3: {judged}")),
                event(8, "rollout.held", &format!("the rollout 1.2.3 -> 1.2.4 stays at step 3: {held}"))]});
        let shown = bare(&eyes(&serde_json::from_value(explanation).unwrap(), &now));
        assert_eq!(shown.matches("is in an incident").count(), 1, "{shown}");
        assert_eq!(shown.matches("100 needed").count(), 1, "{shown}");
        assert_eq!(shown.matches("2 of 500").count(), 1, "{shown}");
        assert!(shown.contains("  ? inconclusive\n"), "{shown}");
        assert!(shown.contains("1.2.4 could not be judged at step 3\n"), "{shown}");
    }
}
