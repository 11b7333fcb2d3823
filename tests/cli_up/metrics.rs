//! What Prometheus reads of `up`: the ledger's figures and its proxy's, from one address.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

use super::running::{Up, answer, free_address};
use support::binary::{Run, say};

pub fn metrics(address: SocketAddr, token: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head =
        format!("GET /metrics HTTP/1.1\r\nhost: up\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn up_tells_what_its_proxy_measured() {
    let address = free_address();
    let up = Up::with(&["--listen", &address.to_string()]);
    let token = up.done("token create prometheus").stdout;
    let users = up.serving("1.0.0", "");
    (0..3).for_each(|_| drop(answer(users)));
    let text = metrics(address, token.trim());
    assert!(text.contains("ionledger_proxy_reachable 1"), "{text}");
    let counted = text.lines().find(|line| line.starts_with("ionledger_proxy_requests_total") && line.contains("2xx"));
    let counted = counted.unwrap_or_else(|| panic!("no requests: {text}"));
    assert!(counted.contains("version=\"1.0.0\"") && counted.ends_with(" 3"), "{counted}");
}

#[test]
fn a_source_of_measurements_that_cannot_be_reached_is_named_by_apply_and_roll_and_nothing_is_refused() {
    let up = Up::new();
    up.serving("1.0.0", "[judgement.prometheus]\naddress = \"http://127.0.0.1:1\"\n");
    up.ready("1.1.0", &[]);
    let file = up.beside("api.toml").display().to_string();
    let renewal = "renew api --roll --dry-run".to_owned();
    let roll = "roll api 1.0.0 1.1.0 1h".to_owned();
    for sentence in [format!("apply {file} --dry-run"), format!("apply {file}"), renewal, roll] {
        let told = up.done(&sentence).stderr;
        let note = told.lines().find(|line| line.contains("http://127.0.0.1:1 cannot be reached: "));
        let note = note.unwrap_or_else(|| panic!("{sentence}: {told}"));
        assert!(note.starts_with("note: ") && note.contains("start it, or correct the policy's address"), "{note}");
        assert!(note.ends_with("rollouts of api hold until it is fixed"), "{note}");
    }
    let data = up.data();
    let told = |doctor: Run| {
        assert_eq!(doctor.code, 1, "{doctor:?}");
        let line = doctor.stdout.lines().find(|line| line.starts_with("fail\tsource\t")).map(str::to_owned);
        let line = line.unwrap_or_else(|| panic!("{doctor:?}"));
        assert!(line.contains("\tapi: http://127.0.0.1:1 cannot be reached: "), "{line}");
        assert!(
            line.ends_with("\tstart it, or correct the policy's address; rollouts of api hold until it is fixed"),
            "{line}"
        );
    };
    told(say(&data, "doctor"));
    // Nor is `up` needed for it.
    let folder = up.kill();
    told(say(&data, "doctor"));
    Up::on(folder, &[]).end();
}
