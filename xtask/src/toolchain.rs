//! What of the build's needs this machine has: each is tried, not only looked up.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::packages::{CMAKE_AT_LEAST, Need};
use crate::pip::Pip;
use crate::process::{capture_text, find_program_in};

/// Whether the need is met by what is on `path` (a `PATH`-like list) and in the system's folders.
pub(crate) fn has(need: Need, path: &OsStr) -> bool {
    match need {
        // Visual Studio's compiler and Apple's libraries are found by cmake and cc, not through PATH.
        Need::CxxCompiler | Need::Make if cfg!(windows) => true,
        Need::StaticStdcxx if !cfg!(target_os = "linux") => true,
        Need::CxxCompiler => compiles_cxx17(path),
        Need::StaticStdcxx => static_stdcxx(path).is_some(),
        Need::Make => ["make", "gmake", "ninja"].iter().any(|name| find_program_in(name, path).is_some()),
        Need::Cmake => cmake_version(path).is_some_and(|version| version >= CMAKE_AT_LEAST),
        Need::Libclang => libclang().is_some(),
        Need::Pip => Pip::find().is_some(),
    }
}

/// The folder with the C compiler's own headers (`stddef.h` and the like).
pub(crate) fn compiler_headers(path: &OsStr) -> Option<PathBuf> {
    let folder = capture_text(Command::new(cxx(path)?).arg("-print-file-name=include")).ok().map(PathBuf::from)?;
    folder.join("stddef.h").is_file().then_some(folder)
}

/// The libclang that bindgen will load: `$LIBCLANG_PATH`, else the folders in which clang-sys looks.
pub(crate) fn libclang() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("LIBCLANG_PATH").map(PathBuf::from) {
        return if named.is_file() { Some(named) } else { libclang_in(&named) };
    }
    let mut folders: Vec<PathBuf> = LIBRARY_FOLDERS.iter().map(PathBuf::from).collect();
    for parent in ["/usr/lib", "/usr/local/lib"] {
        folders.extend(children(Path::new(parent)).filter(|path| starts(path, "llvm")).map(|path| path.join("lib")));
        folders.extend(children(Path::new(parent)).filter(|path| name_of(path).contains("-linux-")));
    }
    folders.iter().find_map(|folder| libclang_in(folder))
}

/// Whether clang's own headers lie where this libclang looks for them; those of the PyPI wheel do not.
pub(crate) fn has_builtin_headers(libclang: &Path) -> bool {
    let real = libclang.canonicalize().unwrap_or_else(|_| libclang.to_owned());
    let resources =
        |folder: &Path| children(&folder.join("clang")).any(|version| version.join("include/stddef.h").is_file());
    // Debian keeps the library beside its resources in /usr/lib/llvm-N/lib, others in /usr/lib64 and /usr/lib.
    real.parent().is_some_and(|folder| {
        resources(folder) || folder.parent().is_some_and(|up| resources(&up.join("lib")) || resources(up))
    })
}

const LIBRARY_FOLDERS: &[&str] = &[
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/opt/homebrew/opt/llvm/lib",
    "/usr/local/opt/llvm/lib",
    "/Library/Developer/CommandLineTools/usr/lib",
    "/Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib",
    "C:\\Program Files\\LLVM\\bin",
];

fn libclang_in(folder: &Path) -> Option<PathBuf> {
    children(folder).find(|path| is_libclang(&name_of(path)))
}

