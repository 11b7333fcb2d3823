//! A service's declaration at a moment, as its file has it.

use ledger::State;
use schemas::ServiceName;
use schemas::declaration;
use schemas::service::Definition;
use serde::{Deserialize, Serialize};

use super::{At, SCHEMA_VERSION};

/// A service's declaration at a moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Declaration {
    /// The version of this form.
    pub schema_version: u16,
    /// The moment.
    pub at: At,
    /// The service.
    pub service: ServiceName,
    /// What it was; none if it was not declared then.
    pub definition: Option<Definition>,
    /// The same as the file that `ionledger apply` takes.
    pub file: Option<String>,
}

/// Returns the declaration of `service`.
pub fn declaration(state: &State, service: &ServiceName, at: At) -> Declaration {
    let definition = state.service(service).and_then(|found| found.definition.clone());
    let file = definition.as_ref().map(|definition| declaration::file(service, definition));
    Declaration { schema_version: SCHEMA_VERSION, at, service: service.clone(), definition, file }
}
