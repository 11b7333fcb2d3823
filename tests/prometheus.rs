//! Prometheus as a source of measurements: the real server, and everything that one could answer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use schemas::policy::{JudgementPolicy, Metrics, Prometheus};
use schemas::run::EnvValue;
use schemas::{StackId, StackName, Timestamp};
use support::prometheus::{DEADLINE, Fake, INTERVAL, Server, with_status};
use uuid::Uuid;
use workers::measures::prometheus::PrometheusSource;
use workers::measures::{Asked, Failure, Measured, Reading, Source, Span};
use workers::traffic::measures::bucket_of;

const OLD: StackId = StackId(Uuid::from_u128(1));
const NEW: StackId = StackId(Uuid::from_u128(2));

fn asked() -> Asked {
    let version = |text: &str| text.parse::<StackName>().unwrap();
    let stacks = BTreeMap::from([(OLD, version("1.2.2")), (NEW, version("1.2.3"))]);
    Asked { deployment: "production/api".parse().unwrap(), stacks }
}

fn policy() -> JudgementPolicy {
    let metrics = Metrics::default().weighing(&[("errors", 40), ("4xx", 10), ("p50", 20), ("p99", 30)]);
    JudgementPolicy { metrics, ..JudgementPolicy::default() }
}

fn source(url: &str) -> PrometheusSource {
    source_of(Prometheus { scrape_interval_ms: INTERVAL.as_millis() as u64, ..Prometheus::at(url) })
}

fn source_of(prometheus: Prometheus) -> PrometheusSource {
    PrometheusSource::new(&prometheus, &policy()).unwrap()
}

/// Returns the page of an exporter: for each version how many requests were answered 200, 404 and 500, and how many of
/// all took at most 0.1 s, 0.25 s, and longer.
fn page(versions: &[(&str, [u64; 3], [u64; 3])]) -> String {
    let mut page = String::new();
    for (version, [ok, refused, failed], [fast, slow, slower]) in versions {
        let labels = format!("service=\"api\",environment=\"production\",version=\"{version}\"");
        for (outcome, count) in [("2xx", ok), ("4xx", refused), ("failed", failed)] {
            // As the client libraries do it: what has not happened yet is not there.
            if *count > 0 {
                page += &format!("ionledger_proxy_requests_total{{{labels},outcome=\"{outcome}\"}} {count}\n");
            }
        }
        for (le, count) in [("0.1", *fast), ("0.25", fast + slow), ("+Inf", fast + slow + slower)] {
            page += &format!("ionledger_proxy_request_seconds_bucket{{{labels},le=\"{le}\"}} {count}\n");
        }
    }
    page
}

fn show(exporter: &Fake, versions: &[(&str, [u64; 3], [u64; 3])]) {
    let body = page(versions);
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nConnection: close";
    exporter.say_raw(&format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
}

fn now() -> Timestamp {
    Timestamp::now()
}

fn last(seconds: i64) -> Span {
    let to = now();
    Span { from: to - jiff::SignedDuration::from_secs(seconds), to }
}

/// Reads from `from` to now, again and again, until the answer is as wanted.
async fn until(
    source: &PrometheusSource,
    from: Timestamp,
    wanted: impl Fn(&Result<Reading, Failure>) -> bool,
) -> Result<Reading, Failure> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let answer = source.read(&asked(), Span { from, to: now() }).await;
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "the last answer was {answer:?}");
        tokio::time::sleep(INTERVAL / 2).await;
    }
}

fn requests(answer: &Result<Reading, Failure>, stack: StackId) -> u64 {
    let measured = answer.as_ref().ok().and_then(Reading::measured);
    measured.map_or(0, |measured| measured.of(stack).requests)
}

