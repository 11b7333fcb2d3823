//! Every command in every state, decided on purpose.

use std::collections::{BTreeMap, BTreeSet};

use schemas::Probed;
use schemas::command::Command;

use super::named::{Named, given};
use crate::decision::{Decision, Rejection};
use crate::kit::*;

macro_rules! asked {
    ($($(#[$doc:meta])* $name:ident = $command:expr),+ $(,)?) => {
        /// A command with a name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Asked {
            $($(#[$doc])* $name,)+
        }

        impl Asked {
            pub(super) const ALL: &'static [Asked] = &[$(Asked::$name,)+];

            pub(super) fn command(self) -> Command {
                match self { $(Asked::$name => $command,)+ }
            }

            /// Decides it in `world`, where no node of the rollback's target passes its check if its name says so.
            pub(super) fn decide(self, world: &World) -> Result<Decision, Rejection> {
                let dead = matches!(self, Asked::RollbackToTheDead | Asked::RollbackUnready);
                let probed = if dead { world.dead_target() } else { Probed::default() };
                world.decide_seeing(&self.command(), &probed)
            }
        }
    };
}

asked! {
    ApplySame = apply(definition()),
    ApplyOther = apply(schemas::service::Definition { owner: "team-search".to_owned(), ..definition() }),
    ReleaseSame = release(V1),
    ReleaseOtherContent = release_of(V1, "other"),
    ReleaseNext = release("1.3.0"),
    NewFirst = new(V1),
    NewThird = new(V3),
    NewThirdThenRoll = new_then_roll(V3),
    NewSecondThenRoll = new_then_roll(V2),
    Renew = renew(false),
    RenewThenRoll = renew(true),
    TrafficFirst = traffic(&[(V1, 100)], false),
    TrafficSecond = traffic(&[(V2, 100)], false),
    TrafficSplit = traffic(&[(V1, 90), (V2, 10)], false),
    TrafficSecondInstead = traffic(&[(V2, 100)], true),
    Roll = roll(V1, V2),
    RollInstead = roll_instead(V1, V2),
    RollOn = roll(V2, V3),
    RollTheOtherWay = roll(V2, V1),
    Rollback = rollback(),
    RollbackToTheDead = rollback(),
    RollbackUnready = rollback_unready(),
    Pause = pause(),
    Resume = resume(),
    Abort = abort(),
    Promote = promote(),
    Hold = hold(None),
    LiftHold = lift_hold(),
    Retire = retire(),
    Dismiss = dismiss(V1),
}

fn rejection(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::Unknown { .. } => "Unknown",
        Rejection::Immutable { .. } => "Immutable",
        Rejection::NotReady { .. } => "NotReady",
        Rejection::BaselineFails { .. } => "BaselineFails",
        Rejection::Weights(_) => "Weights",
        Rejection::TooManyVersions { .. } => "TooManyVersions",
        Rejection::RolloutRunning { .. } => "RolloutRunning",
        Rejection::Older { .. } => "Older",
        Rejection::NoRollout { .. } => "NoRollout",
        Rejection::NoTarget { .. } => "NoTarget",
        Rejection::AllRejected { .. } => "AllRejected",
        Rejection::Rejected { .. } => "Rejected",
        Rejection::Ambiguous { .. } => "Ambiguous",
        Rejection::OnHold { .. } => "OnHold",
        Rejection::Fenced { .. } => "Fenced",
        Rejection::Invalid(_) => "Invalid",
        Rejection::Outdated(_) => "Outdated",
    }
}

/// Shows what was decided, as the tables do.
pub(super) fn shown(result: &Result<Decision, Rejection>) -> String {
    match result {
        Ok(decision) if decision.events.is_empty() => "nothing".to_owned(),
        Ok(decision) => kinds(decision).join(" + "),
        Err(no) => rejection(no).to_owned(),
    }
}

/// What each command comes to, by state: `nothing`, the events, or the name of the rejection. Where a new command or
/// state has no cell, the test fails until somebody has decided.
#[rustfmt::skip]
const CELLS: &[(Asked, Results)] = {
    use Named::*;
    &[
        (Asked::ApplySame, &[
            ("service.applied", &[Undeclared]),
            ("nothing", &[
                Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Split,
                Sick, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held,
                CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget, Retired,
            ]),
        ]),
        (Asked::ApplyOther, &[
            ("service.applied", &[
                Undeclared, Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold,
                Waiting, Split, Sick, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep,
                Paused, Held, CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting,
                DriftedOff, DriftedBack, DriftedToTarget, Retired,
            ]),
        ]),
        (Asked::ReleaseSame, &[
            ("Unknown", &[Undeclared]),
            ("release.recorded", &[Declared]),
            ("nothing", &[
                Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Split, Sick,
                Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held,
                CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget, Retired,
            ]),
        ]),
        (Asked::ReleaseOtherContent, &[
            ("Unknown", &[Undeclared]),
            ("release.recorded", &[Declared]),
            ("Immutable", &[
                Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Split, Sick,
                Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held,
                CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget, Retired,
            ]),
        ]),
        (Asked::ReleaseNext, &[
            ("Unknown", &[Undeclared]),
            ("release.recorded", &[
                Declared, Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Split,
                Sick, Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held,
                CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget, Retired,
            ]),
        ]),
        (Asked::NewFirst, &[
            ("Unknown", &[Undeclared, Declared]),
            ("stack.requested", &[Released, Failed, Retired]),
            ("nothing", &[
                Starting, Launching, Launched, Up, Ready, Serving, Warm, OnHold, Waiting, Split, Sick, Unhealthy, Mended,
                Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, Completed,
                CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff, DriftedBack,
                DriftedToTarget,
            ]),
        ]),
        (Asked::NewThird, &[
            ("Unknown", &[Undeclared, Declared]),
            ("stack.requested", &[
                Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Split, Sick,
                Unhealthy, Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held,
                CanaryIll, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff,
                DriftedBack, DriftedToTarget, Retired,
            ]),
        ]),
        (Asked::NewThirdThenRoll, &[
            ("Unknown", &[Undeclared, Declared]),
            ("stack.requested + rollout.requested", &[
                Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Split, Sick, Unhealthy,
                Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, Completed,
                CameBack, Aborted, Promoted, Superseded, RolledBack, DriftedOff, DriftedBack, DriftedToTarget, Retired,
            ]),
            ("stack.requested + rollout.request_dropped + rollout.requested", &[Waiting]),
            ("Rejected", &[Awaiting]),
        ]),
        (Asked::NewSecondThenRoll, &[
            ("Unknown", &[Undeclared, Declared]),
            ("Invalid", &[Split, Superseded]),
            ("Rejected", &[CameBack, RolledBack]),
            ("nothing", &[
                Waiting, Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, Completed, Promoted, Awaiting,
                DriftedOff, DriftedBack, DriftedToTarget,
            ]),
            ("rollout.requested", &[Warm, OnHold, Sick, Unhealthy, Mended, Aborted]),
            ("stack.requested + rollout.requested", &[
                Released, Starting, Launching, Launched, Up, Failed, Ready, Serving, Collecting, Emptied, Retired,
            ]),
        ]),
        (Asked::Renew, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("Invalid", &[
                Starting, Launching, Launched, Up, Failed, Ready, Split, AtStep, Paused, Held, CanaryIll,
                Superseded, DriftedBack, Retired,
            ]),
            ("stack.requested", &[
                Serving, Warm, OnHold, Waiting, Sick, Unhealthy, Mended, Collecting, Emptied, Started,
                StartedAfterRollback, Completed, CameBack, Aborted, Promoted, RolledBack, Awaiting, DriftedOff,
                DriftedToTarget,
            ]),
        ]),
        (Asked::RenewThenRoll, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("Invalid", &[
                Starting, Launching, Launched, Up, Failed, Ready, Split, AtStep, Paused, Held, CanaryIll,
                Superseded, DriftedBack, Retired,
            ]),
            ("stack.requested + rollout.requested", &[
                Serving, Warm, OnHold, Sick, Unhealthy, Mended, Collecting, Emptied, Completed, CameBack,
                Aborted, Promoted, RolledBack, DriftedOff, DriftedToTarget,
            ]),
            ("Older", &[Waiting, Started, StartedAfterRollback]),
            ("Rejected", &[Awaiting]),
        ]),
        (Asked::TrafficFirst, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("NotReady", &[Starting, Launching, Launched, Up, Failed, Awaiting]),
            ("traffic.weights_set", &[Ready, Retired]),
            ("nothing", &[
                Serving, Warm, OnHold, Waiting, Sick, Unhealthy, Mended, Collecting, Emptied, CameBack, Aborted, RolledBack,
            ]),
            ("rollout.aborted + traffic.weights_set", &[Started, StartedAfterRollback]),
            ("traffic.rejected + traffic.weights_set", &[Split, Completed, Promoted, Superseded, DriftedOff, DriftedToTarget]),
            ("rollout.aborted + traffic.rejected + traffic.weights_set", &[AtStep, Paused, Held, CanaryIll, DriftedBack]),
        ]),
        (Asked::TrafficSecond, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("NotReady", &[Starting, Launching, Launched, Up, Failed, Ready, Serving, Collecting, Emptied, CanaryIll]),
            ("traffic.weights_set", &[
                Warm, OnHold, Split, Sick, Unhealthy, Mended, Aborted, Superseded, DriftedToTarget, Retired,
            ]),
            ("RolloutRunning", &[Started, StartedAfterRollback, AtStep, Paused, Held, DriftedBack]),
            ("nothing", &[Completed, Promoted, DriftedOff]),
            ("traffic.weights_set + rollout.request_dropped", &[Waiting]),
            ("Rejected", &[CameBack, RolledBack, Awaiting]),
        ]),
        (Asked::TrafficSplit, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("NotReady", &[Starting, Launching, Launched, Up, Failed, Ready, Serving, Collecting, Emptied, Awaiting]),
            ("traffic.weights_set", &[
                Warm, OnHold, Sick, Unhealthy, Mended, Completed, Aborted, Promoted, Superseded, DriftedOff, DriftedToTarget,
                Retired,
            ]),
            ("nothing", &[Split]),
            ("RolloutRunning", &[Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, DriftedBack]),
            ("traffic.weights_set + rollout.request_dropped", &[Waiting]),
            ("Rejected", &[CameBack, RolledBack]),
        ]),
        (Asked::TrafficSecondInstead, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("NotReady", &[Starting, Launching, Launched, Up, Failed, Ready, Serving, Collecting, Emptied, CanaryIll]),
            ("traffic.weights_set", &[
                Warm, OnHold, Split, Sick, Unhealthy, Mended, Aborted, Superseded, DriftedToTarget, Retired,
            ]),
            ("rollout.superseded + traffic.weights_set", &[Started, AtStep, Paused, Held, DriftedBack]),
            ("nothing", &[Completed, Promoted, DriftedOff]),
            ("traffic.weights_set + rollout.request_dropped", &[Waiting]),
            ("Rejected", &[StartedAfterRollback, CameBack, RolledBack, Awaiting]),
        ]),
        (Asked::Roll, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("NotReady", &[
                Starting, Launching, Launched, Up, Failed, Ready, Serving, Collecting, Emptied, CanaryIll,
            ]),
            ("rollout.started", &[Warm, Waiting, Mended]),
            ("hold.lifted + rollout.started", &[OnHold, Aborted]),
            ("BaselineFails", &[Sick, Unhealthy]),
            ("Invalid", &[Split, Superseded, Awaiting, Retired]),
            ("nothing", &[
                Started, StartedAfterRollback, AtStep, Paused, Held, Completed, Promoted, DriftedOff, DriftedBack,
                DriftedToTarget,
            ]),
            ("Rejected", &[CameBack, RolledBack]),
        ]),
        (Asked::RollInstead, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("NotReady", &[
                Starting, Launching, Launched, Up, Failed, Ready, Serving, Collecting, Emptied, CanaryIll,
            ]),
            ("rollout.started", &[Warm, Waiting, Mended]),
            ("hold.lifted + rollout.started", &[OnHold, Aborted]),
            ("BaselineFails", &[Sick, Unhealthy]),
            ("Invalid", &[Split, Superseded, Awaiting, Retired]),
            ("rollout.superseded + rollout.started", &[Started]),
            ("rollout.superseded + traffic.weights_set + rollout.started", &[AtStep, Paused, Held, DriftedBack]),
            ("nothing", &[Completed, Promoted, DriftedOff, DriftedToTarget]),
            ("Rejected", &[StartedAfterRollback, CameBack, RolledBack]),
        ]),
        (Asked::RollOn, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("NotReady", &[
                Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Split, Sick, Unhealthy,
                Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll,
                Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, DriftedOff, DriftedBack,
                DriftedToTarget, Retired,
            ]),
            ("Invalid", &[Awaiting]),
        ]),
        (Asked::RollTheOtherWay, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("NotReady", &[
                Starting, Launching, Launched, Up, Failed, Ready, Serving, Unhealthy, Mended, Collecting, Emptied,
            ]),
            ("nothing", &[Warm, OnHold, Waiting, Sick, CameBack, Aborted, RolledBack]),
            ("Invalid", &[Split, Superseded, Awaiting, Retired]),
            ("RolloutRunning", &[Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, DriftedBack]),
            ("rollout.started", &[Completed, Promoted, DriftedOff, DriftedToTarget]),
        ]),
        (Asked::Rollback, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("NoTarget", &[
                Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Sick, Unhealthy, Mended,
                Collecting, Emptied, Aborted,
            ]),
            ("traffic.rolled_back + traffic.weights_set + hold.set", &[
                Split, Completed, Promoted, Superseded, DriftedOff, DriftedToTarget, Retired,
            ]),
            ("traffic.rolled_back + traffic.weights_set + rollout.came_back + hold.set", &[
                Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, DriftedBack,
            ]),
            ("hold.set", &[CameBack]),
            ("nothing", &[RolledBack, Awaiting]),
        ]),
        (Asked::RollbackToTheDead, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("NoTarget", &[
                Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Sick, Unhealthy, Mended,
                Collecting, Emptied, Aborted,
            ]),
            ("stack.requested + traffic.rolled_back + hold.set", &[
                Split, Completed, Promoted, Superseded, DriftedOff, DriftedToTarget,
            ]),
            ("traffic.rolled_back + traffic.weights_set + rollout.came_back + hold.set", &[Started, StartedAfterRollback]),
            ("stack.requested + traffic.rolled_back + rollout.came_back + hold.set", &[
                AtStep, Paused, Held, CanaryIll, DriftedBack,
            ]),
            ("hold.set", &[CameBack]),
            ("nothing", &[RolledBack, Awaiting]),
            ("traffic.rolled_back + traffic.weights_set + hold.set", &[Retired]),
        ]),
        (Asked::RollbackUnready, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("NoTarget", &[
                Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Sick, Unhealthy, Mended,
                Collecting, Emptied, Aborted,
            ]),
            ("traffic.rolled_back + traffic.weights_set + hold.set", &[
                Split, Completed, Promoted, Superseded, DriftedOff, DriftedToTarget, Retired,
            ]),
            ("traffic.rolled_back + traffic.weights_set + rollout.came_back + hold.set", &[
                Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, DriftedBack,
            ]),
            ("hold.set", &[CameBack]),
            ("nothing", &[RolledBack, Awaiting]),
        ]),
        (Asked::Pause, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("NoRollout", &[
                Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Split, Sick, Unhealthy,
                Mended, Collecting, Emptied, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting,
                DriftedOff, DriftedToTarget, Retired,
            ]),
            ("rollout.paused", &[Started, StartedAfterRollback, AtStep, Held, CanaryIll]),
            ("nothing", &[Paused, DriftedBack]),
        ]),
        (Asked::Resume, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("NoRollout", &[
                Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Split, Sick, Unhealthy,
                Mended, Collecting, Emptied, Completed, CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting,
                DriftedOff, DriftedToTarget, Retired,
            ]),
            ("nothing", &[Started, StartedAfterRollback, AtStep, Held, CanaryIll]),
            ("rollout.resumed", &[Paused, DriftedBack]),
        ]),
        (Asked::Abort, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("rollout.request_dropped", &[Waiting]),
            ("NoRollout", &[
                Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Split, Sick, Unhealthy,
                Mended, Collecting, Emptied, Completed, CameBack, Promoted, Superseded, RolledBack, Awaiting,
                DriftedOff, DriftedToTarget, Retired,
            ]),
            ("rollout.aborted + traffic.weights_set + hold.set", &[
                Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, DriftedBack,
            ]),
            ("nothing", &[Aborted]),
        ]),
        (Asked::Promote, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("NoRollout", &[
                Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Split, Sick, Unhealthy,
                Mended, Collecting, Emptied, CameBack, Aborted, Superseded, RolledBack, Awaiting, Retired,
            ]),
            ("rollout.promoted + traffic.weights_set", &[
                Started, StartedAfterRollback, AtStep, Paused, Held, DriftedBack,
            ]),
            ("NotReady", &[CanaryIll]),
            ("nothing", &[Completed, Promoted, DriftedOff, DriftedToTarget]),
        ]),
        (Asked::Hold, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("hold.set", &[
                Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Waiting, Split, Sick, Unhealthy,
                Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, Completed,
                CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff, DriftedBack,
                DriftedToTarget, Retired,
            ]),
        ]),
        (Asked::LiftHold, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("nothing", &[
                Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, Waiting, Split, Sick, Unhealthy,
                Mended, Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, Completed, CameBack, Promoted,
                Superseded, DriftedOff, DriftedBack, DriftedToTarget, Retired,
            ]),
            ("hold.lifted", &[OnHold, Aborted, RolledBack, Awaiting]),
        ]),
        (Asked::Retire, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("traffic.retired", &[
                Starting, Launching, Launched, Up, Failed, Ready, Serving, Warm, OnHold, Split, Sick, Unhealthy, Mended,
                Collecting, Emptied, Completed, CameBack, Promoted, Superseded, DriftedOff, DriftedToTarget,
            ]),
            ("hold.lifted + traffic.retired", &[Aborted, RolledBack, Awaiting]),
            ("rollout.aborted + traffic.retired", &[
                Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, DriftedBack,
            ]),
            ("nothing", &[Retired]),
            ("traffic.retired + rollout.request_dropped", &[Waiting]),
        ]),
        (Asked::Dismiss, &[
            ("Unknown", &[Undeclared, Declared, Released]),
            ("stack.dismissed", &[Failed]),
            ("nothing", &[
                Starting, Launching, Launched, Up, Ready, Serving, Warm, OnHold, Waiting, Split, Sick, Unhealthy, Mended,
                Collecting, Emptied, Started, StartedAfterRollback, AtStep, Paused, Held, CanaryIll, Completed,
                CameBack, Aborted, Promoted, Superseded, RolledBack, Awaiting, DriftedOff, DriftedBack,
                DriftedToTarget, Retired,
            ]),
        ]),
    ]
};

