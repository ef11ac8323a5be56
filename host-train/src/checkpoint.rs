//! Checkpoints of a run: everything it takes to go on exactly, in one safetensors file.
//!
//! A file holds the arrays that [`Trainer::visit`] shows, under their names, and beside them what the session keeps of
//! its own, the configuration, and a CRC-64 over all of it: a file that was cut short or has a wrong bit is found out.
//! `checkpoints/<control steps>.safetensors` is written beside its place, brought to the disk and renamed; only then may
//! older ones be deleted ([`prune`]), so there is a good one at every moment. [`newest`] takes the newest good one and
//! tells of the damaged ones it passed over. No panics. Cost: memory and disk for one copy of the state, replay included.

use crate::config::ALGORITHMS;
use crate::run::{sync_folder, write_atomic};
use crate::state::{Array, Digest, Load, Save};
use crate::train::Trainer;
use crate::{Error, Result};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;

const FORMAT: &str = "flowlet-checkpoint";
const EXTENSION: &str = "safetensors";
const CHECKSUM: &str = "checksum";

/// The state of a run, read from a file and found whole.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Where it was read.
    pub path: PathBuf,
    /// The algorithm.
    pub algo: String,
    /// Control steps taken.
    pub timesteps: u64,
    /// Updates made.
    pub updates: u64,
    /// [`Trainer::digest`] of the state.
    pub digest: u64,
    /// The text of the run's `config.toml`.
    pub config: String,
    /// What the session keeps of its own.
    pub session: String,
    arrays: BTreeMap<String, Array>,
}

/// What lies in a folder of checkpoints.
#[derive(Debug)]
pub struct Found {
    /// The newest good one; none where there is no file at all.
    pub newest: Option<Checkpoint>,
    /// The file before it, unread.
    pub older: Option<PathBuf>,
    /// Why newer ones were passed over, a sentence each.
    pub damaged: Vec<String>,
}

/// Saves a trainer with what its session keeps, into `folder`. The file whose path returns is on the disk.
pub fn save(folder: &Path, trainer: &mut Trainer, session: &str) -> Result<PathBuf> {
    let mut state = Save::default();
    trainer.visit(&mut state);
    let (steps, updates) = (trainer.progress().steps, trainer.progress().updates);
    let mut metadata: HashMap<String, String> = [
        ("format", FORMAT.to_string()),
        ("version", VERSION.to_string()),
        ("algo", trainer.config().algo().to_string()),
        ("timesteps", steps.to_string()),
        ("updates", updates.to_string()),
        ("digest", hex(trainer.digest())),
        ("config", trainer.config().to_toml()),
        ("session", session.to_string()),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_string(), value))
    .collect();
    metadata.insert(CHECKSUM.to_string(), hex(checksum(&metadata, &mut state.arrays)));
    let path = folder.join(format!("{steps:012}.{EXTENSION}"));
    if !folder.is_dir() {
        // The folder of the run may be new as well.
        let run = folder.parent().unwrap_or(folder);
        fs::create_dir_all(folder).and_then(|()| sync_folder(folder)).and_then(|()| sync_folder(run)).map_err(|e| {
            Error::failure(format!("cannot make the folder {} ({e}): check its permissions", folder.display()))
        })?;
    }
    write_atomic(&path, &encode(&state.arrays, metadata)?)?;
    Ok(path)
}

/// Removes the checkpoints of a folder that are not among those to `keep`.
pub fn prune<'a>(folder: &Path, keep: impl Iterator<Item = &'a Path> + Clone) -> Result<()> {
    for path in list(folder)? {
        if !keep.clone().any(|kept| kept == path) {
            // One file too many does no harm, and the run is saved.
            let _ = fs::remove_file(path);
        }
    }
    Ok(())
}

