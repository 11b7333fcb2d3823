//! The traffic shifter beside a break-glass rollback: it leaves the rollback alone, on whatever view, and goes on after it without a
//! flap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ledger::State;
use ledger::deployment::generation;
use ledger::deployment::rollout::Phase;
use schemas::command::{self, Command, PlanAsked};
use schemas::outcome::{self, DeploymentOutcome, Outcome};
use schemas::{EffectId, Role, RolloutId, StackId, Timestamp, Weight, Weights};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use workers::checks::http::HttpChecks;
use workers::effect::{Effect, Reaction};
use workers::facts::Facts;
use workers::nodes::{Fault, Instance, Launch, Nodes, Observed, Stopped};
use workers::probing::Probing;
use workers::reactor::react;
use workers::runtime::{self, Adapters};
use workers::traffic::{Router as _, Routes};

use crate::world::{DEADLINE, HOLDER, V1, V2, V3, World, deployment, rollback};

/// What the shifter makes of `state` and of what the router serves.
fn reaction(world: &World, state: &State) -> Reaction {
    let mut facts = Facts { steady: Duration::from_secs(1), ..Facts::default() };
    let entry = world.router.entries.lock().unwrap().get(&deployment()).cloned();
    facts.routers.insert(deployment(), entry);
    facts.routers_at.insert(deployment(), facts.steady);
    react(Role::TrafficShifter, state, &facts, Timestamp::now())
}

fn state(world: &World) -> State {
    world.ledger.view().state().clone()
}

/// Lets the shifter act on its state until it has nothing more to do.
async fn follow(world: &World) {
    for _ in 0..10 {
        let Reaction { effects, outcomes, .. } = reaction(world, &state(world));
        if effects.is_empty() && outcomes.is_empty() {
            return;
        }
        for effect in effects {
            if let Effect::Route(routes) = effect {
                let _ = world.router.apply(&routes).await;
            }
        }
        for outcome in outcomes {
            let _ = world.ledger.record(outcome, Role::TrafficShifter, HOLDER, None).await;
        }
    }
    panic!("the shifter goes on and on");
}

fn routes(reaction: &Reaction) -> usize {
    reaction.effects.iter().filter(|effect| matches!(effect, Effect::Route(_))).count()
}

fn is_drift(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Deployment(outcome::DeploymentReport { outcome: DeploymentOutcome::DriftSeen(_), .. }))
}

/// Begins a rollout of 1.2.0 and takes its first step, in the ledger alone.
async fn step_taken(world: &World) -> RolloutId {
    world.bring_up(V3).await;
    let steps = Some(vec![Weight::from_percent(10), Weight::FULL]);
    let plan = PlanAsked { duration_ms: Some(3_600_000), steps };
    let (from, to) = (V2.parse().unwrap(), V3.parse().unwrap());
    let roll =
        Command::Roll(command::Roll { deployment: deployment(), from, to, plan, supersede: false, again: false });
    let rollout: RolloutId = world.ask(roll).await.commit.unwrap().into();
    world.take_first_step(rollout).await;
    rollout
}

#[tokio::test]
async fn without_a_rollout_it_is_left_alone_and_explained_afterwards_without_a_flap() {
    let world = World::serving().await;
    world.log.stop();
    world.broken(rollback()).await;
    let reaction = reaction(&world, &state(&world));
    assert_eq!(routes(&reaction), 0);
    assert!(reaction.outcomes.iter().all(is_drift) && reaction.outcomes.len() == 1, "{:?}", reaction.outcomes);
    world.log.come_back();
    follow(&world).await;
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V1)), "recorded as drift and left alone");
    let changes = world.router.changes.load(std::sync::atomic::Ordering::SeqCst);
    world.settled().await;
    follow(&world).await;
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V1)));
    let flaps = world.router.changes.load(std::sync::atomic::Ordering::SeqCst) - changes;
    assert_eq!(flaps, 0, "the router held what the ledger then set");
    assert!(world.ledger.view().state().deployment(&deployment()).unwrap().traffic.is_applied());
    // And the normal path is above it.
    world.serve(V2).await;
}

/// Where no nodes are.
struct NoNodes;

#[async_trait]
impl Nodes for NoNodes {
    async fn launch(&self, _: &Launch) -> Result<Instance, Fault> {
        unreachable!("a traffic shifter launches nothing")
    }

    async fn look(&self) -> Result<BTreeMap<EffectId, Observed>, Fault> {
        Ok(BTreeMap::new())
    }

