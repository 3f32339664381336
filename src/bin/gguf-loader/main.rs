//! Loads GGUF models and runs them: the command line over the library.
fn main() {}
