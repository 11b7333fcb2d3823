//! Bytes on a socket, as a client that is not ours sends them.

use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::world::DEADLINE;

/// An answer: its status and body.
#[derive(Debug)]
pub struct Raw {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Raw {
    /// Returns the error's code and exit code.
    pub fn error(&self) -> (String, u64) {
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"));
        let error = &body["error"];
        (error["code"].as_str().unwrap().to_owned(), error["exit"].as_u64().unwrap())
    }
}

/// Sends `bytes` to the data folder's socket and reads until the server closes.
pub async fn unix(data: &Path, bytes: &[u8]) -> Raw {
    let mut stream = UnixStream::connect(data.join("api.sock")).await.unwrap();
    let _ = stream.write_all(bytes).await; // the server may answer before it has read all
    let mut answer = vec![];
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    parse(&answer)
}

/// As [`unix`], on the calling thread, as the user that it is.
pub fn unix_now(data: &Path, bytes: &[u8]) -> Raw {
    use std::io::{Read as _, Write as _};
    let mut stream = std::os::unix::net::UnixStream::connect(data.join("api.sock")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let _ = stream.write_all(bytes);
    let mut answer = vec![];
    let _ = stream.read_to_end(&mut answer);
    parse(&answer)
}

/// Sends `bytes` to `address` and reads until the server closes.
pub async fn tcp(address: std::net::SocketAddr, bytes: &[u8]) -> Raw {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let mut answer = vec![];
    let _ = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
    parse(&answer)
}

/// Returns a request with a body and further header lines, each with its line break.
pub fn post(path: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

/// Returns a request without a body.
pub fn get(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

fn parse(answer: &[u8]) -> Raw {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Raw { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
}
