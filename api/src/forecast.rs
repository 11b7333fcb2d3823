//! What a rollout of a service will be able to tell, by its policy and its traffic.

use jiff::SignedDuration;
use ledger::deployment::plan;
use ledger::judgement::forecast::rollout::{Forecast, Known, MetricForecast, Stage, end_seconds, forecast, part};
use ledger::judgement::policy;
use replay::answer::RolloutStatus;
use schemas::command::PlanAsked;
use schemas::policy::{Deadline, Policy};
use schemas::rollout::Plan;
use schemas::text::count;
use schemas::{DeploymentId, StackId, StackName, Timestamp, Version, Weight};
use serde::{Deserialize, Serialize};
use workers::measures::{Measured, ticks};

use crate::problem::{Code, Problem};

pub mod words;

/// The version of the answer's form.
const SCHEMA_VERSION: u16 = 1;

/// From this error rate on what is the smallest to be seen is worth a warning.
const POOR_RATE: f64 = 0.05;

/// A rollout that is planned, and the traffic that is assumed for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlannedRollout {
    /// The requests of both versions together, if they are to be assumed and not measured.
    pub requests_per_minute: Option<f64>,
    /// The canary's share for all of the time, instead of the plan's steps; in basis points.
    pub share: Option<Weight>,
    /// How long the rollout takes; the policy's time if left out.
    pub duration_ms: Option<u64>,
    /// Its steps in basis points, `100,1000,10000`; the policy's if left out.
    pub steps: Option<String>,
}

/// Measured traffic of the stack with the largest share.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasuredTraffic {
    /// The stack with the largest share.
    pub stack: StackId,
    /// Its share.
    pub share: Weight,
    /// What was counted of it.
    pub measured: Measured,
    /// For how many seconds of that it served.
    pub seconds: f64,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ForecastAnswer {
    /// The version of this form.
    pub schema_version: u16,
    /// The deployment.
    pub deployment: DeploymentId,
    /// The rollout.
    pub plan: Plan,
    /// The requests of both versions together.
    pub requests_per_minute: f64,
    /// Whether they were measured, or are assumed.
    pub requests_measured: bool,
    /// Why nothing was measured, if nothing was.
    pub unmeasured: Option<String>,
    /// The canary's share of all requests while it is judged, 0 to 1.
    pub share: f64,
    /// What it will be able to tell.
    #[serde(flatten)]
    pub forecast: Forecast,
    /// After how many seconds a good canary is expected to have all traffic; none if a step of it can never be taken.
    #[serde(default)]
    pub end_seconds: Option<f64>,
    /// The rollout that is under way there.
    #[serde(default)]
    pub under_way: Option<UnderWay>,
    /// The same in a sentence.
    pub sentence: String,
    /// What it will not be able to do, and what would help; empty for a rollout that sees well.
    pub warnings: Vec<String>,
}

/// A rollout under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnderWay {
    /// The canary.
    pub canary: Option<Version>,
    /// The name of its stack.
    #[serde(default)]
    pub canary_name: Option<StackName>,
    /// When its next step may be taken.
    pub next_at: Timestamp,
    /// When it is expected to end.
    pub expected_end_at: Timestamp,
    /// While it stands still, how many milliseconds its remaining steps take once it goes on: it is paused, or its due step waits.
    /// The times above are then those of going on now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_ms: Option<u64>,
}

impl UnderWay {
    /// Returns what `status` says of a rollout that has a step left, as of `now`.
    pub(crate) fn of(rollout: RolloutStatus, now: Timestamp) -> Option<Self> {
        let then_ms = rollout.next.filter(|_| rollout.live)?.then_ms;
        let length = |ms: u64| SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
        let end = rollout.expected_end_at.or_else(|| now.checked_add(length(rollout.remaining_ms?)).ok())?;
        Some(Self {
            canary: rollout.canary,
            canary_name: rollout.canary_name,
            next_at: end.checked_sub(length(then_ms)).unwrap_or(now),
            expected_end_at: end,
            remaining_ms: rollout.remaining_ms,
        })
    }
}

/// Returns the least that a measurement must have lasted to tell a rate, in seconds.
pub const MEASURED_SECONDS_MIN: f64 = 10.0;

