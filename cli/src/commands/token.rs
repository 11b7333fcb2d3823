//! `ionledger token`: who may use the API over TCP.

use std::time::Duration;

use api::tokens::{self, Tokens};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use ledger::log::segments::SegmentsOpenError;
use schemas::ActorKind;

use crate::exit::Exit;
use crate::failure::{CommandResult, Failure};
use crate::not_allowed::refuse_strangers;
use crate::out::Form;
use crate::render::table::{self, Cell};
use crate::render::words::{age, column, faint, line, moment_in_full, strong};
use crate::sentence;
use crate::session::Session;

/// Make, list and revoke the tokens for the API over TCP (`up --listen`).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  ionledger token create ci --pipeline > ci.token
  ionledger token create ana --expires \"30 days\"
  ionledger token revoke ci")]
pub(crate) struct Token {
    #[command(subcommand)]
    act: Act,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Make a token and print it; only its hash is kept.
    #[command(alias = "make")]
    Create {
        /// Whose it is, as history shall name them
        name: String,
        /// It is a pipeline's: it may release and move traffic, not apply, promote or retire
        #[arg(long)]
        pipeline: bool,
        /// How long it holds [default: until it is revoked]
        #[arg(long, value_name = "DURATION", value_parser = sentence::length_ms, allow_hyphen_values = true)]
        expires: Option<u64>,
    },
    /// List the tokens (never the tokens themselves).
    ///
    /// Columns in a pipe: id, name, kind, created, expires.
    List,
    /// End a token at once.
    Revoke {
        /// Its id, or its name if no other has it
        #[arg(value_name = "ID|NAME")]
        token: String,
    },
}

impl Token {
    pub(crate) fn run(self, session: &Session) -> CommandResult {
        if session.globals.server.is_some() {
            return Err(Failure::usage("tokens are made on the machine of the data folder; leave --server out"));
        }
        let data = session.globals.data()?;
        refuse_strangers(&data)?;
        if !data.is_dir() {
            return Err(Failure::error(SegmentsOpenError::NoLog(data)));
        }
        let tokens = Tokens::of(&data);
        match self.act {
            Act::Create { name, pipeline, expires } => create(session, &tokens, &name, pipeline, expires),
            Act::List => list(session, &tokens),
            Act::Revoke { token } => {
                let ended = tokens.revoke(&token)?;
                session.out.say(&format!("token {} of {} {} is revoked", ended.id, ended.kind, ended.name));
                Ok(Exit::Done)
            }
        }
    }
}

fn create(session: &Session, tokens: &Tokens, name: &str, pipeline: bool, expires_ms: Option<u64>) -> CommandResult {
    let now = Timestamp::now();
    let kind = if pipeline { ActorKind::Pipeline } else { ActorKind::Person };
    let expires = expires_ms.map(|ms| now.checked_add(Duration::from_millis(ms))).transpose();
    let expires = expires.map_err(|_| Failure::usage("--expires: that is too long"))?;
    let (secret, token) = tokens.make(name, kind, now, expires)?;
    session.out.data(&format!("{secret}\n"))?;
    session.out.say(&format!("token {} of {kind} {}; it is shown only now", token.id, token.name));
    session.out.say(&format!("undo: ionledger token revoke {}", token.id));
    Ok(Exit::Done)
}

fn list(session: &Session, tokens: &Tokens) -> CommandResult {
    let tokens = tokens.list()?;
    match session.out.form {
        // The hashes are nobody's business.
        Form::Json => {
            let all: Vec<_> = tokens
                .iter()
                .map(|token| {
                    serde_json::json!({
                        "id": token.id, "name": token.name, "kind": token.kind,
                        "created": token.created, "expires": token.expires,
                    })
                })
                .collect();
            session.out.json(&serde_json::json!({"schema_version": 1, "tokens": all}))?;
        }
        Form::Lines => session.out.data(&tokens.iter().map(token_line).collect::<String>())?,
        Form::Eyes => {
            let now = session.now();
            let rows: Vec<Vec<Cell>> = tokens
                .iter()
                .map(|token| {
                    let ends = token.expires.map(|at| format!("until {}", moment_in_full(at, &now)));
                    vec![
                        Cell::styled(&token.id, faint()),
                        Cell::styled(format!("{}:{}", token.kind, token.name), strong()),
                        Cell::new(format!("made {} ago", age(token.created, &now))),
                        Cell::new(ends.unwrap_or_default()),
                    ]
                })
                .collect();
            session.out.eyes(&table::lines(&rows).into_iter().map(|line| line + "\n").collect::<String>())?;
        }
    }
    Ok(Exit::Done)
}

fn token_line(token: &tokens::Token) -> String {
    line(&[
        token.id.clone(),
        token.name.clone(),
        token.kind.to_string(),
        token.created.to_string(),
        column(token.expires),
    ])
}

impl From<tokens::Error> for Failure {
    fn from(error: tokens::Error) -> Self {
        match error {
            tokens::Error::Invalid(_) => Failure::usage(error),
            _ => Failure::error(error),
        }
    }
}
