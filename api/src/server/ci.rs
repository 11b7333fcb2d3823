//! `POST /v1/ci/releases`: a pipeline reports a release, signed; what the policy wants follows.
//!
//! This door is open to strangers: cap, authenticate, then parse, in this order.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use ledger::Ledger;
use ledger::view::Decoded;
use schemas::command::{Command, PlanAsked, Request};
use schemas::run::{Artifact, EnvValue};
use schemas::{
    Actor, ActorKind, CommandId, CommitId, DeploymentId, EnvironmentName, Hash, Offset, ServiceName, Stream, Version,
    release, text,
};
use serde::Deserialize;

use super::commands::{How, carry_out};
use super::peer::Peer;
use super::{Api, artifacts, respond};
use crate::ci::{DELIVERY, SIGNATURE, command_id};
use crate::problem::{Code, Problem};
use crate::wire::{Answer, COMMAND_BYTES_MAX, Reported};

/// What a pipeline reports.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Report {
    service: ServiceName,
    version: Version,
    artifact: ArtifactAsked,
    #[serde(default)]
    args: Option<Vec<String>>,
    #[serde(default)]
    env: BTreeMap<String, EnvValue>,
    #[serde(default)]
    source: release::Source,
    pipeline: Pipeline,
    /// Where it is rolled out if the policy says so.
    #[serde(default = "EnvironmentName::production")]
    environment: EnvironmentName,
}

/// An artifact that was uploaded, or a file of the server's machine.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArtifactAsked {
    sha256: Option<Hash>,
    name: Option<String>,
    size_bytes: Option<u64>,
    path: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pipeline {
    name: String,
    #[serde(default)]
    run_id: Option<String>,
}

pub(super) async fn post(
    State(api): State<Arc<Api>>,
    peer: Peer,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (body, key) = believed(&api, &headers, body).await?;
    let delivery = delivery(&headers)?;
    let report: Report = respond::parse(&body)?;
    let actor = actor(&report.pipeline, key)?;
    let reported = take(&api, report, &delivery, actor, peer).await?;
    Ok(respond::json(&reported))
}

/// Reads the body and returns it with the name of the secret it was signed with.
async fn believed(api: &Api, headers: &HeaderMap, body: Body) -> Result<(bytes::Bytes, &'static str), Problem> {
    if api.ci.is_empty() {
        let next = "start `ionledger up` with one";
        return Err(Problem::new(Code::NotConfigured, format!("no secret set: nothing from CI is believed; {next}")));
    }
    let refuse = |why: &str| {
        let next = format!("sign the raw body: `{SIGNATURE}: sha256=HMAC-SHA256`");
        Problem::new(Code::Unauthenticated, format!("{why}; {next}"))
    };
    let signature = one(headers, SIGNATURE).ok_or_else(|| refuse("this request has not exactly one signature"))?;
    let body = respond::read(headers, body, COMMAND_BYTES_MAX, api.limits.body_timeout).await?;
    let Some(key) = api.ci.signed_by(signature, &body) else {
        tracing::warn!("a report from CI with a wrong signature was refused");
        return Err(refuse("the signature is not this body's"));
    };
    let json = one(headers, CONTENT_TYPE.as_str()).and_then(|text| text.split(';').next());
    if !json.is_some_and(|text| text.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Problem::new(Code::MediaType, "the body must be application/json"));
    }
    Ok((body, key))
}

/// Returns a header's value if there is exactly one.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value.to_str().ok()
}

