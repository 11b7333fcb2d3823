//! Probing: what listens where brokers should, told apart in a few seconds. The client library tries for ever, and says of
//! all of them that it cannot connect.

use std::time::Duration;

use futures::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::place::KafkaAddress;
use super::security::{Sasl, Security};

/// How long brokers may take before anything is probed: those that are well need less.
const GRACE: Duration = Duration::from_millis(500);

/// How long each of these may take: a name to resolve, a connection to be made, an answer to come.
const STEP_MAX: Duration = Duration::from_millis(600);

/// The number by which an answer is known to be to our question.
const CORRELATION: [u8; 4] = *b"ionl";

/// What listens at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    /// A broker; with the mechanisms by which it wants clients to log in, if it does.
    Broker(Option<Vec<String>>),
    /// Something that speaks TLS.
    Tls,
    /// Something that speaks HTTP.
    Http,
    /// Something else that speaks.
    Other,
    /// The name does not resolve.
    NoName(String),
    /// Nothing that answers: it may still be starting.
    Nothing,
}

/// Waits until it is certain that nothing at `place` is a broker as the settings have it, and returns the first such address
/// with what is wrong there and what to do. Otherwise it never returns.
pub(super) async fn stranger(place: &KafkaAddress, security: &Security) -> (String, String, String) {
    tokio::time::sleep(GRACE).await;
    match wrong(place, security, STEP_MAX).await {
        Some(wrong) => wrong,
        None => std::future::pending().await,
    }
}

/// Returns what [`stranger`] does, or nothing if something may be right.
async fn wrong(place: &KafkaAddress, security: &Security, step_max: Duration) -> Option<(String, String, String)> {
    let servers: Vec<&str> = place.servers().split(',').collect();
    let found = join_all(servers.iter().map(|server| look(server, security.tls.is_some(), step_max))).await;
    let wrong: Option<Vec<_>> = found.iter().map(|found| verdict(found, security)).collect();
    let (what, next) = wrong?.into_iter().next()?;
    Some((servers.first()?.to_string(), what, next))
}

/// Says what is wrong with what was found, and what to do; nothing if it may be right.
fn verdict(found: &Found, security: &Security) -> Option<(String, String)> {
    let wrong = |what: &str, next: &str| Some((what.to_owned(), next.to_owned()));
    match (found, &security.tls, &security.sasl) {
        (Found::Nothing, ..) | (Found::Tls, Some(_), _) | (Found::Broker(None), None, None) => None,
        (Found::NoName(why), ..) => Some((
            format!("is a name that does not resolve ({why})"),
            "check how it is written, and the names that this machine knows".to_owned(),
        )),
        (Found::Http, ..) => wrong("speaks HTTP and not Kafka", "name a listener of the brokers"),
        (Found::Other, ..) => wrong("speaks, but not Kafka", "name a listener of the brokers"),
        (Found::Tls, None, _) => wrong("speaks TLS", "set `protocol` to ssl or sasl_ssl in the settings of Kafka"),
        (Found::Broker(_), Some(_), _) => {
            wrong("speaks no TLS", "set `protocol` to plaintext or sasl_plaintext in the settings of Kafka")
        }
        (Found::Broker(Some(mechanisms)), None, None) => Some((
            format!("wants a login ({})", mechanisms.join(", ")),
            "set `protocol`, `sasl_mechanism`, `username` and a password in the settings of Kafka".to_owned(),
        )),
        (Found::Broker(Some(mechanisms)), None, Some(Sasl { mechanism, .. })) => {
            let is_known = mechanisms.iter().any(|known| known == mechanism.name());
            (!is_known).then(|| {
                let mechanisms = mechanisms.join(", ");
                (
                    format!("knows no login by {}, but by {mechanisms}", mechanism.name()),
                    "set `sasl_mechanism` in the settings of Kafka".to_owned(),
                )
            })
        }
        (Found::Broker(None), None, Some(_)) => {
            wrong("asks for no login", "set `protocol` to plaintext in the settings of Kafka")
        }
    }
}

