//! `GET /v1/history`: the answer is streamed page by page, so that a long history needs no more memory than a short one.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use replay::HistoryQuery;
use replay::answer::HistoryAnswer;
use serde_json::json;
use tokio::sync::mpsc::Sender;

use super::Api;
use super::peer::Caller;
use super::questions::{self, FromAddress};
use crate::parts::{Part, Parts};
use crate::problem::Problem;
use crate::question::Question as _;

/// How many commits one answer holds at most. More are asked for with `before`.
pub const LIMIT_MAX: usize = 10_000;

/// How many commits are read at a time.
const PAGE: usize = 256;

/// About how much goes into a part of the body, in bytes.
const PART_BYTES: usize = 32 * 1024;

/// The pages that are still to be read and sent.
struct Telling {
    api: Arc<Api>,
    /// The rest, from where the last page ended.
    query: HistoryQuery,
    left: usize,
}

impl Telling {
    async fn page(&mut self) -> Result<HistoryAnswer, Problem> {
        let query = HistoryQuery { limit: Some(self.left.min(PAGE)), ..self.query.clone() };
        let page = {
            let _place = questions::place(&self.api).await?;
            query.answer(&*self.api).await?
        };
        self.left = self.left.saturating_sub(page.entries.len());
        self.query.before = page.entries.last().map(|entry| entry.offset).or(self.query.before);
        Ok(page)
    }

    /// Sends the body, as long as somebody takes it.
    async fn tell(mut self, mut page: HistoryAnswer, before: Vec<u8>, parts: Sender<Part>) {
        let mut part = before;
        let unrecorded = json!(page.unrecorded);
        let mut first = true;
        loop {
            for entry in &page.entries {
                if !first {
                    part.push(b',');
                }
                first = false;
                if serde_json::to_writer(&mut part, entry).is_err() {
                    return broken(&parts, "an entry is not valid JSON").await;
                }
                if part.len() >= PART_BYTES && parts.send(Ok(std::mem::take(&mut part).into())).await.is_err() {
                    return;
                }
            }
            if !page.more || self.left == 0 {
                break;
            }
            page = match self.page().await {
                Ok(page) => page,
                Err(problem) => return broken(&parts, &problem.message).await,
            };
        }
        part.extend(format!("],\"more\":{},\"unrecorded\":{unrecorded}}}", page.more).into_bytes());
        let _ = parts.send(Ok(Bytes::from(part))).await;
    }
}

/// Ends the body with an error, so that no client takes the part it has received for the whole answer.
async fn broken(parts: &Sender<Part>, why: &str) {
    tracing::warn!(why, "an answer broke off");
    let _ = parts.send(Err(io::Error::other(why.to_owned()))).await;
}

/// Answers a history of at most [`LIMIT_MAX`] commits.
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    _: Caller,
    FromAddress(query): FromAddress<HistoryQuery>,
) -> Result<Response, Problem> {
    let left = query.limit.unwrap_or(LIMIT_MAX);
    if !(1..=LIMIT_MAX).contains(&left) {
        let next = "go on with `before` and the last offset of the answer";
        return Err(Problem::malformed(format!("limit must be 1 to {LIMIT_MAX}; for more {next}")));
    }
    let mut telling = Telling { api, query, left };
    let page = telling.page().await?;
    let head = json!([page.schema_version, page.service, page.environment]);
    let before =
        format!("{{\"schema_version\":{},\"service\":{},\"environment\":{},\"entries\":[", head[0], head[1], head[2]);
    let (parts, body) = Parts::channel_of(2);
    tokio::spawn(telling.tell(page, before.into_bytes(), parts));
    Ok(([(CONTENT_TYPE, "application/json")], Body::new(body)).into_response())
}