#[tokio::test]
async fn the_real_server_counts_what_was_served_over_a_restart_of_the_service_and_of_its_own() {
    let exporter = Fake::start();
    let old = ("1.2.2", [900, 50, 50], [900, 90, 10]);
    show(&exporter, &[old]);
    let Some(mut server) = Server::start(exporter.address) else { return };
    let source = source(&server.url());

    let first = until(&source, last(5).from, |answer| matches!(answer, Ok(Reading::Partial { .. }))).await.unwrap();
    let reason = first.reason().unwrap();
    assert!(reason.contains("nothing was scraped before the span"), "{reason}");
    assert!(reason.contains("has no requests of 1.2.3: there were none, or the query finds none"), "{reason}");
    assert_eq!(first.measured().unwrap().of(OLD).requests, 0, "what was counted before the first look is nobody's");

    // From a moment at which the old version has been scraped, and the canary has not begun.
    let from = now();
    show(&exporter, &[("1.2.2", [990, 55, 50], [990, 95, 10]), ("1.2.3", [9, 0, 1], [5, 4, 1])]);
    let read = until(&source, from, |answer| requests(answer, NEW) == 10 && requests(answer, OLD) == 95).await.unwrap();
    let Reading::Complete(measured) = &read else { panic!("{read:?}") };
    let (of_old, of_new) = (measured.of(OLD), measured.of(NEW));
    assert_eq!((of_old.hits("errors"), of_old.hits("4xx")), (Some(0), Some(5)));
    assert_eq!((of_new.hits("errors"), of_new.hits("4xx")), (Some(1), Some(0)), "a series that begins has begun at 0");
    let latency = of_new.latency.unwrap();
    assert_eq!((latency.at_most.count(), latency.at_most.count_above(bucket_of(250.0))), (10, 1));
    assert_eq!(latency.at_least.count_above(bucket_of(100.0) - 1), 5, "four from 100 ms on, one from 250 ms on");
    assert_eq!(of_old.latency.unwrap().at_most.count_above(bucket_of(100.0)), 5);

    // The old version's process begins anew, and counts from 0 again.
    show(&exporter, &[("1.2.2", [20, 0, 0], [20, 0, 0]), ("1.2.3", [9, 0, 1], [5, 4, 1])]);
    let read = until(&source, from, |answer| requests(answer, OLD) == 115).await.unwrap();
    assert_eq!(read.measured().unwrap().of(OLD).hits("4xx"), Some(5));

    // The server is gone, and comes back with what it had.
    server.kill();
    let down = source.read(&asked(), Span { from, to: now() }).await.unwrap_err();
    assert!(matches!(&down, Failure::Unreachable { .. }), "{down:?}");
    assert!(down.to_string().contains("cannot be reached"), "{down}");
    server.launch();
    show(&exporter, &[("1.2.2", [30, 0, 0], [30, 0, 0]), ("1.2.3", [10, 0, 1], [6, 4, 1])]);
    let read =
        until(&source, from, |answer| requests(answer, OLD) == 125 && requests(answer, NEW) == 11).await.unwrap();
    assert_eq!(read.measured().unwrap().of(NEW).hits("errors"), Some(1));
}

#[tokio::test]
async fn the_real_server_says_what_it_does_not_have_and_when_it_has_stopped() {
    let exporter = Fake::start();
    show(&exporter, &[]);
    let Some(server) = Server::start(exporter.address) else { return };
    let source = source(&server.url());
    let empty = source.read(&asked(), last(5)).await.unwrap();
    assert!(
        matches!(&empty, Reading::Empty { reason } if reason.contains("no series of the requests of 1.2.2 or of 1.2.3"))
    );
    let lacks = source.test_source(&[asked()], now()).await.unwrap();
    assert!(
        lacks[0].contains("has no metric `ionledger_proxy_request_seconds_bucket`; correct the query"),
        "{lacks:?}"
    );

    // A query for a metric that nobody has is no count of 0.
    show(&exporter, &[("1.2.2", [90, 0, 0], [90, 0, 0]), ("1.2.3", [9, 0, 0], [9, 0, 0])]);
    let from = now();
    until(&source, from, |answer| matches!(answer, Ok(Reading::Partial { .. } | Reading::Complete(_)))).await.unwrap();
    let mut wrong = Prometheus { scrape_interval_ms: INTERVAL.as_millis() as u64, ..Prometheus::at(&server.url()) };
    wrong.queries.set("errors", Some(r#"http_request_failures{version="{version}"}"#.to_owned()));
    let read = source_of(wrong).read(&asked(), last(5)).await.unwrap();
    assert!(read.reason().unwrap().contains("has no metric `http_request_failures`; correct the query"), "{read:?}");
    assert_eq!(read.measured().unwrap().of(NEW).hits("errors"), None);
    // What was scraped in the last two seconds is not looked at yet.
    let deadline = Instant::now() + DEADLINE;
    while !source.test_source(&[asked()], now()).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "{:?}", source.test_source(&[asked()], now()).await);
        tokio::time::sleep(INTERVAL).await;
    }
    let stranger = Asked { deployment: "test/api".parse().unwrap(), ..asked() };
    let lacks = source.test_source(&[stranger], now()).await.unwrap();
    assert!(lacks[0].contains("no series of the requests of 1.2.2 or of 1.2.3; correct the queries"), "{lacks:?}");
    let none = source.read(&asked(), last(5)).await.unwrap();
    assert_eq!(none.measured().unwrap().of(NEW).hits("errors"), Some(0), "{none:?}");

    // A query that is none.
    let mut wrong = Prometheus::at(&server.url());
    wrong.queries.set("latency", Some(r#"latency{version="{version}""#.to_owned()));
    let refused = source_of(wrong).read(&asked(), last(5)).await.unwrap_err();
    assert!(matches!(&refused, Failure::Refused { reason, .. } if reason.contains("parse error")), "{refused:?}");

    // The service can no longer be scraped.
    exporter.say_raw("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let stale = until(&source, from, |answer| matches!(answer, Ok(Reading::Stale { .. }))).await.unwrap();
    assert!(stale.reason().unwrap().contains("see whether its nodes are scraped"), "{stale:?}");
}

/// Returns an answer with one series of everything at the span's beginning and end, of this value and that.
fn matrix(span: Span, values: [&str; 2]) -> String {
    let (from, to) = (span.from.as_millisecond() as f64 / 1_000.0, span.to.as_millisecond() as f64 / 1_000.0);
    format!(
        r#"{{"status":"success","data":{{"resultType":"matrix","result":[
        {{"metric":{{"le":"0.1"}},"values":[[{from},"{}"],[{to},"{}"]]}}]}}}}"#,
        values[0], values[1]
    )
}

