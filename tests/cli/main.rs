//! The binary's manners, where nothing runs: help of every command, and one line for every mistake.

mod help;
mod interrupt;
mod mistakes;
mod streams;
