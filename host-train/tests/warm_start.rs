//! `train --init POLICY --replay LOG`: from a policy and what it met, to the bit, resumed, and what is refused.

use host_train::config::{Config, Sources};
use host_train::noise::Noise;
use host_train::replay::Minibatch;
use host_train::session::artefact;
use host_train::train::Trainer;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const PENDULUM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware/policies/pendulum.flw");
const FURUTA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware/policies/furuta.flw");
const FURUTA_CRITIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware/policies/furuta-critic.flw");
const FURUTA_INT8: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware/policies/furuta-int8.flw");

/// Settings of a run that takes a moment.
const SHORT: [&str; 8] = [
    "--set",
    "eval.episodes=2",
    "--set",
    "eval.best_of=2",
    "--set",
    "rfm.batch_size=32",
    "--set",
    "eval.curve_episodes=1",
];

fn host_train(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_host-train")).args(args).output().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap()
}

/// Checks that a command is refused by one sentence with these words.
fn refused(args: &[&str], code: i32, words: &[&str]) {
    let output = host_train(args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("error: ") && !said.contains("panicked"), "{said}");
    assert!(words.iter().all(|word| last.contains(word)), "{words:?} is not all in {last}");
}

/// What the pendulum's policy met in three episodes.
fn recorded(folder: &Path) -> String {
    let log = folder.join("log.csv").to_str().unwrap().to_string();
    json(&host_train(&["eval", "--policy", PENDULUM, "--episodes", "3", "--record", &log, "--json"]));
    log
}

#[test]
fn training_starts_from_policy_and_log_and_is_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let log = recorded(dir.path());
    let train = |name: &str, more: &[&str]| {
        let out = dir.path().join(name).to_str().unwrap().to_string();
        let args = [&["train", "--json", "--seed", "4", "--out", &out][..], &SHORT, more].concat();
        (json(&host_train(&args)), fs::read(dir.path().join(name).join("policy.flw")).unwrap(), out)
    };
    let warm = ["--init", PENDULUM, "--replay", &log];
    let of = |steps: &'static str| [&warm[..], &["--total-timesteps", steps]].concat();
    let (whole, policy, _) = train("whole", &of("960"));
    // The environment is the policy's, and so is the first evaluation, which is of the same episodes as `eval --seed 0`.
    assert_eq!(whole["env"], "pendulum");
    let eval = json(&host_train(&["eval", "--policy", PENDULUM, "--episodes", "2", "--seed", "0", "--json"]));
    assert_eq!(whole["return_before"], eval["return_mean"]);
    // The same files, the same bits; and each of the two changes them.
    assert_eq!(train("again", &of("960")).1, policy);
    assert_ne!(train("without_log", &["--init", PENDULUM, "--total-timesteps", "960"]).1, policy);
    assert_ne!(train("without_policy", &["--replay", &log, "--total-timesteps", "960"]).1, policy);
    // Broken off and resumed, with neither the policy's file nor the log at hand.
    let (_, half, out) = train("half", &of("480"));
    assert_ne!(half, policy);
    fs::remove_file(&log).unwrap();
    json(&host_train(&["resume", &out, "--total-timesteps", "960", "--json"]));
    assert_eq!(fs::read(Path::new(&out).join("policy.flw")).unwrap(), policy);
}

