//! One file per command, or per few that are alike.

mod after;
mod api;
mod apply;
mod change;
mod changes;
mod completions;
mod copy;
mod demo;
mod demo_service;
mod dismiss;
pub(crate) mod doctor;
mod exit_codes;
mod explain;
mod forecast;
mod history;
mod hold;
mod judge;
mod logs;
mod new;
mod node_exec;
mod proxy;
mod release;
mod renew;
mod replay;
mod roll;
mod show;
mod status;
mod rollout_control;
mod token;
mod traffic;
mod up;
mod verify;
mod wait;
mod watch;
mod who_shipped;
mod worker;

use std::process::ExitCode;

use clap::Subcommand;

use crate::failure::CommandResult;
use crate::session::Session;

/// What `ionledger` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Up(up::UpArgs),
    Worker(worker::Worker),
    Api(api::ApiArgs),
    Demo(demo::Demo),
    Apply(apply::Apply),
    Release(release::Release),
    New(new::New),
    Renew(renew::Renew),
    Traffic(traffic::Traffic),
    Forecast(forecast::Forecast),
    Roll(roll::Roll),
    Rollback(rollout_control::Rollback),
    Pause(rollout_control::Pause),
    Resume(rollout_control::Resume),
    Abort(rollout_control::Abort),
    Promote(rollout_control::Promote),
    Hold(hold::Hold),
    Retire(rollout_control::Retire),
    Dismiss(dismiss::Dismiss),
    Status(status::Status),
    History(history::History),
    Logs(logs::Logs),
    WhoShipped(who_shipped::WhoShippedArgs),
    Show(show::Show),
    Explain(explain::Explain),
    Replay(replay::Replay),
    Verify(verify::Verify),
    Copy(copy::Copy),
    Move(copy::Move),
    Judge(judge::Judge),
    Doctor(doctor::Doctor),
    Token(token::Token),
    Completions(completions::Completions),
    ExitCodes(exit_codes::ExitCodes),
    Proxy(proxy::ProxyArgs),
    #[command(hide = true)]
    NodeExec(node_exec::NodeExec),
    #[command(hide = true)]
    DemoService(demo_service::DemoService),
}

impl Command {
    /// Runs the command and returns the process's exit code.
    pub(crate) fn run(self, session: &Session) -> CommandResult<ExitCode> {
        let exit = match self {
            Command::Up(up) => return up.run(session),
            Command::Worker(worker) => return worker.run(session),
            Command::Api(api) => return api.run(session),
            Command::Demo(demo) => return Ok(demo.run()?),
            Command::Apply(apply) => apply.run(session),
            Command::Release(release) => release.run(session),
            Command::New(new) => new.run(session),
            Command::Renew(renew) => renew.run(session),
            Command::Traffic(traffic) => traffic.run(session),
            Command::Forecast(forecast) => forecast.run(session),
            Command::Roll(roll) => roll.run(session),
            Command::Rollback(rollback) => rollback.run(session),
            Command::Pause(pause) => pause.run(session),
            Command::Resume(resume) => resume.run(session),
            Command::Abort(abort) => abort.run(session),
            Command::Promote(promote) => promote.run(session),
            Command::Hold(hold) => hold.run(session),
            Command::Retire(retire) => retire.run(session),
            Command::Dismiss(dismiss) => dismiss.run(session),
            Command::Status(status) => status.run(session),
            Command::History(history) => history.run(session),
            Command::Logs(logs) => logs.run(session),
            Command::WhoShipped(who_shipped) => who_shipped.run(session),
            Command::Show(show) => show.run(session),
            Command::Explain(explain) => explain.run(session),
            Command::Replay(replay) => replay.run(session),
            Command::Verify(verify) => verify.run(session),
            Command::Copy(copy) => copy.run(session),
            Command::Move(to) => to.run(session),
            Command::Judge(judge) => judge.run(session),
            Command::Doctor(doctor) => doctor.run(session),
            Command::Token(token) => token.run(session),
            Command::Completions(completions) => completions.run(session),
            Command::ExitCodes(table) => table.run(session),
            Command::Proxy(args) => return args.run(),
            // It becomes the node in this thread, so no other may have been started yet.
            Command::NodeExec(command) => return Ok(command.run()),
            Command::DemoService(command) => return Ok(command.run()?),
        };
        exit.map(ExitCode::from)
    }
}
