//! A body whose parts come through a channel, for as long as they come.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

/// What goes into a body: its next part, or why there is none.
pub(crate) type Part = io::Result<Bytes>;

/// The body. It ends when every sender is gone.
pub(crate) struct Parts(mpsc::Receiver<Part>);

impl Parts {
    /// Returns a body and where its parts go in; at most 16 wait.
    pub(crate) fn channel() -> (mpsc::Sender<Part>, Self) {
        Self::channel_of(16)
    }

    /// Returns a body and where its parts go in; at most `waiting` wait.
    pub(crate) fn channel_of(waiting: usize) -> (mpsc::Sender<Part>, Self) {
        let (sender, receiver) = mpsc::channel(waiting);
        (sender, Self(receiver))
    }
}

impl Body for Parts {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|part| part.map(|part| part.map(Frame::data)))
    }
}
