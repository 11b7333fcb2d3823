//! Break glass: what a rollback comes to on the last view, and how it is recorded once the log is back.

use schemas::break_glass::Intent;
use schemas::command::{self, Command, Request};
use schemas::envelope::{About, CommandRef, Draft};
use schemas::outcome::{self, Outcome};
use schemas::traffic;
use schemas::{Actor, CommitId, Event, Probed, StreamVersion};

use super::prepare::prepare;
use super::{Asked, Executed, Ledger, Prepared, Refusal, What};
use crate::decision::{Now, Told};
use crate::deployment::rollback;
use crate::view::View;

/// What a rollback comes to on the last view of the ledger.
#[derive(Clone, Debug, PartialEq)]
pub enum EmergencyDecision {
    /// All traffic goes to a stack that can take it.
    Back(Box<Intent>),
    /// It is already so, or was carried out before.
    Nothing(Told),
    /// Its target must be started first, which the ledger alone can have done: why, and what can be done at once.
    Cold(String),
}

impl Asked {
    /// Returns what a person or a pipeline asks, with the fence left open.
    /// `probed`: what the newest probes say of its deployment's stacks.
    pub fn request(request: &Request, actor: Actor, cause: Option<CommitId>, probed: Probed) -> Self {
        let Request { id, command, fence, reason, effective_at } = request.clone();
        let about = About { cause, correlation: cause, reason, effective_at, ..About::by(actor) };
        let reference = CommandRef { id, hash: command.hash() };
        Self { command: Some(reference), what: What::Command { command, fence, probed }, about }
    }

    /// Returns that a rollback is to be recorded that was asked for while the log gave no verdict. `generation`: what the router
    /// holds. `moved`: whether the router served it before now, if that is known; then it took effect when the router confirmed
    /// it or, where nobody noted that, when it was asked for. What is not known to have been served counts from now on.
    pub fn late(intent: &Intent, generation: StreamVersion, moved: Option<bool>) -> Self {
        let about = About {
            cause: intent.cause,
            correlation: intent.cause,
            reason: intent.reason.clone(),
            effective_at: (moved == Some(true)).then(|| intent.moved_at.unwrap_or(intent.at)),
            ..About::by(intent.actor.clone())
        };
        let what = What::BreakGlass { intent: Box::new(intent.clone()), generation, moved };
        Self { command: Some(intent.command), what, about }
    }

    /// Says whether it goes to the rollback's target whatever its check says.
    pub fn is_unready(&self) -> bool {
        matches!(self.what, What::Command { command: Command::Rollback(command::Rollback { unready: true, .. }), .. })
    }

    /// Returns what the newest probes say of its deployment's stacks, as far as it came with that.
    fn probed(&self) -> Probed {
        match &self.what {
            What::Command { probed, .. } => probed.clone(),
            What::Outcome { .. } | What::BreakGlass { .. } => Probed::default(),
        }
    }

    /// Returns the deployment that it is about, if it is about one.
    pub fn deployment(&self) -> Option<&schemas::DeploymentId> {
        match &self.what {
            What::Command { command, .. } => command.deployment(),
            What::Outcome { outcome: Outcome::Deployment(outcome::DeploymentReport { deployment, .. }), .. } => {
                Some(deployment)
            }
            What::Outcome { .. } => None,
            What::BreakGlass { intent, .. } => Some(&intent.deployment),
        }
    }
}

impl Ledger {
    /// Decides a rollback on the view as it is now, without the log.
    ///
    /// # Errors
    ///
    /// [`Refusal`] as [`Ledger::execute`], as far as the view knows.
    pub fn decide_emergency(&self, asked: &Asked) -> Result<EmergencyDecision, Refusal> {
        let view = self.view();
        decide_emergency(&view, asked, self.now(&view))
    }

    /// Says which stacks a rollback without the ledger goes past, and why: none if it goes past none.
    pub fn told_passed_over(&self, asked: &Asked, intent: &Intent) -> Option<String> {
        let view = self.view();
        let deployment = view.state().deployment(&intent.deployment)?;
        rollback::told_passed_over(deployment, &intent.passed_over, &asked.probed())
    }

