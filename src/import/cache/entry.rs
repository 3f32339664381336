//! One imported model: its file, and the file that vouches for it.

use std::{
    fs::{self, File},
    io,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{
    super::{ImportError, Report, digest::Digest, error, plan::Plan, plan::Written, watch::Progress},
    Imported, failed, source,
};
use crate::gguf::partial_file::PartialFile;

/// Where a model is, or would be.
#[derive(Debug)]
pub(super) struct Entry {
    model: PathBuf,
    voucher: PathBuf,
}

/// What vouches for a model.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Voucher {
    digest: Digest,
    bytes: u64,
    report: Report,
}

/// A model of the cache.
pub(super) struct Kept {
    pub(super) entry: Entry,
    pub(super) bytes: u64,
    pub(super) last_used: SystemTime,
}

/// What a cache holds.
#[derive(Default)]
pub(super) struct Listed {
    pub(super) models: Vec<Kept>,
    /// Models without a voucher and vouchers without a model, files that were never finished, and digests of sources that are
    /// gone.
    pub(super) orphans: Vec<PathBuf>,
}

impl Entry {
    /// The entry of `key`.
    pub(super) fn new(folder: &Path, key: &Digest) -> Self {
        let stem = &key.as_str()[..32];
        Self { model: folder.join(format!("{stem}.gguf")), voucher: folder.join(format!("{stem}.json")) }
    }

    /// The model, if it is there and as it was written.
    pub(super) fn find(&self, progress: Progress<'_>) -> Result<Option<Imported>, ImportError> {
        let Some(lease) = self.lease() else { return Ok(None) };
        let Some(voucher) = self.read_voucher() else { return Ok(None) };
        if !self.is_intact(&voucher, progress)? {
            tracing::warn!(path = %self.model.display(), "the imported model was damaged: importing again");
            return Ok(None);
        }
        // The time of change of the voucher is when the model was used last.
        let touched = File::options().write(true).open(&self.voucher);
        if let Err(error) = touched.and_then(|file| file.set_modified(SystemTime::now())) {
            tracing::debug!(path = %self.voucher.display(), %error, "cannot note that the model was used");
        }
        Ok(Some(Imported { path: self.model.clone(), report: voucher.report, is_new: false, _lease: lease }))
    }

    /// Writes the model, then what vouches for it. Called with the cache's lock.
    pub(super) fn write(&self, plan: Plan, progress: Progress<'_>) -> Result<Imported, ImportError> {
        // A voucher of a damaged model must not vouch for the new one before that is complete. The damaged one may be in use
        // where files in use cannot be removed; it is replaced then.
        match fs::remove_file(&self.voucher) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&self.voucher, error)),
            _ => drop(fs::remove_file(&self.model)),
        }
        let Written { report, digest, bytes } = plan.write(&self.model, progress)?;
        let voucher = Voucher { digest, bytes, report };
        if let Err(source) = self.vouch(&voucher) {
            // A model that nothing vouches for is no use to anybody, and there may be no room for it.
            let _ = fs::remove_file(&self.model);
            return Err(match error::is_full(source.kind()) {
                true => ImportError::Full { path: self.model.clone(), needed: bytes, source },
                false => failed(&self.voucher, source),
            });
        }
        let lease = self.lease().ok_or_else(|| failed(&self.voucher, io::ErrorKind::NotFound.into()))?;
        Ok(Imported { path: self.model.clone(), report: voucher.report, is_new: true, _lease: lease })
    }

    fn vouch(&self, voucher: &Voucher) -> io::Result<()> {
        let partial = PartialFile::create(&self.voucher)?;
        serde_json::to_writer(partial.file(), voucher)?;
        partial.finish()
    }

    /// Removes the model, but not from under somebody who holds a lease.
    pub(super) fn remove_unless_in_use(&self) -> bool {
        let Ok(file) = File::open(&self.voucher) else { return false };
        if matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)) {
            return false;
        }
        // The voucher first: a model alone counts for nothing.
        fs::remove_file(&self.voucher).and_then(|()| fs::remove_file(&self.model)).is_ok()
    }

    /// Keeps the model from being removed. `None` when there is none.
    fn lease(&self) -> Option<File> {
        let file = File::open(&self.voucher).ok()?;
        match file.try_lock_shared() {
            // Where there are no locks, a model that is just being loaded can be removed; the load then fails.
            Ok(()) | Err(fs::TryLockError::Error(_)) => Some(file),
            // It is being removed.
            Err(fs::TryLockError::WouldBlock) => None,
        }
    }

    fn read_voucher(&self) -> Option<Voucher> {
        serde_json::from_slice(&fs::read(&self.voucher).ok()?).ok()
    }

    fn is_intact(&self, voucher: &Voucher, progress: Progress<'_>) -> Result<bool, ImportError> {
        match fs::metadata(&self.model) {
            Ok(metadata) if metadata.is_file() && metadata.len() == voucher.bytes => {}
            _ => return Ok(false),
        }
        let total = voucher.bytes.max(1) as f64;
        let go_on = |read: u64| progress((read as f64 / total).min(1.0) as f32) == ControlFlow::Continue(());
        match Digest::of_file(&self.model, go_on) {
            Ok(Some(digest)) => Ok(digest == voucher.digest),
            Ok(None) => Err(ImportError::Cancelled),
            // Another process found it damaged, too, and writes it anew.
            Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(ImportError::Read { path: self.model.clone(), source }),
        }
    }
}

/// What is in `folder`. Called with the cache's lock, so that nothing is half written but what was abandoned, or a source's
/// digest, which is written without.
pub(super) fn list(folder: &Path) -> io::Result<Listed> {
    let mut listed = Listed::default();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        let is_orphan = if name.starts_with('.') && name.ends_with(".partial") {
            !source::is_being_written(&path)
        } else if source::is_memory(name) {
            source::is_forgotten(&path)
        } else if let Some(stem) = name.strip_suffix(".json") {
            !folder.join(format!("{stem}.gguf")).exists()
        } else if let Some(stem) = name.strip_suffix(".gguf") {
            let voucher = folder.join(format!("{stem}.json"));
            let metadata = fs::metadata(&voucher);
            if let Ok(metadata) = &metadata {
                let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
                let last_used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                listed.models.push(Kept { entry: Entry { model: path.clone(), voucher }, bytes, last_used });
            }
            metadata.is_err()
        } else {
            false
        };
        if is_orphan {
            listed.orphans.push(path);
        }
    }
    Ok(listed)
}
