//! Which ports are offered where other programs have taken most.

use std::net::{Ipv4Addr, TcpListener};

use super::*;

/// Takes every port of a range but one, and returns the range, that port, and what holds the others.
fn all_taken_but_one(wide: u16) -> (u16, u16, u16, Vec<TcpListener>) {
    let take = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok();
    (20_000..32_000)
        .step_by(usize::from(wide))
        .find_map(|first| {
            let mut taken: Vec<TcpListener> = (first..first + wide).map_while(take).collect();
            let free = first + wide / 2;
            (taken.len() == usize::from(wide)).then(|| {
                taken.remove(usize::from(wide / 2));
                (first, first + wide - 1, free, taken)
            })
        })
        .expect("some ports in a row are free")
}

#[tokio::test]
async fn where_other_programs_have_taken_all_ports_but_one_that_one_is_offered() {
    let data = tempfile::tempdir().unwrap();
    let artifacts = Arc::new(Artifacts::open(data.path()).unwrap());
    let mut nodes = ProcessNodes::open(data.path(), PathBuf::from("/proc/self/exe"), artifacts).unwrap();
    let (first, last, free, taken) = all_taken_but_one(8);
    Arc::get_mut(&mut nodes.inner).unwrap().ports = Ports::within(first, last);
    for _ in 0..20 {
        assert_eq!(nodes.free_ports(32).await, Ok(vec![free]), "however many are asked for, and whoever was first");
    }
    let _last = TcpListener::bind((Ipv4Addr::LOCALHOST, free)).unwrap();
    let none = nodes.free_ports(32).await;
    assert!(matches!(&none, Err(Fault::Retryable(why)) if why.starts_with("no port is free")), "{none:?}");
    drop(taken);
}
