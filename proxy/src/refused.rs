//! A request that is not passed on.

use http::StatusCode;

/// The status and the words of the answer in place of the node's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) StatusCode, pub(super) &'static str);
