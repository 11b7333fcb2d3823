//! Upcasters: pure steps from an old payload of an event to the next, chained on reading, so that folds know the newest
//! shape alone. Each stands beside its event, in the list that its concept gives to `events!`.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::event::{DecodeError, version as version_after};

/// One step: makes the payload of the next version of a payload. Pure, and total over what was ever written.
pub type Upcaster = fn(Value) -> Value;

/// The step of a version that only added fields which may be left out: an old payload is a new one as it stands.
pub fn unchanged(payload: Value) -> Value {
    payload
}

/// Reads a payload of `kind` that was written at `version`; `upcasters` lead from version 1 to the newest.
///
/// # Errors
///
/// [`DecodeError::Unknown`] for version 0 and for versions from the future; [`DecodeError::Malformed`] if the payload, or
/// what its upcasters make of it, does not fit.
pub fn read<T: DeserializeOwned>(
    kind: &str,
    version: u16,
    upcasters: &[Upcaster],
    payload: &str,
) -> Result<T, DecodeError> {
    let malformed =
        |error: serde_json::Error| DecodeError::Malformed { kind: kind.to_owned(), version, why: error.to_string() };
    if version == version_after(upcasters) {
        return serde_json::from_str(payload).map_err(malformed);
    }
    let steps = version.checked_sub(1).and_then(|done| upcasters.get(usize::from(done)..));
    let steps = steps.ok_or_else(|| DecodeError::Unknown { kind: kind.to_owned(), version })?;
    let old = serde_json::from_str(payload).map_err(malformed)?;
    serde_json::from_value(steps.iter().fold(old, |payload, step| step(payload))).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Event;
    use crate::stack::Ready;

    const STACK: &str = "01890000-0000-7000-8000-000000000001";

    /// A made-up version 1 of `stack.ready` named its stack `id`, and its version 2 had no field at all of another name.
    const MADE_UP: &[Upcaster] =
        &[|mut v1| json!({ "name": v1["id"].take() }), |mut v2| json!({ "stack": v2["name"].take() })];

    #[test]
    fn an_old_payload_is_read_as_the_newest_shape_through_every_step() {
        for (version, old) in [(1, "id"), (2, "name"), (3, "stack")] {
            let event: Ready = read("stack.ready", version, MADE_UP, &json!({ old: STACK }).to_string()).unwrap();
            assert_eq!(event.stack.to_string(), STACK, "version {version}");
        }
    }

    #[test]
    fn a_version_from_the_future_and_version_0_are_unknown_and_never_guessed_at() {
        for version in [0, 2, u16::MAX] {
            let error = Event::decode("stack.ready", version, &json!({ "stack": STACK }).to_string()).unwrap_err();
            assert_eq!(error, DecodeError::Unknown { kind: "stack.ready".into(), version });
        }
    }

    #[test]
    fn an_old_payload_that_does_not_fit_is_malformed_at_its_own_version() {
        let error = read::<Ready>("stack.ready", 1, MADE_UP, r#"{"id":"none"}"#).unwrap_err();
        assert!(matches!(error, DecodeError::Malformed { version: 1, .. }), "{error}");
    }
}
