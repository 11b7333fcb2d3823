//! Broken rules: for each invariant a rule that is wrong in one place, to show that the checks find it. They are
//! values that a test passes in; the product has no switch for them.

use bytes::Bytes;
use ledger::View;
use ledger::decision::{Now, Told};
use ledger::deployment::traffic::Drift;
use ledger::deployment::{Phase, generation, retention};
use ledger::execute::{Asked, Prepared, Refusal, What, prepare};
use ledger::state::State;
use ledger::view::Decoded;
use schemas::outcome::{self, DeploymentOutcome as O, Outcome};
use schemas::{Actor, ActorKind, DeploymentId, Offset, Role, Stream, Timestamp, Weight, Weights};
use workers::effect::{Effect, Reaction};
use workers::facts::Facts;
use workers::traffic::Entry;
use workers::traffic::routes::Admission;
use workers::{collector, reactor};

use crate::rules::{REAL, React, Rules, each_deployment, each_service};
use crate::run::run;

/// Within how many seeds a broken rule must be found.
const SEEDS_MAX: u64 = 400;

/// Runs seeds until one finds that `invariant` does not hold.
fn find(invariant: u8, rules: Rules) {
    find_from(0, invariant, rules);
}

/// As [`find`], from the seed `first` on: what shows the fault is rare, and seeds before it would take a minute.
fn find_from(first: u64, invariant: u8, rules: Rules) {
    let mut others = Vec::new();
    for seed in first..first + SEEDS_MAX {
        match run(seed, rules).broken {
            Some(broken) if broken.invariant == invariant => {
                return println!("invariant {invariant}, seed {seed}: {}", broken.what);
            }
            Some(other) => others.push(format!("seed {seed}, invariant {}: {}", other.invariant, other.what)),
            None => {}
        }
    }
    panic!("{SEEDS_MAX} seeds did not find it; they found {others:#?}");
}

type Prepare = Result<Prepared, Refusal>;

/// Prepares on a state that is not so.
fn on_another_state(view: &View, asked: &Asked, now: Now, rollback: bool, change: fn(&mut State)) -> Prepare {
    let mut state = view.state().clone();
    change(&mut state);
    let view = View::resume(view.ruler().clone(), state, view.read_only().clone(), view.voids());
    prepare(&view, asked, now, rollback)
}

#[test]
fn a_log_that_forgets_what_it_acknowledged_is_found() {
    // Its last record was not synced when it was acknowledged.
    find(1, Rules { survive: |records| records - usize::from(records > 50), ..REAL });
}

#[test]
fn a_log_that_changes_what_it_kept_is_found() {
    fn keep(offset: Offset, bytes: Bytes) -> Bytes {
        let text = String::from_utf8_lossy(&bytes);
        if offset.0 > 100 && offset.0 % 50 == 7 { Bytes::from(text.replace("unix-peer", "unix-pear")) } else { bytes }
    }
    find(2, Rules { keep, ..REAL });
}

#[test]
fn a_reader_that_folds_what_is_void_is_found() {
    find(
        2,
        Rules {
            fold: |view, offset, bytes| {
                let before = view.clone();
                let folded = view.fold(offset, bytes)?;
                if folded.void != Some(ledger::rule::Void::Stale) {
                    return Ok(folded);
                }
                // It takes the stale commit for a good one: as if it stood on the present heads.
                let anew = restack(&before, bytes);
                *view = before;
                view.fold(offset, &anew)
            },
            ..REAL
        },
    );
}

fn restack(view: &View, bytes: &Bytes) -> Bytes {
    let mut commit: serde_json::Value = serde_json::from_slice(bytes).expect("a commit");
    for heads in ["extends", "requires"] {
        for head in commit[heads].as_array_mut().expect("heads") {
            let found = view.ruler().head(head["stream"].as_str().expect("a stream"));
            head["version"] = serde_json::json!(found.version);
            head["hash"] = serde_json::json!(found.hash);
        }
    }
    serde_json::to_vec(&commit).expect("plain JSON").into()
}

