//! Recorded rollouts of the environments' originals, and how far ours are from them.
//!
//! Two formats of JSON are read: rollouts of a Gymnasium environment (several episodes a file, observations rounded to
//! `f32`) and rollouts of a `dm_control` suite task (one a file, `f64`). A replay starts from the recorded state, applies the
//! recorded actions one control step each and compares every observation and reward; nothing is put right on the way,
//! so a difference grows as the two trajectories part. Once a plant has left its limits (a cart its rail) the rest of
//! the rollout is told apart: contact forces come from an iterative solver there, and are not held to be equal.
//! No panics on any file.

use crate::env::Env;
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Differences up to here count as equal.
pub const TOLERANCE: f64 = 1e-6;

/// The suite's tasks that are environments of ours.
const SUITE: [(&str, &str); 2] = [("cartpole-swingup", "cartpole"), ("acrobot-swingup", "acrobot")];

/// One file of recorded rollouts.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Where it was read.
    pub path: PathBuf,
    /// What was recorded, in the words of its origin.
    pub task: String,
    /// Our environment of the same task, if there is one.
    pub env: Option<&'static str>,
    /// The rollouts.
    pub rollouts: Vec<Rollout>,
    /// The recorded observations were rounded to `f32`.
    rounded: bool,
}

/// One recorded rollout, row by row.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// Positions, then speeds, before the first action.
    start: Vec<f64>,
    start_obs: Vec<f64>,
    actions: Vec<Vec<f64>>,
    obs: Vec<Vec<f64>>,
    rewards: Vec<f64>,
}

/// The largest differences of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// Rollouts replayed.
    pub records: usize,
    /// Control steps compared: those before the plant first left its limits.
    pub steps: usize,
    /// Largest difference in an observation channel.
    pub max_obs: f64,
    /// Largest difference in a reward.
    pub max_reward: f64,
    /// Control steps after that, not held to be equal.
    pub steps_beyond: usize,
    /// Largest difference in an observation channel or a reward among them.
    pub max_beyond: f64,
}

impl Difference {
    /// Both differences are within [`TOLERANCE`].
    pub fn is_match(&self) -> bool {
        self.max_obs <= TOLERANCE && self.max_reward <= TOLERANCE
    }

    /// Adds what another replay found.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.steps += other.steps;
        self.max_obs = self.max_obs.max(other.max_obs);
        self.max_reward = self.max_reward.max(other.max_reward);
        self.steps_beyond += other.steps_beyond;
        self.max_beyond = self.max_beyond.max(other.max_beyond);
    }
}

#[derive(Deserialize)]
struct GymFile {
    env: String,
    episodes: Vec<GymEpisode>,
}

#[derive(Deserialize)]
struct GymEpisode {
    start: Vec<f64>,
    start_obs: Vec<f64>,
    actions: Vec<Action>,
    obs: Vec<Vec<f64>>,
    rewards: Vec<f64>,
}

/// An action of a single channel may stand without brackets.
///
/// Not an untagged enum: those cannot read numbers when another crate of the build switches serde_json to arbitrary
/// precision.
#[derive(Deserialize)]
#[serde(try_from = "serde_json::Value")]
struct Action(Vec<f64>);

impl TryFrom<serde_json::Value> for Action {
    type Error = &'static str;

    fn try_from(value: serde_json::Value) -> std::result::Result<Self, Self::Error> {
        let numbers = match &value {
            serde_json::Value::Array(row) => row.iter().map(serde_json::Value::as_f64).collect(),
            one => one.as_f64().map(|x| vec![x]),
        };
        numbers.map(Self).ok_or("an action is neither a number nor a list of numbers")
    }
}

#[derive(Deserialize)]
struct SuiteFile {
    domain: String,
    task: String,
    start: SuiteStart,
    actions: Vec<Vec<f64>>,
    obs: Vec<Vec<f64>>,
    reward: Vec<f64>,
}

#[derive(Deserialize)]
struct SuiteStart {
    qpos: Vec<f64>,
    qvel: Vec<f64>,
    obs: Vec<f64>,
}

