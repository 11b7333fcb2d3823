//! The binary's manners, where nothing runs: help of every command, and one line for every mistake.

mod cli {
    pub mod binary;
    pub mod completion;
    mod help;
    mod mistakes;
    mod streams;
}
