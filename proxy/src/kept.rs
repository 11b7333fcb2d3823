//! The routes that a proxy keeps on disk, brought up to date while none runs: the next one serves them from its first request on.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use super::{Files, disk};
use crate::routes::{Admission, Entry, HeldRoutes, Routes, admit};

/// Makes each of `wanted` what the next proxy of `data` serves, where it has other weights than are kept and a proxy that ran would
/// take it. Does nothing while a proxy runs. What was never served, or shall be on another address, is left to the proxy.
///
/// # Errors
///
/// The lock or the routes cannot be used; what was not written is served as soon as the proxy is told.
pub fn bring_up_to_date(data: &Path, wanted: Vec<Routes>) -> io::Result<()> {
    let files = Files::of(data);
    let lock = match File::options().append(true).open(&files.lock) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        lock => lock?,
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    for routes in wanted {
        let Some(entry) = disk::kept(&files.routes, &routes.deployment) else { continue };
        let Some(HeldRoutes { routes: held, listening }) = entry.held() else { continue };
        let stays = held.weights != routes.weights && routes.listen.is_none_or(|listen| listen == *listening);
        if stays && admit(Some(&entry), &routes) == Ok(Admission::Apply) {
            let (id, listening) = (routes.deployment.clone(), *listening);
            disk::store(&files.routes, &id, &Entry::Routed(HeldRoutes { routes, listening }))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::SocketAddr;

    use schemas::{DeploymentId, EffectId, StackId, StreamVersion, Weights};
    use uuid::Uuid;

    use super::*;
    use crate::routes::{Node, StackNodes, Timeouts};

    fn routes(generation: u64, stack: u128) -> Routes {
        let stack = StackId(Uuid::from_u128(stack));
        let node = Node { effect: EffectId(Uuid::from_u128(7)), address: SocketAddr::from(([127, 0, 0, 1], 81)) };
        Routes {
            deployment: "production/api".parse().unwrap(),
            generation: StreamVersion(generation),
            listen: None,
            weights: Weights::all_on(stack),
            backends: [(stack, StackNodes { version: "1.0.0".parse().unwrap(), nodes: vec![node] })].into(),
            timeouts: Timeouts::default(),
            nodes_only: false,
        }
    }

    #[test]
    fn the_next_proxy_serves_newer_weights_from_its_first_request_on() {
        let data = tempfile::tempdir().unwrap();
        let files = Files::of(data.path());
        let id: DeploymentId = "production/api".parse().unwrap();
        let kept = || disk::kept(&files.routes, &id).map(|entry| entry.generation().0);
        bring_up_to_date(data.path(), vec![routes(6, 2)]).unwrap();
        assert_eq!(kept(), None, "no proxy ever ran");
        fs::create_dir_all(&files.routes).unwrap();
        let lock = File::create(&files.lock).unwrap();
        let listening = SocketAddr::from(([127, 0, 0, 1], 80));
        disk::store(&files.routes, &id, &Entry::Routed(HeldRoutes { routes: routes(5, 1), listening })).unwrap();
        lock.lock().unwrap();
        bring_up_to_date(data.path(), vec![routes(6, 2)]).unwrap();
        assert_eq!(kept(), Some(5), "a proxy runs");
        drop(lock);
        bring_up_to_date(data.path(), vec![routes(4, 2)]).unwrap();
        assert_eq!(kept(), Some(5), "what is kept is newer");
        bring_up_to_date(data.path(), vec![routes(6, 2)]).unwrap();
        assert_eq!(kept(), Some(6));
        let held = disk::kept(&files.routes, &id).unwrap();
        assert_eq!(held.held().map(|held| held.listening), Some(listening), "users connect where they did");
    }
}
