//! The file of a sweep, and the settings that it asks for.
//!
//! A sweep crosses environments, algorithms, presets, lists of values and variants; what comes out is a list of settings,
//! each with the words that `train` is given and with the name of its folder, which is made of one part for each axis that
//! the file names. So a value more in a list leaves the folders of the others where they are. A key of an algorithm's
//! section counts for that algorithm alone. Pure; no panics; errors are one sentence that names the file and the key.

use crate::config::{ALGORITHMS, nearest};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// The keys of the file, and of a `[[variant]]`.
const KEYS: [&str; 11] = [
    "algos",
    "arguments",
    "cross",
    "envs",
    "first_seed",
    "out",
    "presets",
    "seeds",
    "set",
    "total_timesteps",
    "variant",
];
const VARIANT_KEYS: [&str; 3] = ["arguments", "name", "set"];

/// More settings than this are a mistake, or several sweeps.
const MOST_SETTINGS: usize = 10_000;

/// What a file asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    /// Where the runs go, where the file says so.
    pub out: Option<PathBuf>,
    /// The seeds of every setting.
    pub seeds: Vec<u64>,
    /// The settings, in the order of the axes.
    pub settings: Vec<Setting>,
}

/// What its seeds have in common.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// The name of its folder.
    pub name: String,
    /// The arguments of `train`, without seed and folder.
    pub arguments: Vec<String>,
}

impl Sweep {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::usage(format!("cannot read the sweep {} ({e}): give the path of a TOML file", path.display()))
        })?;
        Self::parse(&text).map_err(|sentence| Error::usage(format!("{}: {sentence}", path.display())))
    }

    /// The sweep in the text of a file, or what is wrong with it.
    fn parse(text: &str) -> std::result::Result<Self, String> {
        let table: Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(0, |s| text[..s.start].matches('\n').count() + 1);
            format!("line {line} is not TOML: {}", e.message().replace('\n', ", "))
        })?;
        known(&table, &KEYS, "")?;
        let first_seed = table.get("first_seed").map(|v| seed("first_seed", v)).transpose()?;
        let seeds = seeds(table.get("seeds"), first_seed)?;
        let out =
            table.get("out").map(|v| v.as_str().map(PathBuf::from).ok_or("out is the path of a folder, in quotes"));
        let settings = Axes::read(&table)?.cross()?;
        let mut names = BTreeSet::new();
        if let Some(twice) = settings.iter().find(|setting| !names.insert(&setting.name)) {
            return Err(format!("two settings would share the folder {}: leave one of them out", twice.name));
        }
        Ok(Self { out: out.transpose()?, seeds, settings })
    }
}

type Parsed<T> = std::result::Result<T, String>;

/// Refuses what is no key.
fn known(table: &Table, keys: &[&str], place: &str) -> Parsed<()> {
    match table.keys().find(|key| !keys.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(format!(
            "unknown key {key:?}{place}: the nearest one is {}; there are {}",
            nearest(key, keys.iter().copied()),
            keys.join(", ")
        )),
    }
}

fn seed(key: &str, value: &Value) -> Parsed<u64> {
    let whole = value.as_integer().and_then(|n| u64::try_from(n).ok());
    whole.ok_or_else(|| format!("{key} = {value}: a seed is a whole number from 0 on"))
}

/// `seeds = 5`, from `first_seed` on, or `seeds = [3, 14]`.
fn seeds(value: Option<&Value>, first: Option<u64>) -> Parsed<Vec<u64>> {
    let seeds = match value {
        Some(Value::Array(list)) if first.is_none() => list.iter().map(|v| seed("seeds", v)).collect::<Parsed<_>>()?,
        Some(Value::Array(_)) => return Err("first_seed is for a number of seeds, and seeds is a list".into()),
        other => {
            let (first, count) = (first.unwrap_or(1), other.map_or(Ok(1), |v| seed("seeds", v))?);
            if count > 100_000 || i64::try_from(first.saturating_add(count)).is_err() {
                return Err(format!("{count} seeds from {first} on are too many: give up to 100,000"));
            }
            (first..first + count).collect::<Vec<u64>>()
        }
    };
    if seeds.is_empty() {
        return Err("the sweep is empty, it has no seed: give their number, or a list of them, as seeds".into());
    }
    match seeds.iter().enumerate().find(|(i, seed)| seeds[..*i].contains(seed)) {
        Some((_, twice)) => Err(format!("two runs would share the folder seed-{twice}: seeds has {twice} twice")),
        None => Ok(seeds),
    }
}

