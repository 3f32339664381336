//! Imported models that are kept.

use std::{
    fs,
    num::NonZeroU32,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, SystemTime},
};

use gguf_loader::{
    LoadError, LoadOptions, Model,
    backend::ContextOptions,
    generation::GenerateRequest,
    gguf::{Gguf, TensorType},
    import::{Cache, CacheError, ImportError, ImportOptions, Imported, OutputMatrix},
    select::{ChooseOptions, Policy},
};
use serde_json::Value;

use crate::{Folder, go_on, names, tensors, tiny};

/// What makes a process of this test the child of another.
const CHILD: &str = "GGUF_LOADER_TEST_CHILD";

fn cache(folder: &Folder) -> Cache {
    Cache::new(folder.at("cache/deeper"))
}

fn take(cache: &Cache, source: &Path) -> Result<Imported, ImportError> {
    cache.import(&Gguf::open(source).unwrap(), &ImportOptions::default(), go_on)
}

/// Models in the cache, without what vouches for them.
fn models(cache: &Cache) -> Vec<PathBuf> {
    let names = names(cache.folder());
    names.iter().filter(|name| name.ends_with(".gguf")).map(|name| cache.folder().join(name)).collect()
}

fn set_age(path: &Path, age: Duration) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[test]
fn second_load_finds_the_first_one_s_model() {
    let (folder, source) = with_source();
    let cache = cache(&folder);
    let first = take(&cache, &source).unwrap();
    assert!(first.is_new());
    let expected = tensors(&folder.write("form.gguf", &tiny().with_ternary(TensorType::TQ2_0)));
    assert!(tensors(first.path()) == expected);
    let second = take(&cache, &source).unwrap();
    assert!(!second.is_new());
    assert_eq!((second.path(), second.report()), (first.path(), first.report()));
}

#[test]
fn loading_a_model_imports_it_once_and_reports_rising_progress() {
    let (folder, source) = with_source();
    let cache = cache(&folder);
    let options = LoadOptions::default().with_imports(cache.clone());
    for load in 0..2 {
        let mut last = 0.0;
        let result = Model::load_with(&source, &options, |fraction| {
            assert!((last..=1.0).contains(&fraction), "{fraction} after {last}");
            last = fraction;
            ControlFlow::Continue(())
        });
        let model = match result {
            Err(LoadError::Choose(error)) => {
                println!("skipped: no backend of this build runs BitNet: {error}");
                return;
            }
            other => other.unwrap(),
        };
        assert!(last > 0.0);
        let imported = model.imported().unwrap();
        assert_eq!((model.path(), imported.is_new()), (source.as_path(), load == 0));
        assert_eq!(models(&cache).len(), 1);
    }
    assert!(!take(&cache, &source).unwrap().is_new());
}

/// The trained model, in I2_S, goes all the way: it is loaded, and writes what PyTorch wrote with it.
#[test]
fn loaded_i2_s_model_writes_the_same_from_the_cache_as_from_its_import() {
    const TOKENS: usize = 16;
    let fixture =
        |name: &str| -> PathBuf { [env!("CARGO_MANIFEST_DIR"), "tests/fixtures/bitnet", name].iter().collect() };
    let recorded: Value = serde_json::from_slice(&fs::read(fixture("recorded.json")).unwrap()).unwrap();
    // The one whose every token is farthest ahead of the next best: no engine's rounding makes up for that.
    let recorded = &recorded["continuations"][2];
    let folder = Folder::new();
    let options = LoadOptions::default().with_imports(cache(&folder));
    for load in 0..2 {
        let model = match Model::load_with(fixture("scribe.gguf"), &options, go_on) {
            Ok(model) => model,
            Err(LoadError::Choose(error)) => return eprintln!("skipped: no backend runs BitNet here: {error}"),
            Err(error) => panic!("{error}"),
        };
        if let Err(error) = model.tokenizer() {
            return eprintln!("skipped: no backend here can tokenise: {error}");
        }
        assert_eq!(model.imported().unwrap().is_new(), load == 0);
        let mut context = model.context(&ContextOptions::default()).unwrap();
        let request = GenerateRequest::new(recorded["prompt"].as_str().unwrap());
        let written = context.complete(request.with_max_tokens(NonZeroU32::new(TOKENS as u32).unwrap())).unwrap();
        let expected = recorded["tokens"].as_array().unwrap();
        let expected: Vec<u64> = expected[..TOKENS].iter().map(|token| token.as_u64().unwrap()).collect();
        let written: Vec<u64> = written.tokens.into_iter().map(u64::from).collect();
        assert_eq!(written, expected, "on {}, load {load}", model.backend());
    }
}

