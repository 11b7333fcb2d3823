//! A connection whose other end must take what is written to it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How much must be taken within the limit, in bytes, unless less is left.
const TAKEN_MIN: usize = 16 * 1024;

/// A stream with a limit on stalled writes: it fails if the peer reads less than [`TAKEN_MIN`] bytes within the limit.
pub(super) struct Unstalled<S> {
    stream: S,
    limit: Duration,
    /// When it fails, once something could not be written at once.
    until: Option<Pin<Box<Sleep>>>,
    /// What was taken since.
    taken: usize,
}

impl<S> Unstalled<S> {
    /// Returns `stream` with a limit on stalled writes.
    pub(super) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, until: None, taken: 0 }
    }

    fn moved(&mut self, bytes: usize) {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken >= TAKEN_MIN {
            self.drained();
        }
    }

    fn drained(&mut self) {
        self.until = None;
        self.taken = 0;
    }

    /// Returns what becomes of a write that cannot go on now.
    fn waits<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let limit = self.limit;
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(until.as_mut().poll(context));
        let seconds = limit.as_secs_f32();
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, format!("its reader took too little for {seconds} s"))))
    }

    fn written(&mut self, written: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.moved(bytes);
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.waits(context),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unstalled<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unstalled<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.written(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Flushed is asked for once everything was written.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_flush(context) {
            Poll::Ready(flushed) => {
                self.drained();
                Poll::Ready(flushed)
            }
            Poll::Pending => self.waits(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(context) {
            Poll::Ready(shut) => Poll::Ready(shut),
            Poll::Pending => self.waits(context),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    /// A writer of much, and a reader of it with room for little.
    async fn writing(reader: impl AsyncFnOnce(tokio::io::DuplexStream)) -> io::Result<()> {
        let (near, far) = tokio::io::duplex(1_024);
        let mut stream = Unstalled::new(near, LIMIT);
        let writer = async {
            stream.write_all(&vec![0; 1 << 20]).await?;
            stream.flush().await
        };
        let (written, ()) = tokio::join!(writer, reader(far));
        written
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_let_go_after_the_limit() {
        let began = tokio::time::Instant::now();
        let written = writing(async |far| {
            tokio::time::sleep(LIMIT * 2).await;
            drop(far);
        });
        assert_eq!(written.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), LIMIT * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_drips_is_let_go_too() {
        let written = writing(async |mut far| {
            let mut byte = [0; 1];
            for _ in 0..100 {
                tokio::time::sleep(LIMIT / 10).await;
                if far.read_exact(&mut byte).await.is_err() {
                    return;
                }
            }
        });
        assert_eq!(written.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_that_goes_on_gets_everything() {
        let written = writing(async |mut far| {
            let mut part = vec![0; TAKEN_MIN];
            for _ in 0..(1 << 20) / TAKEN_MIN {
                tokio::time::sleep(LIMIT / 2).await;
                far.read_exact(&mut part).await.unwrap();
            }
        });
        written.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_is_less_than_that_and_the_next_answer_begins_anew() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = Unstalled::new(near, LIMIT);
        for _ in 0..3 {
            let answer = async {
                stream.write_all(&[0; 100]).await?;
                stream.flush().await
            };
            let reader = async {
                tokio::time::sleep(LIMIT * 2 / 3).await;
                far.read_exact(&mut [0; 100]).await.unwrap();
            };
            let (written, ()) = tokio::join!(answer, reader);
            written.unwrap();
            tokio::time::sleep(LIMIT).await;
        }
    }
}
