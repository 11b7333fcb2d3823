//! Break glass over a log that falls silent and a router that keeps its rules: what moves, what is kept, what history says.

mod kills;
mod late;
mod moved;
mod outage;
mod shifter;
mod world;
