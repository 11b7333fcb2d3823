//! A link: a connection to a node, and what drives it.
//!
//! hyper wants a connection to be driven beside the exchange that uses it. A task for that would cost each request two
//! switches between tasks, so the exchange drives its own link. Only where a request has a body does the connection
//! get a task: a user who sends a body without reading the answer must not hold up the body that the answer waits for.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Waker};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::limits::BUFFER_MAX;
use super::upload::Upload;

type Driver = Pin<Box<http1::Connection<TokioIo<TcpStream>, Upload>>>;

/// What came of sending a request; an error holds the request if nothing of it was sent.
pub(super) type Sent = Result<Response<Incoming>, TrySendError<Request<Upload>>>;

#[derive(Debug)]
pub(super) struct Link {
    sender: http1::SendRequest<Upload>,
    /// Nothing once the connection has ended, or has been given a task.
    driver: Option<Driver>,
    has_task: bool,
}

impl Link {
    /// Returns a link on `stream`.
    pub(super) async fn new(stream: TcpStream) -> hyper::Result<Self> {
        let mut http = http1::Builder::new();
        // The head of an answer has as much room as what is kept of its body.
        http.max_buf_size(BUFFER_MAX).max_header_size(BUFFER_MAX);
        let (sender, connection) = http.handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Some(Box::pin(connection)), has_task: false })
    }

    /// Sends `message` and returns the head of the answer. Given up before its end, the link must not be used again.
    pub(super) async fn send(&mut self, message: Request<Upload>) -> Sent {
        if matches!(message.body(), Upload::Stream(..)) {
            self.give_task();
        }
        let mut sent = pin!(self.sender.try_send_request(message));
        let driver = &mut self.driver;
        poll_fn(|cx| {
            drive(driver, cx);
            sent.as_mut().poll(cx)
        })
        .await
    }

    /// Lets the connection do what it can, unless it has a task.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.driver, cx);
    }

    /// Returns whether a request can be sent: the last exchange is over and the node has not hung up.
    pub(super) fn is_ready(&mut self) -> bool {
        drive(&mut self.driver, &mut Context::from_waker(Waker::noop()));
        self.sender.is_ready()
    }

    /// Returns whether only its own task can say when it will be ready.
    pub(super) fn has_task(&self) -> bool {
        self.has_task
    }

    /// Waits until a request can be sent, and returns whether one can.
    pub(super) async fn ready(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    fn give_task(&mut self) {
        if let Some(driver) = self.driver.take() {
            self.has_task = true;
            tokio::spawn(driver); // what goes wrong on it is told to the exchange
        }
    }
}

/// A connection that has ended is dropped at once, which hands a request that it has not sent back to its sender.
fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if let Some(connection) = driver
        && connection.as_mut().poll(cx).is_ready()
    {
        *driver = None;
    }
}
