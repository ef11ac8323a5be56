//! Many trainings with the release binary, by `host-train sweep`: side by side, resumable, with an estimate of the time
//! that is left.
//!
//! A campaign is a list of settings that are no cross product of anything, so it goes into the sweep's file as variants.
//! What is finished is kept, what was broken off goes on, and a training that fails is tried again and does not stop the
//! others: docs/sweep.md. Ctrl-C reaches the sweep too, which stops its trainings in good order.

use crate::cargo;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The trainer's binary.
#[derive(Debug, Clone)]
pub struct Trainer {
    root: PathBuf,
    binary: PathBuf,
}

impl Trainer {
    /// Builds it, optimised.
    pub fn build(root: &Path) -> Result<Self> {
        Self::build_with(root, &[])
    }

    /// The same with further words for cargo: features.
    pub fn build_with(root: &Path, words: &[&str]) -> Result<Self> {
        eprintln!("... building host-train");
        let mut build = cargo::cargo(root);
        build.args(["build", "--release", "--package", "host-train", "--bin", "host-train"]).args(words);
        build.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
        let output = build.output().context("cannot start cargo")?;
        if !output.status.success() {
            bail!("host-train does not build");
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let binary = messages.filter_map(|m| m["executable"].as_str().map(PathBuf::from)).next_back();
        Ok(Self { root: root.to_path_buf(), binary: binary.context("cargo did not say where it put host-train")? })
    }

    /// A binary that was built before.
    pub fn at(root: &Path, binary: &Path) -> Self {
        Self { root: root.to_path_buf(), binary: binary.to_path_buf() }
    }

    fn command<S: AsRef<str>>(&self, arguments: &[S]) -> Command {
        let mut command = cargo::command(&self.binary, &self.root);
        command.args(arguments.iter().map(AsRef::as_ref));
        command
    }

    /// Runs `host-train ARGUMENTS --json` and returns the object it prints.
    pub fn json<S: AsRef<str>>(&self, arguments: &[S]) -> Result<Value> {
        let shown = || arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
        let output = self.command(arguments).arg("--json").output().context("cannot start host-train")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("host-train {}: {}", shown(), said.lines().last().unwrap_or("no reason was given"));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let object = text.lines().last().and_then(|line| serde_json::from_str(line).ok());
        object.with_context(|| format!("host-train {} printed no JSON object", shown()))
    }
}

/// What the seeds of a campaign have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The name of its folder.
    pub name: String,
    /// Arguments of `train`, without seed and folder.
    pub arguments: Vec<String>,
}

/// Settings, each with the same seeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Campaign {
    /// Folder of the settings' folders, seen from the root of the repository.
    pub out: PathBuf,
    /// The settings; all of them for one seed before the next.
    pub settings: Vec<Setting>,
    /// The first seed, and how many there are.
    pub first_seed: u64,
    /// How many there are.
    pub seeds: u64,
}

impl Campaign {
    /// The folder of a setting.
    pub fn folder(&self, setting: &Setting) -> PathBuf {
        self.out.join(&setting.name)
    }

    /// The run folder of every training, with its setting and seed.
    pub fn trainings(&self) -> Vec<(PathBuf, &Setting, u64)> {
        let seeds = self.first_seed..self.first_seed + self.seeds;
        let of = |seed: u64| {
            let one = move |setting| (self.folder(setting).join(format!("seed-{seed}")), setting, seed);
            self.settings.iter().map(one)
        };
        seeds.flat_map(of).collect()
    }

    /// The file of the sweep. Strings and lists of JSON are TOML too.
    fn file(&self) -> String {
        let mut text = format!("first_seed = {}\nseeds = {}\n", self.first_seed, self.seeds);
        for Setting { name, arguments } in &self.settings {
            text += &format!("\n[[variant]]\nname = {}\narguments = {}\n", json!(name), json!(arguments));
        }
        text
    }

    /// Brings every training to its end, `jobs` at a time, or only checks that the folders are of these settings where there
    /// is to be no `training`. One sentence for each that failed.
    pub fn run(&self, trainer: &Trainer, jobs: Option<u16>, training: bool) -> Result<Vec<String>> {
        let place = trainer.root.join(&self.out);
        fs::create_dir_all(&place).with_context(|| format!("cannot make the folder {}", place.display()))?;
        let file = place.join("campaign.toml");
        fs::write(&file, self.file()).with_context(|| format!("cannot write {}", file.display()))?;
        let mut sweep = trainer.command(&["sweep"]);
        sweep.arg(&file).arg("--out").arg(&self.out).arg("--json").stdout(Stdio::piped());
        if let Some(jobs) = jobs {
            sweep.args(["--jobs", &jobs.to_string()]);
        }
        if !training {
            sweep.arg("--no-training");
        }
        let output =
            sweep.spawn().and_then(std::process::Child::wait_with_output).context("cannot start host-train")?;
        let text = String::from_utf8_lossy(&output.stdout);
        // It tells what failed and fails itself; without a report it has said why.
        let report = text.lines().last().and_then(|line| serde_json::from_str::<Value>(line).ok());
        let Some(report) = report else { bail!("host-train sweep {} came to no end: see above", file.display()) };
        let failed = report["failed"].as_array().context("`host-train sweep --json` does not tell what failed")?;
        Ok(failed.iter().filter_map(|sentence| sentence.as_str().map(String::from)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign() -> Campaign {
        let setting =
            |name: &str| Setting { name: name.into(), arguments: ["--set", "a=\"b\""].map(String::from).to_vec() };
        Campaign { out: "runs/c".into(), settings: vec![setting("x"), setting("y")], first_seed: 4, seeds: 2 }
    }

    #[test]
    fn a_campaign_is_a_sweep_of_variants() {
        let table: toml::Table = toml::from_str(&campaign().file()).unwrap();
        assert_eq!((table["first_seed"].as_integer(), table["seeds"].as_integer()), (Some(4), Some(2)));
        let variants = table["variant"].as_array().unwrap();
        assert_eq!((variants.len(), variants[1]["name"].as_str()), (2, Some("y")));
        assert_eq!(variants[0]["arguments"][1].as_str(), Some("a=\"b\""));
        let folders: Vec<_> = campaign().trainings().iter().map(|(folder, ..)| folder.display().to_string()).collect();
        assert_eq!(folders, ["runs/c/x/seed-4", "runs/c/y/seed-4", "runs/c/x/seed-5", "runs/c/y/seed-5"]);
    }

    /// A script stands for the trainer.
    #[test]
    fn what_failed_is_told_and_silence_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        let says = |script: &str| {
            let path = root.path().join("host-train");
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            let mut permissions = fs::metadata(&path).unwrap().permissions();
            std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o755);
            fs::set_permissions(&path, permissions).unwrap();
            let trainer = Trainer { root: root.path().to_path_buf(), binary: path };
            campaign().run(&trainer, Some(3), false)
        };
        let echo = "[ \"$*\" = \"sweep $PWD/runs/c/campaign.toml --out runs/c --json --jobs 3 --no-training\" ] || exit 5\n\
                    echo '{\"failed\":[\"it died\"]}'; exit 1";
        assert_eq!(says(echo).unwrap(), ["it died"]);
        assert!(says("exit 2").unwrap_err().to_string().contains("campaign.toml"));
        assert!(says("echo '{}'").is_err());
    }
}
