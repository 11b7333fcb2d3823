//! What stacks are called in answers. A server that does not name them yet gives their versions alone.

use schemas::{StackName, Version};

use super::{
    DeploymentStatus, DroppedStatus, RollbackTarget, RolloutStatus, Shipped, StrandedStatus, VersionStatus,
    WaitingStatus,
};

fn named(name: Option<&StackName>, version: Option<&Version>) -> Option<StackName> {
    name.cloned().or_else(|| version.cloned().map(StackName::from))
}

impl VersionStatus {
    /// Returns the stack's name.
    pub fn name(&self) -> StackName {
        self.name.clone().unwrap_or_else(|| self.version.clone().into())
    }

    /// Says whether `name` means it: it is its name, or the version of whichever stack.
    pub fn is_called(&self, name: &StackName) -> bool {
        name.means(&self.version, self.name().number)
    }
}

impl DeploymentStatus {
    /// Returns the name of the stack that a rollback waits for.
    pub fn rolling_back_to_name(&self) -> Option<StackName> {
        named(self.rolling_back_to_name.as_ref(), self.rolling_back_to.as_ref())
    }
}

impl RolloutStatus {
    /// Returns the name of the stack that served.
    pub fn baseline_name(&self) -> Option<StackName> {
        named(self.baseline_name.as_ref(), self.baseline.as_ref())
    }

    /// Returns the name of the canary's stack.
    pub fn canary_name(&self) -> Option<StackName> {
        named(self.canary_name.as_ref(), self.canary.as_ref())
    }
}

impl RollbackTarget {
    /// Returns the name of its stack.
    pub fn name(&self) -> Option<StackName> {
        named(self.name.as_ref(), self.version.as_ref())
    }
}

impl StrandedStatus {
    /// Returns the name of the stack that users are on.
    pub fn name(&self) -> Option<StackName> {
        named(self.name.as_ref(), self.version.as_ref())
    }
}

impl WaitingStatus {
    /// Returns the name of its stack.
    pub fn name(&self) -> Option<StackName> {
        named(self.name.as_ref(), self.version.as_ref())
    }
}

impl DroppedStatus {
    /// Returns the name of its stack.
    pub fn name(&self) -> StackName {
        self.name.clone().unwrap_or_else(|| self.version.clone().into())
    }
}

impl Shipped {
    /// Returns the name of its stack.
    pub fn name(&self) -> Option<StackName> {
        named(self.name.as_ref(), self.version.as_ref())
    }
}
