//! The final answer in a response, and equality of answers: one definition for reward, evaluation and voting.
//!
//! - [`visible`]: what stands after the end of thinking; an unclosed thought has no answer.
//! - [`extract`]: the final answer within it, and how it was found. [`code_block`]: the last program within it.
//! - [`equal`]: do two answers say the same? `1/2`, `0.5`, `\frac12` and `x = \frac{1}{2}` do; `0.33` and `1/3` do not.
//! - [`is_correct`]: all of it.
//!
//! Equality is decided by a bounded method of our own: no timeout, no thread, no signal, no panic, on any input.
//!
//! ```
//! use edgethink_grader::{equal, is_correct};
//!
//! assert!(equal(r"\frac{\sqrt{3}}{3}", r"1/\sqrt{3}"));
//! assert!(!equal("1000000001", "1e9"));
//! assert!(is_correct("<think>\n6 * 7\n</think>\n\n**Final answer:** 42", "42"));
//! assert!(!is_correct("<think>\nThe answer is 42", "42"));
//! ```

mod command;
mod compare;
mod eval;
mod expr;
mod extract;
mod fallback;
mod float;
mod literal;
mod modular;
mod number;
mod parse;
mod plain;
mod relation;
mod scalar;
mod term;
mod text;
mod token;
mod unit;
mod visible;
mod words;

pub use compare::equal;
pub use extract::{Extracted, How, code_block, extract, is_correct};
pub use visible::visible;
