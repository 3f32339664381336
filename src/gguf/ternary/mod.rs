//! Ternary weights: codes of two bits, and the forms in which files store them.
//!
//! A weight is `scale * (code - 1)`, its code 0, 1 or 2.

pub(crate) mod blocks;

/// The code that no ternary weight has. ggml's Q2_0 reads it as 2, its TQ types have no place for it.
pub(crate) const INVALID_CODE: u8 = 3;

/// Where the first code that is none of 0, 1, 2 stands.
pub(crate) fn first_invalid(codes: &[u8]) -> Option<usize> {
    // The largest is one pass of vector instructions; the place is asked for once, if ever.
    let largest = codes.iter().copied().max().unwrap_or(0);
    if largest < INVALID_CODE { None } else { codes.iter().position(|&code| code >= INVALID_CODE) }
}
