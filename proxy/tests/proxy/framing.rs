//! Framing: where a message ends, for the node and for the user alike.

use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::stage::{BASELINE, Echo, Stage, get, read_until, reader, routes, serve_raw, talk, within};

const GET: &str = "GET / HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Returns what a user gets to `request` from a node that answers with `answer`, and how often the node was connected to.
async fn answered(stage: &Stage, generation: u64, request: &str, answer: &'static [u8]) -> String {
    let (node, _told) = reader(answer).await;
    let held = stage.apply(&routes(generation, &[node], &[], 0)).await;
    talk(held.listening, request.as_bytes()).await
}

#[tokio::test]
async fn an_answer_with_two_framings_reaches_the_user_whole_and_its_connection_is_not_used_again() {
    let stage = Stage::new().await;
    for (generation, answer) in [
        &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n6\r\nanswer\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n6\r\nanswer\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\nTransfer-Encoding: Chunked\r\n\r\n6\r\nanswer\r\n0\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let got = answered(&stage, generation as u64 + 1, GET, answer).await;
        assert!(got.starts_with("HTTP/1.1 200 ") && got.contains("\r\n6\r\nanswer\r\n0\r\n\r\n"), "{got}");
        assert!(!got.contains("content-length"), "{got}");
    }
    stage.seen(BASELINE, |seen| seen.counts().status_2xx == 3).await;

    let connections = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = connections.clone();
    let node = serve_raw(move |mut stream| {
        counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        async move {
            loop {
                read_until(&mut stream, "\r\n\r\n").await;
                let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n";
                stream.write_all(&[&head[..], b"2\r\nok\r\n0\r\n\r\n"].concat()).await.unwrap();
            }
        }
    })
    .await;
    let held = stage.apply(&routes(9, &[node], &[], 0)).await;
    for asked in 1..=3 {
        assert_eq!(get(held.listening).await, (StatusCode::OK, "ok".to_owned()));
        assert_eq!(connections.load(std::sync::atomic::Ordering::SeqCst), asked);
    }
}

#[tokio::test]
async fn an_answer_that_can_be_read_two_ways_is_a_502_and_its_failure() {
    let stage = Stage::new().await;
    let answers = [
        &b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nzip"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ];
    for (generation, answer) in answers.into_iter().enumerate() {
        let got = answered(&stage, generation as u64 + 1, GET, answer).await;
        assert!(got.starts_with("HTTP/1.1 502 "), "{}: {got}", String::from_utf8_lossy(answer));
    }
    let seen = stage.seen(BASELINE, |seen| seen.counts().failed == answers.len() as u64).await;
    assert_eq!(seen.counts().ended(), answers.len() as u64);
}

#[tokio::test]
async fn an_answer_of_http_1_0_reaches_a_user_of_1_1_with_an_end_that_shows() {
    let stage = Stage::new().await;
    let node = serve_raw(|mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nold").await.unwrap();
    })
    .await;
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let got = talk(held.listening, GET.as_bytes()).await;
    assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("\r\n\r\n3\r\nold\r\n0\r\n\r\n"), "{got}");
}

#[tokio::test]
async fn the_body_of_any_method_is_passed_on() {
    let (stage, (node, mut told)) = (Stage::new().await, reader(OK).await);
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "PROPFIND"] {
        let chunked =
            format!("{method} / HTTP/1.1\r\nhost: api\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
        let got = talk(held.listening, format!("{chunked}4\r\nbody\r\n0\r\n\r\n").as_bytes()).await;
        let read = told.recv().await.unwrap();
        assert!(
            got.starts_with("HTTP/1.1 200 ") && read.ends_with("\r\n\r\n4\r\nbody\r\n0\r\n\r\n"),
            "{method}: {read}"
        );
        assert!(read.contains("transfer-encoding: chunked") && !read.contains("content-length"), "{method}: {read}");

        let exact = format!("{method} / HTTP/1.1\r\nhost: api\r\nconnection: close\r\ncontent-length: 004\r\n\r\nbody");
        assert!(talk(held.listening, exact.as_bytes()).await.starts_with("HTTP/1.1 200 "));
        let read = told.recv().await.unwrap();
        assert!(read.contains("content-length: 4\r\n") && read.ends_with("\r\n\r\nbody"), "{method}: {read}");
    }
}

