//! A terminal of a certain size, and what is on its screen: `script` makes one.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::running::PATIENCE;
use support::binary::ionledger;
use support::process::ended;

/// The binary on a terminal.
pub struct Terminal {
    child: Child,
    keys: Option<ChildStdin>,
    parser: Arc<Mutex<vt100::Parser>>,
    reader: JoinHandle<()>,
}

impl Terminal {
    /// Runs the binary with a sentence of plain words on a terminal of so many rows and columns.
    pub fn run(rows: u16, columns: u16, data: &Path, sentence: &str) -> Self {
        let binary = ionledger();
        let program = binary.get_program().to_str().unwrap();
        let line = format!("stty rows {rows} cols {columns}; exec {program} {sentence}");
        let mut script = std::process::Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env("IONLEDGER_DATA", data).env("SHELL", "/bin/sh");
        script.env("TERM", "xterm-256color").env_remove("NO_COLOR");
        let mut child =
            script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("`script` of util-linux runs");
        let (keys, mut out) = (child.stdin.take(), child.stdout.take().unwrap());
        let parser = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 1_000)));
        let seen = Arc::clone(&parser);
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = out.read(&mut bytes) {
                seen.lock().unwrap().process(&bytes[..read]);
            }
        });
        Self { child, keys, parser, reader }
    }

    /// Returns what is on the screen.
    pub fn screen(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    /// Waits until the screen is as `is` wants it, and returns it.
    #[track_caller]
    pub fn until(&self, what: &str, is: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if is(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "never: {what}\n{screen}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Presses keys.
    pub fn press(&mut self, keys: &str) {
        self.keys.as_mut().unwrap().write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the binary's end, and returns its exit code and what it left on the screen.
    pub fn ended(mut self) -> (i32, String) {
        let code = ended(&mut self.child).code().unwrap();
        // The last bytes may still be on their way: the reader ends behind them.
        let deadline = Instant::now() + PATIENCE;
        while !self.reader.is_finished() {
            assert!(Instant::now() < deadline, "the terminal stays open: {}", self.screen());
            std::thread::sleep(Duration::from_millis(5));
        }
        (code, self.screen())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
