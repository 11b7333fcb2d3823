//! The ledger gives no verdict: the weights move, and history hears of it once.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ledger::deployment::generation;
use schemas::break_glass::Intent;
use schemas::break_glass::Unrecorded;
use schemas::command::{self, Command, Request};
use schemas::envelope::CommandRef;
use schemas::outcome::{self, DeploymentOutcome, Outcome};
use schemas::{EffectId, Probed, Role, StreamVersion, Timestamp, Weight, Weights};
use workers::break_glass::{Folder, Rolled};
use workers::runtime;
use workers::traffic::Entry;

use crate::world::{HOLDER, V1, V2, V3, World, deployment, effective_at, has, patience, person, request, rollback};

#[tokio::test]
async fn the_weights_move_at_once_and_history_has_it_once_with_its_true_actor_and_time() {
    let world = World::serving().await;
    world.log.fall_silent();
    let (asked, before, request) = (Instant::now(), Timestamp::now(), rollback());
    let broken = world.broken(request.clone()).await;
    let after = Timestamp::now();
    assert!(asked.elapsed() >= patience().verdict, "the verdict was waited for");
    assert_eq!((&broken.unmoved, &broken.notes), (&None, &vec![]));
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V1)));
    assert_eq!(world.set(), Weights::all_on(world.stack(V2)), "the ledger does not know yet");
    assert_eq!(broken.unrecorded.file.as_deref(), world.file(request.id).to_str());
    assert_eq!(world.break_glass.unrecorded(), vec![broken.unrecorded]);
    assert_eq!(world.files(""), [format!("{}.json", request.id)]);

    world.log.come_back();
    world.settled().await;
    let history = world.history("traffic.rolled_back");
    assert_eq!(history.len(), 1);
    let (commit, _) = &history[0];
    let about = &commit["about"];
    assert_eq!((&about["actor"]["name"], &about["actor"]["proof"]), (&"ana".into(), &"unix-peer uid=1000".into()));
    assert_eq!(about["reason"], "checkout fails");
    assert!((before..=after).contains(&effective_at(commit)), "{commit}");
    assert_eq!(world.set(), Weights::all_on(world.stack(V1)));
    assert_eq!((world.files(""), world.files("done").len()), (vec![], 1));
    let again = world.break_glass.execute(request, person("ana"), None, Probed::default()).await;
    assert!(matches!(&again, Rolled::Settled(Ok(answer)) if answer.repeated), "{again:?}");
    assert_eq!(world.history("traffic.rolled_back").len(), 1);
}

#[tokio::test]
async fn a_log_that_has_stopped_is_not_waited_for_and_the_later_record_says_when_it_took_effect() {
    let world = World::serving().await;
    world.log.stop();
    let (asked, before) = (Instant::now(), Timestamp::now());
    world.broken(rollback()).await;
    assert!(asked.elapsed() < patience().verdict);
    let after = Timestamp::now();
    world.break_glass.settle_all().await;
    assert!(world.break_glass.unrecorded()[0].trouble.as_ref().unwrap().contains("a sync failed"));
    // The record is to be later than the rollback by the wall clock, which is real here.
    tokio::time::sleep(patience().again).await;
    world.log.come_back();
    world.settled().await;
    let (commit, broken) = world.history("traffic.glass_broken").remove(0);
    assert_eq!(world.history("traffic.rolled_back").len(), 1);
    assert!(
        (before..=after).contains(&effective_at(&commit)) && !commit["about"]["effective_at"].is_null(),
        "{commit}"
    );
    let recorded_at: Timestamp = broken["recorded_at"].as_str().unwrap().parse().unwrap();
    assert!(recorded_at > after, "{broken}");
}

#[tokio::test]
async fn the_append_that_got_no_verdict_may_land_and_then_it_is_what_counts() {
    let world = World::serving().await;
    world.log.fall_silent();
    world.broken(rollback()).await;
    world.log.come_back_with_all_that_was_sent();
    world.settled().await;
    assert_eq!(world.history("traffic.rolled_back").len(), 1);
    assert_eq!((world.files(""), world.files("done").len()), (vec![], 1));
    world.apply().await;
    assert_eq!(world.set(), Weights::all_on(world.stack(V1)));
}

