//! Every environment variable that the library reads, declared in one place.
//!
//! Nothing else reads the environment, and nothing reads it on its own: a caller makes [`Knobs`] and passes on what
//! they say. An unset or empty variable stands for its default; a value that makes no sense is an error, never the default.
#![forbid(unsafe_code)]

use std::{
    borrow::Cow, collections::BTreeMap, error::Error, ffi::OsString, num::NonZeroU32, path::PathBuf, str::FromStr,
};

use etcetera::BaseStrategy;

use crate::{
    import::Cache,
    select::{Calibrate, ChooseOptions, Policy},
};

/// An environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Knob {
    /// The variable.
    pub name: &'static str,
    /// What it takes.
    pub allowed: &'static str,
    /// What an unset or empty variable means.
    pub default: &'static str,
    /// What it is for.
    pub help: &'static str,
}

/// Declares the knobs and the table of all of them.
macro_rules! knobs {
    ($($constant:ident, $name:literal, $allowed:literal, $default:literal, $help:literal;)*) => {
        $(#[doc = concat!("`", $name, "`: ", $help, ".")]
        pub const $constant: Knob = Knob { name: $name, allowed: $allowed, default: $default, help: $help };)*

        /// Every environment variable of the library.
        pub const ALL: &[Knob] = &[$($constant,)*];
    };
}

knobs! {
    BACKEND, "GGUF_LOADER_BACKEND", "auto, ID, ID,ID (first that can run) or !ID,!ID (all others)", "auto",
        "which backends may run a model";
    THREADS, "GGUF_LOADER_THREADS", "a whole number above 0", "the physical cores that the process may use",
        "compute threads of a context";
    CACHE, "GGUF_LOADER_CACHE", "a folder", "gguf-loader in the user's cache folder",
        "where downloads, calibrations and imported models are kept";
    IMPORT_BUDGET, "GGUF_LOADER_IMPORT_BUDGET", "bytes, with K, M, G or T for powers of 1024", "20G",
        "what all imported models together may take in the cache; those not used for longest go first";
    CALIBRATE, "GGUF_LOADER_CALIBRATE", "0, 1 or refresh", "0",
        "whether backends are measured before one is chosen";
    HISTORY, "GGUF_LOADER_HISTORY", "a file, or 0 for none", "history in gguf-loader in the user's state folder",
        "where the command-line program keeps what is typed in a chat at a terminal";
    LOG, "GGUF_LOADER_LOG", "a level or a tracing filter", "warn",
        "what the command-line program logs";
}

/// The values of all [knobs](ALL), read once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Knobs {
    values: BTreeMap<&'static str, OsString>,
}

impl Knobs {
    /// The values in this process's environment.
    pub fn from_environment() -> Self {
        Self::from_source(|name| std::env::var_os(name))
    }

    /// The values that `source` gives for the names in [`ALL`].
    pub fn from_source(source: impl Fn(&str) -> Option<OsString>) -> Self {
        let value = |knob: &Knob| Some((knob.name, source(knob.name).filter(|value| !value.is_empty())?));
        Self { values: ALL.iter().filter_map(value).collect() }
    }

