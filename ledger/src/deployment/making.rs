//! Making stacks: `new` makes one of a release that has none, `renew` another one of a release that has.

use schemas::command::PlanAsked;
use schemas::rollout::Plan;
use schemas::run::Capacity;
use schemas::service::Definition;
use schemas::{StackId, StackName, Stream, Version, Weight, stack};

use super::{Case, Deployment, Phase, Stack, hold, plan, rejected, waiting};
use crate::decision::{Decision, Rejection};
use crate::service::Release;

/// Decides `new`: none if the version has a stack that is starting or was ready, and the rollout asked for is that
/// stack's too, is under way, or has nothing left to do. A rollout that is asked for of such a stack is asked for as that of a
/// new one. Stacks that were retired, or whose rollout was dropped, do not count: they go.
///
/// # Errors
///
/// [`Rejection::Unknown`] without the release, [`Rejection::Invalid`] for a plan that cannot be, for a stack that has some of
/// the traffic, or is being rolled out by another plan, [`Rejection::Older`] for a rollout that would go back, [`Rejection::Rejected`] for
/// one of a rejected version without `again`.
pub(super) fn decide_new(
    case: &Case<'_>,
    version: &Version,
    asked: Option<&PlanAsked>,
    again: bool,
) -> Result<Decision, Rejection> {
    let Case { id, deployment, .. } = case;
    let making = case.making(version, asked)?;
    let stands = |stack: &Stack| &stack.version == version && stack.may_serve() && !stack.retired && !stack.dropped;
    let mut stacks = deployment.stacks.iter().filter(|(_, stack)| stands(stack));
    let standing = stacks.clone().max_by_key(|(id, stack)| {
        (deployment.traffic.set_weight(**id), stack.phase == Phase::Ready, stack.requested_at, **id)
    });
    if let Some((standing, stack)) = standing {
        let Some((asked, plan)) = asked.zip(making.then_roll) else {
            return Ok(Decision::nothing_for(*standing, format!("{id} {version} already has a stack")));
        };
        return match stacks.find(|(stack, _)| rolls(deployment, **stack, &plan)) {
            None => roll_standing(case, (*standing, stack), making.definition, (asked, plan), again),
            Some((rolled, stack)) => {
                let note = format!("{id} {} is rolled out, or waits to be, as asked", stack.name());
                Ok(waiting::noted(case, Decision::nothing_for(*rolled, note)))
            }
        };
    }
    case.make(making, version, asked, again)
}

/// Decides that a stack which is there is rolled out, in the same way as a stack that is made for the rollout.
fn roll_standing(
    case: &Case<'_>,
    (stack, standing): (StackId, &Stack),
    definition: &Definition,
    (asked, plan): (&PlanAsked, Plan),
    again: bool,
) -> Result<Decision, Rejection> {
    let Case { id, deployment, .. } = case;
    let name = standing.name();
    if let Some(live) = deployment.rollout.as_ref().filter(|rollout| rollout.is_live() && rollout.canary == stack) {
        return Err(case.rolled_otherwise(live, &name));
    }
    let weight = deployment.traffic.set_weight(stack);
    if weight > Weight::ZERO {
        return Err(Rejection::Invalid(format!(
            "{id} {name} has {weight} of the traffic already, and a rollout begins at 0 %; `ionledger traffic {} \
             {name} 100{}` gives it all",
            id.service,
            id.env_flag()
        )));
    }
    case.check_again(name.clone(), stack, again)?;
    let baked = plan::bake_note(asked, &plan, &definition.policy);
    let fixed = hold::lifted_by_fix(case, &name.version);
    let events = waiting::request(case, stack, &name, plan)?.into_iter().chain(fixed);
    let mut decision = Decision::on(case.stream(), events.collect()).requiring(Stream::Service(id.service.clone()));
    decision.stack = Some(stack);
    decision.notes.push(format!("{name} already has a stack, and that one is rolled out"));
    decision.notes.extend(baked);
    Ok(waiting::noted(case, decision))
}

/// Decides `renew`: another stack of a release that has one. If one is starting already and will be rolled out in the same way,
/// nothing is decided. Without a version, the release is the one that users are on.
///
/// # Errors
///
/// As [`decide_new`], [`Rejection::Invalid`] if no version is named and users are not on one alone, and
/// [`Rejection::NotReady`] for a version that has no stack to renew.
pub(super) fn decide_renew(
    case: &Case<'_>,
    version: Option<&Version>,
    asked: Option<&PlanAsked>,
    again: bool,
) -> Result<Decision, Rejection> {
    let version = version.map_or_else(|| serving_version(case), Ok)?;
    let making = case.making(version, asked)?;
    if case.deployment.stack_for(version).is_none() {
        case.stack_of(&version.clone().into())?;
    }
    let plan_of = |stack: StackId| case.deployment.waiting.as_ref().filter(|waiting| waiting.stack == stack);
    let is_it = |(id, stack): &(&StackId, &Stack)| {
        let fresh = stack.phase == Phase::Starting && !stack.retired && !stack.dropped && stack.number > 1;
        let wanted = stack.version == *version && stack.capacity == making.definition.capacity;
        fresh && wanted && plan_of(**id).map(|waiting| &waiting.plan) == making.then_roll.as_ref()
    };
    if let Some((renewed, stack)) = case.deployment.stacks.iter().find(is_it) {
        return Ok(Decision::nothing_for(*renewed, format!("{} {} is starting already", case.id, stack.name())));
    }
    case.make(making, version, asked, again)
}