#[tokio::test]
async fn a_second_one_changes_nothing_and_makes_no_second_intent() {
    let world = World::serving().await;
    world.log.fall_silent();
    let first = world.broken(rollback()).await;
    let changes = world.router.changes.load(Ordering::SeqCst);
    let second = world.broken(rollback()).await;
    let told = Unrecorded { trouble: None, ..second.unrecorded };
    assert_eq!(told, first.unrecorded, "it names the first one's file");
    assert!(second.notes[0].contains("carried out before"), "{:?}", second.notes);
    let elsewhere = tempfile::tempdir().unwrap();
    let other = workers::break_glass::BreakGlass::new(
        elsewhere.path(),
        world.ledger.clone(),
        std::sync::Arc::clone(&world.router) as _,
        patience(),
    );
    let third = other.execute(rollback(), person("cy"), None, Probed::default()).await;
    assert!(matches!(&third, Rolled::Broken(broken) if broken.notes[0].contains("serves it already")), "{third:?}");
    assert_eq!(world.router.changes.load(Ordering::SeqCst), changes);
    assert_eq!(world.files("").len(), 1);
    world.log.come_back();
    world.settled().await;
    assert_eq!(world.history("traffic.rolled_back").len(), 1);
}

#[tokio::test]
async fn what_waited_and_is_recorded_by_a_further_rollback_is_said() {
    let world = World::serving().await;
    world.log.stop();
    world.broken(rollback()).await;
    world.log.come_back();
    let done = match world.break_glass.execute(rollback(), person("ana"), None, Probed::default()).await {
        Rolled::Settled(Ok(done)) => done,
        other => panic!("{other:?}"),
    };
    assert_eq!(done.events, []);
    let note = "the rollback to 1.0.0 that waited for the ledger was recorded first";
    assert_eq!(done.notes.first().map(String::as_str), Some(note));
    assert_eq!(world.history("traffic.rolled_back").len(), 1);
}

#[tokio::test]
async fn nobody_is_sent_to_nodes_that_are_gone() {
    let world = World::serving().await;
    world.log.fall_silent();
    // Collected since, which a view of a ledger out of reach does not tell.
    world.nodes.lock().unwrap().remove(&world.stack(V1));
    let refused = match world.break_glass.execute(rollback(), person("ana"), None, Probed::default()).await {
        Rolled::Settled(Err(refused)) => refused.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(refused.contains("no node of 1.0.0 is there any more: nobody listens on 127.0.0.1:"), "{refused}");
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V2)));
    assert!(world.files("").is_empty(), "nothing waits to be recorded");
}

#[tokio::test]
async fn without_the_ledger_too_nobody_is_moved_to_a_version_that_does_not_pass_but_by_unready() {
    let world = World::serving().await;
    let mut probed = Probed::default();
    probed.passes(world.stack(V2));
    probed.fails(world.stack(V1), "connection refused".to_owned());
    let changes = world.router.changes.load(Ordering::SeqCst);
    world.log.fall_silent();
    let refused = match world.break_glass.execute(rollback(), person("ana"), None, probed.clone()).await {
        Rolled::Settled(Err(refused)) => refused.to_string(),
        other => panic!("{other:?}"),
    };
    let said = "no node of the rollback target 1.0.0 passes its check (connection refused), and without the ledger nothing starts \
                it again; users stay on 1.1.0; `ionledger rollback api --unready` sends all traffic there now";
    assert!(refused.contains(said), "{refused}");
    assert_eq!((world.router.changes.load(Ordering::SeqCst), world.files("")), (changes, vec![]));

    let unready = request(Command::Rollback(command::Rollback { deployment: deployment(), unready: true }));
    let done = world.break_glass.execute(unready, person("ana"), None, probed).await;
    assert!(matches!(done, Rolled::Broken(_)), "{done:?}");
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V1)));
}

#[tokio::test]
async fn a_move_that_failed_is_not_made_up_for_once_the_nodes_are_gone() {
    let (world, _) = World::unmoved().await;
    world.nodes.lock().unwrap().remove(&world.stack(V1));
    world.router.deaf.store(false, Ordering::SeqCst);
    world.break_glass.settle_all().await;
    let again = world.broken(rollback()).await;
    assert!(again.unmoved.as_ref().is_some_and(|why| why.contains("nobody listens")), "{:?}", again.unmoved);
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V2)));
}

#[tokio::test]
async fn a_move_that_failed_is_not_made_up_for_past_what_came_later() {
    let (world, _) = World::unmoved().await;
    let version = world.router.held().routes.generation;
    // Where the ledger answers, somebody rolled back too, and then retired it.
    let generation = generation::of(1, StreamVersion(version.0 + 2));
    world.router.entries.lock().unwrap().insert(deployment(), Entry::Retired { generation });
    world.router.deaf.store(false, Ordering::SeqCst);
    world.break_glass.settle_all().await;
    let entry = world.router.entries.lock().unwrap()[&deployment()].clone();
    assert_eq!(entry, Entry::Retired { generation }, "nobody is served again by an attempt that is late");
    let again = world.broken(rollback()).await;
    assert_eq!(again.unmoved, None, "whoever asks now is followed");
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V1)));
}