    /// The value as it was given, for display; `None` means the default.
    pub fn value(&self, knob: &Knob) -> Option<Cow<'_, str>> {
        self.values.get(knob.name).map(|value| value.to_string_lossy())
    }

    /// [`BACKEND`].
    ///
    /// # Errors
    ///
    /// [`KnobError`].
    pub fn backend(&self) -> Result<Policy, KnobError> {
        Ok(self.parse(&BACKEND)?.unwrap_or_default())
    }

    /// [`THREADS`]; `None` leaves it to the machine's topology.
    ///
    /// # Errors
    ///
    /// [`KnobError`].
    pub fn threads(&self) -> Result<Option<NonZeroU32>, KnobError> {
        self.parse(&THREADS)
    }

    /// [`CACHE`]; `None` when it is not set and the user has no home folder. A path need not be Unicode.
    pub fn cache(&self) -> Option<PathBuf> {
        match self.values.get(CACHE.name) {
            Some(folder) => Some(PathBuf::from(folder)),
            None => etcetera::choose_base_strategy().ok().map(|user| user.cache_dir().join("gguf-loader")),
        }
    }

    /// [`CALIBRATE`].
    ///
    /// # Errors
    ///
    /// [`KnobError`].
    pub fn calibrate(&self) -> Result<Calibrate, KnobError> {
        Ok(self.parse(&CALIBRATE)?.unwrap_or_default())
    }

    /// [`HISTORY`]; `None` when there is to be none, and when it is not set and the user has no home folder. A path need not
    /// be Unicode.
    pub fn history(&self) -> Option<PathBuf> {
        match self.values.get(HISTORY.name) {
            Some(none) if none == "0" => None,
            Some(file) => Some(PathBuf::from(file)),
            None => {
                let user = etcetera::choose_base_strategy().ok()?;
                let folder = user.state_dir().unwrap_or_else(|| user.cache_dir());
                Some(folder.join("gguf-loader").join("history"))
            }
        }
    }

    /// [`LOG`]: a filter for `tracing-subscriber`, which knows the syntax.
    ///
    /// # Errors
    ///
    /// [`KnobError::NotUnicode`].
    pub fn log(&self) -> Result<String, KnobError> {
        Ok(self.text(&LOG)?.unwrap_or(LOG.default).to_owned())
    }

    /// What the knobs say about choosing a backend.
    ///
    /// # Errors
    ///
    /// [`KnobError`].
    pub fn choose_options(&self) -> Result<ChooseOptions, KnobError> {
        let options = ChooseOptions::default().with_policy(self.backend()?).with_calibrate(self.calibrate()?);
        Ok(match self.cache() {
            Some(folder) => options.with_cache(folder),
            None => options,
        })
    }

    /// Where imported models are kept: a folder of its own in [`CACHE`], limited to [`IMPORT_BUDGET`]. `None` without a
    /// folder.
    ///
    /// # Errors
    ///
    /// [`KnobError`].
    pub fn imports(&self) -> Result<Option<Cache>, KnobError> {
        let budget = self.parse::<Bytes>(&IMPORT_BUDGET)?.map_or(Cache::DEFAULT_BUDGET, |Bytes(bytes)| bytes);
        Ok(self.cache().map(|folder| Cache::new(folder.join("imports")).with_budget(budget)))
    }

    fn text(&self, knob: &Knob) -> Result<Option<&str>, KnobError> {
        let Some(value) = self.values.get(knob.name) else { return Ok(None) };
        let not_unicode = || KnobError::NotUnicode { name: knob.name, value: value.to_string_lossy().into_owned() };
        value.to_str().map(Some).ok_or_else(not_unicode)
    }

    fn parse<T: FromStr<Err: Error + Send + Sync + 'static>>(&self, knob: &Knob) -> Result<Option<T>, KnobError> {
        let Some(text) = self.text(knob)? else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|source: T::Err| KnobError::Value {
            name: knob.name,
            value: text.to_owned(),
            allowed: knob.allowed,
            source: Box::new(source),
        })
    }
}

/// A number of bytes as people write it: `20G`, `512M`, `4096`.
struct Bytes(u64);

/// The text is no number of bytes.
#[derive(Debug, thiserror::Error)]
#[error("not a whole number with an optional K, M, G or T, below 2^64")]
struct NotBytes;

impl FromStr for Bytes {
    type Err = NotBytes;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (number, shift) = match text.as_bytes().last().map(u8::to_ascii_uppercase) {
            Some(b'K') => (&text[..text.len() - 1], 10),
            Some(b'M') => (&text[..text.len() - 1], 20),
            Some(b'G') => (&text[..text.len() - 1], 30),
            Some(b'T') => (&text[..text.len() - 1], 40),
            _ => (text, 0),
        };
        let number: u64 = number.parse().map_err(|_| NotBytes)?;
        number.checked_mul(1 << shift).map(Self).ok_or(NotBytes)
    }
}