/// Returns the version that users are on.
fn serving_version<'a>(case: &Case<'a>) -> Result<&'a Version, Rejection> {
    let deployment = case.deployment;
    let serving = deployment.traffic.stacks_set();
    let mut versions: Vec<&Version> = serving.filter_map(|stack| deployment.version_of(stack)).collect();
    versions.sort();
    versions.dedup();
    match versions[..] {
        [only] => Ok(only),
        [] if deployment.stacks.values().any(|stack| !stack.retired) => {
            Err(Rejection::Invalid(format!("{} has no users; name the version to renew", case.id)))
        }
        [] => {
            let version = to_start(case).map_or("VERSION", Version::as_str);
            let new = format!("ionledger new {} {version}{}", case.id.service, case.id.env_flag());
            Err(Rejection::Invalid(format!("{} has no running version to renew; start it with `{new}`", case.id)))
        }
        _ => {
            let versions: Vec<&str> = versions.into_iter().map(Version::as_str).collect();
            let versions = versions.join(" and ");
            Err(Rejection::Invalid(format!("users of {} are on {versions}; name the version to renew", case.id)))
        }
    }
}

/// Returns the version to start with where nothing runs: the last that had all traffic, else the newest; none that is rejected.
fn to_start<'a>(case: &Case<'a>) -> Option<&'a Version> {
    let stands = |version: &&Version| rejected::of_version(case.deployment, version).is_none();
    let held = case.deployment.traffic.holders.iter().rev().map(|holder| &holder.version).find(stands);
    held.or_else(|| case.service.newest().filter(stands))
}

/// What a new stack is made of.
struct Making<'a> {
    release: &'a Release,
    definition: &'a Definition,
    then_roll: Option<Plan>,
}

impl<'a> Case<'a> {
    /// Returns what a stack of `version` is made of, and how it shall be rolled out.
    ///
    /// # Errors
    ///
    /// [`Rejection::Unknown`] without the release, [`Rejection::Invalid`] for a plan that cannot be.
    fn making(&self, version: &Version, asked: Option<&PlanAsked>) -> Result<Making<'a>, Rejection> {
        let (id, service) = (self.id, self.service);
        let release = service.releases.get(version);
        let release =
            release.ok_or_else(|| Rejection::unknown_release(&id.service, version, service.releases.keys()))?;
        let definition = service.definition.as_ref();
        let definition = definition.ok_or_else(|| Rejection::unknown_service(&id.service, []))?;
        let then_roll = asked.map(|asked| plan::plan(asked, &definition.policy)).transpose()?;
        Ok(Making { release, definition, then_roll })
    }

    /// Decides to make a stack, and to let its rollout wait for it.
    ///
    /// # Errors
    ///
    /// [`Rejection::Older`] for a rollout that would go back, [`Rejection::Rejected`] for one of a rejected version without
    /// `again`.
    fn make(
        &self,
        making: Making<'_>,
        version: &Version,
        asked: Option<&PlanAsked>,
        again: bool,
    ) -> Result<Decision, Rejection> {
        let Making { release, definition, then_roll } = making;
        if then_roll.is_some() {
            self.check_version_again(version, again)?;
        }
        let baked = asked.zip(then_roll.as_ref());
        let baked = baked.and_then(|(asked, plan)| plan::bake_note(asked, plan, &definition.policy));
        let stack: StackId = self.now.commit.into();
        let requested = self.requested(release, definition.capacity);
        let name = StackName::new(version.clone(), requested.number);
        let rolling = then_roll.map(|plan| waiting::request(self, stack, &name, plan)).transpose()?;
        let lifted = rolling.as_ref().and_then(|_| hold::lifted_by_fix(self, version));
        let events = [requested.into()].into_iter().chain(rolling.into_iter().flatten()).chain(lifted).collect();
        let mut decision = Decision::on(self.stream(), events).requiring(Stream::Service(self.id.service.clone()));
        decision.notes.extend(baked);
        Ok(waiting::noted(self, decision))
    }

    /// The event that asks for the next stack of a release.
    pub(super) fn requested(&self, release: &Release, capacity: Capacity) -> stack::Requested {
        let recorded = &release.recorded;
        let StackName { version, number } = self.deployment.next_name(&recorded.version);
        stack::Requested {
            stack: self.now.commit.into(),
            version,
            number,
            artifact: recorded.artifact.clone(),
            run: recorded.run.clone(),
            capacity,
            then_roll: None,
        }
    }
}

/// Says whether such a rollout of `stack` is asked for or under way, or has nothing left to do.
fn rolls(deployment: &Deployment, stack: StackId, plan: &Plan) -> bool {
    let live = deployment.rollout.as_ref().filter(|rollout| rollout.is_live() && rollout.canary == stack);
    waiting::waits(deployment, stack, plan)
        || live.is_some_and(|rollout| rollout.plan == *plan)
        || deployment.traffic.set_weight(stack) == Weight::FULL
}