/// `libclang.so`, `libclang.so.1`, `libclang-14.so.14.0.6`, `libclang.dylib`, `libclang.dll`; not `libclang-cpp.so`.
fn is_libclang(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("libclang") else { return false };
    let suffix = rest.strip_prefix('-').map_or(rest, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    let so = suffix.strip_prefix(".so").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'));
    so || suffix == ".dylib" || suffix == ".dll"
}

fn compiles_cxx17(path: &OsStr) -> bool {
    // <filesystem> is C++17 and needs the library's headers: a compiler alone does not have it.
    const PROGRAM: &[u8] = b"#include <filesystem>\nint main() { return std::filesystem::path(\"a\").empty(); }\n";
    let Some(compiler) = cxx(path) else { return false };
    let mut command = Command::new(compiler);
    command.args(["-std=gnu++17", "-fsyntax-only", "-x", "c++", "-"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    child.is_ok_and(|mut child| {
        let written = child.stdin.take().is_some_and(|mut stdin| stdin.write_all(PROGRAM).is_ok());
        child.wait().is_ok_and(|status| written && status.success())
    })
}

fn static_stdcxx(path: &OsStr) -> Option<PathBuf> {
    // A compiler that does not have the file prints the bare name.
    let answer = capture_text(Command::new(cxx(path)?).arg("-print-file-name=libstdc++.a")).ok()?;
    Some(PathBuf::from(answer)).filter(|file| file.is_absolute() && file.is_file())
}

/// `$CXX` without its options, else the compiler that cc and cmake take.
fn cxx(path: &OsStr) -> Option<PathBuf> {
    if let Some(named) = std::env::var("CXX").ok().filter(|named| !named.trim().is_empty()) {
        let program = named.split_whitespace().find(|word| !word.ends_with("ccache"))?;
        return if program.contains('/') { Some(PathBuf::from(program)) } else { find_program_in(program, path) };
    }
    ["c++", "g++", "clang++"].iter().find_map(|name| find_program_in(name, path))
}

fn cmake_version(path: &OsStr) -> Option<(u32, u32)> {
    let program = std::env::var_os("CMAKE").map(PathBuf::from).or_else(|| find_program_in("cmake", path))?;
    parse_cmake_version(&capture_text(Command::new(program).arg("--version")).ok()?)
}

fn parse_cmake_version(answer: &str) -> Option<(u32, u32)> {
    let mut numbers = answer.strip_prefix("cmake version ")?.split(['.', '-', '\n']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn children(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let mut paths: Vec<PathBuf> =
        folder.read_dir().into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths.into_iter()
}

fn starts(path: &Path, prefix: &str) -> bool {
    name_of(path).starts_with(prefix)
}

fn name_of(path: &Path) -> String {
    path.file_name().map(OsString::from).unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libclang_is_told_from_its_neighbours() {
        for name in ["libclang.so", "libclang.so.1", "libclang-14.so.14.0.6", "libclang-14.so", "libclang.dylib"] {
            assert!(is_libclang(name), "{name}");
        }
        for name in ["libclang-cpp.so.14", "libclangAST.a", "libclang.a", "libclang-14.a", "libclang_rt.so", "clang.so"]
        {
            assert!(!is_libclang(name), "{name}");
        }
    }

    #[test]
    fn the_version_of_cmake_is_compared_as_numbers() {
        assert_eq!(parse_cmake_version("cmake version 3.25.1\n\nCMake suite"), Some((3, 25)));
        assert_eq!(parse_cmake_version("cmake version 4.1-rc1"), Some((4, 1)));
        assert!(parse_cmake_version("cmake version 3.9.6").unwrap() < CMAKE_AT_LEAST);
        assert_eq!(parse_cmake_version("no cmake"), None);
    }

    #[test]
    fn an_empty_path_meets_no_need_for_programs() {
        for need in [Need::CxxCompiler, Need::Make, Need::Cmake] {
            assert!(
                !has(need, OsStr::new("/nowhere")) || cfg!(windows) || std::env::var_os("CMAKE").is_some(),
                "{need}"
            );
        }
    }

    #[test]
    fn a_libclang_without_resources_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let native = folder.path().join("clang/native");
        std::fs::create_dir_all(&native).unwrap();
        std::fs::write(native.join("libclang.so"), "").unwrap();
        let library = libclang_in(&native).unwrap();
        assert!(!has_builtin_headers(&library));
        let headers = native.join("clang/18/include");
        std::fs::create_dir_all(&headers).unwrap();
        std::fs::write(headers.join("stddef.h"), "").unwrap();
        assert!(has_builtin_headers(&library));
    }
}