    /// Records a rollback that was asked for while the log gave no verdict; `generation` and `moved` as [`Asked::late`].
    /// Repeating it is harmless: the command id counts once.
    ///
    /// # Errors
    ///
    /// [`Refusal`] as [`Ledger::execute`].
    pub async fn reconcile(
        &self,
        intent: &Intent,
        generation: StreamVersion,
        moved: Option<bool>,
    ) -> Result<Executed, Refusal> {
        self.settle(&Asked::late(intent, generation, moved), true, true).await
    }
}

/// Decides a rollback on `view`, without the log. The generation is the view's own; who carries it out puts it above the
/// router's.
///
/// # Errors
///
/// [`Refusal`] as [`Ledger::execute`], as far as the view knows.
pub fn decide_emergency(view: &View, asked: &Asked, now: Now) -> Result<EmergencyDecision, Refusal> {
    let draft = match prepare(view, asked, now, true)? {
        Prepared::Commit(draft, _) => draft,
        Prepared::Nothing(told) => return Ok(EmergencyDecision::Nothing(told)),
        Prepared::Before(done) => {
            let note = format!("it was carried out before, offset {} of the ledger", done.offset);
            return Ok(EmergencyDecision::Nothing(Told { notes: vec![note], stack: None }));
        }
    };
    let (state, id) = (view.state(), asked.deployment());
    let found = state.ledger.zip(id).and_then(|(ledger, id)| intent_of(&draft, ledger, id, state.deployment(id)?));
    Ok(match found {
        Some(intent) => EmergencyDecision::Back(Box::new(intent)),
        None => EmergencyDecision::Cold(why_cold(view, asked)),
    })
}

/// Says why a rollback cannot move users without the ledger, and which command can.
fn why_cold(view: &View, asked: &Asked) -> String {
    let state = view.state();
    let of = |id: &schemas::DeploymentId| {
        let goes_past = state.services.get(&id.service).is_none_or(|service| service.goes_past());
        Some(rollback::why_cold(state.deployment(id)?, id, &asked.probed(), goes_past))
    };
    asked.deployment().and_then(of).unwrap_or_else(|| "its deployment is unknown".to_owned())
}

/// Returns what a rollback's commit says, if it moves weights at once.
fn intent_of(
    draft: &Draft,
    ledger: schemas::LedgerId,
    id: &schemas::DeploymentId,
    deployment: &crate::Deployment,
) -> Option<Intent> {
    let events = || draft.events.iter().map(|(_, event)| event);
    let back = events().find_map(|event| match event {
        Event::Traffic(traffic::Event::RolledBack(back)) => Some(back),
        _ => None,
    })?;
    let set = events().find_map(|event| match event {
        Event::Traffic(traffic::Event::WeightsSet(set)) => Some(set),
        _ => None,
    })?;
    let judged = events().find_map(|event| match event {
        Event::Judgement(schemas::judgement::Event::Judged(judged)) => Some(judged.clone()),
        _ => None,
    });
    let counted = events().find_map(|event| match event {
        Event::Judgement(schemas::judgement::Event::Counted(counted)) => Some(counted.clone()),
        _ => None,
    });
    let head = draft.extends.iter().find(|head| head.stream == schemas::Stream::Deployment(id.clone()))?;
    Some(Intent {
        ledger,
        command: draft.command,
        deployment: id.clone(),
        actor: draft.about.actor.clone(),
        cause: draft.about.cause,
        reason: draft.about.reason.clone(),
        why: back.reason.clone(),
        at: draft.time,
        to: set.weights.sole()?,
        version: deployment.name_of(back.to)?,
        passed_over: back.passed_over.clone(),
        rollout: deployment.rollout.as_ref().filter(|rollout| rollout.is_live()).map(|rollout| rollout.id),
        counted,
        judged,
        head: head.clone(),
        fence: deployment.traffic.fence,
        generation: deployment.generation(),
        after: None,
        moved_at: None,
    })
}

/// Says whether a command may be carried out without the ledger: `rollback` alone.
pub fn may_break_glass(command: &Command) -> bool {
    matches!(command, Command::Rollback(_))
}
