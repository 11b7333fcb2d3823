//! Events: what happened, in a form that is kept for good.
//!
//! Each concept has an enum of its events beside its payloads; [`Event`] holds them all. On the wire an event is
//! `{"stream":"deployment/production/api","type":"stack.ready","v":1,"data":{...}}`.
//!
//! Each type has a version of its own. To change the payload of one event: change its struct; write a pure function that
//! makes the new payload of the old one, and append it to the list of its event in `events!`; store the schema and an
//! example of the new version (`UPDATE_SCHEMAS=1 cargo test --workspace --lib -q -- json::`). Nothing else has to change.

use serde_json::value::RawValue;

use crate::upcast::Upcaster;
use crate::{genesis, hold, judgement, lease, node, release, retention, rollout, service, stack, traffic};

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

/// A type of event: its name, how older payloads become newer ones, and the schema of the newest.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The name on the wire, `stack.ready`.
    pub name: &'static str,
    /// The steps from version 1 to the newest: the first makes a payload of version 2, and so on.
    pub upcasters: &'static [Upcaster],
    /// Makes the JSON Schema of the newest payload.
    pub schema: fn() -> schemars::Schema,
}

impl Kind {
    /// Returns the version in which this program writes the type: 1, and 1 more for each upcaster.
    pub const fn version(&self) -> u16 {
        version(self.upcasters)
    }
}

/// Returns the version that `upcasters` lead to.
pub(crate) const fn version(upcasters: &[Upcaster]) -> u16 {
    assert!(upcasters.len() < 1_000);
    upcasters.len() as u16 + 1
}

/// Declares a concept's events: an enum with a payload struct a variant, its wire names, and its decoder.
///
/// `Held = "rollout.held" [with_kind, with_step]` is at version 3: `with_kind` makes a payload of version 2 of one of
/// version 1, `with_step` one of version 3. Without a list an event is at version 1.
macro_rules! events {
    ($(#[$doc:meta])* $($variant:ident = $name:literal $([$($upcaster:path),+ $(,)?])?),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant)] // a commit holds few events
        pub enum Event {
            $(#[doc = concat!("`", $name, "`.")] $variant($variant),)+
        }

        impl Event {
            /// Every type of event of this concept.
            pub const KINDS: &'static [crate::event::Kind] = &[
                $(crate::event::Kind {
                    name: $name,
                    upcasters: &[$($($upcaster),+)?],
                    schema: || schemars::schema_for!($variant),
                },)+
            ];

            /// Returns the event's name on the wire.
            pub fn kind(&self) -> &'static str {
                match self { $(Event::$variant(_) => $name,)+ }
            }

            pub(crate) fn version(&self) -> u16 {
                match self { $(Event::$variant(_) => const { crate::event::version(&[$($($upcaster),+)?]) },)+ }
            }

            pub(crate) fn data(&self) -> serde_json::Result<Box<serde_json::value::RawValue>> {
                match self { $(Event::$variant(data) => serde_json::value::to_raw_value(data),)+ }
            }

            /// Reads a payload; none if the type is of another concept.
            pub(crate) fn decode(
                kind: &str,
                version: u16,
                data: &str,
            ) -> Option<Result<Self, crate::event::DecodeError>> {
                match kind {
                    $($name => Some(
                        crate::upcast::read($name, version, &[$($($upcaster),+)?], data).map(Event::$variant),
                    ),)+
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

            /// Returns the version in which its type is written.
            pub fn version(&self) -> u16 {
                match self { $(Event::$variant(event) => event.version(),)+ }
            }

            /// Returns the payload's JSON.
            ///
            /// # Panics
            ///
            /// Never: payloads are plain structs with text keys.
            pub fn data(&self) -> Box<RawValue> {
                match self { $(Event::$variant(event) => event.data(),)+ }.expect("a payload is plain JSON")
            }

            /// Reads an event of any version that was ever written.
            ///
            /// # Errors
            ///
            /// [`DecodeError`]: a type, or a version of it, that this program does not know, or a payload that does not
            /// fit.
            pub fn decode(kind: &str, version: u16, data: &str) -> Result<Self, DecodeError> {
                $(if let Some(event) = $concept::Event::decode(kind, version, data) {
                    return event.map(Event::$variant);
                })+
                Err(DecodeError::Unknown { kind: kind.to_owned(), version })
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
    /// Of a hold.
    hold::Hold,
    /// Of the judge.
    judgement::Judgement,
    /// Of keeping and removing.
    retention::Retention,
    /// Of who acts for a role.
    lease::Lease,
}
