//! `ionledger status`: what runs and what serves.

use std::collections::BTreeSet;

use clap::Args;
use replay::answer;
use schemas::{EnvironmentName, ServiceName};

use super::watch::watch;
use crate::door::Door;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::out::{Form, columns};
use crate::progress::Progress;
use crate::render::{fleet, status};
use crate::session::Session;

/// Show what runs and what serves.
///
/// Without a service it is a line for each deployment: first those that need attention, which are never cut off,
/// then those that are moving, then the rest.
/// With one it is all that is known of it, and what its requests did in the last minute.
///
/// Where `ionledger up` does not run, or answers nothing for 3 s, its first line says so, and what is shown of weights and nodes is what was seen at the
/// proxy and the processes themselves.
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
    /// Go on showing it as it changes: in place on a terminal, where arrows scroll and q leaves; appended in a pipe
    #[arg(short, long)]
    watch: bool,
}

impl Status {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        session.wait_for(async {
            let door = session.door()?;
            if self.watch {
                let eyes = |status: &answer::Status, columns| self.eyes(status, session, columns);
                return watch(session, &door, || self.look(&door), eyes).await;
            }
            let progress = Progress::begin(session.out, "reading the ledger");
            let status = self.look(&door).await?;
            drop(progress);
            let columns = columns(std::io::stdout());
            session.out.answer(&status, |answer| self.eyes(answer, session, columns), status::lines)?;
            session
                .say_empty(status::lines(&status).is_empty(), "no stack of any version; the services are in `--json`");
            session.warn_of(&status.unrecorded);
            if session.out.form != Form::Eyes {
                let unattended = status.unattended.iter().map(status::told_unattended);
                unattended.chain(status::warnings(&status)).for_each(|line| session.out.say(&line));
            }
            Ok(Exit::Done)
        })
    }

    /// One service as a tree, the fleet a line a deployment.
    fn eyes(&self, status: &answer::Status, session: &Session, columns: usize) -> String {
        match self.service {
            Some(_) => status::eyes(status, &session.now()),
            None => fleet::eyes(status, &session.now(), columns),
        }
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
