//! Golden vectors of the envelope, and what the rule makes of them.
