//! Any bytes through the GGUF container: an error, or tensors inside the file.
#![no_main]

use edgethink_model::gguf::Gguf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(gguf) = Gguf::parse(bytes) {
        for tensor in &gguf.tensors {
            assert!(tensor.range.end <= bytes.len());
            assert_eq!(tensor.dtype.tensor_bytes(&tensor.shape), Some(tensor.range.len()));
        }
    }
});
