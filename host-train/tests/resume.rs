//! Exact resume: N + M steps are N steps, an end of any kind, and M more; what was reported saved is never lost.
//!
//! Ends of any kind are SIGKILL at random moments (`KILL_SEED=<n>` repeats them; the seed is printed), Ctrl-C, a full
//! disk, damaged checkpoints, a failing environment and an ordinary end. Networks are tiny.

use host_train::checkpoint;
use host_train::config::{ALGORITHMS, Config, Sources};
use host_train::env::{Env, EnvSpec, Step, make};
use host_train::evaluate::Evaluation;
use host_train::noise::Noise;
use host_train::run::RunDir;
use host_train::session::{Outcome, Reporter, Session};
use host_train::train::{Progress, Trainer};
use host_train::{Error, Result};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

/// Keeps what is noted.
#[derive(Default)]
struct Notes(Vec<String>);

impl Reporter for Notes {
    fn block(&mut self, _: &Progress, _: Option<f64>) {}
    fn evaluated(&mut self, _: &Progress, _: &Evaluation) {}
    fn note(&mut self, text: &str) {
        self.0.push(text.to_string());
    }
}

/// Tiny networks for an algorithm, and what else is to be set.
fn settings(algo: &str, more: &[&str]) -> Vec<String> {
    let mut set: Vec<String> =
        ["actor_hidden=8", "critic_hidden=8", "batch_size=32", "learning_starts=64", "num_envs=3"]
            .iter()
            .map(|pair| format!("{algo}.{pair}"))
            .collect();
    let eval = ["eval.episodes=1", "eval.curve_episodes=1", "eval.best_of=2", "eval.every=250", "checkpoint_every=170"];
    set.extend(eval.iter().chain(more).map(ToString::to_string));
    set
}

fn config(algo: &str, total: u64, more: &[&str]) -> Config {
    let set = settings(algo, more);
    let sources =
        Sources { algo: Some(algo), seed: Some(11), total_timesteps: Some(total), set: &set, ..Sources::default() };
    Config::resolve(&sources).unwrap()
}

fn train(config: &Config, out: &Path) -> Outcome {
    Session::train(config, Some(out), Arc::default(), &mut Notes::default()).unwrap()
}

fn resume(run: &Path, total: Option<u64>) -> (Result<Outcome>, Vec<String>) {
    let mut notes = Notes::default();
    let outcome = Session::resume(run, total, Arc::new(AtomicBool::new(false)), &mut notes);
    (outcome, notes.0)
}

/// Control steps and digest of the newest checkpoint.
fn stands(run: &Path) -> Option<(u64, u64)> {
    let found = checkpoint::newest(&run.join("checkpoints")).unwrap();
    found.newest.map(|c| (c.timesteps, c.digest))
}

fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(run.join("checkpoints")) else { return Vec::new() };
    let mut files: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

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

/// Every file with its bytes and the time of its last change.
fn snapshot(folder: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let changed = fs::metadata(&path).unwrap().modified().unwrap();
        if path.is_dir() {
            files.extend(snapshot(&path));
            files.insert(path, (Vec::new(), changed));
        } else {
            files.insert(path.clone(), (fs::read(&path).unwrap(), changed));
        }
    }
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(drop).unwrap() }
    }
}

/// What killed writes left.
fn leftovers(run: &Path) -> Vec<PathBuf> {
    snapshot(run).into_keys().filter(|path| path.extension().is_some_and(|e| e == "tmp")).collect()
}

/// Steps of the rows of `progress.csv`.
fn rows(run: &Path) -> Vec<u64> {
    let csv = fs::read_to_string(run.join("progress.csv")).unwrap();
    csv.lines().skip(1).map(|line| line.split(',').next().unwrap().parse().unwrap()).collect()
}

