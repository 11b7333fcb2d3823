//! Seats: how many connections are open at a time, and what each may ask for.
//!
//! A connection gets an ordinary seat while there is one. One that comes later, or is one too many of its address or its
//! token, gets a reserved seat: there a rollback and a supervisor's questions are answered, and nothing else. Of the reserved
//! seats the oldest that asked for no rollback gives way to the next connection. So neither a crowd nor readers that stand
//! still keep a rollback out.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{FromRequestParts, Request};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{CONNECTION, HeaderValue};
use http::request::Parts;
use ledger::decide;
use schemas::command::Command;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{Api, Limits};
use crate::problem::{Code, Problem};
use crate::telemetry;

/// What is answered on a reserved seat; of commands only a rollback.
const COMMANDS: &str = "/v1/commands";
const HEALTH: [&str; 2] = ["/healthz", "/readyz"];

/// The seats of a server.
#[derive(Debug)]
pub(super) struct Seats {
    ordinary: Arc<Semaphore>,
    limits: Limits,
    addresses: Counts<IpAddr>,
    /// The reserved seats that may be taken away, the oldest first.
    waiting: Mutex<VecDeque<Arc<Reserved>>>,
}

/// How often each of something is there now.
#[derive(Debug)]
pub(super) struct Counts<K>(Arc<Mutex<HashMap<K, usize>>>);

/// One of them; it is counted until it is dropped.
#[derive(Debug)]
pub(super) struct Counted<K: Eq + std::hash::Hash> {
    counts: Counts<K>,
    key: K,
}

/// A reserved seat.
#[derive(Debug)]
struct Reserved {
    why: Why,
    taken_away: CancellationToken,
}

/// Why a connection has no ordinary seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Listener(usize),
    Address(usize),
    Token(usize),
}

/// A connection's seat, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    reserved: Option<Arc<Reserved>>,
    /// Whose connection it is, once a request has said so.
    token: Mutex<Option<Counted<String>>>,
    _place: Option<OwnedSemaphorePermit>,
    _address: Option<Counted<IpAddr>>,
}

impl Seats {
    /// Returns the seats of a server.
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            ordinary: Arc::new(Semaphore::new(limits.connections_max)),
            limits: limits.clone(),
            addresses: Counts::default(),
            waiting: Mutex::default(),
        })
    }

    /// Returns a seat for a connection from `address`, if it has one. Where no seat is free the oldest reserved one is
    /// taken away.
    pub(super) fn seat(self: &Arc<Self>, address: Option<IpAddr>) -> Arc<Seat> {
        let of_address = address.map(|address| self.addresses.count(address));
        let too_many = self
            .limits
            .connections_per_address_max
            .filter(|max| of_address.as_ref().is_some_and(|counted| counted.number() > *max));
        let (place, why) = match (too_many, Arc::clone(&self.ordinary).try_acquire_owned()) {
            (Some(max), _) => (None, Some(Why::Address(max))),
            (None, Ok(place)) => (Some(place), None),
            (None, Err(_)) => (None, Some(Why::Listener(self.limits.connections_max))),
        };
        let reserved = why.map(|why| self.reserve(why));
        let seats = Arc::clone(self);
        Arc::new(Seat { seats, reserved, token: Mutex::default(), _place: place, _address: of_address })
    }

    fn reserve(&self, why: Why) -> Arc<Reserved> {
        tracing::debug!(?why, "a connection got a reserved seat");
        let reserved = Arc::new(Reserved { why, taken_away: CancellationToken::new() });
        let mut waiting = lock(&self.waiting);
        waiting.push_back(Arc::clone(&reserved));
        if waiting.len() > self.limits.connections_reserved_max
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.taken_away.cancel();
        }
        reserved
    }

    fn give_back(&self, reserved: &Arc<Reserved>) {
        lock(&self.waiting).retain(|other| !Arc::ptr_eq(other, reserved));
    }
}

impl Seat {
    /// Waits until the seat is taken away; for ever if it is an ordinary one.
    pub(super) async fn taken_away(&self) {
        match &self.reserved {
            Some(reserved) => reserved.taken_away.cancelled().await,
            None => std::future::pending().await,
        }
    }

