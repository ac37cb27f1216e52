//! Training as its users see it: recipes, runs, and what they leave.
//!
//! One program for all of them: each would link the whole workspace again.

mod device;
mod grpo;
mod mock_server;
mod options;
mod plan;
mod process_group;
mod quantized;
mod recipes;
mod run;
mod servers;
mod support;
mod verifier;