#[test]
fn cancelled_load_is_a_cancelled_import() {
    let (folder, source) = with_source();
    let options = LoadOptions::default().with_imports(cache(&folder));
    match Model::load_with(&source, &options, |_| ControlFlow::Break(())).unwrap_err() {
        LoadError::Choose(error) => println!("skipped: no backend of this build runs BitNet: {error}"),
        error => assert!(matches!(error, LoadError::Import(ImportError::Cancelled)), "{error}"),
    }
}

#[test]
fn a_choice_that_cannot_be_kept_is_an_error_before_anything_is_imported() {
    let (folder, source) = with_source();
    let cache = cache(&folder);
    let choose = ChooseOptions::default().with_policy(Policy::Named("cpu-zen44".to_owned()));
    let options = LoadOptions::default().with_imports(cache.clone()).with_choose(choose);
    let mut reports = 0;
    let error = Model::load_with(&source, &options, |_| {
        reports += 1;
        ControlFlow::Continue(())
    });
    assert!(matches!(error, Err(LoadError::Choose(_))), "{error:?}");
    assert_eq!(reports, 0, "something was done");
    assert!(!cache.folder().exists());
}

fn with_source() -> (Folder, PathBuf) {
    let folder = Folder::new();
    let source = folder.write("source.gguf", &tiny());
    (folder, source)
}

#[test]
fn a_copy_of_the_source_finds_the_same_model() {
    let (folder, source) = with_source();
    let cache = cache(&folder);
    let first = take(&cache, &source).unwrap();
    fs::copy(&source, folder.at("copy.gguf")).unwrap();
    let second = take(&cache, &folder.at("copy.gguf")).unwrap();
    assert_eq!((second.path(), second.is_new()), (first.path(), false));
}

#[test]
fn other_options_and_other_content_are_other_models() {
    let (folder, source) = with_source();
    let cache = cache(&folder);
    let first = take(&cache, &source).unwrap();
    let options = ImportOptions::default().with_output_matrix(OutputMatrix::Q8_0);
    let second = cache.import(&Gguf::open(&source).unwrap(), &options, go_on).unwrap();
    assert_ne!(first.path(), second.path());
    // The same path, length and settings; only the codes differ.
    let bytes = fs::metadata(&source).unwrap().len();
    folder.write("source.gguf", &tiny().with_seed(2));
    assert_eq!(fs::metadata(&source).unwrap().len(), bytes);
    let third = take(&cache, &source).unwrap();
    assert!(third.is_new());
    assert_ne!(third.path(), first.path());
}

#[test]
fn known_source_is_not_read_again_until_it_changes() {
    let (folder, source) = with_source();
    set_age(&source, Duration::from_secs(60));
    let cache = cache(&folder);
    take(&cache, &source).unwrap();
    assert_eq!(names(cache.folder()).iter().filter(|name| name.starts_with("source-")).count(), 1);
    // Without a change of length and time, what is remembered counts.
    let modified = fs::metadata(&source).unwrap().modified().unwrap();
    folder.write("source.gguf", &tiny().with_seed(2));
    fs::File::options().write(true).open(&source).unwrap().set_modified(modified).unwrap();
    assert!(!take(&cache, &source).unwrap().is_new());
    set_age(&source, Duration::from_secs(30));
    assert!(take(&cache, &source).unwrap().is_new());
}

#[test]
fn damaged_model_is_imported_again() {
    let (folder, source) = with_source();
    let cache = cache(&folder);
    let path = take(&cache, &source).unwrap().path().to_owned();
    let (whole, voucher) = (fs::read(&path).unwrap(), path.with_extension("json"));
    let flipped = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        bytes
    };
    let longer = [whole.as_slice(), &[0]].concat();
    let damages =
        [flipped(0), flipped(whole.len() / 2), flipped(whole.len() - 1), whole[..1000].to_vec(), longer, vec![]];
    for (index, damage) in damages.iter().enumerate() {
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::write(&path, damage).unwrap();
        // Not even the time of change tells.
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        let again = take(&cache, &source).unwrap();
        assert!(again.is_new(), "damage {index}");
        assert!(fs::read(again.path()).unwrap() == whole, "damage {index}");
    }
    for damage in ["", "{}", "{\"digest\":\"00\",\"bytes\":1}"] {
        fs::write(&voucher, damage).unwrap();
        assert!(take(&cache, &source).unwrap().is_new(), "{damage}");
    }
    fs::remove_file(&path).unwrap();
    assert!(take(&cache, &source).unwrap().is_new());
    assert!(!take(&cache, &source).unwrap().is_new());
}

