//! From the sources of a configuration to one complete [`Config`].
//!
//! Preset, file, options and `--set`, each over the one before. Every entry must be a key that the preset has, with a
//! value of its kind: what is unknown is refused with the known keys, nearest first.

use super::{ALGORITHMS, Config, points_of_the_curve};
use crate::policy::ArtefactBytes;
use crate::{Error, Result};
use std::path::Path;
use toml::{Table, Value};

/// Keys that change neither the training nor the evaluation at its end: how it is watched, saved and spread over threads.
pub const WITHOUT_EFFECT: [&str; 5] =
    ["checkpoint_every", "tensorboard", "env.threads", "eval.every", "eval.curve_episodes"];

/// Where a configuration comes from, in rising precedence: preset, file, options, `--set`.
#[derive(Clone, Debug, Default)]
pub struct Sources<'a> {
    /// `--preset`.
    pub preset: Option<&'a str>,
    /// `--config`.
    pub file: Option<&'a Path>,
    /// `--env`.
    pub env: Option<&'a str>,
    /// `--algo`.
    pub algo: Option<&'a str>,
    /// `--seed`.
    pub seed: Option<u64>,
    /// `--total-timesteps`.
    pub total_timesteps: Option<u64>,
    /// `--init`: a policy to start from, which also gives the sizes of its networks and its normaliser.
    pub init: Option<&'a Path>,
    /// `--replay`.
    pub replay: Option<&'a Path>,
    /// `--tensorboard`.
    pub tensorboard: bool,
    /// `--set key=value`, in order.
    pub set: &'a [String],
}

impl Config {
    /// The configuration that the sources ask for, checked.
    pub fn resolve(sources: &Sources) -> Result<Self> {
        let file = sources.file.map(read_table).transpose()?.unwrap_or_default();
        if sources.preset.is_some() && sources.file.is_some() {
            return Err(Error::usage("a configuration file names its own preset: give --config or --preset, not both"));
        }
        let set = sources.set.iter().map(|pair| parse_assignment(pair)).collect::<Result<Vec<_>>>()?;

        // Preset and environment choose the base that everything else is laid over.
        let chosen = |key: &str, option: Option<&str>, default: &str| -> Result<String> {
            let last = set.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v);
            match (last, option, lookup(&file, key)) {
                (Some(value), _, _) | (None, None, Some(value)) => value
                    .as_str()
                    .map(str::to_string)
                    .ok_or_else(|| Error::usage(format!("{key} must be a name, in quotes"))),
                (None, Some(option), _) => Ok(option.to_string()),
                (None, None, None) => Ok(default.to_string()),
            }
        };
        let preset = chosen("preset", sources.preset, "default")?;
        let of_policy = sources.init.map(ArtefactBytes::read).transpose()?;
        let of_policy = of_policy.as_ref().map(|bytes| bytes.artefact().map(|artefact| artefact.name().to_string()));
        let env_name = chosen("env.name", sources.env, &of_policy.transpose()?.unwrap_or("pendulum".to_string()))?;
        let algo = chosen("algo", sources.algo, "rfm")?;
        let base = Self::preset(&preset, &algo, &env_name)?;

