//! Python environments: other programs' readers and baselines, against which ours are checked.
//!
//! [`venv`] makes `target/python/<name>` by `python3 -m venv` and pip. A stamp is written last: an interrupted
//! installation is repeated, and an environment is made anew when its requirements, the interpreter or its place
//! changed. Two commands at once wait for each other. Python itself is installed by `apt-get` where this user may; what
//! cannot be done is one sentence with the command to type. Progress goes to standard error.

use crate::{cargo, tools};
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The packages of the tests in `host-train/tests/peers_*.rs`.
const TEST_REQUIREMENTS: &str = "host-train/tests/requirements.txt";

/// Debian's packages: the interpreter, and the two modules that Debian splits off.
const PACKAGES: [&str; 2] = ["python3", "python3-venv"];

/// Modules that making an environment takes.
const PROBE: [&str; 2] = ["-c", "import venv, ensurepip, sys; print(sys.version, sys.executable)"];

/// The environment of the Python peers; see [`venv`].
pub fn test_venv(root: &Path) -> Result<PathBuf> {
    venv(root, "test", &root.join(TEST_REQUIREMENTS))
}

/// An environment with pip and nothing else.
pub fn bare_venv(root: &Path) -> Result<PathBuf> {
    let folder = cargo::target_directory(root).join("python");
    let list = folder.join("bare.txt");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::write(&list, "").with_context(|| format!("cannot write {}", list.display()))?;
    venv(root, "bare", &list)
}

/// The interpreter of the environment `name`, which holds what `requirements` lists.
///
/// Made or made anew where it has to be; a second call with the same requirements only reads two small files.
pub fn venv(root: &Path, name: &str, requirements: &Path) -> Result<PathBuf> {
    let wanted = fs::read_to_string(requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    let python = ensure_python(root)?;
    let folder = cargo::target_directory(root).join("python").join(name);
    let interpreter = folder.join("bin/python");
    let stamp = folder.join("flowlet.stamp");
    let stamped = format!("{python}\n{}\n{wanted}", folder.display());
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let lock = folder.with_extension("lock");
    let locked = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let _locked = locked.with_context(|| format!("cannot lock {}", lock.display()))?;
    if interpreter.exists() && fs::read_to_string(&stamp).is_ok_and(|found| found == stamped) {
        return Ok(interpreter);
    }
    eprintln!("installing: the packages of {} into {}", requirements.display(), folder.display());
    // `--clear` empties the folder, an old stamp first of all.
    let mut make = cargo::command("python3", root);
    make.args(["-m", "venv", "--clear"]).arg(&folder);
    finish(&mut make, "python3 cannot make an environment: remove that folder and try again")?;
    let mut pip = cargo::command(&interpreter, root);
    pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet", "--requirement"])
        .arg(requirements);
    let listed = requirements.strip_prefix(root).unwrap_or(requirements).display();
    finish(
        &mut pip,
        &format!(
            "the Python packages of {listed} cannot be installed: check the network, or, without one, point pip at a \
             folder of wheels (PIP_FIND_LINKS), and try again"
        ),
    )?;
    fs::write(&stamp, stamped).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(interpreter)
}

/// Makes sure of an interpreter that can make environments; tells its version and place.
fn ensure_python(root: &Path) -> Result<String> {
    if let Some(python) = probe(root) {
        return Ok(python);
    }
    tools::apt_install("python3 with its venv module", &PACKAGES, "`dnf install python3`, `brew install python`")?;
    match probe(root) {
        Some(python) => Ok(python),
        None => bail!(
            "the python3 that is found first on the PATH cannot make environments: type `python3 -m ensurepip`, or put \
             another one first"
        ),
    }
}

fn probe(root: &Path) -> Option<String> {
    let output = cargo::command("python3", root).args(PROBE).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// Runs a command to its end; its last words and `advice` where it fails.
pub fn finish(command: &mut Command, advice: &str) -> Result<()> {
    // Both have their say: venv complains on one of them, pip on the other.
    let output = command.output().with_context(|| advice.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).join("\n");
    let last: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    bail!("{advice}\n{}", last[last.len().saturating_sub(5)..].join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_advice_and_its_last_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let error = finish(&mut command, "do that").unwrap_err().to_string();
        assert_eq!(error, "do that\none\ntwo");
        assert_eq!(finish(&mut Command::new("/nowhere"), "do that").unwrap_err().to_string(), "do that");
        finish(&mut Command::new("true"), "do that").unwrap();
    }

    #[test]
    fn every_test_requirement_is_pinned() {
        let text = fs::read_to_string(crate::root().join(TEST_REQUIREMENTS)).unwrap();
        let packages: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
        assert!(!packages.is_empty() && packages.iter().all(|line| line.contains("==")), "{packages:?}");
    }

    /// A list without packages needs no network, only Python, which the test command has installed by now.
    #[test]
    fn an_environment_is_made_once_for_each_list() {
        let root = tempfile::tempdir().unwrap();
        let list = root.path().join("requirements.txt");
        fs::write(&list, "# nothing\n").unwrap();
        let name = format!("trial-{}", std::process::id());
        let python = venv(root.path(), &name, &list).unwrap();
        let folder = python.ancestors().nth(2).unwrap().to_path_buf();
        let mark = folder.join("mark");
        fs::write(&mark, "").unwrap();
        assert_eq!(venv(root.path(), &name, &list).unwrap(), python);
        assert!(mark.exists(), "made twice for one list");
        // An interrupted installation has no stamp.
        fs::remove_file(folder.join("flowlet.stamp")).unwrap();
        venv(root.path(), &name, &list).unwrap();
        assert!(!mark.exists(), "kept without a stamp");
        fs::write(&mark, "").unwrap();
        fs::write(&list, "# nothing else\n").unwrap();
        venv(root.path(), &name, &list).unwrap();
        assert!(!mark.exists(), "kept for another list");
        let ran = Command::new(&python).args(["-c", "print(6 * 7)"]).output().unwrap();
        assert_eq!(ran.stdout, b"42\n");
        fs::remove_dir_all(&folder).unwrap();
        fs::remove_file(folder.with_extension("lock")).unwrap();
        assert!(venv(root.path(), &name, &root.path().join("none.txt")).is_err());
    }
}
