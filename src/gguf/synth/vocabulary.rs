//! A tokenizer that llama.cpp accepts.
//!
//! Both kinds know every byte, so that any text can be tokenised and comes back unchanged, and pieces of words. A piece
//! is the piece before it and one more character, so that merging pair by pair reaches all of them.

use std::collections::HashSet;

use crate::gguf::Writer;

/// Kinds of tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokenizer {
    /// SentencePiece with byte fallback, as in Llama 2: `tokenizer.ggml.model` is `llama`.
    SentencePiece,
    /// Byte-pair encoding with the pre-tokenizer of SmolLM2: `tokenizer.ggml.model` is `gpt2`.
    BytePair,
}

/// Both kinds begin with this many control tokens.
pub(super) const CONTROL_TOKENS: u32 = 3;

/// What the pieces are made of; the common words come first, as in a trained vocabulary.
const WORDS: &[&str] = &[
    "the", "of", "and", "to", "in", "is", "that", "it", "was", "for", "on", "are", "with", "as", "his", "they", "be",
    "at", "one", "have", "this", "from", "or", "had", "by", "hot", "but", "some", "what", "there", "we", "can", "out",
    "other", "were", "all", "your", "when", "up", "use", "word", "how", "said", "an", "each", "she", "which",
];

/// Characters that have a token of their own beside the bytes.
const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'\"-:;()ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// Token types of `tokenizer.ggml.token_type`: `llama_token_type` of llama.h.
mod kind {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const BYTE: i32 = 6;
}

/// The fewest tokens that make a vocabulary: control tokens, bytes and, for SentencePiece, letters.
pub(super) fn least_tokens(tokenizer: Tokenizer) -> usize {
    match tokenizer {
        Tokenizer::SentencePiece => CONTROL_TOKENS as usize + 256 + 1 + LETTERS.len(),
        Tokenizer::BytePair => CONTROL_TOKENS as usize + 256,
    }
}

/// Sets the keys `tokenizer.*` of a vocabulary of `n_vocab` tokens, at least [`least_tokens`].
pub(super) fn set_keys(writer: &mut Writer, tokenizer: Tokenizer, n_vocab: usize) {
    match tokenizer {
        Tokenizer::SentencePiece => set_sentence_piece(writer, n_vocab),
        Tokenizer::BytePair => set_byte_pair(writer, n_vocab),
    }
}

fn set_sentence_piece(writer: &mut Writer, n_vocab: usize) {
    const SPACE: char = '\u{2581}';
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
    let mut kinds = vec![kind::UNKNOWN, kind::CONTROL, kind::CONTROL];
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    kinds.resize(tokens.len(), kind::BYTE);
    let without_score = tokens.len();
    tokens.push(SPACE.to_string());
    tokens.extend(LETTERS.chars().map(String::from));
    let missing = n_vocab - tokens.len();
    tokens.extend(merges(SPACE).take(missing).map(|(left, right)| format!("{left}{right}")));
    kinds.resize(tokens.len(), kind::NORMAL);
    // Merging prefers the higher score: earlier pieces win, as in a trained vocabulary.
    let scores: Vec<f32> = (0..tokens.len()).map(|token| -(token.saturating_sub(without_score) as f32)).collect();
    writer
        .set("tokenizer.ggml.model", "llama")
        .set("tokenizer.ggml.pre", "default")
        .set("tokenizer.ggml.tokens", tokens)
        .set("tokenizer.ggml.scores", scores)
        .set("tokenizer.ggml.token_type", kinds)
        .set("tokenizer.ggml.bos_token_id", 1_u32)
        .set("tokenizer.ggml.eos_token_id", 2_u32)
        .set("tokenizer.ggml.unknown_token_id", 0_u32)
        .set("tokenizer.ggml.add_bos_token", true)
        .set("tokenizer.ggml.add_eos_token", false)
        .set("tokenizer.ggml.add_space_prefix", true);
}

fn set_byte_pair(writer: &mut Writer, n_vocab: usize) {
    let mut tokens: Vec<String> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(str::to_owned).into();
    let mut kinds = vec![kind::CONTROL; tokens.len()];
    tokens.extend((0..=255).map(|byte| visible(byte).to_string()));
    let missing = n_vocab - tokens.len();
    let merges: Vec<(String, char)> = merges(visible(b' ')).take(missing).collect();
    tokens.extend(merges.iter().map(|(left, right)| format!("{left}{right}")));
    kinds.resize(tokens.len(), kind::NORMAL);
    let merges: Vec<String> = merges.into_iter().map(|(left, right)| format!("{left} {right}")).collect();
    writer
        .set("tokenizer.ggml.model", "gpt2")
        .set("tokenizer.ggml.pre", "smollm")
        .set("tokenizer.ggml.tokens", tokens)
        .set("tokenizer.ggml.token_type", kinds)
        .set("tokenizer.ggml.merges", merges)
        .set("tokenizer.ggml.bos_token_id", 1_u32)
        .set("tokenizer.ggml.eos_token_id", 2_u32)
        .set("tokenizer.ggml.unknown_token_id", 0_u32)
        .set("tokenizer.ggml.padding_token_id", 2_u32)
        .set("tokenizer.ggml.add_bos_token", false);
}

/// GPT-2's character for a byte: itself where it is printable, else the next one from U+0100 on.
fn visible(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&other| !printable(other)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Pieces of two and more characters without end: the prefixes of [`WORDS`], then those of made-up words. Each is a
/// piece that came before, or one character, and one more character.
fn merges(space: char) -> impl Iterator<Item = (String, char)> {
    let mut seen = HashSet::new();
    let words = WORDS.iter().map(|&word| word.to_owned()).chain((0..).map(made_up_word));
    words
        .flat_map(move |word| prefixes(&format!("{space}{word}")))
        .filter(move |(left, right)| seen.insert(format!("{left}{right}")))
}

/// `number` in syllables.
fn made_up_word(number: usize) -> String {
    const CONSONANTS: &[u8] = b"bdfgklmnprstvz";
    const VOWELS: &[u8] = b"aeiou";
    let mut word = String::new();
    // Counted from the second syllable on, so that no word is one syllable only.
    let mut rest = number + CONSONANTS.len() * VOWELS.len();
    while rest > 0 {
        word.push(char::from(CONSONANTS[rest % CONSONANTS.len()]));
        rest /= CONSONANTS.len();
        word.push(char::from(VOWELS[rest % VOWELS.len()]));
        rest /= VOWELS.len();
    }
    word
}

fn prefixes(word: &str) -> Vec<(String, char)> {
    word.char_indices().skip(1).map(|(end, character)| (word[..end].to_owned(), character)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_character_of_its_own() {
        let characters: HashSet<char> = (0..=255).map(visible).collect();
        assert_eq!(characters.len(), 256);
        assert_eq!((visible(b' '), visible(b'\n'), visible(b'a')), ('\u{120}', '\u{10a}', 'a'));
    }

    #[test]
    fn a_piece_is_an_earlier_piece_and_one_character() {
        let mut pieces = HashSet::new();
        for (left, right) in merges('_').take(5000) {
            assert!(left.chars().count() == 1 || pieces.contains(&left), "{left} before {left}{right}");
            assert!(pieces.insert(format!("{left}{right}")), "{left}{right} came twice");
        }
    }
}