/// Every algorithm; a fitted normaliser, a ring that wraps, an action repeat that does not divide the episode, several
/// lanes and one, lengths and cadences that are no multiples of a block.
#[test]
fn a_longer_run_is_the_run_that_was_never_stopped() {
    let root = tempfile::tempdir().unwrap();
    for algo in ALGORITHMS {
        let wraps = format!("{algo}.buffer_size=150");
        let (one, blocks) = (format!("{algo}.num_envs=1"), format!("{algo}.block=7"));
        let cases: [&[&str]; 4] = [
            &[&wraps, "env.normaliser=fitted"],
            &["env.action_repeat=3", "checkpoint_every=100000", "eval.every=97"],
            // An actor that learns so rarely that both ends fall between two of its updates.
            &["rfm.actor_delay=150"],
            &[&one, &blocks, "checkpoint_every=60", "eval.every=100000", "env.name=cartpole"],
        ];
        // The loop is the same for all: one algorithm goes through every case, the others through the first.
        let cases = if *algo == "rfm" { &cases[..] } else { &cases[..1] };
        for (case, more) in cases.iter().enumerate() {
            let (whole, parts) =
                (root.path().join(format!("{algo}-{case}")), root.path().join(format!("{algo}+{case}")));
            train(&config(algo, 700, more), &whole);
            let first = train(&config(algo, 333, more), &parts);
            assert!((333..400).contains(&first.progress.steps), "{algo} {case}");
            assert_eq!(resume(&parts, Some(500)).0.unwrap().progress.total, 500);
            let last = resume(&parts, Some(700)).0.unwrap();
            assert_eq!(stands(&parts), stands(&whole), "{algo}, case {case}");
            assert_eq!(stands(&parts).unwrap().0, last.progress.steps);
            if *algo == "rfm" {
                let policy = |run: &Path| fs::read(run.join("policy.flw")).unwrap();
                assert_eq!(policy(&parts), policy(&whole));
            }
            assert!(rows(&parts).is_sorted_by(|a, b| a < b), "{:?}", rows(&parts));
            let config = fs::read_to_string(parts.join("config.toml")).unwrap();
            assert_eq!(config, fs::read_to_string(whole.join("config.toml")).unwrap());
        }
    }
}

#[test]
fn a_finished_run_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let out = out.to_str().unwrap();
    let mut args = vec!["train", "--json", "--seed", "11", "--total-timesteps", "400", "--out", out];
    let set = settings("rfm", &[]);
    set.iter().for_each(|pair| args.extend(["--set", pair]));
    let trained = json(&run(&args));
    assert_eq!(checkpoints(Path::new(out)).len(), 2);
    let before = snapshot(Path::new(out));
    for more in [&[][..], &["--total-timesteps", "400"]] {
        assert_eq!(json(&run(&[&["resume", out, "--json"][..], more].concat())), trained);
    }
    assert!(text(&run(&["resume", out]).stderr).contains("finished"));
    refused(&["resume", out, "--total-timesteps", "300"], 2, &["behind it", "--total-timesteps"]);
    let inspected = json(&run(&["inspect", out, "--json"]));
    let (steps, digest) = stands(Path::new(out)).unwrap();
    assert_eq!(inspected["digest"].as_str().unwrap(), checkpoint::hex(digest));
    assert_eq!((inspected["timesteps"].as_u64(), inspected["finished"].as_bool()), (Some(steps), Some(true)));
    assert_eq!((inspected["algo"].as_str(), inspected["env"].as_str()), (Some("rfm"), Some("pendulum")));
    assert_eq!((inspected["seed"].as_u64(), inspected["updates"].as_u64()), (Some(11), trained_updates(steps)));
    assert!(Path::new(inspected["checkpoint"].as_str().unwrap()).is_file());
    assert!(text(&run(&["inspect", out]).stdout).contains("finished"));
    assert_eq!(snapshot(Path::new(out)), before, "something was changed");
}

/// One update for each decision after the 64 random ones, which end within a round of three lanes.
fn trained_updates(steps: u64) -> Option<u64> {
    Some(steps - 66)
}

