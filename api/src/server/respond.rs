//! Bodies in and out, and the task that each request runs in.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::task::AbortOnDropHandle;

use super::Api;
use crate::json;
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
        Err(error) => Problem::new(Code::Internal, format!("the answer is not valid JSON: {error}")).into_response(),
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
    query.map(|Query(query)| query).map_err(|error| Problem::malformed(told_of_address("query", &error.body_text())))
}

/// Returns what the address's path says, or what is wrong with it.
pub(super) fn path<T>(path: Result<Path<T>, PathRejection>) -> Result<T, Problem> {
    path.map(|Path(path)| path).map_err(|error| Problem::malformed(told_of_address("path", &error.body_text())))
}

/// Returns what is wrong with the query or the path of an address: the parameter, and why.
fn told_of_address(part: &str, text: &str) -> String {
    let own = ["Failed to deserialize query string: ", "Failed to deserialize query string", "Invalid URL: "];
    let text = own.iter().find_map(|own| text.strip_prefix(own)).unwrap_or(text);
    let (name, reason) = match text.split_once(": ") {
        Some((name, reason)) if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
            (format!("`{name}`: "), reason)
        }
        _ => (String::new(), text),
    };
    let reason = match reason {
        "invalid digit found in string" | "cannot parse integer from empty string" => "it must be a whole number",
        "provided string was not `true` or `false`" => "it must be true or false",
        other => other,
    };
    format!("the address's {part} is not what is expected: {name}{}", json::plain(reason))
}

/// Reads JSON, and says where it is wrong.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| {
        // The values of a request may be secrets that do not belong there: at most the one that is wrong is repeated.
        let shown: String = json::describe::<T>(bytes, &error).chars().take(300).collect();
        Problem::malformed(format!("unexpected body: {shown}"))
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
            Problem::new(Code::Internal, "this request hit a bug in ionledger; see the log of ionledger")
                .into_response()
        }
    }
}

/// How much of a body that nobody reads is taken before its request is refused, and for how long it is waited for. A connection that
/// is closed with more to read breaks under its caller, who then never sees the answer.
const DRAIN_BYTES_MAX: usize = 1024 * 1024;
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Takes the rest of a body before its request is refused.
pub(super) async fn drained(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    // Who waits for `100 Continue` sends nothing that could be in the way.
    let waits = head.headers.contains_key(EXPECT);
    let rest = Rest(Arc::new(Mutex::new(body)));
    let response = next.run(Request::from_parts(head, Body::new(rest.clone()))).await;
    let is_short = rest.size_hint().lower() <= DRAIN_BYTES_MAX as u64;
    let refused = !response.status().is_success() && response.status() != http::StatusCode::REQUEST_TIMEOUT;
    if refused && !waits && is_short && !rest.is_end_stream() {
        let taken = Limited::new(rest, DRAIN_BYTES_MAX).collect();
        let _ = tokio::time::timeout(DRAIN_MAX, taken).await; // what is not taken by then is left
    }
    response
}

/// A body that can be read on when the one who read it has gone.
#[derive(Clone)]
struct Rest(Arc<Mutex<Body>>);

impl Rest {
    fn body(&self) -> MutexGuard<'_, Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Rest {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut *self.body()).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body().size_hint()
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

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::post;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;

    use super::*;
    use crate::parts::Parts;

    #[tokio::test]
    async fn a_refused_request_is_answered_once_its_body_was_taken() {
        let refuse = || async { Problem::new(Code::Unauthenticated, "no") };
        let router = Router::new().route("/", post(refuse)).layer(axum::middleware::from_fn(drained));
        let (sender, parts) = Parts::channel();
        let sending = tokio::spawn(async move {
            for _ in 0..100 {
                if sender.send(Ok(Bytes::from_static(&[0; 1024]))).await.is_err() {
                    return false;
                }
            }
            true
        });
        let request = http::Request::post("/").body(Body::new(parts)).unwrap();
        let answer = TowerToHyperService::new(router).call(request).await.unwrap();
        assert_eq!(answer.status(), http::StatusCode::UNAUTHORIZED);
        assert!(sending.await.unwrap(), "the connection would break under who sends");
    }

    #[test]
    fn a_wrong_parameter_is_named_in_plain_words() {
        let told = |text: &str| told_of_address("query", text);
        let first = "the address's query is not what is expected: ";
        assert_eq!(
            told("Failed to deserialize query string: wait_ms: invalid digit found in string"),
            format!("{first}`wait_ms`: it must be a whole number")
        );
        let missing = told("Failed to deserialize query string: missing field `name`");
        assert_eq!(missing, format!("{first}missing field `name`"));
    }
}