fn whole_seconds() -> Span {
    let to = Timestamp::from_second(now().as_second()).unwrap();
    Span { from: to - jiff::SignedDuration::from_secs(10), to }
}

async fn answer(fake: &Fake, span: Span) -> Result<Reading, Failure> {
    source(&fake.url()).read(&asked(), span).await
}

#[tokio::test]
async fn whatever_a_server_answers_is_told_apart_and_is_never_a_count() {
    let fake = Fake::start();
    let span = whole_seconds();
    let failure = async |body: &str| {
        fake.say_raw(body);
        answer(&fake, span).await.unwrap_err()
    };
    let ok = |body: &str| with_status("200 OK", body);

    let said = failure(&ok(r#"{"status":"error","errorType":"execution","error":"query timed out"}"#)).await;
    assert!(matches!(&said, Failure::Refused { reason, .. } if reason == "query timed out"), "{said:?}");
    let said = failure(&with_status("503 Service Unavailable", "the proxy's own page")).await;
    assert!(matches!(&said, Failure::Status { status: 503, body, .. } if body == "the proxy's own page"), "{said:?}");
    let said = failure(&with_status("422 Unprocessable", r#"{"status":"error","error":"too many samples"}"#)).await;
    assert!(matches!(&said, Failure::Refused { reason, .. } if reason == "too many samples"), "{said:?}");
    let said = failure(&with_status("401 Unauthorized", "Unauthorized")).await;
    assert!(matches!(&said, Failure::Status { status: 401, .. }), "{said:?}");
    let said = failure(&with_status("500 Oops", &matrix(span, ["1", "2"]))).await;
    assert!(matches!(&said, Failure::Refused { .. }), "a success under a failing status: {said:?}");

    let garbage = [
        "<html>Sign in</html>",
        "",
        "{}",
        "null",
        r#"{"status":"success"}"#,
        r#"{"status":"success","data":null}"#,
        r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#,
        r#"{"status":"success","data":{"resultType":"matrix","result":{}}}"#,
        r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,2]]}]}}"#,
        r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1e300,"2"]]}]}}"#,
        r#"{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"histograms":[]}]}}"#,
        &matrix(span, ["NaN", "NaN"]),
        &matrix(span, ["1", "+Inf"]),
        &matrix(span, ["-1", "1"]),
        &matrix(span, ["1", "many"]),
    ];
    for body in garbage {
        let said = failure(&ok(body)).await;
        assert!(matches!(&said, Failure::Garbage { .. }), "{body}: {said:?}");
        assert!(!said.to_string().contains('\n'), "{said}");
    }
    let said = failure("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"status\"").await;
    assert!(matches!(&said, Failure::Unreachable { .. }), "a connection that breaks: {said:?}");
    let said = failure("SSH-2.0-OpenSSH_9.2\r\n").await;
    assert!(matches!(&said, Failure::Unreachable { .. }), "no HTTP at all: {said:?}");
    let said = source("http://127.0.0.1:1").read(&asked(), span).await.unwrap_err();
    assert!(matches!(&said, Failure::Unreachable { .. }), "{said:?}");

    fake.say(r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#);
    let said = answer(&fake, span).await;
    assert!(matches!(said, Ok(Reading::Empty { .. })), "{said:?}");
    let none = Span { from: span.to, to: span.from };
    assert!(matches!(answer(&fake, none).await, Ok(Reading::Empty { .. })), "a span that ends before it begins");
}

