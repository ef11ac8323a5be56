//! With `--features mujoco`: finds what `cargo xtask fetch-mujoco` brought, tells the linker and the program, or says in
//! one sentence what to do. Without it there is nothing to do.

use std::path::Path;
use std::{env, fs};

/// What the folder must hold, each by its line in the file `versions`.
const WANTED: [&str; 2] = ["mujoco 3.17.0", "dm-control 1.0.50"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_MUJOCO").is_none() {
        return;
    }
    let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let Some(folder) = Path::new(&manifest).parent().map(|root| root.join("mujoco")) else { return };
    let stamp = folder.join("versions");
    println!("cargo::rerun-if-changed={}", stamp.display());
    let found = fs::read_to_string(&stamp).unwrap_or_default();
    let found: Vec<&str> = found.lines().filter(|line| line.contains(' ')).collect();
    let library = folder.join("lib/libmujoco.so.3.17.0");
    if found.is_empty() || found == WANTED && !library.is_file() {
        println!(
            "cargo::error=--features mujoco takes MuJoCo's library and the Control Suite's models, which are not in {}: run \
             `cargo xtask fetch-mujoco` once",
            folder.display()
        );
        return;
    }
    if found != WANTED {
        println!(
            "cargo::error={} holds {} and this program is made for {}: run `cargo xtask fetch-mujoco`",
            folder.display(),
            found.join(", "),
            WANTED.join(", ")
        );
        return;
    }
    println!("cargo::rustc-link-search=native={}", folder.join("lib").display());
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.join("lib").display());
    println!("cargo::rustc-env=FLOWLET_MUJOCO={}", folder.display());
}
