//! A service's policy: how it is rolled out, judged and kept. Data in the ledger, so that "what was the
//! tolerance then?" has an answer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::weight::Weight;

pub mod judgement;
pub mod metric;
mod named_queries;
mod queries;
mod source;

pub use judgement::{Deadline, JudgementPolicy, Prometheus};
pub use metric::{Metric, Metrics, Tolerance};
pub use named_queries::{LATENCY, Queries, REQUESTS};
pub use source::{NamedSource, ROUTER};

/// Everything a service's owners decide about its releases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// How a rollout goes.
    #[serde(default)]
    pub rollout: RolloutPolicy,
    /// When a canary counts as worse.
    #[serde(default)]
    pub judgement: JudgementPolicy,
    /// How long stacks are kept.
    #[serde(default)]
    pub retention: RetentionPolicy,
}

/// How a rollout goes when its command does not say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutPolicy {
    /// The canary's weights, rising, the last of them 100 %, in basis points.
    #[serde(default = "default_steps")]
    pub steps: Vec<Weight>,
    /// How long a rollout takes from its first step to its last, in milliseconds.
    #[serde(default = "default_duration_ms")]
    pub duration_ms: u64,
    /// Whether a release that CI reports is rolled out by itself (to `production`).
    #[serde(default)]
    pub on_release: bool,
    /// How long after its first step a canary that is judged not worse may have all traffic although the plan has not
    /// come to its end, in milliseconds. Left out: not before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_after_ms: Option<u64>,
    /// How long, after the plan's duration, the old version keeps a small share, in milliseconds: the bake, in which the
    /// canary is judged on. 0: not at all.
    #[serde(default, skip_serializing_if = "crate::rollout::is_zero")]
    pub bake_ms: u64,
    /// The share that the old version keeps meanwhile, in basis points.
    #[serde(default = "default_control", skip_serializing_if = "is_default_control")]
    pub control: Weight,
    /// Whether a rollback whose target does not pass its check goes to an older version that does. If not, the target is
    /// started again while users stay where they are.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub rollback_past_target: bool,
    /// Which rollbacks put the deployment on hold.
    #[serde(default, skip_serializing_if = "HoldAfter::is_default")]
    pub hold_after: HoldAfter,
}

/// Which rollbacks put a deployment on hold: pipelines' releases are then prepared and not rolled out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HoldAfter {
    /// A person's, and a person's abort.
    #[default]
    Rollback,
    /// The judge's, too.
    Any,
    /// None.
    Never,
}

impl HoldAfter {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

/// Source: "Judging a canary", zero traffic: keep 1 to 5 % on the old version until the soak ends.
fn default_control() -> Weight {
    Weight::from_percent(5)
}

fn is_default_control(control: &Weight) -> bool {
    *control == default_control()
}

/// Source: design, "Rollouts": 1, 2, 5, 10, 25, 50, 100 %.
fn default_steps() -> Vec<Weight> {
    [1, 2, 5, 10, 25, 50, 100].map(Weight::from_percent).to_vec()
}

fn default_duration_ms() -> u64 {
    24 * 3_600_000
}

impl Default for RolloutPolicy {
    fn default() -> Self {
        Self {
            steps: default_steps(),
            duration_ms: default_duration_ms(),
            on_release: false,
            early_after_ms: None,
            bake_ms: 0,
            control: default_control(),
            rollback_past_target: true,
            hold_after: HoldAfter::default(),
        }
    }
}

/// How many versions serve and how long unused stacks are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionPolicy {
    /// How many versions may have traffic at once.
    #[serde(default = "default_serving_max")]
    pub serving_max: u16,
    /// How long a stack without traffic is kept warm, in milliseconds.
    #[serde(default = "default_warm_for_ms")]
    pub warm_for_ms: u64,
    /// How many stacks without traffic are kept warm at most; beyond it the longest unused goes first.
    #[serde(default = "default_warm_max")]
    pub warm_max: u16,
    /// How long a removal waits for traffic to drain, in milliseconds.
    #[serde(default = "default_drain_ms")]
    pub drain_ms: u64,
}

fn default_serving_max() -> u16 {
    2
}

fn default_warm_for_ms() -> u64 {
    24 * 3_600_000
}

fn default_warm_max() -> u16 {
    5
}

fn default_drain_ms() -> u64 {
    10_000
}

impl Default for RetentionPolicy {
    fn default() -> Self {
        Self {
            serving_max: default_serving_max(),
            warm_for_ms: default_warm_for_ms(),
            warm_max: default_warm_max(),
            drain_ms: default_drain_ms(),
        }
    }
}