        let mut entries = Vec::new();
        flatten("", &file, &mut entries);
        for (key, value) in [
            ("env.name", sources.env.map(Value::from)),
            ("algo", sources.algo.map(Value::from)),
            ("seed", sources.seed.map(whole).transpose()?),
            ("total_timesteps", sources.total_timesteps.map(whole).transpose()?),
        ] {
            entries.extend(value.map(|v| (key.to_string(), v)));
        }
        for (key, path) in [("init", sources.init), ("replay", sources.replay)] {
            entries.extend(path.map(|path| (key.to_string(), Value::from(path.to_string_lossy().as_ref()))));
        }
        entries.extend(sources.tensorboard.then(|| ("tensorboard".to_string(), Value::Boolean(true))));
        if let Some(path) = sources.init {
            for (key, value) in shapes_of(path, &algo, &base)? {
                if set.iter().any(|(k, v)| *k == key && *v != value) {
                    return Err(Error::usage(format!(
                        "{key} is {value} in {}, where training starts: leave it out of --set",
                        path.display()
                    )));
                }
                entries.push((key, value));
            }
        }
        entries.extend(set);
        let mut config = base.with(&entries)?;
        let named = |name: &str| entries.iter().any(|(key, _)| key == name);
        if preset == "default" && !named("eval.every") {
            config.eval.every = points_of_the_curve(config.total_timesteps);
        }
        if preset == "default" && !named("checkpoint_every") {
            config.checkpoint_every = points_of_the_curve(config.total_timesteps);
        }
        config.checked()
    }

    /// The configuration of a run from its `config.toml`, where every key must stand; with `total_timesteps` in place of its
    /// own where that is given.
    pub fn complete(path: &Path, total_timesteps: Option<u64>) -> Result<Self> {
        let table = read_table(path)?;
        let config = Self::resolve(&Sources { file: Some(path), total_timesteps, ..Sources::default() })?;
        let mut keys = Vec::new();
        flatten("", &config.to_table(), &mut keys);
        match keys.iter().find(|(key, _)| lookup(&table, key).is_none()) {
            None => Ok(config),
            Some((missing, _)) => Err(Error::failure(format!(
                "{} is not complete, {missing} is missing: put it back as the run wrote it",
                path.display()
            ))),
        }
    }

    /// The first key in which two configurations differ, those that change nothing of the training apart: the steps to
    /// train for, checkpoints and evaluation.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let leaves = |config: &Self| {
            let mut leaves = Vec::new();
            flatten("", &config.to_table(), &mut leaves);
            let free =
                |key: &str| key == "total_timesteps" || key.starts_with("eval.") || WITHOUT_EFFECT.contains(&key);
            leaves.retain(|(key, _)| !free(key));
            leaves
        };
        let (mine, theirs) = (leaves(self), leaves(other));
        let missing = |(key, value): &&(String, Value)| !theirs.contains(&(key.clone(), value.clone()));
        mine.iter().find(missing).map(|(key, _)| key.clone())
    }

    /// The configuration in the text of a complete `config.toml`.
    pub fn from_text(text: &str) -> Result<Self> {
        let unreadable = |e: &str| {
            Error::failure(format!("the configuration in a checkpoint is not this program's ({e}): train anew"))
        };
        let table: Table = text.parse().map_err(|e: toml::de::Error| unreadable(e.message()))?;
        Self::from_table(table).map_err(|e| unreadable(e.message()))
    }

    /// This configuration with dotted keys replaced.
    fn with(&self, entries: &[(String, Value)]) -> Result<Self> {
        let mut table = self.to_table();
        let mut known = Vec::new();
        flatten("", &table, &mut known);
        let known: Vec<String> = known.into_iter().map(|(key, _)| key).collect();
        let mut config = self.clone();
        for (key, value) in entries {
            let slot = lookup_mut(&mut table, key).ok_or_else(|| self.unknown_key(key, &known))?;
            *slot = coerce(slot, value)
                .ok_or_else(|| Error::usage(format!("{key} = {value}: {} is expected", expected(slot))))?;
            // After every entry, so that what serde refuses is known by its key.
            config = Self::from_table(table.clone())
                .map_err(|e| Error::usage(format!("{key} = {value}: {}", e.message())))?;
        }
        Ok(config)
    }

    /// The sentence for a key that does not exist: the nearest that does, or whose it is.
    fn unknown_key(&self, key: &str, known: &[String]) -> Error {
        let algo = self.algo();
        if let Some((section, _)) = key.split_once('.')
            && section != algo
            && ALGORITHMS.contains(&section)
        {
            return Error::usage(format!(
                "{key} is a key of the algorithm {section}, and this run trains {algo}: give --algo {section}, or a key \
                 of [{algo}]"
            ));
        }
        let nearest = nearest(key, known.iter().map(String::as_str));
        Error::usage(format!(
            "unknown key {key:?}: the nearest one is {nearest}; the config.toml of a run has all keys, and `envs` lists \
             those of the physics"
        ))
    }
}

