//! Forecasts over the door: from the declared policy and what was measured, or what is assumed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::Code;
use api::client::{Error, Options};
use api::forecast::Question;
use api::server::Hooks;
use async_trait::async_trait;
use schemas::policy::JudgementPolicy;
use schemas::{DeploymentId, Timestamp, Weight};
use workers::measures::{Asked, Latency, Measured, NodeMeasured, Span};
use workers::traffic::Histogram;

use crate::world::{World, deployment, request};

/// Has counted 6,000 requests a minute, one of a hundred of them failed, for the minute that comes.
struct Counter;

#[async_trait]
impl Hooks for Counter {
    async fn apply_now(&self, _: &DeploymentId) -> Result<(), String> {
        Ok(())
    }

    async fn measured(&self, asked: &Asked, _: &JudgementPolicy) -> Result<Measured, String> {
        let mut latency = Histogram::default();
        (0..6_000).for_each(|request| latency.add(20.0 + f64::from(request % 50)));
        let node = NodeMeasured {
            requests: 6_000,
            errors: Some(60),
            status_4xx: Some(0),
            latency: Some(Latency::exact(latency)),
            ..NodeMeasured::default()
        };
        let now = Timestamp::now();
        let minute = jiff::SignedDuration::from_secs(60);
        let span = Span { from: now - minute, to: now + minute };
        let stacks = asked.stacks.keys().map(|stack| (*stack, vec![node.clone()]));
        Ok(Measured { span, stacks: stacks.collect::<BTreeMap<_, _>>() })
    }
}

fn assumed() -> Question {
    Question {
        requests_per_minute: Some(5.0),
        share: Some(Weight::from_percent(10)),
        duration_ms: Some(3_600_000),
        steps: None,
    }
}

fn refused(answer: Result<api::forecast::Answer, Error>) -> api::Problem {
    match answer {
        Err(Error::Refused(problem)) => problem,
        other => panic!("a refusal was expected: {other:?}"),
    }
}

#[tokio::test]
async fn a_forecast_is_of_assumed_traffic_until_some_was_measured() {
    let world = World::open_with(None, |api| api.hooks = Arc::new(Counter)).await;
    assert_eq!(refused(world.client.forecast(&deployment(), &assumed()).await).code, Code::Unknown);
    world.declare(&["1.0.0"]).await;
    let unknown = refused(world.client.forecast(&deployment(), &Question::default()).await);
    assert_eq!((unknown.code, unknown.exit), (Code::Invalid, 2));
    assert!(unknown.message.contains("no version of it serves; assume some"), "{unknown}");
    let answer = world.client.forecast(&deployment(), &assumed()).await.unwrap();
    assert!(answer.sentence.ends_with("the smallest error rate this rollout can see in 1 hour is 15 %"), "{answer:?}");

    world.ready("1.0.0").await;
    let all = r#"{"command":"traffic","deployment":"production/api","shares":[{"version":"1.0.0","weight":10000}]}"#;
    let now = Options { dry_run: false, wait: Some(Duration::ZERO), no_break_glass: false };
    world.client.execute(&request(all), now).await.unwrap();
    let answer = world.client.forecast(&deployment(), &Question::default()).await.unwrap();
    assert!(answer.requests_measured && answer.unmeasured.is_none(), "{answer:?}");
    assert!((answer.requests_per_minute / 6_000.0 - 1.0).abs() < 0.2, "{answer:?}");
    let errors = &answer.forecast.metrics[0];
    assert_eq!((errors.name.as_str(), errors.measured), ("errors", true));
    assert!((errors.baseline_rate - 0.01).abs() < 0.001, "{errors:?}");
    let both = world.client.forecast(&deployment(), &assumed()).await.unwrap();
    assert_eq!(both.requests_per_minute, 5.0, "what is assumed comes before what was measured");
    assert!(both.forecast.metrics[0].measured, "how often it fails is measured all the same");
}

#[tokio::test]
async fn a_question_that_cannot_be_is_refused_with_the_reason() {
    let world = World::open().await;
    world.declare(&["1.0.0"]).await;
    let ask = async |change: &dyn Fn(&mut Question)| {
        let mut question = assumed();
        change(&mut question);
        refused(world.client.forecast(&deployment(), &question).await).message
    };
    assert!(ask(&|it| it.steps = Some("100,10000".to_owned())).await.contains("not both"));
    assert!(ask(&|it| it.requests_per_minute = Some(-1.0)).await.contains("from 0 to 1e9"));
    assert!(ask(&|it| it.duration_ms = Some(u64::MAX)).await.contains("at most 52 weeks"));
    let path = "/v1/forecast/production/api?requests=5";
    let unknown = world.client.get::<serde_json::Value>(path).await.unwrap_err().to_string();
    assert!(unknown.contains("unknown field `requests`"), "{unknown}");
}
