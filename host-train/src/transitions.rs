//! Logs of transitions: what a robot, or an evaluation, has met, as CSV that goes into the replay buffer.
//!
//! `docs/transitions.md` describes the format. One row is one decision: observation before, action and reward in the plant's
//! units, observation after, and whether nothing is to be bootstrapped. Columns are found by name, numbers come back to the bit.
//! A log of another version, robot or control period, with a column missing or a number that is none, is refused by one
//! sentence with file, line and column. No panics; a log lies in memory as a whole.

use crate::env::{Decision, EnvSpec};
use crate::run::write_atomic;
use crate::{Error, Result};
use std::path::Path;

/// The version of the format.
const VERSION: u32 = 1;

/// What the first line begins with, where there is one that tells of the log.
const TITLE: &str = "# flowlet-transitions";

/// One recorded transition, in the plant's units.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// Observation before.
    pub obs: Vec<f32>,
    /// Action in the plant's units.
    pub action: Vec<f64>,
    /// Unscaled reward.
    pub reward: f64,
    /// Observation after.
    pub next_obs: Vec<f32>,
    /// Nothing to bootstrap from.
    pub terminated: bool,
}

/// The names of the columns for an environment.
fn columns(spec: &EnvSpec) -> Vec<String> {
    let named = |prefix: &str, names: &[String]| names.iter().map(|n| format!("{prefix}.{n}")).collect::<Vec<_>>();
    let mut columns = named("obs", &spec.obs_names);
    columns.extend(named("act", &spec.act_names));
    columns.push("reward".to_string());
    columns.extend(named("next", &spec.obs_names));
    columns.push("terminated".to_string());
    columns
}

/// Microseconds between decisions.
fn period_us(env: &Decision) -> f64 {
    (env.period() * 1e6).round()
}

/// Refuses a log whose first line says that it is of another version, robot or control period.
fn check_title(shown: &str, line: &str, env: &Decision) -> Result<()> {
    let Some(fields) = line.strip_prefix(TITLE) else { return Ok(()) };
    let field = |key: &str| {
        fields.split_whitespace().find_map(|field| field.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')))
    };
    match field("version").map(str::parse) {
        Some(Ok(VERSION)) => {}
        Some(Ok(other)) => {
            return Err(Error::usage(format!(
                "{shown} is a log of version {other}, and this program reads version {VERSION}: record it anew, or take the \
                 program that wrote it"
            )));
        }
        _ => {
            return Err(Error::usage(format!(
                "{shown} line 1 has no version: write `{TITLE} version={VERSION}`, or leave the line out"
            )));
        }
    }
    let (name, period) = (&env.spec().name, period_us(env));
    if let Some(other) = field("env").filter(|other| other != name) {
        return Err(Error::usage(format!("{shown} is a log of {other}, and not of {name}: give one of {name}")));
    }
    match field("period_us").map(str::parse::<f64>) {
        Some(other) if other.as_ref() != Ok(&period) => Err(Error::usage(format!(
            "{shown} has a decision every {} us, and the training every {period}: record at that period, or train with the \
             log's by --set env.action_repeat",
            other.map_or("unknown number of".to_string(), |other| other.to_string())
        ))),
        _ => Ok(()),
    }
}

/// Reads a log for an environment.
pub fn read(path: &Path, env: &Decision) -> Result<Vec<Recorded>> {
    let (shown, spec) = (path.display().to_string(), env.spec());
    let hint = "give a log as `eval --record` and `hil --record` write them";
    let unreadable =
        |e: &dyn std::fmt::Display| Error::usage(format!("cannot read the transitions {shown} ({e}): {hint}"));
    let text = std::fs::read_to_string(path).map_err(|e| unreadable(&e))?;
    check_title(&shown, text.lines().next().unwrap_or_default(), env)?;
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|e| unreadable(&e))?.clone();
    let columns = columns(spec);
    let places = columns.iter().map(|column| {
        header.iter().position(|name| name == column).ok_or_else(|| {
            Error::usage(format!(
                "{shown} has no column {column}: transitions of {} need the columns {}",
                spec.name,
                columns.join(",")
            ))
        })
    });
    let places = places.collect::<Result<Vec<usize>>>()?;
    let (obs, act) = (spec.obs(), spec.act());
    let mut rows = Vec::new();
    for (i, record) in reader.records().enumerate() {
        let record = record.map_err(|e| unreadable(&e))?;
        let mut numbers = Vec::with_capacity(places.len());
        for (&place, column) in places.iter().zip(&columns) {
            let text = record.get(place).unwrap_or_default();
            let number = text.parse().unwrap_or(f64::NAN);
            let flag = column == "terminated";
            let good = if flag { number == 0.0 || number == 1.0 } else { (number as f32).is_finite() };
            if !good {
                let line = record.position().map_or(i as u64 + 2, csv::Position::line);
                let wanted = if flag { "neither 0 nor 1" } else { "not a finite number" };
                return Err(Error::usage(format!(
                    "{shown} line {line}: {column} is {text:?} and {wanted}: mend or remove the line"
                )));
            }
            numbers.push(number);
        }
        let narrow = |v: &[f64]| v.iter().map(|&x| x as f32).collect();
        rows.push(Recorded {
            obs: narrow(&numbers[..obs]),
            action: numbers[obs..obs + act].to_vec(),
            reward: numbers[obs + act],
            next_obs: narrow(&numbers[obs + act + 1..2 * obs + act + 1]),
            terminated: numbers[2 * obs + act + 1] != 0.0,
        });
    }
    if rows.is_empty() {
        return Err(Error::usage(format!("{shown} holds no transition: give a log with at least one row")));
    }
    Ok(rows)
}

