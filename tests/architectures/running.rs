//! What only some architectures do, through the public API: learned positions, encoders, states that cannot go back.

use std::num::NonZeroU32;

use gguf_loader::{
    Context, Model,
    backend::{Batch, CancelToken, ContextError, ContextOptions, DecodeError, SequenceEdit},
    generation::{GenerateError, GenerateRequest, Start, WhenFull},
};

use crate::{
    file::ModelFile,
    models::{CONTEXT, FAMILIES},
};

fn load(family: &str) -> Model {
    load_in(&tempfile::tempdir().expect("a temporary folder"), family)
}

fn build(family: &str) -> ModelFile {
    FAMILIES.iter().find(|(name, _)| *name == family).expect("a family").1()
}

/// The file stays for as long as the folder.
fn load_in(folder: &tempfile::TempDir, family: &str) -> Model {
    let path = folder.path().join("model.gguf");
    assert!(build(family).write(&path), "the model is written");
    let model = Model::load(&path).expect("the model loads");
    assert!(model.backend().starts_with("cpu-"), "{}", model.backend());
    model
}

fn options(length: u64) -> ContextOptions {
    let number = |value| NonZeroU32::new(value).expect("above zero");
    ContextOptions::default().with_length(number(length as u32)).with_threads(number(2))
}

/// Decodes `tokens` where the sequence ends; the logits after the last.
fn decode(context: &mut Context, tokens: &[u32]) -> Result<Vec<f32>, DecodeError> {
    let mut batch = Batch::new();
    batch.extend(tokens, context.next_position(0), 0);
    context.decode(&batch)?;
    Ok(context.logits(tokens.len() - 1).expect("a model with logits").to_vec())
}

fn prompt(length: u32) -> Vec<u32> {
    (0..length).map(|index| 3 + index * 7 % 250).collect()
}

/// The largest difference, in units of the largest logit.
fn distance(left: &[f32], right: &[f32]) -> f32 {
    let largest = left.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max) / largest
}

/// Stacked experts are multiplied in a way that the ternary kernels have not, whatever their weights are.
#[test]
#[cfg(feature = "bitnet")]
fn ternary_weights_in_experts_alone_are_not_for_the_ternary_kernels() {
    use std::ops::ControlFlow;

    use gguf_loader::{
        LoadError, LoadOptions,
        gguf::TensorType,
        select::{ChooseOptions, Policy},
    };

    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.gguf");
    let load = |ternary: &[&str]| {
        let mut file = build("mixtral");
        for tensor in &mut file.tensors {
            if ternary.iter().any(|name| tensor.name.ends_with(&format!(".{name}.weight"))) {
                tensor.tensor_type = TensorType::Q2_0;
            }
        }
        assert!(file.write(&path), "the model is written");
        let model = Model::load(&path).expect("the model loads");
        let logits = decode(&mut model.context(&options(64)).expect("the context opens"), &prompt(5));
        assert!(logits.expect("a prompt").iter().all(|logit| logit.is_finite()));
        model.backend().to_owned()
    };
    let backend = load(&["ffn_gate_exps", "ffn_up_exps"]);
    assert!(backend.starts_with("cpu-"), "{backend}");
    // Who forces them learns before the load that they have nothing to do.
    let forced = ChooseOptions::default().with_policy(Policy::Named(backend.replace("cpu-", "bitnet-")));
    let error = Model::load_with(&path, &LoadOptions::default().with_choose(forced), |_| ControlFlow::Continue(()));
    assert!(matches!(error, Err(LoadError::Choose(_))), "{error:?}");
    let backend = load(&["ffn_gate_exps", "ffn_up_exps", "attn_q", "attn_output"]);
    assert!(backend.starts_with("bitnet-"), "{backend}");
}

#[test]
fn learned_positions_are_used_up_to_the_last_and_no_further() {
    let model = load("gpt2");
    let error = model.context(&options(CONTEXT + 1)).expect_err("the table ends");
    assert!(matches!(error, ContextError::Length { limit, .. } if u64::from(limit) == CONTEXT), "{error}");
    let mut context = model.context(&options(CONTEXT)).expect("the whole table");
    let tokens = prompt(CONTEXT as u32);
    let (last, before) = tokens.split_last().expect("a prompt");
    decode(&mut context, before).expect("all but one position");
    let at_the_end = decode(&mut context, &[*last]).expect("the last position");
    let error = decode(&mut context, &[3]).expect_err("there is no further position");
    assert!(matches!(error, DecodeError::Batch(_) | DecodeError::ContextFull { .. }), "{error}");

    context.edit(SequenceEdit::Clear).expect("the cache can be emptied");
    let all_at_once = decode(&mut context, &tokens).expect("the whole context");
    assert!(distance(&at_the_end, &all_at_once) < 0.01, "{}", distance(&at_the_end, &all_at_once));
    // The same token elsewhere: positions count.
    context.edit(SequenceEdit::Clear).expect("the cache can be emptied");
    let at_the_start = decode(&mut context, &[*last]).expect("the first position");
    assert!(distance(&at_the_end, &at_the_start) > 0.05, "{}", distance(&at_the_end, &at_the_start));
}