/// What a policy determines of a configuration that starts from it: the form of its networks, and its normaliser.
fn shapes_of(path: &Path, algo: &str, base: &Config) -> Result<Vec<(String, Value)>> {
    if algo != "rfm" {
        return Err(Error::usage(format!("--init starts rfm alone, for {algo} has no artefact: leave it out")));
    }
    let bytes = ArtefactBytes::read(path)?;
    let artefact = bytes.artefact()?;
    let shape = crate::export::single_precision(&artefact)?.shape();
    let reals = |v: &[f32]| Value::Array(v.iter().map(|&x| Value::Float(f64::from(x))).collect());
    let whole = |n: usize| Value::Integer(n as i64);
    if shape.obs != base.env.obs_mean.len() {
        return Err(Error::usage(format!(
            "{} is a policy for {} with {} observations, and {} has {}: start from a policy of the same environment",
            path.display(),
            artefact.name(),
            shape.obs,
            base.env.name,
            base.env.obs_mean.len()
        )));
    }
    let normaliser = artefact.normalizer();
    let mut entries = vec![
        ("rfm.actor_hidden", whole(shape.hidden)),
        ("rfm.actor_layers", whole(shape.layers)),
        ("rfm.activation", Value::from(shape.activation.name())),
        ("rfm.trunk", Value::from(shape.trunk.name())),
        ("env.obs_mean", reals(normaliser.mean)),
        ("env.obs_scale", reals(normaliser.scale)),
        ("env.obs_clip", Value::Float(f64::from(normaliser.clip))),
    ];
    // A one-step policy knows no time; training begins with no weight on it.
    if shape.frequencies > 0 {
        entries.push(("rfm.frequencies", reals(artefact.velocity().frequencies())));
    }
    if let Some(critic) = artefact.critics().next() {
        entries.push(("rfm.critic_hidden", whole(critic.shape().hidden)));
        entries.push(("rfm.critic_layers", whole(critic.shape().layers)));
        entries.push(("rfm.critic_activation", Value::from(critic.shape().activation.name())));
    }
    Ok(entries.into_iter().map(|(key, value)| (key.to_string(), value)).collect())
}

fn read_table(path: &Path) -> Result<Table> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| {
        Error::usage(format!("cannot read the configuration {shown} ({e}): give the path of a config.toml"))
    })?;
    text.parse().map_err(|e: toml::de::Error| {
        let line = e.span().map_or(0, |s| text[..s.start].matches('\n').count() + 1);
        let message = e.message().replace('\n', ", ");
        Error::usage(format!("{shown} line {line} is not TOML: {message}"))
    })
}

/// `key=value`, the value in TOML or, where it is none, a plain word.
fn parse_assignment(pair: &str) -> Result<(String, Value)> {
    let Some((key, text)) = pair.split_once('=') else {
        return Err(Error::usage(format!("--set {pair:?}: write key=value, for example --set rfm.gamma=0.99")));
    };
    let (key, text) = (key.trim(), text.trim());
    let value = format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut t| t.remove("value"))
        .unwrap_or_else(|| Value::from(text));
    Ok((key.to_string(), value))
}

fn whole(n: u64) -> Result<Value> {
    i64::try_from(n)
        .map(Value::from)
        .map_err(|_| Error::usage(format!("{n} is too large: use a whole number below {}", i64::MAX)))
}

/// Every leaf of a table under its dotted key.
pub(crate) fn flatten(prefix: &str, table: &Table, out: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => flatten(&key, inner, out),
            leaf => out.push((key, leaf.clone())),
        }
    }
}

fn lookup<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        Some((section, rest)) => lookup(table.get(section)?.as_table()?, rest),
        None => table.get(key),
    }
}

/// The leaf at a dotted key; sections are no leaves.
fn lookup_mut<'a>(table: &'a mut Table, key: &str) -> Option<&'a mut Value> {
    match key.split_once('.') {
        Some((section, rest)) => lookup_mut(table.get_mut(section)?.as_table_mut()?, rest),
        None => table.get_mut(key).filter(|v| !v.is_table()),
    }
}

/// The value as the type of the slot: whole numbers may stand for real ones.
fn coerce(slot: &Value, value: &Value) -> Option<Value> {
    match (slot, value) {
        (Value::Float(_), Value::Integer(n)) => Some(Value::Float(*n as f64)),
        (Value::Array(_), Value::Array(items)) => {
            let number = Value::Float(0.0);
            items.iter().map(|v| coerce(&number, v)).collect::<Option<_>>().map(Value::Array)
        }
        (Value::Integer(_), Value::Integer(n)) if *n < 0 => None,
        _ if slot.same_type(value) => Some(value.clone()),
        _ => None,
    }
}

fn expected(slot: &Value) -> &'static str {
    match slot {
        Value::Integer(_) => "a whole number, zero or above,",
        Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "a list of numbers like [1.0, 2.0]",
        _ => "a name",
    }
}

/// The name that is most like `key`, whole or by its last part.
pub(crate) fn nearest<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> &'a str {
    let distance = |name: &&str| {
        let last = name.rsplit('.').next().unwrap_or(name);
        edit_distance(key, name).min(edit_distance(key, last))
    };
    names.min_by_key(distance).unwrap_or_default()
}

