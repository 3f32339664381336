//! One pass over the weights: tokens in, logits out.
//!
//! The graph is Llama's (H. Touvron et al., arXiv:2302.13971) with grouped-query attention (J. Ainslie et al.,
//! arXiv:2305.13245); BitNet's differs from it as [`Architecture`](super::architecture::Architecture) says. Activations are rows of F32, one for each token of the pass, one behind the other.

use super::{
    architecture::RopePairs,
    cache::Sequence,
    hyperparameters::Hyperparameters,
    matrix::{dot, for_each_run},
    transformer::Transformer,
};
use crate::backend::{BatchItem, CancelToken};

/// The pass was broken off; the sequences hold what they held before.
#[derive(Debug)]
pub(super) struct Cancelled;

/// Runs `items` through the model and appends them to their sequences. Returns the logits of those that ask for them,
/// one row behind the other.
///
/// The positions must continue the sequences.
pub(super) fn run(
    model: &Transformer,
    sequences: &mut [Sequence],
    items: &[BatchItem],
    threads: usize,
    cancel: &CancelToken,
) -> Result<Vec<f32>, Cancelled> {
    let hyperparameters = &model.hyperparameters;
    let n_embd = hyperparameters.n_embd;
    let activation = hyperparameters.architecture.activation();
    let rotations = rotations(model, items);
    let mut hidden = vec![0.0; items.len() * n_embd];
    for (row, item) in hidden.chunks_exact_mut(n_embd).zip(items) {
        model.embedding.read_row(item.token as usize, row);
    }
    for (index, layer) in model.layers.iter().enumerate() {
        if cancel.is_cancelled() {
            sequences.iter_mut().for_each(Sequence::roll_back);
            return Err(Cancelled);
        }
        let normed = rms_norm(&hidden, &layer.attention_norm, hyperparameters.norm_epsilon);
        let mut queries = layer.query.apply(&normed, threads);
        let mut keys = layer.key.apply(&normed, threads);
        let values = layer.value.apply(&normed, threads);
        rotate(&mut queries, hyperparameters.n_head, hyperparameters, &rotations);
        rotate(&mut keys, hyperparameters.n_head_kv, hyperparameters, &rotations);
        let kv_width = hyperparameters.kv_width();
        for ((item, keys), values) in items.iter().zip(keys.chunks_exact(kv_width)).zip(values.chunks_exact(kv_width)) {
            sequences[item.sequence as usize].append(index, keys, values);
        }
        let mut attended = attention(hyperparameters, sequences, index, items, &queries, threads);
        if let Some(norm) = &layer.attention_sub_norm {
            attended = rms_norm(&attended, norm, hyperparameters.norm_epsilon);
        }
        add(&mut hidden, &layer.attention_output.apply(&attended, threads));

        let normed = rms_norm(&hidden, &layer.ffn_norm, hyperparameters.norm_epsilon);
        let mut gated = layer.gate.apply(&normed, threads);
        let up = layer.up.apply(&normed, threads);
        gated.iter_mut().zip(&up).for_each(|(gate, up)| *gate = activation(*gate) * up);
        if let Some(norm) = &layer.ffn_sub_norm {
            gated = rms_norm(&gated, norm, hyperparameters.norm_epsilon);
        }
        add(&mut hidden, &layer.down.apply(&gated, threads));
    }
    for item in items {
        sequences[item.sequence as usize].commit(1);
    }

    let wanted: Vec<f32> = hidden
        .chunks_exact(n_embd)
        .zip(items)
        .filter(|(_, item)| item.logits)
        .flat_map(|(row, _)| row)
        .copied()
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    Ok(model.logits(&rms_norm(&wanted, &model.output_norm, hyperparameters.norm_epsilon), threads))
}

/// Causal attention of every token over its own sequence.
fn attention(
    hyperparameters: &Hyperparameters,
    sequences: &[Sequence],
    layer: usize,
    items: &[BatchItem],
    queries: &[f32],
    threads: usize,
) -> Vec<f32> {
    let &Hyperparameters { n_head, n_head_kv, head_dim, attention_scale, .. } = hyperparameters;
    let kv_width = hyperparameters.kv_width();
    let longest = items.iter().map(|item| item.position as usize + 1).max().unwrap_or(0);
    let mut outputs = vec![0.0; queries.len()];
    for_each_run(&mut outputs, head_dim, 2 * longest * head_dim, threads, |first, run| {
        for (offset, output) in run.chunks_exact_mut(head_dim).enumerate() {
            let (token, head) = ((first + offset) / n_head, (first + offset) % n_head);
            let item = &items[token];
            let visible = item.position as usize + 1;
            let memory = sequences[item.sequence as usize].layer(layer);
            // The keys and values that this head shares with its group start here in every row.
            let shared = head / (n_head / n_head_kv) * head_dim;
            let of_head = |position: usize| position * kv_width + shared..position * kv_width + shared + head_dim;
            let query = &queries[(first + offset) * head_dim..][..head_dim];
            let mut weights: Vec<f32> =
                (0..visible).map(|position| attention_scale * dot(query, &memory.keys[of_head(position)])).collect();
            softmax(&mut weights);
            for (position, weight) in weights.iter().enumerate() {
                let value = &memory.values[of_head(position)];
                output.iter_mut().zip(value).for_each(|(output, value)| *output += weight * value);
            }
        }
    });
    outputs
}