/// Writes a log.
pub fn write(path: &Path, env: &Decision, rows: &[Recorded]) -> Result<()> {
    let (spec, period) = (env.spec(), period_us(env));
    let mut text = format!("{TITLE} version={VERSION} env={} period_us={period}\n", spec.name);
    text += &columns(spec).join(",");
    text.push('\n');
    for row in rows {
        let numbers = row.obs.iter().map(f32::to_string);
        let numbers = numbers.chain(row.action.iter().map(f64::to_string)).chain([row.reward.to_string()]);
        let numbers = numbers.chain(row.next_obs.iter().map(f32::to_string));
        let numbers: Vec<String> = numbers.chain([u8::from(row.terminated).to_string()]).collect();
        text.push_str(&numbers.join(","));
        text.push('\n');
    }
    write_atomic(path, text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env;
    use std::collections::BTreeMap;

    fn env() -> Decision {
        Decision::new(env::make("pendulum", &BTreeMap::new()).unwrap(), 1)
    }

    fn row(i: u8) -> Recorded {
        let x = f32::from(i) / 7.0;
        Recorded {
            obs: vec![x, -x, 1e-9],
            action: vec![f64::from(x) * 0.1],
            reward: -1.0 / 3.0,
            next_obs: vec![0.5, x, 8.0],
            terminated: i == 1,
        }
    }

    #[test]
    fn logs_come_back_to_the_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.csv");
        let rows: Vec<Recorded> = (0..5).map(row).collect();
        write(&path, &env(), &rows).unwrap();
        assert_eq!(read(&path, &env()).unwrap(), rows);
    }

    #[test]
    fn columns_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.csv");
        write(&path, &env(), &[row(1)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').rev().collect()).collect();
        std::fs::write(&path, format!("time,{}\n7.5,{}\n", lines[0].join(","), lines[1].join(","))).unwrap();
        assert_eq!(read(&path, &env()).unwrap(), [row(1)]);
    }

    /// What is refused, and words of the sentence.
    #[test]
    fn damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.csv");
        write(&path, &env(), &[row(0), row(1)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let refusal = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = read(&path, &env()).unwrap_err();
            assert!(error.exit_code() == 2 && error.to_string().contains("log.csv"), "{error}");
            error.to_string()
        };
        let last = text.lines().nth(3).unwrap();
        let damaged = |from: &str, to: &str| text.replace(last, &last.replacen(from, to, 1));
        let (title, rows) = text.split_once('\n').unwrap();
        for (bytes, words) in [
            (damaged("-0.333", "NaN"), "line 4: reward"),
            (damaged("-0.333", "1e39"), "line 4: reward"),
            (damaged("-0.333", "inf"), "line 4: reward"),
            (damaged("0.5,", "0.5x,"), "line 4: next.cos"),
            (damaged(",8,1", ",8,0.5"), "terminated is \"0.5\" and neither 0 nor 1"),
            (damaged(",8,1", ",8,"), "terminated"),
            (damaged(",8,1", ",8"), "cannot read"),
            (text.replace("reward", "gain"), "no column reward"),
            (text.replace("obs.", "observation."), "no column obs."),
            (format!("{text}1,2\n"), "cannot read"),
            (text.lines().take(2).collect::<Vec<_>>().join("\n"), "no transition"),
            (title.to_string(), "no column obs."),
            (String::new(), "no column obs."),
            (text.replace("version=1", "version=2"), "version 2, and this program reads version 1"),
            (text.replace("version=1", "version=one"), "no version"),
            (format!("{TITLE}\n{rows}"), "no version"),
            (text.replace("env=pendulum", "env=furuta"), "of furuta, and not of pendulum"),
            (text.replace("period_us=50000", "period_us=10000"), "every 10000 us, and the training every 50000"),
        ] {
            let said = refusal(bytes.as_bytes());
            assert!(said.contains(words), "{words:?} is not in {said}");
        }
        // A byte that is no UTF-8, and another kind of file.
        assert!(refusal(&[text.as_bytes(), &[0xff]].concat()).contains("cannot read"));
        let policy = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware/policies/pendulum.flw");
        assert!(refusal(&std::fs::read(policy).unwrap()).contains("cannot read"));
        assert!(read(&dir.path().join("none"), &env()).is_err());
        // A log that somebody else wrote, without the first line.
        std::fs::write(&path, rows).unwrap();
        assert_eq!(read(&path, &env()).unwrap(), [row(0), row(1)]);
    }
}
