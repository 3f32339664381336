//! The program: `import`, `export`, `inspect`, a full disk, Ctrl-C.

use std::{ffi::OsStr, path::Path, process::Output};

use assert_cmd::{Command, cargo::cargo_bin};
use gguf_loader::knobs;
use serde_json::Value;

#[cfg(target_os = "linux")]
use crate::full_disk;
use crate::{Folder, tensors, tiny};

fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    let mut command = Command::new(cargo_bin!("gguf-loader"));
    for knob in knobs::ALL {
        command.env_remove(knob.name);
    }
    command.args(arguments).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn import_reports_what_it_did() {
    let folder = Folder::new();
    let (input, out) = (folder.write("in.gguf", &tiny()), folder.at("out.gguf"));
    let arguments = [
        OsStr::new("import"),
        input.as_ref(),
        out.as_ref(),
        "--json".as_ref(),
        "--output-matrix".as_ref(),
        "q6_k".as_ref(),
    ];
    let output = run(arguments);
    assert!(output.status.success(), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["matrices"], &report["layout"], &report["evidence"]),
        (&14.into(), &"x86".into(), &"assumed".into())
    );
    assert_eq!((&report["output_matrix"], &report["output"]), (&"Q6_K".into(), &out.to_str().unwrap().into()));
    // The assumption is a warning even where the report goes to a program.
    assert!(stderr(&output).contains("layout=x86"), "{}", stderr(&output));
}

#[test]
fn forced_layout_warns_of_nothing() {
    let folder = Folder::new();
    let (input, out) = (folder.write("in.gguf", &tiny()), folder.at("out.gguf"));
    let output = run([OsStr::new("import"), input.as_ref(), out.as_ref(), "--layout".as_ref(), "x86".as_ref()]);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    assert!(String::from_utf8_lossy(&output.stdout).contains("layout: x86, as asked for"));
}

#[test]
fn what_was_imported_is_exported_as_it_was() {
    let folder = Folder::new();
    let [input, imported, exported] = ["in.gguf", "imported.gguf", "exported.gguf"].map(|name| folder.at(name));
    tiny().write_file(&input).unwrap();
    let paths = |command: &str, from: &Path, to: &Path| [command.into(), from.to_owned(), to.to_owned()];
    let output = run(paths("import", &input, &imported));
    assert!(output.status.success(), "{}", stderr(&output));
    let mut arguments = paths("export", &imported, &exported).to_vec();
    let output = run(&arguments);
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(report.contains("exported.gguf: 14 I2_S matrices, layout x86"), "{report}");
    assert!(tensors(&exported) == tensors(&input) && tensors(&imported) != tensors(&input));

    arguments.extend(["--layout".into(), "arm".into(), "--json".into()]);
    let report: Value = serde_json::from_slice(&run(&arguments).stdout).unwrap();
    assert_eq!((&report["layout"], &report["matrices"]), (&"arm".into(), &14.into()));
    assert!(tensors(&exported) != tensors(&input));
}

#[test]
fn exporting_what_is_i2_s_already_is_an_error() {
    let folder = Folder::new();
    let input = folder.write("in.gguf", &tiny());
    let output = run([OsStr::new("export"), input.as_ref(), folder.at("out.gguf").as_ref()]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("nothing to transcode"), "{}", stderr(&output));
    // What helps after an import, to load the file as it is, bitnet.cpp has been doing.
    assert!(stderr(&output).contains("help: I2_S is for matrices in TQ1_0"), "{}", stderr(&output));
    assert_eq!(folder.names(), ["in.gguf"]);
}

#[test]
fn unknown_layout_is_a_usage_error_that_lists_the_known() {
    for command in ["import", "export"] {
        let output = run([command, "in.gguf", "out.gguf", "--layout", "mips"]);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains("rows4"), "{}", stderr(&output));
    }
}

#[test]
fn inspect_shows_i2_s() {
    let folder = Folder::new();
    let input = folder.write("in.gguf", &tiny());
    let output = run([OsStr::new("inspect"), input.as_ref(), "--tensors".as_ref()]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("bitnet-b1.58"), "{text}");
    assert!(text.lines().any(|line| line.contains("blk.1.ffn_up.weight") && line.contains("I2_S")), "{text}");
}

