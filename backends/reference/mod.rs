//! The pure Rust oracle.
