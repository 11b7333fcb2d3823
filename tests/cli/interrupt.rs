//! Ctrl-C: it ends a command that is being sent at once, and of one that waits it ends the wait alone.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use support::binary::ionledger;
use support::process::{ended, lines};

/// How long anything may take before a test gives it up.
const PATIENCE: Duration = Duration::from_secs(30);

const SENDS: &str = "POST /v1/commands";

/// What looks like a running ledger: it tells the test the first line of every request, and answers none, or only commands.
struct Ledger {
    folder: tempfile::TempDir,
    asked: Receiver<String>,
}

impl Ledger {
    fn new(answers_commands: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixListener::bind(folder.path().join("api.sock")).unwrap();
        let (tell, asked) = channel();
        std::thread::spawn(move || {
            for caller in socket.incoming().map_while(Result::ok) {
                let tell = tell.clone();
                std::thread::spawn(move || hear(caller, &tell, answers_commands));
            }
        });
        Self { folder, asked }
    }

    fn run(&self, sentence: &str) -> Child {
        let mut command = ionledger();
        command.env("IONLEDGER_DATA", self.folder.path()).args(sentence.split_whitespace());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Waits for a request that begins so.
    #[track_caller]
    fn until_asked(&self, begins: &str) {
        loop {
            let asked = self.asked.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("never: {begins}"));
            if asked.starts_with(begins) {
                return;
            }
        }
    }
}

/// Hears requests on a connection. It stays open until the caller closes it.
fn hear(caller: UnixStream, tell: &Sender<String>, answers_commands: bool) {
    for line in BufReader::new(caller.try_clone().unwrap()).lines().map_while(Result::ok) {
        if answers_commands && line.starts_with(SENDS) {
            let answer = r#"{"commit":null,"offset":null,"events":[],"notes":[],"repeated":false,"applied":null}"#;
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json";
            let _ = write!(&caller, "{head}\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
        }
        let _ = tell.send(line);
    }
}

fn interrupt(child: &Child) {
    kill_process(Pid::from_raw(child.id().try_into().unwrap()).unwrap(), Signal::INT).unwrap();
}

#[test]
fn a_command_that_is_being_sent_is_ended_by_ctrl_c_also_with_wait() {
    let commands = [
        "new api 1.0.0 --wait",
        "new api 1.0.0 --roll 1h --wait",
        "renew api --wait",
        "roll api 1.0.0 1.1.0 1 hour --wait",
        "rollback api --wait",
    ];
    for sentence in commands {
        let ledger = Ledger::new(false);
        let mut child = ledger.run(sentence);
        ledger.until_asked(SENDS);
        interrupt(&child);
        let ended = ended(&mut child);
        assert_eq!(ended.signal(), Some(Signal::INT.as_raw()), "{sentence}: {ended}");
    }
}

#[test]
fn a_wait_is_ended_by_ctrl_c_also_while_the_ledger_gives_no_answer() {
    let ledger = Ledger::new(true);
    let mut child = ledger.run("roll api 1.0.0 1.1.0 1 hour --wait");
    ledger.until_asked(SENDS);
    ledger.until_asked("GET /v1/ledger");
    interrupt(&child);
    let said: Vec<String> = lines(child.stderr.take().unwrap()).collect();
    assert_eq!(ended(&mut child).code(), Some(8), "{said:?}");
    let last = said.last().expect("it says how it ended");
    assert!(last.ends_with("it goes on, look with `ionledger status api -w`"), "{last}");
}
