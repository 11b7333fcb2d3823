//! A caller of the control socket, written from the protocol alone: what the proxy is told and what it says.

use std::path::PathBuf;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use proxy::Files;
use proxy::measures::Measures;
use proxy::routes::{Entry, HeldRoutes, Problem, Read, Routes, Status, Wanted};
use schemas::{DeploymentId, StreamVersion};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::stage::within;

/// Calls a proxy on its control socket.
pub(crate) struct Control(PathBuf);

/// Why a change was not made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// This younger generation is held.
    Superseded { held: StreamVersion },
    /// For another reason.
    Otherwise(String),
}

impl Control {
    pub(crate) fn of(files: &Files) -> Self {
        Self(files.control.clone())
    }

    pub(crate) async fn apply(&self, routes: &Routes) -> Result<HeldRoutes, Refused> {
        let (status, body) = self.call(Method::PUT, &path("routes", &routes.deployment), Some(routes)).await;
        changed(status, &body)
    }

    pub(crate) async fn remove(&self, id: &DeploymentId, generation: StreamVersion) -> Result<(), Refused> {
        let path = format!("{}?generation={generation}", path("routes", id));
        let (status, body) = self.call(Method::DELETE, &path, None::<&()>).await;
        changed::<serde_json::Value>(status, &body).map(drop)
    }

    pub(crate) async fn entry(&self, id: &DeploymentId) -> Option<Entry> {
        self.get(&path("routes", id)).await
    }

    pub(crate) async fn routes(&self, id: &DeploymentId) -> Option<HeldRoutes> {
        self.entry(id).await.and_then(|entry| entry.held().cloned())
    }

    pub(crate) async fn measures(&self, id: &DeploymentId) -> Option<Measures> {
        self.get(&path("measures", id)).await
    }

    pub(crate) async fn read(&self, wanted: &[Wanted]) -> Vec<Read> {
        let (status, body) = self.call(Method::POST, "/read", Some(&wanted)).await;
        assert_eq!(status, StatusCode::OK);
        serde_json::from_slice(&body).unwrap()
    }

    pub(crate) async fn status(&self) -> Status {
        self.get("/status").await.unwrap()
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Option<T> {
        let (status, body) = self.call(Method::GET, path, None::<&()>).await;
        assert!([StatusCode::OK, StatusCode::NOT_FOUND].contains(&status), "{path}: {status}");
        (status == StatusCode::OK).then(|| serde_json::from_slice(&body).unwrap())
    }

    async fn call(&self, method: Method, path: &str, body: Option<&impl Serialize>) -> (StatusCode, Bytes) {
        let body = body.map_or(Vec::new(), |body| serde_json::to_vec(body).unwrap());
        let request = Request::builder().method(method).uri(path).header("host", "proxy");
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        within("the control socket answers", async {
            let stream = UnixStream::connect(&self.0).await.unwrap();
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let answer = sender.send_request(request).await.unwrap();
            (answer.status(), answer.into_body().collect().await.unwrap().to_bytes())
        })
        .await
    }
}

fn changed<T: DeserializeOwned>(status: StatusCode, body: &[u8]) -> Result<T, Refused> {
    if status == StatusCode::OK {
        return Ok(serde_json::from_slice(body).unwrap());
    }
    assert!(status.is_client_error(), "{status}: {}", String::from_utf8_lossy(body));
    let Problem { error, superseded_by } = serde_json::from_slice(body).unwrap();
    Err(superseded_by.map_or(Refused::Otherwise(error), |held| Refused::Superseded { held }))
}

fn path(what: &str, id: &DeploymentId) -> String {
    format!("/{what}/{id}")
}
