//! Invariant 16: what begins by itself goes forward, and one at most waits to.

use schemas::{ActorKind, DeploymentId, Offset, StackId, rollout};

use crate::book::Counted;
use crate::checks::Checks;

impl Checks {
    /// At most one rollout waits.
    pub(super) fn check_request(&mut self, offset: Offset, id: &DeploymentId, requested: &rollout::Requested) {
        let waiting = self.book.deployments.get(id).and_then(|of| of.waiting);
        self.must(16, waiting.is_none(), || format!("#{offset}: {} waits and so does {waiting:?}", requested.stack));
    }

    /// What a person does not begin by hand never goes back to an older release.
    pub(super) fn check_begins(
        &mut self,
        offset: Offset,
        id: &DeploymentId,
        commit: &Counted,
        started: &rollout::Started,
    ) {
        let Some(of) = self.book.deployments.get(id).filter(|_| commit.about.actor.kind != ActorKind::Person) else {
            return;
        };
        let version = |stack: &StackId| of.stacks.get(stack).map(|stack| stack.version.clone());
        let (from, to) = (version(&started.baseline), version(&started.canary));
        let service = self.book.services.get(&id.service);
        let back = match (&from, &to, service) {
            (Some(from), Some(to), Some(service)) => service.is_older(to, from),
            _ => false,
        };
        let by = commit.about.actor.clone();
        self.must(16, !back, || format!("#{offset}: {by} takes {id} back from {from:?} to {to:?}"));
    }
}
