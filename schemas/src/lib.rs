//! What may be written: ids, weights, events and commands, their JSON Schemas, and the upcasters
//! from old shapes to new ones.
//!
//! Nothing in this crate decides anything, reads a clock or touches a disk; it is the vocabulary
//! that every other crate shares. The words are explained in `ARCHITECTURE.md`.
//!
//! Begin with [`event`]: it lists every type of event and says how one gets a new version. [`command`] has what people and programs ask
//! for, [`outcome`] what workers report, [`envelope`] what of a commit is frozen for ever. The modules stand in reading order.

pub mod actor;
pub mod id;
pub mod name;
pub mod policy;
pub mod run;
pub mod secret;
pub mod error_text;
pub mod stream;
pub mod text;
pub mod weight;
pub mod backoff;

pub mod event;
pub mod genesis;
pub mod hold;
pub mod judgement;
pub mod lease;
pub mod node;
pub mod release;
pub mod retention;
pub mod rollout;
pub mod service;
pub mod stack;
pub mod traffic;

pub mod command;
pub mod declaration;
pub mod envelope;
pub mod break_glass;
pub mod json;
pub mod outcome;
pub mod probed;
pub mod upcast;

pub use actor::{Actor, ActorKind};
pub use backoff::Backoff;
pub use error_text::ErrorText;
pub use event::Event;
pub use id::{
    CommandId, CommitId, DeploymentId, EffectId, EnvironmentName, Fence, Hash, LedgerId, Offset, RolloutId,
    ServiceName, StackId, StreamVersion, Version,
};
pub use jiff::Timestamp;
pub use name::StackName;
pub use probed::Probed;
pub use stream::{Role, Stream};
pub use weight::{Weight, Weights};