/// What is crossed, and what is the same for all.
struct Axes {
    /// Names; none where the file leaves the choice to `train`.
    envs: Option<Vec<String>>,
    algos: Option<Vec<String>>,
    presets: Option<Vec<String>>,
    /// Control steps: of an environment, else of all (under no name).
    steps: BTreeMap<Option<String>, u64>,
    arguments: Vec<String>,
    set: Vec<(String, Value)>,
    cross: Vec<(String, Vec<Value>)>,
    variants: Vec<Variant>,
}

/// A name for some words.
struct Variant {
    name: String,
    arguments: Vec<String>,
    set: Vec<(String, Value)>,
}

impl Axes {
    fn read(table: &Table) -> Parsed<Self> {
        let pairs = |table: &Table, key: &str| match table.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Table(inner)) => Ok(leaves(inner)),
            Some(other) => Err(format!("{key} = {other}: it is a table of keys of config.toml, begun by [{key}]")),
        };
        let mut cross = Vec::new();
        for (key, value) in pairs(table, "cross")? {
            match value {
                Value::Array(values) if values.is_empty() => {
                    return Err(format!("the sweep is empty, cross.{key} has no value: give some, or leave it out"));
                }
                Value::Array(values) => cross.push((key, values)),
                other => return Err(format!("cross.{key} = {other}: give a list of values, or put it under [set]")),
            }
        }
        let mut variants = Vec::new();
        match table.get("variant") {
            None => {}
            Some(Value::Array(list)) if !list.is_empty() => {
                for entry in list {
                    let entry = entry.as_table().ok_or("a variant is begun by [[variant]]")?;
                    known(entry, &VARIANT_KEYS, " in a variant")?;
                    let name = entry.get("name").and_then(Value::as_str).ok_or("a variant has no name")?.to_string();
                    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.=+:@".contains(c);
                    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
                        return Err(format!(
                            "the name {name:?} of a variant is to be that of a folder: use letters, digits, `-`, `_` and `.`"
                        ));
                    }
                    variants.push(Variant { name, arguments: words(entry)?, set: pairs(entry, "set")? });
                }
            }
            Some(_) => return Err("the sweep is empty, it has no variant: give some, each begun by [[variant]]".into()),
        }
        let axes = Self {
            envs: names(table, "envs")?,
            algos: names(table, "algos")?,
            presets: names(table, "presets")?,
            steps: steps(table.get("total_timesteps"))?,
            arguments: words(table)?,
            set: pairs(table, "set")?,
            cross,
            variants,
        };
        // What would count for no run is a mistake.
        let keys = axes.set.iter().map(|(key, _)| key).chain(axes.cross.iter().map(|(key, _)| key));
        let keys = keys.chain(axes.variants.iter().flat_map(|variant| variant.set.iter().map(|(key, _)| key)));
        if let Some(algos) = &axes.algos {
            for key in keys {
                if let Some(owner) = owner(key).filter(|owner| !algos.iter().any(|algo| algo == owner)) {
                    return Err(format!("{key} is a key of the algorithm {owner}, which is not among algos"));
                }
            }
        }
        let named = axes.steps.keys().flatten();
        let envs = axes.envs.as_deref().unwrap_or_default();
        match named.into_iter().find(|env| !envs.contains(env)) {
            Some(env) => Err(format!("total_timesteps.{env}: {env} is not among envs")),
            None => Ok(axes),
        }
    }

    /// All combinations.
    fn cross(&self) -> Parsed<Vec<Setting>> {
        let axis = |names: &Option<Vec<String>>| match names {
            None => vec![None],
            Some(names) => names.iter().cloned().map(Some).collect::<Vec<_>>(),
        };
        let mut settings = Vec::new();
        for env in axis(&self.envs) {
            for algo in axis(&self.algos) {
                for preset in axis(&self.presets) {
                    self.of(env.as_deref(), algo.as_deref(), preset.as_deref(), &mut settings)?;
                }
            }
        }
        Ok(settings)
    }

    /// The settings of one environment, algorithm and preset.
    fn of(
        &self,
        env: Option<&str>,
        algo: Option<&str>,
        preset: Option<&str>,
        settings: &mut Vec<Setting>,
    ) -> Parsed<()> {
        // Keys of another algorithm's section do not count here.
        let counts = |key: &str| algo.is_none() || owner(key).is_none_or(|owner| Some(owner) == algo);
        let mut words = Vec::new();
        for (option, value) in [("--env", env), ("--algo", algo), ("--preset", preset)] {
            words.extend(value.into_iter().flat_map(|value| [option.to_string(), value.to_string()]));
        }
        let steps = self.steps.get(&env.map(str::to_string)).or_else(|| self.steps.get(&None));
        words.extend(steps.into_iter().flat_map(|steps| ["--total-timesteps".to_string(), steps.to_string()]));
        words.extend(self.arguments.iter().cloned());
        words.extend(self.set.iter().filter(|(key, _)| counts(key)).flat_map(assignment));
        let parts: Vec<String> = [env, algo, preset].into_iter().flatten().map(file_name).collect();

        let mut settings_here = vec![(parts, words)];
        for (key, values) in self.cross.iter().filter(|(key, _)| counts(key)) {
            let short = algo.and_then(|algo| key.strip_prefix(&format!("{algo}."))).unwrap_or(key);
            let with = |(parts, words): (Vec<String>, Vec<String>)| {
                let one = move |value: &Value| {
                    let part = file_name(&format!("{short}={}", value.to_string().trim_matches('"')));
                    let parts = parts.iter().cloned().chain([part]).collect::<Vec<_>>();
                    let words = words.iter().cloned().chain(assignment(&(key.clone(), value.clone())));
                    (parts, words.collect::<Vec<_>>())
                };
                values.iter().map(one)
            };
            if settings_here.len() * values.len() > MOST_SETTINGS {
                return Err(format!("more than {MOST_SETTINGS} settings come of this: cross less"));
            }
            settings_here = settings_here.into_iter().flat_map(with).collect();
        }
        if !self.variants.is_empty() {
            let with = |(parts, words): (Vec<String>, Vec<String>)| {
                let one = move |variant: &Variant| {
                    let parts = parts.iter().cloned().chain([variant.name.clone()]).collect::<Vec<_>>();
                    let set = variant.set.iter().filter(|(key, _)| counts(key)).flat_map(assignment);
                    let own = variant.arguments.iter().cloned().chain(set);
                    (parts, words.iter().cloned().chain(own).collect::<Vec<_>>())
                };
                self.variants.iter().map(one)
            };
            settings_here = settings_here.into_iter().flat_map(with).collect();
        }
        let setting = |(parts, arguments): (Vec<String>, Vec<String>)| Setting {
            name: if parts.is_empty() { "default".to_string() } else { parts.join("__") },
            arguments,
        };
        settings.extend(settings_here.into_iter().map(setting));
        if settings.len() > MOST_SETTINGS {
            return Err(format!("more than {MOST_SETTINGS} settings come of this: cross less"));
        }
        Ok(())
    }
}