/// Levenshtein distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &cb) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(ca != cb);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Activation, RfmConfig, Trunk};

    fn resolve(set: &[&str]) -> Result<Config> {
        let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
        Config::resolve(&Sources { set: &set, ..Sources::default() })
    }

    fn refusal(set: &[&str]) -> String {
        match resolve(set) {
            Err(Error::Usage(sentence)) => sentence,
            other => panic!("{set:?} gave {other:?}"),
        }
    }

    fn from_text(text: &str) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        Config::resolve(&Sources { file: Some(&path), ..Sources::default() })
    }

    #[test]
    fn later_sources_win() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        let text =
            "seed = 3\ntotal_timesteps = 50\n[env]\nname = \"cartpole\"\nrail = 2\n[rfm]\ngamma = 0.5\ntau = 0.5\n";
        std::fs::write(&path, text).unwrap();
        let config = Config::resolve(&Sources {
            file: Some(&path),
            seed: Some(4),
            total_timesteps: Some(1200),
            set: &["rfm.gamma=0.75".into(), "total_timesteps=2400".into(), "rfm.gamma=0.8".into()],
            ..Sources::default()
        })
        .unwrap();
        assert_eq!((config.seed, config.total_timesteps), (4, 2400));
        assert_eq!((config.train().gamma, config.train().tau), (0.8, 0.5));
        assert_eq!((config.env.name.as_str(), config.env.physics["rail"]), ("cartpole", 2.0));
        assert_eq!(config.eval.every, 200);
        // What no source names is the preset's.
        assert_eq!(config.rfm().unwrap().kernel, RfmConfig::standard().kernel);
    }

    #[test]
    fn values_are_read_as_their_keys_types() {
        let config = resolve(&[
            "rfm.activation=gelu",
            "rfm.trunk = \"residual\"",
            "rfm.frequencies=[1, 2.5]",
            "rfm.tau=1",
            "rfm.constant_embedding=true",
            "env.max_torque=3",
            "preset=paper",
            "seed=9",
        ])
        .unwrap();
        assert_eq!(config.train().activation, Activation::Gelu);
        assert_eq!(config.train().trunk, Trunk::Residual);
        assert_eq!(config.rfm().unwrap().frequencies, [1.0, 2.5]);
        assert_eq!((config.train().tau, config.rfm().unwrap().particles, config.seed), (1.0, 32, 9));
        assert_eq!(config.env.physics["max_torque"], 3.0);
    }

    #[test]
    fn unknown_keys_name_the_nearest_first() {
        for (set, nearest) in [
            ("rfm.gama=0.9", "rfm.gamma"),
            ("gamma=0.9", "rfm.gamma"),
            ("env.max_torqe=1", "env.max_torque"),
            ("total_timestep=1", "total_timesteps"),
            ("eval.best=1", "eval.best_of"),
        ] {
            let sentence = refusal(&[set]);
            assert!(sentence.contains(&format!("the nearest one is {nearest};")), "{sentence}");
        }
        // A section is no key, and a key of another environment is unknown.
        assert!(refusal(&["rfm=1"]).contains("unknown key"));
        assert!(refusal(&["env.rail=1"]).contains("unknown key"));
        assert!(from_text("[rfm]\ngama = 1.0\n").unwrap_err().to_string().contains("rfm.gamma"));
    }

    #[test]
    fn broken_files_are_refused_in_one_line() {
        for text in ["seed = ", "[rfm\n", "seed = 1\nseed = 2\n", "seed = \"x\"", "\u{0}"] {
            let sentence = from_text(text).unwrap_err().to_string();
            assert!(!sentence.contains('\n') && !sentence.is_empty(), "{sentence}");
        }
        let missing = Config::resolve(&Sources { file: Some(Path::new("no/such/config.toml")), ..Sources::default() });
        assert!(matches!(missing, Err(Error::Usage(_))));
        let both =
            Config::resolve(&Sources { file: Some(Path::new("x.toml")), preset: Some("paper"), ..Sources::default() });
        assert!(matches!(both, Err(Error::Usage(_))));
        let large = Config::resolve(&Sources { seed: Some(u64::MAX), ..Sources::default() });
        assert!(matches!(large, Err(Error::Usage(_))));
    }

    #[test]
    fn distances_are_edits() {
        for (a, b, d) in [("", "abc", 3), ("kitten", "sitting", 3), ("same", "same", 0), ("ab", "ba", 2)] {
            assert_eq!((edit_distance(a, b), edit_distance(b, a)), (d, d));
        }
    }
}
