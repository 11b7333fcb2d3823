//! Bodies on their way through: nothing is gathered, silence has a limit, and the end of an answer is taken note of.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant as TimerInstant, Sleep};

use super::backend::Backend;
use super::clock::now_ms;
use super::connection::Busy;
use super::link::Link;
use super::meter::{Outcome, Place};

/// A request's entry in its node's meter; dropped without a word, the request was abandoned.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) backend: Arc<Backend>,
    place: Place,
    outcome: Outcome,
}

impl Ticket {
    pub(super) fn new(backend: Arc<Backend>, start: Instant) -> Self {
        let place = backend.meter.begin(start);
        Self { backend, place, outcome: Outcome::Abandoned }
    }

    /// Ends the request.
    pub(super) fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.backend.meter.end(self.place, self.outcome, Instant::now());
    }
}

/// How far a request's body has got.
#[derive(Debug, Default)]
pub(super) struct Progress {
    last_ms: AtomicU64,
    ended: AtomicBool,
    broken: AtomicBool,
    awaiting_user: AtomicBool,
}

impl Progress {
    /// Returns when the last part of it came, on the process' clock.
    pub(super) fn last_ms(&self) -> u64 {
        self.last_ms.load(Relaxed)
    }

    /// Returns whether all of it came.
    pub(super) fn ended(&self) -> bool {
        self.ended.load(Relaxed)
    }

    /// Returns whether the node would take more than the user has sent.
    pub(super) fn awaits_user(&self) -> bool {
        self.awaiting_user.load(Relaxed)
    }

    /// Returns whether the user's connection broke within it.
    pub(super) fn broken(&self) -> bool {
        self.broken.load(Relaxed)
    }
}

/// A request's body on its way to the node.
#[derive(Debug)]
pub(super) enum Upload {
    /// There is none.
    None,
    /// It comes in parts.
    Stream(Incoming, Arc<Progress>),
}

impl Upload {
    /// Returns `body` and, if there is one, its progress.
    pub(super) fn new(body: Incoming) -> (Self, Option<Arc<Progress>>) {
        if body.is_end_stream() {
            return (Upload::None, None);
        }
        let progress = Arc::new(Progress { last_ms: AtomicU64::new(now_ms()), ..Progress::default() });
        (Upload::Stream(body, progress.clone()), Some(progress))
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Upload::Stream(body, progress) = self.get_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(&mut *body).poll_frame(cx);
        progress.awaiting_user.store(polled.is_pending(), Relaxed);
        if let Poll::Ready(frame) = &polled {
            progress.last_ms.store(now_ms(), Relaxed);
            match frame {
                Some(Err(_)) => progress.broken.store(true, Relaxed),
                Some(Ok(_)) if !body.is_end_stream() => {}
                Some(Ok(_)) | None => progress.ended.store(true, Relaxed),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Upload::None => true,
            Upload::Stream(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Upload::None => SizeHint::with_exact(0),
            Upload::Stream(body, _) => body.size_hint(),
        }
    }
}

/// Why an answer broke off.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("the node closed the connection within the answer: {0}")]
    Lost(#[from] hyper::Error),
    #[error("the node sent nothing for {0:?} within the answer")]
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
    status: u16,
    open: Option<(Ticket, Link)>,
    idle: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    waiting: bool,
    _busy: Busy,
}

impl Relay {
    /// Passes on `body`, for which the node is given `idle` between parts.
    pub(super) fn new(body: Incoming, status: u16, ticket: Ticket, link: Link, idle: Duration, busy: Busy) -> Self {
        let open = Some((ticket, link));
        let mut relay = Self { body, status, open, idle, timer: None, waiting: false, _busy: busy };
        relay.note_end();
        relay
    }

    /// hyper does not poll an answer's body again once it knows that it is whole.
    fn note_end(&mut self) {
        if self.body.is_end_stream() {
            self.end(Outcome::Answered(self.status));
        }
    }

    fn end(&mut self, outcome: Outcome) {
        let Some((ticket, link)) = self.open.take() else { return };
        if matches!(outcome, Outcome::Answered(_)) {
            ticket.backend.checkin(link);
        }
        ticket.end(outcome);
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
        match self.poll_part(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.waiting = false;
                self.note_end();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.end(Outcome::Failed);
                Poll::Ready(Some(Err(Broken::Lost(error))))
            }
            Poll::Ready(None) => {
                self.end(Outcome::Answered(self.status));
                Poll::Ready(None)
            }
            Poll::Pending => {
                std::task::ready!(self.poll_silence(cx));
                self.end(Outcome::Failed);
                Poll::Ready(Some(Err(Broken::Silent(self.idle))))
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
