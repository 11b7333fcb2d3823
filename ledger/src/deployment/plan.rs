//! The plan of a rollout: what was asked for, and the policy.

use schemas::Weight;
use schemas::command::PlanAsked;
use schemas::policy::{Policy, RolloutPolicy};
use schemas::rollout::Plan;

use crate::decision::Rejection;

/// Puts a plan together from what was asked for and the policy.
///
/// # Errors
///
/// [`Rejection::Invalid`] if the steps do not rise to 100 %, the duration is out of range, or the canary would have all
/// traffic before the policy's soak is over.
pub fn plan(asked: &PlanAsked, policy: &Policy) -> Result<Plan, Rejection> {
    let steps = asked.steps.clone().unwrap_or_else(|| policy.rollout.steps.clone());
    schemas::policy::check_steps(&steps).map_err(|rule| Rejection::Invalid(format!("steps: {rule}")))?;
    let duration_ms = asked.duration_ms.unwrap_or(policy.rollout.duration_ms);
    if duration_ms > 52 * 7 * 24 * 3_600_000 {
        return Err(Rejection::Invalid("a rollout takes at most 52 weeks".to_owned()));
    }
    let plan = with_bake(Plan { steps, duration_ms, bake_ms: 0 }, &policy.rollout);
    let (soak_ms, all_ms) = (policy.judgement.soak_ms, plan.all_ms());
    if soak_ms > all_ms {
        let length = |ms: u64| jiff::SignedDuration::from_millis(ms.try_into().unwrap_or(i64::MAX));
        return Err(Rejection::Invalid(format!(
            "the policy's soak is {:#}, and this plan gives all traffic after {:#}; plan for at least as long, or \
             declare a shorter soak",
            length(soak_ms),
            length(all_ms)
        )));
    }
    Ok(plan)
}

/// Puts the policy's bake before a plan's last step: a step of all but the control's share, in the place of those that leave
/// the old version no more. A plan of one step gets none: nobody judges it.
fn with_bake(mut plan: Plan, policy: &RolloutPolicy) -> Plan {
    let bake = Weight::FULL.basis_points().saturating_sub(policy.control.basis_points());
    let (Ok(bake), true) = (Weight::from_basis_points(bake), policy.bake_ms > 0 && plan.steps.len() > 1) else {
        return plan;
    };
    plan.steps.retain(|step| *step < bake);
    plan.steps.extend([bake, Weight::FULL]);
    Plan { bake_ms: policy.bake_ms, ..plan }
}

/// Says where the policy's bake makes `plan` another one than was asked for, or cannot be in it.
pub fn bake_note(asked: &PlanAsked, plan: &Plan, policy: &Policy) -> Option<String> {
    let (rollout, length) = (&policy.rollout, jiff::SignedDuration::from_millis);
    if rollout.bake_ms == 0 {
        return None;
    }
    let Some(bake) = plan.bake_step().map(|step| plan.steps[usize::from(step)]) else {
        let bake = length(i64::try_from(rollout.bake_ms).unwrap_or(i64::MAX));
        return Some(format!("a plan of one step gets no bake; with two steps or more it gets the policy's, {bake:#}"));
    };
    let steps = asked.steps.as_ref().unwrap_or(&rollout.steps);
    let replaced = steps.iter().filter(|step| **step > bake && **step < Weight::FULL);
    let replaced: Vec<String> = replaced.map(ToString::to_string).collect();
    (!replaced.is_empty()).then(|| {
        let (steps, control) = (replaced.join(", "), rollout.control);
        format!(
            "the bake at {bake} takes the place of the plan's {steps}: until it is over the old version keeps {control}"
        )
    })
}
