//! `--env gym:ID` with Gymnasium itself: Pendulum-v1 against our pendulum, MuJoCo environments against what they promise,
//! and environments that fail in every way.
//!
//! Run by `cargo xtask test`, which installs the packages of `requirements.txt` and sets `FLOWLET_PYTHON`.

use host_train::env::{self, Decision, Env, Step};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

fn interpreter() -> String {
    std::env::var("FLOWLET_PYTHON").expect("run `cargo xtask test`, which installs the Python packages")
}

fn gym(id: &str) -> Box<dyn Env> {
    interpreter();
    env::make(&format!("gym:{id}"), &BTreeMap::new()).unwrap()
}

fn rng(seed: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(seed)
}

fn observed(env: &dyn Env) -> Vec<f64> {
    let mut out = vec![0.0; env.spec().obs()];
    env.observe(&mut out);
    out
}

/// The binary, with the misbehaving environments in reach.
fn host_train(args: &[&str]) -> Command {
    interpreter();
    let mut command = Command::new(env!("CARGO_BIN_EXE_host-train"));
    command.args(args).env("PYTHONPATH", Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gym"));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Each step of Gymnasium's pendulum from the state it showed is the step of ours: to the rounding of its observation.
#[test]
#[ignore = "needs the Python packages: cargo xtask test"]
fn pendulum_is_ours() {
    let (mut theirs, mut ours) = (gym("Pendulum-v1"), env::make("pendulum", &BTreeMap::new()).unwrap());
    let (a, b) = (theirs.spec().clone(), ours.spec().clone());
    assert_eq!((a.low, a.high, a.control_dt, a.time_limit), (b.low, b.high, b.control_dt, b.time_limit));
    let mut stream = rng(1);
    for episode in 0..2 {
        theirs.reset(&mut stream).unwrap();
        for step in 0..200 {
            let before = observed(&*theirs);
            ours.set_state(&[before[1].atan2(before[0]), before[2]]).unwrap();
            let action = [3.0 * (f64::from(step) * 0.3 + f64::from(episode)).sin()];
            let (a, b) = (theirs.step(&action).unwrap(), ours.step(&action).unwrap());
            // The angle squared wraps at pi, where the rounded angle may fall on the other side: the cost is the same.
            assert!((a.reward - b.reward).abs() < 2e-5, "step {step}: {a:?} {b:?}");
            assert_eq!((a.terminated, a.truncated), (false, step == 199));
            for (a, b) in observed(&*theirs).iter().zip(observed(&*ours)) {
                assert!((a - b).abs() < 2e-6, "step {step}: {a} {b}");
            }
        }
    }
}

/// MuJoCo's cheetah: its documented size, and an episode that the generator and the actions determine.
#[test]
#[ignore = "needs the Python packages: cargo xtask test"]
fn cheetah_replays_to_equal_bits() {
    let play = |env: &mut dyn Env, stream: &mut Xoshiro256PlusPlus| {
        env.reset(stream).unwrap();
        let mut seen = observed(env);
        for step in 0..50 {
            let action: Vec<f64> = (0..6).map(|i| (f64::from(step) * 0.7 + f64::from(i)).sin()).collect();
            seen.push(env.step(&action).unwrap().reward);
            seen.extend(observed(env));
        }
        seen
    };
    let (mut one, mut other) = (gym("HalfCheetah-v5"), gym("HalfCheetah-v5"));
    let spec = one.spec();
    assert_eq!((spec.obs(), spec.act(), spec.time_limit), (17, 6, 1000));
    assert!((spec.control_dt - 0.05).abs() < 1e-12 && spec.obs_unknown);
    let mut stream = rng(4);
    play(&mut *one, &mut stream);
    let mut at_reset = stream.clone();
    let seen = play(&mut *one, &mut stream);
    assert_eq!(seen, play(&mut *other, &mut at_reset));
    assert_ne!(seen, play(&mut *other, &mut stream));
    // A child is kept for the next environment, which starts afresh.
    drop(other);
    let mut third = gym("HalfCheetah-v5");
    assert_ne!(play(&mut *third, &mut rng(4)), seen);
}

/// The inverted pendulum pays 1 a step until the pole leans more than 0.2 rad, and then it is over.
#[test]
#[ignore = "needs the Python packages: cargo xtask test"]
fn inverted_pendulum_ends_where_it_says() {
    let mut env = Decision::new(gym("InvertedPendulum-v5"), 1);
    let mut obs = [0.0f32; 4];
    let mut ends = 0;
    env.reset(&mut rng(2)).unwrap();
    for step in 0..400 {
        let t = env.step(&[3.0 * f64::from(step).sin()]).unwrap();
        env.observe(&mut obs);
        let leans = obs[1].abs() > 0.2;
        assert_eq!((t.terminated, t.reward), (leans, f64::from(!leans)), "step {step}: {obs:?}");
        if t.terminated {
            ends += 1;
            env.reset(&mut rng(step as u64)).unwrap();
        }
    }
    assert!(ends > 3);
}

/// Variation lies over a Gymnasium environment as over any other.
#[test]
#[ignore = "needs the Python packages: cargo xtask test"]
fn a_delay_is_a_delay() {
    let delayed = BTreeMap::from([("delay".to_string(), 1.0)]);
    let (mut plain, mut delayed) = (gym("Pendulum-v1"), env::make("gym:Pendulum-v1", &delayed).unwrap());
    plain.reset(&mut rng(8)).unwrap();
    delayed.reset(&mut rng(8)).unwrap();
    let mut due = 0.0;
    for action in [1.0, -2.0, 0.5] {
        assert_eq!(plain.step(&[due]).unwrap(), delayed.step(&[action]).unwrap());
        due = action;
    }
}

#[test]
#[ignore = "needs the Python packages: cargo xtask test"]
fn what_cannot_be_trained_on_is_refused_in_a_sentence() {
    for (id, words) in [
        ("Nope-v3", ["Nope", "check the ID"]),
        ("", ["environment ID", "check the ID"]),
        ("CartPole-v1", ["Discrete(2)", "continuous actions"]),
        ("Blackjack-v1", ["Discrete(2)", "continuous actions"]),
        ("gym_cases:unbounded-v0", ["not bounded", "Box"]),
        ("gym_cases:dict-v0", ["observations", "Dict"]),
        ("no_such_module:x-v0", ["no_such_module", "check the ID"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("run");
        let name = format!("gym:{id}");
        let output = host_train(&["train", "--env", &name, "--out", out.to_str().unwrap()]).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{id}: {text}");
        assert!(words.iter().all(|w| text.contains(w)) && text.lines().count() == 1, "{id}: {text}");
        assert!(!out.exists());
    }
}

#[test]
#[ignore = "needs the Python packages: cargo xtask test"]
fn a_missing_python_or_package_is_named() {
    for (python, code, words) in
        [("/no/such/python", 2, ["/no/such/python", "FLOWLET_PYTHON"]), ("/bin/true", 1, ["died", "exit status: 0"])]
    {
        let output = host_train(&["train", "--env", "gym:Pendulum-v1"]).env("FLOWLET_PYTHON", python).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(words.iter().all(|w| text.contains(w)) && text.lines().count() == 1, "{text}");
    }
    // The same interpreter with a package of that name that cannot be imported.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("gymnasium.py"), "import no_such_package\n").unwrap();
    let output = host_train(&["train", "--env", "gym:Pendulum-v1"]).env("PYTHONPATH", dir.path()).output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("has no Gymnasium") && text.contains("pip install"), "{text}");
}

/// What goes wrong under way ends the run with a sentence, and the child with it.
#[test]
#[ignore = "needs the Python packages: cargo xtask test"]
fn failures_under_way_are_named() {
    for (case, words) in [
        ("nan_reward", ["a reward that is not finite", "control step 5"]),
        ("nan_observation", ["obs_1 = NaN", "control step 5"]),
        ("dies", ["died", "exit status: 3"]),
        ("raises", ["ValueError", "the motor is hot"]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("run");
        let name = format!("gym:gym_cases:{case}-v0");
        let output = host_train(&["train", "--env", &name, "--out", out.to_str().unwrap()]).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{case}: {text}");
        let last = text.lines().last().unwrap_or_default();
        assert!(words.iter().all(|w| last.contains(w)) && last.contains("gym_cases"), "{case}: {text}");
    }
}

/// A short run leaves a policy that is evaluated; what the environment prints disturbs nothing.
#[test]
#[ignore = "needs the Python packages: cargo xtask test"]
fn a_run_trains_evaluates_and_exports() {
    let dir = tempfile::tempdir().unwrap();
    for (id, more) in [("Pendulum-v1", "env.reward_scale=0.06"), ("gym_cases:prints-v0", "seed=2")] {
        let out = dir.path().join(more);
        let name = format!("gym:{id}");
        let args = ["train", "--json", "--env", &name, "--total-timesteps", "1300", "--out", out.to_str().unwrap()];
        let short = ["--set", "eval.episodes=2", "--set", "eval.curve_episodes=1", "--set", more];
        let output = host_train(&[&args[..], &short].concat()).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["env"], name.as_str());
        let policy = out.join("policy.flw");
        let args = ["eval", "--json", "--episodes", "1", "--policy", policy.to_str().unwrap()];
        let output = host_train(&args).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let text = std::fs::read_to_string(out.join("config.toml")).unwrap();
        assert!(text.contains("normaliser = \"fitted\""), "{text}");
    }
}

/// The processes whose command line names `id`, apart from the trainer.
fn children(id: &str) -> usize {
    let mut found = 0;
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        found += usize::from(words.contains(&"-c".as_bytes()) && words.contains(&id.as_bytes()));
    }
    found
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn signal(child: &Child, how: &str, group: bool) {
    let target = format!("{}{}", if group { "-" } else { "" }, child.id());
    assert!(Command::new("kill").args([how, "--", &target]).status().unwrap().success());
}

/// Ctrl-C goes to the whole group of the terminal: the trainer ends in good order because its children do not get it.
/// A trainer that is killed takes its children along.
#[test]
#[cfg(target_os = "linux")]
#[ignore = "needs the Python packages: cargo xtask test"]
fn children_end_with_the_trainer_and_not_before() {
    use std::os::unix::process::CommandExt;
    let dir = tempfile::tempdir().unwrap();
    for (how, group) in [("-INT", true), ("-KILL", false)] {
        let id = "gym_cases:slow-v0";
        let name = format!("gym:{id}");
        let out = dir.path().join(how);
        let args = ["train", "--env", &name, "--set", "eval.episodes=1", "--set", "eval.curve_episodes=1"];
        let child =
            host_train(&args).args(["--set", "env.action_repeat=500", "--out"]).arg(&out).process_group(0).spawn();
        let child = child.unwrap();
        wait_until("no child was started", || children(id) > 1 && out.join("config.toml").exists());
        signal(&child, how, group);
        let output = child.wait_with_output().unwrap();
        let text = said(&output);
        if how == "-INT" {
            assert_eq!(output.status.code(), Some(130), "{text}");
            assert!(!text.contains("died"), "{text}");
        }
        wait_until("a child was left behind", || children(id) == 0);
    }
}

/// Steps are what the trait says they are.
#[test]
#[ignore = "needs the Python packages: cargo xtask test"]
fn actions_are_clipped_to_their_limits() {
    let (mut a, mut b) = (gym("Pendulum-v1"), gym("Pendulum-v1"));
    a.reset(&mut rng(5)).unwrap();
    b.reset(&mut rng(5)).unwrap();
    let step: Step = a.step(&[1e9]).unwrap();
    assert_eq!(step, b.step(&[2.0]).unwrap());
    assert_eq!(observed(&*a), observed(&*b));
}
