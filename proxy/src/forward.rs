//! One request on its way: a stack by weight, a node by load, the exchange, and what came of it.
//!
//! A request is sent again only where nothing of it was sent: no connection came about, or hyper hands the request
//! back because the connection closed before it was written. Its body has then not been touched.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version, request, response};
use hyper::body::{Bytes, Incoming};
use schemas::EffectId;
use tokio::time::timeout;

use super::activity::Busy;
use super::answer::{self, Reuse};
use super::backend::{Backend, ConnectError};
use super::body::{Accepted, Relay, Reply};
use super::clock::{ms, now_ms};
use super::deployment::{Deployment, Table};
use super::headers::{self, Length, Peer};
use super::link::{Link, Sent};
use super::meter::RequestOutcome;
use super::refused::Refused;
use super::ticket::Ticket;
use super::upload::{Progress, Upload};

/// At how many nodes a request is tried before it is given up.
const NODES_MAX: usize = 3;

type Message = Request<Upload>;

/// Answers `request` with the words of a node, or with the proxy's own where that cannot be.
pub(super) async fn forward(
    deployment: &Deployment,
    peer: &Peer,
    request: Request<Incoming>,
    busy: Busy,
) -> Response<Reply> {
    let start = Instant::now();
    let (mut head, body) = request.into_parts();
    let (is_old, method) = (head.version == Version::HTTP_10, head.method.clone());
    if let Err(Refused(status, words)) = accept(&mut head, &body, peer, &busy) {
        deployment.note_refused();
        return own(status, words, busy).await;
    }
    let (upload, progress) = Upload::new(body, busy.activity().unread());
    let table = deployment.table();
    let exchange = Exchange { table: &table, progress: progress.as_deref(), method: &method, start };
    let mut message = Request::from_parts(head, upload);
    pass_hints(&mut message, &busy);
    match exchange.run(message).await {
        Ok((Answered { head, body, link, reuse }, ticket)) => {
            busy.answers().await;
            let ends_with_connection = is_old && answer::length(&body) == Length::Chunked;
            let accepted = Accepted { status: head.status.as_u16(), reuse, ends_with_connection };
            let relay = Relay::new(body, accepted, (ticket, link), table.idle, busy);
            Response::from_parts(head, Reply::Node(relay))
        }
        Err(Refused(status, words)) => own(status, words, busy).await,
    }
}

/// Makes `head` the head of the request to the node.
fn accept(head: &mut request::Parts, body: &Incoming, peer: &Peer, busy: &Busy) -> Result<(), Refused> {
    if busy.has_fragment() {
        return Err(Refused(StatusCode::BAD_REQUEST, "leave the fragment, from `#` on, out of the target"));
    }
    headers::forward(head, answer::length(body), peer)
}

/// Has interim answers to `message` passed on to a user who can take them.
fn pass_hints(message: &mut Message, busy: &Busy) {
    if let Some(hints) = busy.hints() {
        hyper::ext::on_informational(message, move |interim| {
            if let Some(text) = answer::interim(interim.status(), interim.headers()) {
                hints.pass(&text);
            }
        });
    }
}

/// A request that has a stack.
struct Exchange<'a> {
    table: &'a Table,
    progress: Option<&'a Progress>,
    method: &'a Method,
    start: Instant,
}

/// A node's answer whose head has been accepted.
struct Answered {
    head: response::Parts,
    body: Incoming,
    link: Link,
    reuse: Reuse,
}

/// What came of one node.
enum Attempt {
    Answered(Answered),
    /// Nothing was sent; another node may have it.
    Unsent(Message, Refused),
    /// Something may have been sent; nobody else may have it.
    Lost(RequestOutcome, Refused),
}

