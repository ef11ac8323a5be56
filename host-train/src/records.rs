//! Recorded rollouts of the environments' originals, and how far ours are from them.
//!
//! Three formats of JSON are read: rollouts of a Gymnasium environment (several episodes a file, observations rounded to
//! `f32`), rollouts of a `dm_control` suite task (one a file, `f64`) and its placed states (all tasks in a file: a state
//! with its observation and its reward). A replay starts from the recorded state, applies the recorded actions one control
//! step each and compares every observation, reward and recorded state; nothing is put right on the way, so a difference
//! grows as the two trajectories part. A record is replayed on every environment of ours that is its task: the suite's
//! cart-pole on the plant and, where MuJoCo is built in, on MuJoCo. Once a plant has left its limits (a cart its rail) the
//! rest of the rollout is told apart: contact forces come from an iterative solver there, and are not held to be equal.
//! No panics on any file.

use crate::env::{self, Env, State};
use crate::{Error, Result};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Differences of a plant of ours up to here count as equal.
pub const TOLERANCE: f64 = 1e-6;
/// The same physics on both sides: all that differs is the order of a few operations.
pub const EXACT: f64 = 1e-9;

/// The suite's tasks that are plants of ours.
const PLANTS: [(&str, &str); 2] = [("cartpole-swingup", "cartpole"), ("acrobot-swingup", "acrobot")];

/// The recorded rollouts of one task in one file.
#[derive(Clone, Debug)]
pub struct Recording {
    /// Where it was read.
    pub path: PathBuf,
    /// What was recorded, in the words of its origin.
    pub task: String,
    /// Our environments of the same task.
    pub envs: Vec<&'static str>,
    /// The rollouts.
    pub rollouts: Vec<Rollout>,
    /// The recorded observations were rounded to `f32`.
    rounded: bool,
}

/// One recorded rollout, row by row.
#[derive(Clone, Debug)]
pub struct Rollout {
    /// The state before the first action, its observation, and its reward where that was recorded.
    start: State,
    start_obs: Vec<f64>,
    start_reward: Option<f64>,
    actions: Vec<Vec<f64>>,
    obs: Vec<Vec<f64>>,
    rewards: Vec<f64>,
    /// Recorded states, by the row after which they were.
    states: BTreeMap<usize, State>,
}

/// The largest differences of a replay.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Difference {
    /// Rollouts and placed states replayed.
    pub records: usize,
    /// Those of them that are further off than their tolerance: [`EXACT`] for the suite's tasks, else [`TOLERANCE`].
    pub apart: usize,
    /// Control steps compared: those before the plant first left its limits.
    pub steps: usize,
    /// Placed states compared.
    pub placed: usize,
    /// Largest difference in an observation channel.
    pub max_obs: f64,
    /// Largest difference in a reward.
    pub max_reward: f64,
    /// Largest difference in a position, speed or activation.
    pub max_state: f64,
    /// Control steps after that, not held to be equal.
    pub steps_beyond: usize,
    /// Largest difference in an observation channel or a reward among them.
    pub max_beyond: f64,
}

impl Difference {
    /// Every record is within its tolerance.
    pub fn is_match(&self) -> bool {
        self.apart == 0
    }

    /// Adds what another replay found.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.apart += other.apart;
        self.steps += other.steps;
        self.placed += other.placed;
        self.max_obs = self.max_obs.max(other.max_obs);
        self.max_reward = self.max_reward.max(other.max_reward);
        self.max_state = self.max_state.max(other.max_state);
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
    model_overrides: Option<BTreeMap<String, Vec<f64>>>,
    start: SuiteStart,
    actions: Vec<Vec<f64>>,
    obs: Vec<Vec<f64>>,
    reward: Vec<f64>,
    #[serde(default)]
    qpos: Vec<Vec<f64>>,
    #[serde(default)]
    qvel: Vec<Vec<f64>>,
    #[serde(default)]
    act: Vec<Vec<f64>>,
    /// States stand after every so many steps.
    qpos_every: Option<usize>,
}

#[derive(Deserialize)]
struct SuiteStart {
    qpos: Vec<f64>,
    qvel: Vec<f64>,
    #[serde(default)]
    act: Vec<f64>,
    qacc_warmstart: Option<Vec<f64>>,
    #[serde(default)]
    time: f64,
    obs: Vec<f64>,
}

#[derive(Deserialize)]
struct Placed {
    qpos: Vec<f64>,
    qvel: Vec<f64>,
    act: Vec<f64>,
    ctrl: Vec<f64>,
    overrides: BTreeMap<String, Vec<f64>>,
    obs: Vec<f64>,
    reward: f64,
}