#[test]
fn traffic_on_stacks_that_are_not_ready_is_found() {
    fn all_ready(state: &mut State) {
        each_deployment(state, |_, deployment| {
            for stack in deployment.stacks.values_mut() {
                if stack.phase == Phase::Starting && stack.nodes.values().any(|node| node.address().is_some()) {
                    stack.phase = Phase::Ready;
                }
            }
        });
    }
    fn for_people(view: &View, asked: &Asked, now: Now, rollback: bool) -> Prepare {
        match asked.what {
            What::Command { .. } => on_another_state(view, asked, now, rollback, all_ready),
            What::Outcome { .. } | What::BreakGlass { .. } => prepare(view, asked, now, rollback),
        }
    }
    find(3, Rules { prepare: for_people, ..REAL });
}

#[test]
fn a_collector_that_asks_nobody_is_found() {
    fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
        let mut reaction = reactor::react(Role::Collector, state, facts, now);
        for deployment in state.deployments.values() {
            let unset = deployment.stacks.iter().filter(|(id, stack)| {
                stack.phase == Phase::Ready && deployment.traffic.set_weight(**id) == Weight::ZERO
            });
            for node in unset.flat_map(|(_, stack)| stack.nodes.values()) {
                reaction.effects.push(Effect::Stop { node: node.effect, grace: collector::STOP_GRACE });
            }
        }
        reaction
    }
    find(4, Rules { react: |role| (role == Role::Collector).then_some(react as React), ..REAL });
}

#[test]
fn a_collector_that_does_not_care_whether_it_lags_is_found() {
    fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
        let mut facts = facts.clone();
        // Every look counts, however old the state is that it is compared with.
        if let Some(nodes) = facts.nodes.clone() {
            let owned = |effect| state.deployments.values().any(|deployment| deployment.node(effect).is_some());
            for effect in nodes.keys().copied().filter(|effect| !owned(*effect)) {
                let looks = workers::facts::Looks { count: 9, since: std::time::Duration::ZERO };
                facts.unowned.insert(effect, looks);
            }
        }
        reactor::react(Role::Collector, state, &facts, now)
    }
    find(4, Rules { react: |role| (role == Role::Collector).then_some(react as React), ..REAL });
}

#[test]
fn a_collector_that_believes_the_clock_at_once_is_found() {
    fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
        let mut reaction = reactor::react(Role::Collector, state, facts, now);
        for (id, deployment) in &state.deployments {
            let Some(definition) = state.service(&id.service).and_then(|of| of.definition.as_ref()) else { continue };
            for stack in deployment.stacks.keys() {
                let due = retention::due(deployment, *stack, &definition.policy.retention);
                if let Some((_, reason)) = due.filter(|(at, reason)| *reason == retention::BY_AGE && *at <= now) {
                    reaction.record(
                        id,
                        O::StartCollection(outcome::StartCollection { stack: *stack, reason: reason.to_owned() }),
                    );
                }
            }
        }
        reaction
    }
    find(4, Rules { react: |role| (role == Role::Collector).then_some(react as React), ..REAL });
}

#[test]
fn more_versions_than_the_policy_allows_are_found() {
    fn any_number(state: &mut State) {
        each_service(state, |service| {
            if let Some(definition) = &mut service.definition {
                definition.policy.retention.serving_max = 100;
            }
        });
    }
    find(5, Rules { prepare: |v, a, n, r| on_another_state(v, a, n, r, any_number), ..REAL });
}

#[test]
fn a_launch_under_another_effect_id_is_found() {
    fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
        let mut reaction = reactor::react(Role::Provisioner, state, facts, now);
        for effect in &mut reaction.effects {
            // A repeated launch is another launch.
            if let Effect::Launch(launch) = effect
                && facts.launches.contains_key(&launch.effect)
                && let Some(ledger) = state.ledger
            {
                launch.effect = schemas::EffectId::of_launch(ledger, launch.stack, launch.slot, launch.attempt + 100);
            }
        }
        reaction
    }
    find(6, Rules { react: |role| (role == Role::Provisioner).then_some(react as React), ..REAL });
}

#[test]
fn nodes_that_nobody_sweeps_up_are_found() {
    fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
        let facts = Facts { unowned: Default::default(), ..facts.clone() };
        reactor::react(Role::Collector, state, &facts, now)
    }
    find(6, Rules { react: |role| (role == Role::Collector).then_some(react as React), ..REAL });
}

#[test]
fn a_router_that_takes_late_calls_is_found() {
    find(7, Rules { admit: |_, _| Ok(Admission::Apply), ..REAL });
}