/// Looks what listens at `server`.
async fn look(server: &str, tls_first: bool, step_max: Duration) -> Found {
    match timeout(step_max, tokio::net::lookup_host(server)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Found::NoName(error.to_string()),
        Err(_) => return Found::Nothing,
    }
    let questions: [&[u8]; 3] = [&hello(), &handshake(), b"GET / HTTP/1.0\r\n\r\n"];
    let order = if tls_first { [0, 1, 2] } else { [1, 0, 2] };
    let mut spoke = false;
    for at in order {
        let said = ask(server, questions[at], step_max).await;
        match known(&said) {
            Some(found) => return found,
            None => spoke |= !said.is_empty(),
        }
    }
    if spoke { Found::Other } else { Found::Nothing }
}

/// Returns what is told by an answer.
fn known(said: &[u8]) -> Option<Found> {
    match said {
        [b'H', b'T', b'T', b'P', b'/', ..] => Some(Found::Http),
        // A handshake, or an alert.
        [0x15 | 0x16, 0x03, ..] => Some(Found::Tls),
        _ => mechanisms(said).map(Found::Broker),
    }
}

/// Asks in a connection of its own and returns the first that is said; nothing if nothing is.
async fn ask(server: &str, question: &[u8], step_max: Duration) -> Vec<u8> {
    let asking = async {
        let mut stream = timeout(step_max, TcpStream::connect(server)).await.ok()?.ok()?;
        stream.write_all(question).await.ok()?;
        let mut said = vec![0; 1_024];
        let length = timeout(step_max, stream.read(&mut said)).await.ok()?.ok()?;
        said.truncate(length);
        Some(said)
    };
    asking.await.unwrap_or_default()
}

