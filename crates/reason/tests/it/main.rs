//! Thinking on tiny random models: budgets, forms, the switcher, streams and the verifier.
//!
//! One program for all of them: each would link the whole workspace again.

mod budget;
mod forms;
mod pipeline;
mod reasoner;
mod support;
mod switcher;
mod verifier;
