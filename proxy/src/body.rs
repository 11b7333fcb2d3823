//! Bodies on their way through: nothing is gathered, silence has a limit, and the end of an answer is taken note of.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant as TimerInstant, Sleep};

use super::activity::Busy;
use super::answer::Reuse;
use super::link::Link;
use super::meter::RequestOutcome;
use super::ticket::Ticket;

/// Why an answer broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the node closed the connection in the middle of its answer: {0}")]
    Lost(#[from] hyper::Error),
    #[error("the node sent nothing for {0:?} in the middle of its answer")]
    Silent(Duration),
}

/// An answer's body on its way to the user.
#[derive(Debug)]
pub(super) enum Reply {
    /// The proxy's own words.
    Own(Option<Bytes>, #[allow(dead_code)] Busy),
    /// The node's.
    Node(Relay),
}

/// A node's answer that is being passed on.
#[derive(Debug)]
pub(super) struct Relay {
    body: Incoming,
    accepted: Accepted,
    open: Option<(Ticket, Link)>,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    /// Why it broke off, until what came of it is written.
    broken: Option<Broken>,
    busy: Busy,
}

/// An answer whose head has been accepted.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) status: u16,
    pub(super) reuse: Reuse,
    /// Whether only the end of the connection can tell the user that the body is over.
    pub(super) ends_with_connection: bool,
}

impl Relay {
    /// Passes on `body`, for which the node is given `idle` between parts.
    pub(super) fn new(body: Incoming, accepted: Accepted, open: (Ticket, Link), idle: Duration, busy: Busy) -> Self {
        let mut relay =
            Self { body, accepted, open: Some(open), idle, timer: None, waiting: false, broken: None, busy };
        relay.note_end();
        relay
    }

    /// hyper does not poll an answer's body again once it knows that it is whole.
    fn note_end(&mut self) {
        if self.body.is_end_stream() {
            self.end();
        }
    }

    /// Takes note that the answer has come whole.
    fn end(&mut self) {
        let Some((ticket, link)) = self.open.take() else { return };
        if self.accepted.reuse == Reuse::Yes {
            ticket.backend.checkin(link);
        }
        self.busy.end(ticket, RequestOutcome::Answered(self.accepted.status));
    }

    /// Takes note that the answer broke off. hyper drops what it has not written when it is told, so it is told later.
    fn fail(&mut self, cx: &Context<'_>, broken: Broken) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some((ticket, _)) = self.open.take() {
            ticket.end(RequestOutcome::Failed);
        }
        self.broken = Some(broken);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Returns why the answer broke off, once the user has taken what came of it.
    fn poll_broken(&mut self, broken: Broken) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.busy.activity().is_stalled() {
            self.broken = Some(broken); // it is asked for again when more is written
            return Poll::Pending;
        }
        if self.accepted.ends_with_connection {
            self.busy.cut();
        }
        Poll::Ready(Some(Err(broken)))
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.waiting {
            self.waiting = true;
            let deadline = TimerInstant::now() + self.idle;
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(deadline),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
            }
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let Some((_, link)) = &mut self.open else { return polled };
        if polled.is_ready() {
            return polled;
        }
        link.drive(cx);
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(broken) = self.broken.take() {
            return self.poll_broken(broken);
        }
        match self.poll_part(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.waiting = false;
                if frame.is_trailers() {
                    self.end()
                } else {
                    self.note_end()
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => self.fail(cx, Broken::Lost(error)),
            Poll::Ready(None) => {
                self.end();
                Poll::Ready(None)
            }
            Poll::Pending => {
                std::task::ready!(self.poll_silence(cx));
                self.fail(cx, Broken::Silent(self.idle))
            }
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Reply::Own(text, _) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Reply::Node(relay) => relay.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Reply::Own(text, _) => text.is_none(),
            Reply::Node(relay) => relay.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Reply::Own(text, _) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Reply::Node(relay) => relay.body.size_hint(),
        }
    }
}
