//! The compiled backends: which there are, and what was probably meant by a name that is not among them.

use std::{collections::BTreeMap, env::consts::ARCH, sync::OnceLock};

use crate::{
    backend::{Backend, registered},
    select::features::{self, KnownBackend},
};

/// The backends that this program was built with, sorted by id.
#[derive(Debug, Clone)]
pub struct Registry {
    backends: Vec<&'static dyn Backend>,
}

impl Registry {
    /// Everything that [`register_backend!`](crate::register_backend) registered; collected once.
    ///
    /// # Errors
    ///
    /// [`RegistryError`]: two backends of one name, or a name that a policy cannot spell. A defect of the build.
    pub fn global() -> Result<&'static Self, RegistryError> {
        static GLOBAL: OnceLock<Result<Registry, RegistryError>> = OnceLock::new();
        GLOBAL.get_or_init(|| Self::from_backends(registered())).as_ref().map_err(Clone::clone)
    }

    /// A registry of these backends, in whatever order.
    ///
    /// # Errors
    ///
    /// As [`global`](Self::global).
    pub fn from_backends(backends: impl IntoIterator<Item = &'static dyn Backend>) -> Result<Self, RegistryError> {
        let mut by_id = BTreeMap::new();
        for backend in backends {
            let id = backend.id();
            if !is_id(id) {
                return Err(RegistryError::Name { id });
            }
            if by_id.insert(id, backend).is_some() {
                return Err(RegistryError::Duplicate { id });
            }
        }
        Ok(Self { backends: by_id.into_values().collect() })
    }

    /// The backends by ascending id.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'static dyn Backend> + '_ {
        self.backends.iter().copied()
    }

    /// The ids in ascending order.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = &'static str> + '_ {
        self.iter().map(|backend| backend.id())
    }

    /// Number of backends.
    pub fn len(&self) -> usize {
        self.backends.len()
    }

    /// Whether no backend was compiled in.
    pub fn is_empty(&self) -> bool {
        self.backends.is_empty()
    }

    /// The backend of this id.
    ///
    /// # Errors
    ///
    /// [`UnknownBackend`] says what would bring it, or what was probably meant.
    pub fn find(&self, id: &str) -> Result<&'static dyn Backend, UnknownBackend> {
        match self.backends.binary_search_by(|backend| backend.id().cmp(id)) {
            Ok(index) => Ok(self.backends[index]),
            Err(_) => Err(self.unknown(id)),
        }
    }

    fn unknown(&self, id: &str) -> UnknownBackend {
        let known = features::backend(id);
        let suggestion = match known {
            Some(_) => None,
            // Compiled ids come first, so that of two equally close names the usable one is proposed.
            None => closest(id, self.ids().chain(features::BACKENDS.iter().map(|backend| backend.id))),
        };
        UnknownBackend { id: id.to_owned(), compiled: self.ids().collect(), known, suggestion }
    }
}

/// Why backends do not make a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// Two backends have one id: rename one, or link only one of the crates that register it.
    #[error("two backends are registered as `{id}`")]
    Duplicate {
        /// The id that both have.
        id: &'static str,
    },
    /// The id cannot be written in a [`Policy`](super::Policy): use lower-case letters, digits, `-`, `_` and `.`.
    #[error("`{id}` is not a backend id: lower-case letters, digits, `-`, `_` and `.`, and not `auto`")]
    Name {
        /// The offending id.
        id: &'static str,
    },
}

/// A name that no compiled backend has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no backend `{id}` in this program{}; compiled: {}", self.advice(), self.listed())]
pub struct UnknownBackend {
    /// The name that was asked for.
    pub id: String,
    /// The ids that are compiled in, in ascending order.
    pub compiled: Vec<&'static str>,
    /// The backend of this name that the library has, but this program was built without.
    pub known: Option<&'static KnownBackend>,
    /// The name that was probably meant.
    pub suggestion: Option<&'static str>,
}

impl UnknownBackend {
    fn advice(&self) -> String {
        match (self.known, self.suggestion) {
            (Some(KnownBackend { architecture: Some(other), .. }), _) if *other != ARCH => {
                format!(": it is for {other}, the program is for {ARCH}")
            }
            (Some(known), _) => format!(": build it with the cargo feature `{}`", known.features.join("` and `")),
            (None, Some(suggestion)) => format!(": did you mean `{suggestion}`?"),
            (None, None) => String::new(),
        }
    }

    fn listed(&self) -> String {
        if self.compiled.is_empty() { "none".to_owned() } else { self.compiled.join(", ") }
    }
}

/// Whether a policy can spell the id.
pub(super) fn is_id(id: &str) -> bool {
    let spelled = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    !id.is_empty() && id != super::policy::AUTOMATIC && id.bytes().all(spelled)
}

/// The name nearest to `id`: within a third of its letters, or `id` with a prefix (`zen4` for `cpu-zen4`).
fn closest(id: &str, names: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let id = id.to_ascii_lowercase();
    let limit = (id.chars().count() / 3).max(1);
    let distance = |name: &'static str| {
        let is_suffix = !id.is_empty() && name.strip_suffix(id.as_str()).is_some_and(|prefix| prefix.ends_with('-'));
        if is_suffix { 0 } else { strsim::damerau_levenshtein(&id, name) }
    };
    names
        .map(|name| (distance(name), name))
        .filter(|&(distance, _)| distance <= limit)
        .min_by_key(|&(d, _)| d)
        .map(|(_, name)| name)
}
