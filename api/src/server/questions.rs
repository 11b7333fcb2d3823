//! Questions over HTTP: the one way in which an address becomes a question, and a question its answer.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use axum::Router;
use axum::extract::{FromRequestParts, Query, RawPathParams, State};
use axum::handler::Handler;
use axum::response::Response;
use axum::routing::get;
use http::request::Parts;
use jiff::Zoned;
use jiff::tz::TimeZone;
use ledger::Ledger;
use ledger::execute::ClockTrouble;
use replay::Reader;
use replay::answer::RouterSilentStatus;
use schemas::Timestamp;
use schemas::break_glass::Unrecorded;
use schemas::policy::JudgementPolicy;
use tokio::sync::SemaphorePermit;
use workers::measures::{Asked, Measured};
use workers::traffic::Silence;

use super::peer::Caller;
use super::{Api, respond};
use crate::problem::{Code, Problem};
use crate::question::{self, Addressed, Answerer, ForEach, Question, address};

/// Returns the routes of every question whose answer is sent whole.
pub(super) fn whole() -> Router<Arc<Api>> {
    struct Routes(Router<Arc<Api>>);

    impl ForEach for Routes {
        fn question<Q: Question>(&mut self) {
            self.0 = std::mem::take(&mut self.0).merge(at::<Q, _>(answer::<Q>));
        }
    }

    let mut routes = Routes(Router::new());
    question::for_each(&mut routes);
    routes.0
}

/// Returns the routes of a question that `handler` answers.
pub(super) fn at<Q: Addressed, T: 'static>(handler: impl Handler<T, Arc<Api>>) -> Router<Arc<Api>> {
    Q::PATHS.iter().fold(Router::new(), |router, path| router.route(path, get(handler.clone())))
}

async fn answer<Q: Question>(
    State(api): State<Arc<Api>>,
    _: Caller,
    FromAddress(question): FromAddress<Q>,
) -> Result<Response, Problem> {
    let _place = if question.is_long() { Some(place(&api).await?) } else { None };
    Ok(respond::json(&question.answer(&*api).await?))
}

/// Waits until a read that may fold the whole log may begin.
pub(super) async fn place(api: &Api) -> Result<SemaphorePermit<'_>, Problem> {
    api.long_reads.acquire().await.map_err(|_| Problem::new(Code::Halted, "this server is closing"))
}

/// A question, read from the request's address.
pub(super) struct FromAddress<Q>(pub(super) Q);

impl<Q: Addressed> FromRequestParts<Arc<Api>> for FromAddress<Q> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, Problem> {
        let path = RawPathParams::from_request_parts(parts, api).await;
        let path = path.map_err(|error| Problem::malformed(error.body_text()))?;
        let path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let query = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(query) = query.map_err(|error| Problem::malformed(error.body_text()))?;
        let now = Zoned::new(api.ledger.clock().now(), TimeZone::UTC);
        address::read(path, query, now).map(FromAddress)
    }
}

#[async_trait]
impl Answerer for Api {
    fn reader(&self) -> &Reader {
        &self.reader
    }

    fn data(&self) -> &Path {
        &self.data
    }

    fn ledger(&self) -> Option<&Ledger> {
        Some(&self.ledger)
    }

    fn unrecorded(&self) -> Vec<Unrecorded> {
        self.break_glass.iter().flat_map(|break_glass| break_glass.unrecorded()).collect()
    }

    fn clock_trouble(&self, _: Option<Timestamp>) -> Option<ClockTrouble> {
        self.ledger.clock_trouble()
    }

    fn silent_router(&self) -> Option<RouterSilentStatus> {
        let Silence { since, why } = self.outside.silence()?;
        let next = workers::traffic::proxy::process(&self.data).map(|process| format!("kill -9 {}", process.pid));
        Some(RouterSilentStatus { since, why, next })
    }

    async fn measured(&self, asked: &Asked, policy: &JudgementPolicy) -> Result<Measured, String> {
        self.outside.measured(&self.ledger, asked, policy).await
    }

    async fn measured_recently(&self, asked: &Asked, policy: &JudgementPolicy) -> Option<Measured> {
        self.outside.measured_recently(&self.ledger, asked, policy).await
    }
}