#[cfg(unix)]
mod unix {
    use std::{
        fs,
        process::{Command, Stdio},
        thread,
        time::{Duration, Instant, SystemTime},
    };

    use gguf_loader::{
        gguf::{Gguf, synth::SyntheticBitNet},
        import::{Cache, ImportOptions},
    };

    use super::*;
    use crate::{go_on, names};

    #[test]
    fn full_disk_is_an_error_and_leaves_nothing() {
        let folder = Folder::new();
        let input = folder.write("in.gguf", &tiny());
        let before = fs::read(&input).unwrap();
        // A limit of 100 or 200 blocks, by shell, stands for a disk with as little room; the model takes 590 kB.
        let script = "trap '' XFSZ; ulimit -f 100; exec \"$0\" import \"$1\" \"$2\" --layout x86";
        let output = Command::new("sh")
            .args(["-c", script])
            .args([cargo_bin!("gguf-loader").as_os_str(), input.as_ref(), folder.at("out.gguf").as_ref()])
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert!(stderr(&output).contains("no room for"), "{}", stderr(&output));
        assert_eq!(folder.names(), ["in.gguf"]);
        assert!(fs::read(&input).unwrap() == before);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn disk_that_fills_up_is_an_error_and_is_left_empty() {
        let (folder, disk) = (Folder::new(), Folder::new());
        let input = folder.write("in.gguf", &tiny());
        let mut command = program();
        command.args(["import", "--layout", "x86"]).arg(&input).arg(disk.at("out.gguf"));
        let Some(output) = full_disk::run(&command, "", &disk.at(""), 200) else { return };
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        assert!(stderr(&output).contains("no room for"), "{}", stderr(&output));
        assert!(output.stdout.is_empty(), "left on the disk: {}", String::from_utf8_lossy(&output.stdout));
        // On a disk with room the same arguments are right.
        let output = full_disk::run(&command, "", &disk.at(""), 2000).expect("a disk a moment ago");
        assert!(output.status.success() && output.stdout.ends_with(b"\n./out.gguf\n"), "{}", stderr(&output));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_does_not_grow_with_the_model() {
        let folder = Folder::new();
        let mut model = tiny();
        model.shape.n_ff = 1 << 18;
        let (input, out) = (folder.write("in.gguf", &model), folder.at("out.gguf"));
        let megabytes = fs::metadata(&input).unwrap().len() >> 20;
        assert!(megabytes > 95, "{megabytes} MB");
        // Half of it, by shell in kB, for all that the program may write to: stacks, the heap, and its own variables.
        let script = "ulimit -d 50000; exec \"$0\" import \"$1\" \"$2\" --layout x86";
        let mut command = Command::new("sh");
        command.args(["-c", script, cargo_bin!("gguf-loader").to_str().unwrap()]).args([&input, &out]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
    }

    /// The program without a variable that it knows.
    fn program() -> Command {
        let mut command = Command::new(cargo_bin!("gguf-loader"));
        knobs::ALL.iter().for_each(|knob| _ = command.env_remove(knob.name));
        command
    }

    /// `run` with its imported models in `cache`.
    fn run_with_cache(model: &Path, cache: &Path) -> Command {
        let mut command = program();
        command.arg("run").arg(model).args(["--prompt", "a", "-n", "1"]).env("GGUF_LOADER_CACHE", cache);
        command
    }

    /// From a disk that takes nothing to one that the model fits and what vouches for it does not.
    #[test]
    #[cfg(target_os = "linux")]
    fn cache_on_a_disk_that_fills_up_is_an_error_and_holds_no_part_of_a_model() {
        const PAGE: u64 = 4;
        let (folder, disk) = (Folder::new(), Folder::new());
        let input = folder.write("in.gguf", &tiny());
        let before = fs::read(&input).unwrap();
        // The digest of a file that changes as of now is not kept, which would take a page.
        let tomorrow = SystemTime::now() + Duration::from_secs(24 * 60 * 60);
        fs::File::options().write(true).open(&input).unwrap().set_modified(tomorrow).unwrap();
        let model = folder.at("imported.gguf");
        crate::import_as(&input, &model, Default::default()).unwrap();
        let pages = fs::metadata(&model).unwrap().len().div_ceil(1024 * PAGE);
        for kilobytes in [PAGE, 200, PAGE * (pages - 1), PAGE * pages] {
            let Some(output) = full_disk::run(&run_with_cache(&input, &disk.at("")), "", &disk.at(""), kilobytes)
            else {
                return;
            };
            let said = stderr(&output);
            assert_eq!(output.status.code(), Some(3), "{kilobytes} kB: {said}");
            assert!(said.contains("no room for") && said.contains("GGUF_LOADER_CACHE"), "{kilobytes} kB: {said}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "./imports/lock\n", "{kilobytes} kB");
        }
        assert!(fs::read(&input).unwrap() == before);
        // One page more takes the model and its voucher, whether a backend that is compiled in runs it or not.
        let output =
            full_disk::run(&run_with_cache(&input, &disk.at("")), "", &disk.at(""), PAGE * (pages + 1)).unwrap();
        let left = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(left.contains(".gguf\n") && left.contains(".json\n"), "{left}{}", stderr(&output));
    }

    #[test]
    fn models_in_use_beyond_the_budget_are_a_warning() {
        let (folder, cache) = (Folder::new(), Folder::new());
        let source = folder.write("held.gguf", &tiny());
        let imports = Cache::new(cache.at("imports"));
        let held = imports.import(&Gguf::open(source).unwrap(), &ImportOptions::default(), go_on).unwrap();
        let bytes = fs::metadata(held.path()).unwrap().len();
        let other = folder.write("other.gguf", &tiny().with_seed(2));
        let warning = "kept beyond GGUF_LOADER_IMPORT_BUDGET";
        let mut command = run_with_cache(&other, &cache.at(""));
        let output = command.env("GGUF_LOADER_IMPORT_BUDGET", (bytes + bytes / 2).to_string()).output().unwrap();
        assert!(stderr(&output).contains(warning), "{}", stderr(&output));
        assert!(held.path().exists());
        drop(held);
        let third = folder.write("third.gguf", &tiny().with_seed(3));
        let mut command = run_with_cache(&third, &cache.at(""));
        let output = command.env("GGUF_LOADER_IMPORT_BUDGET", (bytes + bytes / 2).to_string()).output().unwrap();
        assert!(!stderr(&output).contains(warning), "{}", stderr(&output));
        assert_eq!(names(imports.folder()).iter().filter(|name| name.ends_with(".gguf")).count(), 1);
    }

    #[test]
    fn interrupt_while_loading_imports_ends_with_130_and_leaves_nothing() {
        let (folder, cache) = (Folder::new(), Folder::new());
        let input = folder.write("in.gguf", &large());
        let before = fs::read(&input).unwrap();
        let imports = cache.at("imports");
        let is_written = || imports.is_dir() && names(&imports).iter().any(|name| name.ends_with(".partial"));
        let output = interrupt_when(&mut run_with_cache(&input, &cache.at("")), is_written);
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert_eq!(stderr(&output), "error: interrupted\n");
        assert!(output.stdout.is_empty());
        let left = names(&imports);
        assert!(left.iter().all(|name| !name.contains(".gguf")), "{left:?}");
        assert!(fs::read(&input).unwrap() == before);
    }

    #[test]
    fn interrupt_while_importing_ends_with_130_and_leaves_nothing() {
        let folder = Folder::new();
        let input = folder.write("in.gguf", &large());
        let mut command = program();
        command.arg("import").arg(&input).arg(folder.at("out.gguf")).args(["--layout", "x86"]);
        // The file beside the output: bytes are on their way.
        let output = interrupt_when(&mut command, || folder.names().len() > 1);
        assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
        assert_eq!(stderr(&output), "error: interrupted\n");
        assert_eq!(folder.names(), ["in.gguf"]);
    }

    /// A model that takes a while.
    fn large() -> SyntheticBitNet {
        let mut model = tiny();
        (model.shape.n_embd, model.shape.n_ff, model.shape.n_layer) = (2048, 8192, 8);
        model
    }

    /// Presses Ctrl-C as soon as something is so; the program must have taken over Ctrl-C by then.
    fn interrupt_when(command: &mut Command, is_so: impl Fn() -> bool) -> Output {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(Instant::now() < deadline, "the import does not begin");
            assert_eq!(child.try_wait().unwrap(), None, "the import is over");
            thread::sleep(Duration::from_millis(1));
        }
        let status = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
        assert!(status.success());
        child.wait_with_output().unwrap()
    }
}
