//! Which order the codes of an I2_S file have: asked, known or assumed.

use std::{fmt, str::FromStr};

use crate::gguf::{Gguf, I2sLayout, TensorType, Value};

/// Where [`export`](super::export) notes the layout that it wrote.
pub(super) const LAYOUT_KEY: &str = "gguf_loader.i2_s_layout";

/// The order of the codes in I2_S matrices, or how to find it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Layout {
    /// What the file's producer is known to write; else the most common one that fits, with a warning.
    #[default]
    Auto,
    /// [`I2sLayout::X86`].
    X86,
    /// [`I2sLayout::Arm`].
    Arm,
    /// [`I2sLayout::Rows4`].
    Rows4,
    /// [`I2sLayout::Sequential`].
    Sequential,
}

/// Where the order of the codes is known from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Evidence {
    /// The caller said so.
    Forced,
    /// The file says so, or is one of those that Microsoft published.
    Known,
    /// Nothing tells; this one is the most common that fits.
    Assumed,
}

impl Layout {
    /// Every value.
    pub const ALL: [Self; 5] = [Self::Auto, Self::X86, Self::Arm, Self::Rows4, Self::Sequential];

    /// The layout that was asked for; `None` for [`Layout::Auto`].
    pub fn forced(self) -> Option<I2sLayout> {
        match self {
            Self::Auto => None,
            Self::X86 => Some(I2sLayout::X86),
            Self::Arm => Some(I2sLayout::Arm),
            Self::Rows4 => Some(I2sLayout::Rows4),
            Self::Sequential => Some(I2sLayout::Sequential),
        }
    }

    /// The layout of `gguf`, and where it is known from.
    pub(super) fn resolve(self, gguf: &Gguf) -> (I2sLayout, Evidence) {
        if let Some(layout) = self.forced() {
            return (layout, Evidence::Forced);
        }
        if let Some(layout) = known(gguf) {
            return (layout, Evidence::Known);
        }
        // Rows that blocks of 128 do not divide were not written on x86.
        let mut rows = gguf.tensors().iter().filter(|tensor| tensor.tensor_type == TensorType::I2_S);
        let fits = rows.all(|tensor| tensor.shape[0].is_multiple_of(I2sLayout::X86.row_multiple()));
        (if fits { I2sLayout::X86 } else { I2sLayout::Arm }, Evidence::Assumed)
    }
}

/// The layout that the keys tell.
fn known(gguf: &Gguf) -> Option<I2sLayout> {
    let text = |key: &str| gguf.metadata().get(key).and_then(Value::as_str);
    if let Some(layout) = text(LAYOUT_KEY).and_then(I2sLayout::from_name) {
        return Some(layout);
    }
    // BitNet b1.58 2B-4T as Microsoft published it, in April 2025 under the first name, since May under the second:
    // the log of `llama_model_loader` in ik_llama.cpp#388 and microsoft/BitNet#373. Users' own conversions bear the
    // name of their folder.
    let published = matches!(
        (text("general.architecture"), text("general.name")),
        (Some("bitnet-25"), Some("bitnet2b_2501")) | (Some("bitnet-b1.58"), Some("bitnet2b"))
    );
    published.then_some(I2sLayout::X86)
}

impl fmt::Display for Layout {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.forced().map_or("auto", I2sLayout::name))
    }
}

/// The text is none of the names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of auto, x86, arm, rows4, sequential")]
pub struct UnknownLayout(String);

impl FromStr for Layout {
    type Err = UnknownLayout;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |layout: &Self| layout.to_string() == text;
        Self::ALL.into_iter().find(named).ok_or_else(|| UnknownLayout(text.to_owned()))
    }
}
