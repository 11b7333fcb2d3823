//! Invariant 16: what begins by itself goes forward and not while there is a hold, and one at most waits to.

use schemas::policy::HoldAfter;
use schemas::{ActorKind, DeploymentId, Event, Offset, StackId, hold, rollout, stack};

use crate::checks::Checks;
use crate::reference_model::{Counted, Stack};

impl Checks {
    /// At most one rollout waits.
    pub(super) fn check_request(&mut self, offset: Offset, id: &DeploymentId, requested: &rollout::Requested) {
        let waiting = self.model.deployments.get(id).and_then(|of| of.waiting);
        self.must(16, waiting.is_none(), || format!("#{offset}: {} waits and so does {waiting:?}", requested.stack));
    }

    /// What a person does not begin by hand, and nobody has asked for since, does not begin on hold.
    pub(super) fn check_hold(&mut self, offset: Offset, id: &DeploymentId, commit: &Counted, stack: StackId) {
        let by = commit.about.actor.clone();
        let Some(of) = self.model.deployments.get(id).filter(|_| by.kind != ActorKind::Person) else { return };
        let asked_at = of.waiting_by_hand.filter(|_| of.waiting == Some(stack));
        let against = of.holds.iter().find(|(_, since)| asked_at.is_none_or(|asked_at| asked_at <= **since));
        let against = against.map(|(cause, since)| (*cause, *since));
        self.must(16, against.is_none(), || format!("#{offset}: {by} begins {stack} of {id} on hold, {against:?}"));
    }

    /// A person's rollback puts the deployment on hold, unless the policy says never.
    pub(super) fn check_held(&mut self, offset: Offset, id: &DeploymentId, commit: &Counted) {
        let never = self.model.services.get(&id.service).is_none_or(|service| service.hold_after == HoldAfter::Never);
        let sets = commit.events.iter().any(|(_, event)| matches!(event, Ok(Event::Hold(hold::Event::HoldSet(_)))));
        let by = commit.about.actor.clone();
        self.must(16, never || sets || by.kind != ActorKind::Person, || {
            format!("#{offset}: {by} rolls {id} back, and pipelines go on")
        });
    }

    /// Two stacks of one version are told apart as long as both are there.
    pub(super) fn check_named(&mut self, offset: Offset, id: &DeploymentId, requested: &stack::Requested) {
        let same = |stack: &&Stack| stack.version == requested.version && stack.number == requested.number;
        let taken = self.model.deployments.get(id).is_some_and(|of| of.stacks.values().any(|stack| same(&stack)));
        self.must(16, !taken, || format!("#{offset}: {id} has two stacks {}~{}", requested.version, requested.number));
    }

    /// What a person does not begin by hand never goes back to an older release, nor to an older stack of one.
    pub(super) fn check_begins(
        &mut self,
        offset: Offset,
        id: &DeploymentId,
        commit: &Counted,
        started: &rollout::Started,
    ) {
        let Some(of) = self.model.deployments.get(id).filter(|_| commit.about.actor.kind != ActorKind::Person) else {
            return;
        };
        let name = |stack: &StackId| of.stacks.get(stack).map(|stack| (stack.version.clone(), stack.number));
        let (from, to) = (name(&started.baseline), name(&started.canary));
        let service = self.model.services.get(&id.service);
        let back = match (&from, &to, service) {
            (Some((from, n)), Some((to, m)), Some(service)) => service.is_older(to, from) || (to == from && m < n),
            _ => false,
        };
        let by = commit.about.actor.clone();
        self.check_hold(offset, id, commit, started.canary);
        self.must(16, !back, || format!("#{offset}: {by} takes {id} back from {from:?} to {to:?}"));
    }
}
