//! The proxy on real sockets: users, nodes and the control socket, in one process.

mod changes;
mod control;
mod exchanges;
mod framing;
mod haproxy;
mod partings;
mod shares;
mod stage;
mod starts;
mod users;
