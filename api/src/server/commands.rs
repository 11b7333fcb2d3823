//! `POST /v1/commands`: what the CLI's commands come to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue};
use ledger::deployment::hold::Holds;
use ledger::deployment::rollback;
use ledger::service::Service;
use ledger::{Deployment, decide, execute};
use replay::Moment;
use replay::answer::{Names, asked_for};
use schemas::command::{self, Command, Request};
use schemas::policy::JudgementPolicy;
use schemas::run::{EnvValue, RunSpec};
use schemas::{
    Actor, ActorKind, CommandId, CommitId, DeploymentId, EnvironmentName, Event, Offset, Probed, ServiceName, StackId,
    Stream, Timestamp, Weight,
};
use schemas::{run, traffic};
use serde::Deserialize;
use workers::break_glass::Rolled;
use workers::measures::Asked;

use super::peer::Caller;
use super::seat::Room;
use super::{Api, artifacts, break_glass, holds, peer, respond};
use crate::authorize::{Act, authorize};
use crate::problem::{Code, Problem};
use crate::telemetry;
use crate::wire::{self, COMMAND_BYTES_MAX, CommandAnswer, Happened};

/// The longest time an answer may wait for the router.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CommandOptions {
    #[serde(default)]
    dry_run: bool,
    wait_ms: Option<u64>,
    #[serde(default)]
    no_break_glass: bool,
}

pub(super) async fn post(
    State(api): State<Arc<Api>>,
    Caller(actor): Caller,
    room: Room,
    options: Result<Query<CommandOptions>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let options = respond::query(options)?;
    let body = respond::read(&headers, body, COMMAND_BYTES_MAX, api.limits.body_timeout).await?;
    let request: Request = respond::parse(&body)?;
    room.admit(&request.command)?;
    let answer = if options.dry_run {
        dry_run(&api, &actor, &request).await?
    } else {
        let wait = options.wait_ms.map_or(api.limits.applied_wait, Duration::from_millis).min(WAIT_MAX);
        let sent_at = headers.get(wire::SENT_AT).map(sent_at).transpose()?;
        carry_out(&api, actor, request, None, How { wait, no_break_glass: options.no_break_glass, sent_at }).await?
    };
    Ok(respond::json(&answer))
}

/// Reads when a request was sent.
fn sent_at(header: &HeaderValue) -> Result<Timestamp, Problem> {
    header.to_str().ok().and_then(|at| at.parse().ok()).ok_or_else(|| {
        let (name, said) = (wire::SENT_AT, String::from_utf8_lossy(header.as_bytes()).into_owned());
        Problem::malformed(format!(
            "the header {name} holds `{said}`, which is no time in RFC 3339; write it as 2026-11-01T12:00:00Z, or leave the header out"
        ))
    })
}

/// Says what `request` would do.
async fn dry_run(api: &Api, actor: &Actor, request: &Request) -> Result<CommandAnswer, Problem> {
    authorize(actor, Act::Command(&request.command))?;
    check_references(api, actor, &request.command)?;
    let mut notes = check_outside(api, &request.command, true).await?;
    let before = Before::of(api.ledger.view().state(), &request.command);
    let decision = api.ledger.dry_run(request, actor, &probed(api, &request.command).await)?;
    let asked = asked_for(decision.events.iter().map(|(_, event)| event));
    let held = before.holds();
    let names = Names { service: before.service, asked, ..names(api, &request.command) };
    let events = Happened::all(&decision.events, &names);
    notes.extend(decision.notes);
    notes.extend(holds::beside(api, &held, &decision.events).await);
    notes.extend(lacks(api, &request.command).await);
    notes.extend(source_trouble(api, &request.command).await);
    let (not_yet, stack) = (decision.not_yet, decision.stack);
    Ok(CommandAnswer { events, notes, not_yet, stack, ..CommandAnswer::default() })
}

/// Refuses a command that was sent before a rollback without the ledger took effect: this process stood still meanwhile, and the
/// command was decided on before that rollback. Only commands from this machine are compared: another machine's clock may differ.
fn refuse_overtaken(
    api: &Api,
    actor: &Actor,
    id: CommandId,
    sent_at: Option<Timestamp>,
    deployment: &DeploymentId,
) -> Result<(), Problem> {
    let view = api.ledger.view();
    // One that counted is answered once more.
    let counted = view.command(id).is_some();
    let back = view.state().deployment(deployment).and_then(|of| of.traffic.late_rollback_at());
    // One that is sent again was decided on when it was sent first.
    let sent = made_at(id).into_iter().chain(sent_at).min().filter(|_| peer::is_of_this_machine(actor));
    match (back, sent) {
        (Some(back), Some(sent)) if sent < back && !counted => {
            let words = format!(
                "{deployment} was rolled back at {back}, after this command was sent: nothing was done; \
                 look at `ionledger status {}`, and run the command again if you still want it",
                deployment.arguments()
            );
            Err(Problem::new(Code::Fenced, words))
        }
        _ => Ok(()),
    }
}

