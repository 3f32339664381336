//! The program on a disk that is too small.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

/// What the shell ends with when the disk cannot be made; the program's codes are below.
const NO_DISK: i32 = 99;

/// Runs `program` with `input` on its stdin, where `folder` is a disk of that many kilobytes for as long as the program runs. The
/// output's end lists the files that are left on the disk; `None` where this machine lets nobody mount one.
///
/// The disk exists in the namespaces of the shell alone: nothing is left mounted, however the test ends.
pub(crate) fn run(program: &Command, input: &str, folder: &Path, kilobytes: u64) -> Option<Output> {
    let script = format!(
        "mount -t tmpfs -o size={kilobytes}k tmpfs \"$0\" || exit {NO_DISK}
         \"$@\"
         code=$?
         cd \"$0\" && find . -type f
         exit $code"
    );
    let mut shell = Command::new("unshare");
    shell.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).arg(folder);
    shell.arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let mut child = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().ok()?;
    // A program that does not read it has ended by then.
    let _ = child.stdin.take()?.write_all(input.as_bytes());
    let output = child.wait_with_output().ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(NO_DISK) || said.starts_with("unshare:") {
        eprintln!("skipped: no disk can be mounted for this test: {}", said.trim());
        return None;
    }
    Some(output)
}