impl Recording {
    /// Reads a file. `Ok(None)` where it is sound JSON but no recording.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let shown = path.display();
        let text = std::fs::read(path).map_err(|e| Error::usage(format!("cannot read the record {shown}: {e}")))?;
        let value: Value = serde_json::from_slice(&text)
            .map_err(|e| Error::usage(format!("{shown} is not JSON ({e}): record it again")))?;
        let damaged =
            |e: serde_json::Error| Error::usage(format!("{shown} is a damaged record ({e}): record it again"));
        let has = |key: &str| value.get(key).is_some();
        let recording = if has("env") && has("episodes") {
            let file = GymFile::deserialize(&value).map_err(damaged)?;
            Self {
                path: path.to_path_buf(),
                env: (file.env == "Pendulum-v1").then_some("pendulum"),
                task: file.env,
                rollouts: file.episodes.into_iter().map(Rollout::from).collect(),
                rounded: true,
            }
        } else if has("domain") && has("task") && has("actions") {
            let file = SuiteFile::deserialize(&value).map_err(damaged)?;
            let task = format!("{}-{}", file.domain, file.task);
            Self {
                path: path.to_path_buf(),
                env: SUITE.iter().find(|(known, _)| *known == task).map(|(_, env)| *env),
                task,
                rollouts: vec![Rollout::from(file)],
                rounded: false,
            }
        } else {
            return Ok(None);
        };
        for r in &recording.rollouts {
            let rows = r.actions.len();
            if rows == 0 || r.obs.len() != rows || r.rewards.len() != rows {
                return Err(Error::usage(format!(
                    "{shown} is a damaged record ({rows} actions, {} observations, {} rewards): record it again",
                    r.obs.len(),
                    r.rewards.len()
                )));
            }
        }
        if recording.rollouts.is_empty() {
            return Err(Error::usage(format!("{shown} holds no rollout: record it again")));
        }
        Ok(Some(recording))
    }

    /// Replays every rollout on an environment.
    pub fn replay(&self, env: &mut dyn Env) -> Result<Difference> {
        let mut total = Difference::default();
        for rollout in &self.rollouts {
            total.add(&self.replay_one(rollout, env)?);
        }
        Ok(total)
    }

    fn replay_one(&self, rollout: &Rollout, env: &mut dyn Env) -> Result<Difference> {
        let (channels, actions) = (env.spec().obs(), env.spec().act());
        let mut rows = std::iter::once(&rollout.start_obs).chain(&rollout.obs);
        if rows.any(|o| o.len() != channels) || rollout.actions.iter().any(|a| a.len() != actions) {
            return Err(Error::usage(format!(
                "{} ({}) does not fit {}, which has {channels} observation and {actions} action channels: choose another --env",
                self.path.display(),
                self.task,
                env.spec().name
            )));
        }
        let mut ours = vec![0.0; channels];
        let mut obs_apart = |env: &dyn Env, theirs: &[f64]| {
            env.observe(&mut ours);
            let rounded = |a: f64| if self.rounded { f64::from(a as f32) } else { a };
            let pairs = ours.iter().zip(theirs);
            pairs.map(|(&a, &b)| apart(rounded(a), b)).fold(0.0, f64::max)
        };
        env.set_state(&rollout.start)?;
        let mut difference =
            Difference { records: 1, max_obs: obs_apart(env, &rollout.start_obs), ..Difference::default() };
        let rows = rollout.actions.iter().zip(&rollout.obs).zip(&rollout.rewards);
        let mut within = env.within_limits();
        for ((action, obs), &reward) in rows {
            let reward = apart(env.step(action)?.reward, reward);
            let obs = obs_apart(env, obs);
            within &= env.within_limits();
            if within {
                difference.steps += 1;
                difference.max_obs = difference.max_obs.max(obs);
                difference.max_reward = difference.max_reward.max(reward);
            } else {
                difference.steps_beyond += 1;
                difference.max_beyond = difference.max_beyond.max(obs).max(reward);
            }
        }
        Ok(difference)
    }
}

impl From<GymEpisode> for Rollout {
    fn from(e: GymEpisode) -> Self {
        Self {
            start: e.start,
            start_obs: e.start_obs,
            actions: e.actions.into_iter().map(|action| action.0).collect(),
            obs: e.obs,
            rewards: e.rewards,
        }
    }
}

impl From<SuiteFile> for Rollout {
    fn from(f: SuiteFile) -> Self {
        Self {
            start: [f.start.qpos, f.start.qvel].concat(),
            start_obs: f.start.obs,
            actions: f.actions,
            obs: f.obs,
            rewards: f.reward,
        }
    }
}

