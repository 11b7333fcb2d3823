//! Invariant 19: what is answered about a moment in an outage is what the router truly served then, though the ledger heard
//! of it later.

use std::sync::Arc;

use bytes::Bytes;
use ledger::log::memory::MemoryLog;
use ledger::view::Folded;
use replay::{Moment, Reader};
use schemas::{DeploymentId, Event, StackId, Timestamp, Weight, Weights, traffic};

use crate::checks::Checks;
use crate::network::Kept;
use crate::reference_model;
use crate::rules::Rules;
use crate::world::{Ms, time_at};

/// How many outages of a run are asked about: every answer is a fold of all of the log.
const ASKED_MAX: usize = 3;

/// A rollback without the ledger that was recorded later than it took effect.
pub struct Outage {
    deployment: DeploymentId,
    to: StackId,
    /// When it took effect, as its commit says.
    from: Timestamp,
    /// The ledger's time where it was recorded.
    until: Timestamp,
    /// When it truly was.
    landed: Ms,
}

impl Checks {
    /// A commit counts: it may tell of an outage.
    pub(super) fn hear_of_outage(&mut self, folded: &Folded, now: Ms) {
        let Some(commit) = &folded.commit else { return };
        let Some(from) = commit.took_effect().filter(|from| *from < folded.time) else { return };
        for (stream, event) in commit.events.iter().flat_map(|read| &read.event) {
            if let (Event::Traffic(traffic::Event::GlassBroken(broken)), Some(deployment)) =
                (event, reference_model::deployment_of(&stream.to_string()))
            {
                self.outages.push(Outage { deployment, to: broken.to, from, until: folded.time, landed: now });
            }
        }
    }

    /// 19: as long as the router served the rollback and the ledger did not know, the answer about then is the rollback.
    pub fn past(&mut self, log: &Kept, rules: &Rules) {
        let records = log.read();
        let asked =
            self.outages.iter().map(|outage| (outage.deployment.clone(), outage.to, self.served_within(outage)));
        let asked: Vec<_> = asked.filter(|(.., moments)| !moments.is_empty()).take(ASKED_MAX).collect();
        for (id, to, moments) in asked {
            for moment in moments {
                let said = (rules.set_at)(&records, &id, moment);
                self.asked_about_past += 1;
                self.must(19, said.as_ref().and_then(Weights::sole) == Some(to), || {
                    format!("{id} served {to} alone at {moment}, and the answer is {said:?}")
                });
            }
        }
    }

    /// The first and the last moment of an outage in which the router truly served what it was told without the ledger.
    fn served_within(&self, outage: &Outage) -> Vec<Timestamp> {
        let (from, until) = (ms_of(outage.from), ms_of(outage.until).min(outage.landed));
        let served = self.served.get(&outage.deployment).map(Vec::as_slice).unwrap_or_default();
        let changes = served.iter().map(|(at, _)| *at);
        let moments: Vec<Ms> = std::iter::once(from).chain(changes).chain(until.checked_sub(1)).collect();
        let within = moments.into_iter().filter(|at| (from..until).contains(at));
        let true_: Vec<Ms> = within.filter(|at| self.served_at(&outage.deployment, *at) == Some(outage.to)).collect();
        let ends = [true_.first(), true_.last().filter(|_| true_.len() > 1)];
        ends.into_iter().flatten().map(|at| time_at(*at).max(outage.from)).collect()
    }

    /// Says whether the router gave all traffic to a stack at some time since `begun`.
    pub(super) fn served_since(&self, id: &DeploymentId, stack: StackId, begun: Ms, now: Ms) -> bool {
        let served = self.served.get(id).map(Vec::as_slice).unwrap_or_default();
        let changes = served.iter().map(|(at, _)| *at).filter(|at| (begun..=now).contains(at));
        std::iter::once(begun).chain(changes).any(|at| self.served_at(id, at) == Some(stack))
    }

    /// The stack that the router gave all traffic to, if one had it.
    fn served_at(&self, id: &DeploymentId, at: Ms) -> Option<StackId> {
        let served = self.served.get(id)?;
        let (_, weights) = &served[served.partition_point(|(since, _)| *since <= at).checked_sub(1)?];
        weights.iter().find(|(_, weight)| **weight == Weight::FULL).map(|(stack, _)| *stack)
    }
}

fn ms_of(time: Timestamp) -> Ms {
    Ms::try_from(time.duration_since(time_at(0)).as_millis()).unwrap_or(0)
}

/// Returns the weights that were set at a moment, as the product answers.
pub fn set_at(records: &[Bytes], id: &DeploymentId, moment: Timestamp) -> Option<Weights> {
    let log = MemoryLog::default();
    for bytes in records {
        log.push(bytes.clone());
    }
    let reader = Reader::from_genesis(Arc::new(log));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let seen = runtime.block_on(reader.state_at(Moment::Time(moment))).expect("the log can be read");
    seen.state.deployment(id)?.traffic.set.as_ref().map(|set| set.weights.clone())
}
