//! The KV cache: what each sequence remembers, in F32.

/// Keys and values of one sequence.
#[derive(Debug, Clone)]
pub(super) struct Sequence {
    /// Tokens that finished passes have left.
    length: usize,
    /// Floats of a token's keys, and of its values.
    width: usize,
    layers: Vec<KeysAndValues>,
}

/// One layer's keys and values, a row of `width` floats for each position.
#[derive(Debug, Clone, Default)]
pub(super) struct KeysAndValues {
    pub(super) keys: Vec<f32>,
    pub(super) values: Vec<f32>,
}

impl Sequence {
    /// An empty sequence of a model with `n_layer` layers.
    pub(super) fn new(n_layer: usize, width: usize) -> Self {
        Self { length: 0, width, layers: vec![KeysAndValues::default(); n_layer] }
    }

    /// Number of tokens.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// What `layer` remembers, the rows of a pass that is under way included.
    pub(super) fn layer(&self, layer: usize) -> &KeysAndValues {
        &self.layers[layer]
    }

    /// Appends a token's keys and values to `layer`; [`commit`](Self::commit) makes them part of the sequence.
    pub(super) fn append(&mut self, layer: usize, keys: &[f32], values: &[f32]) {
        let layer = &mut self.layers[layer];
        layer.keys.extend_from_slice(keys);
        layer.values.extend_from_slice(values);
    }

    /// Takes over the `tokens` that a pass has appended to every layer.
    pub(super) fn commit(&mut self, tokens: usize) {
        self.length += tokens;
    }

    /// Forgets what a broken-off pass has appended.
    pub(super) fn roll_back(&mut self) {
        self.truncate(self.length);
    }

    /// Removes the tokens `from` to before `to`. `moved` is given the keys of those after them, in each layer.
    pub(super) fn remove(&mut self, from: usize, to: usize, moved: impl Fn(&mut [f32])) {
        let (begin, end) = (from * self.width, to * self.width);
        for layer in &mut self.layers {
            layer.keys.drain(begin..end);
            layer.values.drain(begin..end);
            moved(&mut layer.keys[begin..]);
        }
        self.length -= to - from;
    }

    /// Keeps the first `length` tokens.
    pub(super) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
        for layer in &mut self.layers {
            layer.keys.truncate(self.length * self.width);
            layer.values.truncate(self.length * self.width);
        }
    }
}
