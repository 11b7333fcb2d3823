//! Upcasters: pure steps from an old shape of an event to the next, chained on reading, so that folds know the
//! newest shape alone.

use serde_json::Value;

use crate::event::{CURRENT, DecodeError};

/// One step: takes the payload of `kind` at `from` to the version after it, perhaps under another name.
#[derive(Clone, Copy)]
pub struct Upcaster {
    /// The type it reads.
    pub kind: &'static str,
    /// The version it reads.
    pub from: u16,
    /// The type it gives.
    pub to_kind: &'static str,
    /// The change of the payload; pure, and total over what was ever written.
    pub step: fn(Value) -> Value,
}

/// A set of upcasters.
#[derive(Clone, Copy)]
pub struct Upcasters(pub &'static [Upcaster]);

/// Every upcaster of this program. Events are at their first version, so there is none yet.
pub const UPCASTERS: Upcasters = Upcasters(&[]);

impl Upcasters {
    /// Takes `data` of `kind` at `version` to the current version; returns its type then and its payload.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Unknown`] if no chain of steps leads to the current version, as for one from the future;
    /// [`DecodeError::Malformed`] if `data` is no JSON.
    pub fn to_current(self, kind: &str, version: u16, data: &str) -> Result<(String, String), DecodeError> {
        let malformed = |error: serde_json::Error| DecodeError::Malformed {
            kind: kind.to_owned(),
            version,
            why: error.to_string(),
        };
        let mut value: Value = serde_json::from_str(data).map_err(malformed)?;
        let mut now = (kind.to_owned(), version);
        while now.1 != CURRENT {
            let step = self.0.iter().find(|step| step.kind == now.0 && step.from == now.1);
            let step = step.ok_or_else(|| DecodeError::Unknown { kind: kind.to_owned(), version })?;
            value = (step.step)(value);
            now = (step.to_kind.to_owned(), now.1 + 1);
        }
        Ok((now.0, value.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Event;

    /// A made-up version 0 of `stack.ready`, called `stack.up`, that named its stack `id`.
    const MADE_UP: Upcasters = Upcasters(&[Upcaster {
        kind: "stack.up",
        from: 0,
        to_kind: "stack.ready",
        step: |mut old| serde_json::json!({ "stack": old["id"].take() }),
    }]);

    #[test]
    fn a_version_0_event_is_read_as_the_newest_shape() {
        let old = r#"{"id":"01890000-0000-7000-8000-000000000001"}"#;
        let (kind, data) = MADE_UP.to_current("stack.up", 0, old).unwrap();
        let event = Event::decode(&kind, CURRENT, &data).unwrap();
        assert_eq!(event.kind(), "stack.ready");
        assert_eq!(event.data().get(), r#"{"stack":"01890000-0000-7000-8000-000000000001"}"#);
    }

    #[test]
    fn a_version_from_the_future_is_unknown_and_never_guessed_at() {
        let error = Event::decode("stack.ready", 2, r#"{"stack":"01890000-0000-7000-8000-000000000001"}"#).unwrap_err();
        assert_eq!(error, DecodeError::Unknown { kind: "stack.ready".into(), version: 2 });
    }
}
