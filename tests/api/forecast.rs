//! Forecasts over the API: from the declared policy and what was measured, or what is assumed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::Code;
use api::client::{Error, SendOptions};
use api::forecast::PlannedRollout;
use jiff::SignedDuration;
use ledger::Ledger;
use replay::Moment;
use schemas::{DeploymentId, EffectId, StreamVersion, Weight};
use workers::traffic::{Counts, Histogram, Measures, NodeMeasures, StackMeasures};

use crate::router::FakeRouter;
use crate::world::{World, deployment, request};

/// Has counted 6,000 requests of each stack within a minute, one of a hundred of them failed.
fn counter(ledger: Ledger) -> FakeRouter {
    let mut latency = Histogram::default();
    (0..6_000).for_each(|request| latency.add(20.0 + f64::from(request % 50)));
    let counters = move |id: &DeploymentId| {
        let view = ledger.view();
        let stacks = view.state().deployment(id)?.stacks.iter();
        let stacks = stacks.map(|(stack, known)| {
            let node = NodeMeasures {
                address: "127.0.0.1:1".parse().unwrap(),
                counts: Counts { status_2xx: 5_940, failed: 60, ..Counts::default() },
                passed_on: 0,
                latency: latency.clone(),
                in_flight: Histogram::default(),
                oldest_in_flight_ms: None,
            };
            let nodes = BTreeMap::from([(EffectId::of_launch(ledger.id(), *stack, 0, 0), node)]);
            (*stack, StackMeasures { version: known.name(), nodes })
        });
        let (epoch, generation) = (uuid::Uuid::from_u128(1), StreamVersion(1));
        let stacks = stacks.collect();
        Some(Measures { epoch, deployment: id.clone(), generation, at_ms: 60_000, refused: 0, stacks })
    };
    FakeRouter { counters: Some(Box::new(counters)), ..FakeRouter::default() }
}

fn assumed() -> PlannedRollout {
    PlannedRollout {
        requests_per_minute: Some(5.0),
        share: Some(Weight::from_percent(10)),
        duration_ms: Some(3_600_000),
        steps: None,
    }
}

fn refused(answer: Result<api::forecast::ForecastAnswer, Error>) -> api::Problem {
    match answer {
        Err(Error::Refused(problem)) => problem,
        other => panic!("a refusal was expected: {other:?}"),
    }
}

#[tokio::test]
async fn a_forecast_is_of_assumed_traffic_until_some_was_measured() {
    let world = World::open_with(None, |api| {
        api.outside.router = Some(Arc::new(counter(api.ledger.clone())));
    })
    .await;
    assert_eq!(refused(world.client.forecast(&deployment(), &assumed()).await).code, Code::Unknown);
    world.declare(&["1.0.0"]).await;
    let unknown = refused(world.client.forecast(&deployment(), &PlannedRollout::default()).await);
    assert_eq!((unknown.code, unknown.exit), (Code::Invalid, 2));
    assert!(unknown.message.contains("no version of it serves; assume some"), "{unknown}");
    let answer = world.client.forecast(&deployment(), &assumed()).await.unwrap();
    assert!(answer.sentence.ends_with("the smallest error rate this rollout can see in 1 hour is 15 %"), "{answer:?}");

    world.ready("1.0.0").await;
    let all = r#"{"command":"traffic","deployment":"production/api","shares":[{"version":"1.0.0","weight":10000}]}"#;
    let now = SendOptions { dry_run: false, wait: Some(Duration::ZERO), no_break_glass: false };
    world.client.execute(&request(all), now).await.unwrap();
    world.clock.advance(Duration::from_secs(60));
    let answer = world.client.forecast(&deployment(), &PlannedRollout::default()).await.unwrap();
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
    let ask = async |change: &dyn Fn(&mut PlannedRollout)| {
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

#[tokio::test]
async fn forecast_and_status_say_the_same_of_a_rollout_under_way_also_while_the_clock_is_wrong() {
    let world = World::open().await;
    world.declare(&["1.0.0", "1.1.0"]).await;
    for version in ["1.0.0", "1.1.0"] {
        world.ready(version).await;
    }
    let now = || SendOptions { dry_run: false, wait: Some(Duration::ZERO), no_break_glass: false };
    let all = r#"{"command":"traffic","deployment":"production/api","shares":[{"version":"1.0.0","weight":10000}]}"#;
    let roll = r#"{"command":"roll","deployment":"production/api","from":"1.0.0","to":"1.1.0",
        "plan":{"duration_ms":3600000,"steps":[1000,10000]}}"#;
    for command in [all, roll] {
        world.client.execute(&request(command), now()).await.unwrap();
    }
    let hour = SignedDuration::from_hours(1);
    for (ahead, is_held) in [(SignedDuration::ZERO, false), (hour, true), (-hour, true), (SignedDuration::ZERO, false)]
    {
        world.clock.set_ahead(ahead);
        let status = world.client.status(Moment::Now, None, None).await.unwrap();
        let shown = status.services[0].deployments[0].rollout.clone().unwrap();
        let live = world.client.forecast(&deployment(), &assumed()).await.unwrap().under_way.unwrap();
        assert_eq!((shown.held.is_some(), live.remaining_ms.is_some()), (is_held, is_held), "{shown:?}, {live:?}");
        assert_eq!(live.remaining_ms, shown.remaining_ms);
        match is_held {
            true => assert_eq!(shown.remaining_ms, Some(3_600_000), "the plan's hour is still to come"),
            false => assert_eq!(shown.expected_end_at, Some(live.expected_end_at)),
        }
    }
}
