//! A pool of worker threads for the engine: one safe primitive, disjoint work by index.
