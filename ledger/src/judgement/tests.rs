//! The judge as a whole: known verdicts, the theorem, and the awkward cases.

mod awkward;
mod analysis;
mod kit;
mod known;
mod nodes;
mod theorem;
mod evidence;