#[cfg(unix)]
#[test]
fn sigkill_at_thirty_random_moments_changes_no_bit() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let seed = std::env::var("KILL_SEED").map_or(u64::from(now.subsec_nanos()), |s| s.parse().unwrap());
    println!("KILL_SEED={seed}");
    let mut noise = Noise::new(seed, 0);
    let root = tempfile::tempdir().unwrap();
    let config = config("rfm", 4000, &[]);
    let whole = root.path().join("whole");
    RunDir::create(Some(&whole), &config).unwrap();
    let started = Instant::now();
    assert!(run(&["resume", whole.to_str().unwrap()]).status.success());
    let duration = started.elapsed().as_secs_f32();
    let (mut kills, mut finished, mut resumed) = (0, 0, 0);
    while kills < 30 || finished == 0 {
        let out = root.path().join(format!("killed-{finished}"));
        let log = root.path().join("log");
        let shown = out.to_str().unwrap();
        let mut command = if out.join("config.toml").is_file() {
            host_train(&["resume", shown])
        } else {
            fs::create_dir_all(&out).unwrap();
            RunDir::create(Some(&out), &config).unwrap();
            host_train(&["resume", shown])
        };
        let mut child = command.stderr(fs::File::create(&log).unwrap()).stdout(Stdio::null()).spawn().unwrap();
        if kills < 30 {
            std::thread::sleep(Duration::from_secs_f32(0.6 * duration * noise.uniform()));
            child.kill().unwrap();
        }
        let status = child.wait().unwrap();
        let log = fs::read_to_string(&log).unwrap();
        assert!(!log.contains("panicked") && !log.contains("damaged") && !log.contains("error"), "{log}");
        resumed += usize::from(kills > 0 && log.contains("resuming "));
        let reported = log.lines().filter_map(|l| l.strip_prefix("saved ")).next_back();
        let reported = reported.map_or(0, |l| l.split(' ').next().unwrap().parse::<u64>().unwrap());
        assert!(stands(&out).map_or(0, |(steps, _)| steps) >= reported, "{reported} steps were reported saved: {log}");
        if status.success() {
            assert_eq!(stands(&out), stands(&whole));
            let policy = |run: &Path| fs::read(run.join("policy.flw")).unwrap();
            assert_eq!((policy(&out), rows(&out)), (policy(&whole), rows(&whole)));
            let names = |run: &Path| -> Vec<PathBuf> {
                let files = snapshot(run).into_keys();
                files.map(|path| path.strip_prefix(run).unwrap().to_path_buf()).collect()
            };
            assert_eq!(names(&out), names(&whole));
            finished += 1;
        } else {
            kills += 1;
        }
    }
    println!("{kills} kills, {resumed} resumed from a checkpoint, {finished} runs finished");
    assert!(3 * resumed >= kills, "only {resumed} of {kills} kills were followed by a resume from a checkpoint");
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_a_sentence_and_nothing_is_lost() {
    let root = tempfile::tempdir().unwrap();
    let (whole, out) = (root.path().join("whole"), root.path().join("out"));
    let more = ["checkpoint_every=300", "eval.every=100000"];
    train(&config("rfm", 4000, &more), &whole);
    train(&config("rfm", 700, &more), &out);
    let before = stands(&out).unwrap().0;
    // Blocks of 512 bytes or, in some shells, 1024: either way too small for the replay buffer of 4000 transitions.
    let script = format!(
        "ulimit -f 120; exec {} resume {} --total-timesteps 4000",
        env!("CARGO_BIN_EXE_host-train"),
        out.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("error: cannot write") && last.contains("free space"), "{stderr}");
    let (reached, _) = stands(&out).unwrap();
    assert!((before..4000).contains(&reached), "{reached}: {stderr}");
    assert_eq!(leftovers(&out), Vec::<PathBuf>::new());
    resume(&out, None).0.unwrap();
    assert_eq!(stands(&out), stands(&whole));
}

#[test]
fn a_damaged_newest_checkpoint_is_passed_over() {
    let root = tempfile::tempdir().unwrap();
    let original = root.path().join("original");
    train(&config("rfm", 600, &[]), &original);
    let end = stands(&original).unwrap();
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("truncated", |bytes| bytes.truncate(bytes.len() / 2)),
        ("empty", Vec::clear),
        ("flipped", |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 16;
        }),
        ("longer", |bytes| bytes.extend([0; 512])),
    ];
    for (name, damage) in damages {
        let run = root.path().join(name);
        copy(&original, &run);
        let files = checkpoints(&run);
        let spoil = |path: &Path| {
            let mut bytes = fs::read(path).unwrap();
            damage(&mut bytes);
            fs::write(path, bytes).unwrap();
        };
        spoil(&files[1]);
        let inspected = json(&run_inspect(&run));
        assert_eq!(inspected["checkpoint"].as_str().unwrap(), files[0].to_str().unwrap());
        assert_eq!(inspected["finished"].as_bool(), Some(false));
        let (outcome, notes) = resume(&run, None);
        outcome.unwrap();
        let warned = notes.iter().any(|n| n.contains("damaged") && n.contains(files[1].to_str().unwrap()));
        assert!(warned, "{notes:?}");
        assert_eq!((stands(&run), checkpoints(&run)), (Some(end), files.clone()), "{name}");
        assert_eq!(rows(&run), rows(&original));
        files.iter().for_each(|path| spoil(path));
        refused(&["resume", run.to_str().unwrap()], 1, &["no checkpoint", "damaged", "train --config"]);
        refused(&["inspect", run.to_str().unwrap()], 1, &["no checkpoint"]);
    }
}

