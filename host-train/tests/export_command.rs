//! `export` from outside: formats by name and by ending, where files go, wrong combinations.

use flowlet::policy::Artefact;
use host_train::policy::ArtefactBytes;
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// The policy that is committed for the firmware: three Euler steps of two layers, without critics.
const POLICY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware/policies/pendulum.flw");

fn export(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_host-train")).arg("export").args(args).output().unwrap()
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap()
}

fn path<'a>(folder: &'a Path, name: &str, held: &'a mut String) -> &'a str {
    *held = folder.join(name).display().to_string();
    held
}

#[test]
fn the_ending_or_the_name_chooses_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let mut place = String::new();
    let whole = ArtefactBytes::read(Path::new(POLICY)).unwrap();

    let flw = path(folder.path(), "a.flw", &mut place);
    assert_eq!(report(&export(&[POLICY, "--out", flw, "--json"]))["format"], "flw");
    // Of a version-1 policy in today's version; `assert!`, for the bytes would fill the screen.
    let same = whole.revised(*whole.artefact().unwrap().plan(), true).unwrap();
    assert!(fs::read(flw).unwrap() == same.as_slice());
    // An ending that says nothing is the artefact, as it always was.
    let bin = path(folder.path(), "a.bin", &mut place);
    assert_eq!(report(&export(&[POLICY, "--out", bin, "--json"]))["format"], "flw");

    let rs = path(folder.path(), "a.rs", &mut place);
    assert_eq!(report(&export(&[POLICY, "--out", rs, "--json", "--steps", "2"]))["steps"], 2);
    assert!(fs::read_to_string(rs).unwrap().contains("pub const STEPS: usize = 2;"));

    let tensors = path(folder.path(), "a.safetensors", &mut place);
    assert_eq!(report(&export(&[POLICY, "--out", tensors, "--json"]))["format"], "safetensors");
    let file = fs::read(tensors).unwrap();
    let bias = SafeTensors::deserialize(&file).unwrap().tensor("velocity.out.bias").unwrap().data().to_vec();
    let params = Artefact::new(whole.as_slice()).unwrap().velocity().as_f32().unwrap().params().to_vec();
    assert_eq!(bias, params.last().unwrap().to_le_bytes());

    let onnx = path(folder.path(), "a.onnx", &mut place);
    let policy = report(&export(&[POLICY, "--out", onnx, "--json"]));
    assert_eq!((&policy["format"], &policy["onnx_part"]), (&"onnx".into(), &"policy".into()));
    assert_eq!(policy["bytes"], fs::metadata(onnx).unwrap().len());
    let velocity = report(&export(&[POLICY, "--out", onnx, "--json", "--onnx-part", "velocity"]));
    assert_eq!(velocity["onnx_part"], "velocity");
}

#[test]
fn a_run_folder_gets_the_file_beside_its_policy() {
    let run = tempfile::tempdir().unwrap();
    fs::copy(POLICY, run.path().join("policy.flw")).unwrap();
    let folder = run.path().display().to_string();
    for (args, name) in [
        (&["--format", "onnx"][..], "policy.onnx"),
        (&["--format", "onnx", "--onnx-part", "velocity"], "policy.velocity.onnx"),
        (&["--format", "rust"], "policy.rs"),
        (&["--format", "safetensors"], "policy.safetensors"),
    ] {
        let told = report(&export(&[&[folder.as_str(), "--json"], args].concat()));
        assert_eq!(told["policy"], run.path().join(name).display().to_string());
        assert!(run.path().join(name).is_file(), "{name}");
    }
    assert_eq!(fs::read_dir(run.path()).unwrap().count(), 5);
}

#[test]
fn wrong_combinations_are_one_sentence() {
    for (args, words) in [
        (&[POLICY][..], ["--out FILE", "--firmware"]),
        (&[POLICY, "--format", "flw"], ["--out FILE", "--firmware"]),
        (&[POLICY, "--format", "onnx", "--out", "/tmp/a.rs"], [".rs", ".onnx"]),
        (&[POLICY, "--firmware", "--format", "rust"], ["--firmware", ".flw format"]),
        (&[POLICY, "--onnx-part", "policy", "--out", "/tmp/a.flw"], ["--onnx-part", "--format onnx"]),
        (&[POLICY, "--onnx-part", "critic", "--out", "/tmp/a.onnx"], ["critic", "velocity"]),
        (&[POLICY, "--format", "pickle"], ["pickle", "safetensors"]),
        (&[POLICY, "--firmware", "--out", "/tmp/a.flw"], ["--out FILE", "not both"]),
    ] {
        let output = export(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{args:?}: {said}");
    }
}

#[test]
fn a_profile_has_a_row_for_every_number_of_steps() {
    let profile =
        |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_host-train")).arg("profile").args(args).output().unwrap();
    let told = report(&profile(&[POLICY, "--episodes", "2", "--json"]));
    assert_eq!((&told["env"], &told["solver"], &told["own_steps"]), (&"pendulum".into(), &"euler".into(), &5.into()));
    let rows = told["rows"].as_array().unwrap();
    let steps: Vec<u64> = rows.iter().map(|row| row["steps"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3, 5, 10]);
    for (row, steps) in rows.iter().zip(steps) {
        // Three observations, width 64, two layers, one action; (steps + 4) 64 + 3 + 4 floats.
        assert_eq!(row["macs"], 3 * 64 + steps * (64 + 64 * 64 + 64));
        assert_eq!(row["ram_bytes"], 4 * ((steps + 4) * 64 + 7));
        assert!(row["return_mean"].as_f64().unwrap() < 0.0 && row["gain_ci95"].as_f64().is_some());
    }
    let text = profile(&[POLICY, "--episodes", "1"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("M4F instructions") && text.contains("no critics travel"), "{text}");
    let other = profile(&[POLICY, "--env", "cartpole"]);
    assert_eq!(other.status.code(), Some(2));
}
