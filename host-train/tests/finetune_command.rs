//! `finetune` from outside: the files it leaves, what it prints, its bits, and what it refuses in one sentence.

use host_train::policy::ArtefactBytes;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const POLICY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware/policies/furuta-critic.flw");
const WITHOUT_CRITICS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware/policies/furuta.flw");

fn host_train(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_host-train")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Twenty seconds of robot time on worn bearings.
fn finetune(out: &Path, more: &[&str]) -> Value {
    let fixed = ["finetune", "--policy", POLICY, "--set", "env.friction=5", "--without-scratch", "--json"];
    let short = ["--seconds", "20", "--every", "10", "--episodes", "1", "--out", out.to_str().unwrap()];
    let output = host_train(&[&fixed[..], &short[..], more].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_str(text(&output.stdout).trim()).unwrap()
}

#[test]
fn a_folder_with_policy_table_picture_and_report() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (root.path().join("one"), root.path().join("two"));
    let report = finetune(&one, &["--seed", "4"]);
    for key in ["return_before", "return_after", "return_candidate", "robot_seconds", "updates", "ram_bytes"] {
        assert!(report[key].is_number(), "{key}: {report}");
    }
    assert!(report["return_scratch"].is_null() && report["recovered"].is_null());
    assert_eq!(report["robot_seconds"], 20.0);
    assert!(report["updates"].as_u64().unwrap() > 100, "{report}");
    let left: Value = serde_json::from_slice(&fs::read(one.join("finetune.json")).unwrap()).unwrap();
    assert_eq!(left, report);
    let table = fs::read_to_string(one.join("progress.csv")).unwrap();
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(fs::read_to_string(one.join("curve.svg")).unwrap().contains("return of an episode"));
    let learned = one.join("learned.flw");
    assert!(host_train(&["verify", learned.to_str().unwrap()]).status.success());
    // The same seed gives the same bits, another does not.
    let again = finetune(&two, &["--seed", "4"]);
    assert_eq!(again["return_candidate"], report["return_candidate"]);
    assert_eq!(fs::read(&learned).unwrap(), fs::read(two.join("learned.flw")).unwrap());
    let three = root.path().join("three");
    assert_ne!(finetune(&three, &["--seed", "5"])["return_candidate"], report["return_candidate"]);
}

#[test]
fn several_seeds_are_summed_up() {
    let root = tempfile::tempdir().unwrap();
    let (both, alone) = (root.path().join("both"), root.path().join("alone"));
    let report = finetune(&both, &["--seed", "4", "--seeds", "2"]);
    assert_eq!(report["seeds"], serde_json::json!([4, 5]));
    let single = finetune(&alone, &["--seed", "5"]);
    assert_eq!(report["runs"][1]["return_candidate"], single["return_candidate"]);
    let each = [0, 1].map(|i| report["runs"][i]["return_before"].as_f64().unwrap());
    assert!((report["return_before"]["mean"].as_f64().unwrap() - 0.5 * (each[0] + each[1])).abs() < 1e-9);
    assert!(fs::read_to_string(both.join("curve.svg")).unwrap().contains("2 seeds"));
    assert_eq!(fs::read(both.join("seed-5/learned.flw")).unwrap(), fs::read(alone.join("learned.flw")).unwrap());
}

/// A reward that is no number is refused, transition by transition, and nothing is learned from it.
#[test]
fn a_reward_that_is_no_number_teaches_nothing() {
    let root = tempfile::tempdir().unwrap();
    let report = finetune(&root.path().join("run"), &["--set", "finetune.reward=nan"]);
    assert_eq!((&report["updates"], &report["promoted"]), (&Value::from(0), &Value::from(0)));
    assert_eq!(report["return_candidate"], report["return_before"]);
}

/// Nothing was promoted in twenty seconds: what is deployed is the factory's policy, to the bit.
#[test]
fn without_a_promotion_the_factory_plays() {
    let root = tempfile::tempdir().unwrap();
    let report = finetune(&root.path().join("run"), &["--mode", "lean"]);
    assert_eq!((&report["promoted"], &report["return_after"]), (&Value::from(0), &report["return_before"]));
    let weights = |path: &Path| {
        let bytes = ArtefactBytes::read(path).unwrap();
        bytes.artefact().unwrap().velocity().as_f32().unwrap().params().to_vec()
    };
    assert_eq!(weights(&root.path().join("run/learned.flw")), weights(Path::new(POLICY)));
}

#[test]
fn wrong_use_is_one_sentence() {
    let root = tempfile::tempdir().unwrap();
    let full = root.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("file"), "x").unwrap();
    let fresh = root.path().join("fresh");
    let (full, fresh) = (full.to_str().unwrap(), fresh.to_str().unwrap());
    for (args, words) in [
        (&["--policy", WITHOUT_CRITICS][..], &["critics", "--without-critic"][..]),
        (&["--policy", POLICY, "--env", "pendulum"], &["pendulum", "furuta"]),
        (&["--policy", POLICY, "--mode", "fast"], &["fast", "adam, lean, all or last"]),
        (&["--policy", POLICY, "--set", "finetune.rank=3"], &["finetune.rank", "actor", "screening", "alpha"]),
        (&["--policy", POLICY, "--set", "finetune.actor=rank-x"], &["finetune.actor", "number"]),
        (&["--policy", POLICY, "--set", "finetune.candidates=1"], &["candidates", "out of range"]),
        (&["--policy", POLICY, "--set", "finetune.transitions=20"], &["transitions", "out of range"]),
        (&["--policy", POLICY, "--set", "finetune.reward=good"], &["finetune.reward", "flipped"]),
        (&["--policy", POLICY, "--set", "finetune.gain=2"], &["gain", "out of range"]),
        (&["--policy", POLICY, "--set", "finetune.alpha=0.9"], &["alpha", "0.5"]),
        (&["--policy", POLICY, "--set", "env.frictoin=5"], &["frictoin", "friction"]),
        (&["--policy", POLICY, "--out", full], &["--out", "new folder"]),
        (&["--policy", "nowhere.flw"], &["nowhere.flw"]),
    ] {
        let out = if args.contains(&"--out") { &[][..] } else { &["--out", fresh] };
        let output = host_train(&[&["finetune"], args, out].concat());
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.starts_with("error: ") && said.trim_end().lines().count() == 1, "{args:?}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{args:?}: {said}");
        assert!(!Path::new(fresh).exists(), "{args:?} left a folder");
    }
}

/// Fifteen minutes of robot time on worn bearings over five seeds: in the mean at least 90 % of the way from the factory's
/// return to that of policies from scratch is brought back, and nobody ends below the factory's. `SEED` is the first seed.
#[test]
#[ignore = "five fine-tunings and five trainings: some minutes"]
fn five_seeds_bring_the_return_back() {
    let root = tempfile::tempdir().unwrap();
    let seed = std::env::var("SEED").unwrap_or("7301".into());
    let out = root.path().join("run");
    let fixed = ["finetune", "--policy", POLICY, "--set", "env.friction=5", "--seeds", "5", "--seed", &seed, "--json"];
    let output = host_train(&[&fixed[..], &["--episodes", "20", "--out", out.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_str(text(&output.stdout).trim()).unwrap();
    let way = &report["recovered"];
    println!("way back {way}; after {}; from scratch {}", report["return_after"], report["return_scratch"]);
    assert!(way["mean"].as_f64().unwrap() >= 0.9, "{way}");
    // A policy that is not promoted returns what the factory's does.
    assert!(way["each"].as_array().unwrap().iter().all(|share| share.as_f64().unwrap() > -0.05), "{way}");
}
