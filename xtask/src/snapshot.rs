//! Compares a program's log with its snapshot, the `.out` file beside its source.
//!
//! One snapshot serves every target: what is the same bits everywhere is compared exactly. In lines that begin with a
//! word of `MEASURED` the numbers depend on compiler and target, and a snapshot has `_` in their place.

use anyhow::{Context, Result, bail};
use similar::TextDiff;
use std::fs;
use std::path::Path;

/// First words of the lines whose numbers are measurements.
const MEASURED: [&str; 3] = ["instructions", "stack", "counter"];

/// Fails with a difference unless `lines` are what the snapshot at `path` holds.
pub fn compare(path: &Path, lines: &[String]) -> Result<()> {
    let expected = fs::read_to_string(path)
        .with_context(|| format!("cannot read {}: `cargo xtask test --bless` writes it", path.display()))?;
    let found = masked(lines);
    if expected == found {
        return Ok(());
    }
    let difference = TextDiff::from_lines(&expected, &found).unified_diff().header("snapshot", "this run").to_string();
    bail!("{} is not what the program prints:\n{}", path.display(), difference.trim_end())
}

/// Writes the snapshot at `path`, whole or not at all.
pub fn bless(path: &Path, lines: &[String]) -> Result<()> {
    let beside = path.with_extension("out.new");
    fs::write(&beside, masked(lines)).with_context(|| format!("cannot write {}", beside.display()))?;
    fs::rename(&beside, path).with_context(|| format!("cannot write {}", path.display()))
}

fn masked(lines: &[String]) -> String {
    lines.iter().map(|line| mask(line) + "\n").collect()
}

/// The line with `_` for every number, when it is one of measurements.
fn mask(line: &str) -> String {
    let first = line.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
    if !MEASURED.contains(&first) {
        return line.to_string();
    }
    let mut masked = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let number = &rest[start..];
        let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
        // A full stop after a number ends the sentence.
        let digits = number[..end].trim_end_matches('.').len();
        masked.push_str(&rest[..start]);
        masked.push('_');
        rest = &number[digits..];
    }
    masked + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[&str]) -> Vec<String> {
        text.iter().map(|line| line.to_string()).collect()
    }

    #[test]
    fn only_measurements_are_masked() {
        assert_eq!(
            mask("instructions per decision: mean 61234, max 61240"),
            "instructions per decision: mean _, max _"
        );
        assert_eq!(mask("instructions per multiply-accumulate: 2.87."), "instructions per multiply-accumulate: _.");
        assert_eq!(mask("return: -123.5"), "return: -123.5");
        assert_eq!(mask("digest: 00ff12"), "digest: 00ff12");
    }

    #[test]
    fn a_changed_line_is_shown_and_blessing_mends_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program.out");
        let missing = compare(&path, &lines(&["a"])).unwrap_err().to_string();
        assert!(missing.contains("--bless"), "{missing}");
        bless(&path, &lines(&["digest: 1", "stack: 12 bytes"])).unwrap();
        compare(&path, &lines(&["digest: 1", "stack: 99 bytes"])).unwrap();
        let error = compare(&path, &lines(&["digest: 2", "stack: 12 bytes"])).unwrap_err().to_string();
        assert!(error.contains("-digest: 1") && error.contains("+digest: 2"), "{error}");
        compare(&path, &lines(&["digest: 1"])).unwrap_err();
    }
}
