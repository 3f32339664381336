//! Finds the llama.cpp that the sys crate built, and compiles the C++ shim against it.

use std::{
    env,
    path::{Path, PathBuf},
};

/// The llama.cpp source tree that `llama-cpp-sys-2` was built from.
pub(crate) struct Source {
    llama: PathBuf,
}

impl Source {
    /// Follows the sys crate's build metadata to its CMake cache, which names the source folder.
    pub(crate) fn find() -> Self {
        let cmake_dir = env::var("DEP_LLAMA_GGML_CMAKE_DIR")
            .expect("llama-cpp-sys-2 exports DEP_LLAMA_GGML_CMAKE_DIR to the crates that depend on it directly");
        let out_dir =
            Path::new(&cmake_dir).ancestors().nth(2).expect("DEP_LLAMA_GGML_CMAKE_DIR is <OUT_DIR>/lib/cmake");
        let cache = out_dir.join("build").join("CMakeCache.txt");
        let text = std::fs::read_to_string(&cache)
            .unwrap_or_else(|error| panic!("cannot read the sys crate's {}: {error}", cache.display()));
        let home = text
            .lines()
            .find_map(|line| line.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="))
            .unwrap_or_else(|| panic!("{} does not name CMAKE_HOME_DIRECTORY", cache.display()));
        println!("cargo:rerun-if-changed={}", cache.display());
        Self { llama: PathBuf::from(home) }
    }

    /// `llama.cpp/ggml`.
    pub(crate) fn ggml(&self) -> PathBuf {
        self.llama.join("ggml")
    }

    /// `llama.cpp/ggml/src/ggml-cpu`.
    pub(crate) fn ggml_cpu(&self) -> PathBuf {
        self.ggml().join("src").join("ggml-cpu")
    }

    fn llama(&self, folder: &str) -> PathBuf {
        self.llama.join(folder)
    }
}

/// Compiles what calls C++ of llama.cpp: `shim.cpp`, `chat.cpp` and `grammar.cpp`, every call that may throw, with the
/// exception turned into an error; and `pages.cpp`.
pub(crate) fn build_shim(source: &Source) {
    for file in [
        "shim.cpp",
        "shim.h",
        "chat.cpp",
        "chat.h",
        "grammar.cpp",
        "grammar.h",
        "answer.h",
        "pages.cpp",
        "pages.h",
        "registration.h",
    ] {
        println!("cargo:rerun-if-changed=backends/ggml/{file}");
    }
    use_compiler_launcher();
    let mut build = cc::Build::new();
    if env::var_os("CARGO_FEATURE_BITNET").is_some() {
        println!("cargo:rerun-if-changed=backends/bitnet/architecture.cpp");
        println!("cargo:rerun-if-changed=backends/bitnet/architecture.h");
        build.define("GGUF_LOADER_BITNET", None).include("backends/bitnet").file("backends/bitnet/architecture.cpp");
    }
    build
        .cpp(true)
        .std("c++17")
        .cpp_link_stdlib(None) // the sys crate links libstdc++, statically
        .warnings(true)
        .extra_warnings(false)
        .flag_if_supported("-Wno-unused-parameter")
        .flag_if_supported("-Wno-unused-function") // of llama.cpp's Jinja headers
        .include(source.llama("include"))
        .include(source.llama("src"))
        .include(source.ggml().join("include"))
        .include(source.ggml().join("src"))
        // For headers that are named from here: `common/chat.h`.
        .include(&source.llama)
        .file("backends/ggml/shim.cpp")
        .file("backends/ggml/chat.cpp")
        .file("backends/ggml/grammar.cpp")
        .file("backends/ggml/pages.cpp")
        .debug(false)
        .compile("gguf_loader_shim");
}

/// Runs the compiler through the launcher that CMake builds use (ccache), so that both halves of the build are cached.
fn use_compiler_launcher() {
    let target = env::var("TARGET").expect("cargo sets TARGET").replace('-', "_");
    for (launcher, compiler, cpp) in
        [("CMAKE_C_COMPILER_LAUNCHER", "CC", false), ("CMAKE_CXX_COMPILER_LAUNCHER", "CXX", true)]
    {
        println!("cargo:rerun-if-env-changed={launcher}");
        let Some(launcher) = env::var(launcher).ok().filter(|launcher| !launcher.is_empty()) else { continue };
        let variable = format!("{compiler}_{target}");
        // Whatever the environment says; cc's own choice otherwise, so that a cross compiler is found as before.
        let given = [variable.clone(), format!("TARGET_{compiler}"), compiler.to_owned()].into_iter();
        let given = given.filter_map(|name| env::var(name).ok()).find(|tool| !tool.is_empty());
        let tool = given.unwrap_or_else(|| {
            cc::Build::new().cpp(cpp).cargo_metadata(false).get_compiler().path().display().to_string()
        });
        if !tool.starts_with(&launcher) {
            // SAFETY: build scripts start with one thread, and none has been spawned yet.
            unsafe { env::set_var(variable, format!("{launcher} {tool}")) };
        }
    }
}
