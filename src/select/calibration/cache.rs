//! Calibrations on disk: one small JSON file a machine.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use serde::{Deserialize, Serialize};

use super::{Calibration, Measurement};
use crate::{backend::Rates, hardware::Hardware};

/// A calibration of forty backends takes about 10 kB.
const LARGEST_FILE: u64 = 1 << 20;

/// What a calibration is valid for: this kind of processor, these cores and as many of them as the process may use
/// (a container's quota changes the speed), this version of the library.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// The fingerprint of a machine.
    pub fn of(hardware: &Hardware) -> Self {
        let Hardware { cpu, topology, .. } = hardware;
        let features: Vec<_> = cpu.features.iter().map(|feature| feature.name()).collect();
        Self(format!(
            "gguf-loader {}, {:?}, {}, family {}, model {}, stepping {}, {} cores, {} CPUs, {} to use, {}",
            env!("CARGO_PKG_VERSION"),
            cpu.architecture,
            cpu.vendor,
            cpu.family,
            cpu.model,
            cpu.stepping,
            topology.physical_cores,
            topology.logical_cpus,
            hardware.default_threads(),
            features.join(" ")
        ))
    }

    /// FNV-1a: short enough for a file name, and the same in every version of Rust. The file holds the whole text, so
    /// that a collision is noticed.
    fn hash(&self) -> u64 {
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        self.0.bytes().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
    }
}

/// A folder that keeps [`Calibration`]s, also when several machines share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CalibrationCache {
    folder: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    fingerprint: Fingerprint,
    calibration: Calibration,
}

impl CalibrationCache {
    /// The cache in `folder`, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The file for a machine.
    pub fn path(&self, fingerprint: &Fingerprint) -> PathBuf {
        self.folder.join(format!("calibration-{:016x}.json", fingerprint.hash()))
    }

    /// The calibration of this machine; `None` when there is none yet.
    ///
    /// # Errors
    ///
    /// [`CacheError`] when there is a file that is not one, or cannot be read: measure again, and store.
    pub fn load(&self, fingerprint: &Fingerprint) -> Result<Option<Calibration>, CacheError> {
        let path = self.path(fingerprint);
        let Some(text) = read(&path)? else { return Ok(None) };
        let stored: Stored = match serde_json::from_slice(&text) {
            Ok(stored) => stored,
            Err(source) => return Err(CacheError::Damaged { path, source }),
        };
        if stored.fingerprint != *fingerprint {
            return Err(CacheError::Foreign { path });
        }
        let is_valid = |measurement: &Measurement| measurement.rates.as_ref().is_none_or(Rates::is_valid);
        if !stored.calibration.measurements.iter().all(is_valid) {
            return Err(CacheError::Rates { path });
        }
        Ok(Some(stored.calibration))
    }

    /// Keeps the calibration of this machine. Readers see the old file or the new one, never a part.
    ///
    /// # Errors
    ///
    /// [`CacheError::Io`]; the old file is then still there.
    pub fn store(&self, fingerprint: &Fingerprint, calibration: &Calibration) -> Result<(), CacheError> {
        let path = self.path(fingerprint);
        let stored = Stored { fingerprint: fingerprint.clone(), calibration: calibration.clone() };
        replace(&self.folder, &path, &stored).map_err(|source| CacheError::Io { path, source })
    }
}

/// Why a calibration cannot be read or kept. None is fatal: predictions, or a new measurement, take its place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The operating system refused: check the rights of the folder, or set `GGUF_LOADER_CACHE`.
    #[error("cannot use {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The file is not a calibration. It is replaced at the next measurement.
    #[error("{} is not a calibration", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The file is of another machine.
    #[error("{} is the calibration of another machine", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file holds rates that no machine has.
    #[error("{} holds rates that are not above zero", path.display())]
    Rates {
        /// The file.
        path: PathBuf,
    },
}

/// The file's bytes; `None` when there is no file.
fn read(path: &Path) -> Result<Option<Vec<u8>>, CacheError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(LARGEST_FILE).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CacheError::Io { path: path.to_owned(), source }),
    }
}