/// Returns when a command id was made, if it says so (UUID version 7).
fn made_at(id: CommandId) -> Option<Timestamp> {
    if id.0.get_version_num() != 7 {
        return None;
    }
    let (seconds, nanoseconds) = id.0.get_timestamp()?.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanoseconds).ok()?).ok()
}

/// How a command is carried out.
#[derive(Clone, Copy)]
pub(super) struct How {
    /// How long its answer may wait for the router.
    pub(super) wait: Duration,
    /// Whether a rollback waits for the ledger, however long that takes.
    pub(super) no_break_glass: bool,
    /// When it was sent, if its sender says so.
    pub(super) sent_at: Option<Timestamp>,
}

/// Carries `request` out. Every write there is comes through here.
pub(super) async fn carry_out(
    api: &Api,
    actor: Actor,
    request: Request,
    cause: Option<CommitId>,
    how: How,
) -> Result<CommandAnswer, Problem> {
    authorize(&actor, Act::Command(&request.command))?;
    check_references(api, &actor, &request.command)?;
    let repeated = api.ledger.view().command(request.id).is_some();
    let warnings = if repeated { vec![] } else { check_outside(api, &request.command, false).await? };
    let (id, command, who, began) = (request.id, request.command.clone(), actor.to_string(), Instant::now());
    let before = Before::of(api.ledger.view().state(), &command);
    // What was sent before a rollback without the ledger is decided after it.
    if let (Some(break_glass), Some(deployment)) = (&api.break_glass, command.deployment())
        && !decide::is_rollback(&command)
    {
        break_glass.settle_first(deployment).await;
        refuse_overtaken(api, &actor, request.id, how.sent_at, deployment)?;
    }
    let probed = probed(api, &command).await;
    let seen = probed.clone();
    let done = match break_glass::break_glass_for(api, &command, how.no_break_glass) {
        None => api.ledger.execute_seeing(request, actor, cause, probed).await,
        Some(break_glass) => match break_glass.execute(request, actor, cause, probed).await {
            Rolled::Settled(done) => done,
            Rolled::Broken(broken) => return break_glass::answer_of(*broken),
        },
    };
    let what = Act::Command(&command).name();
    match &done {
        Ok(done) => tracing::info!(%who, what, %id, commit = ?done.commit, "carried out"),
        Err(refusal) => tracing::info!(%who, what, %id, %refusal, "refused"),
    }
    let done = done?;
    let applied = confirm(api, &command, &done, how.wait).await;
    // What changed nothing says only what is wrong.
    let applied = applied.filter(|(confirmed, _)| *confirmed != Some(true) || done.commit.is_some());
    // The first answer is given again, by how it stood before that.
    let before = if done.repeated { Before::at(api, &command, done.offset).await } else { before };
    let held = before.holds();
    let before = Names { service: before.service, before: before.deployment, ..names(api, &command) };
    let mut answer = CommandAnswer::of(&done, &before);
    answer.notes.extend(warnings);
    answer.notes.extend(holds::beside(api, &held, &done.events).await);
    answer.notes.extend(lacks(api, &command).await);
    answer.notes.extend(source_trouble(api, &command).await);
    if let Some((confirmed, note)) = applied {
        answer.applied = confirmed;
        answer.notes.extend(note);
    }
    answer.not_yet = not_yet(api, &command, &done.events, &seen);
    if decide::is_rollback(&command) {
        let outcome = if answer.applied == Some(true) { "applied" } else { "answered" };
        telemetry::ROLLBACK_SECONDS.with_label_values(&[outcome]).observe(began.elapsed().as_secs_f64());
    }
    Ok(answer)
}

/// What a command is about, as it stood before that.
#[derive(Default)]
struct Before {
    service: Option<Arc<Service>>,
    deployment: Option<Arc<Deployment>>,
}

