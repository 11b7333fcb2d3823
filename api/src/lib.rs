//! The API: the HTTP server over the ledger, its client, and the form in which people write a service down.
//!
//! Everything that writes goes through [`authorize`]; there is no other way in.
//!
//! Begin with [`wire`], which has what goes over it, and [`question`], which has every read. [`server`] has the routes, and [`client`]
//! asks what the server answers. [`definition`] reads what people write in a service's file, and names what is wrong in it.

pub mod json;
pub mod problem;
pub mod wire;

pub mod authorize;
pub mod ci;
pub mod definition;
pub mod document;
pub mod forecast;
pub mod moment;
pub mod question;
pub mod tokens;

mod parts;
pub mod telemetry;

pub mod client;
pub mod server;
pub mod ops;

pub use problem::{Code, Problem};