#[test]
fn a_command_that_outlives_a_rollback_is_found() {
    fn without_fence(view: &View, asked: &Asked, now: Now, rollback: bool) -> Prepare {
        let mut asked = asked.clone();
        if let What::Command { fence, .. } = &mut asked.what {
            *fence = None;
        }
        prepare(view, &asked, now, rollback)
    }
    find(7, Rules { prepare: without_fence, ..REAL });
}

#[test]
fn a_rollback_that_asks_no_node_is_found() {
    fn blind(view: &View, asked: &Asked, now: Now, rollback: bool) -> Prepare {
        let mut asked = asked.clone();
        if let What::Command { probed, .. }
        | What::Outcome {
            outcome:
                Outcome::Deployment(outcome::DeploymentReport {
                    outcome: O::SendBack(outcome::SendBack { probed, .. }),
                    ..
                }),
            ..
        } = &mut asked.what
        {
            *probed = Default::default();
        }
        prepare(view, &asked, now, rollback)
    }
    find(18, Rules { prepare: blind, ..REAL });
}

#[test]
fn a_promotion_without_data_is_found() {
    fn no_minimum(state: &mut State) {
        each_deployment(state, |_, deployment| {
            if let Some(rollout) = &mut deployment.rollout {
                rollout.policy.judgement.requests_min = 0;
            }
        });
    }
    fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
        let mut state = state.clone();
        no_minimum(&mut state);
        reactor::react(Role::TrafficShifter, &state, facts, now)
    }
    find(
        8,
        Rules {
            react: |role| (role == Role::TrafficShifter).then_some(react as React),
            prepare: |v, a, n, r| on_another_state(v, a, n, r, no_minimum),
            ..REAL
        },
    );
}

#[test]
fn overdue_steps_that_are_made_up_for_are_found() {
    /// Every step is due as long after the start as the plan has it, whenever the ones before it were taken.
    fn from_the_start(state: &mut State) {
        each_deployment(state, |_, deployment| {
            let Some(rollout) = &mut deployment.rollout else { return };
            let (start, plan) = (rollout.started_at, rollout.plan.clone());
            if let Some(step) = &mut rollout.step {
                let due = std::time::Duration::from_millis(plan.due_ms(step.number));
                step.at = step.at.min(start + due);
            }
        });
    }
    fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
        let mut state = state.clone();
        from_the_start(&mut state);
        reactor::react(Role::TrafficShifter, &state, facts, now)
    }
    find(
        17,
        Rules {
            react: |role| (role == Role::TrafficShifter).then_some(react as React),
            prepare: |v, a, n, r| on_another_state(v, a, n, r, from_the_start),
            ..REAL
        },
    );
}

#[test]
fn a_bake_that_is_not_waited_for_is_found() {
    fn no_bake(state: &mut State) {
        each_deployment(state, |_, deployment| {
            if let Some(rollout) = deployment.rollout.as_mut().filter(|rollout| rollout.is_baking()) {
                rollout.plan.bake_ms = 0;
            }
        });
    }
    fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
        let mut state = state.clone();
        no_bake(&mut state);
        reactor::react(Role::TrafficShifter, &state, facts, now)
    }
    find(
        17,
        Rules {
            react: |role| (role == Role::TrafficShifter).then_some(react as React),
            prepare: |v, a, n, r| on_another_state(v, a, n, r, no_bake),
            ..REAL
        },
    );
}

#[test]
fn requests_that_never_were_are_found() {
    fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
        let mut reaction = reactor::react(Role::TrafficShifter, state, facts, now);
        for outcome in &mut reaction.outcomes {
            let Outcome::Deployment(outcome::DeploymentReport {
                deployment: id,
                outcome: O::TakeStep(outcome::TakeStep { counted: Some(counted), judged, .. }),
            }) = outcome
            else {
                continue;
            };
            let nodes = counted.ticks.iter_mut().flat_map(|tick| tick.canary.iter_mut().chain(&mut tick.baseline));
            nodes.flat_map(|node| &mut node.counts).for_each(|tally| tally.requests *= 100);
            let (Some(deployment), Some(judgements)) = (state.deployment(id), state.judgements.get(id)) else {
                continue;
            };
            let analysis = judgements.of(counted.rollout).cloned();
            if let (Some(mut analysis), Some(rollout)) = (analysis, &deployment.rollout) {
                analysis.take(counted);
                *judged = ledger::deployment::step::judged_of(deployment, rollout, &analysis);
            }
        }
        reaction
    }
    find(8, Rules { react: |role| (role == Role::TrafficShifter).then_some(react as React), ..REAL });
}

