//! `ionledger status`: what runs and what serves.

use std::collections::BTreeSet;

use clap::Args;
use replay::answer;
use schemas::{EnvironmentName, ServiceName};

use super::watch::watch;
use crate::door::Door;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::out::Form;
use crate::progress::Progress;
use crate::render::status;
use crate::session::Session;

/// Show what runs and what serves.
#[derive(Debug, Args)]
#[command(after_help = format!("Columns in a pipe: {}.\n\n\
Examples:
  ionledger status
  ionledger status api -w
  ionledger status api --json", status::COLUMNS))]
pub(crate) struct Status {
    /// Only this service
    #[arg(value_name = "SERVICE")]
    service: Option<ServiceName>,
    /// Only this environment [default: all]
    #[arg(long, value_name = "ENVIRONMENT")]
    env: Option<EnvironmentName>,
    /// Go on showing it as it changes: in place on a terminal, appended in a pipe
    #[arg(short, long)]
    watch: bool,
}

impl Status {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        session.wait_for(async {
            let door = session.door()?;
            if self.watch {
                return watch(session, &door, || self.look(&door)).await;
            }
            let progress = Progress::begin(session.out, "reading the ledger");
            let status = self.look(&door).await?;
            drop(progress);
            let now = session.now();
            session.out.answer(&status, |answer| status::eyes(answer, &now), status::lines)?;
            session
                .say_empty(status::lines(&status).is_empty(), "no stack of any version; the services are in `--json`");
            session.warn_of(&status.unrecorded);
            if session.out.form != Form::Eyes {
                status::warnings(&status).iter().for_each(|line| session.out.say(line));
            }
            Ok(Exit::Done)
        })
    }

    async fn look(&self, door: &Door) -> Outcome<answer::Status> {
        let mut status = door.status(self.service.as_ref(), self.env.as_ref()).await?;
        if let (Some(service), true) = (&self.service, status.services.is_empty()) {
            return Err(door.unknown(service).await);
        }
        if let Some(env) = &self.env {
            for service in &mut status.services {
                service.deployments.retain(|deployment| deployment.environment == *env);
            }
            if status.services.iter().all(|service| service.deployments.is_empty()) {
                return Err(self.nothing_in(door, env).await?);
            }
        }
        Ok(status)
    }
}

impl Status {
    /// Says that nothing runs in an environment, and where something does.
    async fn nothing_in(&self, door: &Door, env: &EnvironmentName) -> Outcome<Failure> {
        let all = door.status(self.service.as_ref(), None).await?;
        let deployments = all.services.iter().flat_map(|service| &service.deployments);
        let known: BTreeSet<String> = deployments.map(|deployment| deployment.environment.to_string()).collect();
        let what = self.service.as_ref().map_or("nothing runs".to_owned(), |service| format!("{service} does not run"));
        let known = match known.len() {
            0 => "in no other environment either; `ionledger new SERVICE VERSION` makes a first stack".to_owned(),
            _ => format!("but in {}", known.into_iter().collect::<Vec<_>>().join(", ")),
        };
        Ok(Failure::error(format!("{what} in environment {env}, {known}")))
    }
}
