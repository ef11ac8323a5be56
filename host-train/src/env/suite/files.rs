//! MuJoCo's library and the suite's model files: where they are, whether they are the pinned ones, models read once.
//!
//! [`model`] reads an MJCF file with a task's edits and keeps the result for the next environment of that task, since
//! compiling the dog's meshes takes a second. MuJoCo's messages go to [`heard`] and nowhere else: never to the terminal or
//! to a file in the working directory. No panics. The one `unsafe` statement installs that handler, before anything else
//! of MuJoCo is used.

use super::pinned::{LIBRARY, holds};
use crate::{Error, Result};
use mujoco_rs::prelude::{MjLogMessage, MjModel, MjSpec, MjtLogLevel, SpecObject, set_log_handler};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};

/// Names another folder with models than the one of the build.
const PLACE: &str = "FLOWLET_MUJOCO";

/// Reads a model file of a folder and edits it.
pub(super) type Read = fn(&Path) -> Result<MjModel>;

/// The models read so far, by folder and task.
static READ: Mutex<BTreeMap<(PathBuf, &'static str), MjModel>> = Mutex::new(BTreeMap::new());

/// The model of a task.
pub(super) fn model(task: &'static str, read: Read) -> Result<Box<MjModel>> {
    let place = std::env::var_os(PLACE).filter(|place| !place.is_empty());
    model_in(place.map_or_else(|| PathBuf::from(env!("FLOWLET_MUJOCO")), PathBuf::from), task, read)
}

/// The same, from the folder that `cargo xtask fetch-mujoco` made.
fn model_in(folder: PathBuf, task: &'static str, read: Read) -> Result<Box<MjModel>> {
    listen();
    checked(&folder, mujoco_rs::mujoco_version())?;
    let key = (folder, task);
    // Held while reading: MuJoCo reads one model at a time, and a second thread wants the same one.
    let Ok(mut known) = READ.lock() else {
        return Err(Error::failure("a thread died while it read a model: start again"));
    };
    if let Some(model) = known.get(&key) {
        return Ok(Box::new(model.clone()));
    }
    let model = read(&key.0.join("suite"))?;
    let copy = Box::new(model.clone());
    known.insert(key, model);
    Ok(copy)
}

/// Refuses another library, the one that is running included, or other models than the pinned ones.
fn checked(folder: &Path, library: &str) -> Result<()> {
    if library != LIBRARY {
        return Err(Error::usage(format!(
            "MuJoCo's library is version {library} and this program is made for {LIBRARY}: look whether LD_LIBRARY_PATH \
             names another one, or run `cargo xtask fetch-mujoco` and build again"
        )));
    }
    holds(folder).map_err(|sentence| Error::usage(format!("{sentence}, or name another folder in {PLACE}")))
}

/// An MJCF file as it was shipped.
pub(super) fn shipped(folder: &Path, file: &str) -> Result<MjModel> {
    edited(folder, file, |_| Ok(()))
}

/// An MJCF file, edited before it is compiled.
pub(super) fn edited(folder: &Path, file: &str, edit: impl FnOnce(&mut MjSpec) -> Result<()>) -> Result<MjModel> {
    let path = folder.join(file);
    let failed = |e: &dyn std::fmt::Display| {
        Error::usage(format!("cannot read the model {} ({e}): run `cargo xtask fetch-mujoco`", path.display()))
    };
    if !path.is_file() {
        return Err(failed(&"no such file"));
    }
    let mut spec = MjSpec::from_xml(&path).map_err(|e| failed(&e))?;
    edit(&mut spec)?;
    spec.compile().map_err(|e| failed(&e))
}

/// Takes a part out of a model: what belongs to other tasks.
pub(super) fn delete<T: SpecObject>(part: Option<&mut T>, name: &str) -> Result<()> {
    let missing =
        || Error::usage(format!("the model has no {name:?}: run `cargo xtask fetch-mujoco` for the right one"));
    // SAFETY: nothing is deleted twice: the caller has just found the part by its name, and its only handle ends here.
    unsafe { part.ok_or_else(missing)?.delete() }
        .map_err(|e| Error::failure(format!("MuJoCo cannot take {name:?} out of the model: {e}")))
}

/// Sends MuJoCo's messages to [`heard`].
fn listen() {
    static LISTENING: Once = Once::new();
    // SAFETY: no other thread may use MuJoCo meanwhile. All of this crate's uses begin with a model, models come from
    // `model_in`, which calls this first, and a second thread waits here until the first is done.
    LISTENING.call_once(|| unsafe { set_log_handler(heard) });
}

/// Warnings are read from the counters after each step; an error ends the program, and only here can it say why.
fn heard(message: &MjLogMessage) {
    if message.level() == MjtLogLevel::mjLOG_ERROR {
        eprintln!("error: MuJoCo stopped the program: {}", message.subject());
    }
}

#[cfg(test)]
mod tests {
    use super::super::pinned::library_file;
    use super::*;

    fn refusal(folder: &Path, library: &str) -> String {
        let Err(Error::Usage(sentence)) = checked(folder, library) else { panic!("accepted") };
        assert!(!sentence.contains('\n') && sentence.contains("cargo xtask fetch-mujoco"), "{sentence}");
        sentence
    }

    #[test]
    fn other_versions_and_missing_files_are_one_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        let stamp = |text: &str| std::fs::write(place.join("versions"), text).unwrap();
        let missing = refusal(place, LIBRARY);
        assert!(missing.contains(&*place.to_string_lossy()) && missing.contains(PLACE), "{missing}");
        stamp("mujoco 3.17.0\ndm-control 1.0.49\n");
        let other = refusal(place, LIBRARY);
        assert!(other.contains("models") && other.contains("1.0.49") && other.contains("1.0.50"), "{other}");
        stamp("mujoco 3.16.0\ndm-control 1.0.50\n");
        let other = refusal(place, LIBRARY);
        assert!(other.contains("library") && other.contains("3.16.0") && other.contains("3.17.0"), "{other}");
        let running = refusal(place, "3.16.1");
        assert!(running.contains("3.16.1") && running.contains("3.17.0"), "{running}");
        stamp("mujoco 3.17.0\ndm-control 1.0.50\n");
        assert!(refusal(place, LIBRARY).contains("not whole"));
        for part in ["lib", "suite"] {
            std::fs::create_dir(place.join(part)).unwrap();
        }
        std::fs::write(place.join("lib").join(library_file()), "").unwrap();
        checked(place, mujoco_rs::mujoco_version()).unwrap();
        // A model that is not there, and one that is none.
        let read =
            || model_in(place.to_path_buf(), "cheetah-run", |f| shipped(f, "cheetah.xml")).map(drop).unwrap_err();
        let sentence = read().to_string();
        assert!(sentence.contains("cheetah.xml") && sentence.contains("fetch-mujoco"), "{sentence}");
        std::fs::write(place.join("suite/cheetah.xml"), "<mujoco><worldbody>").unwrap();
        assert!(read().to_string().contains("cheetah.xml"));
    }
}