impl Before {
    fn of(state: &ledger::State, command: &Command) -> Self {
        let service = match command {
            Command::Apply(command::Apply { service, .. }) => state.services.get(service).cloned(),
            _ => None,
        };
        Self { service, deployment: command.deployment().and_then(|id| state.deployments.get(id).cloned()) }
    }

    fn holds(&self) -> Holds {
        self.deployment.as_ref().map(|deployment| deployment.holds.clone()).unwrap_or_default()
    }

    /// Of a command that was carried out before, whose commit is at `offset`; nothing is known of one whose log cannot be read.
    async fn at(api: &Api, command: &Command, offset: Option<Offset>) -> Self {
        let Some(before) = offset.and_then(|offset| offset.0.checked_sub(1)) else { return Self::default() };
        match api.reader.state_at(Moment::Offset(Offset(before))).await {
            Ok(found) => Self::of(&found.state, command),
            Err(_) => Self::default(),
        }
    }
}

/// What the newest probes say of the stacks that `command` is about, where it asks.
async fn probed(api: &Api, command: &Command) -> Probed {
    match command.deployment().filter(|_| decide::asks_probes(command)) {
        Some(deployment) => api.outside.probed(&api.ledger, deployment).await,
        None => Probed::default(),
    }
}

/// What the ids in a command's events stand for.
fn names(api: &Api, command: &Command) -> Names {
    let view = api.ledger.view();
    let deployment = command.deployment().and_then(|id| view.state().deployments.get(id).cloned());
    Names { after: deployment, ..Names::default() }
}

/// Returns what nodes would lack of what a declaration or a release takes for granted.
async fn lacks(api: &Api, command: &Command) -> Vec<String> {
    let run = match command {
        Command::Apply(command::Apply { definition, .. }) => definition.run.clone(),
        Command::Release(command::Release { service, env, .. }) => {
            let view = api.ledger.view();
            let declared = view.state().service(service).and_then(|service| service.definition.as_ref());
            let mut run = declared.map(|definition| definition.run.clone()).unwrap_or_default();
            run.env.extend(env.clone());
            run
        }
        _ => return Vec::new(),
    };
    api.outside.lacks(&run).await
}

/// Says what keeps the source that a policy names from measuring, where a command declares it or will rely on it. It is no reason
/// to refuse: the source may come back, and a rollout holds until then.
async fn source_trouble(api: &Api, command: &Command) -> Vec<String> {
    let Some((policy, serving)) = source(api, command) else { return vec![] };
    let trouble = api.outside.try_source(&api.ledger, &serving, &policy).await;
    let then = format!("rollouts of {} hold until it is fixed", command.service());
    trouble.into_iter().map(|why| format!("{why}; {then}")).collect()
}

/// The policy that a command declares or will rely on, if it names a source, with the stacks that serve.
fn source(api: &Api, command: &Command) -> Option<(JudgementPolicy, Vec<Asked>)> {
    let service = command.service();
    let view = api.ledger.view();
    let state = view.state();
    let declared = || Some(&state.service(service)?.definition.as_ref()?.policy);
    let policy = match command {
        Command::Apply(command::Apply { definition, .. }) => Some(&definition.policy),
        Command::Roll(_)
        | Command::New(command::New { then_roll: Some(_), .. })
        | Command::Renew(command::Renew { then_roll: Some(_), .. }) => declared(),
        _ => None,
    };
    let policy = policy.map(|policy| policy.judgement.clone()).filter(|policy| !policy.source().is_router())?;
    let about = |id: &DeploymentId| command.deployment().map_or(id.service == *service, |wanted| wanted == id);
    let of_service = state.deployments.iter().filter(|(id, _)| about(id));
    Some((policy, of_service.filter_map(|(id, deployment)| serving(id, deployment)).collect()))
}

/// The stacks of a deployment that have traffic; none without any.
fn serving(id: &DeploymentId, deployment: &Deployment) -> Option<Asked> {
    let weights = &deployment.traffic.set.as_ref()?.weights;
    let stacks = weights.iter().filter(|(_, weight)| *weight > Weight::ZERO);
    let stacks: BTreeMap<_, _> = stacks.filter_map(|(stack, _)| Some((stack, deployment.name_of(stack)?))).collect();
    (!stacks.is_empty()).then(|| Asked { deployment: id.clone(), stacks })
}

