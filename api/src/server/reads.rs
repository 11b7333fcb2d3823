//! Reads: health, where the ledger stands, and what the reader answers.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use jiff::Zoned;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use ledger::log::ReadError;
use replay::HistoryQuery;
use replay::Moment;
use replay::answer::Explanation;
use schemas::{CommitId, DeploymentId, EnvironmentName, Offset, ServiceName};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::SemaphorePermit;
use workers::nodes::process::logs::log_path;

use super::peer::Caller;
use super::{Api, glass, history, measured, respond};
use crate::moment;
use crate::problem::{Code, Problem};
use crate::telemetry;
use crate::wire::Standing;

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> Response {
    respond::json(&json!({"ok": true, "version": env!("CARGO_PKG_VERSION")}))
}

/// `GET /readyz`: the ledger is followed, so that writes can be taken.
pub(super) async fn readyz(State(api): State<Arc<Api>>) -> Result<Response, Problem> {
    match api.ledger.halted() {
        Some(why) => Err(Problem::new(Code::Halted, format!("the ledger cannot be followed any more: {why}"))),
        None if api.closing.is_cancelled() => Err(Problem::new(Code::Halted, "this server is closing")),
        None => Ok(respond::json(&json!({"ok": true}))),
    }
}

/// `GET /metrics`: what Prometheus reads. It tells names of services, so it takes a token as any other read.
pub(super) async fn metrics(State(api): State<Arc<Api>>, _: Caller) -> Response {
    let mut families = telemetry::of_ledger(&api.ledger).await;
    if let Some(proxy) = &api.proxy {
        families.extend(telemetry::of_proxy(proxy).await);
    }
    let text = telemetry::text(families);
    ([(CONTENT_TYPE, telemetry::CONTENT_TYPE)], text).into_response()
}

/// `GET /v1/ledger`: what it is and where it stands.
pub(super) async fn ledger(State(api): State<Arc<Api>>, _: Caller) -> Response {
    let end = *api.ledger.log().end().borrow();
    let (id, halted) = (api.ledger.id(), api.ledger.halted());
    let view = api.ledger.view();
    let (next, root, time, voids) = (view.next(), view.tree().root(), view.time(), view.voids());
    let read_only = view.read_only().clone();
    drop(view);
    let ahead = api.ledger.log().ahead();
    respond::json(&Standing { ledger: id, next, end, root, time, voids, halted, read_only, ahead })
}

/// The moment that a query names: `at`, `offset` or `event`, or now.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct When {
    at: Option<String>,
    offset: Option<Offset>,
    event: Option<CommitId>,
}

impl When {
    fn moment(self, api: &Api) -> Result<Moment, Problem> {
        match (self.at, self.offset, self.event) {
            (None, None, None) => Ok(Moment::Now),
            (Some(at), None, None) => time(api, &at).map(Moment::Time),
            (None, Some(offset), None) => Ok(Moment::Offset(offset)),
            (None, None, Some(event)) => Ok(Moment::Event(event)),
            _ => Err(Problem::malformed("a moment is one of at, offset and event")),
        }
    }
}

