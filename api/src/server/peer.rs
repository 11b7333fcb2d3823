//! Peers: who is at the other end of a connection, and how that is known.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::header::AUTHORIZATION;
use http::request::Parts;
use schemas::{Actor, ActorKind};
use workers::identity::user_name;

use super::{Api, seat};
use crate::problem::{Code, Problem};

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// A process of this machine, as the kernel says.
    Unix {
        /// Its user.
        uid: u32,
        /// Its user's group.
        gid: u32,
        /// Its process.
        pid: Option<i32>,
    },
    /// Somebody over TCP.
    Tcp(SocketAddr),
}

/// The actor of a request.
pub(super) struct Caller(pub(super) Actor);

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        match parts.extensions.get::<Peer>() {
            Some(Peer::Unix { uid, pid, .. }) => Ok(Caller(of_user(*uid, *pid))),
            Some(Peer::Tcp(_)) => {
                let actor = of_token(parts, api)?;
                seat::take_for_token(parts, api, &actor.proof)?;
                Ok(Caller(actor))
            }
            None => Err(Problem::new(Code::Internal, "the connection's peer is not known")),
        }
    }
}

impl Peer {
    /// Returns where it is, if it is not on this machine.
    pub(super) fn address(&self) -> Option<IpAddr> {
        match self {
            Peer::Unix { .. } => None,
            Peer::Tcp(address) => Some(address.ip().to_canonical()),
        }
    }
}

impl FromRequestParts<Arc<Api>> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Problem> {
        let peer = parts.extensions.get::<Peer>().copied();
        peer.ok_or_else(|| Problem::new(Code::Internal, "the connection's peer is not known"))
    }
}

/// How the proof of somebody on this machine begins.
const OF_THIS_MACHINE: &str = "unix-peer ";

/// Says whether the kernel named who asks: a process of this machine.
pub(super) fn is_of_this_machine(actor: &Actor) -> bool {
    actor.proof.starts_with(OF_THIS_MACHINE)
}

fn of_user(uid: u32, pid: Option<i32>) -> Actor {
    let name = user_name(uid).unwrap_or_else(|| format!("uid-{uid}"));
    let pid = pid.map(|pid| format!(" pid={pid}")).unwrap_or_default();
    Actor { kind: ActorKind::Person, name, proof: format!("{OF_THIS_MACHINE}uid={uid}{pid}") }
}

fn of_token(parts: &Parts, api: &Api) -> Result<Actor, Problem> {
    let refuse = || {
        let next = "send `Authorization: Bearer TOKEN`; make one with `ionledger token create NAME`";
        Problem::new(Code::Unauthenticated, format!("no valid token came with this request; {next}"))
    };
    let header = parts.headers.get(AUTHORIZATION).ok_or_else(refuse)?;
    let (scheme, token) = header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(refuse)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(refuse());
    }
    let actor = api.tokens.actor(token.trim(), api.ledger.clock().now());
    actor.map_err(|error| Problem::new(Code::NotConfigured, error.to_string()))?.ok_or_else(|| {
        tracing::warn!(peer = ?parts.extensions.get::<Peer>(), "a token that is none was presented");
        refuse()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_named_by_its_user() {
        assert_eq!(of_user(0, None).name, "root");
        assert_eq!(of_user(4_000_000_000, Some(12)).name, "uid-4000000000");
        assert_eq!(of_user(4_000_000_000, Some(12)).proof, "unix-peer uid=4000000000 pid=12");
    }
}