#[tokio::test]
async fn a_target_in_no_legal_form_is_a_400_and_reaches_no_node() {
    let (stage, (node, mut told)) = (Stage::new().await, reader(OK).await);
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let (mut asked, rest) = (0, "HTTP/1.1\r\nhost: api\r\nconnection: close\r\n\r\n");
    for target in [
        "api",
        "api:80",
        "*",
        "a/b",
        "?a=b",
        "/a#b",
        "/#",
        "#",
        "http://api/#b",
        "http://",
        "http:///a",
        "ftp://api/",
        "http://user@api/",
        "http://api:99999/",
        "http://a b/",
        "/\u{e9}",
        "/a\tb",
        "://a",
        "http:/a",
        "//#",
    ] {
        let got = talk(held.listening, format!("GET {target} {rest}").as_bytes()).await;
        assert!(got.starts_with("HTTP/1.1 400 "), "{target}: {got}");
        asked += 1;
    }
    // Behind others on one connection too.
    let two = format!("GET / HTTP/1.1\r\nhost: api\r\n\r\nGET /a#b {rest}");
    let got = talk(held.listening, two.as_bytes()).await;
    assert!(got.starts_with("HTTP/1.1 200 ") && got.contains("HTTP/1.1 400 "), "{got}");
    assert!(told.recv().await.unwrap().starts_with("GET / HTTP/1.1\r\n"));
    assert!(told.try_recv().is_err(), "no node saw any other");
    stage.refused(asked + 1).await;

    for (request, line) in
        [("OPTIONS *", "OPTIONS * HTTP/1.1"), ("GET HTTP://api/?q#".trim_end_matches('#'), "GET /?q HTTP/1.1")]
    {
        assert!(talk(held.listening, format!("{request} {rest}").as_bytes()).await.starts_with("HTTP/1.1 200 "));
        assert!(told.recv().await.unwrap().starts_with(line), "{request}");
    }
}

#[tokio::test]
async fn announced_trailers_pass_in_both_directions() {
    let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 2\r\nx-other: 1\r\n\r\n";
    let (stage, (node, mut told)) = (Stage::new().await, reader(answer).await);
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let head = "POST / HTTP/1.1\r\nhost: api\r\nconnection: close, te\r\nte: trailers\r\ntrailer: x-my, host\r\n";
    let body = "transfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\nx-my: 1\r\nhost: evil\r\n\r\n";
    let got = talk(held.listening, format!("{head}{body}").as_bytes()).await;
    assert!(got.contains("trailer: x-sum") && got.ends_with("\r\n2\r\nok\r\n0\r\nx-sum: 2\r\n\r\n"), "{got}");
    let read = told.recv().await.unwrap();
    assert!(read.contains("te: trailers") && read.ends_with("\r\n4\r\nbody\r\n0\r\nx-my: 1\r\n\r\n"), "{read}");

    let got = talk(held.listening, GET.as_bytes()).await;
    assert!(got.ends_with("\r\n2\r\nok\r\n0\r\n\r\n"), "a user who takes no trailers gets none: {got}");
    told.recv().await.unwrap();
    stage.seen(BASELINE, |seen| seen.counts().status_2xx == 2 && seen.counts().ended() == 2).await;
}

#[tokio::test]
async fn early_hints_reach_the_user_before_the_answer() {
    let stage = Stage::new().await;
    let (hinted, go) =
        (std::sync::Arc::new(tokio::sync::Notify::new()), std::sync::Arc::new(tokio::sync::Notify::new()));
    let (tell, wait) = (hinted.clone(), go.clone());
    let node = serve_raw(move |mut stream| {
        let (tell, wait) = (tell.clone(), wait.clone());
        async move {
            while let Ok(1..) = stream.peek(&mut [0]).await {
                let read = read_until(&mut stream, "\r\n\r\n").await;
                if read.starts_with("POST") {
                    read_until(&mut stream, "body").await;
                }
                let hints = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n";
                stream.write_all(hints).await.unwrap();
                tell.notify_one();
                wait.notified().await;
                stream.write_all(OK).await.unwrap();
            }
        }
    })
    .await;
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    let mut user = TcpStream::connect(held.listening).await.unwrap();
    for request in
        ["GET / HTTP/1.1\r\nhost: api\r\n\r\n", "POST / HTTP/1.1\r\nhost: api\r\ncontent-length: 4\r\n\r\nbody"]
    {
        user.write_all(request.as_bytes()).await.unwrap();
        let hints = read_until(&mut user, "\r\n\r\n").await;
        assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
        hinted.notified().await;
        go.notify_one();
        let answer = read_until(&mut user, "\r\n\r\nok").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    go.notify_one();
    let answer = talk(held.listening, b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 "), "a user of HTTP/1.0 knows no hints: {answer}");
}

#[tokio::test]
async fn what_follows_an_answer_without_a_body_is_nobodys_answer() {
    let stage = Stage::new().await;
    let node = serve_raw(|mut stream| async move {
        read_until(&mut stream, "\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 204 No Content\r\ncontent-length: 80\r\n\r\n").await.unwrap();
        // By now the connection would lie ready for the next request.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged").await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    })
    .await;
    let held = stage.apply(&routes(1, &[node], &[], 0)).await;
    for _ in 0..5 {
        let (status, body) = within("the user is answered", get(held.listening)).await;
        assert_eq!((status, body.as_str()), (StatusCode::NO_CONTENT, ""));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await; // not all five in the node's 50 ms
    }
    let node = Echo::new("well").await;
    let held = stage.apply(&routes(2, &[node.address], &[], 0)).await;
    assert_eq!(get(held.listening).await.1, "well");
}
