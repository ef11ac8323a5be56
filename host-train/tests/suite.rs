//! The Control Suite's tasks against dm_control's records, and what they do with bad input.
//!
//! Needs `--features mujoco`, and so `cargo xtask fetch-mujoco`. `FLOWLET_RECORDS` names another folder of records than the
//! repository's, `FLOWLET_STARTS` another file of start states' moments.

#![cfg(feature = "mujoco")]

use host_train::config::{Config, Twins};
use host_train::env::{self, Decision, Env, State};
use host_train::records::{Difference, EXACT, Recording};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use serde_json::Value;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is the system's allocator; the counter neither allocates nor is dropped.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn tasks() -> Vec<&'static str> {
    env::known().into_iter().skip(env::NAMES.len()).collect()
}

fn make(task: &str) -> Box<dyn Env> {
    changed(task, &[])
}

fn changed(task: &str, physics: &[(&str, f64)]) -> Box<dyn Env> {
    let physics = physics.iter().map(|&(key, value)| (key.to_string(), value)).collect();
    env::make(task, &physics).unwrap()
}

fn rng(seed: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(seed)
}

fn observed(env: &dyn Env) -> Vec<f64> {
    let mut out = vec![f64::NAN; env.spec().obs()];
    env.observe(&mut out);
    out
}

/// An action that swings through the limits, and beyond by a tenth.
fn swinging(env: &dyn Env, step: usize) -> Vec<f64> {
    let limits = env.spec().low.iter().zip(&env.spec().high).enumerate();
    let action = limits.map(|(i, (low, high))| {
        let (low, high) = (f64::from(*low), f64::from(*high));
        0.5 * (low + high) + 0.55 * (high - low) * (step as f64 * 0.37 + i as f64).sin()
    });
    action.collect()
}

fn records() -> Vec<Recording> {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/records/suite");
    let folder = std::env::var_os("FLOWLET_RECORDS").map_or(own, PathBuf::from);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "json"));
    files.sort();
    files.iter().flat_map(|path| Recording::read(path).unwrap()).collect()
}

/// Rollouts and placed states of every task: observations, rewards, positions, speeds, activations.
#[test]
fn every_record_is_matched() {
    let mut rollouts = BTreeMap::new();
    let mut placed = BTreeMap::new();
    for recording in records() {
        let task = recording.envs.last().unwrap();
        assert_eq!(*task, recording.task);
        let d = recording.replay(&mut *make(task)).unwrap();
        assert!(d.is_match(), "{task}: {d:?}");
        assert!(d.max_obs <= EXACT && d.max_reward <= EXACT && d.max_state <= EXACT, "{task}: {d:?}");
        assert_eq!(d.steps_beyond, 0);
        *rollouts.entry(*task).or_insert(0) += d.steps;
        *placed.entry(*task).or_insert(0) += d.placed;
    }
    for task in tasks() {
        assert!(rollouts.get(task).is_some_and(|steps| *steps >= 50), "{task}: no rollout");
        assert!(placed.get(task).is_some_and(|states| *states >= 24), "{task}: no placed states");
    }
    assert_eq!((tasks().len(), rollouts.len()), (24, 24));
}

/// The records notice physics that are slightly others, and a record that was tampered with.
#[test]
fn other_physics_do_not_match() {
    let all = records();
    for (task, key) in [
        ("cheetah-run", "mass"),
        ("cheetah-run", "strength"),
        ("walker-walk", "gravity"),
        ("hopper-hop", "friction"),
        ("cartpole-swingup", "damping"),
        ("fish-swim", "strength"),
        ("finger-spin", "damping"),
    ] {
        let mut total = Difference::default();
        for recording in all.iter().filter(|r| r.task == task) {
            total.add(&recording.replay(&mut *changed(task, &[(key, 1.001)])).unwrap());
        }
        assert!(!total.is_match(), "{task} does not notice {key}: {total:?}");
        // And back again leaves nothing behind.
        let mut env = changed(task, &[(key, 1.3)]);
        env.set(key, 1.0).unwrap();
        for recording in all.iter().filter(|r| r.task == task) {
            let d = recording.replay(&mut *env).unwrap();
            assert!(d.is_match(), "{task} after {key}: {d:?}");
        }
    }
}

