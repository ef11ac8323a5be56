//! The C interface: its header, made from the source, and the firmware in C that runs in QEMU.
//!
//! cbindgen is a library here, so that a fresh machine needs nothing for the header. The program under `capi/example` is
//! built by Debian's arm-none-eabi-gcc without a C library for the Cortex-M4F, and must print the digest that the host
//! computes, twice: by the library's own exercise, and by decisions that the C code asked for one by one. It does so with the
//! pendulum's policy in f32 and in int8.

use crate::boards::{self, Board};
use crate::policy::{Bytes, c_actions};
use crate::{cargo, digests, elf, qemu, tools};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The profile of the static library in the root's `Cargo.toml`.
const PROFILE: &str = "c-library";

const COMPILER: &str = "arm-none-eabi-gcc";

/// The Cortex-M4F with its single-precision unit, floats in registers, no C library.
const FLAGS: [&str; 12] = [
    "-mcpu=cortex-m4",
    "-mthumb",
    "-mfloat-abi=hard",
    "-mfpu=fpv4-sp-d16",
    "-std=c11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-ffreestanding",
    "-nostdlib",
    "-ffunction-sections",
];

fn header_path(root: &Path) -> PathBuf {
    root.join("capi/include/flowlet.h")
}

/// The header as the source has it now.
fn header(root: &Path) -> Result<String> {
    let mut config = cbindgen::Config {
        language: cbindgen::Language::C,
        include_guard: Some("FLOWLET_H".into()),
        cpp_compat: true,
        usize_is_size_t: true,
        no_includes: true,
        sys_includes: ["stddef.h", "stdint.h", "stdbool.h"].map(String::from).to_vec(),
        documentation_style: cbindgen::DocumentationStyle::C99,
        line_length: 120,
        header: Some(HEADER.into()),
        after_includes: Some(MACRO.into()),
        ..cbindgen::Config::default()
    };
    config.style = cbindgen::Style::Type;
    config.enumeration.enum_class = false;
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in ["error", "gate", "policy"] {
        builder = builder.with_src(root.join("capi/src").join(file).with_extension("rs"));
    }
    let mut text = Vec::new();
    builder.generate().context("cbindgen cannot read capi/src")?.write(&mut text);
    Ok(String::from_utf8(text)?)
}

const HEADER: &str = "/* The C interface of flowlet: flow-matching policies on microcontrollers.
 *
 * Made from capi/src by `cargo xtask c-interface`; link libflowlet_c.a. Nothing is allocated, nothing waits, and every
 * function that can fail returns a flowlet_error and, when it is not FLOWLET_OK, writes nothing. A policy and a gate are
 * not to be used by two threads or by an interrupt at once.
 */";

const MACRO: &str = "
/* Bytes that are enough for a policy of so many observations, actions, units a layer and rows of the time table (Euler:
 * its steps), for static memory; flowlet_policy_size tells them exactly. Memory is lent aligned to 8 bytes. */
#define FLOWLET_POLICY_MEMORY(observations, actions, hidden, rows) \\
    (192 * sizeof(void *) + 4 * (((rows) + 4) * (hidden) + 2 * (observations) + 5 * (actions)))
";

/// `cargo xtask c-interface`: writes the header, whole or not at all, and checks the firmware in C.
pub fn run(root: &Path) -> Result<u8> {
    let path = header_path(root);
    let beside = path.with_extension("h.new");
    fs::write(&beside, header(root)?).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, &path).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    let board = boards::find(root, "m4f")?;
    tools::ensure_targets(root, std::slice::from_ref(&board))?;
    tools::ensure_qemu(std::slice::from_ref(&board))?;
    tools::ensure_arm_gcc()?;
    println!("the firmware in C agrees with the host: {}", check_program(root, &board)?);
    Ok(0)
}

/// Builds the firmware in C, runs it on `board` and compares its digests with the host's, for each number format.
pub fn check_program(root: &Path, board: &Board) -> Result<String> {
    let f32 = digests::default_policy(root);
    let int8 = f32.with_file_name("pendulum-int8.flw");
    Ok(format!("f32 {}; int8 {}", check(root, board, &f32)?, check(root, board, &int8)?))
}

fn check(root: &Path, board: &Board, policy: &Path) -> Result<String> {
    let program = build(root, board, policy)?;
    let (text, code) = qemu::execute_plain(board, &program, Duration::from_secs(120))?;
    let host = digests::host_row(policy, 0)?.digest;
    let actions = c_actions(&Bytes::read(policy)?)?;
    let sensor = "a sensor that is no number: an observation is NaN or infinite: check that sensor";
    let expected = [
        "self-test: passed".to_string(),
        format!("digest: {host}"),
        format!("actions: {actions:016x}"),
        format!("{sensor}; the motor gets its fallback"),
    ];
    for line in &expected {
        if code != 0 || !text.lines().any(|found| found == line) {
            bail!("the firmware in C should print `{line}` and end with 0; it ended with {code} and printed:\n{text}");
        }
    }
    let stack = text.lines().find(|line| line.starts_with("stack: ")).context("it does not print its stack")?;
    let artefact = fs::metadata(policy)?.len();
    Ok(format!("{} bytes of code, {stack}", elf::sizes(&program)?.flash.saturating_sub(artefact)))
}

/// The program's ELF, beside the firmware's.
fn build(root: &Path, board: &Board, policy: &Path) -> Result<PathBuf> {
    let target = cargo::target_directory(root);
    let mut library = cargo::cargo(root);
    library.args(["build", "--profile", PROFILE, "--package", "flowlet-c", "--target", &board.triple]);
    succeed(&mut library, "the static library does not build")?;
    let folder = target.join("qemu").join(&board.name).join("c");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let program = folder.join("example");
    let source = root.join("capi/example");
    let mut compiler = cargo::command(COMPILER, root);
    compiler.args(FLAGS).arg(format!("-DPOLICY=\"{}\"", policy.display()));
    compiler.arg("-I").arg(root.join("capi/include")).arg("-T").arg(source.join("link.ld"));
    compiler.args(["main.c", "board.c", "policy.S"].map(|file| source.join(file)));
    compiler.arg("-L").arg(target.join(&board.triple).join(PROFILE));
    compiler.args(["-lflowlet_c", "-Wl,--gc-sections", "-o"]).arg(&program);
    succeed(&mut compiler, "the firmware in C does not build")?;
    Ok(program)
}

fn succeed(command: &mut Command, failure: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!("{failure}:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_header_is_what_the_source_says() {
        let root = crate::root();
        let committed = fs::read_to_string(header_path(&root)).unwrap();
        let current = header(&root).unwrap();
        assert!(committed == current, "`cargo xtask c-interface` writes the header anew");
        for function in ["flowlet_policy_open", "flowlet_policy_act", "flowlet_gate_apply", "flowlet_error_text"] {
            assert!(current.contains(&format!(" {function}(")) || current.contains(&format!("*{function}(")));
        }
    }
}