/// Writes beside the file and renames.
fn replace(folder: &Path, path: &Path, stored: &Stored) -> io::Result<()> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    fs::create_dir_all(folder)?;
    // Unique in this process by the counter and among processes by the id.
    let unique = format!("{}-{}.part", process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
    let beside = path.with_extension(unique);
    let written = File::create(&beside)
        .and_then(|mut file| {
            file.write_all(&serde_json::to_vec_pretty(stored)?)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        // The first error is the one to report; a file that was never made cannot be removed either.
        let _ = fs::remove_file(&beside);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Device, DeviceKind};

    const RATES: Rates = Rates {
        quantized: 1e11,
        ternary: 2e11,
        float: 0.1,
        quantized_vector: 1.0 / 3.0,
        ternary_vector: 2.0 / 3.0,
        float_vector: 1e10,
        bandwidth: 1e10,
    };

    fn fingerprint(text: &str) -> Fingerprint {
        Fingerprint(text.to_owned())
    }

    fn calibration() -> Calibration {
        let device = |id: &str| Device { id: id.into(), name: id.into(), kind: DeviceKind::Cpu, memory: Some(1) };
        let mut calibration = Calibration::new();
        calibration.record("cpu-x64", &device("cpu"), Some(RATES));
        calibration.record("reference", &device("cpu"), None);
        calibration
    }

    fn cache() -> (tempfile::TempDir, CalibrationCache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = CalibrationCache::new(folder.path().join("deeper/still"));
        (folder, cache)
    }

    #[test]
    fn what_is_stored_comes_back() {
        let (_folder, cache) = cache();
        let machine = fingerprint("this");
        assert_eq!(cache.load(&machine).unwrap(), None);
        cache.store(&machine, &Calibration::new()).unwrap();
        cache.store(&machine, &calibration()).unwrap();
        assert_eq!(cache.load(&machine).unwrap(), Some(calibration()));
        let files = fs::read_dir(cache.path(&machine).parent().unwrap()).unwrap().count();
        assert_eq!(files, 1, "the file beside must be gone");
    }

    #[test]
    fn machines_that_share_a_folder_do_not_see_each_other() {
        let (_folder, cache) = cache();
        cache.store(&fingerprint("this"), &calibration()).unwrap();
        assert_eq!(cache.load(&fingerprint("other")).unwrap(), None);
    }

    #[test]
    fn a_file_of_another_machine_is_refused() {
        let (_folder, cache) = cache();
        let (this, other) = (fingerprint("this"), fingerprint("other"));
        cache.store(&this, &calibration()).unwrap();
        fs::rename(cache.path(&this), cache.path(&other)).unwrap();
        assert!(matches!(cache.load(&other), Err(CacheError::Foreign { .. })));
    }

    #[test]
    fn a_damaged_file_is_refused_at_every_length_and_can_be_replaced() {
        let (_folder, cache) = cache();
        let machine = fingerprint("this");
        cache.store(&machine, &calibration()).unwrap();
        let whole = fs::read(cache.path(&machine)).unwrap();
        for length in 0..whole.len() {
            fs::write(cache.path(&machine), &whole[..length]).unwrap();
            assert!(matches!(cache.load(&machine), Err(CacheError::Damaged { .. })), "{length} bytes");
        }
        cache.store(&machine, &calibration()).unwrap();
        assert_eq!(cache.load(&machine).unwrap(), Some(calibration()));
    }

    #[test]
    fn rates_of_zero_are_refused() {
        let (_folder, cache) = cache();
        let machine = fingerprint("this");
        cache.store(&machine, &calibration()).unwrap();
        let text = fs::read_to_string(cache.path(&machine)).unwrap().replace("0.1", "0.0");
        fs::write(cache.path(&machine), text).unwrap();
        assert!(matches!(cache.load(&machine), Err(CacheError::Rates { .. })));
    }

    #[test]
    fn a_folder_in_place_of_the_file_is_an_error_and_leaves_nothing_behind() {
        let (_folder, cache) = cache();
        let machine = fingerprint("this");
        fs::create_dir_all(cache.path(&machine)).unwrap();
        assert!(matches!(cache.load(&machine), Err(CacheError::Io { .. })));
        assert!(matches!(cache.store(&machine, &calibration()), Err(CacheError::Io { .. })));
        assert_eq!(fs::read_dir(cache.path(&machine).parent().unwrap()).unwrap().count(), 1);
    }
}
