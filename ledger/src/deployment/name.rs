//! Names of stacks: which stack a name means, and what a stack is called.
//!
//! The stacks of one version are counted from 1 in the order in which they are asked for. `1.2.3` is the name of the first,
//! `1.2.3~2` of the second. While the first is failed or gone, `1.2.3` also means the only other one.

use std::cmp::Reverse;

use schemas::{StackId, StackName, Version, Weight};

use super::{Case, Deployment, Phase, Stack};
use crate::decision::Rejection;

impl Stack {
    /// Returns its name.
    pub fn name(&self) -> StackName {
        StackName::new(self.version.clone(), self.number)
    }
}

impl Deployment {
    /// Returns the version of `stack`, also of one that was collected if it ever held all traffic or is shown as failed.
    pub fn version_of(&self, stack: StackId) -> Option<&Version> {
        self.known(stack).map(|(version, _)| version)
    }

    /// Returns the name of `stack`, of as many as [`Deployment::version_of`] knows.
    pub fn name_of(&self, stack: StackId) -> Option<StackName> {
        self.known(stack).map(|(version, number)| StackName::new(version.clone(), number))
    }

    /// Returns the name of `stack` for people to read: also of one that is gone and was rolled out last, is held against
    /// something, or whose rollout was dropped. No decision rests on it.
    pub fn remembered_name(&self, stack: StackId) -> Option<StackName> {
        let rollout = || {
            let rollout = self.rollout.as_ref()?;
            let names = rollout.names.as_ref()?;
            let canary = (stack == rollout.canary).then(|| names.canary.clone());
            canary.or_else(|| (stack == rollout.baseline).then(|| names.baseline.clone()))
        };
        let rejected = || {
            let found = self.traffic.rejected.iter().find(|rejected| rejected.stack == stack)?;
            Some(StackName::new(found.version.clone(), found.number))
        };
        let dropped = || {
            let found = self.dropped.iter().find(|dropped| dropped.stack == stack)?;
            Some(StackName::new(found.version.clone(), found.number))
        };
        self.name_of(stack).or_else(rollout).or_else(rejected).or_else(dropped)
    }

    /// Returns the same in words: of a stack that nobody remembers, that it is gone.
    pub fn told_name(&self, stack: StackId) -> String {
        self.remembered_name(stack).map_or("a gone stack".to_owned(), |name| name.to_string())
    }

    fn known(&self, stack: StackId) -> Option<(&Version, u32)> {
        let holder = || self.traffic.holders.iter().rev().find(|holder| holder.stack == stack);
        let held = || holder().map(|holder| (&holder.version, holder.number));
        let failed = || self.failed.get(&stack).map(|failed| (&failed.version, failed.number));
        self.stacks.get(&stack).map(|stack| (&stack.version, stack.number)).or_else(held).or_else(failed)
    }

    /// Returns the name of the next stack of `version`: its number is above that of every stack of it that is remembered, and of
    /// every second one that ever was.
    pub(super) fn next_name(&self, version: &Version) -> StackName {
        let traffic = &self.traffic;
        let stacks = self.stacks.values().map(|stack| &stack.version);
        let failed = self.failed.values().map(|failed| &failed.version);
        let holders = traffic.holders.iter().map(|holder| &holder.version);
        let rejected = traffic.rejected.iter().map(|rejected| &rejected.version);
        let dropped = self.dropped.iter().map(|dropped| &dropped.version);
        let mut known = stacks.chain(failed).chain(holders).chain(rejected).chain(dropped);
        let last = self.numbers.get(version).copied().or_else(|| known.any(|known| known == version).then_some(1));
        StackName::new(version.clone(), last.unwrap_or(0).saturating_add(1))
    }

    /// Returns the stack of `version` that is not being taken down: of several the one with traffic, then the one that is
    /// furthest, then the newest.
    pub fn stack_for(&self, version: &Version) -> Option<(StackId, &Stack)> {
        self.best(self.live_of(version))
    }

