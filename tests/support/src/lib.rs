//! What several tests share. A test names what it needs; nothing here asserts anything about the product by itself.
//!
//! Begin with [`installation`], a data folder with `ionledger up` on it, and [`binary`], one run of the command line. [`load`] is the users,
//! [`cluster`] a real Kafka, [`services`] the processes of a ledger in Kafka, [`prometheus`] a real Prometheus and a false one,
//! [`nodes`] nodes without a ledger, [`canary`] counts of canaries that others wrote, [`busy`] a made-up production. [`process`] waits for
//! any other process.
#![allow(clippy::missing_panics_doc, clippy::unwrap_used, clippy::expect_used)] // a test panics where it fails

pub mod binary;
pub mod busy;
pub mod canary;
pub mod cluster;
pub mod completion;
pub mod installation;
pub mod load;
pub mod nodes;
pub mod process;
pub mod prometheus;
pub mod services;

use std::sync::OnceLock;

/// The path of the program under test. Cargo builds it beside the folder that the tests lie in, before it runs them.
///
/// # Panics
///
/// If the path is not UTF-8.
pub fn program() -> &'static str {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows its own file");
        let folder = test.ancestors().nth(2).expect("tests lie in a folder of the target folder");
        folder.join("ionledger").into_os_string().into_string().expect("the target folder's path is UTF-8")
    })
}
