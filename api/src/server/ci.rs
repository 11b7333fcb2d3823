//! `POST /v1/ci/releases`: a pipeline reports a release, signed; what the policy wants follows.
//!
//! Strangers can send requests here: limit their size, authenticate, then parse, in this order. A delivery's id comes from
//! its signed parts ([`Delivery`]). So a captured delivery that is sent again gets the first answer and starts nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use ledger::Ledger;
use ledger::view::Decoded;
use schemas::command::{self, Command, PlanAsked, Request};
use schemas::run::{Artifact, EnvValue};
use schemas::{
    Actor, ActorKind, CommandId, CommitId, DeploymentId, EnvironmentName, Hash, Offset, ServiceName, Stream, Version,
    release, text,
};
use serde::Deserialize;
use workers::identity::{self, Identity};

use super::commands::{How, carry_out};
use super::peer::Peer;
use super::{Api, artifacts, respond};
use crate::ci::{Delivery, SIGNATURE, TOLERANCE_S, WEBHOOK, Webhook, command_id};
use crate::problem::{Code, Problem};
use crate::wire::{COMMAND_BYTES_MAX, CommandAnswer, Reported};

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
    env: Option<BTreeMap<String, EnvValue>>,
    #[serde(default)]
    source: Option<release::Source>,
    pipeline: Pipeline,
    /// The version whose fault the release mends.
    #[serde(default)]
    fixes: Option<Version>,
    /// Where it is rolled out if the policy says so; production if nothing is said.
    #[serde(default)]
    environment: Option<EnvironmentName>,
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
    run_id: Option<RunId>,
}

/// A run's id: GitHub's is a number, others' are texts.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a whole number or a text as run_id")]
enum RunId {
    Number(u64),
    Text(String),
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunId::Number(number) => number.fmt(f),
            RunId::Text(text) => text.fmt(f),
        }
    }
}

/// A delivery whose signature is right.
struct Believed {
    body: bytes::Bytes,
    /// The name of the secret it was signed with.
    key: &'static str,
    delivery: Delivery,
}

pub(super) async fn post(
    State(api): State<Arc<Api>>,
    peer: Peer,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Believed { body, key, delivery } = believed(&api, &headers, body).await?;
    let json = one(&headers, CONTENT_TYPE.as_str()).and_then(|text| text.split(';').next());
    if !json.is_some_and(|text| text.trim().eq_ignore_ascii_case("application/json")) {
        return Err(Problem::new(Code::MediaType, "the body must be application/json"));
    }
    let report: Report = respond::parse(&body)?;
    let actor = actor(&report.pipeline, key)?;
    let reported = take(&api, report, &delivery, actor, peer).await?;
    Ok(respond::json(&reported))
}

/// Reads the body and returns it if its signature is right: as a standard webhook if it has any of their headers, else in
/// GitHub's form.
async fn believed(api: &Api, headers: &HeaderMap, body: Body) -> Result<Believed, Problem> {
    if api.ci.is_empty() {
        let next = "start `ionledger up` with one";
        return Err(Problem::new(
            Code::NotConfigured,
            format!("no CI secret is set, so no report from CI is accepted; {next}"),
        ));
    }
    if WEBHOOK.iter().any(|name| headers.contains_key(*name)) {
        return webhook(api, headers, body).await;
    }
    if !api.ci.believes_bodies() {
        let why = format!("`{SIGNATURE}` is not believed here (ci_only_webhooks)");
        return Err(refused(&format!("{why}; sign as Standard Webhooks do, with {}", WEBHOOK.join(", "))));
    }
    let next = format!("sign the raw body: `{SIGNATURE}: sha256=HMAC-SHA256`, or as Standard Webhooks do");
    let refuse = |why: &str| refused(&format!("{why}; {next}"));
    let signature = one(headers, SIGNATURE).ok_or_else(|| refuse("this request has not exactly one signature"))?;
    let body = respond::read(headers, body, COMMAND_BYTES_MAX, api.limits.body_timeout).await?;
    let key = api.ci.signed_by(signature, &body).ok_or_else(|| refuse("the signature is not this body's"))?;
    let delivery = Delivery::Body(Hash::of(&body));
    Ok(Believed { body, key, delivery })
}

