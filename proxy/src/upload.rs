//! A request's body on its way to the node, and how far it has got.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::clock::now_ms;

/// How far a request's body has got.
#[derive(Debug)]
pub(super) struct Progress {
    /// Whether some of it has not come, as the user's connection knows it.
    unread: Arc<AtomicBool>,
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

    fn note_end(&self) {
        self.ended.store(true, Relaxed);
        self.unread.store(false, Relaxed);
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
    /// Returns `body` and, if there is one, its progress, which clears `unread` at its end.
    pub(super) fn new(body: Incoming, unread: Arc<AtomicBool>) -> (Self, Option<Arc<Progress>>) {
        if body.is_end_stream() {
            return (Upload::None, None);
        }
        let not_yet = || AtomicBool::new(false);
        let progress = Arc::new(Progress {
            unread,
            last_ms: AtomicU64::new(now_ms()),
            ended: not_yet(),
            broken: not_yet(),
            awaiting_user: not_yet(),
        });
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
                Some(Ok(frame)) if !body.is_end_stream() && !frame.is_trailers() => {}
                Some(Ok(_)) | None => progress.note_end(),
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
