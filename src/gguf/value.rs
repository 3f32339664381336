//! Metadata values: the thirteen types of a GGUF key.

use std::{borrow::Cow, fmt};

use serde::ser::{Serialize, SerializeSeq, Serializer};

/// Declares everything that is one line a type: [`ValueType`], [`Value`], [`Array`] and the conversions.
macro_rules! value_types {
    ($($(#[$doc:meta])* $variant:ident($scalar:ty), $id:literal, $name:literal, $size:literal;)*) => {
        /// The type of a [`Value`], as a GGUF file stores it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum ValueType {
            $($(#[$doc])* $variant = $id,)*
            /// Length and UTF-8 bytes.
            String = 8,
            /// Element type, count and elements.
            Array = 9,
        }

        impl ValueType {
            /// Every type.
            pub const ALL: &'static [ValueType] = &[$(ValueType::$variant,)* ValueType::String, ValueType::Array];

            /// The name that llama.cpp prints, e.g. `u32`.
            pub fn name(self) -> &'static str {
                match self {
                    $(ValueType::$variant => $name,)*
                    ValueType::String => "str",
                    ValueType::Array => "arr",
                }
            }

            /// Least bytes that one value takes in a file: a string is at least its length.
            pub(super) fn least_bytes(self) -> u64 {
                match self {
                    $(ValueType::$variant => $size,)*
                    ValueType::String => 8,
                    ValueType::Array => 12,
                }
            }
        }

        /// One metadata value.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Value {
            $($(#[$doc])* $variant($scalar),)*
            /// UTF-8 text.
            String(String),
            /// Many values of one type.
            Array(Array),
        }

        impl Value {
            /// The type of the value.
            pub fn value_type(&self) -> ValueType {
                match self {
                    $(Value::$variant(_) => ValueType::$variant,)*
                    Value::String(_) => ValueType::String,
                    Value::Array(_) => ValueType::Array,
                }
            }
        }

        /// Values of one type, stored without an allocation an element.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Array {
            $($(#[$doc])* $variant(Vec<$scalar>),)*
            /// Byte strings; see [`Strings`] for why they may be other than UTF-8.
            String(Strings),
        }

        impl Array {
            /// Number of elements.
            pub fn len(&self) -> usize {
                match self {
                    $(Array::$variant(values) => values.len(),)*
                    Array::String(values) => values.len(),
                }
            }

            /// The type of the elements.
            pub fn element_type(&self) -> ValueType {
                match self {
                    $(Array::$variant(_) => ValueType::$variant,)*
                    Array::String(_) => ValueType::String,
                }
            }
        }

        $(
            impl From<$scalar> for Value {
                fn from(value: $scalar) -> Self {
                    Value::$variant(value)
                }
            }

            impl From<Vec<$scalar>> for Value {
                fn from(values: Vec<$scalar>) -> Self {
                    Value::Array(Array::$variant(values))
                }
            }
        )*

        impl fmt::Display for Value {
            /// Scalars in full, strings quoted, arrays as element type and length.
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Value::$variant(value) => write!(formatter, "{value}"),)*
                    Value::String(value) => write!(formatter, "{value:?}"),
                    Value::Array(values) => write!(formatter, "{}[{}]", values.element_type(), values.len()),
                }
            }
        }

        impl Serialize for Value {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Value::$variant(value) => value.serialize(serializer),)*
                    Value::String(value) => value.serialize(serializer),
                    Value::Array(values) => values.serialize(serializer),
                }
            }
        }

        impl Serialize for Array {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Array::$variant(values) => values.serialize(serializer),)*
                    Array::String(values) => values.serialize(serializer),
                }
            }
        }
    };
}

value_types! {
    /// 8-bit unsigned integer.
    U8(u8), 0, "u8", 1;
    /// 8-bit signed integer.
    I8(i8), 1, "i8", 1;
    /// 16-bit unsigned integer.
    U16(u16), 2, "u16", 2;
    /// 16-bit signed integer.
    I16(i16), 3, "i16", 2;
    /// 32-bit unsigned integer.
    U32(u32), 4, "u32", 4;
    /// 32-bit signed integer.
    I32(i32), 5, "i32", 4;
    /// 32-bit float.
    F32(f32), 6, "f32", 4;
    /// One byte, 0 or 1.
    Bool(bool), 7, "bool", 1;
    /// 64-bit unsigned integer.
    U64(u64), 10, "u64", 8;
    /// 64-bit signed integer.
    I64(i64), 11, "i64", 8;
    /// 64-bit float.
    F64(f64), 12, "f64", 8;
}

