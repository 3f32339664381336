//! How models run: one folder a backend. `backends/README.md` says how to add one.

#[cfg(feature = "bitnet")]
mod bitnet;
#[cfg(feature = "cpu")]
mod cpu;
#[cfg(feature = "cpu")]
mod ggml;
#[cfg(feature = "reference")]
mod reference;