/// A SaslHandshake request, version 1: every broker answers it, also before a login. Source: the Kafka protocol, API key 17.
fn handshake() -> Vec<u8> {
    let (client, mechanism) = (b"ionledger", b"PLAIN");
    let mut body = vec![0, 17, 0, 1];
    body.extend(CORRELATION);
    for text in [&client[..], mechanism] {
        body.extend(u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
        body.extend(text);
    }
    let length = u32::try_from(body.len()).unwrap_or(0).to_be_bytes();
    [&length[..], &body].concat()
}

/// Reads a broker's answer to [`handshake`]: the mechanisms that it logs clients in by, none if it asks for no login, and
/// nothing if it is no such answer.
fn mechanisms(said: &[u8]) -> Option<Option<Vec<String>>> {
    /// It does not expect a login here. Source: the Kafka protocol, error codes.
    const ILLEGAL_SASL_STATE: u16 = 34;
    let (_, rest) = said.split_first_chunk::<4>()?;
    let (correlation, rest) = rest.split_first_chunk::<4>()?;
    let (code, rest) = rest.split_first_chunk::<2>()?;
    if *correlation != CORRELATION {
        return None;
    }
    if u16::from_be_bytes(*code) == ILLEGAL_SASL_STATE {
        return Some(None);
    }
    let (_, mut rest) = rest.split_first_chunk::<4>()?;
    let mut names = Vec::new();
    while let Some((length, more)) = rest.split_first_chunk::<2>()
        && let Some((name, more)) = more.split_at_checked(usize::from(u16::from_be_bytes(*length)))
    {
        names.push(String::from_utf8_lossy(name).into_owned());
        rest = more;
    }
    Some(Some(names))
}

/// The beginning of a TLS 1.2 handshake: what speaks TLS answers it, with a handshake or an alert. Source: RFC 5246, 7.4.1.2.
fn hello() -> Vec<u8> {
    let mut body = vec![0x03, 0x03];
    body.extend([0x69; 32]); // random, of which nothing hangs on here
    body.push(0); // no session
    body.extend([0, 4, 0xc0, 0x2f, 0x13, 0x01]); // two suites that everybody has heard of
    body.extend([1, 0]); // no compression
    let length = |bytes: &[u8]| u16::try_from(bytes.len()).unwrap_or(0).to_be_bytes();
    let handshake = [&[1, 0][..], &length(&body), &body].concat();
    [&[0x16, 0x03, 0x01][..], &length(&handshake), &handshake].concat()
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::security::{Mechanism, Secret, Tls};
    use super::*;

    /// Listens and answers every connection's first bytes by `answer`.
    async fn listening(answer: fn(&[u8]) -> Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut asked = vec![0; 1_024];
                    let length = stream.read(&mut asked).await.unwrap_or(0);
                    let _ = stream.write_all(&answer(&asked[..length])).await;
                });
            }
        });
        address
    }

    fn broker(asked: &[u8], code: u8, names: &[&str]) -> Vec<u8> {
        let Some(correlation) = asked.get(8..12).filter(|_| asked.starts_with(&[0, 0]) && asked[5] == 17) else {
            return vec![];
        };
        let mut body = [correlation, &[0, code, 0, 0, 0, names.len() as u8]].concat();
        for name in names {
            body.extend([0, name.len() as u8]);
            body.extend(name.as_bytes());
        }
        [&(body.len() as u32).to_be_bytes()[..], &body].concat()
    }

    fn plain(asked: &[u8]) -> Vec<u8> {
        broker(asked, 34, &[])
    }

    fn with_login(asked: &[u8]) -> Vec<u8> {
        broker(asked, 33, &["SCRAM-SHA-512"])
    }

    fn tls(asked: &[u8]) -> Vec<u8> {
        if asked.starts_with(&[0x16, 3, 1]) { vec![0x15, 3, 3, 0, 2, 2, 40] } else { vec![] }
    }

    fn http(asked: &[u8]) -> Vec<u8> {
        if asked.ends_with(b"\r\n\r\n") { b"HTTP/1.0 404 Not Found\r\n\r\n".to_vec() } else { vec![] }
    }

    fn settings(tls: bool, mechanism: Option<Mechanism>) -> Security {
        let password = || Secret::new("hush");
        let sasl = mechanism.map(|mechanism| Sasl { mechanism, username: "u".to_owned(), password: password() });
        Security { tls: tls.then_some(Tls { ca_file: None, identity: None }), sasl }
    }

    async fn said(servers: &str, security: Security) -> Option<String> {
        let place: KafkaAddress = format!("kafka://{servers}").parse().unwrap();
        // Everything here answers or hangs up at once, however busy the machine is.
        let found = wrong(&place, &security, Duration::from_secs(60)).await;
        found.map(|(server, what, next)| format!("{server} {what}; {next}"))
    }

    #[tokio::test]
    async fn what_is_no_broker_as_the_settings_have_it_is_told_apart() {
        let [plain, login, tls, http] =
            [listening(plain).await, listening(with_login).await, listening(tls).await, listening(http).await];
        let ssh = listening(|_| b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()).await;
        let none = || settings(false, None);
        for (server, security, wanted) in [
            (&http, none(), "speaks HTTP and not Kafka; name a listener of the brokers"),
            (&tls, none(), "speaks TLS; set `protocol` to ssl or sasl_ssl"),
            (&login, none(), "wants a login (SCRAM-SHA-512); set `protocol`, `sasl_mechanism`, `username`"),
            (&login, settings(false, Some(Mechanism::Plain)), "knows no login by PLAIN, but by SCRAM-SHA-512"),
            (&plain, settings(false, Some(Mechanism::Plain)), "asks for no login; set `protocol` to plaintext"),
            (&plain, settings(true, None), "speaks no TLS; set `protocol` to plaintext"),
            (&http, settings(true, None), "speaks HTTP"),
            (&ssh, none(), "speaks, but not Kafka"),
        ] {
            let said = said(server, security).await.unwrap_or_else(|| panic!("{wanted}: nothing was said"));
            assert!(said.starts_with(&format!("{server} {wanted}")), "{said}");
        }
        let said = said("no-such-host.invalid:9092", none()).await.unwrap();
        assert!(said.contains("is a name that does not resolve"), "{said}");
    }

    #[tokio::test]
    async fn what_may_be_a_broker_or_become_one_is_waited_for() {
        let [plain, login, tls, http] =
            [listening(plain).await, listening(with_login).await, listening(tls).await, listening(http).await];
        let silent = listening(|_| vec![]).await;
        let gone = "127.0.0.1:1".to_owned();
        let some_right = format!("{http},{plain}");
        for (servers, security) in [
            (&plain, settings(false, None)),
            (&login, settings(false, Some(Mechanism::ScramSha512))),
            (&tls, settings(true, None)),
            (&silent, settings(false, None)),
            (&gone, settings(false, None)),
            (&some_right, settings(false, None)),
        ] {
            assert_eq!(said(servers, security).await, None);
        }
    }
}
