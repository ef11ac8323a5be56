//! The seeds of one setting as one group: by environment, algorithm and label.
//!
//! Where runs of one algorithm on one environment differ in keys of their configuration, those keys and their values
//! become the label of the group: nothing that was set differently is averaged. The seed does not count, nor do the
//! keys without effect on training and final evaluation ([`WITHOUT_EFFECT`]). A preset is one difference and not the many constants it stands for.
//! Pure; no panics.

use super::load::Run;
use crate::config::WITHOUT_EFFECT;
use std::collections::{BTreeMap, BTreeSet};

/// Most keys that a label spells out.
const SPELLED_OUT: usize = 4;

/// The runs of one environment, algorithm and label, one a seed, by rising seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// The environment.
    pub env: String,
    /// The algorithm.
    pub algo: String,
    /// What sets the group apart from others of its environment and algorithm; empty where nothing does.
    pub label: String,
    /// Its runs.
    pub runs: Vec<Run>,
}

impl Group {
    /// Algorithm and label: the name of its curve.
    pub fn name(&self) -> String {
        if self.label.is_empty() { self.algo.clone() } else { format!("{} {}", self.algo, self.label) }
    }

    /// A score of every run that has one, with its seed.
    pub fn scores(&self, score: impl Fn(&Run) -> f64) -> Vec<(u64, f64)> {
        self.runs.iter().map(|run| (run.seed, score(run))).filter(|(_, x)| x.is_finite()).collect()
    }
}

/// Puts the runs into groups, in the order in which environments, and in them algorithms and labels, come first.
///
/// Of several runs of one seed in a group the furthest is kept: two of them would count as two seeds. The second list
/// has a sentence for every run left out so.
pub fn group(runs: Vec<Run>) -> (Vec<Group>, Vec<String>) {
    let labels = labels(&runs);
    let mut groups: Vec<Group> = Vec::new();
    let mut remarks = Vec::new();
    for (run, label) in runs.into_iter().zip(labels) {
        let place = groups.iter().position(|g| g.env == run.env && g.algo == run.algo && g.label == label);
        match place {
            Some(place) => groups[place].runs.push(run),
            None => groups.push(Group { env: run.env.clone(), algo: run.algo.clone(), label, runs: vec![run] }),
        }
    }
    for group in &mut groups {
        // Of equal ones the later by name, which is the later by time.
        let further = |run: &Run| (run.finished(), run.timesteps());
        let mut kept: Vec<Run> = Vec::new();
        for run in group.runs.drain(..) {
            let Some(other) = kept.iter_mut().find(|other| other.seed == run.seed) else {
                kept.push(run);
                continue;
            };
            let left_out = if further(&run) >= further(other) { std::mem::replace(other, run) } else { run };
            remarks.push(format!(
                "{}: left out, {} has the same seed and settings",
                left_out.path.display(),
                other.path.display()
            ));
        }
        kept.sort_by_key(|run| run.seed);
        group.runs = kept;
    }
    let order = |names: Vec<&String>| -> BTreeMap<String, usize> {
        let mut ranks = BTreeMap::new();
        for name in names {
            let next = ranks.len();
            ranks.entry(name.clone()).or_insert(next);
        }
        ranks
    };
    let (envs, algos) =
        (order(groups.iter().map(|g| &g.env).collect()), order(groups.iter().map(|g| &g.algo).collect()));
    // Stable: labels stay in the order in which they came.
    groups.sort_by_key(|g| (envs[&g.env], algos[&g.algo]));
    (groups, remarks)
}