#[test]
fn least_recently_used_models_make_room() {
    let folder = Folder::new();
    let cache = cache(&folder);
    let sources: Vec<PathBuf> =
        (0..3).map(|seed| folder.write(&format!("{seed}.gguf"), &tiny().with_seed(seed))).collect();
    let paths: Vec<PathBuf> =
        sources[..2].iter().map(|source| take(&cache, source).unwrap().path().to_owned()).collect();
    let bytes = fs::metadata(&paths[0]).unwrap().len();
    set_age(&paths[0].with_extension("json"), Duration::from_secs(200));
    set_age(&paths[1].with_extension("json"), Duration::from_secs(100));
    // Using the older one makes it the younger one.
    take(&cache, &sources[0]).unwrap();
    let tight = cache.clone().with_budget(2 * bytes + bytes / 2);
    let third = take(&tight, &sources[2]).unwrap();
    let mut expected = vec![paths[0].clone(), third.path().to_owned()];
    expected.sort();
    assert_eq!(models(&cache), expected);
    assert!(!paths[1].with_extension("json").exists());
}

#[test]
fn model_in_use_is_not_removed() {
    let folder = Folder::new();
    let cache = cache(&folder);
    let held = take(&cache, &folder.write("held.gguf", &tiny())).unwrap();
    let bytes = fs::metadata(held.path()).unwrap().len();
    let tight = cache.clone().with_budget(bytes + bytes / 2);
    let other = folder.write("other.gguf", &tiny().with_seed(2));
    take(&tight, &other).unwrap();
    assert!(held.path().exists());
    drop(held);
    take(&tight, &folder.write("third.gguf", &tiny().with_seed(3))).unwrap();
    assert_eq!(models(&cache).len(), 1);
}

#[test]
fn model_above_the_budget_is_an_error_and_removes_nothing() {
    let (folder, source) = with_source();
    let cache = cache(&folder);
    take(&cache, &source).unwrap();
    let other = folder.write("other.gguf", &tiny().with_seed(2));
    let error = take(&cache.clone().with_budget(1000), &other).unwrap_err();
    assert!(matches!(error, ImportError::Cache(CacheError::Budget { budget: 1000, .. })), "{error}");
    assert!(!take(&cache, &source).unwrap().is_new());
}

#[test]
fn cancelled_import_leaves_no_model() {
    let folder = Folder::new();
    let mut model = tiny();
    model.shape.n_ff = 16384;
    let (cache, gguf) = (cache(&folder), Gguf::open(folder.write("source.gguf", &model)).unwrap());
    // While the source is read, and while the model is written.
    for stop_at in [0.0, 0.3, 0.6] {
        let stop = |fraction: f32| if fraction >= stop_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
        let error = cache.import(&gguf, &ImportOptions::default(), stop).unwrap_err();
        assert!(matches!(error, ImportError::Cancelled), "{error}");
        let left = names(cache.folder());
        assert!(left.iter().all(|name| !name.contains(".gguf")), "{left:?}");
    }
    let path = cache.import(&gguf, &ImportOptions::default(), go_on).unwrap().path().to_owned();
    // Nor does one that is found damaged stay when its successor is not written. It is too short, which is seen at once.
    fs::write(&path, "short").unwrap();
    let stop = |fraction: f32| if fraction >= 0.6 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    cache.import(&gguf, &ImportOptions::default(), stop).unwrap_err();
    assert!(models(&cache).is_empty());
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let (folder, source) = with_source();
    let cache = cache(&folder);
    fs::create_dir_all(cache.folder()).unwrap();
    let source_digest = ".source-0123.json.99999.0.partial";
    let left = [".0123.gguf.99999.0.partial", "0123.gguf", ".4567.json.99999.0.partial", "4567.json", source_digest];
    for name in left {
        fs::write(cache.folder().join(name), "half").unwrap();
    }
    let there = || {
        let names = names(cache.folder());
        left.into_iter().filter(|&left| names.iter().any(|name| name == left)).collect::<Vec<_>>()
    };
    // Digests are written without the lock: one that is new may be another process's work.
    take(&cache, &source).unwrap();
    assert_eq!(there(), [source_digest]);
    set_age(&cache.folder().join(source_digest), Duration::from_secs(100));
    take(&cache, &folder.write("other.gguf", &tiny().with_seed(2))).unwrap();
    assert!(there().is_empty(), "{:?}", there());
    assert_eq!(models(&cache).len(), 2);
}

