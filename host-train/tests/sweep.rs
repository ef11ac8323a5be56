//! `sweep` from outside, on this machine: from file to report, what is kept, what is resumed, what is refused. The
//! engines of other machines are tested by `cargo xtask test --long`.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// The file that docs/sweep.md shows.
const EXAMPLE: &str = include_str!("../examples/sweep.toml");

/// Runs of a fraction of a second.
const TINY: &str = "total_timesteps = 320\n[set]\nrfm.actor_hidden = 8\nrfm.critic_hidden = 8\nrfm.learning_starts = 100\n\
                    eval.episodes = 2\neval.every = 160\ncheckpoint_every = 80\n";

fn sweep(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_host-train")).arg("sweep").args(args).current_dir(dir).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json(output: &Output) -> Value {
    let stdout = text(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", text(&output.stderr));
    serde_json::from_str(stdout.lines().last().unwrap()).unwrap()
}

/// Exit code 2 and one sentence with these words.
fn refused(dir: &Path, args: &[&str], words: &[&str]) {
    let output = sweep(dir, args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    let errors: Vec<_> = stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && !stderr.contains("panicked"), "{stderr}");
    for word in words {
        assert!(errors[0].contains(word), "{args:?} does not say {word:?}: {stderr}");
    }
}

/// A run's table without the column of CPU-seconds.
fn curve(run: &Path) -> Vec<Vec<String>> {
    let csv = fs::read_to_string(run.join("progress.csv")).unwrap();
    let place = csv.lines().next().unwrap().split(',').position(|name| name == "cpu_seconds").unwrap();
    let fields = |line: &str| line.split(',').enumerate().filter(|(i, _)| *i != place).map(|(_, f)| f.into()).collect();
    csv.lines().map(fields).collect()
}

#[test]
fn the_example_runs() {
    let dir = tempfile::tempdir().unwrap();
    // As it is, but for the lengths.
    fs::write(dir.path().join("pendulums.toml"), EXAMPLE).unwrap();
    let commands = json(&sweep(dir.path(), &["pendulums.toml", "--dry-run", "--json"]));
    let lines = text(&sweep(dir.path(), &["pendulums.toml", "--dry-run"]).stdout);
    assert_eq!(commands["commands"].as_array().unwrap().len(), lines.lines().count());
    assert!(lines.starts_with("host-train train --env pendulum --algo rfm"), "{lines}");
    assert!(!dir.path().join("runs").exists());

    let mut table: toml::Table = EXAMPLE.parse().unwrap();
    table.insert("total_timesteps".into(), toml::Value::Integer(320));
    table.insert("seeds".into(), toml::Value::Integer(1));
    fs::write(dir.path().join("pendulums.toml"), table.to_string()).unwrap();
    let report = json(&sweep(dir.path(), &["pendulums.toml", "--json"]));
    assert_eq!(report["runs"], report["finished"]);
    assert_eq!((report["failed"].as_array().unwrap().len(), report["runs"].as_u64()), (0, Some(3)));
}

#[test]
fn a_sweep_from_file_to_report() {
    let dir = tempfile::tempdir().unwrap();
    let file =
        format!("envs = ['pendulum']\nalgos = ['rfm', 'sac']\nseeds = 2\n{TINY}[cross]\nrfm.gamma = [0.9, 0.99]\n");
    fs::write(dir.path().join("tiny.toml"), file).unwrap();
    let output = sweep(dir.path(), &["tiny.toml", "--jobs", "2", "--json"]);
    let report = json(&output);
    assert_eq!((report["runs"].as_u64(), report["finished"].as_u64()), (Some(6), Some(6)));
    let groups = report["groups"].as_array().unwrap();
    let names: Vec<_> = groups.iter().map(|g| format!("{} {}", g["algo"], g["label"]).replace('"', "")).collect();
    assert_eq!(names, ["rfm gamma=0.9", "rfm gamma=0.99", "sac "]);
    assert!(groups.iter().all(|g| g["seeds"].as_array().unwrap().len() == 2));
    let out = dir.path().join("runs/tiny");
    let table = fs::read_to_string(out.join("table.md")).unwrap();
    assert!(table.contains("| pendulum | rfm gamma=0.9 | 2 |"), "{table}");
    assert!(fs::read_to_string(out.join("curves.svg")).unwrap().contains("<svg"));
    let stderr = text(&output.stderr);
    assert!(stderr.contains("0 of 6 runs are finished") && stderr.contains("6 of 6: "), "{stderr}");
    assert!(stderr.contains(" left"), "{stderr}");

    // The command that the log tells makes the same bits.
    let run = out.join("pendulum__rfm__gamma=0.9/seed-2");
    let log = fs::read_to_string(out.join("pendulum__rfm__gamma=0.9/seed-2.log")).unwrap();
    let words: Vec<_> = log.lines().next().unwrap().split(' ').skip(2).collect();
    let place = words.len() - 1;
    let by_hand = Command::new(env!("CARGO_BIN_EXE_host-train"))
        .args(&words[..place])
        .arg("by-hand")
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert!(by_hand.status.success() && words[place].ends_with("gamma=0.9/seed-2"), "{log}");
    let by_hand = dir.path().join("by-hand");
    assert_eq!(curve(&run), curve(&by_hand));
    assert_eq!(fs::read(run.join("policy.flw")).unwrap(), fs::read(by_hand.join("policy.flw")).unwrap());

    // What is finished is kept, what is broken off is resumed, what is missing is trained, and the report is the same.
    let wanted = fs::read(run.join("policy.flw")).unwrap();
    let kept = fs::metadata(out.join("pendulum__sac/seed-1/evaluation.json")).unwrap().modified().unwrap();
    fs::remove_file(run.join("evaluation.json")).unwrap();
    for entry in fs::read_dir(run.join("checkpoints")).unwrap() {
        let path = entry.unwrap().path();
        if !path.to_string_lossy().contains("240") {
            fs::remove_file(path).unwrap();
        }
    }
    fs::remove_dir_all(out.join("pendulum__sac/seed-2")).unwrap();
    let again = json(&sweep(dir.path(), &["tiny.toml", "--json"]));
    assert_eq!(fs::metadata(out.join("pendulum__sac/seed-1/evaluation.json")).unwrap().modified().unwrap(), kept);
    let log = fs::read_to_string(out.join("pendulum__rfm__gamma=0.9/seed-2.log")).unwrap();
    assert!(log.contains("--- host-train resume runs/tiny/pendulum__rfm__gamma=0.9/seed-2"), "{log}");
    assert_eq!(fs::read(run.join("policy.flw")).unwrap(), wanted);
    assert_eq!(curve(&run), curve(&by_hand));
    let scores = |report: &Value| {
        let of = |g: &Value| (g["single_by_seed"].clone(), g["greedy_by_seed"].clone());
        report["groups"].as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(scores(&again), scores(&report));
    let reported = json(&sweep(dir.path(), &["tiny.toml", "--no-training", "--json"]));
    assert_eq!(scores(&reported), scores(&report));

    // A finished run of other constants is nobody's result.
    let config = fs::read_to_string(run.join("config.toml")).unwrap();
    let other = config.replace("gamma = 0.9\n", "gamma = 0.8\n");
    assert_ne!(config, other);
    fs::write(run.join("config.toml"), other).unwrap();
    refused(dir.path(), &["tiny.toml"], &["rfm.gamma in ", "pendulum__rfm__gamma=0.9/seed-2", "--out"]);
}

#[test]
fn a_run_that_fails_does_not_stop_the_others() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("s.toml"), format!("algos = 'rfm'\nseeds = 2\n{TINY}")).unwrap();
    // Somebody's folder stands where a run would be.
    fs::create_dir_all(dir.path().join("runs/s/rfm/seed-1")).unwrap();
    fs::write(dir.path().join("runs/s/rfm/seed-1/thesis.tex"), "mine").unwrap();
    let output = sweep(dir.path(), &["s.toml", "--json"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let report: Value = serde_json::from_str(text(&output.stdout).lines().last().unwrap()).unwrap();
    assert_eq!((report["finished"].as_u64(), report["failed"].as_array().unwrap().len()), (Some(1), 1));
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("error: 1 of 2 runs failed") && last.contains("not empty"), "{stderr}");
    assert_eq!(fs::read(dir.path().join("runs/s/rfm/seed-1/thesis.tex")).unwrap(), b"mine");
}

/// Killed without a chance to save, then stopped in good order, then by the same command to the end: the bits of a run that
/// was never stopped.
#[cfg(target_os = "linux")]
#[test]
fn what_is_killed_is_resumed() {
    use std::process::Stdio;
    use std::time::{Duration, Instant};
    let dir = tempfile::tempdir().unwrap();
    // Half a minute of training if nobody stopped it; a checkpoint every 20 ms or so.
    let long = TINY.replace("total_timesteps = 320", "total_timesteps = 400000").replace("= 160", "= 400000");
    fs::write(dir.path().join("s.toml"), format!("algos = 'rfm'\nout = 'o'\n{long}")).unwrap();
    let run = dir.path().join("o/rfm/seed-1");
    let checkpoint = || {
        let mut entries = fs::read_dir(run.join("checkpoints")).into_iter().flatten().flatten();
        // Not one that is being written.
        entries.any(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
    };
    let until = |what: &str, done: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !done() {
            assert!(begun.elapsed() < Duration::from_secs(120), "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let mut under_way = Command::new(env!("CARGO_BIN_EXE_host-train"));
    let under_way =
        under_way.args(["sweep", "s.toml"]).current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut under_way = Stopped(Some(under_way.spawn().unwrap()));
    let id = under_way.0.as_ref().unwrap().id();
    until("no checkpoint came", &checkpoint);
    let training = trainings("o/rfm/seed-1");
    assert_eq!(training.len(), 1);
    signal("-KILL", training[0]);
    let log = dir.path().join("o/rfm/seed-1.log");
    let resumed = || fs::read_to_string(&log).is_ok_and(|log| log.contains("resuming rfm"));
    until("it was not resumed", &resumed);
    // To the sweep alone, which passes it on.
    signal("-TERM", id);
    let output = under_way.0.take().unwrap().wait_with_output().unwrap();
    let (status, stderr) = (output.status, text(&output.stderr));
    assert_eq!(status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("it is tried again") && stderr.contains("signal: 9"), "{stderr}");
    assert!(trainings("o/rfm/seed-1").is_empty());
    assert!(fs::read_to_string(&log).unwrap().lines().last().unwrap().contains("stopped at"));
    let report = json(&sweep(dir.path(), &["s.toml", "--no-training", "--json"]));
    assert_eq!(report["groups"][0]["unfinished"].as_array().unwrap().len(), 1);
}

/// Stops a sweep that a failed test leaves, in good order, so that it stops its trainings.
#[cfg(target_os = "linux")]
struct Stopped(Option<std::process::Child>);

#[cfg(target_os = "linux")]
impl Drop for Stopped {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
            let _ = child.wait();
        }
    }
}

/// The processes that train in this folder.
#[cfg(target_os = "linux")]
fn trainings(folder: &str) -> Vec<u32> {
    let of = |id: &u32| {
        let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.contains(&folder.as_bytes()) && (words.contains(&&b"train"[..]) || words.contains(&&b"resume"[..]))
    };
    let ids = fs::read_dir("/proc").unwrap().filter_map(|e| e.unwrap().file_name().to_string_lossy().parse().ok());
    ids.filter(of).collect()
}

#[cfg(target_os = "linux")]
fn signal(which: &str, process: u32) {
    assert!(Command::new("kill").args([which, &process.to_string()]).status().unwrap().success());
}

#[test]
fn wrong_use_is_one_sentence_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    refused(dir.path(), &["none.toml"], &["none.toml", "TOML"]);
    file("a.toml", "seads = 3");
    refused(dir.path(), &["a.toml"], &["a.toml", "seads", "nearest one is seeds;"]);
    file("a.toml", "envs = []");
    refused(dir.path(), &["a.toml"], &["a.toml", "empty"]);
    file("a.toml", "envs = ['pendulum', 'pendulum']");
    refused(dir.path(), &["a.toml"], &["share the folder pendulum"]);
    file("a.toml", "envs = ['pendulum', 'pendulom']");
    refused(dir.path(), &["a.toml"], &["setting pendulom", "cartpole"]);
    file("a.toml", "[cross]\nrfm.gama = [0.9]");
    refused(dir.path(), &["a.toml"], &["rfm.gama", "rfm.gamma"]);
    file("a.toml", "arguments = ['--seed', '3']");
    refused(dir.path(), &["a.toml"], &["--seed", "leave it out"]);
    for text in [
        "[set]\nseed = 3",
        "[cross]\nseed = [3, 4]",
        "[[variant]]\nname = 'x'\nset = { seed = 3 }",
        "arguments = ['--set', 'seed=3']",
        "arguments = ['--set=seed = 3']",
    ] {
        file("a.toml", text);
        refused(dir.path(), &["a.toml"], &["seed is set, and a sweep gives each run its own: use seeds or first_seed"]);
    }
    file("a.toml", "arguments = ['--sed']");
    refused(dir.path(), &["a.toml"], &["--sed"]);
    file("a.toml", "");
    refused(dir.path(), &["a.toml", "--wait"], &["--wait", "slurm"]);
    refused(dir.path(), &["a.toml", "--address", "x"], &["--address", "ray"]);
    refused(dir.path(), &["a.toml", "--engine", "ray", "--python", "false"], &["false -m pip install ray"]);
    refused(dir.path(), &["a.toml", "--engine", "ray", "--python", "/none"], &["/none", "install Python 3"]);
    assert!(!dir.path().join("runs").exists());
}

#[cfg(unix)]
#[test]
fn slurms_script_is_written_and_its_absence_told() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.toml"), "algos = ['rfm', 'sac']\nseeds = 2").unwrap();
    let words = ["a.toml", "--engine", "slurm", "--sbatch=--partition=short", "--jobs", "3"];
    let written = json(&sweep(dir.path(), &[&words[..], &["--dry-run", "--json"]].concat()));
    let command: Vec<_> = written["commands"][0].as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
    assert_eq!(command[..5], ["sbatch", "--parsable", "--job-name=a", "--array=0-3%3", "--partition=short"]);
    let script = dir.path().join("runs/a/sweep.sbatch");
    let checked = Command::new("sh").arg("-n").arg(&script).status().unwrap();
    assert!(checked.success() && command[5].ends_with("runs/a/sweep.sbatch"));
    assert_eq!(written["earlier"], serde_json::json!([]));
    let without_slurm = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_host-train"));
        command.arg("sweep").args(words).args(more).current_dir(dir.path()).env("PATH", "/nowhere").output().unwrap()
    };
    let output = without_slurm(&[]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.contains("cannot start sbatch") && last.contains("slurm-client"), "{stderr}");
    // What it advises does not need Slurm either, even after a submission.
    fs::write(dir.path().join("runs/a/slurm.json"), "{\"jobs\":[\"7\"]}").unwrap();
    let output = without_slurm(&["--dry-run"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).starts_with("job 7 of an earlier submission may still be queued"));
}