/// The label of every run.
fn labels(runs: &[Run]) -> Vec<String> {
    let family = |run: &Run| (run.env.clone(), run.algo.clone());
    let preset = |run: &Run| run.settings.get("preset").cloned().unwrap_or_default();
    let mut presets: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    let mut values: BTreeMap<_, BTreeMap<String, BTreeSet<Option<&String>>>> = BTreeMap::new();
    for run in runs {
        presets.entry(family(run)).or_default().insert(preset(run));
        let known: BTreeSet<&String> =
            runs.iter().filter(|r| family(r) == family(run)).flat_map(|r| r.settings.keys()).collect();
        let of_family = values.entry((family(run), preset(run))).or_default();
        for key in known {
            of_family.entry(key.clone()).or_default().insert(run.settings.get(key));
        }
    }
    let label = |run: &Run| {
        let mut parts = Vec::new();
        if presets[&family(run)].len() > 1 {
            parts.push(preset(run).trim_matches('"').to_string());
        }
        let differing = values[&(family(run), preset(run))]
            .iter()
            .filter(|(key, values)| values.len() > 1 && !WITHOUT_EFFECT.contains(&key.as_str()))
            .map(|(key, _)| {
                let short = key.strip_prefix(&format!("{}.", run.algo)).unwrap_or(key);
                format!("{short}={}", run.settings.get(key).map_or("unset", |value| value.trim_matches('"')))
            });
        let differing: Vec<String> = differing.collect();
        parts.extend(differing.iter().take(SPELLED_OUT).cloned());
        if let Some(rest) = differing.get(SPELLED_OUT..).filter(|rest| !rest.is_empty()) {
            // What is not spelled out still tells groups apart: a short digest of it, the same for equal settings.
            let digest = crc::Crc::<u16>::new(&crc::CRC_16_XMODEM).checksum(rest.join(" ").as_bytes());
            parts.push(format!("+{} keys ({digest:04x})", rest.len()));
        }
        parts.join(" ")
    };
    runs.iter().map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::Fixture;
    use crate::report::load::load;

    fn groups(all: &Fixture) -> (Vec<Group>, Vec<String>) {
        group(load(&[all.path("")]).unwrap().runs)
    }

    #[test]
    fn seeds_of_one_setting_are_one_group() {
        let all = Fixture::new();
        for seed in [1, 2, 3] {
            all.run(&format!("p/rfm/seed-{seed}"), "pendulum", "rfm", seed);
            all.run(&format!("p/sac/seed-{seed}"), "pendulum", "sac", seed);
        }
        all.run("q", "cartpole", "rfm", 1);
        let (groups, remarks) = groups(&all);
        let names: Vec<_> = groups.iter().map(|g| (g.env.as_str(), g.name(), g.runs.len())).collect();
        assert_eq!(
            names,
            [("pendulum", "rfm".into(), 3), ("pendulum", "sac".into(), 3), ("cartpole", "rfm".into(), 1)]
        );
        assert!(remarks.is_empty());
    }

    #[test]
    fn what_was_set_differently_is_the_label() {
        let all = Fixture::new();
        for seed in [1, 2] {
            all.run(&format!("a-{seed}"), "pendulum", "rfm", seed);
            all.run_with(&format!("b-{seed}"), "pendulum", "rfm", seed, &[("gamma", "0.95")]);
            all.run_with(&format!("c-{seed}"), "pendulum", "rfm", seed, &[("gamma", "0.95"), ("rule", "\"ess\"")]);
            // On another environment nothing differs, and other algorithms are not concerned.
            all.run_with(&format!("d-{seed}"), "cartpole", "rfm", seed, &[("gamma", "0.9")]);
            all.run_with(&format!("e-{seed}"), "pendulum", "sac", seed, &[("gamma", "0.9")]);
        }
        let (groups, _) = groups(&all);
        let names: Vec<_> = groups.iter().map(Group::name).collect();
        let wanted =
            ["rfm gamma=0.99 rule=unset", "rfm gamma=0.95 rule=unset", "rfm gamma=0.95 rule=ess", "sac", "rfm"];
        assert_eq!(names, wanted);
        assert!(groups.iter().all(|g| g.runs.len() == 2));
    }

    #[test]
    fn a_preset_is_one_difference() {
        let all = Fixture::new();
        all.run("a", "pendulum", "rfm", 1);
        all.run_with("b", "pendulum", "rfm", 1, &[("gamma", "0.95"), ("k", "100"), ("width", "256")]);
        let paper = std::fs::read_to_string(all.path("b/config.toml")).unwrap().replace("default", "paper");
        all.file("b/config.toml", &paper);
        let names: Vec<_> = groups(&all).0.iter().map(Group::name).collect();
        assert_eq!(names, ["rfm default", "rfm paper"]);
    }

    #[test]
    fn keys_without_effect_make_no_difference() {
        let all = Fixture::new();
        for (name, first, threads) in [("a", "checkpoint_every = 50\ntensorboard = true\n", "2"), ("b", "", "16")] {
            let seed = threads.parse().unwrap();
            all.run(name, "pendulum", "rfm", seed);
            let config = std::fs::read_to_string(all.path(&format!("{name}/config.toml"))).unwrap();
            let config = config.replace("mass = 1.0", &format!("mass = 1.0\nthreads = {threads}"));
            let config = config.replace("every = 1000", &format!("every = {threads}00\ncurve_episodes = {threads}"));
            all.file(&format!("{name}/config.toml"), &format!("{first}{config}"));
        }
        let groups = groups(&all).0;
        assert_eq!((groups.len(), groups[0].name().as_str(), groups[0].runs.len()), (1, "rfm", 2));
    }

    #[test]
    fn many_differences_are_told_apart_without_being_listed() {
        let all = Fixture::new();
        let keys = ["a", "b", "c", "d", "e", "f"];
        for (name, last) in [("x", "1"), ("y", "2"), ("z", "3")] {
            let values = if name == "x" { ["1"; 6] } else { ["2", "2", "2", "2", "2", last] };
            let set: Vec<_> = keys.into_iter().zip(values).collect();
            all.run_with(name, "pendulum", "rfm", 1, &set);
        }
        let labels: Vec<_> = groups(&all).0.into_iter().map(|g| g.label).collect();
        assert_eq!(labels.len(), 3);
        assert!(labels.iter().all(|label| label.contains("+2 keys (") && label.len() < 40), "{labels:?}");
        assert_ne!(labels[1], labels[2]);
    }

    #[test]
    fn a_seed_counts_once() {
        let all = Fixture::new();
        all.run("a", "pendulum", "rfm", 1);
        all.run("b", "pendulum", "rfm", 1);
        all.run("c", "pendulum", "rfm", 1);
        std::fs::remove_file(all.path("c/evaluation.json")).unwrap();
        let (groups, remarks) = groups(&all);
        assert_eq!((groups.len(), groups[0].runs.len(), remarks.len()), (1, 1, 2));
        assert!(groups[0].runs[0].path.ends_with("b"), "{remarks:?}");
    }
}
