//! Where the project and cargo's outputs are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::process::{ProcessError, capture};

/// The project's folders.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

/// Cargo could not say where the workspace is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum WorkspaceError {
    #[error("cargo does not know the workspace")]
    Cargo(#[source] ProcessError),
    #[error("cannot read the answer of `cargo metadata`")]
    Metadata(#[source] serde_json::Error),
}

impl Workspace {
    /// Asks cargo, which knows every way in which a target folder can be set.
    pub(crate) fn locate() -> Result<Self, WorkspaceError> {
        #[derive(Deserialize)]
        struct Metadata {
            workspace_root: PathBuf,
            target_directory: PathBuf,
        }
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let mut command = cargo();
        command.args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"]).arg(manifest);
        let answer = capture(&mut command).map_err(WorkspaceError::Cargo)?;
        let Metadata { workspace_root, target_directory } =
            serde_json::from_slice(&answer).map_err(WorkspaceError::Metadata)?;
        Ok(Self { root: workspace_root, target: target_directory })
    }

    /// The folder of the top-level `Cargo.toml`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target folder.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Tools that came from wheels; deleting it is safe.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("xtask-tools")
    }

    /// The command-line program that `cargo build --release` makes.
    pub(crate) fn program(&self) -> PathBuf {
        self.target.join("release").join(format!("gguf-loader{}", std::env::consts::EXE_SUFFIX))
    }

    /// An example that `cargo build --release --example NAME` makes.
    pub(crate) fn example(&self, name: &str) -> PathBuf {
        self.target.join("release/examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
    }

    /// `cargo SUBCOMMAND`, in the project's folder.
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = cargo();
        command.arg(subcommand).current_dir(&self.root);
        command
    }
}

/// The cargo that runs us, without the variables of our own package: build scripts that watch them
/// (`CARGO_MANIFEST_DIR` and others) would run again on every switch between `cargo` and `cargo xtask`.
fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    for (name, _) in std::env::vars_os() {
        let of_our_package = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "CARGO_PRIMARY_PACKAGE"
        });
        if of_our_package {
            command.env_remove(name);
        }
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_is_the_one_this_source_is_in() {
        let workspace = Workspace::locate().unwrap();
        assert_eq!(workspace.root().join("xtask"), Path::new(env!("CARGO_MANIFEST_DIR")));
        assert!(workspace.tools().starts_with(workspace.target()));
    }
}
