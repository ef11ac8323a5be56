//! MuJoCo's library and the suite's model files: where they are, whether they are the pinned ones, models read once.
//!
//! [`model`] reads an MJCF file with a task's edits and keeps the result for the next environment of that task, since
//! compiling the dog's meshes takes a second. MuJoCo's messages go to [`heard`] and nowhere else: never to the terminal or
//! to a file in the working directory. No panics. The one `unsafe` statement installs that handler, before anything else
//! of MuJoCo is used.

use crate::{Error, Result};
use mujoco_rs::prelude::{MjLogMessage, MjModel, MjSpec, MjtLogLevel, SpecObject, set_log_handler};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};

/// The version of the library that the bindings are made for.
const LIBRARY: &str = "3.17.0";
/// The version of the models whose facts the tasks are written from.
const MODELS: &str = "1.0.50";
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

/// Refuses another library or other models than the pinned ones.
fn checked(folder: &Path, library: &str) -> Result<()> {
    if library != LIBRARY {
        return Err(Error::usage(format!(
            "MuJoCo's library is version {library} and this program is made for {LIBRARY}: run `cargo xtask \
             fetch-mujoco` and build again"
        )));
    }
    let stamp = std::fs::read_to_string(folder.join("versions")).unwrap_or_default();
    match stamp.lines().find_map(|line| line.strip_prefix("dm-control ")) {
        Some(MODELS) => Ok(()),
        Some(other) => Err(Error::usage(format!(
            "the models in {} are those of dm-control {other} and the tasks are written for {MODELS}: run `cargo xtask \
             fetch-mujoco`",
            folder.display()
        ))),
        None => Err(Error::usage(format!(
            "the Control Suite's models are not in {}: run `cargo xtask fetch-mujoco`, or name their folder in {PLACE}",
            folder.display()
        ))),
    }
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
    use super::*;

    fn refusal(folder: &Path, library: &str) -> String {
        let Err(Error::Usage(sentence)) = checked(folder, library) else { panic!("accepted") };
        assert!(!sentence.contains('\n') && sentence.contains("cargo xtask fetch-mujoco"), "{sentence}");
        sentence
    }

    #[test]
    fn other_versions_and_missing_models_are_one_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let missing = refusal(folder.path(), LIBRARY);
        assert!(missing.contains(&*folder.path().to_string_lossy()), "{missing}");
        std::fs::write(folder.path().join("versions"), "mujoco 3.17.0\ndm-control 1.0.49\n").unwrap();
        let other = refusal(folder.path(), LIBRARY);
        assert!(other.contains("1.0.49") && other.contains("1.0.50"), "{other}");
        let library = refusal(folder.path(), "3.16.1");
        assert!(library.contains("3.16.1") && library.contains("3.17.0"), "{library}");
        std::fs::write(folder.path().join("versions"), "mujoco 3.17.0\ndm-control 1.0.50\n").unwrap();
        checked(folder.path(), mujoco_rs::mujoco_version()).unwrap();
        // Of the right version and not there.
        let Err(Error::Usage(sentence)) =
            model_in(folder.path().to_path_buf(), "cheetah-run", |f| shipped(f, "cheetah.xml"))
        else {
            panic!("read from nowhere")
        };
        assert!(sentence.contains("cheetah.xml") && sentence.contains("fetch-mujoco"), "{sentence}");
        // There and no model.
        std::fs::create_dir(folder.path().join("suite")).unwrap();
        std::fs::write(folder.path().join("suite/cheetah.xml"), "<mujoco><worldbody>").unwrap();
        assert!(model_in(folder.path().to_path_buf(), "cheetah-run", |f| shipped(f, "cheetah.xml")).is_err());
    }
}