impl Recording {
    /// Reads a file, one recording for each task in it. None where it is sound JSON but holds no recording.
    pub fn read(path: &Path) -> Result<Vec<Self>> {
        let shown = path.display();
        let text = std::fs::read(path).map_err(|e| Error::usage(format!("cannot read the record {shown}: {e}")))?;
        let value: Value = serde_json::from_slice(&text)
            .map_err(|e| Error::usage(format!("{shown} is not JSON ({e}): record it again")))?;
        let damaged =
            |e: serde_json::Error| Error::usage(format!("{shown} is a damaged record ({e}): record it again"));
        let has = |key: &str| value.get(key).is_some();
        let of = |task: String, envs: Vec<&'static str>, rollouts: Vec<Rollout>, rounded: bool| Self {
            path: path.to_path_buf(),
            task,
            envs,
            rollouts,
            rounded,
        };
        let recordings = if has("env") && has("episodes") {
            let file = GymFile::deserialize(&value).map_err(damaged)?;
            let envs = if file.env == "Pendulum-v1" { vec!["pendulum"] } else { Vec::new() };
            vec![of(file.env, envs, file.episodes.into_iter().map(Rollout::from).collect(), true)]
        } else if has("domain") && has("task") && has("actions") {
            let file = SuiteFile::deserialize(&value).map_err(damaged)?;
            let task = format!("{}-{}", file.domain, file.task);
            let plants = PLANTS.into_iter().filter(|(known, _)| *known == task).map(|(_, plant)| plant);
            let envs = plants.chain(env::suite_task(&task)).collect();
            vec![of(task, envs, vec![Rollout::from(file)], false)]
        } else if let Some(tasks) = placed(&value) {
            let mut recordings = Vec::new();
            for (task, states) in tasks {
                let states = Vec::<Placed>::deserialize(states).map_err(damaged)?;
                let envs = env::suite_task(task).into_iter().collect();
                recordings.push(of(task.clone(), envs, states.into_iter().map(Rollout::from).collect(), false));
            }
            recordings
        } else {
            return Ok(Vec::new());
        };
        for r in recordings.iter().flat_map(|recording| &recording.rollouts) {
            let rows = r.actions.len();
            let nothing = rows == 0 && r.start_reward.is_none();
            if nothing || r.obs.len() != rows || r.rewards.len() != rows || r.states.keys().any(|row| *row >= rows) {
                return Err(Error::usage(format!(
                    "{shown} is a damaged record ({rows} actions, {} observations, {} rewards, {} states): record it again",
                    r.obs.len(),
                    r.rewards.len(),
                    r.states.len()
                )));
            }
        }
        if recordings.iter().any(|recording| recording.rollouts.is_empty()) {
            return Err(Error::usage(format!("{shown} holds no rollout: record it again")));
        }
        Ok(recordings)
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
        env.place(&rollout.start)?;
        let mut difference =
            Difference { records: 1, max_obs: obs_apart(env, &rollout.start_obs), ..Difference::default() };
        if let Some(reward) = rollout.start_reward {
            difference.placed = 1;
            // One that cannot tell its reward is infinitely far off.
            difference.max_reward = apart(env.reward().unwrap_or(f64::NAN), reward);
        }
        let rows = rollout.actions.iter().zip(&rollout.obs).zip(&rollout.rewards);
        let mut within = env.within_limits();
        for (row, ((action, obs), &reward)) in rows.enumerate() {
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
            if let (Some(theirs), Some(ours)) = (rollout.states.get(&row), env.state()) {
                difference.max_state = difference.max_state.max(states_apart(&ours, theirs));
            }
        }
        let tolerance = if env::suite_task(&env.spec().name).is_some() { EXACT } else { TOLERANCE };
        let largest = difference.max_obs.max(difference.max_reward).max(difference.max_state);
        difference.apart = usize::from(largest > tolerance);
        Ok(difference)
    }
}

/// The lists of placed states by task, where that is what a file holds.
fn placed(value: &Value) -> Option<&serde_json::Map<String, Value>> {
    let is_placed = |states: &Value| {
        states.as_array().is_some_and(|states| {
            states.iter().all(|state| ["qpos", "ctrl", "obs"].iter().all(|key| state.get(key).is_some()))
        })
    };
    value.as_object().filter(|tasks| !tasks.is_empty() && tasks.values().all(is_placed))
}

impl From<GymEpisode> for Rollout {
    fn from(e: GymEpisode) -> Self {
        Self {
            start: State { positions: e.start, ..State::default() },
            start_obs: e.start_obs,
            start_reward: None,
            actions: e.actions.into_iter().map(|action| action.0).collect(),
            obs: e.obs,
            rewards: e.rewards,
            states: BTreeMap::new(),
        }
    }
}