impl Exchange<'_> {
    async fn run(&self, mut message: Message) -> Result<(Answered, Ticket), Refused> {
        let (stack, salt) = self.table.pick();
        let mut tried: Vec<EffectId> = Vec::new();
        let mut node = stack.choose(now_ms(), salt, &tried);
        while let Some(backend) = node {
            let ticket = Ticket::new(backend.clone(), self.start);
            match self.attempt(backend, message).await {
                Attempt::Answered(answered) => return Ok((answered, ticket)),
                Attempt::Lost(outcome, refused) => {
                    ticket.end(outcome);
                    return Err(refused);
                }
                Attempt::Unsent(unsent, refused) => {
                    message = unsent;
                    tried.push(backend.effect);
                    node = if tried.len() < NODES_MAX { stack.choose(now_ms(), salt, &tried) } else { None };
                    if node.is_none() {
                        ticket.end(RequestOutcome::Failed);
                        return Err(refused);
                    }
                    ticket.end(RequestOutcome::PassedOn);
                }
            }
        }
        // Routes without a node for a stack with a share are refused, so this is a matter of form.
        Err(Refused(StatusCode::SERVICE_UNAVAILABLE, "no node serves this"))
    }

    async fn attempt(&self, backend: &Arc<Backend>, mut message: Message) -> Attempt {
        while let Some(link) = backend.checkout() {
            match self.send(link, message).await {
                // It had been closed while it was idle, which says nothing about the node.
                Attempt::Unsent(unsent, _) => message = unsent,
                attempt => return attempt,
            }
        }
        match backend.connect(self.table.connect).await {
            Ok(link) => self.send(link, message).await,
            Err(error) => {
                backend.eject(now_ms());
                let status = match error {
                    ConnectError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
                    ConnectError::Io(_) | ConnectError::Http(_) => StatusCode::BAD_GATEWAY,
                };
                tracing::debug!(node = %backend.effect, address = %backend.address, %error, "no connection");
                Attempt::Unsent(message, Refused(status, "no connection to the service"))
            }
        }
    }

    async fn send(&self, mut link: Link, message: Message) -> Attempt {
        match self.head(link.send(message)).await {
            Some(Ok(response)) if response.status() != StatusCode::SWITCHING_PROTOCOLS => {
                let (mut head, body) = response.into_parts();
                match answer::accept(&mut head, self.method, answer::length(&body)) {
                    Ok(reuse) => Attempt::Answered(Answered { head, body, link, reuse }),
                    Err(refused) => Attempt::Lost(RequestOutcome::Failed, refused),
                }
            }
            Some(Err(mut error)) => match error.take_message() {
                Some(message) => Attempt::Unsent(message, Refused(StatusCode::BAD_GATEWAY, "the service hung up")),
                None if self.progress.is_some_and(Progress::broken) => {
                    Attempt::Lost(RequestOutcome::Abandoned, Refused(StatusCode::BAD_REQUEST, "the request broke off"))
                }
                None => Attempt::Lost(RequestOutcome::Failed, Refused(StatusCode::BAD_GATEWAY, "the service hung up")),
            },
            Some(Ok(_)) => {
                let words = "the service switched to another protocol, unasked";
                Attempt::Lost(RequestOutcome::Failed, Refused(StatusCode::BAD_GATEWAY, words))
            }
            None if self.progress.is_some_and(|progress| !progress.ended() && progress.awaits_user()) => {
                let words = "the rest of the request did not come";
                Attempt::Lost(RequestOutcome::Abandoned, Refused(StatusCode::REQUEST_TIMEOUT, words))
            }
            None => {
                let words = "the service did not answer in time";
                Attempt::Lost(RequestOutcome::Failed, Refused(StatusCode::GATEWAY_TIMEOUT, words))
            }
        }
    }

    /// Returns what came of sending, or nothing if the head of the answer, or a part of the request that it waits
    /// for, has been waited for too long.
    async fn head(&self, sent: impl Future<Output = Sent>) -> Option<Sent> {
        let mut sent = pin!(sent);
        let Table { response, idle, .. } = self.table;
        let Some(progress) = self.progress else { return timeout(*response, sent).await.ok() };
        let mut wait = *response.min(idle);
        loop {
            if let Ok(sent) = timeout(wait, sent.as_mut()).await {
                return Some(sent);
            }
            let limit = ms(if progress.ended() { *response } else { *idle });
            let quiet = now_ms().saturating_sub(progress.last_ms());
            if quiet >= limit {
                return None;
            }
            wait = Duration::from_millis(limit - quiet);
        }
    }
}

async fn own(status: StatusCode, words: &'static str, busy: Busy) -> Response<Reply> {
    busy.answers().await;
    let mut response = Response::new(Reply::Own(Some(Bytes::from(format!("{words}\n"))), busy));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
