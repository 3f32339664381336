//! Ternary weights: codes of two bits, and the forms in which files store them.
//!
//! A weight is `scale * (code - 1)`, its code 0, 1 or 2. The forms differ in the order of the codes and in where the
//! scale stands: one for the whole tensor ([`i2_s`]), or one a block ([`blocks`]).

pub(crate) mod blocks;
mod i2_s;
pub(crate) mod scale;

pub use i2_s::I2sLayout;
pub(crate) use i2_s::{I2S_TRAILER_BYTES, i2s_trailer};

/// The code that no ternary weight has. Upstream's Q2_0 reads it as 2, bitnet.cpp's kernels as whatever comes out.
pub(crate) const INVALID_CODE: u8 = 3;

/// Where the first code that is none of 0, 1, 2 stands.
pub(crate) fn first_invalid(codes: &[u8]) -> Option<usize> {
    // The maximum is one pass of vector instructions; the place is asked for once, if ever.
    let largest = codes.iter().fold(0, |largest: u8, &code| largest.max(code));
    if largest < INVALID_CODE {
        return None;
    }
    codes.iter().position(|&code| code >= INVALID_CODE)
}