#[tokio::test]
async fn what_was_sent_before_it_is_decided_after_it() {
    let world = World::serving().await;
    world.log.stop();
    world.broken(rollback()).await;
    world.log.come_back();
    // A process that stood still goes on with what was sent to it, before anything was recorded.
    world.break_glass.settle_first(&deployment()).await;
    let sent_before = Command::Traffic(command::Traffic {
        deployment: deployment(),
        shares: vec![command::StackWeight { version: V2.parse().unwrap(), weight: Weight::FULL }],
        supersede: true,
        again: false,
    });
    let refused = world.ask_as("ana", sent_before).await.unwrap_err().to_string();
    assert!(refused.contains("is rejected since a rollback"), "{refused}");
    assert_eq!(world.set(), Weights::all_on(world.stack(V1)));
    assert!(world.break_glass.unrecorded().is_empty());
}

#[tokio::test]
async fn the_log_is_asked_once_for_everything_that_waits() {
    let world = World::serving().await;
    world.log.fall_silent();
    world.broken(rollback()).await;
    let folder = Folder::of(world.data.path());
    let first = folder.waiting().unwrap().remove(0).intent.unwrap();
    for service in ["web", "mail", "search"] {
        let command = CommandRef { id: rollback().id, ..first.command };
        let deployment = format!("production/{service}").parse().unwrap();
        folder.write(&Intent { command, deployment, ..first.clone() }).unwrap();
    }
    let asked = world.log.asked.load(Ordering::SeqCst);
    world.break_glass.settle_all().await;
    assert_eq!(world.break_glass.unrecorded().len(), 4);
    assert_eq!(world.log.asked.load(Ordering::SeqCst) - asked, 1, "each may take three seconds");
}

#[tokio::test]
async fn a_verdict_in_time_is_the_usual_way_and_leaves_no_file() {
    let world = World::serving().await;
    let Rolled::Settled(Ok(answer)) =
        world.break_glass.execute(rollback(), person("ana"), None, Probed::default()).await
    else {
        panic!("the log answers");
    };
    assert!(has(&answer, "traffic.rolled_back"));
    let Rolled::Settled(Ok(answer)) =
        world.break_glass.execute(rollback(), person("ana"), None, Probed::default()).await
    else {
        panic!("the log answers");
    };
    assert_eq!(answer.events, [], "it is rolled back already");
    assert!(world.files("").is_empty());
}

#[tokio::test]
async fn what_it_goes_past_is_said_with_the_reason() {
    let world = World::serving().await;
    world.bring_up(V3).await;
    world.serve(V3).await;
    let mut probed = Probed::default();
    probed.fails(world.stack(V2), "no answer within 1 s".to_owned());
    probed.passes(world.stack(V1));
    world.log.fall_silent();
    let broken = match world.break_glass.execute(rollback(), person("ana"), None, probed).await {
        Rolled::Broken(broken) => broken,
        Rolled::Settled(answer) => panic!("the ledger gave a verdict: {answer:?}"),
    };
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V1)));
    assert_eq!(broken.notes, ["it goes past 1.1.0, which does not pass (no answer within 1 s)"]);
}

/// The version that users were sent back to without the ledger dies before the ledger hears of it.
#[tokio::test]
async fn a_second_one_goes_further_back_once_what_the_first_went_to_is_dead() {
    let world = World::serving().await;
    world.bring_up(V3).await;
    world.serve(V3).await;
    world.log.stop();
    world.broken(rollback()).await;
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V2)));
    world.nodes.lock().unwrap().remove(&world.stack(V2));
    let mut probed = Probed::default();
    probed.fails(world.stack(V2), "connection refused".to_owned());
    probed.passes(world.stack(V1));
    let further = match world.break_glass.execute(rollback(), person("bo"), None, probed).await {
        Rolled::Broken(broken) => broken,
        Rolled::Settled(answer) => panic!("the ledger gave a verdict: {answer:?}"),
    };
    assert_eq!((further.unmoved, further.unrecorded.version), (None, V1.parse().unwrap()));
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V1)));
    world.log.come_back();
    world.settled().await;
    assert_eq!(world.history("traffic.rolled_back").len(), 2, "both happened, one after the other");
    world.apply().await;
    assert_eq!(world.set(), Weights::all_on(world.stack(V1)));
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V1)));
}

