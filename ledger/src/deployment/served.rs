//! What users get: what the router confirmed last. Where no node of a stack that is set can be called, the router keeps what it
//! serves until one can.

use schemas::{DeploymentId, StackId, Weight, Weights};

use super::rollback::live;
use super::{Deployment, Phase, Stack, rejected, stranded};

/// What users get, where that is not what is set, or no node of it passes its check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServingTrouble {
    /// What, and why.
    pub why: String,
    /// The command that moves all users to a stack that passes, where one would be taken.
    pub next: Option<String>,
}

/// Names the stacks that users are on, with their shares where there are several.
pub fn named(deployment: &Deployment) -> String {
    let traffic = &deployment.traffic;
    let weights = traffic.applied.as_ref().map(|applied| &applied.weights);
    let weights = weights.or(traffic.set.as_ref().map(|set| &set.weights));
    weights.map_or_else(|| "nothing".to_owned(), |weights| shares(deployment, weights))
}

/// Returns what users are on. That is what is set, unless the router has not served it yet and can call none of its nodes: then it
/// is what the router confirmed last.
pub(super) fn on(deployment: &Deployment) -> Option<&Weights> {
    let traffic = &deployment.traffic;
    let set = &traffic.set.as_ref()?.weights;
    let is_served = traffic.is_applied() || set.stacks().all(|stack| deployment.can_be_called(stack));
    let kept = traffic.applied.as_ref().map(|applied| &applied.weights).filter(|_| !is_served);
    Some(kept.unwrap_or(set))
}

/// Returns the stacks that are set and those that users are on.
pub(super) fn stacks_set_or_on(deployment: &Deployment) -> impl Iterator<Item = StackId> + '_ {
    deployment.traffic.stacks_set().chain(on(deployment).into_iter().flat_map(Weights::stacks))
}

fn shares(deployment: &Deployment, weights: &Weights) -> String {
    if let Some(only) = weights.sole() {
        return deployment.told_name(only);
    }
    let mut shares: Vec<(StackId, Weight)> = weights.iter().collect();
    shares.sort_by_key(|(stack, weight)| (std::cmp::Reverse(*weight), *stack));
    let shares = shares.into_iter().map(|(stack, weight)| format!("{} ({weight})", deployment.told_name(stack)));
    shares.collect::<Vec<_>>().join(" and ")
}

impl Deployment {
    /// Says whether a node of a stack can be called, so that the router can serve it.
    pub fn can_be_called(&self, stack: StackId) -> bool {
        let stack = self.stacks.get(&stack);
        stack.is_some_and(|stack| stack.nodes.values().any(|node| node.callable().is_some()))
    }

    /// Says whether a node of a stack passes its check.
    pub fn passes(&self, stack: StackId) -> bool {
        self.stacks.get(&stack).is_some_and(|stack| stack.ready_nodes() > 0)
    }
}

/// Returns what users get, where that is not what is set because no node of it can be called, or where no node of it passes its
/// check. Users beside others who are on a stack that passes are [`stranded`], and not told here.
pub fn trouble(deployment: &Deployment, id: &DeploymentId) -> Option<ServingTrouble> {
    let traffic = &deployment.traffic;
    let set = traffic.set.as_ref()?;
    let uncallable = set.weights.stacks().find(|stack| !deployment.can_be_called(*stack));
    let served = traffic.applied.as_ref().map(|applied| &applied.weights);
    if let (Some(wanted), false) = (uncallable, served == Some(&set.weights)) {
        let (name, why) = (deployment.told_name(wanted), why(deployment, wanted));
        let Some(served) = served else {
            return Some(ServingTrouble {
                why: format!("nothing: no node of {name} can be called ({why})"),
                next: None,
            });
        };
        let failing =
            served.iter().map(|(stack, _)| stack).find(|stack| *stack != wanted && !deployment.passes(*stack));
        let failing = failing.map(|stack| format!("; {} does not pass, either", deployment.told_name(stack)));
        let served_name = shares(deployment, served);
        let why =
            format!("still {served_name}: no node of {name} can be called ({why}){}", failing.unwrap_or_default());
        let passing = served.sole().filter(|stack| deployment.passes(*stack));
        return Some(ServingTrouble { why, next: passing.and_then(|stack| stranded::way_out(deployment, id, stack)) });
    }
    let served = served?;
    if served.iter().any(|(stack, _)| deployment.passes(stack)) {
        return None;
    }
    let (failing, _) = served.iter().max_by_key(|(_, weight)| *weight)?;
    let (names, why) = (shares(deployment, served), why(deployment, failing));
    let gets = match served.iter().any(|(stack, _)| deployment.can_be_called(stack)) {
        true => "what nodes answer that do not pass their check",
        false => "failures, no node can be called",
    };
    let next = elsewhere(deployment, served).and_then(|stack| stranded::way_out(deployment, id, stack));
    Some(ServingTrouble { why: format!("{gets}: they are on {names} ({why})"), next })
}

/// Returns the stack that users who are on none that passes could be moved to: the newest that passes, one that was not rejected
/// before one that was. None during a rollout, which ends first.
fn elsewhere(deployment: &Deployment, served: &Weights) -> Option<StackId> {
    if live(deployment).is_some() {
        return None;
    }
    let unused = deployment.stacks.iter().filter(|(id, stack)| {
        stack.phase == Phase::Ready && deployment.passes(**id) && served.of(**id) == Weight::ZERO
    });
    let rank = |(id, stack): &(&StackId, &Stack)| (rejected::of(deployment, **id).is_none(), stack.requested_at, **id);
    unused.max_by_key(rank).map(|(id, _)| *id)
}

fn why(deployment: &Deployment, stack: StackId) -> String {
    deployment.stacks.get(&stack).map_or_else(|| "it is gone".to_owned(), super::Stack::trouble)
}
