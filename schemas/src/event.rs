//! Events: what happened, in a form that is kept for good.
//!
//! Each concept has an enum of its events beside its payloads; [`Event`] holds them all. On the wire an event is
//! `{"stream":"deployment/production/api","type":"stack.ready","v":1,"data":{...}}`.

use serde_json::value::RawValue;

use crate::upcast;
use crate::{genesis, judgement, lease, node, release, retention, rollout, service, stack, traffic};

/// The version in which every event of this program is written.
pub const CURRENT: u16 = 1;

/// Why an event on the wire could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A type or version this program does not know; its stream becomes read-only here.
    #[error("event type `{kind}` version {version} is unknown to this program; upgrade ionledger")]
    Unknown {
        /// The type.
        kind: String,
        /// The type's version.
        version: u16,
    },
    /// A known type with a payload that does not fit it.
    #[error("event `{kind}` version {version} has a payload that does not fit: {why}")]
    Malformed {
        /// The type.
        kind: String,
        /// The type's version.
        version: u16,
        /// What serde said.
        why: String,
    },
}

/// A type of event: its name and the schema of its payload.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The name on the wire, `stack.ready`.
    pub name: &'static str,
    /// Makes the JSON Schema of the payload.
    pub schema: fn() -> schemars::Schema,
}

/// Declares a concept's events: an enum with a payload struct a variant, its wire names, and its decoder.
macro_rules! events {
    ($(#[$doc:meta])* $($variant:ident = $name:literal),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant)] // a commit holds few events
        pub enum Event {
            $(#[doc = concat!("`", $name, "`.")] $variant($variant),)+
        }

        impl Event {
            /// Every type of event of this concept.
            pub const KINDS: &'static [crate::event::Kind] = &[
                $(crate::event::Kind { name: $name, schema: || schemars::schema_for!($variant) },)+
            ];

            /// Returns the event's name on the wire.
            pub fn kind(&self) -> &'static str {
                match self { $(Event::$variant(_) => $name,)+ }
            }

            pub(crate) fn data(&self) -> serde_json::Result<Box<serde_json::value::RawValue>> {
                match self { $(Event::$variant(data) => serde_json::value::to_raw_value(data),)+ }
            }

            pub(crate) fn decode(kind: &str, data: &str) -> Option<serde_json::Result<Self>> {
                match kind {
                    $($name => Some(serde_json::from_str(data).map(Event::$variant)),)+
                    _ => None,
                }
            }
        }

        $(impl From<$variant> for crate::Event {
            fn from(data: $variant) -> Self {
                Event::$variant(data).into()
            }
        })+
    };
}
pub(crate) use events;

macro_rules! concepts {
    ($($(#[$doc:meta])* $concept:ident :: $variant:ident),+ $(,)?) => {
        /// Anything that can have happened.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant)] // a commit holds few events
        pub enum Event {
            $($(#[$doc])* $variant($concept::Event),)+
        }

        impl Event {
            /// Returns every type of event there is.
            pub fn kinds() -> impl Iterator<Item = Kind> {
                [$($concept::Event::KINDS,)+].into_iter().flatten().copied()
            }

            /// Returns the event's name on the wire.
            pub fn kind(&self) -> &'static str {
                match self { $(Event::$variant(event) => event.kind(),)+ }
            }

            /// Returns the payload's JSON.
            ///
            /// # Panics
            ///
            /// Never: payloads are plain structs with text keys.
            pub fn data(&self) -> Box<RawValue> {
                match self { $(Event::$variant(event) => event.data(),)+ }.expect("a payload is plain JSON")
            }

            fn decode_current(kind: &str, data: &str) -> Option<serde_json::Result<Self>> {
                $(if let Some(event) = $concept::Event::decode(kind, data) {
                    return Some(event.map(Event::$variant));
                })+
                None
            }
        }

        $(impl From<$concept::Event> for Event {
            fn from(event: $concept::Event) -> Self {
                Event::$variant(event)
            }
        })+
    };
}

concepts! {
    /// The ledger's own.
    genesis::Ledger,
    /// Of a service.
    service::Service,
    /// Of a release.
    release::Release,
    /// Of a stack.
    stack::Stack,
    /// Of a node.
    node::Node,
    /// Of weights and rollbacks.
    traffic::Traffic,
    /// Of a rollout.
    rollout::Rollout,
    /// Of the judge.
    judgement::Judgement,
    /// Of keeping and removing.
    retention::Retention,
    /// Of who acts for a role.
    lease::Lease,
}

impl Event {
    /// Reads an event of any version that was ever written.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: a type, or a version of it, that this program does not know, or a payload that does not fit.
    pub fn decode(kind: &str, version: u16, data: &str) -> Result<Self, DecodeError> {
        let unknown = || DecodeError::Unknown { kind: kind.to_owned(), version };
        let malformed = |error: serde_json::Error| DecodeError::Malformed {
            kind: kind.to_owned(),
            version,
            why: error.to_string(),
        };
        if version == CURRENT {
            return Self::decode_current(kind, data).ok_or_else(unknown)?.map_err(malformed);
        }
        let (kind, data) = upcast::UPCASTERS.to_current(kind, version, data)?;
        Self::decode_current(&kind, &data).ok_or_else(unknown)?.map_err(malformed)
    }
}