fn run_inspect(folder: &Path) -> Output {
    run(&["inspect", folder.to_str().unwrap(), "--json"])
}

#[test]
fn a_run_killed_before_its_first_checkpoint_starts_again() {
    let root = tempfile::tempdir().unwrap();
    let (whole, out) = (root.path().join("whole"), root.path().join("out"));
    let config = config("rfm", 300, &[]);
    train(&config, &whole);
    RunDir::create(Some(&out), &config).unwrap();
    fs::write(out.join("progress.csv"), "timesteps,deci").unwrap();
    fs::create_dir(out.join("checkpoints")).unwrap();
    for leftover in [".config.toml.77.tmp", "checkpoints/.000000000170.safetensors.77.tmp"] {
        fs::write(out.join(leftover), "half").unwrap();
    }
    refused(&["inspect", out.to_str().unwrap()], 1, &["no checkpoint yet", "resume"]);
    let (outcome, notes) = resume(&out, None);
    outcome.unwrap();
    assert!(notes.iter().any(|n| n.contains("starts again from its config.toml")), "{notes:?}");
    assert_eq!((stands(&out), rows(&out)), (stands(&whole), rows(&whole)));
    assert_eq!(leftovers(&out), Vec::<PathBuf>::new());
}

#[test]
fn what_is_no_run_is_named() {
    let root = tempfile::tempdir().unwrap();
    let original = root.path().join("original");
    train(&config("rfm", 300, &[]), &original);
    let at = |path: &Path| path.to_str().unwrap().to_string();
    refused(&["resume", &at(&root.path().join("none"))], 2, &["none", "folder of a run"]);
    refused(&["resume", &at(&original.join("policy.flw"))], 2, &["policy.flw", "folder of a run"]);
    refused(&["resume", &at(root.path())], 2, &["no config.toml"]);
    refused(&["inspect", &at(root.path())], 2, &["no config.toml"]);
    let toml = fs::read_to_string(original.join("config.toml")).unwrap();
    let gamma = toml.replace("gamma = 0.99", "gamma = 0.98");
    assert_ne!(gamma, toml);
    for (name, config, code, words) in [
        ("garbled", "seed = [".to_string(), 2, ["garbled/config.toml", "TOML"]),
        ("short", toml.replace("gamma = 0.99\n", ""), 1, ["not complete", "rfm.gamma"]),
        ("empty", String::new(), 1, ["not complete", "config.toml"]),
        ("other", gamma, 1, ["rfm.gamma", "put it back"]),
        ("algorithm", config("sac", 300, &[]).to_toml(), 1, ["checkpoint of rfm", "asks for sac"]),
        ("seed", toml.replace("seed = 11", "seed = 12"), 1, ["seed", "put it back"]),
    ] {
        let run = root.path().join(name);
        copy(&original, &run);
        fs::write(run.join("config.toml"), config).unwrap();
        let before = snapshot(&run);
        refused(&["resume", &at(&run), "--total-timesteps", "500"], code, &words);
        assert_eq!(snapshot(&run), before, "{name}");
    }
}