#[test]
fn digests_of_sources_that_are_gone_are_removed() {
    let folder = Folder::new();
    let cache = cache(&folder);
    let sources = [1, 2, 3].map(|seed| folder.write(&format!("{seed}.gguf"), &tiny().with_seed(seed)));
    let digests = || names(cache.folder()).into_iter().filter(|name| name.starts_with("source-")).collect::<Vec<_>>();
    for source in &sources[..2] {
        set_age(source, Duration::from_secs(60));
        take(&cache, source).unwrap();
    }
    let before = digests();
    assert_eq!(before.len(), 2);
    fs::remove_file(&sources[0]).unwrap();
    fs::write(cache.folder().join("source-0123.json"), "half").unwrap();
    // Its own is not kept: it is too new.
    take(&cache, &sources[2]).unwrap();
    let after = digests();
    assert!(after.len() == 1 && before.contains(&after[0]), "{before:?} {after:?}");
    assert!(!take(&cache, &sources[1]).unwrap().is_new());
}

#[test]
fn source_that_is_not_the_one_that_was_opened_is_refused() {
    let (folder, source) = with_source();
    let cache = cache(&folder);
    let opened = Gguf::open(&source).unwrap();
    let other = folder.write("other.gguf", &tiny().with_seed(2));
    set_age(&other, Duration::from_secs(60));
    assert_eq!(fs::metadata(&other).unwrap().len(), fs::metadata(&source).unwrap().len());
    fs::rename(&other, &source).unwrap();
    let error = cache.import(&opened, &ImportOptions::default(), go_on).unwrap_err();
    assert!(matches!(error, ImportError::Changed { ref path } if *path == source), "{error}");
    assert!(models(&cache).is_empty());
}

#[test]
fn source_that_is_replaced_while_others_write_is_refused() {
    let (folder, source) = with_source();
    let cache = cache(&folder);
    fs::create_dir_all(cache.folder()).unwrap();
    let lock = fs::File::create(cache.folder().join("lock")).unwrap();
    lock.lock().unwrap();
    let other = folder.write("other.gguf", &tiny().with_seed(2));
    set_age(&other, Duration::from_secs(60));
    let (mut lock, mut waited) = (Some(lock), 0);
    let error = cache.import(&Gguf::open(&source).unwrap(), &ImportOptions::default(), |_| {
        // By then it waits: a digest of so small a file takes a report or two.
        waited += 1;
        if waited == 20 {
            fs::rename(&other, &source).unwrap();
            lock.take();
        }
        ControlFlow::Continue(())
    });
    assert!(matches!(error, Err(ImportError::Changed { ref path }) if *path == source), "{error:?}");
    assert!(models(&cache).is_empty());
}

#[test]
fn folder_that_cannot_be_made_is_an_error() {
    let (folder, source) = with_source();
    fs::write(folder.at("cache"), "a file").unwrap();
    let error = take(&cache(&folder), &source).unwrap_err();
    assert!(matches!(error, ImportError::Cache(CacheError::Io { .. })), "{error}");
}

/// Imports the source in the folder that the environment names, and writes beside it whether that was new.
#[test]
#[ignore = "runs as the child of another test"]
fn child() {
    let Some(folder) = std::env::var_os(CHILD).map(PathBuf::from) else {
        return eprintln!("skipped: only another test can give it a folder");
    };
    let cache = Cache::new(folder.join("cache/deeper"));
    let expected = fs::read(folder.join("expected.gguf")).unwrap();
    let mut new = 0;
    for _ in 0..20 {
        let imported = take(&cache, &folder.join("source.gguf")).unwrap();
        assert!(fs::read(imported.path()).unwrap() == expected, "a model that is not whole");
        new += usize::from(imported.is_new());
    }
    fs::write(folder.join(format!("new-{}", std::process::id())), new.to_string()).unwrap();
}

#[test]
fn processes_that_import_at_once_share_one_model() {
    let (folder, source) = with_source();
    import_at_once(&folder, &source);
}

#[test]
fn processes_that_find_a_model_damaged_share_the_new_one() {
    let (folder, source) = with_source();
    let damaged = take(&cache(&folder), &source).unwrap().path().to_owned();
    let mut bytes = fs::read(&damaged).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&damaged, bytes).unwrap();
    import_at_once(&folder, &source);
}

/// Several processes import the source, and one of them writes the model.
fn import_at_once(folder: &Folder, source: &Path) {
    const PROCESSES: usize = 4;
    let expected = folder.at("expected.gguf");
    crate::import_as(source, &expected, Default::default()).unwrap();
    let spawn = |_| -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "cache::child", "--ignored"]).env(CHILD, folder.at(""));
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let children: Vec<Child> = (0..PROCESSES).map(spawn).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let new = folder
        .names()
        .into_iter()
        .filter(|name| name.starts_with("new-"))
        .map(|name| fs::read_to_string(folder.at(&name)).unwrap().parse::<usize>().unwrap());
    let new: Vec<usize> = new.collect();
    assert_eq!((new.len(), new.iter().sum::<usize>()), (PROCESSES, 1), "imported {new:?} times");
    assert_eq!(models(&cache(folder)).len(), 1);
}
