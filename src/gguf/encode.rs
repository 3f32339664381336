//! Values as bytes of a file.

use std::io::{self, Write};

use super::{Array, Value};

/// Writes length and bytes.
pub(super) fn write_string(string: &[u8], output: &mut impl Write) -> io::Result<()> {
    output.write_all(&(string.len() as u64).to_le_bytes())?;
    output.write_all(string)
}

/// Writes a value without its type.
pub(super) fn write_value(value: &Value, output: &mut impl Write) -> io::Result<()> {
    /// Numbers one after the other.
    macro_rules! numbers {
        ($output:ident, $values:expr) => {
            $values.iter().try_for_each(|value| $output.write_all(&value.to_le_bytes()))
        };
    }
    match value {
        Value::U8(value) => output.write_all(&value.to_le_bytes()),
        Value::I8(value) => output.write_all(&value.to_le_bytes()),
        Value::U16(value) => output.write_all(&value.to_le_bytes()),
        Value::I16(value) => output.write_all(&value.to_le_bytes()),
        Value::U32(value) => output.write_all(&value.to_le_bytes()),
        Value::I32(value) => output.write_all(&value.to_le_bytes()),
        Value::F32(value) => output.write_all(&value.to_le_bytes()),
        Value::U64(value) => output.write_all(&value.to_le_bytes()),
        Value::I64(value) => output.write_all(&value.to_le_bytes()),
        Value::F64(value) => output.write_all(&value.to_le_bytes()),
        Value::Bool(value) => output.write_all(&[u8::from(*value)]),
        Value::String(value) => write_string(value.as_bytes(), output),
        Value::Array(values) => {
            output.write_all(&values.element_type().id().to_le_bytes())?;
            output.write_all(&(values.len() as u64).to_le_bytes())?;
            match values {
                Array::U8(values) => output.write_all(values),
                Array::I8(values) => numbers!(output, values),
                Array::U16(values) => numbers!(output, values),
                Array::I16(values) => numbers!(output, values),
                Array::U32(values) => numbers!(output, values),
                Array::I32(values) => numbers!(output, values),
                Array::F32(values) => numbers!(output, values),
                Array::U64(values) => numbers!(output, values),
                Array::I64(values) => numbers!(output, values),
                Array::F64(values) => numbers!(output, values),
                Array::Bool(values) => values.iter().try_for_each(|&value| output.write_all(&[u8::from(value)])),
                Array::String(values) => values.iter().try_for_each(|value| write_string(value, output)),
            }
        }
    }
}

/// Counts what passes, to place the padding and to check streams.
pub(super) struct Counted<W> {
    output: W,
    written: u64,
}

impl<W: Write> Counted<W> {
    /// Counts from 0.
    pub(super) fn new(output: W) -> Self {
        Self { output, written: 0 }
    }

    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Writes zeros up to a multiple of `alignment`.
    pub(super) fn pad(&mut self, alignment: u64) -> io::Result<()> {
        let missing = self.written.next_multiple_of(alignment) - self.written;
        io::copy(&mut io::Read::take(io::repeat(0), missing), self).map(drop)
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.output.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