impl ValueType {
    /// The id in a GGUF file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The type with this id.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|value_type| value_type.id() == id)
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl Value {
    /// The value as a non-negative integer, whatever its width and sign; `None` for other types and below zero.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(value) => Some(value.into()),
            Value::U16(value) => Some(value.into()),
            Value::U32(value) => Some(value.into()),
            Value::U64(value) => Some(value),
            Value::I8(value) => value.try_into().ok(),
            Value::I16(value) => value.try_into().ok(),
            Value::I32(value) => value.try_into().ok(),
            Value::I64(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// The value as a float: `F32` or `F64`.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(value) => Some(value.into()),
            Value::F64(value) => Some(value),
            _ => None,
        }
    }

    /// The text of a `String`.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(value) => Some(value),
            _ => None,
        }
    }

    /// The value of a `Bool`.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// The elements of an `Array`.
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Value::Array(values) => Some(values),
            _ => None,
        }
    }

    /// The type for people, e.g. `u32` or `arr[str]`.
    pub(super) fn type_name(&self) -> Cow<'static, str> {
        match self {
            Value::Array(values) => Cow::Owned(format!("arr[{}]", values.element_type())),
            other => Cow::Borrowed(other.value_type().name()),
        }
    }
}

impl Array {
    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as non-negative integers; `None` if one is negative or they are not integers.
    pub fn to_u64(&self) -> Option<Vec<u64>> {
        fn all<T: Copy + TryInto<u64>>(values: &[T]) -> Option<Vec<u64>> {
            values.iter().map(|&value| value.try_into().ok()).collect()
        }
        match self {
            Array::U8(values) => all(values),
            Array::U16(values) => all(values),
            Array::U32(values) => all(values),
            Array::U64(values) => all(values),
            Array::I8(values) => all(values),
            Array::I16(values) => all(values),
            Array::I32(values) => all(values),
            Array::I64(values) => all(values),
            _ => None,
        }
    }

    /// The elements of a string array.
    pub fn as_strings(&self) -> Option<&Strings> {
        match self {
            Array::String(values) => Some(values),
            _ => None,
        }
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::String(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::String(value)
    }
}

impl From<Array> for Value {
    fn from(values: Array) -> Self {
        Value::Array(values)
    }
}

impl From<Strings> for Value {
    fn from(values: Strings) -> Self {
        Value::Array(Array::String(values))
    }
}

impl From<Vec<String>> for Value {
    fn from(values: Vec<String>) -> Self {
        values.iter().collect::<Strings>().into()
    }
}

impl From<Vec<&str>> for Value {
    fn from(values: Vec<&str>) -> Self {
        values.iter().collect::<Strings>().into()
    }
}

/// The strings of an array, end to end in one buffer: a vocabulary of 128k tokens is two allocations.
///
/// The elements are bytes, not text: tokens of byte-level vocabularies may be a part of a UTF-8 character.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Strings {
    bytes: Vec<u8>,
    /// Where each string ends in `bytes`.
    ends: Vec<usize>,
}

impl Strings {
    /// Number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no string.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The bytes of string `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)?;
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }

    /// String `index` as text, with U+FFFD for what is not UTF-8.
    pub fn text(&self, index: usize) -> Option<Cow<'_, str>> {
        self.get(index).map(String::from_utf8_lossy)
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let string = &self.bytes[start..end];
            start = end;
            string
        })
    }

    /// Appends a string.
    pub fn push(&mut self, string: &[u8]) {
        self.bytes.extend_from_slice(string);
        self.ends.push(self.bytes.len());
    }

    /// Makes room for `strings` more strings.
    pub(super) fn reserve(&mut self, strings: usize) {
        self.ends.reserve(strings);
    }

    /// Appends the string that `append` puts at the end of the buffer.
    pub(super) fn push_with<E>(&mut self, append: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        append(&mut self.bytes)?;
        self.ends.push(self.bytes.len());
        Ok(())
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for Strings {
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> Self {
        let mut all = Self::default();
        strings.into_iter().for_each(|string| all.push(string.as_ref()));
        all
    }
}

impl fmt::Debug for Strings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.iter().map(String::from_utf8_lossy)).finish()
    }
}

impl Serialize for Strings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut sequence = serializer.serialize_seq(Some(self.len()))?;
        for string in self.iter() {
            sequence.serialize_element(&String::from_utf8_lossy(string))?;
        }
        sequence.end()
    }
}
