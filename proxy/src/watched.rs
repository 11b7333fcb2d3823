//! A user's socket whose silences are watched: what it waits for, whether the user still sends, where a head ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::activity::Activity;
use super::clock::now_ms;
use super::heads::Heads;

#[derive(Debug)]
pub(super) struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
    heads: Heads,
    /// What came behind a head, until hyper asks for it.
    held: BytesMut,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity, heads: Heads::default(), held: BytesMut::new() }
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Gives what was read into `buf` from `start` on: while no request is being worked on, no more than a head.
    fn give(&mut self, buf: &mut ReadBuf<'_>, start: usize) {
        let fresh = &buf.filled()[start..];
        if fresh.is_empty() || self.activity.is_busy() {
            return;
        }
        let count = self.heads.take(fresh);
        let behind = BytesMut::from(&fresh[count..]);
        if !behind.is_empty() {
            buf.set_filled(start + count);
            // What was held before came later.
            let later = std::mem::replace(&mut self.held, behind);
            self.held.extend_from_slice(&later);
        }
        self.activity.note_head(self.heads.has_fragment());
        self.activity.note_read(now_ms());
    }

    /// Looks whether a user who waits for an answer still sends, which hyper does not look at. One that has half-closed may
    /// wait for it nevertheless; one that is gone resets the connection as soon as anything is sent to it.
    fn look(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.activity.is_half_closed() {
            return self.stream.take_error()?.map_or(Ok(()), Err);
        }
        if !self.activity.is_busy() || !self.held.is_empty() {
            return Ok(());
        }
        let mut byte = [0];
        match self.stream.poll_peek(cx, &mut ReadBuf::new(&mut byte)) {
            Poll::Ready(Ok(0)) => self.activity.note_half_closed(),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Ready(Ok(1..)) | Poll::Pending => {}
        }
        Ok(())
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let start = buf.filled().len();
        if this.held.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        } else {
            let count = this.held.len().min(buf.remaining());
            buf.put_slice(&this.held[..count]);
            this.held.advance(count);
        }
        this.give(buf, start);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.activity.note_write(polled.is_pending(), now_ms);
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.activity.note_write(polled.is_pending(), now_ms);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper calls it at every turn, and only when all that it had to write is written.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let activity = this.activity.clone();
        let written = activity.write_interim(cx, |bytes| {
            Pin::new(&mut this.stream).poll_write(&mut Context::from_waker(cx.waker()), bytes)
        });
        activity.note_write(written.is_pending(), now_ms);
        ready!(written)?;
        Poll::Ready(this.look(cx))
    }

    /// How the connection ends is seen to when hyper is done with it.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