/// Answers a question about `deployment`; `traffic` is what was measured, or why nothing was.
///
/// # Errors
///
/// [`Problem`]: a plan that cannot be, or traffic that is neither measured nor assumed.
pub fn answer(
    deployment: DeploymentId,
    policy: &Policy,
    question: &PlannedRollout,
    traffic: Result<MeasuredTraffic, String>,
) -> Result<ForecastAnswer, Problem> {
    let asked = asked(question)?;
    let rollout = plan::plan(&asked, policy).map_err(|no| Problem::new(Code::Invalid, no.to_string()))?;
    let mut plan = policy::plan(&policy.judgement, &rollout);
    let mut known = Known::default();
    let measured_rate = traffic.as_ref().ok().map(|traffic| {
        let all = traffic.measured.of(traffic.stack);
        ticks::seed(&mut plan, &traffic.measured, traffic.stack);
        known.is_measured = true;
        known.latencies = all.latency.map(|latency| latency.at_most.0).filter(|buckets| !buckets.is_empty());
        all.requests as f64 / traffic.seconds.max(1.0) / part(traffic.share).max(1e-4)
    });
    let per_minute = match (question.requests_per_minute, measured_rate) {
        (Some(assumed), _) if assumed.is_finite() && (0.0..=1e9).contains(&assumed) => assumed,
        (Some(_), _) => return Err(Problem::new(Code::Invalid, "requests a minute must be from 0 to 1e9")),
        (None, Some(rate)) => rate * 60.0,
        (None, None) => {
            let why = traffic.err().unwrap_or_default();
            let next = "assume some with `--requests-per-minute N` (`requests_per_minute`)";
            return Err(Problem::new(
                Code::Invalid,
                format!("the traffic of {deployment} is not known: {why}; {next}"),
            ));
        }
    };
    let forecast = forecast(&plan, &Stage::of(&rollout), per_minute / 60.0, &known);
    let share = match forecast.requests_canary + forecast.requests_baseline {
        all if all > 0.0 => forecast.requests_canary / all,
        _ => rollout.steps.first().copied().map_or(0.0, part),
    };
    let end_seconds = end_seconds(&rollout, policy, per_minute / 60.0, &forecast);
    let mut answer = ForecastAnswer {
        schema_version: SCHEMA_VERSION,
        deployment,
        plan: rollout,
        requests_per_minute: per_minute,
        requests_measured: question.requests_per_minute.is_none(),
        unmeasured: traffic.err(),
        share,
        forecast,
        end_seconds,
        under_way: None,
        sentence: String::new(),
        warnings: vec![],
    };
    answer.sentence = sentence(&answer);
    answer.warnings = warnings(&answer, policy);
    answer.warnings.extend(plan::bake_note(&asked, &answer.plan, policy));
    Ok(answer)
}

/// Returns the plan that is asked about, as `roll` would be asked for it.
fn asked(question: &PlannedRollout) -> Result<PlanAsked, Problem> {
    let invalid = |why: String| Problem::new(Code::Invalid, why);
    let steps = match (&question.steps, question.share) {
        (Some(_), Some(_)) => return Err(invalid("name steps or one share, not both".to_owned())),
        (None, Some(share)) if share == Weight::ZERO || share == Weight::FULL => {
            return Err(invalid(
                "a share must be above 0 and below 100 %: there is nothing to compare with".to_owned(),
            ));
        }
        (None, share) => share.map(|share| vec![share, Weight::FULL]),
        (Some(steps), None) => {
            let points = steps.split(',').map(|step| step.trim().parse::<u16>().ok());
            let weights: Option<Vec<Weight>> = points.map(|points| Weight::from_basis_points(points?).ok()).collect();
            Some(weights.ok_or_else(|| Problem::malformed("steps are basis points, `100,1000,10000`"))?)
        }
    };
    Ok(PlanAsked { duration_ms: question.duration_ms, steps })
}

fn errors(answer: &ForecastAnswer) -> Option<&MetricForecast> {
    answer.forecast.metrics.iter().find(|metric| metric.name == "errors")
}

fn sees_little(errors: &MetricForecast) -> bool {
    errors.smallest_rate.is_none_or(|rate| rate >= POOR_RATE)
}

