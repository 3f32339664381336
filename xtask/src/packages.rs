//! What the build needs, and the system packages that bring it: one row a package manager.

use std::fmt;

/// Something that a build of llama.cpp or the fetching of a model needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// A compiler for C++17 with its standard library.
    CxxCompiler,
    /// `libstdc++.a`: the program links it statically, so that it starts on machines without C++ libraries.
    StaticStdcxx,
    /// What cmake calls: make or ninja.
    Make,
    /// cmake of at least [`CMAKE_AT_LEAST`].
    Cmake,
    /// libclang, with which bindgen reads llama.cpp's headers.
    Libclang,
    /// Python's pip, which fetches the model and, without root, cmake and libclang.
    Pip,
}

/// The minimum of llama.cpp's own `CMakeLists.txt`.
pub(crate) const CMAKE_AT_LEAST: (u32, u32) = (3, 14);

impl Need {
    pub(crate) const ALL: [Self; 6] =
        [Self::CxxCompiler, Self::StaticStdcxx, Self::Make, Self::Cmake, Self::Libclang, Self::Pip];
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CxxCompiler => "a C++17 compiler",
            Self::StaticStdcxx => "the static C++ library (libstdc++.a)",
            Self::Make => "make or ninja",
            Self::Cmake => "cmake 3.14 or newer",
            Self::Libclang => "libclang",
            Self::Pip => "Python 3 with pip",
        })
    }
}

/// A system's package manager: how to call it, and what it calls the needs.
#[derive(Debug)]
pub(crate) struct PackageManager {
    /// The program that is looked for on `PATH`.
    pub(crate) program: &'static str,
    /// Arguments that refresh the list of packages, where installing does not do so itself.
    pub(crate) refresh: Option<&'static [&'static str]>,
    /// Arguments before the names of the packages; never asks.
    pub(crate) install: &'static [&'static str],
    /// Homebrew refuses to run as root, the others need it.
    pub(crate) needs_root: bool,
    cxx_compiler: &'static [&'static str],
    static_stdcxx: &'static [&'static str],
    make: &'static [&'static str],
    cmake: &'static [&'static str],
    libclang: &'static [&'static str],
    pip: &'static [&'static str],
}

impl PackageManager {
    /// The packages that bring what is needed; empty where the system has none.
    pub(crate) fn packages(&self, need: Need) -> &'static [&'static str] {
        match need {
            Need::CxxCompiler => self.cxx_compiler,
            Need::StaticStdcxx => self.static_stdcxx,
            Need::Make => self.make,
            Need::Cmake => self.cmake,
            Need::Libclang => self.libclang,
            Need::Pip => self.pip,
        }
    }

    /// The packages for several needs, each once.
    pub(crate) fn packages_for(&self, needs: &[Need]) -> Vec<&'static str> {
        let mut names: Vec<&str> = Vec::new();
        for name in needs.iter().flat_map(|need| self.packages(*need)) {
            if !names.contains(name) {
                names.push(name);
            }
        }
        names
    }
}

