//! Logs of transitions: what a robot, or an evaluation, has met, as CSV that goes into the replay buffer.
//!
//! One row is one decision: `obs.<channel>`.. before, `act.<channel>`.. in the plant's units, the unscaled `reward`,
//! `next.<channel>`.. after, and `terminated` (1 where nothing is to be bootstrapped, else 0; a time limit is 0). Columns
//! are found by name, in any order; others are ignored. Numbers are finite. No panics; errors name file, line and column.

use crate::env::EnvSpec;
use crate::run::write_atomic;
use crate::{Error, Result};
use std::path::Path;

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

/// Reads a log for an environment.
pub fn read(path: &Path, spec: &EnvSpec) -> Result<Vec<Recorded>> {
    let shown = path.display();
    let unreadable = |e: csv::Error| {
        Error::usage(format!("cannot read the transitions {shown} ({e}): give a log as `eval --record` writes it"))
    };
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(unreadable)?;
    let header = reader.headers().map_err(unreadable)?.clone();
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
        let record = record.map_err(unreadable)?;
        let mut numbers = Vec::with_capacity(places.len());
        for (&place, column) in places.iter().zip(&columns) {
            let text = record.get(place).unwrap_or_default();
            match text.parse::<f64>() {
                Ok(number) if number.is_finite() && (number as f32).is_finite() => numbers.push(number),
                _ => {
                    let line = record.position().map_or(i as u64 + 2, csv::Position::line);
                    return Err(Error::usage(format!(
                        "{shown} line {line}: {column} is {text:?} and not a finite number: mend or remove the line"
                    )));
                }
            }
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
pub fn write(path: &Path, spec: &EnvSpec, rows: &[Recorded]) -> Result<()> {
    let mut text = columns(spec).join(",");
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

    fn spec() -> EnvSpec {
        env::make("pendulum", &BTreeMap::new()).unwrap().spec().clone()
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
        write(&path, &spec(), &rows).unwrap();
        assert_eq!(read(&path, &spec()).unwrap(), rows);
    }

    #[test]
    fn columns_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.csv");
        write(&path, &spec(), &[row(1)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').rev().collect()).collect();
        std::fs::write(&path, format!("time,{}\n7.5,{}\n", lines[0].join(","), lines[1].join(","))).unwrap();
        assert_eq!(read(&path, &spec()).unwrap(), [row(1)]);
    }

    #[test]
    fn damage_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.csv");
        write(&path, &spec(), &[row(0), row(1)]).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let refusal = |text: &str| {
            std::fs::write(&path, text).unwrap();
            read(&path, &spec()).unwrap_err().to_string()
        };
        let second = text.lines().nth(2).unwrap();
        assert!(refusal(&text.replace(second, &second.replacen("-0.333", "NaN", 1))).contains("line 3: reward"));
        assert!(refusal(&text.replace("reward", "gain")).contains("no column reward"));
        assert!(refusal(&format!("{text}1,2\n")).contains("cannot read"));
        assert!(refusal(text.lines().next().unwrap()).contains("no transition"));
        assert!(read(&dir.path().join("none"), &spec()).is_err());
    }
}