/// Refuses a pipeline's release that refers to a secret which the service's declaration does not name. ionledger reads the
/// secret with its own rights, so a pipeline could else read any of ionledger's files.
fn check_references(api: &Api, actor: &Actor, command: &Command) -> Result<(), Problem> {
    let (ActorKind::Pipeline, Command::Release(command::Release { service, env, .. })) = (actor.kind, command) else {
        return Ok(());
    };
    let view = api.ledger.view();
    let definition = view.state().service(service).and_then(|service| service.definition.as_ref());
    let is_declared = |value: &EnvValue| definition.is_some_and(|found| found.run.env.values().any(|one| one == value));
    match env.iter().find(|(_, value)| !matches!(value, EnvValue::Value(_)) && !is_declared(value)) {
        None => Ok(()),
        Some((name, _)) => Err(Problem::new(
            Code::Forbidden,
            format!(
                "env {name}: a pipeline may refer only to secrets that the declaration of {service} names; add it there"
            ),
        )),
    }
}

/// Checks what the ledger cannot know, and returns what the one who asks should be warned of. In a dry run an artifact need not
/// have been uploaded.
async fn check_outside(api: &Api, command: &Command, dry: bool) -> Result<Vec<String>, Problem> {
    match command {
        Command::Apply(command::Apply { service, definition }) => {
            check_listen(api, service, &definition.listen).await?;
            Ok(placeholders(&definition.run))
        }
        Command::Release(command::Release { service, artifact, args, env, .. }) => {
            let lacks = if dry { None } else { artifacts::check(api, artifact).await? };
            let args = args.clone().unwrap_or_else(|| declared_args(api, service));
            let mut warnings = placeholders(&RunSpec { args, env: env.clone(), ..RunSpec::default() });
            warnings.extend(lacks);
            Ok(warnings)
        }
        Command::New(_)
        | Command::Renew(_)
        | Command::Traffic(_)
        | Command::Roll(_)
        | Command::Rollback(_)
        | Command::Pause(_)
        | Command::Resume(_)
        | Command::Abort(_)
        | Command::Promote(_)
        | Command::Hold(_)
        | Command::LiftHold(_)
        | Command::Retire(_)
        | Command::Dismiss(_) => Ok(vec![]),
    }
}

fn declared_args(api: &Api, service: &ServiceName) -> Vec<String> {
    let view = api.ledger.view();
    let definition = view.state().service(service).and_then(|service| service.definition.as_ref());
    definition.map(|definition| definition.run.args.clone()).unwrap_or_default()
}

/// Says what in a run spec looks like a placeholder and is none, or is one where none is filled in.
fn placeholders(spec: &RunSpec) -> Vec<String> {
    let of_arg = |(n, arg): (usize, &String)| {
        let unknown = run::unknown_placeholders(arg).map(|name| {
            format!(
                "argument {} holds `{{{name}}}`, which is not a placeholder and is passed as it is; `{{port}}` stands \
                 for the node's port",
                n + 1
            )
        });
        unknown.collect::<Vec<String>>()
    };
    let env = spec.env.iter().filter_map(|(name, value)| match value {
        EnvValue::Value(value) => Some((format!("env {name}"), value.as_str())),
        EnvValue::FromEnv(_) | EnvValue::FromFile(_) => None,
    });
    let unfilled = env.chain([("the check's path".to_owned(), spec.check.path.as_str())]);
    let unfilled = unfilled.filter(|(_, text)| text.contains("{port}")).map(|(place, _)| {
        format!("{place} holds `{{port}}`, which is filled in only in args; a node finds its port in the variable PORT")
    });
    spec.args.iter().enumerate().flat_map(of_arg).chain(unfilled).collect()
}

/// Checks that every address that is new in a declaration is free.
async fn check_listen(
    api: &Api,
    service: &ServiceName,
    listen: &BTreeMap<EnvironmentName, SocketAddr>,
) -> Result<(), Problem> {
    let in_use = |why: String| Err(Problem::new(Code::PortInUse, format!("{why}; choose another in [listen]")));
    for (environment, address) in listen {
        let deployment = DeploymentId { environment: environment.clone(), service: service.clone() };
        if address.port() == 0 {
            return Err(Problem::new(Code::Invalid, format!("{deployment} cannot listen on port 0; name a port")));
        }
        match listener_on(api, *address) {
            Some(other) if other == deployment => {}
            Some(other) => return in_use(format!("port in use: {other} listens on {address}")),
            None => match api.outside.check_listen(&deployment, *address).await {
                Ok(()) => {}
                Err(why) => return in_use(why),
            },
        }
    }
    Ok(())
}

