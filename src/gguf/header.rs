//! Parses the header of one file: version, keys, tensor descriptions.

use std::io::Read;

use super::{
    Array, GgufError, KeyProblem, Metadata, Strings, Value, ValueType,
    layout::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, MAGIC, MAX_KEY_BYTES},
    reader::Reader,
    tensor::{self, TensorInfo},
};

/// Least bytes of a key: length, one byte of name, type, one byte of value.
const LEAST_KEY_BYTES: u64 = 8 + 1 + 4 + 1;

/// Longest string and longest array that llama.cpp reads.
const MAX_LENGTH: u64 = 1 << 30;

/// What the header of one file says.
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) alignment: u64,
    pub(super) metadata: Metadata,
    pub(super) tensors: Vec<TensorInfo>,
}

/// Reads and validates the header; the tensors get the part number `part`.
pub(super) fn read<R: Read>(reader: &mut Reader<'_, R>, part: usize) -> Result<Header, GgufError> {
    let version = read_version(reader)?;
    let tensor_count = reader.u64(|| "the number of tensors".into())?;
    let key_count = reader.u64(|| "the number of keys".into())?;
    let metadata = read_metadata(reader, key_count)?;
    let alignment = alignment(&metadata)?;
    let architecture = metadata.get("general.architecture").and_then(Value::as_str);
    let tensors = tensor::read_all(reader, tensor_count, alignment, part, architecture)?;
    Ok(Header { version, alignment, metadata, tensors })
}

fn read_version<R: Read>(reader: &mut Reader<'_, R>) -> Result<u32, GgufError> {
    let path = || reader.path().to_path_buf();
    if reader.length() == 0 {
        return Err(GgufError::Empty { path: path() });
    }
    let magic: [u8; 4] = reader.bytes(|| "the first four bytes".into())?;
    let path = || reader.path().to_path_buf();
    if magic != MAGIC {
        // The old formats stored their names as integers, so the bytes stand in reverse.
        return Err(match &magic {
            b"lmgg" => GgufError::OldFormat { path: path(), format: "GGML" },
            b"fmgg" => GgufError::OldFormat { path: path(), format: "GGMF" },
            b"tjgg" => GgufError::OldFormat { path: path(), format: "GGJT" },
            _ => GgufError::NotGguf { path: path(), found: describe(magic) },
        });
    }
    let version = reader.u32(|| "the version".into())?;
    let path = || reader.path().to_path_buf();
    match version {
        2 | 3 => Ok(version),
        // As ggml does: a small version number in the high half means the other byte order.
        swapped if swapped != 0 && swapped & 0xffff == 0 => Err(GgufError::BigEndian { path: path() }),
        version => Err(GgufError::Version { path: path(), version }),
    }
}

/// What a file with this beginning is.
fn describe(magic: [u8; 4]) -> String {
    let known = match &magic {
        b"PK\x03\x04" => Some("a zip archive or PyTorch checkpoint"),
        b"<!DO" | b"<htm" | b"<HTM" => Some("a web page"),
        b"vers" => Some("a Git LFS pointer, not the file itself"),
        [0x1f, 0x8b, ..] => Some("a gzip file"),
        b"\x7fELF" => Some("a program"),
        [0, 0, 0, 0] => Some("zeros"),
        _ => None,
    };
    let bytes = magic.escape_ascii();
    known.map_or_else(|| format!("`{bytes}`"), |known| format!("`{bytes}` ({known})"))
}

fn alignment(metadata: &Metadata) -> Result<u64, GgufError> {
    match metadata.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        // 64 KiB is the largest page of any supported system; more only wastes the file.
        Some(&Value::U32(alignment)) if alignment.is_power_of_two() && (8..=65536).contains(&alignment) => {
            Ok(alignment.into())
        }
        Some(Value::U32(alignment)) => Err(metadata.problem(
            ALIGNMENT_KEY,
            KeyProblem::Value { found: alignment.to_string(), expected: "a power of two from 8 to 65536".into() },
        )),
        Some(other) => {
            let found = other.type_name().into_owned();
            Err(metadata.problem(ALIGNMENT_KEY, KeyProblem::Type { expected: "u32", found }))
        }
    }
}

fn read_metadata<R: Read>(reader: &mut Reader<'_, R>, count: u64) -> Result<Metadata, GgufError> {
    reader.expect(count, LEAST_KEY_BYTES, || format!("the list of {count} keys"))?;
    let mut metadata = Metadata::of_file(reader.path());
    for index in 0..count {
        let offset = reader.position();
        let key = read_key(reader, index)?;
        let problem = |problem| key_error(reader, &key, offset, problem);
        if metadata.get(&key).is_some() {
            return Err(problem(KeyProblem::Duplicate));
        }
        let value = read_value(reader, &key)?;
        metadata.set(key, value, offset);
    }
    Ok(metadata)
}

fn key_error<R: Read>(reader: &Reader<'_, R>, key: &str, offset: u64, problem: KeyProblem) -> GgufError {
    GgufError::Key { path: reader.path().to_path_buf(), key: key.to_owned(), offset, problem }
}

