//! What the user allows: any backend, one, the first of several, all but some.

use std::{fmt, str::FromStr};

use super::registry::is_id;

/// The word for [`Policy::Automatic`].
pub(super) const AUTOMATIC: &str = "auto";

/// Which backends may run a model.
///
/// A policy is never bent: a backend that it names and that is not compiled in or cannot run here is an error, and
/// one that it rules out is not even asked for its devices.
///
/// An empty list says nothing, like [`Policy::Automatic`].
///
/// Its text form is what `GGUF_LOADER_BACKEND` and `--backend` take:
///
/// ```
/// use gguf_loader::select::Policy;
///
/// assert_eq!("auto".parse(), Ok(Policy::Automatic));
/// assert_eq!("cpu-haswell".parse(), Ok(Policy::Named("cpu-haswell".into())));
/// assert_eq!("cpu-zen4, cpu-haswell".parse(), Ok(Policy::Preference(vec!["cpu-zen4".into(), "cpu-haswell".into()])));
/// assert_eq!("!cpu-zen4,!reference".parse(), Ok(Policy::Deny(vec!["cpu-zen4".into(), "reference".into()])));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub enum Policy {
    /// The fastest by prediction.
    #[default]
    Automatic,
    /// This one or none.
    Named(String),
    /// The first of these that can run; no other.
    Preference(Vec<String>),
    /// The fastest by prediction that is not one of these.
    Deny(Vec<String>),
}

impl Policy {
    /// The backends that the policy spells out.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Automatic => &[],
            Self::Named(id) => std::slice::from_ref(id),
            Self::Preference(ids) | Self::Deny(ids) => ids,
        }
    }

    /// Whether a backend of this id may run.
    pub fn permits(&self, id: &str) -> bool {
        let named = || self.names().iter().any(|name| name == id);
        match self {
            Self::Automatic => true,
            Self::Named(_) => named(),
            Self::Preference(ids) => ids.is_empty() || named(),
            Self::Deny(_) => !named(),
        }
    }

    /// The place of `id` in the user's order: a lower rank wins whatever its speed. 0 where only speed counts.
    pub(super) fn rank(&self, id: &str) -> usize {
        match self {
            Self::Preference(ids) => ids.iter().position(|name| name == id).unwrap_or(ids.len()),
            Self::Automatic | Self::Named(_) | Self::Deny(_) => 0,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if matches!(self, Self::Deny(_)) { "!" } else { "" };
        match self.names() {
            [] => formatter.write_str(AUTOMATIC),
            [first, rest @ ..] => {
                write!(formatter, "{sign}{first}")?;
                rest.iter().try_for_each(|name| write!(formatter, ",{sign}{name}"))
            }
        }
    }
}

impl serde::Serialize for Policy {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        if text.trim() == AUTOMATIC {
            return Ok(Self::Automatic);
        }
        let mut named = Vec::new();
        let mut denied = Vec::new();
        for entry in text.split(',').map(str::trim) {
            let (list, id) = match entry.strip_prefix('!') {
                Some(id) => (&mut denied, id.trim()),
                None => (&mut named, entry),
            };
            if !is_id(id) {
                return Err(PolicyError::Name { entry: entry.to_owned() });
            }
            if list.iter().any(|other| other == id) {
                return Err(PolicyError::Repeated { id: id.to_owned() });
            }
            list.push(id.to_owned());
        }
        match (named.len(), denied.len()) {
            (1, 0) => Ok(Self::Named(named.remove(0))),
            (_, 0) => Ok(Self::Preference(named)),
            (0, _) => Ok(Self::Deny(denied)),
            _ => Err(PolicyError::Mixed),
        }
    }
}

/// Why a text is not a [`Policy`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// An entry is not the id of a backend.
    #[error("`{entry}` is not a backend id; write `auto`, `cpu-haswell`, `cpu-zen4,cpu-haswell` or `!cpu-zen4`")]
    Name {
        /// The entry between its commas.
        entry: String,
    },
    /// A backend is listed twice.
    #[error("`{id}` is listed twice")]
    Repeated {
        /// The id.
        id: String,
    },
    /// Wanted and denied backends stand in one list: a list of wanted ones denies all others already.
    #[error("backends that are wanted and backends that are denied (`!`) cannot be mixed")]
    Mixed,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Policy, PolicyError> {
        text.parse()
    }

    #[test]
    fn each_form_reads_back_what_it_writes() {
        for text in ["auto", "cpu-x64", "cpu-zen4,cpu-haswell", "!cpu-zen4", "!cpu-zen4,!reference"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn blanks_around_entries_do_not_count() {
        assert_eq!(parse(" cpu-zen4 ,\tcpu-x64\n"), parse("cpu-zen4,cpu-x64"));
        assert_eq!(parse("! cpu-zen4"), parse("!cpu-zen4"));
    }

    #[test]
    fn wanted_and_denied_backends_do_not_mix() {
        assert_eq!(parse("cpu-zen4,!cpu-x64"), Err(PolicyError::Mixed));
    }

    #[test]
    fn what_is_not_an_id_is_named_in_the_error() {
        for (text, entry) in
            [("", ""), ("a,,b", ""), ("CPU-ZEN4", "CPU-ZEN4"), ("a,auto", "auto"), ("!auto", "!auto"), ("!!a", "!!a")]
        {
            assert_eq!(parse(text), Err(PolicyError::Name { entry: entry.into() }), "{text}");
        }
    }

    #[test]
    fn a_repeated_backend_is_an_error() {
        assert_eq!(parse("a,b,a"), Err(PolicyError::Repeated { id: "a".into() }));
        assert_eq!(parse("!a,!a"), Err(PolicyError::Repeated { id: "a".into() }));
    }

    #[test]
    fn a_list_permits_its_members_and_a_denial_all_others() {
        let preference = parse("a,b").unwrap();
        assert!(preference.permits("a") && preference.permits("b") && !preference.permits("c"));
        let deny = parse("!a,!b").unwrap();
        assert!(!deny.permits("a") && !deny.permits("b") && deny.permits("c"));
    }
}
