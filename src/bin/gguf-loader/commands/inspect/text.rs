//! The report for people.

use std::fmt::{self, Display, Formatter};

use gguf_loader::gguf::{Array, LayerStorage, Quantization, TensorInfo, TypeStorage, Value};

use super::{Memory, Report};

/// Characters of a value before it is cut, and elements of an array that are shown.
const VALUE_CHARACTERS: usize = 80;
const ARRAY_ELEMENTS: usize = 5;

impl Display for Report<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for part in self.parts {
            writeln!(formatter, "{}: {}", part.path.display(), Bytes(part.bytes))?;
        }
        let architecture = self.architecture.unwrap_or("no model architecture");
        writeln!(formatter, "GGUF version {}, {architecture}, aligned to {}", self.version, self.alignment)?;

        writeln!(formatter, "\nkeys:")?;
        for (key, value) in self.metadata.iter() {
            writeln!(formatter, "  {} = {}", key.escape_debug(), Short(value))?;
        }
        quantization(formatter, &self.quantization)?;
        if let Some(memory) = &self.memory {
            write!(formatter, "\n{memory}")?;
        }
        if let Some(tensors) = self.tensors {
            writeln!(formatter, "\ntensors:")?;
            tensors.iter().try_for_each(|tensor| tensor_line(formatter, tensor))?;
        }
        Ok(())
    }
}

fn quantization(formatter: &mut Formatter<'_>, storage: &Quantization) -> fmt::Result {
    if storage.parameters == 0 {
        return writeln!(formatter, "\nno weights");
    }
    let Quantization { parameters, bytes, bits_per_weight, .. } = storage;
    writeln!(formatter, "\nweights: {parameters} in {}, {bits_per_weight:.2} bits each", Bytes(*bytes))?;
    for group in &storage.groups {
        // `Debug` of a group is its name.
        let name = format!("{:?}", group.group).to_lowercase();
        let types: Vec<String> = group.types.iter().map(type_text).collect();
        writeln!(formatter, "  {name:9}  {:5.2} bits  {}", group.bits_per_weight, types.join(", "))?;
    }
    if !storage.layers.is_empty() {
        writeln!(formatter, "\nlayers:")?;
    }
    for run in storage.layers.chunk_by(|one, next| one.bytes == next.bytes && one.layer + 1 == next.layer) {
        layers_line(formatter, run)?;
    }
    Ok(())
}

fn type_text(storage: &TypeStorage) -> String {
    let tensors = if storage.tensors == 1 { "tensor" } else { "tensors" };
    format!("{} {} {tensors} {}", storage.tensor_type, storage.tensors, Bytes(storage.bytes))
}

/// Most models have many equal layers: those of a run share a line.
fn layers_line(formatter: &mut Formatter<'_>, run: &[LayerStorage]) -> fmt::Result {
    let [first, .., last] = run else {
        let Some(only) = run.first() else { return Ok(()) };
        return writeln!(formatter, "  {}: {}, {:.2} bits", only.layer, Bytes(only.bytes), only.bits_per_weight);
    };
    let (bytes, bits) = (Bytes(first.bytes), first.bits_per_weight);
    writeln!(formatter, "  {} to {}: {bytes} each, {bits:.2} bits", first.layer, last.layer)
}

fn tensor_line(formatter: &mut Formatter<'_>, tensor: &TensorInfo) -> fmt::Result {
    let shape: Vec<String> = tensor.shape.iter().map(u64::to_string).collect();
    let (shape, bytes) = (shape.join(" x "), Bytes(tensor.bytes).to_string());
    let (name, tensor_type) = (tensor.name.escape_debug().to_string(), tensor.tensor_type.to_string());
    writeln!(formatter, "  {name:40} {tensor_type:7} {shape:20} {bytes:>10} at {}", tensor.offset)
}

impl Display for Memory {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "memory for a context of {}: {} (weights {}, KV cache {}, compute {})",
            self.context,
            Bytes(self.total),
            Bytes(self.estimate.weights),
            Bytes(self.estimate.kv_cache),
            Bytes(self.estimate.compute)
        )
    }
}

/// A value on one line of readable length.
struct Short<'a>(&'a Value);

impl Display for Short<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::Array(array) => {
                write!(formatter, "{} [{}", self.0, first_elements(array).join(", "))?;
                formatter.write_str(if array.len() > ARRAY_ELEMENTS { ", …]" } else { "]" })
            }
            other => formatter.write_str(&shorten(&other.to_string())),
        }
    }
}

fn first_elements(array: &Array) -> Vec<String> {
    fn texts<T: Display>(values: &[T]) -> Vec<String> {
        values.iter().take(ARRAY_ELEMENTS).map(T::to_string).collect()
    }
    match array {
        Array::U8(values) => texts(values),
        Array::I8(values) => texts(values),
        Array::U16(values) => texts(values),
        Array::I16(values) => texts(values),
        Array::U32(values) => texts(values),
        Array::I32(values) => texts(values),
        Array::U64(values) => texts(values),
        Array::I64(values) => texts(values),
        Array::F32(values) => texts(values),
        Array::F64(values) => texts(values),
        Array::Bool(values) => texts(values),
        Array::String(values) => {
            let quote = |bytes| shorten(&format!("{:?}", String::from_utf8_lossy(bytes)));
            values.iter().take(ARRAY_ELEMENTS).map(quote).collect()
        }
    }
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(VALUE_CHARACTERS) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// Bytes in a binary unit that leaves at most four digits before the point.
struct Bytes(u64);

impl Display for Bytes {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        match UNITS.into_iter().find(|&(shift, _)| self.0 >> shift > 0) {
            Some((shift, unit)) => write!(formatter, "{:.1} {unit}", self.0 as f64 / (1_u64 << shift) as f64),
            None => write!(formatter, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_arrays_and_texts_are_cut_and_say_how_long_they_are() {
        let array = Value::from((0..1000_i32).collect::<Vec<_>>());
        assert_eq!(Short(&array).to_string(), "i32[1000] [0, 1, 2, 3, 4, …]");
        let text = Short(&Value::from("ä".repeat(100))).to_string();
        assert!(text.ends_with("… (202 bytes)") && text.chars().count() < 100, "{text}");
        assert_eq!(Short(&Value::from("llama")).to_string(), "\"llama\"");
    }

    #[test]
    fn control_characters_of_a_file_do_not_reach_the_terminal() {
        let text = Short(&Value::from("\u{1b}[2J")).to_string();
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }

    #[test]
    fn bytes_have_a_readable_unit() {
        let cases =
            [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1 << 20, "1.0 MiB"), (3 << 29, "1.5 GiB")];
        for (bytes, text) in cases {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