fn read_key<R: Read>(reader: &mut Reader<'_, R>, index: u64) -> Result<String, GgufError> {
    let what = || format!("the name of key {index}");
    let offset = reader.position();
    let numbered = |reader: &Reader<'_, R>, problem| key_error(reader, &format!("#{index}"), offset, problem);
    let length = reader.u64(what)?;
    if length == 0 {
        return Err(numbered(reader, KeyProblem::EmptyName));
    }
    if length > MAX_KEY_BYTES {
        return Err(numbered(reader, KeyProblem::LongName(length)));
    }
    reader.expect(length, 1, what)?;
    let mut bytes = Vec::new();
    reader.append(length as usize, &mut bytes)?;
    match String::from_utf8(bytes) {
        // llama.cpp compares names as C strings: a NUL would make two different keys one.
        Ok(key) if !key.contains('\0') => Ok(key),
        Ok(key) => Err(key_error(reader, &key.escape_debug().to_string(), offset, KeyProblem::NameNotText)),
        Err(error) => {
            Err(key_error(reader, &String::from_utf8_lossy(error.as_bytes()), offset, KeyProblem::NameNotText))
        }
    }
}

fn read_type<R: Read>(reader: &mut Reader<'_, R>, key: &str) -> Result<ValueType, GgufError> {
    let offset = reader.position();
    let id = reader.u32(|| format!("the type of key `{key}`"))?;
    ValueType::from_id(id).ok_or_else(|| key_error(reader, key, offset, KeyProblem::UnknownType(id)))
}

fn read_value<R: Read>(reader: &mut Reader<'_, R>, key: &str) -> Result<Value, GgufError> {
    let value_type = read_type(reader, key)?;
    let offset = reader.position();
    let what = || format!("the value of key `{key}`");
    Ok(match value_type {
        ValueType::U8 => Value::U8(u8::from_le_bytes(reader.bytes(what)?)),
        ValueType::I8 => Value::I8(i8::from_le_bytes(reader.bytes(what)?)),
        ValueType::U16 => Value::U16(u16::from_le_bytes(reader.bytes(what)?)),
        ValueType::I16 => Value::I16(i16::from_le_bytes(reader.bytes(what)?)),
        ValueType::U32 => Value::U32(u32::from_le_bytes(reader.bytes(what)?)),
        ValueType::I32 => Value::I32(i32::from_le_bytes(reader.bytes(what)?)),
        ValueType::F32 => Value::F32(f32::from_le_bytes(reader.bytes(what)?)),
        ValueType::U64 => Value::U64(u64::from_le_bytes(reader.bytes(what)?)),
        ValueType::I64 => Value::I64(i64::from_le_bytes(reader.bytes(what)?)),
        ValueType::F64 => Value::F64(f64::from_le_bytes(reader.bytes(what)?)),
        ValueType::Bool => match reader.bytes(what)? {
            [byte @ (0 | 1)] => Value::Bool(byte == 1),
            [byte] => return Err(key_error(reader, key, offset, KeyProblem::Boolean(byte))),
        },
        ValueType::String => {
            let mut bytes = Vec::new();
            read_string(reader, key, &mut bytes)?;
            let text = String::from_utf8(bytes);
            Value::String(text.map_err(|_| key_error(reader, key, offset, KeyProblem::NotText))?)
        }
        ValueType::Array => Value::Array(read_array(reader, key)?),
    })
}

fn read_string<R: Read>(reader: &mut Reader<'_, R>, key: &str, buffer: &mut Vec<u8>) -> Result<(), GgufError> {
    let offset = reader.position();
    let what = || format!("a string of key `{key}`");
    let length = reader.u64(what)?;
    if length > MAX_LENGTH {
        return Err(key_error(reader, key, offset, KeyProblem::LongString(length)));
    }
    reader.expect(length, 1, what)?;
    reader.append(length as usize, buffer)
}

fn read_array<R: Read>(reader: &mut Reader<'_, R>, key: &str) -> Result<Array, GgufError> {
    let offset = reader.position();
    let element_type = read_type(reader, key)?;
    let count = reader.u64(|| format!("the length of array `{key}`"))?;
    if count > MAX_LENGTH {
        return Err(key_error(reader, key, offset, KeyProblem::LongArray(count)));
    }
    reader.expect(count, element_type.least_bytes(), || format!("the {count} elements of array `{key}`"))?;

    /// All elements of a fixed size at once: one read, one pass.
    macro_rules! numbers {
        ($variant:ident, $scalar:ty) => {{
            let mut bytes = Vec::new();
            reader.append(count as usize * size_of::<$scalar>(), &mut bytes)?;
            let (chunks, _) = bytes.as_chunks();
            Array::$variant(chunks.iter().map(|&chunk| <$scalar>::from_le_bytes(chunk)).collect())
        }};
    }
    Ok(match element_type {
        ValueType::U8 => numbers!(U8, u8),
        ValueType::I8 => numbers!(I8, i8),
        ValueType::U16 => numbers!(U16, u16),
        ValueType::I16 => numbers!(I16, i16),
        ValueType::U32 => numbers!(U32, u32),
        ValueType::I32 => numbers!(I32, i32),
        ValueType::F32 => numbers!(F32, f32),
        ValueType::U64 => numbers!(U64, u64),
        ValueType::I64 => numbers!(I64, i64),
        ValueType::F64 => numbers!(F64, f64),
        ValueType::Bool => {
            let start = reader.position();
            let mut bytes = Vec::new();
            reader.append(count as usize, &mut bytes)?;
            if let Some(index) = bytes.iter().position(|&byte| byte > 1) {
                return Err(key_error(reader, key, start + index as u64, KeyProblem::Boolean(bytes[index])));
            }
            Array::Bool(bytes.into_iter().map(|byte| byte == 1).collect())
        }
        ValueType::String => {
            let mut strings = Strings::default();
            strings.reserve(count as usize);
            for _ in 0..count {
                strings.push_with(|buffer| read_string(reader, key, buffer))?;
            }
            Array::String(strings)
        }
        ValueType::Array => return Err(key_error(reader, key, offset, KeyProblem::NestedArray)),
    })
}
