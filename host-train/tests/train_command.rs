//! `train`, `eval`, `inspect`, `verify` and `export` from outside: a short run from end to end, what is written and
//! printed, and what is refused.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Options of a run that takes a second and learns little.
const SHORT: [&str; 4] = ["--set", "eval.episodes=4", "--set", "eval.best_of=4"];

fn host_train(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_host-train"));
    command.args(args);
    command
}

fn run(args: &[&str]) -> Output {
    host_train(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> Value {
    let stdout = text(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", text(&output.stderr));
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

/// Checks exit code and that the last line of standard error is one sentence with these words.
fn refused(args: &[&str], code: i32, words: &[&str]) {
    let output = run(args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("error: ") && !stderr.contains("panicked"), "{stderr}");
    for word in words {
        assert!(last.contains(word), "{args:?} does not say {word:?}: {last}");
    }
}

/// A short run in `dir`; its JSON and its policy.
fn train(dir: &Path) -> (Value, PathBuf) {
    let out = dir.join("run");
    let args =
        [&["train", "--json", "--seed", "5", "--total-timesteps", "2400", "--out", out.to_str().unwrap()][..], &SHORT];
    let report = json(&run(&args.concat()));
    (report, out.join("policy.flw"))
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_run_from_training_to_export() {
    let dir = tempfile::tempdir().unwrap();
    let (report, policy) = train(dir.path());
    for key in [
        "env",
        "algo",
        "seed",
        "total_timesteps",
        "cpu_seconds",
        "return_mean",
        "return_ci95",
        "return_best_of",
        "episodes",
        "run_dir",
        "policy",
    ] {
        assert!(!report[key].is_null(), "{key} is missing: {report}");
    }
    assert_eq!((&report["env"], &report["algo"]), (&"pendulum".into(), &"rfm".into()));
    assert_eq!((report["seed"].as_u64(), report["total_timesteps"].as_u64()), (Some(5), Some(2400)));
    assert_eq!(report["policy"].as_str().unwrap(), policy.to_str().unwrap());
    assert_eq!(
        names(&dir.path().join("run")),
        ["checkpoints", "config.toml", "curve.svg", "evaluation.json", "policy.flw", "progress.csv"]
    );
    let csv = fs::read_to_string(dir.path().join("run/progress.csv")).unwrap();
    // A header, the untrained policy, eleven evaluations along the way, the last.
    assert_eq!(csv.lines().count(), 14, "{csv}");

    // The same configuration gives the same policy, bit for bit.
    let config = dir.path().join("run/config.toml");
    let again = dir.path().join("again");
    json(&run(&["train", "--json", "--config", config.to_str().unwrap(), "--out", again.to_str().unwrap()]));
    assert_eq!(fs::read(&policy).unwrap(), fs::read(again.join("policy.flw")).unwrap());

    let file = policy.to_str().unwrap();
    let verified = json(&run(&["verify", file, "--json"]));
    assert_eq!(verified["self_test"], "passed");
    let inspected = json(&run(&["inspect", file, "--json"]));
    assert_eq!((inspected["env"].as_str(), inspected["critics"].as_u64()), (Some("pendulum"), Some(2)));
    assert_eq!(inspected["bytes"].as_u64(), Some(fs::metadata(&policy).unwrap().len()));

    let eval = |more: &[&str]| json(&run(&[&["eval", "--json", "--policy", file, "--episodes", "3"], more].concat()));
    let first = eval(&[]);
    assert_eq!(first["return_mean"], eval(&["--seed", "1"])["return_mean"]);
    assert_ne!(first["return_mean"], eval(&["--seed", "2"])["return_mean"]);
    assert_ne!(first["return_mean"], eval(&["--set", "env.mass=1.5"])["return_mean"]);
    assert_eq!((first["algo"].as_str(), first["total_timesteps"].as_u64()), (Some("rfm"), Some(2400)));
    assert!(first["return_best_of"].as_f64().unwrap() < 0.0);

    let five = dir.path().join("five.flw");
    let out = five.to_str().unwrap();
    let args = ["export", file, "--steps", "5", "--solver", "heun", "--without-critic", "--out", out, "--json"];
    let exported = json(&run(&args));
    assert_eq!((exported["steps"].as_u64(), exported["critics"].as_u64()), (Some(5), Some(0)));
    assert_eq!(json(&run(&["verify", out, "--json"]))["self_test"], "passed");
    let plain = json(&run(&["eval", "--json", "--policy", out, "--episodes", "2"]));
    assert!(plain["return_best_of"].is_null() && plain["algo"].is_null(), "{plain}");
    // The run folder itself is a source too.
    let folder = dir.path().join("run");
    json(&run(&["export", folder.to_str().unwrap(), "--out", out, "--json"]));
    assert_eq!(fs::read(&policy).unwrap(), fs::read(&five).unwrap());
}

#[test]
fn damaged_policies_are_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let (_, policy) = train(dir.path());
    let good = fs::read(&policy).unwrap();
    let at = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_string()
    };
    let mut flipped = good.clone();
    flipped[5000] ^= 4;
    let mut newer = good.clone();
    newer[4] = 3;
    let truncated = at("truncated.flw", &good[..good.len() / 2]);
    let (flipped, newer) = (at("flipped.flw", &flipped), at("newer.flw", &newer));
    let (empty, text) = (at("empty.flw", b""), at("text.flw", &[b'x'; 500]));
    for command in ["verify", "inspect", "export"] {
        refused(&[command, &truncated], 1, &["truncated.flw", "truncated"]);
        refused(&[command, &flipped], 1, &["checksum"]);
        refused(&[command, &newer], 1, &["version 3", "versions 1 to 2"]);
        refused(&[command, &empty], 1, &["empty.flw"]);
        refused(&[command, &text], 1, &["magic"]);
        refused(&[command, "missing.flw"], 2, &["missing.flw"]);
    }
    let file = policy.to_str().unwrap();
    refused(&["eval", "--policy", &truncated], 1, &["truncated"]);
    refused(&["eval", "--policy", file, "--env", "cartpole"], 2, &["3 observations", "5"]);
    refused(&["eval", "--policy", file, "--env", "walker"], 2, &["walker", "pendulum, cartpole"]);
    refused(&["eval", "--policy", file, "--set", "rfm.gamma=1"], 2, &["physics"]);
    refused(&["eval", "--policy", file, "--set", "env.dt=0.03"], 2, &["0.05"]);
    refused(&["export", file], 2, &["--out", "--firmware"]);
    refused(&["export", file, "--firmware", "--out", "x.flw"], 2, &["not both"]);
    refused(&["export", file, "--solver", "eular", "--out", "x.flw"], 2, &["eular", "euler"]);
    refused(&["export", file, "--out", "/nowhere/at/all.flw"], 1, &["/nowhere/at/all.flw"]);
}

#[test]
fn wrong_training_options_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let with = |args: &[&str], words: &[&str]| {
        refused(&[&["train", "--out", out.to_str().unwrap()], args].concat(), 2, words);
        assert!(!out.exists(), "{args:?} left a folder");
    };
    with(&["--env", "pendulom"], &["pendulom", "pendulum, cartpole"]);
    with(&["--algo", "ppo"], &["ppo", "rfm"]);
    with(&["--set", "rfm.gama=0.9"], &["rfm.gama", "rfm.gamma"]);
    with(&["--set", "env.mas=0.9"], &["env.mas", "env.mass"]);
    with(&["--set", "env.mass=-1"], &["mass"]);
    with(&["--set", "rfm.gamma=nan"], &["gamma"]);
    with(&["--set", "rfm.particles=0"], &["particles"]);
    with(&["--set", "eval.episodes=0"], &["episodes"]);
    with(&["--set", "env.max_torque=0"], &["max_torque"]);
    with(&["--total-timesteps", "0"], &["total_timesteps"]);
    // What the artefact's format refuses is refused before anything is trained, by its key.
    for (set, key) in [
        ("rfm.actor_hidden=2000", "actor_hidden"),
        ("rfm.critic_layers=12", "critic_layers"),
        ("rfm.particles=2000", "particles"),
        ("env.obs_clip=2000", "obs_clip"),
        ("env.obs_scale=[0,1,1]", "obs_scale"),
        ("rfm.frequencies=[1e20]", "frequencies"),
        ("env.max_torque=1e31", "action limits"),
        ("rfm.t_max=0.0005", "t_max"),
        ("rfm.log_temperature_max=50", "log_temperature_max"),
    ] {
        with(&["--set", set], &[key]);
    }
    with(&["--preset", "papr"], &["papr", "paper"]);
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    refused(&["train", "--out", file.to_str().unwrap()], 2, &["is a file"]);
    refused(&["train", "--out", file.join("run").to_str().unwrap()], 1, &["cannot make"]);
    refused(&["train", "--out", dir.path().to_str().unwrap()], 2, &["not empty"]);
    assert_eq!(names(dir.path()), ["file"]);
}

#[test]
fn diverging_physics_and_a_foreign_firmware_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let out = out.to_str().unwrap();
    let args = ["train", "--env", "cartpole", "--total-timesteps", "400", "--out", out];
    refused(
        &[&args[..], &["--set", "env.gear=1e300"]].concat(),
        1,
        &["environment cartpole", "not finite", "control step"],
    );
    let out = dir.path().join("cartpole");
    let args = [&args[..6], &[out.to_str().unwrap(), "--json"], &SHORT].concat();
    let policy = json(&run(&args))["policy"].as_str().unwrap().to_string();
    refused(&["export", &policy, "--firmware"], 2, &["no program", "cartpole", "--out"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = host_train(&["envs", "--json"]).stdout(full).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("standard output"), "{}", text(&output.stderr));
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_the_work_so_far() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let args = [&["train", "--json", "--total-timesteps", "10000000", "--out", out.to_str().unwrap()][..], &SHORT];
    let mut child = host_train(&args.concat());
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The table has its header and the untrained policy's row once training has begun.
    let started = || fs::read_to_string(out.join("progress.csv")).is_ok_and(|csv| csv.lines().count() >= 2);
    for _ in 0..600 {
        if started() {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(started(), "training did not begin in a minute");
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let status = child.wait().unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(status.code(), Some(130), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.contains("stopped at") && last.contains("-- resume ") && !stderr.contains("panicked"), "{stderr}");
    assert_eq!(names(&out), ["checkpoints", "config.toml", "curve.svg", "policy.flw", "progress.csv"]);
    let policy = out.join("policy.flw");
    assert_eq!(json(&run(&["verify", policy.to_str().unwrap(), "--json"]))["self_test"], "passed");
}