/// The generator's state at the reset and the actions give the episode, on another environment and after other episodes.
#[test]
fn episodes_replay_to_equal_bits() {
    for task in tasks() {
        let play = |env: &mut dyn Env, rng: &mut Xoshiro256PlusPlus| {
            env.reset(rng).unwrap();
            let mut seen = observed(env);
            for step in 0..20 {
                let outcome = env.step(&swinging(env, step)).unwrap();
                assert!((0.0..=1.0).contains(&outcome.reward) && !outcome.terminated && !outcome.truncated, "{task}");
                seen.push(outcome.reward);
                seen.extend(observed(env));
            }
            assert!(seen.iter().all(|x| x.is_finite()), "{task}: a channel is not written");
            seen
        };
        let (mut one, mut other, mut stream) = (make(task), make(task), rng(5));
        let first = play(&mut *one, &mut stream);
        let mut at_reset = stream.clone();
        let second = play(&mut *one, &mut stream);
        assert_ne!(first, second, "{task}");
        assert_eq!(second, play(&mut *other, &mut at_reset), "{task}");
        assert_eq!(stream, at_reset, "{task}");
    }
}

/// Steps, rewards and observations of every task; what MuJoCo allocates is its own affair.
#[test]
fn a_step_allocates_nothing() {
    for task in tasks() {
        let mut env = make(task);
        env.reset(&mut rng(2)).unwrap();
        let (actions, mut obs) = ((0..10).map(|i| swinging(&*env, i)).collect::<Vec<_>>(), observed(&*env));
        let before = ALLOCATIONS.with(Cell::get);
        for action in &actions {
            env.step(action).unwrap();
            env.observe(&mut obs);
        }
        assert_eq!(ALLOCATIONS.with(Cell::get), before, "{task}");
    }
}

/// An action beyond the limits counts as the limit; the quadruped's are not those of the others.
#[test]
fn actions_are_held_within_the_limits() {
    let env = make("quadruped-walk");
    assert_eq!((&env.spec().low[..3], &env.spec().high[..3]), (&[-1.0, -1.0, -0.8][..], &[1.0, 1.1, 0.8][..]));
    for task in ["cheetah-run", "quadruped-walk", "hopper-stand"] {
        let (mut far, mut held) = (make(task), make(task));
        far.reset(&mut rng(1)).unwrap();
        held.reset(&mut rng(1)).unwrap();
        let limits: Vec<f64> = held.spec().high.iter().map(|h| f64::from(*h)).collect();
        let beyond: Vec<f64> = limits.iter().map(|h| 7.0 * h).collect();
        for _ in 0..5 {
            assert_eq!(far.step(&beyond).unwrap(), held.step(&limits).unwrap(), "{task}");
        }
        assert_eq!(observed(&*far), observed(&*held), "{task}");
    }
}

#[test]
fn an_episode_lasts_a_thousand_steps() {
    let mut env = Decision::new(make("pendulum-swingup"), 2);
    env.reset(&mut rng(1)).unwrap();
    for decision in 0..500 {
        let t = env.step(&[0.3]).unwrap();
        assert_eq!((t.terminated, t.truncated), (false, decision == 499));
    }
    assert_eq!((env.decisions_per_episode(), env.way()), (500, None));
}

/// Parameters are factors: without strength nothing acts, without gravity nothing falls; what does not matter is unknown.
#[test]
fn physics_can_be_changed() {
    let play = |env: &mut dyn Env, action: f64| {
        env.reset(&mut rng(8)).unwrap();
        let action = vec![action; env.spec().act()];
        for _ in 0..10 {
            env.step(&action).unwrap();
        }
        observed(env)
    };
    let mut limp = changed("cheetah-run", &[("strength", 0.0)]);
    assert_eq!(play(&mut *limp, 1.0), play(&mut *limp, -1.0));
    let mut strong = make("cheetah-run");
    assert_ne!(play(&mut *strong, 1.0), play(&mut *strong, -1.0));
    // A walker in free fall keeps its height where gravity is off.
    let mut floats = changed("walker-walk", &[("gravity", 0.0)]);
    let mut still = State { positions: vec![0.0; 9], speeds: vec![0.0; 9], ..State::default() };
    still.positions[0] = 5.0;
    floats.place(&still).unwrap();
    floats.step(&[0.0; 6]).unwrap();
    assert!((floats.state().unwrap().positions[0] - 5.0).abs() < 1e-6);
    // Spreads draw anew at each reset, as for any environment.
    let mut spread = changed("cheetah-run", &[("mass_spread", 0.3)]);
    let (mut a, mut b) = (rng(8), rng(9));
    spread.reset(&mut a).unwrap();
    spread.reset(&mut b).unwrap();
    assert_eq!(play(&mut *spread, 1.0), play(&mut *spread, 1.0));
    for (task, key, value, word) in [
        ("fish-swim", "gravity", 1.0, "gravity"),
        ("cheetah-run", "masss", 1.0, "strength"),
        ("cheetah-run", "mass", 0.0, "factor"),
        ("cheetah-run", "friction", -1.0, "factor"),
        ("cheetah-run", "gravity", f64::NAN, "factor"),
    ] {
        let error = env::make(task, &BTreeMap::from([(key.to_string(), value)])).map(drop).unwrap_err();
        assert!(error.to_string().contains(word) && error.exit_code() == 2, "{error}");
    }
}