#[test]
fn an_encoder_computes_and_says_that_it_has_no_logits() {
    for family in ["bert", "nomic-bert"] {
        let model = load(family);
        let mut context = model.context(&options(64)).expect("the context opens");
        for _ in 0..2 {
            let mut batch = Batch::new();
            batch.extend(&[2, 5, 6, 7, 3], 0, 0);
            context.decode(&batch).expect("an encoder takes a batch");
            assert!(context.logits(4).is_none(), "{family}");
            assert_eq!(context.next_position(0), 0, "{family} remembers nothing");
        }
        let error = context.generate("a b").map(|mut text| text.next());
        let is_refusal = match &error {
            Err(error) | Ok(Some(Err(error))) => matches!(error, GenerateError::NoMemory),
            _ => false,
        };
        assert!(is_refusal, "{family}: {error:?}");
        context.edit(SequenceEdit::Truncate { sequence: 0, from: 1 }).expect("there is nothing to forget");
    }
}

#[test]
fn a_recurrent_state_starts_afresh_after_a_cancellation() {
    for family in ["mamba", "rwkv6"] {
        let model = load(family);
        let cancel = CancelToken::new();
        let mut context = model.context(&options(4096).with_cancel(cancel.clone())).expect("the context opens");
        let tokens = prompt(12);
        let undisturbed = decode(&mut context, &tokens).expect("a prompt");

        // A state cannot lose its end; the whole of it can go.
        let truncated = context.edit(SequenceEdit::Truncate { sequence: 0, from: 6 });
        assert!(matches!(truncated, Err(DecodeError::SequenceEdit(_))), "{family}: {truncated:?}");
        assert_eq!(context.next_position(0), 12, "{family}");
        context.edit(SequenceEdit::Clear).expect("the state can be emptied");

        let long = prompt(2000);
        let cancelled = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(std::time::Duration::from_millis(2));
                cancel.cancel();
            });
            decode(&mut context, &long)
        });
        // A machine that is fast enough finishes first; what follows must hold all the same.
        assert!(matches!(cancelled, Ok(_) | Err(DecodeError::Cancelled)), "{family}: {cancelled:?}");
        assert_eq!(context.next_position(0), if cancelled.is_ok() { 2000 } else { 0 }, "{family}");
        cancel.reset();
        if cancelled.is_ok() {
            context.edit(SequenceEdit::Clear).expect("the state can be emptied");
        }
        let again = decode(&mut context, &tokens).expect("the context is usable");
        assert!(distance(&undisturbed, &again) < 1e-4, "{family}: {}", distance(&undisturbed, &again));
    }
}

#[test]
fn what_a_restored_window_does_not_hold_is_not_attended_to() {
    for family in ["gemma2", "gemma3"] {
        // A state names its model, for which the file is read again.
        let folder = tempfile::tempdir().expect("a temporary folder");
        let model = load_in(&folder, family);
        let tokens = prompt(60);
        let mut context = model.context(&options(128)).expect("the context opens");
        decode(&mut context, &tokens).expect("a prompt");
        let state = context.save().expect("it is saved");
        let mut restored = model.context(&options(128)).expect("the context opens");
        assert_eq!(restored.restore(&state).expect("it fits").kept_tokens, 60, "{family}");
        // The window is 16 tokens long, and what lay before it was not saved.
        let truncated = restored.edit(SequenceEdit::Truncate { sequence: 0, from: 30 });
        assert!(matches!(truncated, Err(DecodeError::SequenceEdit(_))), "{family}: {truncated:?}");
        assert_eq!(restored.next_position(0), 60, "{family}");
        let again = |context: &mut Context| decode(context, &[5, 6]).expect("it goes on");
        assert!(distance(&again(&mut restored), &again(&mut context)) < 1e-4, "{family}");
        // A prompt that begins alike is read anew.
        let request = GenerateRequest::new([&tokens[..30], &[7, 8]].concat()).with_stop_at_end(false);
        let request = request.with_max_tokens(NonZeroU32::MIN).with_start(Start::Reuse);
        let reread = restored.complete(&request).expect("it is read");
        assert_eq!(reread.usage.reused_tokens, 0, "{family}");
        // Where everything is there, the end can go.
        assert_eq!(context.complete(&request).expect("it is read").usage.reused_tokens, 30, "{family}");
        context.edit(SequenceEdit::Truncate { sequence: 0, from: 20 }).expect("nothing is missing");
        restored.edit(SequenceEdit::Truncate { sequence: 0, from: 20 }).expect("nothing is missing");
        assert!(distance(&again(&mut context), &again(&mut restored)) < 0.01, "{family}");
    }
}

#[test]
fn a_state_that_cannot_lose_its_middle_is_not_shifted() {
    for family in ["mamba", "rwkv6"] {
        let mut context = load(family).context(&options(64)).expect("the context opens");
        let request = GenerateRequest::new(prompt(5)).with_when_full(WhenFull::Shift { keep: 2 });
        assert_eq!(context.generate(request).err(), Some(GenerateError::CannotShift), "{family}");
    }
}
