//! The variables that the build's child processes get on top of ours.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

/// Additions to the environment of a build. Values that the user has set are never replaced.
#[derive(Debug, Default, Clone)]
pub(crate) struct Environment {
    folders: Vec<PathBuf>,
    variables: BTreeMap<&'static str, OsString>,
}

impl Environment {
    /// Puts a folder before those on `PATH`.
    pub(crate) fn prepend_path(&mut self, folder: PathBuf) {
        if !self.folders.contains(&folder) {
            self.folders.push(folder);
        }
    }

    /// Sets a variable unless the user has.
    pub(crate) fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        if std::env::var_os(name).is_none() {
            self.variables.insert(name, value.into());
        }
    }

    /// The variables to set, `PATH` among them where it changes.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&'static str, OsString)> {
        let path = (!self.folders.is_empty()).then(|| ("PATH", self.path()));
        path.into_iter().chain(self.variables.iter().map(|(name, value)| (*name, value.clone())))
    }

    /// `PATH` as the children see it.
    pub(crate) fn path(&self) -> OsString {
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let folders = self.folders.iter().cloned().chain(std::env::split_paths(&inherited));
        // A folder whose name holds the separator cannot be listed; then the inherited list serves.
        std::env::join_paths(folders).unwrap_or(inherited)
    }

    /// Gives the variables to a child.
    pub(crate) fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.envs(self.variables())
    }

    /// The variables as lines for a POSIX shell's `eval`.
    pub(crate) fn exports(&self) -> String {
        self.variables().map(|(name, value)| format!("export {name}={}\n", quoted(&value))).collect()
    }
}

fn quoted(value: &OsStr) -> String {
    format!("'{}'", value.to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_the_inherited_path() {
        let mut environment = Environment::default();
        environment.prepend_path(PathBuf::from("/tools/bin"));
        let path = environment.path();
        assert_eq!(std::env::split_paths(&path).next(), Some(PathBuf::from("/tools/bin")));
        assert!(std::env::split_paths(&path).count() > 1);
    }

    #[test]
    fn what_the_user_has_set_stays() {
        let mut environment = Environment::default();
        environment.set("PATH", "/elsewhere");
        environment.set("XTASK_TEST_VARIABLE", "it's set");
        assert_eq!(environment.exports(), "export XTASK_TEST_VARIABLE='it'\\''s set'\n");
    }
}
