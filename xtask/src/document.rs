//! Documents with blocks that are made by commands: what stands outside of a command's block is kept.

use anyhow::{Context, Result, bail};
use std::env;
use std::fs;
use std::path::Path;

const BEGIN: &str = "<!-- begin: made by ";
const END: &str = "<!-- end -->";

/// Puts `block` between the marks of the document at `path`; a document that is not there begins with `title`.
pub fn write(path: &Path, title: &str, command: &str, block: &str) -> Result<()> {
    let old = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => format!("# {title}\n\n{BEGIN}{command} -->\n{END}\n"),
        Err(e) => return Err(e).with_context(|| format!("cannot read {}", path.display())),
    };
    let new = replaced(&old, command, block).with_context(|| format!("cannot change {}", path.display()))?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    }
    let beside = path.with_extension("md.tmp");
    fs::write(&beside, new)
        .and_then(|()| fs::rename(&beside, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

fn replaced(old: &str, command: &str, block: &str) -> Result<String> {
    // Options may change; the command is the first three words, `cargo xtask NAME`.
    let name = |text: &str| text.split_whitespace().take(3).map(String::from).collect::<Vec<_>>();
    let begin = old.match_indices(BEGIN).map(|(at, _)| at).find(|at| name(&old[at + BEGIN.len()..]) == name(command));
    let Some(begin) = begin else {
        bail!("it has no block to replace: put the lines `{BEGIN}{command} -->` and `{END}` where the figures belong");
    };
    let Some(end) = old[begin..].find(END).map(|at| begin + at) else {
        bail!("`{END}` is missing after `{BEGIN}{command} -->`");
    };
    Ok(format!("{}{BEGIN}{command} -->\n{}\n{}", &old[..begin], block.trim_end(), &old[end..]))
}

/// The machine that figures are measured on: processor, cores, system.
pub fn machine() -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    });
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    format!("{}, {cores} cores, {}", processor.unwrap_or_else(|| env::consts::ARCH.into()), env::consts::OS)
}

/// Cells as a row of a Markdown table.
pub fn row<S: AsRef<str>>(cells: &[S]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.as_ref().replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// A number with decimals that fit its size.
pub fn number(x: f64) -> String {
    let decimals = match x.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{x:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_block_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docs/results.md");
        write(&path, "Results", "cargo xtask results", "one\n").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "# Results\n\n<!-- begin: made by cargo xtask results -->\none\n<!-- end -->\n");
        fs::write(&path, text.replace("# Results", "# Results\n\nBy hand.") + "\nAfter.\n").unwrap();
        write(&path, "Results", "cargo xtask results --seeds 3", "two\n\n").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let wanted = "# Results\n\nBy hand.\n\n<!-- begin: made by cargo xtask results --seeds 3 -->\ntwo\n<!-- end -->\n\nAfter.\n";
        assert_eq!(text, wanted);
        // Another command's block before it stays.
        let both = "<!-- begin: made by cargo xtask other -->\nx\n<!-- end -->\n".to_string() + &text;
        fs::write(&path, &both).unwrap();
        write(&path, "Results", "cargo xtask results", "three").unwrap();
        let wanted = both.replace("results --seeds 3", "results").replace("two", "three");
        assert_eq!(fs::read_to_string(&path).unwrap(), wanted);
        fs::write(&path, "no marks").unwrap();
        assert!(format!("{:#}", write(&path, "x", "y", "z").unwrap_err()).contains("no block to replace"));
    }

    #[test]
    fn cells_and_numbers() {
        assert_eq!(row(&["a|b", "c"]), "| a\\|b | c |\n");
        assert_eq!([-173.24, 12.34, 1.0, 0.01].map(number), ["-173", "12.3", "1.00", "0.010"]);
    }
}