fn sentence(answer: &ForecastAnswer) -> String {
    let (time, share) = (words::length(answer.forecast.seconds), words::percent(answer.share));
    let on_average = if Stage::of(&answer.plan).len() > 1 { " on average" } else { "" };
    let at = format!("at {} and {share} share{on_average}", words::requests_a_minute(answer.requests_per_minute));
    match errors(answer) {
        _ if answer.forecast.seconds <= 0.0 => {
            "this rollout is not judged: its plan has no step below 100 % that lasts".to_owned()
        }
        None => format!("{at}, this rollout judges no errors: their weight is 0"),
        Some(errors) => match errors.smallest_rate {
            Some(rate) => {
                let rate = words::percent(rate);
                format!("{at}, the smallest error rate this rollout can see in {time} is {rate}{}", bake(answer))
            }
            None => format!("{at}, this rollout cannot see any error rate in {time}{}", bake(answer)),
        },
    }
}

/// Says of which metrics too little was seen to tell how the old version does, if that was measured.
fn too_few(forecast: &Forecast) -> Option<String> {
    let untold = forecast.metrics.iter().filter(|metric| !metric.measured);
    let untold: Vec<(&MetricForecast, u64)> =
        untold.filter_map(|metric| Some((metric, metric.seen?.requests))).collect();
    let seen = untold.iter().map(|(_, requests)| *requests).max()?;
    let of = |(metric, _): &(&MetricForecast, u64)| {
        format!("{} (from {} on)", metric.name, words::count(metric.requests_to_tell as f64))
    };
    Some(format!(
        "{} of the old version {} seen, too few to tell {}; what services usually do is assumed until then",
        count(seen, "request", "requests"),
        if seen == 1 { "was" } else { "were" },
        untold.iter().map(of).collect::<Vec<_>>().join(", ")
    ))
}

/// What comes after the plan's duration, if something does.
fn bake(answer: &ForecastAnswer) -> String {
    let Some(step) = answer.plan.bake_step().filter(|step| *step > 0) else { return String::new() };
    let share = answer.plan.steps.get(usize::from(step)).copied().unwrap_or(Weight::FULL);
    format!("; then it is judged for {} more at {share}", words::length(answer.plan.bake_ms as f64 / 1_000.0))
}

fn warnings(answer: &ForecastAnswer, policy: &Policy) -> Vec<String> {
    let (forecast, judgement) = (&answer.forecast, &policy.judgement);
    let mut warnings: Vec<String> = too_few(forecast).into_iter().collect();
    if errors(answer).is_some_and(sees_little) {
        warnings.push("it sees little; a larger share or a longer plan sees more".to_owned());
    }
    let expected = forecast.requests_canary.round();
    if expected < judgement.requests_min as f64 {
        warnings.push(format!(
            "it will hold: the canary is expected to get about {}, and the policy asks for {}",
            count(expected as u64, "request", "requests"),
            words::count(judgement.requests_min as f64)
        ));
    }
    let never = forecast.metrics.iter().filter(|metric| metric.requests_to_accept.is_none());
    warnings.extend(never.map(|metric| {
        format!(
            "no canary is ever accepted by {}: at the old version's rate the tolerance is too small to tell a good canary \
             from a worse one; raise it in [judgement]",
            metric.name
        )
    }));
    let late = forecast.metrics.iter().filter(|metric| metric.seconds_to_accept.is_none());
    let late = late.filter_map(|metric| Some((metric.requests_to_accept?, &metric.name)));
    if let Some((requests, name)) = late.max_by(|a, b| a.0.total_cmp(&b.0)) {
        warnings.push(format!(
            "a good canary is not accepted before the plan's end: by {name} that takes {}, and it is expected to get about \
             {}; it then {}",
            count(requests.ceil() as u64, "request", "requests"),
            words::count(expected),
            match judgement.deadline {
                Deadline::GoOn => "goes on if it is not worse",
                Deadline::Hold => "holds",
            }
        ));
    }
    if let Some(late) = answer.end_seconds.filter(|_| answer.is_late()) {
        let planned = words::length(answer.plan.all_ms() as f64 / 1_000.0);
        let late = words::length((late / 60.0).ceil() * 60.0);
        warnings.push(format!(
            "a good canary has all traffic after about {late}, not {planned}: late steps delay the later ones"
        ));
    }
    warnings
}

