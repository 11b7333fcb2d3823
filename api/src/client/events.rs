//! Following the log over a connection.

use std::marker::PhantomData;

use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use workers::http_client::AnswerBody;

use super::Error;
use crate::json;
use crate::wire::Record;

/// The longest line, in bytes: a commit and what stands around it.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// The records of a log, or whatever else comes as a line of JSON each, as they come.
#[derive(Debug)]
pub struct Events<T = Record> {
    body: AnswerBody,
    read: BytesMut,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Events<T> {
    pub(super) fn new(body: AnswerBody) -> Self {
        Self { body, read: BytesMut::new(), of: PhantomData }
    }

    /// Waits for the next record; nothing when the server has no more.
    ///
    /// # Errors
    ///
    /// [`Error::Broken`] if the connection breaks; ask again from the offset after the last record.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line = self.read.split_to(end);
                self.read.advance(1);
                if line.is_empty() {
                    continue; // a heartbeat
                }
                let record = serde_json::from_slice(&line);
                return record.map(Some).map_err(|error| {
                    Error::Broken(format!(
                        "a record of the answer cannot be read: {}",
                        json::describe::<T>(&line, &error)
                    ))
                });
            }
            if self.read.len() > LINE_BYTES_MAX {
                return Err(Error::Broken("a record has no end".to_owned()));
            }
            match self.body.frame().await {
                None if self.read.is_empty() => return Ok(None),
                None => return Err(Error::Broken("the last record is cut off".to_owned())),
                Some(Ok(frame)) => self.read.extend(frame.into_data().ok()),
                Some(Err(error)) => return Err(Error::Broken(error.to_string())),
            }
        }
    }
}
