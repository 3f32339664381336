//! Small models of the architectures that are used most, sound and damaged, on llama.cpp.
#![cfg(all(feature = "cpu", feature = "synth", unix))]

mod damage;
mod embedding;
mod file;
mod hostile;
mod models;
mod running;
