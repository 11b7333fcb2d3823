//! Break glass: what is written down of a rollback that is carried out while the ledger gives no verdict, until the
//! ledger has it.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::actor::Actor;
use crate::envelope::{CommandRef, Head};
use crate::id::{CommandId, CommitId, DeploymentId, Fence, LedgerId, RolloutId, StackId, StreamVersion, Version};
use crate::judgement::{Counted, Judged};
use crate::name::StackName;

/// A rollback that was decided on the last view of the ledger: everything that is needed to carry it out, and to record it
/// later as what it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intent {
    /// The ledger it belongs to.
    pub ledger: LedgerId,
    /// The command it carries out, the same as that of the append that got no verdict: one of the two counts.
    pub command: CommandRef,
    /// Whose traffic.
    pub deployment: DeploymentId,
    /// Who asked for it, and how they proved who they are.
    pub actor: Actor,
    /// The commit that led to it.
    pub cause: Option<CommitId>,
    /// What the actor gave as the reason.
    pub reason: Option<String>,
    /// Why, as `traffic.rolled_back` says it.
    pub why: String,
    /// When it was decided; `moved_at` says when it took effect.
    pub at: Timestamp,
    /// The stack that gets all traffic.
    pub to: StackId,
    /// Its name.
    pub version: StackName,
    /// Targets that were passed over because they are known to be unhealthy.
    pub passed_over: Vec<StackId>,
    /// The rollout that it ends.
    pub rollout: Option<RolloutId>,
    /// What was counted of the canary and not recorded before, if it was the judge.
    pub counted: Option<Counted>,
    /// What the judge said of it.
    pub judged: Option<Judged>,
    /// The deployment's head that it was decided on.
    pub head: Head,
    /// The deployment's fence then.
    pub fence: Fence,
    /// The generation under which the router is told.
    pub generation: StreamVersion,
    /// The rollback of the same deployment that it came after, and that the ledger did not have then either: it goes back from where
    /// that one went to, and is recorded after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<CommandId>,
    /// When the router confirmed it; none if it has not, or if nobody noted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_at: Option<Timestamp>,
}

/// A rollback that was asked for and that the ledger does not have yet, as `status`, `history` and answers show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unrecorded {
    /// Whose traffic.
    pub deployment: DeploymentId,
    /// The version that gets all of it.
    pub version: Version,
    /// The name of its stack.
    #[serde(default)]
    pub name: Option<StackName>,
    /// The command that it carries out.
    pub command: CommandId,
    /// Who asked for it.
    pub actor: Actor,
    /// What they gave as the reason.
    pub reason: Option<String>,
    /// When it was decided.
    pub at: Timestamp,
    /// The file that keeps it until the ledger has it; none if it could not be written.
    pub file: Option<String>,
    /// What keeps it from being carried out or recorded, as far as is known.
    #[serde(default)]
    pub trouble: Option<String>,
    /// Whether the router confirmed that users were moved; none if whoever tells of it does not know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<bool>,
    /// What was decided in the ledger since, so that this rollback will change nothing there; none if it still decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overtaken: Option<String>,
}

impl Unrecorded {
    /// Returns the name of the stack that gets all traffic.
    pub fn name(&self) -> StackName {
        self.name.clone().unwrap_or_else(|| self.version.clone().into())
    }
}
