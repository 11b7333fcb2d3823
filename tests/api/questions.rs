//! Addresses of reads: what is wrong in one is said in the same way for all.

use crate::raw;
use crate::world::World;

#[tokio::test]
async fn a_parameter_that_an_address_does_not_take_is_named_by_every_read() {
    let world = World::open().await;
    for path in [
        "/v1/status",
        "/v1/history",
        "/v1/history/api",
        "/v1/services/api",
        "/v1/who-shipped/production/api",
        "/v1/explain/production/api",
        "/v1/explain/1",
        "/v1/forecast/production/api",
        "/v1/logs/production/api",
        "/v1/replay",
        "/v1/verify",
        "/v1/ledger",
        "/v1/events",
    ] {
        let answer = raw::unix(world.data(), &raw::get(&format!("{path}?when=now"), "")).await;
        assert_eq!((answer.status, answer.error().0.as_str()), (400, "malformed"), "{path}: {answer:?}");
        assert!(answer.body.contains("unknown field `when`; this address takes "), "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_is_named_by_every_read() {
    let world = World::open().await;
    for path in [
        "/v1/history/API",
        "/v1/services/API",
        "/v1/who-shipped/production/API",
        "/v1/explain/production/API",
        "/v1/forecast/production/API",
        "/v1/logs/production/API",
        "/v1/status?service=API",
    ] {
        let answer = raw::unix(world.data(), &raw::get(path, "")).await;
        assert_eq!((answer.status, answer.error().0.as_str()), (400, "malformed"), "{path}: {answer:?}");
        assert!(answer.body.contains("`service=API`: "), "{path}: {answer:?}");
    }
}
