//! What changed the model while something was computed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::gguf::Fingerprint;

/// The adapters and control vectors of a context, by what is in them.
///
/// What a context has computed is of use only to one that has the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    adapters: Vec<AppliedAdapter>,
    directions: Option<Fingerprint>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct AppliedAdapter {
    pub(crate) weights: Fingerprint,
    pub(crate) alpha: Option<f32>,
    pub(crate) scale: f32,
}

impl Applied {
    /// Takes note of these adapters, and of no others. Their order says nothing, scales of the same one add up, and a scale of 0
    /// is none.
    pub(crate) fn set_adapters(&mut self, adapters: impl IntoIterator<Item = AppliedAdapter>) {
        self.adapters.clear();
        for adapter in adapters {
            let same = |known: &&mut AppliedAdapter| known.weights == adapter.weights && known.alpha == adapter.alpha;
            match self.adapters.iter_mut().find(same) {
                Some(known) => known.scale += adapter.scale,
                None => self.adapters.push(adapter),
            }
        }
        self.adapters.retain(|adapter| adapter.scale != 0.0);
        self.adapters.sort_by(|one, other| one.weights.cmp(&other.weights).then(one.scale.total_cmp(&other.scale)));
    }

    pub(crate) fn set_directions(&mut self, directions: Option<Fingerprint>) {
        self.directions = directions;
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let adapters = self.adapters.iter().map(|adapter| format!("adapter {} at {}", adapter.weights, adapter.scale));
        let directions = self.directions.iter().map(|directions| format!("control vectors {directions}"));
        let all: Vec<_> = adapters.chain(directions).collect();
        formatter.write_str(if all.is_empty() { "no adapters" } else { "" })?;
        formatter.write_str(&all.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_adapters_at_a_scale_of_zero_make_no_difference() {
        let adapter =
            |weights, scale| AppliedAdapter { weights: Fingerprint::of_text(weights), alpha: Some(16.0), scale };
        let (mut one, mut other) = (Applied::default(), Applied::default());
        one.set_adapters([adapter("a", 0.5), adapter("b", 1.0)]);
        other.set_adapters([adapter("b", 1.0), adapter("c", 0.0), adapter("a", 0.5)]);
        assert_eq!(one, other);
        other.set_adapters([adapter("b", 0.9), adapter("a", 0.5)]);
        assert_ne!(one, other);
        other.set_adapters([adapter("a", 0.25), adapter("b", 1.0), adapter("a", 0.25)]);
        assert_eq!(one, other);
        assert_eq!(one.to_string(), "adapter a at 0.5, adapter b at 1");
        assert_eq!(Applied::default().to_string(), "no adapters");
    }
}
