//! With `--features mujoco`: finds what `cargo xtask fetch-mujoco` brought and tells the linker and the program, or says in
//! one sentence what to do. Without it there is nothing to do.

#[path = "src/env/suite/pinned.rs"]
mod pinned;

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/env/suite/pinned.rs");
    if env::var_os("CARGO_FEATURE_MUJOCO").is_none() {
        return;
    }
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let Some(folder) = Path::new(&manifest).parent().map(|root| root.join("mujoco")) else { return };
    println!("cargo::rerun-if-changed={}", folder.join("versions").display());
    if let Err(sentence) = pinned::holds(&folder) {
        println!("cargo::error={sentence}");
        return;
    }
    println!("cargo::rustc-link-search=native={}", folder.join("lib").display());
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.join("lib").display());
    println!("cargo::rustc-env=FLOWLET_MUJOCO={}", folder.display());
}
