//! Run folders made by hand for the tests of reports.

use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

/// A temporary folder of runs.
pub(crate) struct Fixture {
    dir: tempfile::TempDir,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file and the folders it lies in.
    pub(crate) fn file(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A finished run with the plain curve of [`progress`].
    pub(crate) fn run(&self, name: &str, env: &str, algo: &str, seed: u64) {
        self.run_with(name, env, algo, seed, &[]);
    }

    /// The same with other settings.
    pub(crate) fn run_with(&self, name: &str, env: &str, algo: &str, seed: u64, set: &[(&str, &str)]) {
        self.file(&format!("{name}/config.toml"), &config(env, algo, seed, set));
        let curve: Vec<(f64, f64, f64)> = (0..=5)
            .map(|i| (f64::from(i) * 1000.0, 0.5 * f64::from(i), single(seed) - f64::from(5 - i) * 200.0))
            .collect();
        self.file(&format!("{name}/progress.csv"), &progress(&curve));
        self.file(&format!("{name}/evaluation.json"), &evaluation_json(seed));
    }
}

/// Final return of a seed: -100, -110, ... for seeds 0, 1, ...
pub(crate) fn single(seed: u64) -> f64 {
    -100.0 - 10.0 * seed as f64
}

/// `config.toml`, with `<algo>.KEY = VALUE` for every pair of `set`.
pub(crate) fn config(env: &str, algo: &str, seed: u64, set: &[(&str, &str)]) -> String {
    let own: String = set.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    let gamma = if set.iter().any(|(key, _)| *key == "gamma") { "" } else { "gamma = 0.99\n" };
    format!(
        "preset = \"default\"\nalgo = \"{algo}\"\nseed = {seed}\ntotal_timesteps = 5000\n\
         [env]\nname = \"{env}\"\nmass = 1.0\n[{algo}]\n{gamma}{own}[eval]\nevery = 1000\nepisodes = 20\n"
    )
}

/// `progress.csv` of (control steps, CPU-seconds, return of single samples); the greedy choice has 5 more.
pub(crate) fn progress(curve: &[(f64, f64, f64)]) -> String {
    let mut csv = format!("{}\n", crate::run::ProgressRow::COLUMNS);
    for (steps, cpu, value) in curve {
        writeln!(csv, "{steps},{steps},{steps},{cpu},,{value},12.5,{},,,,,,0.1,", value + 5.0).unwrap();
    }
    csv
}

/// `evaluation.json`, with ways.
pub(crate) fn evaluation_json(seed: u64) -> String {
    let outcome = |mean: f64| {
        format!(
            "{{\"mean\":{mean},\"iqm\":{mean},\"ci95\":[0,1],\"min\":{},\"max\":{},\"returns\":[]}}",
            mean - 50.0,
            mean + 50.0
        )
    };
    let (plain, best) = (outcome(single(seed)), outcome(single(seed) + 5.0));
    format!(
        "{{\"env\":\"e\",\"algo\":\"a\",\"preset\":\"default\",\"seed\":{seed},\"timesteps\":5000,\"updates\":4000,\
         \"cpu_seconds\":2.5,\"episodes\":20,\"best_of\":16,\"single\":{plain},\"greedy\":{best},\
         \"ways\":{{\"single\":{{\"left\":0.4,\"right\":0.6}},\"greedy\":{{\"left\":1.0}}}}}}"
    )
}