/// The algorithm in whose section a key stands.
fn owner(key: &str) -> Option<&str> {
    key.split_once('.').map(|(section, _)| section).filter(|section| ALGORITHMS.contains(section))
}

/// `--set key=value`.
fn assignment((key, value): &(String, Value)) -> [String; 2] {
    ["--set".to_string(), format!("{key}={value}")]
}

/// What every file system takes.
fn file_name(text: &str) -> String {
    let plain = |c: char| if c.is_alphanumeric() || "-_.=+".contains(c) { c } else { '-' };
    text.chars().map(plain).collect()
}

/// One name or a list of them.
fn names(table: &Table, key: &str) -> Parsed<Option<Vec<String>>> {
    let wrong = |value: &Value| format!("{key} = {value}: give a name in quotes, or a list of them");
    let names = match table.get(key) {
        None => return Ok(None),
        Some(Value::String(one)) => vec![one.clone()],
        Some(list @ Value::Array(values)) => {
            let name = |value: &Value| value.as_str().map(str::to_string).ok_or_else(|| wrong(list));
            values.iter().map(name).collect::<Parsed<Vec<_>>>()?
        }
        Some(other) => return Err(wrong(other)),
    };
    if names.is_empty() {
        return Err(format!("the sweep is empty, {key} has no name: give some, or leave {key} out"));
    }
    Ok(Some(names))
}

/// Further words for `train`.
fn words(table: &Table) -> Parsed<Vec<String>> {
    const WRONG: &str = "arguments is a list of words for train, each in quotes";
    let Some(list) = table.get("arguments") else { return Ok(Vec::new()) };
    let words = list.as_array().ok_or(WRONG)?.iter().map(|word| word.as_str().map(str::to_string).ok_or(WRONG));
    Ok(words.collect::<std::result::Result<_, _>>()?)
}