#[test]
fn a_rollout_that_waits_without_a_word_is_found() {
    fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
        let mut reaction = reactor::react(Role::TrafficShifter, state, facts, now);
        reaction.outcomes.retain(|outcome| {
            !matches!(
                outcome,
                Outcome::Deployment(outcome::DeploymentReport { outcome: O::Hold(_) | O::TakeStep(_), .. })
            )
        });
        reaction
    }
    find(9, Rules { react: |role| (role == Role::TrafficShifter).then_some(react as React), ..REAL });
}

#[test]
fn a_stack_that_never_fails_is_found() {
    fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
        let mut reaction = reactor::react(Role::Provisioner, state, facts, now);
        reaction.outcomes.retain(|outcome| {
            !matches!(outcome, Outcome::Deployment(outcome::DeploymentReport { outcome: O::StackFailed(_), .. }))
        });
        reaction
    }
    find(9, Rules { react: |role| (role == Role::Provisioner).then_some(react as React), ..REAL });
}

#[test]
fn a_deposed_worker_whose_commits_count_is_found() {
    fn without_lease(view: &View, asked: &Asked, now: Now, rollback: bool) -> Prepare {
        let mut prepared = prepare(view, asked, now, rollback)?;
        if let Prepared::Commit(draft, _) = &mut prepared {
            draft.requires.retain(|head| !matches!(head.stream, Stream::Worker(_)));
        }
        Ok(prepared)
    }
    find(10, Rules { prepare: without_lease, ..REAL });
}

#[test]
fn a_release_that_changes_is_found() {
    fn forget(state: &mut State) {
        each_service(state, |service| service.releases.clear());
    }
    fn prepare_release(view: &View, asked: &Asked, now: Now, rollback: bool) -> Prepare {
        let release = matches!(&asked.what, What::Command { command: schemas::command::Command::Release(_), .. });
        if release { on_another_state(view, asked, now, rollback, forget) } else { prepare(view, asked, now, rollback) }
    }
    find(11, Rules { prepare: prepare_release, ..REAL });
}

#[test]
fn a_commit_under_another_name_is_found() {
    fn as_system(view: &View, asked: &Asked, now: Now, rollback: bool) -> Prepare {
        let mut asked = asked.clone();
        if asked.about.actor.kind == ActorKind::Pipeline {
            asked.about.actor = Actor { kind: ActorKind::System, name: "ci".to_owned(), proof: "none".to_owned() };
        }
        prepare(view, &asked, now, rollback)
    }
    find(12, Rules { prepare: as_system, ..REAL });
}

#[test]
fn a_commit_without_a_cause_is_found() {
    fn without_cause(view: &View, asked: &Asked, now: Now, rollback: bool) -> Prepare {
        let mut asked = asked.clone();
        asked.about.cause = None;
        prepare(view, &asked, now, rollback)
    }
    find(12, Rules { prepare: without_cause, ..REAL });
}

#[test]
fn a_reader_that_skips_what_it_does_not_know_is_found() {
    find(
        13,
        Rules {
            fold: |view, offset, bytes| {
                let folded = view.fold(offset, bytes)?;
                *view = View::resume(view.ruler().clone(), view.state().clone(), Default::default(), view.voids());
                Ok(folded)
            },
            ..REAL
        },
    );
}

#[test]
fn a_shifter_that_cuts_users_off_is_found() {
    fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
        let mut reaction = reactor::react(Role::TrafficShifter, state, facts, now);
        for effect in &mut reaction.effects {
            // It makes room before it changes anything.
            if let Effect::Route(routes) = effect
                && routes.weights.len() > 1
            {
                let (deployment, generation) = (routes.deployment.clone(), routes.generation);
                *effect = Effect::Unroute { deployment, generation };
            }
        }
        reaction
    }
    find(15, Rules { react: |role| (role == Role::TrafficShifter).then_some(react as React), ..REAL });
}

#[test]
fn a_shifter_that_undoes_a_rollback_without_the_ledger_is_found() {
    /// It takes what it sees for drift that it may correct, above whatever the router holds.
    fn corrects(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
        let mut state = state.clone();
        each_deployment(&mut state, |id, deployment| {
            let Some(Some(Entry::Routed(held))) = facts.routers.get(id) else { return };
            let emergency_count = generation::emergency_count(held.routes.generation);
            if emergency_count > deployment.emergency_count {
                deployment.emergency_count = emergency_count + 1;
                let seen = held.routes.weights.iter().collect();
                deployment.traffic.drift = Some(Drift { seen, towards_target: false, at: now });
            }
        });
        reactor::react(Role::TrafficShifter, &state, facts, now)
    }
    find(7, Rules { react: |role| (role == Role::TrafficShifter).then_some(corrects as React), ..REAL });
}