#[tokio::test]
async fn a_source_that_cannot_be_asked_is_named_with_its_address_the_cause_and_what_to_do() {
    let fake = Fake::start();
    let tried = async |url: &str| {
        let policy = JudgementPolicy { prometheus: Some(Prometheus::at(url)), ..policy() };
        workers::measures::test_source(&policy, &[], now()).await.join("\n")
    };
    assert_eq!(
        workers::measures::test_source(&policy(), &[asked()], now()).await,
        Vec::<String>::new(),
        "the router counts"
    );
    let said = tried("http://127.0.0.1:1").await;
    assert!(said.starts_with("http://127.0.0.1:1 cannot be reached: "), "{said}");
    assert!(said.ends_with("; start it, or correct the policy's address"), "{said}");
    fake.say(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#);
    let said = tried(&fake.url()).await;
    assert!(said.contains("has no metric `ionledger_proxy_requests_total`; correct the query"), "{said}");
    assert_eq!(said.lines().count(), 2, "once a metric: {said}");
    fake.hang();
    let said = tried(&fake.url()).await;
    assert!(said.ends_with("gave no complete answer within 2s; see whether it is overloaded"), "{said}");
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up_after_five_seconds() {
    let fake = Fake::start();
    fake.hang();
    let began = Instant::now();
    let said = answer(&fake, whole_seconds()).await.unwrap_err();
    assert_eq!(said, Failure::TimedOut { at: fake.url(), after: Duration::from_secs(5) });
    assert!(began.elapsed() >= Duration::from_secs(4), "it was given its time");
}

#[tokio::test]
async fn a_server_whose_samples_are_old_is_stale_and_its_warnings_make_a_reading_partial() {
    let fake = Fake::start();
    let span = whole_seconds();
    // Every query finds the same, so that the time of the newest sample is this value.
    let newest = |age: i64| (span.to.as_second() - age).to_string();
    fake.say(&matrix(span, [&newest(60), &newest(60)]));
    let said = answer(&fake, span).await.unwrap();
    assert!(matches!(&said, Reading::Stale { reason } if reason.contains("was 60 s old")), "{said:?}");

    fake.say(
        &matrix(span, [&newest(10), &newest(0)]).replace("\"data\"", "\"warnings\":[\"one store is down\"],\"data\""),
    );
    let said = answer(&fake, span).await.unwrap();
    let Reading::Partial { measured, reason } = said else { panic!("{said:?}") };
    assert!(reason.contains("warns: one store is down"), "{reason}");
    let Measured { span: covered, .. } = &measured;
    assert_eq!((*covered, measured.of(NEW).requests, measured.of(NEW).hits("errors")), (span, 10, Some(10)));
}

#[tokio::test]
async fn the_token_is_sent_and_never_shown_and_the_names_stand_in_the_query() {
    let fake = Fake::start();
    let span = whole_seconds();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let token = Some(EnvValue::FromFile(file.display().to_string()));
    let source = source_of(Prometheus { token, ..Prometheus::at(&format!("{}/team/", fake.url())) });
    let said = source.read(&asked(), span).await.unwrap_err();
    assert!(matches!(&said, Failure::Unasked { reason, .. } if reason.contains("its token")), "{said:?}");
    std::fs::write(&file, "bearer-of-bad-news\n").unwrap();
    fake.say_raw(&with_status("403 Forbidden", "no"));
    let said = format!("{:?}", source.read(&asked(), span).await.unwrap_err());
    assert!(!said.contains("bearer-of-bad-news") && !format!("{source:?}").contains("bearer-of-bad-news"), "{said}");
    let heads = fake.asked();
    let head = heads.first().expect("it was asked");
    assert!(head.starts_with("GET /team/api/v1/query_range?query="), "{head}");
    assert!(head.contains("authorization: Bearer bearer-of-bad-news"), "{head}");
    assert!(head.contains("service%3D%22api%22") && head.contains("version%3D%221.2."), "{head}");
}