#[tokio::test]
async fn newer_work_is_not_undone_and_what_happened_is_recorded() {
    let world = World::serving().await;
    world.bring_up(V3).await;
    world.log.stop();
    world.broken(rollback()).await;
    world.log.come_back();
    // Somebody ships before anybody has settled.
    world.ask(World::all_on(V3)).await;
    world.settled().await;
    assert_eq!(world.set(), Weights::all_on(world.stack(V3)));
    assert!(world.history("traffic.rolled_back").is_empty());
    let (commit, broken) = world.history("traffic.glass_broken").remove(0);
    assert_eq!(commit["about"]["actor"]["name"], "ana");
    assert_eq!(broken["overtaken"], "other weights were asked for since");
    world.apply().await;
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V3)), "and it is carried out");
}

#[tokio::test]
async fn a_call_that_was_decided_without_knowing_of_it_is_refused_however_young() {
    let world = World::serving().await;
    let late = world.router.held().routes;
    world.log.fall_silent();
    world.broken(rollback()).await;
    let generation = schemas::StreamVersion(late.generation.0 + 1_000_000);
    let late = workers::traffic::Routes { generation, ..late };
    let refused = workers::traffic::Router::apply(&*world.router, &late).await;
    assert!(matches!(refused, Err(workers::traffic::ApplyError::Superseded { .. })), "{refused:?}");
}

#[tokio::test]
async fn where_nothing_can_be_written_the_weights_move_all_the_same_and_it_is_recorded_from_memory() {
    let world = World::serving().await;
    world.log.fall_silent();
    let folder = world.data.path().join("glass");
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "in the way").unwrap();
    let broken = world.broken(rollback()).await;
    assert_eq!((&broken.unmoved, &broken.unrecorded.file), (&None, &None));
    assert!(broken.notes[0].contains("could not be written down"), "{:?}", broken.notes);
    assert!(world.break_glass.unrecorded()[0].trouble.as_ref().unwrap().contains("not written down"));
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V1)));
    world.log.come_back();
    world.settled().await;
    assert_eq!(world.history("traffic.rolled_back").len(), 1);
}

#[tokio::test]
async fn a_router_that_is_deaf_too_is_told_as_soon_as_it_hears() {
    let (world, _) = World::unmoved().await;
    world.router.deaf.store(false, Ordering::SeqCst);
    world.moved_to(V1).await;
}