/// The buffer's rows are the log's: squashed, scaled and normalised, nothing lost and nothing added.
#[test]
fn the_log_is_in_the_buffer() {
    let dir = tempfile::tempdir().unwrap();
    let log = recorded(dir.path());
    let set = ["env.reward_scale=0.5".to_string()];
    let sources =
        Sources { init: Some(Path::new(PENDULUM)), replay: Some(Path::new(&log)), set: &set, ..Sources::default() };
    let config = Config::resolve(&sources).unwrap();
    let mut trainer = Trainer::new(&config).unwrap();
    trainer.warm_start().unwrap();
    assert_eq!(trainer.replay().len(), 600);
    let mut batch = Minibatch::new(4000, 3, 1);
    trainer.replay().sample(&mut batch, &mut Noise::new(1, 0));
    let mut rows: Vec<Vec<f32>> = Vec::new();
    for line in fs::read_to_string(&log).unwrap().lines().skip(2) {
        let x: Vec<f64> = line.split(',').map(|x| x.parse().unwrap()).collect();
        let normal = |o: &[f64]| -> Vec<f32> {
            let numbers = o.iter().zip(&config.env.obs_mean).zip(&config.env.obs_scale);
            numbers.map(|((o, mean), scale)| (*o as f32 - mean) * scale).collect()
        };
        // The pendulum's torque lies in [-2, 2].
        let action = ((x[3] as f32 + 2.0) / 4.0 * 2.0 - 1.0).clamp(-1.0, 1.0);
        let one: [f32; 2] = [action, (x[4] * 0.5) as f32];
        rows.push([&normal(&x[..3])[..], &one, &normal(&x[5..8]), &[1.0]].concat());
    }
    assert_eq!(rows.len(), 600);
    let mut met = vec![false; rows.len()];
    for i in 0..4000 {
        let row: Vec<f32> = [
            &batch.obs[3 * i..3 * i + 3],
            &[batch.action[i], batch.reward[i]],
            &batch.next_obs[3 * i..3 * i + 3],
            &[batch.mask[i]],
        ]
        .concat();
        let at = rows.iter().position(|known| *known == row);
        met[at.unwrap_or_else(|| panic!("{row:?} is not in the log"))] = true;
    }
    // Of 600 rows one in 786 is not drawn in 4000: 0.76 are expected to be missing, and 6 have a probability below 1e-4.
    assert!(met.iter().filter(|met| !**met).count() < 6);
    // The policy before the first update is the one that it starts from.
    let (own, start) = (artefact(&trainer).unwrap().unwrap(), fs::read(PENDULUM).unwrap());
    let start = host_train::policy::ArtefactBytes::new(&start);
    let params = |bytes: &host_train::policy::ArtefactBytes| -> Vec<u32> {
        bytes.artefact().unwrap().velocity().as_f32().unwrap().params().iter().map(|x| x.to_bits()).collect()
    };
    assert_eq!(params(&own), params(&start));
}

/// A policy that the device can fine-tune is a start too, with its critics and without.
#[test]
fn one_step_policies_are_a_start() {
    let dir = tempfile::tempdir().unwrap();
    for (i, policy) in [FURUTA, FURUTA_CRITIC].into_iter().enumerate() {
        let out = dir.path().join(i.to_string()).to_str().unwrap().to_string();
        let args =
            [&["train", "--json", "--init", policy, "--total-timesteps", "2400", "--out", &out][..], &SHORT].concat();
        let report = json(&host_train(&args));
        // Hanging still is worth less than 20, an untrained policy less than 100.
        assert!(report["env"] == "furuta" && report["return_before"].as_f64().unwrap() > 100.0, "{report}");
        json(&host_train(&["verify", &format!("{out}/policy.flw"), "--json"]));
    }
}

#[test]
fn what_does_not_fit_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let log = recorded(dir.path());
    let out = dir.path().join("run").to_str().unwrap().to_string();
    let train = |more: &[&'static str]| [&["train", "--total-timesteps", "640", "--out", &out][..], more].concat();
    let with_log = |more: &[&'static str], log: &str, words: &[&str]| {
        let args: Vec<String> =
            train(more).iter().map(ToString::to_string).chain(["--replay".into(), log.into()]).collect();
        refused(&args.iter().map(String::as_str).collect::<Vec<_>>(), 2, words);
    };
    refused(&train(&["--init", FURUTA, "--env", "pendulum"]), 2, &["furuta", "5 observations", "same environment"]);
    refused(&train(&["--init", FURUTA_INT8]), 2, &["int8", "f32 policy"]);
    refused(&train(&["--init", "missing.flw"]), 2, &["missing.flw"]);
    refused(&train(&["--init", PENDULUM, "--algo", "sac"]), 2, &["--init starts rfm alone"]);
    refused(&train(&["--init", FURUTA, "--set", "env.max_voltage=6"]), 2, &["[-10, 10]", "[-6, 6]", "same robot"]);
    with_log(&["--init", FURUTA], &log, &["log of pendulum, and not of furuta"]);
    with_log(&["--set", "env.action_repeat=2"], &log, &["every 50000 us", "every 100000"]);
    with_log(&["--set", "rfm.buffer_size=599"], &log, &["600 transitions", "raise rfm.buffer_size"]);
    let text = fs::read_to_string(&log).unwrap();
    let damaged = dir.path().join("damaged.csv").to_str().unwrap().to_string();
    let lines: Vec<&str> = text.lines().collect();
    for (content, words) in [
        (text.replace("version=1", "version=9"), "version 9"),
        (
            [&lines[..3], &[&lines[3].replacen(|c: char| c.is_ascii_digit(), "NaN", 1)], &lines[4..]]
                .concat()
                .join("\n"),
            "line 4",
        ),
        (text[..text.len() / 2].trim_end_matches('\n').rsplit_once(',').unwrap().0.to_string(), "damaged.csv"),
        (text.replace("obs.theta_dot", "obs.omega"), "no column obs.theta_dot"),
    ] {
        fs::write(&damaged, content).unwrap();
        with_log(&["--init", PENDULUM], &damaged, &[words]);
    }
    assert!(!Path::new(&out).exists(), "a run was begun");
}
