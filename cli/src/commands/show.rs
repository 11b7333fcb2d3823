//! `ionledger show`: a service's declaration as the file that `apply` takes.

use clap::Args;
use schemas::ServiceName;

use crate::args::When;
use crate::exit::Exit;
use crate::failure::{Failure, Outcome};
use crate::out::Form;
use crate::progress::Progress;
use crate::session::Session;

/// Show how a service is or was declared, as the file that `apply` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger show api
  ionledger show api --at \"2 days ago\" > api.toml && ionledger apply api.toml --dry-run")]
pub(crate) struct Show {
    /// The service, as `api`
    #[arg(value_name = "SERVICE")]
    service: ServiceName,
    #[command(flatten)]
    when: When,
}

impl Show {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let moment = self.when.moment(&session.now())?;
        session.wait_for(async {
            let door = session.door()?;
            let progress = Progress::begin(session.out, "reading the ledger");
            let answer = door.declaration(&self.service, moment).await?;
            if answer.definition.is_none() {
                let known = door.status(Some(&self.service), None).await?.services;
                let declared = known.iter().any(|service| service.owner.is_some());
                return Err(if declared { not_yet(&self.service) } else { door.unknown(&self.service).await });
            }
            drop(progress);
            // A file, which no terminal may wrap.
            match session.out.form {
                Form::Json => session.out.json(&answer)?,
                Form::Eyes | Form::Lines => session.out.data(&answer.file.clone().unwrap_or_default())?,
            }
            Ok(Exit::Done)
        })
    }
}

fn not_yet(service: &ServiceName) -> Failure {
    Failure::error(format!(
        "{service} was not declared yet at that moment; `ionledger history {service}` says when it was first"
    ))
}
