//! The binary from outside: exit codes, one-sentence errors, JSON on the last line, records.
//!
//! Only commands that train nothing.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const RECORDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/records");
const SUITE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/records/suite");

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_host-train")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The last line of standard output as JSON.
fn json(output: &Output) -> Value {
    serde_json::from_str(text(&output.stdout).lines().last().unwrap()).unwrap()
}

/// Checks that a command is refused with an exit code and one line that holds the words, and prints no result.
fn refused(args: &[&str], code: i32, words: &[&str]) {
    let output = run(args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert_eq!(stderr.lines().filter(|l| l.starts_with("error: ")).count(), 1, "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("error: "), "{stderr}");
    for word in words {
        assert!(last.contains(word), "{args:?} does not say {word:?}: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn envs_lists_every_environment() {
    let output = run(&["envs"]);
    assert!(output.status.success());
    let stdout = text(&output.stdout);
    for word in ["pendulum:", "cartpole:", "max_torque=2", "rail=1.8", "theta_dot"] {
        assert!(stdout.contains(word), "{stdout}");
    }
    let output = run(&["envs", "--json"]);
    assert_eq!(text(&output.stdout).lines().count(), 1);
    let listed = json(&output);
    assert_eq!(listed["envs"][0]["name"], "pendulum");
    assert_eq!(listed["envs"][1]["action_repeat"], 4);
    assert_eq!(listed["envs"][1]["physics"]["gear"], 10.0);
}

#[test]
fn records_are_matched() {
    let output = run(&["check-env", RECORDS, "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&output);
    assert_eq!((report["records"].as_u64(), report["steps"].as_u64()), (Some(3), Some(600)));
    for key in ["max_obs_diff", "max_reward_diff"] {
        assert!(report[key].as_f64().unwrap() <= 1e-6, "{report}");
    }
    let only = json(&run(&["--json", "check-env", SUITE, "--env", "cartpole"]));
    assert_eq!((only["records"].as_u64(), only["steps"].as_u64()), (Some(1), Some(50)));
    let file = format!("{RECORDS}/pendulum_v1.json");
    let output = run(&["check-env", &file]);
    assert!(output.status.success() && text(&output.stdout).contains("600 steps"));
}

/// A record that is off by more than the tolerance fails, and the report still comes out.
#[test]
fn a_difference_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("off.json");
    let whole = fs::read_to_string(format!("{SUITE}/cartpole_swingup.json")).unwrap();
    let mut value: Value = serde_json::from_str(&whole).unwrap();
    let seen = value["reward"][20].as_f64().unwrap();
    value["reward"][20] = (seen + 3e-6).into();
    fs::write(&path, value.to_string()).unwrap();
    let path = path.to_str().unwrap();
    refused(&["check-env", path], 1, &["differ"]);
    let output = run(&["check-env", path, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let off = json(&output)["max_reward_diff"].as_f64().unwrap();
    assert!((off - 3e-6).abs() < 1e-9, "{off}");
}

#[test]
fn records_that_cannot_be_checked_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let here = dir.path().to_str().unwrap();
    refused(&["check-env", here], 1, &["pendulum, cartpole"]);
    refused(&["check-env", &at("missing.json")], 2, &["cannot read", "missing.json"]);
    refused(&["check-env", RECORDS, "--env", "walker"], 2, &["walker", "pendulum, cartpole"]);
    let other = r#"{"domain":"swimmer","task":"swimmer6","start":{"qpos":[0],"qvel":[0],"obs":[0]},"actions":[[0]],"obs":[[0]],"reward":[0]}"#;
    fs::write(at("swimmer.json"), other).unwrap();
    fs::write(at("notes.json"), "{}").unwrap();
    refused(&["check-env", here], 1, &["no record"]);
    refused(&["check-env", &at("swimmer.json")], 1, &["no record"]);
    refused(&["check-env", &at("swimmer.json"), "--env", "cartpole"], 2, &["does not fit"]);
    // Beside a record that is covered they are only named.
    fs::copy(format!("{RECORDS}/pendulum_v1.json"), at("pendulum.json")).unwrap();
    let output = run(&["check-env", here, "--json"]);
    assert!(output.status.success());
    let stderr = text(&output.stderr);
    for word in ["2 of the records in 3 files", "swimmer.json (swimmer-swimmer6)", "notes.json (no record)"] {
        assert!(stderr.contains(word), "{stderr}");
    }
    fs::write(at("torn.json"), "{\"env\":").unwrap();
    refused(&["check-env", here], 2, &["torn.json", "not JSON"]);
}

#[test]
fn wrong_use_is_one_sentence() {
    refused(&["tran"], 2, &["tran", "train", "eval", "check-env"]);
    refused(&["train", "--sed", "3"], 2, &["--sed", "--help"]);
    refused(&["eval"], 2, &["--policy"]);
    refused(&["eval", "--policy", "x", "--episodes", "0"], 2, &["--episodes"]);
    refused(&["check-env"], 2, &["FILE|DIR"]);
    assert!(run(&["--help"]).status.success());
    assert!(run(&["train", "--help"]).status.success());
    assert!(text(&run(&["--version"]).stdout).starts_with("host-train "));
}

/// A reader that closes the pipe early is not an error worth a panic.
#[cfg(unix)]
#[test]
fn a_closed_pipe_is_no_panic() {
    let shell = format!("{:?} envs | true", Path::new(env!("CARGO_BIN_EXE_host-train")));
    let output = Command::new("sh").arg("-c").arg(shell).output().unwrap();
    assert!(!text(&output.stderr).contains("panicked"), "{}", text(&output.stderr));
}
