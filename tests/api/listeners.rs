//! Listeners that stay open while one server of a process follows another.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use api::client::Client;
use api::question::StatusQuestion;
use api::server::{Api, Listeners, Server, reach_socket};
use replay::Reader;
use tokio::net::TcpStream;
use workers::artifacts::Artifacts;

use crate::world::World;

#[tokio::test]
async fn who_comes_between_two_servers_waits_for_the_second_and_is_answered() {
    let (world, data) = (World::open().await, tempfile::tempdir().unwrap());
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listeners = Listeners::open(data.path(), None, Some(any)).await.unwrap();
    let server = || {
        let reader = Arc::new(Reader::live(world.ledger.clone(), Arc::clone(&world.log) as _, None));
        let artifacts = Arc::new(Artifacts::open(data.path()).unwrap());
        let api = Api::new(world.ledger.clone(), reader, data.path(), artifacts);
        let closing = api.closing.clone();
        let server = Server::behind(Arc::new(api), &listeners).unwrap();
        let tcp = server.tcp_address().unwrap();
        (tokio::spawn(server.run()), closing, tcp)
    };
    let ask = || {
        let client = Client::of_data(data.path());
        async move { client.ask(&StatusQuestion::now(None, None)).await }
    };
    let (first, closing, tcp) = server();
    ask().await.unwrap();
    closing.cancel();
    first.await.unwrap();

    let asked = tokio::spawn(ask());
    assert!(reach_socket(data.path()).await.is_ok() && TcpStream::connect(tcp).await.is_ok(), "nobody is refused");
    // Nothing tells that a request waits in the kernel's queue. If the machine is slow, this shows less, and never fails for that.
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!asked.is_finished());
    let (second, closing, again) = server();
    asked.await.unwrap().unwrap();
    assert_eq!(again, tcp);
    closing.cancel();
    second.await.unwrap();
    drop(listeners);
    assert_eq!(reach_socket(data.path()).await.unwrap_err().kind(), io::ErrorKind::NotFound);
}
