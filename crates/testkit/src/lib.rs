//! Test helpers: tiny random models, float comparison, golden files.