/// Looked for in this order; a system has one of the first five, and perhaps Homebrew besides.
pub(crate) const MANAGERS: &[PackageManager] = &[
    PackageManager {
        program: "apt-get",
        refresh: Some(&["update"]),
        install: &["install", "--yes", "--no-install-recommends"],
        needs_root: true,
        cxx_compiler: &["g++"],
        static_stdcxx: &["g++"],
        make: &["make"],
        cmake: &["cmake"],
        // Not libclang1 alone: the headers stdbool.h and stddef.h come with the development package.
        libclang: &["libclang-dev"],
        pip: &["python3-pip"],
    },
    PackageManager {
        program: "dnf",
        refresh: None,
        install: &["install", "--assumeyes"],
        needs_root: true,
        cxx_compiler: &["gcc-c++"],
        static_stdcxx: &["libstdc++-static"],
        make: &["make"],
        cmake: &["cmake"],
        libclang: &["clang-devel"],
        pip: &["python3-pip"],
    },
    PackageManager {
        program: "zypper",
        refresh: None,
        install: &["--non-interactive", "install", "--no-recommends"],
        needs_root: true,
        cxx_compiler: &["gcc-c++"],
        static_stdcxx: &["gcc-c++"],
        make: &["make"],
        cmake: &["cmake"],
        libclang: &["clang-devel"],
        pip: &["python3-pip"],
    },
    PackageManager {
        program: "pacman",
        refresh: None,
        // -y with -u: Arch does not support a partial upgrade, which a refreshed list alone leads to.
        install: &["-Syu", "--noconfirm", "--needed"],
        needs_root: true,
        cxx_compiler: &["gcc"],
        static_stdcxx: &["gcc"],
        make: &["make"],
        cmake: &["cmake"],
        libclang: &["clang"],
        pip: &["python-pip"],
    },
    PackageManager {
        program: "apk",
        refresh: None,
        install: &["add", "--no-cache"],
        needs_root: true,
        cxx_compiler: &["g++"],
        static_stdcxx: &["libstdc++-dev"],
        make: &["make"],
        cmake: &["cmake"],
        libclang: &["clang-dev", "clang-libclang"],
        pip: &["py3-pip"],
    },
    PackageManager {
        program: "brew",
        refresh: None,
        install: &["install"],
        needs_root: false,
        // The compiler and make come with Apple's command-line tools, which only their own dialogue installs.
        cxx_compiler: &[],
        static_stdcxx: &[],
        make: &[],
        cmake: &["cmake"],
        libclang: &["llvm"],
        pip: &["python"],
    },
];

/// What to type by hand to get what is needed.
pub(crate) fn by_hand(needs: &[Need], manager: Option<&PackageManager>) -> String {
    let listed = needs.iter().map(Need::to_string).collect::<Vec<_>>().join(", ");
    let packages = manager.map(|manager| manager.packages_for(needs)).unwrap_or_default();
    match manager {
        Some(manager) if !packages.is_empty() => {
            let sudo = if manager.needs_root { "sudo " } else { "" };
            format!("{listed}: `{sudo}{} {} {}`", manager.program, manager.install.join(" "), packages.join(" "))
        }
        _ if cfg!(target_os = "macos") => format!("{listed}: `xcode-select --install`"),
        _ if cfg!(windows) => {
            format!("{listed}: the C++ tools of Visual Studio, and cmake, LLVM and Python from their installers")
        }
        _ => format!("{listed}: see the system's documentation"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manager(program: &str) -> &'static PackageManager {
        MANAGERS.iter().find(|manager| manager.program == program).unwrap()
    }

    #[test]
    fn every_linux_manager_has_a_package_for_every_need() {
        for manager in MANAGERS.iter().filter(|manager| manager.program != "brew") {
            for need in Need::ALL {
                assert!(!manager.packages(need).is_empty(), "{} lacks {need}", manager.program);
            }
        }
    }

    #[test]
    fn each_manager_is_listed_once() {
        for (index, one) in MANAGERS.iter().enumerate() {
            assert!(MANAGERS[index + 1..].iter().all(|other| other.program != one.program), "{}", one.program);
        }
    }

    #[test]
    fn a_package_that_serves_two_needs_is_installed_once() {
        assert_eq!(manager("apt-get").packages_for(&[Need::CxxCompiler, Need::StaticStdcxx]), ["g++"]);
        assert_eq!(
            manager("dnf").packages_for(&[Need::CxxCompiler, Need::StaticStdcxx]),
            ["gcc-c++", "libstdc++-static"]
        );
    }

    #[test]
    fn what_to_do_by_hand_is_one_command() {
        assert_eq!(
            by_hand(&[Need::Cmake, Need::Libclang], Some(manager("apt-get"))),
            "cmake 3.14 or newer, libclang: `sudo apt-get install --yes --no-install-recommends cmake libclang-dev`"
        );
    }
}
