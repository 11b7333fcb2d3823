//! `ionledger show`: a service's declaration as the file that `apply` takes.

use api::question::DeclarationQuestion;
use clap::Args;
use schemas::ServiceName;

use crate::args::When;
use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::out::Form;
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
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        let moment = self.when.moment(&session.now())?;
        let question = DeclarationQuestion { service: self.service.clone(), moment };
        session.wait_for(async {
            let ledger = session.ledger()?;
            let answer = session.ask(&ledger, &question).await?;
            if answer.definition.is_none() {
                let known = ledger.status(Some(&self.service), None).await?.services;
                let declared = known.iter().any(|service| service.owner.is_some());
                return Err(if declared { not_yet(&self.service) } else { ledger.unknown(&self.service).await });
            }
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