/// Cosine and sine for each pair of each token.
fn rotations(model: &Transformer, items: &[BatchItem]) -> Vec<(f32, f32)> {
    let of_item = |item: &BatchItem| {
        let position = f64::from(item.position);
        model.rope_frequencies.iter().map(move |frequency| {
            let (sin, cos) = (position * frequency).sin_cos();
            (cos as f32, sin as f32)
        })
    };
    items.iter().flat_map(of_item).collect()
}

/// Turns keys that RoPE has turned to what they are `positions` further to the front.
pub(super) fn turn_back(model: &Transformer, keys: &mut [f32], positions: usize) {
    let hyperparameters = &model.hyperparameters;
    let angle = |frequency: &f64| {
        let (sin, cos) = (positions as f64 * frequency).sin_cos();
        (cos as f32, -sin as f32)
    };
    let rotations: Vec<(f32, f32)> = model.rope_frequencies.iter().map(angle).collect();
    for head in keys.chunks_exact_mut(hyperparameters.head_dim) {
        rotate_head(head, hyperparameters.architecture.rope_pairs(), &rotations);
    }
}

/// RoPE: turns pairs of elements of every head by the angles of their token.
fn rotate(rows: &mut [f32], heads: usize, hyperparameters: &Hyperparameters, rotations: &[(f32, f32)]) {
    let pairs = hyperparameters.rope_dimensions / 2;
    for (token, row) in rows.chunks_exact_mut(heads * hyperparameters.head_dim).enumerate() {
        let rotations = &rotations[token * pairs..][..pairs];
        for head in row.chunks_exact_mut(hyperparameters.head_dim) {
            rotate_head(head, hyperparameters.architecture.rope_pairs(), rotations);
        }
    }
}

/// Turns each pair by the cosine and sine of its angle; elements beyond the last pair stay.
fn rotate_head(head: &mut [f32], pairs: RopePairs, rotations: &[(f32, f32)]) {
    for (pair, (cos, sin)) in rotations.iter().enumerate() {
        let (first, second) = match pairs {
            RopePairs::Neighbours => (2 * pair, 2 * pair + 1),
            RopePairs::Halves => (pair, pair + rotations.len()),
        };
        let (x, y) = (head[first], head[second]);
        (head[first], head[second]) = (x * cos - y * sin, x * sin + y * cos);
    }
}

/// Scales each row to a mean square of one, then element by element.
///
/// B. Zhang, R. Sennrich: Root mean square layer normalization, arXiv:1910.07467.
fn rms_norm(rows: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let mut normed = Vec::with_capacity(rows.len());
    for row in rows.chunks_exact(weight.len()) {
        let mean_square = dot(row, row) / row.len() as f32;
        let scale = 1.0 / (mean_square + epsilon).sqrt();
        normed.extend(row.iter().zip(weight).map(|(value, weight)| value * scale * weight));
    }
    normed
}

/// `exp(x)` over its sum, with the largest `x` taken off first so that nothing overflows.
fn softmax(values: &mut [f32]) {
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|value| *value = (*value - largest).exp());
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|value| *value /= sum);
}

fn add(left: &mut [f32], right: &[f32]) {
    left.iter_mut().zip(right).for_each(|(left, right)| *left += right);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_neighbours_or_lie_half_the_rotated_elements_apart() {
        // A quarter turn and none: (x, y) becomes (-y, x).
        let rotations = [(0.0, 1.0), (1.0, 0.0)];
        let rotated = |pairs| {
            let mut head = [1.0, 2.0, 3.0, 4.0, 5.0];
            rotate_head(&mut head, pairs, &rotations);
            head
        };
        assert_eq!(rotated(RopePairs::Neighbours), [-2.0, 1.0, 3.0, 4.0, 5.0]);
        assert_eq!(rotated(RopePairs::Halves), [-3.0, 2.0, 1.0, 4.0, 5.0]);
    }
}
