//! ONNX files in onnxruntime: the same numbers as flowlet's own.
//!
//! Run by `cargo xtask test`, which installs the packages of `requirements.txt` and sets `FLOWLET_PYTHON`.

use std::process::Command;

/// The interpreter that has the packages.
fn python() -> Command {
    let interpreter = std::env::var_os("FLOWLET_PYTHON");
    Command::new(interpreter.expect("run `cargo xtask test`, which installs the Python packages"))
}

#[test]
#[ignore = "needs the Python packages: cargo xtask test"]
fn the_packages_are_there() {
    let output = python().args(["-c", "import onnx, onnxruntime; print(onnxruntime.__version__)"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