fn delivery(headers: &HeaderMap) -> Result<String, Problem> {
    let id = DELIVERY.iter().find_map(|name| one(headers, name));
    let plain = |id: &&str| (1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    let wrong = || {
        let names = DELIVERY.join("` or `");
        Problem::malformed(format!(
            "this delivery has no id of 1 to 128 visible characters in `{names}`; a redelivery is known by it"
        ))
    };
    id.filter(plain).map(str::to_owned).ok_or_else(wrong)
}

fn actor(pipeline: &Pipeline, key: &str) -> Result<Actor, Problem> {
    let checks = text::check("pipeline.name", &pipeline.name, 200)
        .and_then(|()| text::check("pipeline.run_id", pipeline.run_id.as_deref().unwrap_or_default(), 200));
    checks.map_err(|error| Problem::malformed(error.to_string()))?;
    if pipeline.name.trim().is_empty() {
        return Err(Problem::malformed("pipeline.name is empty; name what history shall call it"));
    }
    Ok(Actor { kind: ActorKind::Pipeline, name: pipeline.name.clone(), proof: format!("hmac key={key}") })
}

/// Records the release and, if the service's policy says so, asks for its rollout.
async fn take(api: &Api, report: Report, delivery: &str, actor: Actor, peer: Peer) -> Result<Reported, Problem> {
    let ledger = api.ledger.id();
    let (release_id, new_id) = (command_id(ledger, delivery, "release"), command_id(ledger, delivery, "new"));
    let Report { service, version, artifact, args, env, source, pipeline, environment } = report;
    let artifact = found(api, artifact, peer).await?;
    let run = pipeline.run_id.map(|run| format!(", run {run}")).unwrap_or_default();
    let request = |id: CommandId, command: Command| Request {
        id,
        command,
        fence: None,
        reason: Some(format!("CI delivery {delivery}{run}")),
        effective_at: None,
    };
    let name = service.clone();
    let command = Command::Release { service: name, version: version.clone(), artifact, args, env, source };
    let how = How { wait: api.limits.applied_wait, no_break_glass: false };
    let release = carry_out(api, actor.clone(), request(release_id, command), None, how).await?;
    if !wants_rollout(&api.ledger, &service, &release, new_id).await? {
        return Ok(Reported { release, rollout: None });
    }
    let cause = release.commit.or_else(|| commit_of(api, &service, &version));
    let deployment = DeploymentId { environment, service: service.clone() };
    let command = Command::New { deployment, version: version.clone(), then_roll: Some(PlanAsked::default()) };
    match carry_out(api, actor, request(new_id, command), cause, how).await {
        Ok(rollout) => Ok(Reported { release, rollout: Some(rollout) }),
        Err(problem) => {
            let message = format!(
                "release {service} {version} is recorded, but its rollout is not asked for: {}",
                problem.message
            );
            Err(Problem { message, ..problem })
        }
    }
}

/// Returns the artifact that is meant, which [`carry_out`] makes sure is there.
async fn found(api: &Api, asked: ArtifactAsked, peer: Peer) -> Result<Artifact, Problem> {
    match asked {
        ArtifactAsked { sha256: Some(sha256), name: Some(name), size_bytes: Some(size_bytes), path: None } => {
            Ok(Artifact { sha256, name, size_bytes })
        }
        ArtifactAsked { sha256: None, name: None, size_bytes: None, path: Some(path) } => {
            check_local(peer, &path)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            artifacts::keep(api, path, name).await
        }
        _ => Err(Problem::malformed(
            "artifact: give sha256, name and size_bytes of one that was uploaded, or the path of a local file alone",
        )),
    }
}

/// A path is read as this process's user, so only that user (or root) may name one, and only on this machine.
fn check_local(peer: Peer, path: &std::path::Path) -> Result<(), Problem> {
    let ours = rustix::process::geteuid().as_raw();
    let may = matches!(peer, Peer::Unix { uid, .. } if uid == ours || uid == 0);
    if !may {
        let next = "upload it first with `PUT /v1/artifacts`";
        return Err(Problem::new(Code::Forbidden, format!("artifact.path is for the socket's own user; {next}")));
    }
    if !path.is_absolute() {
        return Err(Problem::malformed("artifact.path must begin with `/`: the server's folder is not yours"));
    }
    Ok(())
}

/// Says whether a release is rolled out by itself. A redelivery gets the first answer: what the policy said then.
async fn wants_rollout(
    ledger: &Ledger,
    service: &ServiceName,
    release: &Answer,
    new_id: CommandId,
) -> Result<bool, Problem> {
    let (known, wanted) = {
        let view = ledger.view();
        let definition = view.state().service(service).and_then(|service| service.definition.as_ref());
        (view.command(new_id).is_some(), definition.is_some_and(|found| found.policy.rollout.on_release))
    };
    match (release.repeated, release.offset) {
        _ if known => Ok(true),
        (true, Some(offset)) => Ok(wanted && !declared_since(ledger, service, offset).await?),
        _ => Ok(wanted),
    }
}

/// Says whether a service was declared anew after `offset`.
async fn declared_since(ledger: &Ledger, service: &ServiceName, offset: Offset) -> Result<bool, Problem> {
    let stream = Stream::Service(service.clone()).to_string();
    let mut next = offset.next();
    loop {
        let records = ledger.log().read(next, 1_024).await;
        let records = records.map_err(|error| Problem::new(Code::Halted, error.to_string()))?;
        let Some(last) = records.last() else { return Ok(false) };
        next = last.offset.next();
        let declares = |bytes: &bytes::Bytes| {
            let decoded = Decoded::of(bytes);
            let events = decoded.envelope().into_iter().flat_map(|envelope| &envelope.events);
            events.into_iter().any(|event| event.stream == stream && event.kind == "service.applied")
        };
        if records.iter().any(|record| declares(&record.bytes)) {
            return Ok(true);
        }
    }
}

fn commit_of(api: &Api, service: &ServiceName, version: &Version) -> Option<CommitId> {
    let view = api.ledger.view();
    view.state().service(service)?.releases.get(version).map(|release| release.commit)
}
