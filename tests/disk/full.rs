//! The program with its output on a disk that is too small.

use std::{
    ffi::OsStr,
    path::Path,
    process::{Command, Output},
};

use assert_cmd::cargo::cargo_bin;

/// What the shell ends with when the disk cannot be made; the program's codes are below.
const NO_DISK: i32 = 99;

/// Runs `gguf-loader ARGUMENTS FOLDER/out.gguf`, where `folder` is a disk of that many kilobytes for as long as the program
/// runs. The output's end lists what is left on the disk; `None` where this machine lets nobody mount one.
///
/// The disk exists in the namespaces of the shell alone: nothing is left mounted, however the test ends.
pub(crate) fn run<S: AsRef<OsStr>>(arguments: &[S], folder: &Path, kilobytes: u32) -> Option<Output> {
    let script = format!(
        "mount -t tmpfs -o size={kilobytes}k tmpfs \"$0\" || exit {NO_DISK}
         \"$@\" \"$0/out.gguf\"
         code=$?
         ls -A \"$0\"
         exit $code"
    );
    let mut shell = Command::new("unshare");
    shell.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).arg(folder);
    shell.arg(cargo_bin!("gguf-loader")).args(arguments);
    let output = shell.output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(NO_DISK) || said.starts_with("unshare:") {
        eprintln!("skipped: no disk can be mounted for this test: {}", said.trim());
        return None;
    }
    Some(output)
}