/// What something comes to, by state.
pub(super) type Results = &'static [(&'static str, &'static [Named])];

/// Returns the cells of a table, each of which must be given once.
pub(super) fn cells<K: Copy + Ord + std::fmt::Debug>(table: &[(K, Results)]) -> BTreeMap<(K, Named), &'static str> {
    let mut cells = BTreeMap::new();
    for (asked, results) in table {
        for (result, states) in *results {
            for state in *states {
                let before = cells.insert((*asked, *state), *result);
                assert_eq!(before, None, "{asked:?} in {state:?} is decided twice");
            }
        }
    }
    cells
}

#[test]
fn every_command_in_every_state_is_decided_on_purpose() {
    let mut cells = cells(CELLS);
    let mut wrong = Vec::new();
    for named in Named::ALL {
        let world = given(*named);
        for asked in Asked::ALL {
            let found = shown(&asked.decide(&world));
            let wanted = cells.remove(&(*asked, *named)).unwrap_or("(nobody has decided)");
            if found != wanted {
                wrong.push(format!("{asked:?} in {named:?}: {found}, not {wanted}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_command_is_in_the_matrix() {
    let asked: BTreeSet<String> = Asked::ALL.iter().map(|asked| tag(&asked.command())).collect();
    let schema: serde_json::Value = serde_json::from_str(&schemas::json::schema_files()["command.json"]).unwrap();
    let commands = schema["oneOf"].as_array().unwrap().iter();
    let commands = commands.map(|command| command["properties"]["command"]["const"].as_str().unwrap().to_owned());
    assert_eq!(asked, commands.collect());
}

fn tag(command: &Command) -> String {
    serde_json::to_value(command).unwrap()["command"].as_str().unwrap().to_owned()
}

#[test]
fn a_command_that_was_carried_out_changes_nothing_a_second_time() {
    for named in Named::ALL {
        for asked in Asked::ALL {
            let mut world = given(*named);
            let Ok(first) = asked.decide(&world) else { continue };
            world.commit(first);
            let again = shown(&asked.decide(&world));
            assert_eq!(again, "nothing", "{asked:?} twice in {named:?}");
        }
    }
}

/// A commit that was decided on a release, a definition or a policy is void once another of them counts.
#[test]
fn what_was_decided_on_the_service_requires_its_head() {
    let required = ["stack.requested", "traffic.weights_set", "rollout.started", "rollout.requested"];
    for named in Named::ALL {
        for asked in Asked::ALL {
            let Ok(decision) = asked.decide(&given(*named)) else { continue };
            let requires = decision.requires == [schemas::Stream::Service(service())];
            let on_service =
                matches!(asked.command(), Command::New(_) | Command::Renew(_) | Command::Traffic(_) | Command::Roll(_));
            let kinds = kinds(&decision);
            let relies = on_service && kinds.iter().any(|kind| required.contains(kind));
            // A rollback that starts its target again takes it from the release.
            let relies = relies || kinds.contains(&"stack.requested");
            assert_eq!(requires, relies, "{asked:?} in {named:?}: {:?}", decision.requires);
        }
    }
}