/// Why a policy is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("policy {field}: {rule}")]
pub struct InvalidPolicy {
    field: String,
    rule: String,
}

const WEEKS_52_MS: u64 = 52 * 7 * 24 * 3_600_000;

impl Policy {
    /// Checks what the types cannot.
    ///
    /// # Errors
    ///
    /// [`InvalidPolicy`] naming the field and its rule.
    pub fn validate(&self) -> Result<(), InvalidPolicy> {
        let fail = |field: &str, rule: &str| Err(InvalidPolicy { field: field.to_owned(), rule: rule.to_owned() });
        check_steps(&self.rollout.steps).or_else(|rule| fail("rollout.steps", rule))?;
        if self.rollout.duration_ms > WEEKS_52_MS {
            return fail("rollout.duration", "it must be at most 52 weeks");
        }
        if self.rollout.bake_ms > WEEKS_52_MS {
            return fail("rollout.bake", "it must be at most 52 weeks");
        }
        if self.rollout.control == Weight::ZERO || self.rollout.control > Weight::from_percent(50) {
            return fail("rollout.control", "it must be above 0 and at most 50 %: it is what the old version keeps");
        }
        self.judgement.validate()?;
        if self.judgement.soak_ms > self.rollout.duration_ms.saturating_add(self.rollout.bake_ms) {
            return fail(
                "judgement.soak",
                "it must be at most the rollout's duration plus its bake: otherwise the plan ends before the soak is over",
            );
        }
        if self.rollout.early_after_ms.is_some_and(|after| after < self.judgement.soak_ms) {
            return fail("rollout.early", "it must be at least the judgement's soak");
        }
        if self.rollout.early_after_ms.is_some_and(|after| after > WEEKS_52_MS) {
            return fail("rollout.early", "it must be at most 52 weeks");
        }
        if !(2..=100).contains(&self.retention.serving_max) {
            return fail("retention.serving_max", "it must be from 2 to 100, a rollout needs two");
        }
        if self.retention.warm_for_ms > WEEKS_52_MS {
            return fail("retention.warm_for", "it must be at most 52 weeks");
        }
        if self.retention.drain_ms > 3_600_000 {
            return fail("retention.drain", "it must be at most 1 hour");
        }
        Ok(())
    }
}

/// Checks that `steps` rise from above 0 to exactly 100 %.
///
/// # Errors
///
/// The rule that is broken.
pub fn check_steps(steps: &[Weight]) -> Result<(), &'static str> {
    if steps.len() > 100 {
        return Err("at most 100 steps");
    }
    if steps.last() != Some(&Weight::FULL) {
        return Err("the last step must be 100 %");
    }
    if steps[0] == Weight::ZERO || steps.windows(2).any(|pair| pair[0] >= pair[1]) {
        return Err("steps must rise, each above the one before and the first above 0");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_policy_is_valid_and_an_empty_one_means_it() {
        assert_eq!(Policy::default().validate(), Ok(()));
        assert_eq!(serde_json::from_str::<Policy>("{}").unwrap(), Policy::default());
    }

    #[test]
    fn falling_steps_are_refused() {
        let mut policy = Policy::default();
        policy.rollout.steps = vec![Weight::from_percent(50), Weight::from_percent(10), Weight::FULL];
        assert_eq!(
            policy.validate().unwrap_err().to_string(),
            "policy rollout.steps: steps must rise, each above the one before and the first above 0"
        );
    }

    #[test]
    fn a_control_is_above_0_and_at_most_half_and_a_soak_fits_into_the_plan_with_its_bake() {
        let with = |control: u16, bake_ms: u64, soak_ms: u64| {
            let mut policy = Policy::default();
            policy.rollout.control = Weight::from_basis_points(control).unwrap();
            policy.rollout.duration_ms = 60_000;
            (policy.rollout.bake_ms, policy.judgement.soak_ms) = (bake_ms, soak_ms);
            policy.validate().map_err(|error| error.to_string())
        };
        for control in [0, 5_001, 9_500, 10_000] {
            let said = with(control, 60_000, 0).unwrap_err();
            assert!(said.starts_with("policy rollout.control: it must be above 0 and at most 50 %"), "{said}");
        }
        assert_eq!((with(1, 60_000, 0), with(5_000, 60_000, 120_000)), (Ok(()), Ok(())));
        assert!(with(500, 60_000, 120_001).unwrap_err().contains("plus its bake"));
        assert!(with(500, WEEKS_52_MS + 1, 0).unwrap_err().starts_with("policy rollout.bake"));
    }
}