/// The newest good checkpoint in `folder`. Fails where there are files and none is good, or where the newest is whole and
/// not for this program.
pub fn newest(folder: &Path) -> Result<Found> {
    let mut damaged = Vec::new();
    let mut files = list(folder)?.into_iter();
    while let Some(path) = files.next() {
        match Checkpoint::read(&path) {
            Ok(checkpoint) => return Ok(Found { newest: Some(checkpoint), older: files.next(), damaged }),
            Err(Unreadable::Damaged(why)) => damaged.push(format!("{} is damaged ({why})", path.display())),
            Err(Unreadable::Foreign(error)) => return Err(error),
        }
    }
    if let Some(first) = damaged.first() {
        return Err(Error::failure(format!(
            "no checkpoint in {} is good, of {} files; {first}: train anew with `train --config` and the run's config.toml",
            folder.display(),
            damaged.len()
        )));
    }
    Ok(Found { newest: None, older: None, damaged })
}

/// Why a file gave no checkpoint.
enum Unreadable {
    /// Its content is not what was written.
    Damaged(String),
    /// It is whole, and of another version or algorithm.
    Foreign(Error),
}

impl Checkpoint {
    fn read(path: &Path) -> std::result::Result<Self, Unreadable> {
        let damaged = |why: &str| Unreadable::Damaged(why.to_string());
        let bytes = fs::read(path).map_err(|e| damaged(&e.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| damaged(&e.to_string()))?;
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| damaged(&e.to_string()))?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let entry = |key: &str| metadata.get(key).cloned().ok_or_else(|| damaged(&format!("it has no {key}")));
        let number = |key: &str| entry(key)?.parse().map_err(|_| damaged(&format!("{key} is no number")));
        if entry("format")? != FORMAT {
            return Err(damaged("it is no checkpoint of flowlet"));
        }
        let mut arrays = BTreeMap::new();
        for (name, view) in tensors.iter() {
            let array = decode(view.dtype(), view.data())
                .ok_or_else(|| damaged(&format!("{name} has numbers of an unknown kind")))?;
            arrays.insert(name.to_string(), array);
        }
        // Before anything it says is believed: a wrong bit may stand anywhere. All versions sum alike.
        if entry(CHECKSUM)? != hex(checksum(&metadata, &mut arrays)) {
            return Err(damaged("its checksum is another"));
        }
        let version = entry("version")?;
        if version != VERSION.to_string() {
            return Err(Unreadable::Foreign(Error::failure(format!(
                "{} is a checkpoint of version {version} and this program reads version {VERSION}: resume it with the \
                 program that wrote it, or train anew",
                path.display()
            ))));
        }
        let algo = entry("algo")?;
        if !ALGORITHMS.contains(&algo.as_str()) {
            return Err(Unreadable::Foreign(Error::failure(format!(
                "{} is a checkpoint of the algorithm {algo}, and this program has {}: resume it with the program that \
                 wrote it",
                path.display(),
                ALGORITHMS.join(", ")
            ))));
        }
        Ok(Self {
            path: path.to_path_buf(),
            algo,
            timesteps: number("timesteps")?,
            updates: number("updates")?,
            digest: u64::from_str_radix(&entry("digest")?, 16).map_err(|_| damaged("digest is no number"))?,
            config: entry("config")?,
            session: entry("session")?,
            arrays,
        })
    }

    /// Puts the state into a trainer of the same configuration and brings its environments along.
    ///
    /// Returns whether the environments came back to where they were; one with randomness of its own does not.
    pub fn restore(&mut self, trainer: &mut Trainer) -> Result<bool> {
        let mut load = Load::new(std::mem::take(&mut self.arrays));
        trainer.visit(&mut load);
        load.finish()?;
        if trainer.digest() != self.digest {
            return Err(Error::failure(format!(
                "{} does not come back as it was saved, for another version made it: train anew",
                self.path.display()
            )));
        }
        trainer.restore()
    }
}

/// A digest as it is shown.
pub fn hex(digest: u64) -> String {
    format!("{digest:016x}")
}

