//! The program, started as users start it.
//!
//! One program for all of them: each would link the whole workspace again.

mod bench;
mod budget;
mod data;
mod eval;
mod export;
mod heads;
mod pipeline;
mod program;
mod quantize;
mod rollouts;
mod serve;
mod shipped;
mod support;
mod switcher;
