//! The checks of a rollout's steps: when they are taken, and on what.

use schemas::judgement::{Judged, Verdict};
use schemas::{DeploymentId, Offset, Timestamp, rollout};

use super::Checks;
use crate::cloud::Cloud;
use crate::reference_model;
use crate::world::{MINUTE, Ms, SECOND, time_at};

/// How long a step lasts at least where the judge sets the pace. Source: "Judging a canary", the ramp rule.
const EARLY_MIN: Ms = 2 * SECOND;

impl Checks {
    /// 17: a step is taken the plan's distance after the one before it at the earliest, pauses not counted; with `early` two
    /// seconds after it, and after a bake all the same.
    pub(super) fn check_distance(
        &mut self,
        offset: Offset,
        id: &DeploymentId,
        taken: &rollout::StepTaken,
        time: Timestamp,
    ) {
        let Some(of) = self.model.deployments.get(id).and_then(|of| of.rollout.as_ref()) else { return };
        let Some((last, at)) = of.step_at else { return };
        let planned = of.plan.due_ms(taken.step) - of.plan.due_ms(last);
        let baked = of.plan.bake_step() == Some(last);
        let least = if of.early && !baked { planned.min(EARLY_MIN) } else { planned };
        let (passed, late) = (reference_model::ms_between(at, time).saturating_sub(of.paused_ms), of.is_late(last, at));
        self.late_steps += u64::from(late);
        self.bakes += u64::from(baked);
        let step = taken.step;
        self.must(17, passed >= least, || {
            format!("#{offset}: {id} takes step {step} {passed} ms after the one before it, the plan has {least} ms")
        });
    }

    /// 18: no step is taken while a rollback waits for its target.
    pub(super) fn check_no_rollback_waits(&mut self, offset: Offset, id: &DeploymentId) {
        let awaited = self.model.deployments.get(id).and_then(|of| of.awaited);
        self.must(18, awaited.is_none(), || {
            format!("#{offset}: {id} takes a step while a rollback waits for its target")
        });
    }

    /// 8: a step after the first rests on requests that truly happened since the rollout began, enough of them, and a
    /// verdict.
    pub(super) fn check_step(
        &mut self,
        offset: Offset,
        id: &DeploymentId,
        taken: &rollout::StepTaken,
        judged: Option<&Judged>,
        cloud: &Cloud,
        now: Ms,
    ) {
        let Some(of) = self.model.deployments.get(id).and_then(|of| of.rollout.as_ref()) else { return };
        if of.step_at.is_none() {
            return;
        }
        let (canary, min) = (of.canary, of.requests_min);
        // A writer's clock may be ahead of the world's.
        let began = of.started_at.duration_since(time_at(0)).as_millis();
        let from = Ms::try_from(began).unwrap_or(0).saturating_sub(MINUTE);
        let router = &cloud.router;
        let true_requests = router.truth_at(canary, now).saturating_sub(router.truth_at(canary, from));
        let step = taken.step;
        let Some(judged) = judged else {
            return self.fail(8, format!("#{offset}: {id} takes step {step} without a verdict"));
        };
        self.must(8, judged.verdict != Verdict::Worse && judged.canary.requests >= min, || {
            format!("#{offset}: {id} takes step {step} on {} of {min} requests", judged.canary.requests)
        });
        self.must(8, judged.canary.requests <= true_requests, || {
            format!("#{offset}: {id} counts {} requests, there were {true_requests}", judged.canary.requests)
        });
    }
}
