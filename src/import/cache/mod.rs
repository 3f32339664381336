//! Imported models, kept so that the next load finds them.
//!
//! ```text
//! <folder>/<key>.gguf        the imported model
//! <folder>/<key>.json        its digest and length; written last, so that a model without it is not complete
//! <folder>/source-<id>.json  the digest of a source file, so that it is read once only
//! <folder>/lock              held while a model is written or removed
//! ```
//!
//! The key is made of the source's content and the options: a copy or a renamed source finds the same model. A source
//! whose path, length and time of change are those of last time is taken to be the same; one whose length or time of
//! change is not that of when it was opened is an error. The imported model is read and compared with its digest every
//! time. Processes may share a folder: one imports, the others wait, and a model that somebody is loading is not removed.

mod entry;
mod source;

use std::{
    fs::{self, File, TryLockError},
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use super::{CacheError, ImportError, ImportOptions, Report, digest::Digest, plan::Plan, watch::Progress};
use crate::gguf::Gguf;

use entry::Entry;

/// Changes when the same source and options would give another file.
const FORMAT: u32 = 1;

/// Share of the progress that digesting the source takes.
const DIGESTED: f32 = 0.1;

/// A folder of imported models, with a limit to what they take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    folder: PathBuf,
    budget: u64,
}

/// A model from the [`Cache`]. Nobody removes it as long as this lives.
#[derive(Debug)]
pub struct Imported {
    path: PathBuf,
    report: Report,
    is_new: bool,
    /// A shared lock on the entry, where the file system has locks.
    _lease: File,
}

impl Imported {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the import did.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Whether the model was imported just now, and not found.
    pub fn is_new(&self) -> bool {
        self.is_new
    }
}

impl Cache {
    /// Bytes that imported models may take if nothing else is said: 20 GiB.
    pub const DEFAULT_BUDGET: u64 = 20 << 30;

    /// The cache in `folder`, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), budget: Self::DEFAULT_BUDGET }
    }

    /// Sets the bytes that all models together may take. Those that were not used for longest go first. Those that somebody
    /// is loading, or has loaded, stay: with a warning, the models then take more.
    pub fn with_budget(mut self, budget: u64) -> Self {
        self.budget = budget;
        self
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The imported form of `gguf`: found, or imported now.
    ///
    /// `progress` is as in [`import`](super::import()).
    ///
    /// # Errors
    ///
    /// [`ImportError`]; then no part of a model is left.
    pub fn import(
        &self,
        gguf: &Gguf,
        options: &ImportOptions,
        mut progress: impl FnMut(f32) -> ControlFlow<()>,
    ) -> Result<Imported, ImportError> {
        // A model that is found damaged is read to its end, and then written from its beginning.
        let mut most = 0.0_f32;
        let mut rising = |fraction: f32| {
            most = most.max(fraction);
            progress(most)
        };
        let imported = self.find_or_import(gguf, options, &mut rising)?;
        super::warn_if_assumed(&gguf.parts()[0].path, &imported.report);
        Ok(imported)
    }

    fn find_or_import(
        &self,
        gguf: &Gguf,
        options: &ImportOptions,
        progress: Progress<'_>,
    ) -> Result<Imported, ImportError> {
        fs::create_dir_all(&self.folder).map_err(|source| failed(&self.folder, source))?;
        let source = source::digest(&self.folder, gguf, &mut |fraction| progress(DIGESTED * fraction))?;
        let entry = Entry::new(&self.folder, &key(&source, options));
        let mut rest = |fraction: f32| progress(DIGESTED + (1.0 - DIGESTED) * fraction);
        if let Some(found) = entry.find(&mut rest)? {
            return Ok(found);
        }
        let lock = self.lock(&mut rest)?;
        // Another process may have imported the model while this one waited.
        if let Some(found) = entry.find(&mut rest)? {
            return Ok(found);
        }
        let plan = Plan::import(gguf, options, &mut rest)?;
        self.make_room(plan.bytes(), lock.is_some())?;
        entry.write(plan, &mut rest)
    }

    /// Waits until no other process writes to the folder. `None` where the file system has no locks: writing beside and
    /// renaming is safe without, only the work may be done twice.
    fn lock(&self, progress: Progress<'_>) -> Result<Option<File>, ImportError> {
        const PAUSE: Duration = Duration::from_millis(50);
        let path = self.folder.join("lock");
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|source| failed(&path, source))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    tracing::debug!(path = %path.display(), %error, "the file system has no locks");
                    return Ok(None);
                }
            }
            if progress(0.0).is_break() {
                return Err(ImportError::Cancelled);
            }
            thread::sleep(PAUSE);
        }
    }

    /// Removes what killed processes left, and models until `needed` bytes fit.
    fn make_room(&self, needed: u64, is_locked: bool) -> Result<(), ImportError> {
        if needed > self.budget {
            return Err(CacheError::Budget { needed, budget: self.budget }.into());
        }
        let listed = entry::list(&self.folder).map_err(|source| failed(&self.folder, source))?;
        if is_locked {
            // Without the lock they may be another process's work.
            listed.orphans.iter().for_each(|path| drop(fs::remove_file(path)));
        }
        let mut models = listed.models;
        models.sort_unstable_by_key(|model| model.last_used);
        let mut taken: u64 = models.iter().map(|model| model.bytes).sum();
        for model in models {
            if taken.saturating_add(needed) <= self.budget {
                break;
            }
            if model.entry.remove_unless_in_use() {
                taken -= model.bytes;
            }
        }
        let total = taken.saturating_add(needed);
        if total > self.budget {
            let (folder, budget) = (self.folder.display(), self.budget);
            tracing::warn!(%folder, total, budget, "models in use were kept beyond GGUF_LOADER_IMPORT_BUDGET");
        }
        Ok(())
    }
}

fn key(source: &Digest, options: &ImportOptions) -> Digest {
    let ImportOptions { layout, output_matrix } = options;
    Digest::of_bytes(format!("{FORMAT} {} {layout} {output_matrix}", source.as_str()).as_bytes())
}

fn failed(path: &Path, source: io::Error) -> ImportError {
    CacheError::Io { path: path.into(), source }.into()
}