/// Believes a standard webhook that was sent in these minutes.
async fn webhook(api: &Api, headers: &HeaderMap, body: Body) -> Result<Believed, Problem> {
    let [id, timestamp, signatures] = WEBHOOK.map(|name| {
        one(headers, name).ok_or_else(|| refused(&format!("this request has not exactly one `{name}`; send one")))
    });
    let webhook = Webhook { id: id?, timestamp: timestamp?, signatures: signatures? };
    if !webhook.has_id() {
        return Err(refused("webhook-id is not 1 to 128 visible characters without a dot; choose such an id"));
    }
    let body = respond::read(headers, body, COMMAND_BYTES_MAX, api.limits.body_timeout).await?;
    let signed = "sign `ID.TIMESTAMP.BODY` with the secret, as Standard Webhooks do";
    let Some(key) = api.ci.webhook_signed_by(webhook, &body) else {
        return Err(refused(&format!("no `v1` signature matches this webhook; {signed}")));
    };
    let age = webhook.age_s(api.ledger.clock().now());
    let age = age.ok_or_else(|| refused("webhook-timestamp is not a time; write seconds since 1970"))?;
    if age.abs() > TOLERANCE_S {
        let clock = if age > 0 { "behind" } else { "ahead of" };
        let why = format!("webhook-timestamp is {} s {clock} this server's clock, at most {TOLERANCE_S} s", age.abs());
        return Err(refused(&format!("{why} are taken; sign each attempt again, and set the clocks")));
    }
    Ok(Believed { body, key, delivery: Delivery::Webhook(webhook.id.to_owned()) })
}

fn refused(why: &str) -> Problem {
    tracing::warn!(why, "a report from CI was refused");
    Problem::new(Code::Unauthenticated, why)
}

/// Returns a header's value if there is exactly one.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value.to_str().ok()
}

fn actor(pipeline: &Pipeline, key: &str) -> Result<Actor, Problem> {
    let run_id = pipeline.run_id.as_ref().map(ToString::to_string).unwrap_or_default();
    let checks =
        text::check("pipeline.name", &pipeline.name, 200).and_then(|()| text::check("pipeline.run_id", &run_id, 200));
    checks.map_err(|error| Problem::malformed(error.to_string()))?;
    if pipeline.name.trim().is_empty() {
        return Err(Problem::malformed("pipeline.name is empty; name the pipeline as history shall show it"));
    }
    Ok(Actor { kind: ActorKind::Pipeline, name: pipeline.name.clone(), proof: format!("hmac key={key}") })
}

/// Records the release and, if the service's policy says so, asks for its rollout.
async fn take(api: &Api, report: Report, delivery: &Delivery, actor: Actor, peer: Peer) -> Result<Reported, Problem> {
    let ledger = api.ledger.id();
    let (release_id, new_id) = (delivery.command_id(ledger, "release"), delivery.command_id(ledger, "new"));
    let Report { service, version, artifact, args, env, source, pipeline, fixes, environment } = report;
    let (env, source) = (env.unwrap_or_default(), source.unwrap_or_default());
    let environment = environment.unwrap_or_else(EnvironmentName::production);
    let artifact = found(api, artifact, peer).await?;
    let run = pipeline.run_id.map(|run| format!(", run {run}")).unwrap_or_default();
    let request = |id: CommandId, command: Command| Request {
        id,
        command,
        fence: None,
        reason: Some(format!("{delivery}{run}")),
        effective_at: None,
    };
    let name = service.clone();
    let command = Command::Release(command::Release {
        service: name,
        version: version.clone(),
        artifact,
        args,
        env,
        source,
        fixes,
    });
    let how = How { wait: api.limits.applied_wait, no_break_glass: false, sent_at: None };
    let release = carry_out(api, actor.clone(), request(release_id, command), None, how).await?;
    let told_before = matches!(delivery, Delivery::Body(_))
        && release.commit.is_none()
        && known_by_header(api, &service, &version, &run).await?;
    if told_before || !wants_rollout(&api.ledger, &service, &release, new_id).await? {
        return Ok(Reported { release, rollout: None });
    }
    let cause = release.commit.or_else(|| commit_of(api, &service, &version));
    let deployment = DeploymentId { environment, service: service.clone() };
    let command = Command::New(command::New {
        deployment,
        version: version.clone(),
        then_roll: Some(PlanAsked::default()),
        again: false,
    });
    match carry_out(api, actor, request(new_id, command), cause, how).await {
        Ok(rollout) => Ok(Reported { release, rollout: Some(rollout) }),
        // Of several merges the newest is rolled out; that another was overtaken is no fault of its pipeline.
        Err(problem) if problem.code == Code::Older => {
            let notes = vec![problem.message];
            let answer = CommandAnswer { notes, ..CommandAnswer::default() };
            Ok(Reported { release, rollout: Some(answer) })
        }
        Err(problem) => {
            let message = format!(
                "release {service} {version} is recorded, but its rollout is not asked for: {}",
                problem.message
            );
            Err(Problem { message, ..problem })
        }
    }
}

