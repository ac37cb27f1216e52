//! The engine against itself, against a plain reference and against other programs.
//!
//! One program for all of them: each would link the whole workspace again.

mod errors;
mod exactness;
mod golden;
mod llama_cpp;
mod panels;
mod reference;
mod support;
mod switch;