/// Reads a time; one without a zone is in UTC, as the caller's zone is not known here. Between date and time stands `T`:
/// a space may have been the `+` of an offset, which an address turns into a space.
pub(super) fn time(api: &Api, text: &str) -> Result<schemas::Timestamp, Problem> {
    if text.bytes().any(|byte| byte == b' ') && text.parse::<Date>().is_ok() {
        let why = "write T between date and time, and the + of an offset as %2B";
        return Err(Problem::malformed(format!("`{}`: {why}", text.escape_default())));
    }
    let now = Zoned::new(api.ledger.clock().now(), TimeZone::UTC);
    moment::parse(text, &now).map_err(|error| Problem::malformed(error.to_string()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StatusAsked {
    service: Option<ServiceName>,
    environment: Option<EnvironmentName>,
    at: Option<String>,
    offset: Option<Offset>,
    event: Option<CommitId>,
}

/// `GET /v1/status`: what runs and what serves, now or then.
pub(super) async fn status(
    State(api): State<Arc<Api>>,
    _: Caller,
    asked: Result<Query<StatusAsked>, QueryRejection>,
) -> Result<Response, Problem> {
    let StatusAsked { service, environment, at, offset, event } = respond::query(asked)?;
    let moment = When { at, offset, event }.moment(&api)?;
    let _place = if moment == Moment::Now { None } else { Some(place(&api).await?) };
    let mut status = api.reader.status(moment, service.as_ref(), environment.as_ref()).await?;
    for service in &mut status.services {
        service.deployments.retain(|found| environment.as_ref().is_none_or(|wanted| *wanted == found.environment));
    }
    if moment == Moment::Now {
        if service.is_some() {
            status.name_logs(|node| log_path(&api.data, node).display().to_string());
            measured::measure(&api, &mut status).await;
        }
        status.unrecorded = glass::unrecorded(&api, service.as_ref(), environment.as_ref());
        if let Some(trouble) = api.ledger.clock_trouble() {
            status.name_clock(&trouble);
        }
    }
    Ok(respond::json(&status))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryAsked {
    environment: Option<EnvironmentName>,
    limit: Option<usize>,
    since: Option<String>,
    before: Option<Offset>,
    #[serde(default)]
    voids: bool,
    #[serde(default)]
    counts: bool,
}

/// `GET /v1/history`: the commits of the whole ledger, the newest first.
pub(super) async fn history(
    State(api): State<Arc<Api>>,
    _: Caller,
    asked: Result<Query<HistoryAsked>, QueryRejection>,
) -> Result<Response, Problem> {
    tell_history(api, None, respond::query(asked)?).await
}

/// `GET /v1/history/SERVICE`: the commits that concern a service.
pub(super) async fn history_of(
    State(api): State<Arc<Api>>,
    _: Caller,
    service: Result<Path<ServiceName>, PathRejection>,
    asked: Result<Query<HistoryAsked>, QueryRejection>,
) -> Result<Response, Problem> {
    tell_history(api, Some(respond::path(service)?), respond::query(asked)?).await
}

async fn tell_history(api: Arc<Api>, service: Option<ServiceName>, asked: HistoryAsked) -> Result<Response, Problem> {
    let HistoryAsked { environment, limit, since, before, voids, counts } = asked;
    if limit.is_some_and(|limit| !(1..=history::LIMIT_MAX).contains(&limit)) {
        let max = history::LIMIT_MAX;
        let next = "go on with `before` and the last offset of the answer";
        return Err(Problem::malformed(format!("limit must be 1 to {max}; for more {next}")));
    }
    let since = since.map(|text| time(&api, &text)).transpose()?;
    history::tell(api, HistoryQuery { service, environment, limit, since, before, voids, counts }).await
}

/// `GET /v1/who-shipped/ENVIRONMENT/SERVICE`: which version served what share, and who put it there.
pub(super) async fn who_shipped(
    State(api): State<Arc<Api>>,
    _: Caller,
    deployment: Result<Path<(EnvironmentName, ServiceName)>, PathRejection>,
    when: Result<Query<When>, QueryRejection>,
) -> Result<Response, Problem> {
    let (environment, service) = respond::path(deployment)?;
    let moment = respond::query(when)?.moment(&api)?;
    let _place = place(&api).await?;
    Ok(respond::json(&api.reader.who_shipped(&DeploymentId { environment, service }, moment).await?))
}

/// `GET /v1/services/SERVICE`: how a service was declared, also as the file that `apply` takes.
pub(super) async fn declaration(
    State(api): State<Arc<Api>>,
    _: Caller,
    service: Result<Path<ServiceName>, PathRejection>,
    when: Result<Query<When>, QueryRejection>,
) -> Result<Response, Problem> {
    let service = respond::path(service)?;
    let moment = respond::query(when)?.moment(&api)?;
    let _place = place(&api).await?;
    Ok(respond::json(&api.reader.declaration(&service, moment).await?))
}

/// `GET /v1/explain/ENVIRONMENT/SERVICE`: why its rollout went as it did.
pub(super) async fn explain(
    State(api): State<Arc<Api>>,
    _: Caller,
    deployment: Result<Path<(EnvironmentName, ServiceName)>, PathRejection>,
    when: Result<Query<When>, QueryRejection>,
) -> Result<Response, Problem> {
    let (environment, service) = respond::path(deployment)?;
    let moment = respond::query(when)?.moment(&api)?;
    let _place = place(&api).await?;
    let answer = api.reader.explain(&DeploymentId { environment, service }, moment).await?;
    Ok(explained(&api, answer, moment).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NamedAsked {
    service: Option<ServiceName>,
    environment: Option<EnvironmentName>,
    at: Option<String>,
    offset: Option<Offset>,
    event: Option<CommitId>,
}

/// `GET /v1/explain/WHAT`: of an offset, a commit or the beginning of its id what led to it; a service's rollout; a version.
pub(super) async fn explain_named(
    State(api): State<Arc<Api>>,
    _: Caller,
    what: Result<Path<String>, PathRejection>,
    asked: Result<Query<NamedAsked>, QueryRejection>,
) -> Result<Response, Problem> {
    let what = respond::path(what)?;
    let NamedAsked { service, environment, at, offset, event } = respond::query(asked)?;
    let moment = When { at, offset, event }.moment(&api)?;
    let environment = environment.unwrap_or_else(EnvironmentName::production);
    let _place = place(&api).await?;
    let answer = api.reader.explain_named(&what, service.as_ref(), &environment, moment).await?;
    Ok(explained(&api, answer, moment).await)
}

/// Answers an explanation; one of now also says what the rollout's versions were measured to do.
async fn explained(api: &Api, mut answer: Explanation, moment: Moment) -> Response {
    if let (Moment::Now, Some(deployment), Some(rollout)) = (moment, &answer.deployment, &mut answer.rollout) {
        measured::measure_rollout(api, deployment, rollout).await;
    }
    respond::json(&answer)
}

/// `GET /v1/replay`: all of production as it was.
pub(super) async fn production(
    State(api): State<Arc<Api>>,
    _: Caller,
    when: Result<Query<When>, QueryRejection>,
) -> Result<Response, Problem> {
    let moment = respond::query(when)?.moment(&api)?;
    let _place = place(&api).await?;
    Ok(respond::json(&api.reader.production(moment).await?))
}

/// `GET /v1/verify`: hashes, rule and root recomputed. What is wrong is in the answer.
pub(super) async fn verify(State(api): State<Arc<Api>>, _: Caller) -> Result<Response, Problem> {
    let _place = place(&api).await?;
    Ok(respond::json(&api.reader.verify().await?))
}

pub(super) async fn place(api: &Api) -> Result<SemaphorePermit<'_>, Problem> {
    api.long_reads.acquire().await.map_err(|_| Problem::new(Code::Halted, "this server is closing"))
}

impl From<replay::Error> for Problem {
    fn from(error: replay::Error) -> Self {
        let code = match &error {
            replay::Error::Future { .. } => Code::Invalid,
            replay::Error::NoOffset { .. }
            | replay::Error::Empty
            | replay::Error::NoCommit(_)
            | replay::Error::NoCommitAt(_)
            | replay::Error::Nothing { .. } => Code::Unknown,
            replay::Error::Several { .. } => Code::Invalid,
            replay::Error::Read(ReadError::Damaged { .. }) => Code::Damaged,
            replay::Error::Read(ReadError::Unavailable(_)) | replay::Error::Open(_) => Code::LogUnavailable,
            replay::Error::Halt(_) => Code::Halted,
        };
        Problem::new(code, error.to_string())
    }
}
