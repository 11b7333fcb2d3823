//! Our proxy beside HAProxy, on the same raw requests and answers: a table of both, with the reason of every difference.
//!
//! A line of `haproxy/requests.tsv` is a request as its user sends it, what came of it with us and with HAProxy 2.6 (`=`: the
//! same), and the letter of the reason. `200 < GET /a @api "body"` is the status that the user got, and the message that the node
//! got, if it got a whole one: method, target, host, headers that begin with `x`, body, trailers. A line of
//! `haproxy/answers.tsv` is an answer as the node sends it, and what the user got of it: interim statuses, status, headers that
//! begin with `x`, body; `cut` if it broke off and shows it. The reasons are in `haproxy/reasons.tsv`. A number in braces repeats: `{a*3}` is `aaa`, `{X: 1^3}` three lines.
//!
//! `UPDATE_TABLE=1` writes the columns anew and leaves the reasons to you.

mod peer;
mod strict;
mod table;

use peer::{HaProxy, Recorder, Script, Socket, ask, exchange};
use table::{Row, Table};

use crate::stage::{Stage, routes, within};

/// Starts HAProxy before `node`, or says why the test is left out.
fn haproxy(node: std::net::SocketAddr) -> Option<HaProxy> {
    match HaProxy::start(node) {
        Ok(haproxy) => Some(haproxy),
        Err(why) => {
            eprintln!("SKIPPED: {why}; install haproxy to run this");
            assert!(std::env::var("CI").as_deref() != Ok("true"), "HAProxy belongs to what CI has");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_have_one_reading_and_every_difference_from_haproxy_its_reason() {
    let node = Recorder::start().await;
    let (stage, ours_node) = (Stage::new().await, Recorder::start().await);
    let held = stage.apply(&routes(1, &[ours_node.address()], &[], 0)).await;
    let haproxy = haproxy(node.address());
    let mut table = Table::read("requests.tsv");
    let mut doubts = Vec::new();
    for row in &mut table.rows {
        let raw = row.raw();
        let answer = exchange(&Socket::Tcp(held.listening), &raw).await;
        let seen = ours_node.seen().await;
        doubts.extend(doubts_of_request(row, &raw, &answer, &seen));
        row.ours.now(request_outcome(&answer, &seen));
        if let Some(haproxy) = &haproxy {
            let answer = exchange(&haproxy.socket, &raw).await;
            row.theirs.now(first_outcome(&answer, &node.seen().await));
        }
    }
    table.save_if_asked();
    assert!(doubts.is_empty(), "{}", doubts.join("\n"));
    table.check(haproxy.is_some_and(|haproxy| haproxy.is_the_tables()));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_one_reading_and_every_difference_from_haproxy_its_reason() {
    let node = Script::start().await;
    let (stage, ours_node) = (Stage::new().await, Script::start().await);
    let held = stage.apply(&routes(1, &[ours_node.address()], &[], 0)).await;
    let haproxy = haproxy(node.address());
    let mut table = Table::read("answers.tsv");
    let mut doubts = Vec::new();
    for row in &mut table.rows {
        let raw = row.raw();
        let outcome = answer_outcome(row, &raw, &ours_node, &Socket::Tcp(held.listening), &mut doubts).await;
        row.ours.now(outcome);
        if let Some(haproxy) = &haproxy {
            let outcome = answer_outcome(row, &raw, &node, &haproxy.socket, &mut Vec::new()).await;
            row.theirs.now(outcome);
        }
    }
    table.save_if_asked();
    assert!(doubts.is_empty(), "{}", doubts.join("\n"));
    table.check(haproxy.is_some_and(|haproxy| haproxy.is_the_tables()));
}

/// Returns what the next user gets. A connection that the node closes at that moment is a 502, which says nothing.
async fn next(socket: &Socket) -> strict::Answer {
    for _ in 0..9 {
        let request = b"GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n";
        let answer = strict::answer(&ask(socket, request).await, false);
        if answer.status != "502" {
            return answer;
        }
    }
    panic!("the node does not answer any more");
}

/// What came of the first message: whether HAProxy goes on to the next of a user who has half-closed is a race.
fn first_outcome(answer: &[u8], seen: &[strict::Seen]) -> String {
    let text = String::from_utf8_lossy(answer);
    let first = text.match_indices("HTTP/1.").find(|(at, _)| !text[*at..].starts_with("HTTP/1.1 1"));
    let next = first.and_then(|(at, _)| text[at + 1..].find("HTTP/1.").map(|next| at + 1 + next));
    request_outcome(&text.as_bytes()[..next.unwrap_or(text.len())], &seen[..seen.len().min(1)])
}

fn request_outcome(answer: &[u8], seen: &[strict::Seen]) -> String {
    // Whether the user or the node was first to give up on what is bad is a race.
    let is_bad = seen.iter().any(|seen| matches!(seen, strict::Seen::Bad(_)));
    let statuses = if is_bad { "?".to_owned() } else { strict::statuses(answer).join(" ") };
    let seen: Vec<String> = seen.iter().map(ToString::to_string).collect();
    match (statuses.is_empty(), seen.is_empty()) {
        (true, true) => "-".to_owned(),
        (_, true) => statuses,
        (true, false) => format!("- < {}", seen.join(" ; ")),
        (false, false) => format!("{statuses} < {}", seen.join(" ; ")),
    }
}

/// What must never be seen of our proxy: a message that can be read in two ways, and a user told that all is well while the
/// node got something else.
fn doubts_of_request(row: &Row, raw: &[u8], answer: &[u8], seen: &[strict::Seen]) -> Vec<String> {
    let mut doubts = Vec::new();
    let mut doubt = |why: String| doubts.push(format!("{}: {why}", row.text));
    if let Some(strict::Seen::Bad(why)) = seen.iter().find(|seen| matches!(seen, strict::Seen::Bad(_))) {
        doubt(format!("the node got what can be read in two ways: {why}"));
    }
    let answered = strict::statuses(answer).iter().filter(|status| *status == "200").count();
    let whole: Vec<_> = seen.iter().filter_map(strict::Seen::message).collect();
    if answered > whole.len() {
        doubt(format!("{answered} are well, and the node got {}", whole.len()));
    }
    if let (Ok(Some((asked, length))), [got], 1) = (strict::request(raw), &whole[..], answered)
        && length == raw.len()
        && (asked.body != got.body || asked.own() != got.own())
    {
        doubt(format!("asked for {asked}, the node got {got}"));
    }
    doubts
}

async fn answer_outcome(row: &Row, raw: &[u8], node: &Script, socket: &Socket, doubts: &mut Vec<String>) -> String {
    let mut doubt = |why: String| doubts.push(format!("{}: {why}", row.text));
    let is_head = row.method() == "HEAD";
    node.say(raw).await;
    let request = format!("{} / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n", row.method());
    let got = within("the node is asked", async {
        loop {
            let got = strict::answer(&ask(socket, request.as_bytes()).await, is_head);
            // It may have been sent on a connection that the node had just closed.
            if node.has_said() || got.status != "502" {
                return got;
            }
        }
    })
    .await;
    let next = next(socket).await;
    let sent = strict::answer(raw, is_head);
    if next.body != b"next" {
        doubt(format!("the next user got {next}"));
    }
    let is_nodes = got.status == sent.status;
    if got.is_open_ended {
        doubt(format!("{got} ends with the connection, so that one that breaks off would look whole"));
    }
    // What is not strict and passes has one meaning all the same; every row's body is `hello`.
    let is_same = if sent.is_loose { got.body == b"hello" } else { !sent.is_cut && sent.body == got.body };
    if is_nodes && !got.is_cut && !is_same {
        doubt(format!("the node sent {sent}, the user got {got}"));
    }
    got.to_string()
}
