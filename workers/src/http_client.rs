//! One HTTP request and its answer, over a connection of its own.
//!
//! What was not sent may be sent again; of what was lost nobody knows whether it was carried out. The two are kept apart here
//! for everybody who asks. Who asks also drives the connection, not a task, so an exchange that is given up is over.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Nothing of it was sent: it may be sent again.
    #[error("{0}")]
    NotSent(io::Error),
    /// It may have been carried out: the connection broke.
    #[error("{}", with_source(.0))]
    Lost(hyper::Error),
    /// It may have been carried out: no answer came within this time.
    #[error("no answer came within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// It was answered with more than so many bytes.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// How long an exchange may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until there is a connection.
    pub connect: Duration,
    /// From then on until the answer's head.
    pub answer: Duration,
}

impl Limits {
    /// For a caller who limits the exchange as a whole.
    pub const NONE: Limits = Limits { connect: Duration::MAX, answer: Duration::MAX };
}

/// Says whether an attempt to connect failed because nobody listens there.
pub fn is_absent(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

type Connection = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// The body of an answer, with the connection that it comes over.
pub struct AnswerBody {
    incoming: Incoming,
    connection: Connection,
}

/// Connects, sends `request`, and returns the answer's head, with its body still to be read.
///
/// # Errors
///
/// [`RequestError`].
pub async fn exchange<S, B>(
    connecting: impl Future<Output = io::Result<S>>,
    request: Request<B>,
    limits: Limits,
) -> Result<Response<AnswerBody>, RequestError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connected = timeout(limits.connect, connecting).await;
    let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(RequestError::NotSent)?;
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| RequestError::NotSent(io::Error::other(error)))?;
    let mut connection: Connection = Box::pin(connection.fuse());
    let answer = {
        let mut sent = pin!(sender.send_request(request));
        let driven = poll_fn(|cx| {
            let _ = connection.as_mut().poll(cx); // its error is the request's, too
            sent.as_mut().poll(cx)
        });
        timeout(limits.answer, driven).await
    };
    let answer = answer.map_err(|_| RequestError::TimedOut(limits.answer))?.map_err(RequestError::Lost)?;
    Ok(answer.map(|incoming| AnswerBody { incoming, connection }))
}

impl AnswerBody {
    /// Reads the whole body, which may have at most `bytes_max` bytes.
    ///
    /// # Errors
    ///
    /// [`RequestError::Lost`] if it breaks off, [`RequestError::TooLong`].
    pub async fn read(mut self, bytes_max: usize) -> Result<Bytes, RequestError> {
        let mut whole = BytesMut::new();
        while let Some(frame) = self.frame().await {
            whole.extend(frame.map_err(RequestError::Lost)?.into_data().ok());
            if whole.len() > bytes_max {
                return Err(RequestError::TooLong(bytes_max));
            }
        }
        Ok(whole.freeze())
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let _ = self.connection.as_mut().poll(cx); // its error is the body's, too
        Pin::new(&mut self.incoming).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.incoming.fmt(f)
    }
}

fn with_source(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const LIMITS: Limits = Limits { connect: Duration::from_secs(1), answer: Duration::from_secs(2) };

    async fn ask(
        connecting: impl Future<Output = io::Result<DuplexStream>>,
    ) -> Result<Response<AnswerBody>, RequestError> {
        exchange(connecting, Request::get("/").body(Empty::<Bytes>::new()).unwrap(), LIMITS).await
    }

    /// Returns a connection to a server that reads the request, writes `answer` and ends.
    fn server(answer: &'static str) -> DuplexStream {
        let (user, mut server) = duplex(1024);
        tokio::spawn(async move {
            assert!(server.read(&mut [0; 512]).await.unwrap() > 0);
            server.write_all(answer.as_bytes()).await.unwrap();
        });
        user
    }

    #[tokio::test(start_paused = true)]
    async fn what_found_no_connection_was_not_sent() {
        let refused = ask(async { Err(io::ErrorKind::ConnectionRefused.into()) }).await;
        assert!(
            matches!(refused, Err(RequestError::NotSent(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
        );
        let silent = ask(std::future::pending()).await;
        assert!(matches!(silent, Err(RequestError::NotSent(error)) if error.kind() == io::ErrorKind::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_and_not_answered_is_lost() {
        for answer in ["", "HTTP/1.1 200 O", "no HTTP at all\r\n\r\n"] {
            assert!(matches!(ask(async { Ok(server(answer)) }).await, Err(RequestError::Lost(_))), "{answer}");
        }
        let (user, _silent) = duplex(1024);
        assert!(matches!(ask(async { Ok(user) }).await, Err(RequestError::TimedOut(_))));
        let cut = ask(async { Ok(server("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")) }).await.unwrap();
        assert!(matches!(cut.into_body().read(9).await, Err(RequestError::Lost(_))));
    }

    #[tokio::test]
    async fn an_answer_is_read_whole_or_not_at_all() {
        let answer = || async { Ok(server("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwhole")) };
        assert_eq!(ask(answer()).await.unwrap().into_body().read(5).await.unwrap(), "whole");
        assert!(matches!(ask(answer()).await.unwrap().into_body().read(4).await, Err(RequestError::TooLong(4))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_exchange_that_is_given_up_is_over() {
        let (user, mut server) = duplex(1024);
        let given_up = timeout(Duration::from_millis(10), ask(async { Ok(user) })).await;
        assert!(given_up.is_err());
        let mut seen = Vec::new();
        server.read_to_end(&mut seen).await.unwrap(); // without a task of the client's there is nobody left to keep it open
        assert!(seen.starts_with(b"GET / HTTP/1.1\r\n"));
    }
}