impl From<SuiteFile> for Rollout {
    fn from(f: SuiteFile) -> Self {
        let every = f.qpos_every.unwrap_or(1).max(1);
        let mut states = BTreeMap::new();
        for (i, positions) in f.qpos.into_iter().enumerate() {
            let (speeds, activations) = (f.qvel.get(i).cloned(), f.act.get(i).cloned());
            let (speeds, activations) = (speeds.unwrap_or_default(), activations.unwrap_or_default());
            states.insert((i + 1) * every - 1, State { positions, speeds, activations, ..State::default() });
        }
        Self {
            start: State {
                positions: f.start.qpos,
                speeds: f.start.qvel,
                activations: f.start.act,
                warmstart: f.start.qacc_warmstart,
                time: f.start.time,
                model: f.model_overrides.unwrap_or_default(),
                controls: None,
            },
            start_obs: f.start.obs,
            start_reward: None,
            actions: f.actions,
            obs: f.obs,
            rewards: f.reward,
            states,
        }
    }
}

impl From<Placed> for Rollout {
    fn from(p: Placed) -> Self {
        Self {
            start: State {
                positions: p.qpos,
                speeds: p.qvel,
                activations: p.act,
                controls: Some(p.ctrl),
                model: p.overrides,
                ..State::default()
            },
            start_obs: p.obs,
            start_reward: Some(p.reward),
            actions: Vec::new(),
            obs: Vec::new(),
            rewards: Vec::new(),
            states: BTreeMap::new(),
        }
    }
}

/// The largest difference of two states; where one has more numbers, an infinite one.
fn states_apart(a: &State, b: &State) -> f64 {
    let parts = [(&a.positions, &b.positions), (&a.speeds, &b.speeds), (&a.activations, &b.activations)];
    if parts.iter().any(|(a, b)| a.len() != b.len()) {
        return f64::INFINITY;
    }
    parts.iter().flat_map(|(a, b)| a.iter().zip(*b)).map(|(a, b)| apart(*a, *b)).fold(0.0, f64::max)
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
        Recording::read(&path).unwrap().remove(0)
    }

    fn replay(name: &str, physics: &[(&str, f64)]) -> Difference {
        let recording = read(name);
        let physics: BTreeMap<_, _> = physics.iter().map(|&(k, v)| (k.to_string(), v)).collect();
        let mut env = env::make(recording.envs[0], &physics).unwrap();
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
        let d = replay("suite/cartpole_swingup.json", &[]);
        assert_eq!((d.records, d.steps), (1, 50));
        assert!(d.max_obs <= 1e-12 && d.max_reward <= 1e-12, "{d:?}");
    }

    #[test]
    fn acrobot_is_the_suites() {
        let d = replay("suite/acrobot_swingup.json", &[]);
        assert_eq!((d.records, d.steps), (1, 50));
        assert!(d.max_obs <= 1e-12 && d.max_reward <= 1e-12, "{d:?}");
    }

    /// The rest of a rollout after the cart has left its rail is told apart, and counts neither way.
    #[test]
    fn steps_beyond_the_rail_are_told_apart() {
        let mut recording = read("suite/cartpole_swingup.json");
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
        assert!(!replay("suite/cartpole_swingup.json", &[("pole_damping", 1e-4)]).is_match());
        assert!(!replay("suite/cartpole_swingup.json", &[("pole_radius", 0.05)]).is_match());
        assert!(!replay("suite/acrobot_swingup.json", &[("lower_radius", 0.05)]).is_match());
    }

    #[test]
    fn nan_is_never_near() {
        assert_eq!(apart(f64::NAN, 0.0), f64::INFINITY);
        let mut recording = read("suite/cartpole_swingup.json");
        recording.rollouts[0].rewards[3] = f64::NAN;
        let mut d = recording.replay(&mut *env::make("cartpole", &BTreeMap::new()).unwrap()).unwrap();
        assert!(!d.is_match() && d.max_reward == f64::INFINITY);
        d.add(&Difference::default());
        assert!(!d.is_match());
    }

    /// Placed states of every task stand in one file; the plants do not take part.
    #[test]
    fn placed_states_are_read_by_task() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/records/suite/probes.json");
        let recordings = Recording::read(&path).unwrap();
        assert_eq!(recordings.len(), 24);
        assert!(recordings.iter().all(|r| r.rollouts.len() == 24));
        assert_eq!(recordings.iter().all(|r| r.envs.len() == 1), cfg!(feature = "mujoco"));
    }

    #[test]
    fn states_of_other_sizes_are_apart() {
        let state = |positions: &[f64]| State { positions: positions.to_vec(), ..State::default() };
        assert_eq!(states_apart(&state(&[1.0, 2.0]), &state(&[1.0, 2.5])), 0.5);
        assert_eq!(states_apart(&state(&[1.0]), &state(&[1.0, 2.5])), f64::INFINITY);
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
        let whole = std::fs::read_to_string(&read("suite/cartpole_swingup.json").path).unwrap();
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
        assert!(Recording::read(&path).unwrap().is_empty());
    }
}
