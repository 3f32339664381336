//! A file that appears under its name only when it is complete.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A file beside its target; removed on drop unless [`finish`](Self::finish) moved it there.
#[derive(Debug)]
pub(crate) struct PartialFile {
    file: File,
    path: PathBuf,
    target: PathBuf,
}

impl PartialFile {
    /// Creates the file in the folder of `target`, so that moving it is one step.
    ///
    /// A process that was killed leaves its file, and another one may have the same id, which in a container is 1 for each
    /// first process. Then the next free number is taken. Whether that other process lives cannot be asked from here, so
    /// that its file stays.
    pub(crate) fn create(target: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let Some(name) = target.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path does not name a file"));
        };
        loop {
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}.{}.partial", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
            let path = target.with_file_name(hidden);
            match File::create_new(&path) {
                Ok(file) => return Ok(Self { file, path, target: target.to_path_buf() }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The open file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Waits until the data is on disk, and moves the file to its target.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.path, &self.target)?;
        // The rename itself is on disk once the folder is. Not every file system can sync a folder: the data is safe.
        #[cfg(unix)]
        if let Some(folder) = self.target.parent() {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        // After `finish` there is nothing under this name; otherwise a failure here has an error before it.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number in the name of a file that is being written.
    fn number(partial: &PartialFile) -> u32 {
        let name = partial.path.file_name().and_then(|name| name.to_str()).unwrap();
        name.rsplit('.').nth(1).unwrap().parse().unwrap()
    }

    #[test]
    fn file_of_a_killed_process_with_the_same_id_is_passed_over() {
        // Other tests of this process may take numbers meanwhile, but not as many.
        const LEFT: u32 = 1000;
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let first = number(&PartialFile::create(&target).unwrap()) + 1;
        let left = |number: u32| folder.path().join(format!(".out.{}.{number}.partial", std::process::id()));
        (first..first + LEFT).for_each(|number| fs::write(left(number), "theirs").unwrap());
        let partial = PartialFile::create(&target).unwrap();
        assert!(number(&partial) >= first + LEFT);
        fs::write(&partial.path, "ours").unwrap();
        partial.finish().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"ours");
        assert!((first..first + LEFT).all(|number| fs::read(left(number)).unwrap() == b"theirs"));
    }
}