    fn live_of(&self, version: &Version) -> impl Iterator<Item = (StackId, &Stack)> {
        let of_version = self.stacks.iter().filter(move |(_, stack)| stack.version == *version);
        of_version.filter(|(_, stack)| !matches!(stack.phase, Phase::Collecting { .. })).map(|(id, stack)| (*id, stack))
    }

    fn best<'a>(&self, stacks: impl Iterator<Item = (StackId, &'a Stack)>) -> Option<(StackId, &'a Stack)> {
        let rank = |stack: &Stack| match stack.phase {
            Phase::Ready => 3,
            Phase::Unhealthy => 2,
            Phase::Starting => 1,
            Phase::Failed { .. } | Phase::Collecting { .. } => 0,
        };
        let serves = |id: StackId| self.traffic.set_weight(id) > Weight::ZERO;
        stacks.max_by_key(|(id, stack)| (serves(*id), rank(stack), stack.requested_at, *id))
    }

    /// Returns the stack that is not being taken down and that `name` means; none if there is none.
    ///
    /// # Errors
    ///
    /// The names of the stacks that a version may mean, the oldest first: its first stack is failed or gone, and several others
    /// stand.
    pub fn stack_named(&self, name: &StackName) -> Result<Option<(StackId, &Stack)>, Vec<StackName>> {
        let StackName { version, number } = name;
        let numbered = || self.live_of(version).filter(|(_, stack)| stack.number == *number);
        let stands = |(_, stack): &(StackId, &Stack)| !matches!(stack.phase, Phase::Failed { .. });
        if !name.is_first() || numbered().any(|found| stands(&found)) {
            return Ok(self.best(numbered()));
        }
        let mut others: Vec<(StackId, &Stack)> = self.live_of(version).filter(stands).collect();
        others.sort_by_key(|(id, stack)| (stack.number, *id));
        match others[..] {
            [] => Ok(self.live_of(version).min_by_key(|(id, stack)| (stack.number, Reverse(*id)))),
            [only] => Ok(Some(only)),
            _ => Err(others.iter().map(|(_, stack)| stack.name()).collect()),
        }
    }
}

impl Case<'_> {
    /// Returns the stack of a name, as [`Deployment::stack_named`].
    ///
    /// # Errors
    ///
    /// [`Rejection::Unknown`] if the release was never recorded, [`Rejection::NotReady`] if there is no such stack,
    /// [`Rejection::Ambiguous`] if there are several.
    pub(crate) fn stack_of(&self, name: &StackName) -> Result<(StackId, &Stack), Rejection> {
        let deployment = || self.id.clone();
        let found = self.deployment.stack_named(name).map_err(|stacks| Rejection::Ambiguous {
            deployment: deployment(),
            version: name.version.clone(),
            stacks,
        })?;
        if let Some(found) = found {
            return Ok(found);
        }
        let (version, service) = (&name.version, &self.id.service);
        if !self.service.releases.contains_key(version) {
            return Err(Rejection::unknown_release(service, version, self.service.releases.keys()));
        }
        let (why, next) = self.no_stack(name);
        Err(Rejection::NotReady { deployment: deployment(), version: name.clone(), why: why.into(), next: next.into() })
    }

    /// Says why there is no stack of a name, and what to do.
    fn no_stack(&self, name: &StackName) -> (&'static str, String) {
        let (version, arguments) = (&name.version, &self.id.service);
        let env = self.id.env_flag();
        let collecting = self.deployment.stacks.values().any(|stack| name.means(&stack.version, stack.number));
        let what = if collecting { "its stack is being taken down" } else { "it has no stack" };
        let mut others: Vec<StackName> = self.deployment.live_of(version).map(|(_, stack)| stack.name()).collect();
        others.sort();
        let next = match others.is_empty() {
            true => format!("make one with `ionledger new {arguments} {version}{env}`"),
            false => {
                let others: Vec<String> = others.iter().map(ToString::to_string).collect();
                format!("the stacks of that version are {}", others.join(", "))
            }
        };
        (what, next)
    }
}