/// The files of a folder, newest first; none where there is no folder.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e: std::io::Error| {
        Error::failure(format!("cannot read the folder {} ({e}): check its permissions", folder.display()))
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let stem = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<u64>().ok());
        if let Some(steps) = stem.filter(|_| path.extension().is_some_and(|e| e == EXTENSION)) {
            files.push((steps, path));
        }
    }
    files.sort();
    Ok(files.into_iter().rev().map(|(_, path)| path).collect())
}

/// CRC-64 over the metadata, its own entry apart, and the arrays.
fn checksum(metadata: &HashMap<String, String>, arrays: &mut BTreeMap<String, Array>) -> u64 {
    Digest::of(|visitor| {
        for (name, array) in arrays {
            match array {
                Array::F32(values) => visitor.f32s(name, values),
                Array::F64(values) => visitor.f64s(name, values),
                Array::U64(values) => visitor.u64s(name, values),
            }
        }
        let mut keys: Vec<_> = metadata.iter().filter(|(key, _)| *key != CHECKSUM).collect();
        keys.sort();
        for (key, value) in keys {
            let mut bytes: Vec<u64> = value.bytes().map(u64::from).collect();
            visitor.u64s(key, &mut bytes);
        }
    })
}

fn encode(arrays: &BTreeMap<String, Array>, metadata: HashMap<String, String>) -> Result<Vec<u8>> {
    let failed = |e: safetensors::SafeTensorError| Error::failure(format!("cannot encode a checkpoint: {e}"));
    let bytes: Vec<_> = arrays.iter().map(|(name, array)| (name, bytes_of(array))).collect();
    let views = bytes.iter().map(|(name, (dtype, len, data))| {
        TensorView::new(*dtype, vec![*len], data).map(|view| (name.as_str(), view)).map_err(failed)
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    safetensors::serialize(views, Some(metadata)).map_err(failed)
}

/// Kind, count and little-endian bytes.
fn bytes_of(array: &Array) -> (Dtype, usize, Vec<u8>) {
    fn flat<T: Copy, const N: usize>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
        let mut flat = Vec::with_capacity(values.len() * N);
        values.iter().for_each(|&x| flat.extend_from_slice(&bytes(x)));
        flat
    }
    match array {
        Array::F32(values) => (Dtype::F32, values.len(), flat(values, f32::to_le_bytes)),
        Array::F64(values) => (Dtype::F64, values.len(), flat(values, f64::to_le_bytes)),
        Array::U64(values) => (Dtype::U64, values.len(), flat(values, u64::to_le_bytes)),
    }
}

fn decode(dtype: Dtype, data: &[u8]) -> Option<Array> {
    match dtype {
        Dtype::F32 => Some(Array::F32(data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())),
        Dtype::F64 => Some(Array::F64(data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect())),
        Dtype::U64 => Some(Array::U64(data.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};
    use crate::noise::Noise;

    fn config() -> Config {
        let small = ["rfm.actor_hidden=8", "rfm.critic_hidden=8", "rfm.batch_size=16", "rfm.actor_batch=16"];
        let short = ["rfm.learning_starts=32", "total_timesteps=96"];
        let set: Vec<String> = small.iter().chain(&short).map(ToString::to_string).collect();
        Config::resolve(&Sources { set: &set, ..Sources::default() }).unwrap()
    }

    /// A folder with one checkpoint, and the trainer that it is of.
    fn saved() -> (tempfile::TempDir, PathBuf, Trainer) {
        let folder = tempfile::tempdir().unwrap();
        let mut trainer = Trainer::new(&config()).unwrap();
        trainer.run(&mut ()).unwrap();
        let path = save(folder.path(), &mut trainer, "note = 1").unwrap();
        (folder, path, trainer)
    }

    #[test]
    fn a_trainer_comes_back_to_the_bit() {
        let (folder, path, mut trainer) = saved();
        let found = newest(folder.path()).unwrap();
        assert!(found.damaged.is_empty());
        let mut checkpoint = found.newest.unwrap();
        assert_eq!(checkpoint.path, path);
        assert_eq!((checkpoint.timesteps, checkpoint.updates, checkpoint.algo.as_str()), (96, 64, "rfm"));
        assert_eq!((checkpoint.session.as_str(), checkpoint.config.clone()), ("note = 1", config().to_toml()));
        let mut again = Trainer::new(&config()).unwrap();
        assert_ne!(again.digest(), trainer.digest());
        assert!(checkpoint.restore(&mut again).unwrap(), "an environment came back elsewhere");
        assert_eq!((again.digest(), again.progress()), (trainer.digest(), trainer.progress()));
        // Of another shape.
        let mut other = config();
        other.algorithm.train_mut().critic_hidden = 16;
        let mut checkpoint = newest(folder.path()).unwrap().newest.unwrap();
        let refused = checkpoint.restore(&mut Trainer::new(&other).unwrap()).unwrap_err();
        assert!(refused.to_string().contains("another size"), "{refused}");
    }

    #[test]
    fn a_wrong_bit_or_a_missing_byte_is_found_out() {
        let (folder, path, _) = saved();
        let good = fs::read(&path).unwrap();
        let mut noise = Noise::new(1, 0);
        let read = |bytes: &[u8], what: &str| {
            fs::write(&path, bytes).unwrap();
            let refused = newest(folder.path()).map(|found| found.newest.map(|c| c.timesteps));
            let sentence = refused.expect_err(what).to_string();
            assert!(sentence.contains("no checkpoint") && sentence.contains("damaged"), "{what}: {sentence}");
        };
        // The header is the most delicate part: half of the flips fall there.
        let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize + 8;
        for i in 0..400 {
            let at = noise.below(if i % 2 == 0 { header } else { good.len() });
            let mut flipped = good.clone();
            flipped[at] ^= 1 << noise.below(8);
            read(&flipped, &format!("a flip at {at}"));
        }
        for len in [0, 7, 8, 100, header, good.len() / 2, good.len() - 1] {
            read(&good[..len], &format!("{len} bytes"));
        }
        read(&[&good[..], b"x"].concat(), "a byte too many");
        fs::write(&path, &good).unwrap();
        assert!(newest(folder.path()).unwrap().newest.is_some());
    }

    #[test]
    fn another_version_or_algorithm_is_named() {
        let (folder, path, _) = saved();
        let bytes = fs::read(&path).unwrap();
        for (key, value, words) in [("version", "2", ["version 2", "version 1"]), ("algo", "ppo", ["ppo", "rfm"])] {
            let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
            let mut metadata = header.metadata().clone().unwrap();
            let tensors = SafeTensors::deserialize(&bytes).unwrap();
            let decoded = tensors.iter().map(|(n, t)| (n.to_string(), decode(t.dtype(), t.data()).unwrap()));
            let mut arrays: BTreeMap<_, _> = decoded.collect();
            metadata.insert(key.to_string(), value.to_string());
            metadata.insert(CHECKSUM.to_string(), hex(checksum(&metadata, &mut arrays)));
            fs::write(&path, encode(&arrays, metadata).unwrap()).unwrap();
            let refused = newest(folder.path()).unwrap_err().to_string();
            assert!(words.iter().all(|w| refused.contains(w)) && !refused.contains("damaged"), "{refused}");
        }
    }

    #[test]
    fn older_ones_go_only_when_they_are_not_kept() {
        let (folder, path, mut trainer) = saved();
        for old in ["000000000016", "000000000032"] {
            fs::copy(&path, folder.path().join(format!("{old}.safetensors"))).unwrap();
        }
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        save(folder.path(), &mut trainer, "").unwrap();
        assert_eq!(list(folder.path()).unwrap().len(), 3);
        let older = folder.path().join("000000000016.safetensors");
        prune(folder.path(), [path.as_path(), older.as_path()].into_iter()).unwrap();
        assert_eq!(list(folder.path()).unwrap(), [path, older]);
        assert!(folder.path().join("notes.txt").is_file());
        assert!(newest(&folder.path().join("none")).unwrap().newest.is_none());
    }
}