/// The distance of two numbers; a NaN is infinitely far from everything.
fn apart(a: f64, b: f64) -> f64 {
    let d = (a - b).abs();
    if d.is_nan() { f64::INFINITY } else { d }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env;
    use std::collections::BTreeMap;

    fn read(name: &str) -> Recording {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/records").join(name);
        Recording::read(&path).unwrap().unwrap()
    }

    fn replay(name: &str, physics: &[(&str, f64)]) -> Difference {
        let recording = read(name);
        let physics: BTreeMap<_, _> = physics.iter().map(|&(k, v)| (k.to_string(), v)).collect();
        let mut env = env::make(recording.env.unwrap(), &physics).unwrap();
        recording.replay(&mut *env).unwrap()
    }

    #[test]
    fn pendulum_is_gymnasiums() {
        let d = replay("pendulum_v1.json", &[]);
        assert_eq!((d.records, d.steps), (3, 600));
        assert!(d.is_match(), "{d:?}");
    }

    #[test]
    fn cartpole_is_the_suites() {
        let d = replay("cartpole_swingup.json", &[]);
        assert_eq!((d.records, d.steps), (1, 50));
        assert!(d.max_obs <= 1e-12 && d.max_reward <= 1e-12, "{d:?}");
    }

    #[test]
    fn acrobot_is_the_suites() {
        let d = replay("acrobot_swingup.json", &[]);
        assert_eq!((d.records, d.steps), (1, 50));
        assert!(d.max_obs <= 1e-12 && d.max_reward <= 1e-12, "{d:?}");
    }

    /// The rest of a rollout after the cart has left its rail is told apart, and counts neither way.
    #[test]
    fn steps_beyond_the_rail_are_told_apart() {
        let mut recording = read("cartpole_swingup.json");
        let mut env = env::make("cartpole", &BTreeMap::new()).unwrap();
        // The recorded cart passes x = 0.05 at some step for the first time; a rail that short ends there.
        env.set("rail", 0.05).unwrap();
        let first = recording.rollouts[0].obs.iter().position(|o| o[0].abs() > 0.05).unwrap();
        recording.rollouts[0].rewards[first] += 1.0;
        let d = recording.replay(&mut *env).unwrap();
        assert_eq!((d.steps, d.steps_beyond), (first, 50 - first));
        assert!(d.is_match() && d.max_beyond > 0.9, "{d:?}");
    }

    /// The comparison notices a plant that is slightly another one.
    #[test]
    fn other_physics_do_not_match() {
        assert!(!replay("pendulum_v1.json", &[("mass", 1.0001)]).is_match());
        assert!(!replay("pendulum_v1.json", &[("gravity", 9.81)]).is_match());
        assert!(!replay("cartpole_swingup.json", &[("pole_damping", 1e-4)]).is_match());
        assert!(!replay("cartpole_swingup.json", &[("pole_radius", 0.05)]).is_match());
        assert!(!replay("acrobot_swingup.json", &[("lower_radius", 0.05)]).is_match());
    }

    #[test]
    fn nan_is_never_near() {
        let mut d = Difference { max_obs: apart(f64::NAN, 0.0), ..Difference::default() };
        assert!(!d.is_match());
        d.add(&Difference::default());
        assert!(!d.is_match());
    }

    #[test]
    fn a_record_of_another_plant_is_refused() {
        let mut env = env::make("cartpole", &BTreeMap::new()).unwrap();
        let refused = read("pendulum_v1.json").replay(&mut *env);
        assert!(matches!(refused, Err(Error::Usage(_))));
    }

    #[test]
    fn damaged_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        let whole = std::fs::read_to_string(&read("cartpole_swingup.json").path).unwrap();
        for text in [
            String::new(),
            whole[..whole.len() / 2].to_string(),
            whole.replace("\"qpos\":[0.016905257038003562,", "\"qpos\":[null,"),
            whole.replace("\"reward\":[5.15837654161186e-06,", "\"reward\":["),
            r#"{"env":"Pendulum-v1","episodes":[]}"#.to_string(),
            r#"{"env":"Pendulum-v1","episodes":[{"start":[]}]}"#.to_string(),
        ] {
            std::fs::write(&path, &text).unwrap();
            let Err(Error::Usage(sentence)) = Recording::read(&path) else {
                panic!("accepted {}", &text[..text.len().min(60)]);
            };
            assert!(sentence.contains("r.json"), "{sentence}");
        }
        std::fs::write(&path, "{}").unwrap();
        assert!(Recording::read(&path).unwrap().is_none());
    }
}