/// Why an environment variable cannot be used: correct it, or unset it for the default.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KnobError {
    /// The value is not text.
    #[error("{name} is not valid UTF-8: `{value}`")]
    NotUnicode {
        /// The variable.
        name: &'static str,
        /// Its value, with replacement characters.
        value: String,
    },
    /// The value is not one that the variable takes.
    #[error("{name} is `{value}`; allowed: {allowed}")]
    Value {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it takes.
        allowed: &'static str,
        /// What is wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knobs(pairs: &[(&str, &str)]) -> Knobs {
        Knobs::from_source(|name| pairs.iter().find(|(other, _)| *other == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn unset_and_empty_are_the_default() {
        let empty: Vec<_> = ALL.iter().map(|knob| (knob.name, "")).collect();
        assert_eq!(knobs(&empty), Knobs::default());
        let knobs = Knobs::default();
        assert_eq!(knobs.backend().unwrap(), Policy::Automatic);
        assert_eq!(knobs.threads().unwrap(), None);
        assert_eq!(knobs.calibrate().unwrap(), Calibrate::Off);
        assert_eq!(knobs.log().unwrap(), "warn");
    }

    #[test]
    fn each_variable_reaches_its_getter() {
        let knobs = knobs(&[
            ("GGUF_LOADER_BACKEND", "!cpu-x64"),
            ("GGUF_LOADER_THREADS", "3"),
            ("GGUF_LOADER_CACHE", "some/folder"),
            ("GGUF_LOADER_CALIBRATE", "refresh"),
            ("GGUF_LOADER_HISTORY", "some/file"),
            ("GGUF_LOADER_LOG", "gguf_loader=debug"),
        ]);
        let options = knobs.choose_options().unwrap();
        assert_eq!(options.policy, Policy::Deny(vec!["cpu-x64".into()]));
        assert_eq!(options.calibrate, Calibrate::Refresh);
        assert_eq!(options.cache, Some("some/folder".into()));
        assert_eq!(knobs.threads().unwrap(), NonZeroU32::new(3));
        assert_eq!(knobs.log().unwrap(), "gguf_loader=debug");
        assert_eq!(knobs.imports().unwrap(), Some(Cache::new("some/folder/imports")));
        assert_eq!(knobs.history(), Some("some/file".into()));
    }

    #[test]
    fn history_can_be_switched_off() {
        assert_eq!(knobs(&[("GGUF_LOADER_HISTORY", "0")]).history(), None);
        let default = Knobs::default().history();
        assert!(default.is_none_or(|file| file.ends_with("gguf-loader/history")));
    }

    #[test]
    fn budget_of_imports_takes_units() {
        let with = |value| knobs(&[("GGUF_LOADER_CACHE", "c"), ("GGUF_LOADER_IMPORT_BUDGET", value)]).imports();
        for (value, bytes) in [("4096", 4096), ("3k", 3072), ("512M", 512 << 20), ("2G", 2 << 30), ("1T", 1 << 40)] {
            assert_eq!(with(value).unwrap(), Some(Cache::new("c/imports").with_budget(bytes)), "{value}");
        }
        for value in ["G", "-1", "1.5G", "1GB", "16777216T", "ü"] {
            assert!(with(value).is_err(), "{value}");
        }
    }

    #[test]
    fn a_bad_value_names_the_variable_the_value_and_what_is_allowed() {
        for value in ["0", "-1", "two", "1.5", "4294967296"] {
            let error = knobs(&[("GGUF_LOADER_THREADS", value)]).threads().unwrap_err();
            assert_eq!(error.to_string(), format!("GGUF_LOADER_THREADS is `{value}`; allowed: a whole number above 0"));
        }
        assert!(knobs(&[("GGUF_LOADER_CALIBRATE", "yes")]).calibrate().is_err());
        let error = knobs(&[("GGUF_LOADER_BACKEND", "a,!b")]).backend().unwrap_err();
        assert!(error.source().unwrap().to_string().contains("mixed"), "{error:?}");
    }

    #[cfg(unix)]
    #[test]
    fn only_a_path_need_not_be_unicode() {
        use std::os::unix::ffi::OsStringExt;
        let knobs = Knobs::from_source(|_| Some(OsString::from_vec(vec![b'a', 0xff])));
        assert!(matches!(knobs.backend(), Err(KnobError::NotUnicode { name: "GGUF_LOADER_BACKEND", .. })));
        assert!(matches!(knobs.log(), Err(KnobError::NotUnicode { .. })));
        assert_eq!(knobs.cache(), Some(OsString::from_vec(vec![b'a', 0xff]).into()));
        assert_eq!(knobs.value(&CACHE).as_deref(), Some("a\u{fffd}"));
    }

    #[test]
    fn every_variable_carries_the_library_s_prefix_and_is_listed_once() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|knob| knob.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(names.iter().all(|name| name.starts_with("GGUF_LOADER_")));
    }

    #[test]
    fn the_printed_defaults_are_the_real_ones() {
        assert_eq!(BACKEND.default, Policy::default().to_string());
        assert_eq!(IMPORT_BUDGET.default.parse::<Bytes>().unwrap().0, Cache::DEFAULT_BUDGET);
        assert_eq!(CALIBRATE.default, Calibrate::default().to_string());
    }
}
