//! The file format: magic, version, a header in JSON, tokens and caches, and a BLAKE3 digest of all that.
//!
//! ```text
//! "GGUFSTAT" | version: u32 | header length: u64 | header | per sequence: tokens (u32 each), cache | forks | digest: 32 bytes
//! ```
//!
//! Numbers are little-endian. The digest is checked before anything else is looked at.

use serde::{Deserialize, Serialize};

use super::{Applied, SequenceState, State, StateError};
use crate::{
    backend::{SequenceId, Token},
    gguf::Fingerprint,
};

const MAGIC: &[u8; 8] = b"GGUFSTAT";
const VERSION: u32 = 1;
const DIGEST: usize = 32;

#[derive(Serialize, Deserialize)]
struct Header {
    model: Fingerprint,
    applied: Applied,
    format: String,
    sequences: Vec<Entry>,
    forks_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    id: SequenceId,
    tokens: u64,
    undecoded: Option<Token>,
    cache_bytes: u64,
}

pub(super) fn write(state: &State) -> Vec<u8> {
    let entry = |sequence: &SequenceState| Entry {
        id: sequence.id,
        tokens: sequence.tokens.len() as u64,
        undecoded: sequence.undecoded,
        cache_bytes: sequence.cache.len() as u64,
    };
    let header = Header {
        model: state.model.clone(),
        applied: state.applied.clone(),
        format: state.format.clone(),
        sequences: state.sequences.iter().map(entry).collect(),
        forks_bytes: state.forks.len() as u64,
    };
    let header = serde_json::to_vec(&header).expect("texts and numbers are JSON");
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((header.len() as u64).to_le_bytes());
    bytes.extend(header);
    for sequence in &state.sequences {
        bytes.extend(sequence.tokens.iter().flat_map(|token| token.to_le_bytes()));
        bytes.extend(&sequence.cache);
    }
    bytes.extend(&state.forks);
    let digest = blake3::hash(&bytes);
    bytes.extend(digest.as_bytes());
    bytes
}

pub(super) fn read(bytes: &[u8]) -> Result<State, StateError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(StateError::NotAState)?;
    let (version, _) = rest.split_first_chunk().ok_or(StateError::Damaged)?;
    let found = u32::from_le_bytes(*version);
    if found != VERSION {
        return Err(StateError::Version { found, supported: VERSION });
    }
    let (content, digest) = bytes.split_last_chunk::<DIGEST>().ok_or(StateError::Damaged)?;
    if blake3::hash(content) != *digest {
        return Err(StateError::Damaged);
    }
    parse(&content[MAGIC.len() + size_of::<u32>()..]).ok_or(StateError::Damaged)
}

fn parse(mut rest: &[u8]) -> Option<State> {
    let mut take = |length: u64| -> Option<&[u8]> {
        let (taken, left) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        rest = left;
        Some(taken)
    };
    let length = u64::from_le_bytes(take(size_of::<u64>() as u64)?.try_into().ok()?);
    let mut header: Header = serde_json::from_slice(take(length)?).ok()?;
    let mut sequences = Vec::new();
    for Entry { id, tokens, undecoded, cache_bytes } in header.sequences.drain(..) {
        let tokens = take(tokens.checked_mul(size_of::<Token>() as u64)?)?;
        let (tokens, _) = tokens.as_chunks();
        let tokens = tokens.iter().map(|token| Token::from_le_bytes(*token)).collect();
        sequences.push(SequenceState { id, tokens, undecoded, cache: take(cache_bytes)?.to_vec() });
    }
    let forks = take(header.forks_bytes)?.to_vec();
    let Header { model, applied, format, .. } = header;
    rest.is_empty().then_some(State { model, applied, format, sequences, forks })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        let sequence = |id, tokens: &[Token], cache: &[u8]| SequenceState {
            id,
            tokens: tokens.to_vec(),
            undecoded: Some(9),
            cache: cache.to_vec(),
        };
        State {
            model: Fingerprint::of_text("m"),
            applied: Applied::default(),
            format: "engine 1".to_owned(),
            sequences: vec![sequence(0, &[1, 2, 3], b"abc"), sequence(4, &[], b"")],
            forks: b"both".to_vec(),
        }
    }

    #[test]
    fn a_state_comes_back_as_it_was() {
        assert_eq!(read(&write(&state())).unwrap(), state());
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_noticed() {
        let bytes = write(&state());
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "cut at {length}");
        }
        for place in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[place] ^= 0x20;
            assert!(read(&changed).is_err(), "changed at {place}");
        }
        assert!(matches!(read(b"GGUF and something else"), Err(StateError::NotAState)));
        assert!(matches!(read(&[&bytes[..], b"more"].concat()), Err(StateError::Damaged)));
    }

    #[test]
    fn lengths_that_lie_are_noticed_though_the_digest_fits() {
        let header = br#"{"model": "m", "applied": {"adapters": [], "directions": null}, "format": "", "forks_bytes": 0, "sequences": [{"id": 0, "tokens": 4611686018427387905, "undecoded": null, "cache_bytes": 0}]}"#;
        let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes(), &(header.len() as u64).to_le_bytes(), header].concat();
        bytes.extend(*blake3::hash(&bytes).as_bytes());
        assert!(matches!(read(&bytes), Err(StateError::Damaged)));
    }
}
