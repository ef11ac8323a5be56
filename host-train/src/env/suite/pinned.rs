//! The versions that the tasks and the bindings are made for, and whether a folder holds them.
//!
//! Part of the program and of its build script (`host-train/build.rs`), so that both say the same. The folder is what
//! `cargo xtask fetch-mujoco` makes: its file `versions` has a line for each package.

use std::path::Path;

/// MuJoCo's library.
pub(crate) const LIBRARY: &str = "3.17.0";
/// dm_control, whose model files they are.
pub(crate) const MODELS: &str = "1.0.50";

/// The name of the library's file.
pub(crate) fn library_file() -> String {
    format!("libmujoco.so.{LIBRARY}")
}

/// Whether the folder holds what is wanted; else one sentence that says what to do.
pub(crate) fn holds(folder: &Path) -> Result<(), String> {
    const DO: &str = "run `cargo xtask fetch-mujoco`";
    let stamp = std::fs::read_to_string(folder.join("versions")).unwrap_or_default();
    let version = |package: &str| stamp.lines().find_map(|line| line.strip_prefix(package)?.strip_prefix(' '));
    let place = folder.display();
    let (Some(library), Some(models)) = (version("mujoco"), version("dm-control")) else {
        return Err(format!(
            "the feature mujoco takes MuJoCo's library and the Control Suite's models, which are not in {place}: {DO} once"
        ));
    };
    for (what, found, wanted) in [("MuJoCo's library", library, LIBRARY), ("dm_control's models", models, MODELS)] {
        if found != wanted {
            return Err(format!("{what} in {place} is version {found} and this program is made for {wanted}: {DO}"));
        }
    }
    if folder.join("suite").is_dir() && folder.join("lib").join(library_file()).is_file() {
        Ok(())
    } else {
        Err(format!("{place} is not whole any more: remove it and {DO}"))
    }
}
