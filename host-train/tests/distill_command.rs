//! `distill` from outside: the files it leaves, what it prints, and what it refuses in one sentence.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn host_train(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_host-train")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// A run of a few updates.
fn train(out: &Path, algo: &str, more: &[&str]) {
    let out = out.to_str().unwrap();
    let fixed = ["train", "--algo", algo, "--out", out, "--total-timesteps", "1200", "--set", "eval.episodes=2"];
    let done = host_train(&[&fixed[..], more].concat());
    assert!(done.status.success(), "{}", text(&done.stderr));
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn refused(args: &[&str], words: &[&str]) {
    let output = host_train(args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("error: ") && said.trim_end().lines().count() == 1, "{said}");
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
}

#[test]
fn two_files_are_left_beside_the_run() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path().join("run");
    train(&run, "rfm", &[]);
    let before = names(&run);
    let policy = fs::read(run.join("policy.flw")).unwrap();
    let shown = run.to_str().unwrap();
    let short = ["distill", shown, "--updates", "30", "--episodes", "2"];
    let output = host_train(&[&short[..], &["--json"]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_str(text(&output.stdout).trim()).unwrap();
    let mut wanted = before;
    wanted.extend(["distillation.json", "distilled.flw"].map(String::from));
    wanted.sort();
    assert_eq!(names(&run), wanted);
    assert_eq!(fs::read(run.join("policy.flw")).unwrap(), policy);
    let left: Value = serde_json::from_slice(&fs::read(run.join("distillation.json")).unwrap()).unwrap();
    assert_eq!(left, report);
    let rows: Vec<&str> = report["rows"].as_array().unwrap().iter().map(|r| r["policy"].as_str().unwrap()).collect();
    let methods = ["distil", "mean-velocity"];
    let wanted = ["random actions", "ten steps", "own plan, 5 euler steps", "one plain Euler step"];
    assert_eq!(rows, [&wanted[..], &methods].concat());
    assert!(methods.contains(&report["kept"].as_str().unwrap()));

    // The result is a policy like any other, with what it returned in its step table.
    let distilled = run.join("distilled.flw");
    let distilled = distilled.to_str().unwrap();
    let inspected = host_train(&["inspect", distilled, "--json"]);
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    assert_eq!((inspected["steps"].as_u64(), inspected["frequencies"].as_array().unwrap().len()), (Some(1), 0));
    assert_eq!(inspected["step_table"][0][0], 1);
    assert!(host_train(&["verify", distilled]).status.success());
    for format in ["onnx", "rust", "safetensors"] {
        let done = host_train(&["export", distilled, "--format", format]);
        assert!(done.status.success(), "{}", text(&done.stderr));
    }
    // Once more for people, by one method: the same files, replaced.
    let output = host_train(&[&short[..], &["--method", "distil", "--width", "24"]].concat());
    let said = text(&output.stdout);
    assert!(
        output.status.success() && said.contains("one plain Euler step") && said.contains("kept: distil"),
        "{said}"
    );
    assert!(!said.contains("mean-velocity") && fs::read(distilled).unwrap().len() < policy.len());
}

#[test]
fn a_trained_policy_tells_its_steps() {
    let root = tempfile::tempdir().unwrap();
    let run = root.path().join("run");
    train(&run, "rfm", &[]);
    let policy = run.join("policy.flw");
    let inspected = host_train(&["inspect", policy.to_str().unwrap(), "--json"]);
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    let table = inspected["step_table"].as_array().unwrap();
    assert_eq!(table.iter().map(|e| e[0].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 5, 10]);
    // Its own plan's entry is the final evaluation.
    let evaluation: Value = serde_json::from_slice(&fs::read(run.join("evaluation.json")).unwrap()).unwrap();
    assert_eq!(table[3][1].as_f64().unwrap() as f32, evaluation["single"]["mean"].as_f64().unwrap() as f32);
    // Another number of steps keeps it.
    let out = root.path().join("two.flw");
    let out = out.to_str().unwrap();
    assert!(host_train(&["export", run.to_str().unwrap(), "--steps", "2", "--out", out]).status.success());
    let two: Value = serde_json::from_slice(&host_train(&["inspect", out, "--json"]).stdout).unwrap();
    assert_eq!((&two["step_table"], two["steps"].as_u64()), (&inspected["step_table"], Some(2)));
}

#[test]
fn wrong_use_is_one_sentence() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name).to_str().unwrap().to_string();
    train(&root.path().join("sac"), "sac", &[]);
    refused(&["distill", &at("sac")], &["run of sac", "only rfm"]);
    refused(&["distill", &at("none")], &["no folder"]);
    refused(&["distill", root.path().to_str().unwrap()], &["no config.toml"]);
    refused(&["distill"], &["RUN", "host-train distill --help"]);
    refused(&["distill", &at("sac"), "--method", "best"], &["'best'", "mean-velocity"]);
    refused(&["distill", &at("sac"), "--episodes", "1"], &["--episodes"]);
    train(&root.path().join("seeds"), "rfm", &["--seeds", "2", "--jobs", "1"]);
    refused(&["distill", &at("seeds")], &["several seeds", "seed-1"]);
    assert!(names(&root.path().join("sac")).iter().all(|name| !name.starts_with("distil")));
}
