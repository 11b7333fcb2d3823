//! Bodies in and out, and the task that each request runs in.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::task::AbortOnDropHandle;

use super::Api;
use crate::problem::{self, Code, Problem};
use crate::wire;

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.code.status();
        let mut response = json(&problem::Body { error: self });
        *response.status_mut() = status;
        if status == http::StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Returns an answer with `value` as its body.
pub(super) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => ([(CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => Problem::new(Code::Internal, format!("the answer is no JSON: {error}")).into_response(),
    }
}

/// Reads a whole body of at most `max` bytes.
pub(super) async fn read(headers: &HeaderMap, body: Body, max: usize, within: Duration) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Code::TooLarge, format!("the body is longer than {max} bytes"));
    let announced = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > max as u64) {
        return Err(too_large());
    }
    let read = tokio::time::timeout(within, Limited::new(body, max).collect()).await;
    match read {
        Err(_) => Err(Problem::new(Code::Slow, format!("the body did not come within {} s", within.as_secs()))),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Problem::malformed(format!("the body ended early: {error}"))),
    }
}

/// Returns what the address's query says, or what is wrong with it.
pub(super) fn query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|error| Problem::malformed(error.body_text()))
}

/// Returns what the address's path says, or what is wrong with it.
pub(super) fn path<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Problem> {
    path.map(|Path(path)| path).map_err(|error| Problem::malformed(error.body_text()))
}

/// Reads JSON, and says where it is wrong.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        let text = error.to_string();
        // The values of a request may be secrets that do not belong there: serde repeats at most the one it dislikes.
        let shown: String = text.chars().take(300).collect();
        Problem::malformed(format!("the body is not what is expected: {shown}"))
    })
}

/// Carries a request out in a task of its own: its panic is an answer, and it goes on when its caller goes away, unless it is
/// only a question.
pub(super) async fn in_a_task(request: Request, next: Next) -> Response {
    let what = format!("{} {}", request.method(), request.uri().path());
    let is_question = request.method().is_safe();
    let task = tokio::spawn(next.run(request));
    let ended = if is_question { AbortOnDropHandle::new(task).await } else { task.await };
    match ended {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%what, %error, "a request ended in a bug");
            Problem::new(Code::Internal, "this request met a bug in ionledger; its log says more").into_response()
        }
    }
}

/// Says with every answer, whatever was asked, that this process follows the ledger no further.
pub(super) async fn with_halt(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    if let Some(why) = api.ledger.halted() {
        let line: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        if let Ok(value) = HeaderValue::from_bytes(line.as_bytes()) {
            response.headers_mut().insert(wire::HALTED, value);
        }
    }
    response
}
