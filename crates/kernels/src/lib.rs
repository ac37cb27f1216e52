//! Arithmetic of inference on slices: scalar reference and SIMD per operation, chosen at run time.