#[test]
fn a_change_of_a_fact_that_is_not_noticed_is_found() {
    find(20, Rules { notice: |touched| touched.deployments.clear(), ..REAL });
}

#[test]
fn a_change_of_a_nodes_facts_that_is_not_noticed_is_found() {
    find(20, Rules { notice: |touched| touched.effects.clear(), ..REAL });
}

#[test]
fn a_rollout_that_goes_back_by_itself_is_found() {
    /// No release is known to be older than another.
    fn without_order(state: &mut State) {
        each_service(state, |service| {
            for release in service.releases.values_mut() {
                release.place = Default::default();
            }
        });
    }
    fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
        let mut state = state.clone();
        without_order(&mut state);
        reactor::react(Role::TrafficShifter, &state, facts, now)
    }
    find(
        16,
        Rules {
            react: |role| (role == Role::TrafficShifter).then_some(react as React),
            prepare: |v, a, n, r| on_another_state(v, a, n, r, without_order),
            ..REAL
        },
    );
}

#[test]
fn a_rollout_that_begins_on_hold_is_found() {
    fn without_holds(state: &mut State) {
        each_deployment(state, |_, deployment| deployment.holds.clear());
    }
    fn react(state: &State, facts: &Facts, now: Timestamp) -> Reaction {
        let mut state = state.clone();
        without_holds(&mut state);
        reactor::react(Role::TrafficShifter, &state, facts, now)
    }
    find(
        16,
        Rules {
            react: |role| (role == Role::TrafficShifter).then_some(react as React),
            prepare: |v, a, n, r| on_another_state(v, a, n, r, without_holds),
            ..REAL
        },
    );
}

#[test]
fn a_rollback_without_the_ledger_that_is_recorded_by_who_found_its_file_is_found() {
    fn prepare_as_finder(view: &View, asked: &Asked, now: Now, rollback: bool) -> Prepare {
        let mut asked = asked.clone();
        if let What::BreakGlass { .. } = asked.what {
            asked.about.actor =
                Actor { kind: ActorKind::System, name: "ionledger".to_owned(), proof: "found it".to_owned() };
        }
        prepare(view, &asked, now, rollback)
    }
    find(12, Rules { prepare: prepare_as_finder, ..REAL });
}

#[test]
fn a_rollback_without_the_ledger_that_counts_from_when_it_was_asked_for_whether_or_not_users_were_moved_is_found() {
    fn prepare_as_moved(view: &View, asked: &Asked, now: Now, rollback: bool) -> Prepare {
        let mut asked = asked.clone();
        if let What::BreakGlass { intent, .. } = &asked.what {
            asked.about.effective_at = Some(intent.at);
        }
        prepare(view, &asked, now, rollback)
    }
    find_from(195, 19, Rules { prepare: prepare_as_moved, ..REAL });
}

#[test]
fn a_rollback_without_the_ledger_that_is_never_recorded_is_found() {
    fn prepare_nothing(view: &View, asked: &Asked, now: Now, rollback: bool) -> Prepare {
        match asked.what {
            What::BreakGlass { .. } => Ok(Prepared::Nothing(Told::default())),
            What::Command { .. } | What::Outcome { .. } => prepare(view, asked, now, rollback),
        }
    }
    find(9, Rules { prepare: prepare_nothing, ..REAL });
}

#[test]
fn an_answer_that_knows_of_an_outage_only_from_when_it_was_recorded_is_found() {
    fn as_the_log_had_it(records: &[Bytes], id: &DeploymentId, moment: Timestamp) -> Option<Weights> {
        let mut view = View::default();
        for (offset, bytes) in (0..).map(Offset).zip(records) {
            if view.time_with(&Decoded::of(bytes)) > moment {
                break;
            }
            view.fold(offset, bytes).expect("a record of this ledger");
        }
        view.state().deployment(id)?.traffic.set.as_ref().map(|set| set.weights.clone())
    }
    find(19, Rules { set_at: as_the_log_had_it, ..REAL });
}