#[test]
fn a_folder_belongs_to_one_process() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    train(&config("rfm", 200, &[]), &out);
    let lock = RunDir::open(&out).unwrap().lock().unwrap();
    if lock.is_some() {
        refused(&["resume", out.to_str().unwrap()], 1, &["another process"]);
    }
    drop(lock);
    assert!(run(&["resume", out.to_str().unwrap()]).status.success());
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_says_how_to_resume() {
    let root = tempfile::tempdir().unwrap();
    let (whole, out) = (root.path().join("whole"), root.path().join("out"));
    let shown = out.to_str().unwrap();
    for signal in ["-INT", "-TERM"] {
        let _ = fs::remove_dir_all(&out);
        let _ = fs::remove_dir_all(&whole);
        let mut args = vec!["train", "--seed", "11", "--total-timesteps", "10000000", "--out", shown];
        let set = settings("rfm", &["eval.every=100000000", "checkpoint_every=100000000"]);
        set.iter().for_each(|pair| args.extend(["--set", pair]));
        let child = host_train(&args).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let started = || fs::read_to_string(out.join("progress.csv")).is_ok_and(|csv| csv.lines().count() >= 2);
        (0..600).take_while(|_| !started()).for_each(|_| std::thread::sleep(Duration::from_millis(50)));
        std::thread::sleep(Duration::from_millis(100));
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let output = child.wait_with_output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(130), "{stderr}");
        let last = stderr.lines().last().unwrap();
        assert!(last.contains(&format!("host-train -- resume {shown}")), "{stderr}");
        let (steps, _) = stands(&out).unwrap();
        assert!(last.contains(&format!("stopped at {steps} of 10000000")), "{steps}: {stderr}");
        refused(&["resume", shown, "--total-timesteps", &(steps - 1).to_string()], 2, &["behind it"]);
        resume(&out, Some(steps + 100)).0.unwrap();
        train(&config("rfm", steps + 100, &[]), &whole);
        assert_eq!(stands(&out), stands(&whole));
    }
}

#[test]
fn a_run_that_diverges_keeps_its_last_checkpoint() {
    let root = tempfile::tempdir().unwrap();
    let out = root.path().join("out");
    let config = config("rfm", 600, &["env.reward_scale=1e30", "checkpoint_every=20"]);
    let mut notes = Notes::default();
    let error = Session::train(&config, Some(&out), Arc::default(), &mut notes).unwrap_err();
    assert!(matches!(&error, Error::Failure(sentence) if sentence.contains("diverged")), "{error}");
    let (steps, _) = stands(&out).unwrap();
    // Before the first update, after the random decisions.
    assert!((36..=72).contains(&steps), "{steps}");
    assert!(notes.0.iter().any(|n| n.contains("the newest checkpoint is")), "{:?}", notes.0);
}

/// A pendulum whose sensor fails at a certain step of its life.
struct Failing {
    inner: Box<dyn Env>,
    steps: usize,
    fails_at: usize,
}

impl Env for Failing {
    fn spec(&self) -> &EnvSpec {
        self.inner.spec()
    }
    fn reset(&mut self, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        self.inner.reset(rng)
    }
    fn step(&mut self, action: &[f64]) -> Result<Step> {
        self.steps += 1;
        self.inner.step(action)
    }
    fn observe(&self, out: &mut [f64]) {
        self.inner.observe(out);
        if self.steps == self.fails_at {
            out[1] = f64::NAN;
        }
    }
}

#[test]
fn what_a_failing_environment_interrupts_can_go_on() {
    let config = config("rfm", 1500, &[]);
    let lanes = |fails_at: usize| {
        Trainer::with_envs(&config, |lane| {
            let inner = make("pendulum", &BTreeMap::new())?;
            // The one in the middle alone: what the others did in that round is left out with it.
            let fails_at = if lane == 1 { fails_at } else { usize::MAX };
            Ok(Box::new(Failing { inner, steps: 0, fails_at }))
        })
        .unwrap()
    };
    let mut trainer = lanes(123);
    let error = trainer.run(&mut ()).unwrap_err().to_string();
    assert!(error.contains("not finite") && error.contains("control step 123"), "{error}");
    assert!(trainer.can_go_on());
    // 122 rounds of three lanes went well; nothing of the failed decision was kept.
    assert_eq!(trainer.progress().steps, 366);
    let folder = tempfile::tempdir().unwrap();
    checkpoint::save(folder.path(), &mut trainer, "").unwrap();
    let mut again = lanes(usize::MAX);
    assert!(checkpoint::newest(folder.path()).unwrap().newest.unwrap().restore(&mut again).unwrap());
    assert!(again.run(&mut ()).unwrap());
    assert!(again.progress().steps >= 1500);
}
