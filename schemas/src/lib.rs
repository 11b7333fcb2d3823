//! What may be written: ids, weights, events and commands, their JSON Schemas, and the upcasters
//! from old shapes to new ones.
//!
//! Nothing in this room decides anything, reads a clock or touches a disk; it is the vocabulary
//! that every other room shares. The words are explained in `ARCHITECTURE.md`.

pub mod id;
pub mod stream;
pub mod weight;

pub use id::{
    CommandId, CommitId, DeploymentId, EffectId, EnvironmentName, Fence, Hash, LedgerId, Offset, RolloutId,
    ServiceName, StackId, StreamVersion, Version,
};
pub use jiff::Timestamp;
pub use stream::{Role, Stream};
pub use weight::{Weight, Weights};