/// Says whether an older program, which took the delivery's id from an unsigned header, recorded the release from this same
/// report. Such a report gets no second rollout.
async fn known_by_header(api: &Api, service: &ServiceName, version: &Version, run: &str) -> Result<bool, Problem> {
    let Some(commit) = commit_of(api, service, version) else { return Ok(false) };
    let explained = api.reader.explain_commit(commit).await?;
    let reason =
        explained.entries.iter().find(|entry| entry.commit == Some(commit)).and_then(|entry| entry.reason.clone());
    let delivery = reason.as_deref().and_then(|reason| reason.strip_prefix("CI delivery ")?.strip_suffix(run));
    let known = |delivery: &str| {
        let id = command_id(api.ledger.id(), delivery, "release");
        api.ledger.view().command(id).is_some()
    };
    Ok(delivery.is_some_and(known))
}

/// Returns the artifact that is meant, which [`carry_out`] makes sure is there.
async fn found(api: &Api, asked: ArtifactAsked, peer: Peer) -> Result<Artifact, Problem> {
    match asked {
        ArtifactAsked { sha256: Some(sha256), name: Some(name), size_bytes: Some(size_bytes), path: None } => {
            Ok(Artifact { sha256, name, size_bytes })
        }
        ArtifactAsked { sha256: None, name: None, size_bytes: None, path: Some(path) } => {
            let reader = reader(peer, &path)?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            artifacts::keep(api, path, name, None, reader).await
        }
        _ => Err(Problem::malformed(
            "artifact: give sha256, name and size_bytes of one that was uploaded, or the path of a local file alone",
        )),
    }
}

/// Returns with whose rights the file at `path` is read, if not with this process's own: those of the caller, who may name
/// only what the caller can read.
fn reader(peer: Peer, path: &std::path::Path) -> Result<Option<Identity>, Problem> {
    let next = "upload it first with `PUT /v1/artifacts`";
    let Peer::Unix { uid, gid, .. } = peer else {
        return Err(Problem::new(Code::Forbidden, format!("artifact.path is for callers on the socket; {next}")));
    };
    if !path.is_absolute() {
        return Err(Problem::malformed("artifact.path must begin with `/`: the server does not run in your folder"));
    }
    let ours = rustix::process::geteuid().as_raw();
    match (uid == ours || uid == 0, identity::is_root()) {
        (true, _) => Ok(None),
        (false, true) => Ok(Some(Identity::numbered(uid, gid))),
        (false, false) => {
            let why = "only root can look at a file with your rights, and this ledger does not run as root";
            Err(Problem::new(Code::Forbidden, format!("artifact.path cannot be used: {why}; {next}")))
        }
    }
}

/// Says whether a release is rolled out by itself. A redelivery gets the first answer: what the policy said then.
async fn wants_rollout(
    ledger: &Ledger,
    service: &ServiceName,
    release: &CommandAnswer,
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