/// Returns the deployment that is declared to listen on `address`.
fn listener_on(api: &Api, address: SocketAddr) -> Option<DeploymentId> {
    let view = api.ledger.view();
    view.state().services.iter().find_map(|(name, service)| {
        let listen = &service.definition.as_ref()?.listen;
        let (environment, _) = listen.iter().find(|(_, taken)| **taken == address)?;
        Some(DeploymentId { environment: environment.clone(), service: name.clone() })
    })
}

/// Waits until the router has confirmed the weights that a command set, and says whether it has and what to know. It is not known of
/// a command that was carried out before and whose weights are no longer set.
async fn confirm(
    api: &Api,
    command: &Command,
    done: &execute::Executed,
    wait: Duration,
) -> Option<(Option<bool>, Option<String>)> {
    let deployment = command.deployment()?;
    let sets = |event: &Event| matches!(event, Event::Traffic(traffic::Event::WeightsSet(_)));
    let commit = match done.events.iter().any(|(_, event)| sets(event)) {
        true => done.commit?,
        false => rolled_back_by(api, command, done.stack)?,
    };
    let deadline = tokio::time::Instant::now() + wait;
    let mut trouble = None;
    let mut folded = api.ledger.folded();
    if decide::is_rollback(command) && matches!(standing(api, deployment, commit), Standing::Waiting) {
        // A rollback waits for no takeover: whoever commits it also applies it.
        match tokio::time::timeout_at(deadline, api.outside.apply_now(&api.ledger, deployment)).await {
            Ok(Ok(())) => return Some((Some(true), None)),
            Ok(Err(why)) => trouble = Some(format!("the weights are set, and not applied yet: {why}")),
            Err(_) => trouble = Some("the router has not confirmed the weights yet".to_owned()),
        }
    }
    loop {
        folded.borrow_and_update();
        match standing(api, deployment, commit) {
            Standing::Applied => return Some((Some(true), None)),
            Standing::Overtaken => {
                let confirmed = if done.repeated { None } else { Some(false) };
                return Some((confirmed, Some("other weights have been set since".to_owned())));
            }
            Standing::Waiting => {}
        }
        if !matches!(tokio::time::timeout_at(deadline, folded.changed()).await, Ok(Ok(()))) {
            let note = trouble.unwrap_or_else(|| "the router has not confirmed the weights yet".to_owned());
            return Some((Some(false), Some(format!("{note}; watch `ionledger status -w`"))));
        }
    }
}

/// Returns the commit whose weights a rollback that sets none finds: those of the one before it, which the router may not have
/// confirmed either.
fn rolled_back_by(api: &Api, command: &Command, target: Option<StackId>) -> Option<CommitId> {
    let Command::Rollback(command::Rollback { deployment, .. }) = command else { return None };
    let view = api.ledger.view();
    let traffic = &view.state().deployment(deployment)?.traffic;
    let set = traffic.set.as_ref().filter(|set| set.purpose == traffic::Purpose::Rollback)?;
    // Another rollback may have come since.
    let set = Some(set).filter(|set| target.is_none_or(|target| set.weights.sole() == Some(target)))?;
    traffic.awaited.is_none().then_some(set.commit)
}

/// Returns why a rollback has not moved users; `None` if it has. It appended `events`, and was decided on what `probed` says.
fn not_yet(api: &Api, command: &Command, events: &[(Stream, Event)], probed: &Probed) -> Option<String> {
    let Command::Rollback(command::Rollback { deployment: id, .. }) = command else { return None };
    let view = api.ledger.view();
    let deployment = view.state().deployment(id)?;
    let moves = |(_, event): &(Stream, Event)| matches!(event, Event::Traffic(traffic::Event::RolledBack(_)));
    let unhelped = || rollback::unhelped(deployment, id, probed);
    rollback::not_yet(deployment).or_else(|| if events.iter().any(moves) { None } else { unhelped() })
}

enum Standing {
    Applied,
    Waiting,
    Overtaken,
}

fn standing(api: &Api, deployment: &DeploymentId, commit: CommitId) -> Standing {
    let view = api.ledger.view();
    let traffic = view.state().deployment(deployment).map(|deployment| &deployment.traffic);
    match traffic.and_then(|traffic| Some((traffic, traffic.set.as_ref()?))) {
        Some((traffic, set)) if set.commit == commit && traffic.is_applied() => Standing::Applied,
        Some((_, set)) if set.commit == commit => Standing::Waiting,
        _ => Standing::Overtaken,
    }
}