    async fn stop(&self, _: EffectId, _: Duration) -> Result<Stopped, Fault> {
        unreachable!("a traffic shifter stops nothing")
    }

    async fn cleanup(&self, _: EffectId) -> Result<(), Fault> {
        Ok(())
    }

    async fn free_ports(&self, _: u16) -> Result<Vec<u16>, Fault> {
        Ok(vec![])
    }
}

/// A process that stood still goes on: its traffic shifter sees what another process did to the router.
#[tokio::test]
async fn a_shifter_that_has_the_intent_in_its_folder_records_the_rollback_and_no_drift() {
    let world = World::serving().await;
    world.log.stop();
    world.broken(rollback()).await;
    world.log.come_back();
    let adapters = Adapters {
        nodes: Arc::new(NoNodes),
        checks: Probing::new(Arc::new(HttpChecks)),
        router: Arc::clone(&world.router) as _,
        break_glass: Some(world.another()),
    };
    let (stop, ledger) = (CancellationToken::new(), world.ledger.clone());
    let shifter = runtime::run(Role::TrafficShifter, HOLDER.to_owned(), ledger, adapters, stop.clone());
    let shifter = tokio::spawn(shifter);
    let until = tokio::time::Instant::now() + DEADLINE;
    let of = |world: &World| state(world).deployment(&deployment()).unwrap().traffic.clone();
    while of(&world).set.unwrap().weights != Weights::all_on(world.stack(V1)) || !of(&world).is_applied() {
        assert!(tokio::time::Instant::now() < until, "{:?}", world.history("traffic.drift_seen"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    shifter.await.unwrap().unwrap();
    assert_eq!(world.history("traffic.drift_seen"), [], "the rollback explains what the router serves");
    assert_eq!(world.history("traffic.rolled_back").len(), 1);
}

#[tokio::test]
async fn a_shifter_elsewhere_whose_step_is_on_its_way_pauses_and_moves_nothing_back() {
    let world = World::serving().await;
    world.log.stop();
    let behind = state(&world);
    world.broken(rollback()).await;
    world.log.come_back();
    // Another node took a step meanwhile that its router call had not followed yet.
    step_taken(&world).await;
    follow(&world).await;
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V1)));
    let view = state(&world);
    let rollout = view.deployment(&deployment()).unwrap().rollout.clone().unwrap();
    assert!(matches!(rollout.phase, Phase::Paused { .. }), "{:?}", rollout.phase);
    assert_eq!(routes(&reaction(&world, &behind)), 0, "a view that is behind moves nothing either");
}

#[tokio::test]
async fn in_a_rollout_it_goes_to_the_baseline_and_the_rollout_comes_back_in_the_ledger() {
    let world = World::serving().await;
    step_taken(&world).await;
    world.log.stop();
    world.broken(rollback()).await;
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V2)));
    world.log.come_back();
    follow(&world).await;
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V2)));
    world.settled().await;
    follow(&world).await;
    let view = state(&world);
    let of = view.deployment(&deployment()).unwrap();
    let phase = &of.rollout.as_ref().unwrap().phase;
    assert!(matches!(phase, Phase::CameBack { .. }), "{phase:?}");
    assert!(of.traffic.is_applied() && of.traffic.drift.is_none());
}

#[tokio::test]
async fn a_person_who_explains_it_in_its_intents_stead_is_followed() {
    let world = World::serving().await;
    world.log.stop();
    let asked = rollback();
    world.broken(asked.clone()).await;
    // Its node burned down with the file.
    std::fs::remove_file(world.file(asked.id)).unwrap();
    world.log.come_back();
    follow(&world).await;
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V1)));
    world.ask(World::all_on(V2)).await;
    follow(&world).await;
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V2)), "traffic is the word to correct it");
}

#[tokio::test]
async fn one_that_came_to_the_router_after_its_stack_was_gone_is_corrected() {
    let world = World::serving().await;
    let held = world.router.held().routes;
    let gone = StackId(Uuid::from_u128(1));
    let routes = Routes {
        generation: generation::of(1, held.generation),
        weights: Weights::all_on(gone),
        backends: held.backends.values().map(|of| (gone, of.clone())).collect(),
        ..held
    };
    world.router.apply(&routes).await.unwrap();
    follow(&world).await;
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V2)), "nothing answers where it sent users");
    let view = state(&world);
    let traffic = &view.deployment(&deployment()).unwrap().traffic;
    assert!(traffic.is_applied() && traffic.drift.is_none());
    let drifts = world.history("traffic.drift_seen");
    assert_eq!(drifts.len(), 1, "and it is on record");
}