#[tokio::test]
async fn a_file_that_was_changed_or_is_of_another_ledger_is_set_aside_and_never_recorded() {
    let world = World::serving().await;
    world.log.fall_silent();
    let (first, other) = (rollback(), World::serving().await);
    world.broken(first.clone()).await;
    let text = fs::read_to_string(world.file(first.id)).unwrap();
    fs::write(world.file(first.id), text.replace("\"ana\"", "\"bob\"")).unwrap();
    // The same key, and another ledger.
    other.log.fall_silent();
    fs::copy(world.data.path().join("glass/key"), other.data.path().join("glass/key")).unwrap();
    let second = rollback();
    other.broken(second.clone()).await;
    fs::copy(other.file(second.id), world.file(second.id)).unwrap();

    world.log.come_back();
    let fresh = world.another();
    fresh.settle_all().await;
    assert_eq!((world.files("").len(), world.files("aside").len()), (0, 2));
    let folder = workers::break_glass::Folder::of(world.data.path());
    let why: Vec<String> = folder.aside().unwrap().into_iter().map(|aside| aside.why).collect();
    assert!(why.iter().any(|why| why.contains("changed after it was signed")), "{why:?}");
    assert!(why.iter().any(|why| why.contains("belongs to ledger")), "{why:?}");
    assert!(world.history("traffic.rolled_back").is_empty());
    let key = fs::metadata(folder.key_file()).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn without_a_warm_target_nothing_is_claimed() {
    let world = World::serving().await;
    let stack = world.stack(V1);
    let effect = EffectId::of_launch(world.ledger.id(), stack, 0, 0);
    let gone = DeploymentOutcome::StartCollection(outcome::StartCollection { stack, reason: "by hand".to_owned() });
    let outcome = Outcome::Deployment(outcome::DeploymentReport { deployment: deployment(), outcome: gone });
    // The collector spares the rollback target; its node ends by itself.
    assert!(world.ledger.record(outcome, Role::Collector, HOLDER, None).await.is_err());
    world
        .report(
            Role::Provisioner,
            DeploymentOutcome::NodeLost(outcome::NodeLost { effect, reason: "it exited".to_owned() }),
        )
        .await;
    world.log.fall_silent();
    let broken = world.broken(rollback()).await;
    assert!(broken.unmoved.as_ref().unwrap().contains("no node of 1.0.0"), "{broken:?}");
    assert_eq!(world.router.weights(), Weights::all_on(world.stack(V2)));
}

#[tokio::test]
async fn the_judge_sends_a_canary_back_without_the_ledger_and_history_says_it_was_the_judge() {
    let world = World::serving().await;
    let rollout = world.with_unhealthy_canary().await;

    world.log.fall_silent();
    let outcome = World::send_back(rollout);
    let cause = Some(schemas::CommitId(rollout.0));
    for _ in 0..2 {
        let answer = world.break_glass.record(outcome.clone(), Role::TrafficShifter, HOLDER, cause).await.unwrap();
        assert_eq!(answer.commit, None);
        assert_eq!(world.router.weights(), Weights::all_on(world.stack(V2)));
    }
    assert_eq!(world.files("").len(), 1);
    world.log.come_back();
    // Another instance acts by now; this one held the lease when it acted.
    for role in Role::ALL {
        let taken = Outcome::TakeLease(outcome::TakeLease {
            role,
            holder: "two".to_owned(),
            from: Some(HOLDER.to_owned()),
            reason: "silence".to_owned(),
        });
        world.ledger.record(taken, role, "two", None).await.unwrap();
    }
    world.settled().await;
    let (commit, back) = world.history("traffic.rolled_back").remove(0);
    let about = &commit["about"];
    assert_eq!(about["actor"]["name"], format!("traffic-shifter/{HOLDER}"));
    assert_eq!(about["cause"], rollout.to_string());
    assert_eq!(back["reason"], "the canary is unhealthy");
    assert_eq!(world.history("rollout.came_back").len(), 1);
}

#[tokio::test]
async fn what_a_script_sends_again_once_the_log_is_back_is_not_recorded_a_second_time() {
    let world = World::serving().await;
    world.log.stop();
    let asked = rollback();
    world.broken(asked.clone()).await;
    world.log.come_back();
    // The ledger has it before the reconciler looked.
    let answer = world.ledger.execute(asked, person("ana"), None).await.unwrap();
    assert!(has(&answer, "traffic.rolled_back"));
    world.settled().await;
    assert_eq!(world.history("traffic.rolled_back").len(), 1);
}

#[tokio::test]
async fn an_id_that_waits_for_the_ledger_is_refused_for_something_else_and_its_file_stays() {
    let world = World::serving().await;
    world.log.stop();
    let asked = rollback();
    world.broken(asked.clone()).await;
    let kept = fs::read(world.file(asked.id)).unwrap();
    let other = Request {
        command: Command::Rollback(command::Rollback { deployment: "test/api".parse().unwrap(), unready: false }),
        ..asked.clone()
    };
    let answer = world.break_glass.execute(other, person("ana"), None, Probed::default()).await;
    assert_eq!(answer, Rolled::Settled(Err(ledger::execute::Refusal::OtherContent { id: asked.id })));
    assert_eq!(fs::read(world.file(asked.id)).unwrap(), kept);
}

/// The target's only node is gone and the next one is not there yet: nothing can be called.
#[tokio::test]
async fn weights_on_a_stack_without_a_node_are_named_with_what_users_get_meanwhile_and_the_way_out() {
    let world = World::serving().await;
    let effect = EffectId::of_launch(world.ledger.id(), world.stack(V1), 0, 0);
    let reason = "exited with code 3; the end of its log: no database".to_owned();
    world.report(Role::Provisioner, DeploymentOutcome::NodeLost(outcome::NodeLost { effect, reason })).await;
    world.ask(Command::Rollback(command::Rollback { deployment: deployment(), unready: true })).await;
    let said = runtime::apply_now(&world.ledger, &*world.router, &deployment()).await.unwrap_err().to_string();
    assert_eq!(
        said,
        "no node of 1.0.0 can be called (exited with code 3): users still get 1.1.0 100 %, until one can; \
         `ionledger traffic api 1.1.0 100 --again --reason WHY` sends all of them to a version that passes"
    );
    world.router.deaf.store(true, Ordering::SeqCst);
    let said = runtime::apply_now(&world.ledger, &*world.router, &deployment()).await.unwrap_err().to_string();
    assert!(said.starts_with("users are still where they were: no answer from the proxy"), "{said}");
}