    /// Says that the connection is that of a token, and why it is one too many of it, if it is.
    fn belongs_to(&self, tokens: &Counts<String>, id: &str) -> Option<Why> {
        let max = self.seats.limits.connections_per_token_max;
        let mut held = lock(&self.token);
        if held.as_ref().is_none_or(|counted| counted.key != id) {
            *held = Some(tokens.count(id.to_owned()));
        }
        let number = held.as_ref().map_or(0, Counted::number);
        if number <= max {
            return None;
        }
        *held = None;
        Some(Why::Token(max))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(reserved) = &self.reserved {
            self.seats.give_back(reserved);
        }
    }
}

/// What a request may ask for.
#[derive(Clone, Debug, Default)]
pub(super) struct Room {
    seat: Option<Arc<Seat>>,
    over_token: Option<OverToken>,
}

/// A request that is one too many of its token.
#[derive(Clone, Copy, Debug)]
struct OverToken(Why);

impl Room {
    /// Lets a command pass if there is room for it: a rollback always.
    ///
    /// # Errors
    ///
    /// [`Code::Busy`] with what is in use.
    pub(super) fn admit(&self, command: &Command) -> Result<(), Problem> {
        let reserved = self.seat.as_ref().and_then(|seat| seat.reserved.as_ref());
        let why = reserved.map(|reserved| reserved.why).or(self.over_token.map(|OverToken(why)| why));
        match why {
            Some(why) if !decide::is_rollback(command) => Err(busy(why)),
            _ => {
                // From here on the seat is not taken away.
                if let (Some(seat), Some(reserved)) = (&self.seat, reserved) {
                    seat.seats.give_back(reserved);
                }
                Ok(())
            }
        }
    }
}

impl FromRequestParts<Arc<Api>> for Room {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Problem> {
        let (seat, over_token) = (parts.extensions.get().cloned(), parts.extensions.get().copied());
        Ok(Self { seat, over_token })
    }
}

/// Counts a request's connection as its token's. One too many may still send a command, of which only a rollback passes.
///
/// # Errors
///
/// [`Code::Busy`] for any other request.
pub(super) fn take_for_token(parts: &mut Parts, api: &Api, token: &str) -> Result<(), Problem> {
    let seat: Option<Arc<Seat>> = parts.extensions.get().cloned();
    match seat.and_then(|seat| seat.belongs_to(&api.token_connections, token)) {
        Some(why) if parts.uri.path() != COMMANDS => Err(busy(why)),
        Some(why) => {
            parts.extensions.insert(OverToken(why));
            Ok(())
        }
        None => Ok(()),
    }
}

/// Answers on a reserved seat what is answered there, once, and refuses the rest.
pub(super) async fn reserved_only(request: Request, next: Next) -> Response {
    let seat: Option<&Arc<Seat>> = request.extensions().get();
    let Some(why) = seat.and_then(|seat| seat.reserved.as_ref()).map(|reserved| reserved.why) else {
        return next.run(request).await;
    };
    let path = request.uri().path();
    let mut response = match HEALTH.contains(&path) || path == COMMANDS {
        true => next.run(request).await,
        false => busy(why).into_response(),
    };
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn busy(why: Why) -> Problem {
    let (label, used) = match why {
        Why::Listener(max) => ("door", format!("all {max} connections of this socket or port are in use")),
        Why::Address(max) => {
            ("address", format!("{max} connections from this address are open, as many as one may have"))
        }
        Why::Token(max) => ("token", format!("{max} connections with this token are open, as many as one may have")),
    };
    telemetry::BUSY.with_label_values(&[label]).inc();
    let next = "close some, or try again; a rollback, /healthz and /readyz are answered meanwhile";
    Problem::new(Code::Busy, format!("{used}; {next}"))
}

impl<K: Clone + Eq + std::hash::Hash> Counts<K> {
    fn count(&self, key: K) -> Counted<K> {
        *lock(&self.0).entry(key.clone()).or_default() += 1;
        Counted { counts: self.clone(), key }
    }
}

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K> Clone for Counts<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Eq + std::hash::Hash> Counted<K> {
    /// Returns how many there are of its kind, this one with them.
    fn number(&self) -> usize {
        lock(&self.counts.0).get(&self.key).copied().unwrap_or_default()
    }
}

impl<K: Eq + std::hash::Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts.0);
        if let Some(number) = counts.get_mut(&self.key) {
            *number -= 1;
            if *number == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// A panic elsewhere leaves nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