/// `total_timesteps = 5000`, or a number for each of some environments.
fn steps(value: Option<&Value>) -> Parsed<BTreeMap<Option<String>, u64>> {
    let whole = |value: &Value| {
        let steps = value.as_integer().and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
        steps.ok_or_else(|| format!("total_timesteps = {value}: give a whole number above 0"))
    };
    match value {
        None => Ok(BTreeMap::new()),
        Some(Value::Table(by_env)) => by_env.iter().map(|(env, v)| Ok((Some(env.clone()), whole(v)?))).collect(),
        Some(value) => Ok(BTreeMap::from([(None, whole(value)?)])),
    }
}

/// Every leaf of a table under its dotted key, by name.
fn leaves(table: &Table) -> Vec<(String, Value)> {
    let mut out = Vec::new();
    crate::config::flatten("", table, &mut out);
    out.sort_by(|(a, _), (b, _)| a.cmp(b));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<(String, String)> {
        let sweep = Sweep::parse(text).unwrap();
        sweep.settings.into_iter().map(|s| (s.name, s.arguments.join(" "))).collect()
    }

    fn refusal(text: &str) -> String {
        let sentence = Sweep::parse(text).unwrap_err();
        assert!(!sentence.contains('\n'), "{sentence}");
        sentence
    }

    #[test]
    fn axes_are_crossed_in_their_order() {
        let text = "envs = ['pendulum', 'cartpole']\nalgos = ['rfm', 'sac']\nseeds = 2\n";
        assert_eq!(
            lines(text),
            [
                ("pendulum__rfm".into(), "--env pendulum --algo rfm".into()),
                ("pendulum__sac".into(), "--env pendulum --algo sac".into()),
                ("cartpole__rfm".into(), "--env cartpole --algo rfm".into()),
                ("cartpole__sac".into(), "--env cartpole --algo sac".into()),
            ]
        );
        assert_eq!(Sweep::parse(text).unwrap().seeds, [1, 2]);
        let text = "envs = 'pendulum'\npresets = ['default', 'paper']\n[cross]\nenv.mass = [1.0, 1.2]\neval.best_of = [4, 8]\n";
        let names: Vec<String> = lines(text).into_iter().map(|(name, _)| name).collect();
        let of = |preset: &str| {
            ["1.0__eval.best_of=4", "1.0__eval.best_of=8", "1.2__eval.best_of=4", "1.2__eval.best_of=8"]
                .map(|rest| format!("pendulum__{preset}__env.mass={rest}"))
        };
        assert_eq!(names, [of("default"), of("paper")].concat());
    }

    #[test]
    fn nothing_crossed_is_one_setting() {
        assert_eq!(lines(""), [("default".into(), String::new())]);
        assert_eq!(Sweep::parse("").unwrap().seeds, [1]);
        assert_eq!(Sweep::parse("seeds = 3\nfirst_seed = 7").unwrap().seeds, [7, 8, 9]);
        assert_eq!(Sweep::parse("seeds = [3, 14]\nout = 'runs/x'").unwrap().out, Some("runs/x".into()));
    }

    /// A value more, or a seed more, leaves the folders of the others where they are.
    #[test]
    fn folders_do_not_depend_on_what_else_is_crossed() {
        let one = lines("envs = 'pendulum'\nalgos = 'rfm'\n[cross]\nrfm.gamma = [0.98]\n");
        let two = lines("envs = ['acrobot', 'pendulum']\nalgos = 'rfm'\n[cross]\nrfm.gamma = [0.9, 0.98]\n");
        assert_eq!(one[0].0, "pendulum__rfm__gamma=0.98");
        assert!(two.contains(&one[0]) && two.len() == 4);
    }

    #[test]
    fn keys_of_an_algorithm_count_for_it_alone() {
        let text = "algos = ['rfm', 'sac']\narguments = ['--tensorboard']\n[set]\nrfm.activation = 'gelu'\neval.episodes = 5\n\
                    [cross]\nrfm.gamma = [0.9, 0.99]\n";
        assert_eq!(
            lines(text),
            [
                (
                    "rfm__gamma=0.9".into(),
                    "--algo rfm --tensorboard --set eval.episodes=5 --set rfm.activation=\"gelu\" --set rfm.gamma=0.9"
                        .into()
                ),
                (
                    "rfm__gamma=0.99".into(),
                    "--algo rfm --tensorboard --set eval.episodes=5 --set rfm.activation=\"gelu\" --set rfm.gamma=0.99"
                        .into()
                ),
                ("sac".into(), "--algo sac --tensorboard --set eval.episodes=5".into()),
            ]
        );
        let text = "algos = ['rfm', 'sac']\n[[variant]]\nname = 'x'\nset = { rfm.gamma = 0.9, eval.episodes = 5 }\n";
        assert_eq!(
            lines(text),
            [
                ("rfm__x".into(), "--algo rfm --set eval.episodes=5 --set rfm.gamma=0.9".into()),
                ("sac__x".into(), "--algo sac --set eval.episodes=5".into()),
            ]
        );
        for place in ["[set]", "[[variant]]\nname = 'x'\n[variant.set]"] {
            let sentence = refusal(&format!("algos = ['sac']\n{place}\nrfm.gamma = 0.9"));
            assert!(sentence.contains("rfm.gamma") && sentence.contains("not among algos"), "{sentence}");
        }
    }

    #[test]
    fn variants_and_lengths_by_environment() {
        let text = "envs = ['pendulum', 'cartpole']\ntotal_timesteps = { cartpole = 300 }\n[[variant]]\nname = 'default'\n\
                    [[variant]]\nname = 'blunt'\narguments = ['--tensorboard']\nset = { rfm.kernel = 0 }\n";
        assert_eq!(
            lines(text),
            [
                ("pendulum__default".into(), "--env pendulum".into()),
                ("pendulum__blunt".into(), "--env pendulum --tensorboard --set rfm.kernel=0".into()),
                ("cartpole__default".into(), "--env cartpole --total-timesteps 300".into()),
                (
                    "cartpole__blunt".into(),
                    "--env cartpole --total-timesteps 300 --tensorboard --set rfm.kernel=0".into()
                ),
            ]
        );
    }

    #[test]
    fn names_become_folders_on_any_file_system() {
        let text = "envs = 'gym:HalfCheetah-v5'\n[cross]\nrfm.frequencies = [[1, 2.5]]\n";
        assert_eq!(lines(text)[0].0, "gym-HalfCheetah-v5__rfm.frequencies=-1--2.5-");
    }

    #[test]
    fn wrong_files_are_one_sentence() {
        for (text, words) in [
            ("seads = 3", &["unknown key \"seads\"", "nearest one is seeds;"][..]),
            ("env = 'pendulum'", &["nearest one is envs;"]),
            ("[[variant]]\nnane = 'x'", &["unknown key \"nane\" in a variant", "nearest one is name;"]),
            ("[[variant]]\nset = { a = 1 }", &["no name"]),
            ("[[variant]]\nname = '../x'", &["../x", "letters"]),
            ("[[variant]]\nname = '..'", &["letters"]),
            ("variant = []", &["empty"]),
            ("seeds = 0", &["empty", "no seed"]),
            ("seeds = []", &["empty", "no seed"]),
            ("seeds = -1", &["-1"]),
            ("seeds = [1, 'x']", &["whole number"]),
            ("seeds = [1, 2, 1]", &["share the folder seed-1"]),
            ("seeds = [1]\nfirst_seed = 3", &["list"]),
            ("seeds = 9223372036854775807", &["too many"]),
            ("envs = []", &["empty", "envs"]),
            ("envs = [1]", &["envs", "quotes"]),
            ("envs = ['pendulum', 'pendulum']", &["share the folder pendulum"]),
            ("envs = ['gym:A', 'gym-A']", &["share the folder gym-A"]),
            ("[[variant]]\nname = 'a'\n[[variant]]\nname = 'a'", &["share the folder a"]),
            ("[cross]\nrfm.gamma = 0.9", &["cross.rfm.gamma", "list"]),
            ("[cross]\nrfm.gamma = []", &["empty", "cross.rfm.gamma"]),
            ("[cross]\nrfm.gamma = [0.9, 0.9]", &["share the folder"]),
            ("set = 3", &["[set]"]),
            ("arguments = '--tensorboard'", &["list of words"]),
            ("total_timesteps = 0", &["above 0"]),
            ("envs = 'pendulum'\ntotal_timesteps = { cartpole = 3 }", &["cartpole", "not among envs"]),
            ("out = 3", &["out", "quotes"]),
            ("seeds = \n", &["line 1", "not TOML"]),
        ] {
            let sentence = refusal(text);
            for word in words {
                assert!(sentence.contains(word), "{text:?}: {sentence}");
            }
        }
        let hundred: Vec<String> = (0..101).map(|i| i.to_string()).collect();
        let list = hundred.join(",");
        let sentence = refusal(&format!("[cross]\na = [{list}]\nb = [{list}]\n"));
        assert!(sentence.contains("cross less"), "{sentence}");
    }
}
