//! The engine against llama.cpp on ten tiny GGUF files, packed integers as they are in the file.

use std::sync::Arc;

use crate::support::*;
use edgethink_engine::{EngineOptions, Isa, Request};
use edgethink_testkit::{LLAMA_CPP_MODELS, llama_cpp_golden, relative_error};

/// Relative error that the order of sums may cause.
const FLOAT: f64 = 1e-5;

/// llama.cpp rounds activations to 8 bits, and so does the engine, a little differently: it may be as far from the exact logits as
/// llama.cpp, and a quarter more.
#[test]
fn logits_are_as_exact_as_llama_cpps_and_greedy_tokens_the_same() {
    for name in LLAMA_CPP_MODELS {
        let golden = llama_cpp_golden(name);
        for isa in Isa::available() {
            let options = EngineOptions { isa, ..options() };
            let mut engine = engine(&Arc::clone(&golden.model), &options);
            let got = engine.logits(&golden.prompt, None).expect("finite logits");
            let (error, rounding) = (relative_error(&got, &golden.exact), golden.rounding());
            eprintln!("{name} {isa}: {error:.1e}, llama.cpp {rounding:.1e}");
            assert!(
                error <= FLOAT + 1.25 * rounding,
                "{name} {isa}: {error}, llama.cpp {rounding}"
            );
            let request = Request {
                ignore_eos: true,
                ..Request::greedy(golden.prompt.clone(), golden.greedy.len())
            };
            assert_eq!(
                run_one(&mut engine, &request).tokens(0),
                golden.greedy,
                "{name} on {isa}, smallest margin {:?}",
                golden.tensors["margin"].to_f32()
            );
        }
    }
}