#[test]
fn records_of_another_model_are_refused() {
    let mut env = make("reacher-easy");
    let fit = State { positions: vec![0.0; 2], speeds: vec![0.0; 2], ..State::default() };
    env.place(&fit).unwrap();
    let entry = |name: &str, values: &[f64]| BTreeMap::from([(name.to_string(), values.to_vec())]);
    for state in [
        State { positions: vec![0.0; 3], ..fit.clone() },
        State { speeds: Vec::new(), ..fit.clone() },
        State { activations: vec![0.0], ..fit.clone() },
        State { controls: Some(vec![0.0; 3]), ..fit.clone() },
        State { warmstart: Some(vec![0.0; 3]), ..fit.clone() },
        State { model: entry("geom_pos:geom:nothing", &[0.0; 3]), ..fit.clone() },
        State { model: entry("geom_pos:geom:target", &[0.0; 2]), ..fit.clone() },
        State { model: entry("geom_rgba:geom:target", &[0.0; 3]), ..fit.clone() },
        State { model: entry("target", &[]), ..fit },
    ] {
        assert!(env.place(&state).is_err(), "{state:?}");
    }
}

/// Physics that diverge end the episode under a name, with an observation of numbers, and the next one is sound.
#[test]
fn divergence_is_a_named_end() {
    let mut env = make("cheetah-run");
    let mut wild = State { positions: vec![0.0; 9], speeds: vec![0.0; 9], ..State::default() };
    wild.speeds[3] = 1e9;
    env.place(&wild).unwrap();
    let outcome = env.step(&[0.0; 6]).unwrap();
    assert_eq!((outcome.reward, outcome.terminated, outcome.truncated), (0.0, true, false));
    assert!(env.fault().unwrap().starts_with("diverged: "), "{:?}", env.fault());
    assert!(observed(&*env).iter().all(|x| x.is_finite()));
    // It stays ended until the next reset.
    assert!(env.step(&[0.0; 6]).unwrap().terminated);
    env.reset(&mut rng(1)).unwrap();
    assert_eq!(env.fault(), None);
    assert!(!env.step(&[0.0; 6]).unwrap().terminated);
    // What is no number is held within the limits like all else.
    assert!(!env.step(&[f64::NAN; 6]).unwrap().terminated);
}

/// The moments of our start states are those of dm_control's.
#[test]
fn start_states_have_the_same_moments() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/records/suite_starts.json");
    let path = std::env::var_os("FLOWLET_STARTS").map_or(own, PathBuf::from);
    let file: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let theirs_n = file["episodes"].as_f64().unwrap();
    let ours_n = 500;
    for task in tasks() {
        let rows: Vec<Vec<f64>> = serde_json::from_value(file["tasks"][task].clone()).unwrap();
        let mut env = make(task);
        let mut sums = vec![vec![0.0; rows[0].len()]; 3];
        let mut stream = rng(17);
        for _ in 0..ours_n {
            env.reset(&mut stream).unwrap();
            let x = [observed(&*env), env.state().unwrap().positions].concat();
            assert_eq!(x.len(), rows[0].len(), "{task}");
            for (channel, x) in x.iter().enumerate() {
                sums[0][channel] += x / f64::from(ours_n);
                sums[1][channel] += x * x / f64::from(ours_n);
                sums[2][channel] += x.powi(4) / f64::from(ours_n);
            }
        }
        for channel in 0..rows[0].len() {
            let [a, b] = [&sums, &rows].map(|m| [m[0][channel], m[1][channel], m[2][channel]]);
            // Of the mean, and of the mean square.
            for (i, spread) in [(0, |m: [f64; 3]| m[1] - m[0] * m[0]), (1, |m: [f64; 3]| m[2] - m[1] * m[1])]
                as [(usize, fn([f64; 3]) -> f64); 2]
            {
                let error = (spread(a).max(0.0) / f64::from(ours_n) + spread(b).max(0.0) / theirs_n).sqrt();
                // Five standard errors: some 3,000 comparisons are made. The rest is for constants, which are rounded.
                let apart = (a[i] - b[i]).abs();
                assert!(
                    apart <= 5.0 * error + 1e-6 * (1.0 + b[i].abs()),
                    "{task}, channel {channel}, moment {}: {} and {}, standard error {error}",
                    i + 1,
                    a[i],
                    b[i]
                );
            }
        }
    }
}