impl ForecastAnswer {
    /// Says whether a good canary is expected to have all traffic later than planned; a warning then says when.
    pub fn is_late(&self) -> bool {
        self.end_seconds.is_some_and(|end| end > self.plan.all_ms() as f64 / 1_000.0 + 1.0)
    }

    /// Says whether the rollout would be judged on too few requests, or not at all. Whoever begins it is warned then.
    pub fn sees_too_little(&self) -> bool {
        self.forecast.seconds <= 0.0 || errors(self).is_some_and(sees_little)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use workers::measures::{Latency, NodeMeasured, Span};
    use workers::traffic::Histogram;

    fn id() -> DeploymentId {
        "production/api".parse().unwrap()
    }

    fn assumed(requests_per_minute: f64, share: u16, duration_ms: u64) -> PlannedRollout {
        PlannedRollout {
            requests_per_minute: Some(requests_per_minute),
            share: Some(Weight::from_percent(share)),
            duration_ms: Some(duration_ms),
            steps: None,
        }
    }

    fn unknown() -> Result<MeasuredTraffic, String> {
        Err("nothing runs".to_owned())
    }

    fn measured(requests: u64, errors: u64, seconds: i64, share: u16) -> MeasuredTraffic {
        let stack = StackId(uuid::Uuid::from_u128(1));
        let mut latency = Histogram::default();
        (0..requests).for_each(|request| latency.add(10.0 + (request % 100) as f64));
        let node = NodeMeasured {
            requests,
            hits: [("errors", errors), ("4xx", 0)].into(),
            latency: Some(Latency::exact(latency)),
            ..NodeMeasured::default()
        };
        let span = Span { from: Timestamp::UNIX_EPOCH, to: Timestamp::from_second(seconds).unwrap() };
        let measured = Measured { span, stacks: BTreeMap::from([(stack, vec![node])]) };
        MeasuredTraffic { stack, share: Weight::from_percent(share), measured, seconds: seconds as f64 }
    }

    #[test]
    fn it_says_the_smallest_error_rate_before_the_rollout_begins() {
        let answer = answer(id(), &Policy::default(), &assumed(5.0, 10, 3_600_000), unknown()).unwrap();
        let sentence =
            "at 5 requests a minute and 10 % share, the smallest error rate this rollout can see in 1 hour is 15 %";
        assert_eq!(answer.sentence, sentence);
        assert!(answer.sees_too_little() && answer.warnings[0].starts_with("it sees little"), "{answer:?}");
        let late = "by errors that takes 34,607 requests, and it is expected to get about 30; it then goes on";
        assert!(answer.warnings.len() == 4 && answer.warnings[2].contains(late), "{answer:?}");
        assert!(
            answer.warnings[1].starts_with("it will hold: the canary is expected to get about 30 requests,"),
            "{answer:?}"
        );
        assert_eq!((answer.requests_measured, answer.unmeasured.as_deref()), (false, Some("nothing runs")));
    }

    #[test]
    fn a_bake_is_said_and_its_time_comes_after_the_plan() {
        let mut policy = Policy::default();
        policy.rollout.bake_ms = 7_200_000;
        let answer = answer(id(), &policy, &assumed(60_000.0, 10, 3_600_000), unknown()).unwrap();
        assert!(answer.sentence.ends_with("; then it is judged for 2 hours more at 95 %"), "{answer:?}");
        assert_eq!(answer.end_seconds, Some(3.0 * 3_600.0));
        assert!(!answer.warnings.iter().any(|warning| warning.contains("late steps")), "{answer:?}");
        assert!(answer.sentence.contains("and 10 % share, the smallest"), "one share: {answer:?}");
    }

    #[test]
    fn a_plan_that_is_its_bake_alone_is_judged_and_one_of_a_single_step_is_said_to_get_none() {
        let mut policy = Policy::default();
        policy.rollout.bake_ms = 3_600_000;
        let of = |policy: &Policy, steps: &str| {
            let mut question = assumed(60_000.0, 10, 3_600_000);
            (question.share, question.steps) = (None, Some(steps.to_owned()));
            answer(id(), policy, &question, unknown()).unwrap()
        };
        let baked = of(&policy, "9800,10000");
        assert!(
            baked.sentence.contains("95 % share, the smallest error rate this rollout can see in 2 hours"),
            "{baked:?}"
        );
        assert!(!baked.sentence.contains("more at"), "{baked:?}");
        assert!(baked.warnings.iter().any(|said| said.contains("the bake at 95 % takes the place of the plan's 98 %")));
        let at_once = of(&policy, "10000");
        assert!(at_once.warnings.iter().any(|said| said.contains("a plan of one step gets no bake")), "{at_once:?}");
        policy.rollout.bake_ms = 0;
        assert!(!of(&policy, "10000").warnings.iter().any(|said| said.contains("bake")));
    }

    #[test]
    fn a_busy_service_has_nothing_to_be_warned_of() {
        let mut policy = Policy::default();
        policy.rollout.duration_ms = 86_400_000;
        let traffic = Ok(measured(600_000, 600, 600, 100));
        let answer = answer(id(), &policy, &PlannedRollout::default(), traffic).unwrap();
        assert_eq!((answer.requests_per_minute, answer.requests_measured), (60_000.0, true));
        assert!(answer.forecast.metrics.iter().all(|metric| metric.measured && metric.seconds_to_accept.is_some()));
        assert!(!answer.sees_too_little() && answer.warnings.is_empty(), "{answer:?}");
    }

    #[test]
    fn a_few_requests_are_said_to_be_too_few_and_one_is_not_many() {
        let few = answer(id(), &Policy::default(), &PlannedRollout::default(), Ok(measured(1, 0, 600, 100))).unwrap();
        let said = "1 request of the old version was seen, too few to tell errors (from 1,000 on), p50 (from 100 on), p99 \
                    (from 100 on); what services usually do is assumed until then";
        assert_eq!(few.warnings[0], said);
        assert!(few.forecast.metrics.iter().all(|metric| !metric.measured), "{few:?}");
        let none = answer(id(), &Policy::default(), &PlannedRollout::default(), Ok(measured(0, 0, 600, 100))).unwrap();
        assert!(none.warnings[0].starts_with("0 requests of the old version were seen, too few"), "{none:?}");
        let assumed = answer(id(), &Policy::default(), &assumed(5.0, 10, 3_600_000), unknown()).unwrap();
        assert!(!assumed.warnings.iter().any(|said| said.contains("too few to tell")), "{assumed:?}");
    }

    #[test]
    fn traffic_of_a_part_is_taken_for_the_whole() {
        let answer = answer(id(), &Policy::default(), &PlannedRollout::default(), Ok(measured(90, 0, 60, 90))).unwrap();
        assert!((answer.requests_per_minute - 100.0).abs() < 1e-9, "{answer:?}");
    }

    #[test]
    fn a_rollout_that_cannot_see_says_so() {
        let policy = Policy::default();
        let none = answer(id(), &policy, &assumed(0.0, 10, 3_600_000), unknown()).unwrap();
        assert_eq!(
            none.sentence,
            "at 0 requests a minute and 10 % share, this rollout cannot see any error rate in 1 hour"
        );
        let at_once = PlannedRollout { steps: Some("10000".to_owned()), ..assumed(60.0, 10, 1_000) };
        let at_once = answer(id(), &policy, &PlannedRollout { share: None, ..at_once }, unknown()).unwrap();
        assert!(at_once.sentence.starts_with("this rollout is not judged") && at_once.sees_too_little(), "{at_once:?}");
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        let policy = Policy::default();
        let refused = |question: &PlannedRollout| answer(id(), &policy, question, unknown()).unwrap_err().message;
        let said = refused(&PlannedRollout::default());
        assert!(said.contains("is not known: nothing runs; assume some with `--requests-per-minute N`"), "{said}");
        assert!(refused(&assumed(f64::NAN, 10, 1_000)).contains("from 0 to 1e9"));
        assert!(refused(&assumed(1.0, 100, 1_000)).contains("below 100 %"));
        let steps = |steps: &str| PlannedRollout { steps: Some(steps.to_owned()), ..PlannedRollout::default() };
        assert!(refused(&steps("10,x")).contains("basis points"));
        assert!(refused(&steps("5000,1000,10000")).contains("steps must rise"));
    }
}
