//! An intent for tests.

use schemas::break_glass::Intent;
use schemas::envelope::{CommandRef, Head};
use schemas::{Actor, ActorKind, CommandId, Fence, Hash, LedgerId, StackId, Stream, StreamVersion};
use uuid::Uuid;

pub(super) fn intent() -> Intent {
    let deployment: schemas::DeploymentId = "production/api".parse().unwrap();
    Intent {
        ledger: LedgerId(Uuid::from_u128(1)),
        command: CommandRef { id: CommandId(Uuid::from_u128(2)), hash: Hash::of(b"rollback") },
        deployment: deployment.clone(),
        actor: Actor { kind: ActorKind::Person, name: "ana".to_owned(), proof: "unix-peer uid=1000".to_owned() },
        cause: None,
        reason: Some("checkout fails".to_owned()),
        why: "asked for".to_owned(),
        at: "2026-11-01T12:00:00Z".parse().unwrap(),
        to: StackId(Uuid::from_u128(3)),
        version: "1.2.2".parse().unwrap(),
        passed_over: vec![],
        rollout: None,
        counted: None,
        judged: None,
        head: Head { stream: Stream::Deployment(deployment), version: StreamVersion(7), hash: Hash::ZERO },
        fence: Fence(1),
        generation: StreamVersion((1 << 32) | 7),
        after: None,
        moved_at: None,
    }
}