fn host_train(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_host-train")).args(args).current_dir(folder).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The program from outside: a short training, its policy evaluated, refused by another task, and physics that diverge,
/// which leave no file behind.
#[test]
fn a_task_is_trained_and_evaluated() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let run = run.to_str().unwrap();
    let trained = host_train(
        dir.path(),
        &[
            "train",
            "--env",
            "hopper-stand",
            "--out",
            run,
            "--total-timesteps",
            "1200",
            "--set",
            "eval.episodes=1",
            "--set",
            "env.action_repeat=4",
            "--set",
            "env.mass=1.1",
            "--json",
        ],
    );
    assert!(trained.status.success(), "{}", text(&trained.stderr));
    let policy = format!("{run}/policy.flw");
    let evaluated = host_train(dir.path(), &["eval", "--policy", &policy, "--episodes", "1", "--json"]);
    assert!(evaluated.status.success(), "{}", text(&evaluated.stderr));
    let report: Value = serde_json::from_slice(&evaluated.stdout).unwrap();
    assert_eq!((report["env"].as_str(), report["ways"].is_null()), (Some("hopper-stand"), true));
    assert!((0.0..=1000.0).contains(&report["return_mean"].as_f64().unwrap()));
    let other = host_train(dir.path(), &["eval", "--policy", &policy, "--env", "cheetah-run"]);
    let said = text(&other.stderr);
    assert_eq!(other.status.code(), Some(2), "{said}");
    assert!(said.contains("the policy is for hopper-stand") && said.contains("cheetah-run"), "{said}");
    // The same robot with another task may be meant: it is told, and played.
    let transfer = host_train(dir.path(), &["eval", "--policy", &policy, "--env", "hopper-hop", "--episodes", "1"]);
    let said = text(&transfer.stderr);
    assert!(transfer.status.success() && said.contains("trained on hopper-stand, not on hopper-hop"), "{said}");
    let own = host_train(dir.path(), &["eval", "--policy", &policy, "--env", "hopper-stand", "--episodes", "1"]);
    assert!(own.status.success() && !text(&own.stderr).contains("trained on"), "{}", text(&own.stderr));
    let unknown = host_train(dir.path(), &["eval", "--policy", &policy, "--env", "hopper-jump"]);
    let said = text(&unknown.stderr);
    assert_eq!(unknown.status.code(), Some(2), "{said}");
    assert!(tasks().iter().all(|task| said.contains(task)), "{said}");
    let wild = ["eval", "--policy", &policy, "--episodes", "2", "--set", "env.strength=1000000"];
    let diverged = host_train(dir.path(), &wild);
    let said = text(&diverged.stdout);
    assert!(diverged.status.success() && said.contains("diverged: "), "{said}{}", text(&diverged.stderr));
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["run"]);
    // Without the models it is one sentence.
    let nowhere = Command::new(env!("CARGO_BIN_EXE_host-train"))
        .args(["bench", "env", "--env", "cheetah-run"])
        .env("FLOWLET_MUJOCO", dir.path())
        .output()
        .unwrap();
    let said = text(&nowhere.stderr);
    assert_eq!((nowhere.status.code(), said.lines().count()), (Some(2), 1), "{said}");
    assert!(said.contains("cargo xtask fetch-mujoco"), "{said}");
}

#[test]
fn presets_have_the_constants_of_the_suite() {
    let paper = Config::preset("paper", "rfm", "cheetah-run").unwrap();
    assert_eq!((paper.env.reward_scale, paper.env.action_repeat), (1.0, 1));
    for algo in ["rfm", "sac"] {
        let config = Config::preset("default", algo, "cheetah-run").unwrap();
        let train = config.train();
        assert_eq!((config.env.action_repeat, train.actor_hidden, train.target_twins), (2, 128, Twins::Mean));
        assert!(train.critic_layer_norm && train.updates_per_decision == 4.0);
        let small = Config::preset("default", algo, "pendulum").unwrap();
        assert_eq!((small.train().actor_hidden, small.train().target_twins), (64, Twins::Min));
    }
}
