//! The binary's manners, where nothing runs: help of every command, and one line for every mistake.

mod cli {
    pub mod binary;
    mod help;
    mod mistakes;
}
