//! Several seeds of one configuration, side by side.
//!
//! Each seed is a run of its own in `seed-<n>` beneath one folder; the runs share nothing, so which thread takes which seed
//! changes no bit of them. One failed seed does not stop the others. Ctrl-C stops all in good order.

use crate::config::Config;
use crate::run::RunDir;
use crate::session::{self, Outcome, Reporter, Session};
use crate::train::Progress;
use crate::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// What one seed came to.
#[derive(Debug)]
pub struct Member {
    /// The seed.
    pub seed: u64,
    /// Its folder.
    pub path: PathBuf,
    /// What it has to tell, or why it has nothing.
    pub outcome: Result<Outcome>,
}

/// Hears of all seeds at once; called from several threads, one at a time.
pub trait Audience: Send {
    /// Control steps taken so far, over all seeds.
    fn steps(&mut self, steps: u64);
    /// Something to be known of one seed.
    fn note(&mut self, seed: u64, text: &str);
    /// A seed is done.
    fn done(&mut self, member: &Member);
}

/// Applies `run` to every seed's folder on `jobs` threads; results in the order of the seeds.
pub fn side_by_side(
    seeds: &[(u64, PathBuf)],
    jobs: usize,
    interrupted: &Arc<AtomicBool>,
    audience: &mut dyn Audience,
    run: impl Fn(u64, &Path, &mut dyn Reporter) -> Result<Outcome> + Sync,
) -> Vec<Member> {
    let hall = Mutex::new(Hall { audience, steps: vec![0; seeds.len()] });
    let next = Mutex::new(0..seeds.len());
    let members: Mutex<Vec<Option<Member>>> = Mutex::new(seeds.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..jobs.min(seeds.len()) {
            scope.spawn(|| {
                while let Some(i) = next.lock().ok().and_then(|mut next| next.next()) {
                    let (seed, path) = &seeds[i];
                    let outcome = if interrupted.load(Ordering::SeqCst) {
                        Err(Error::Interrupted(format!("seed {seed} was not begun")))
                    } else {
                        run(*seed, path, &mut Voice { seed: *seed, index: i, hall: &hall })
                    };
                    let member = Member { seed: *seed, path: path.clone(), outcome };
                    if let (Ok(mut hall), Ok(mut members)) = (hall.lock(), members.lock()) {
                        hall.audience.done(&member);
                        members[i] = Some(member);
                    }
                }
            });
        }
    });
    // A thread that panicked has already ended the program through the scope: every slot is filled.
    members.into_inner().unwrap_or_default().into_iter().flatten().collect()
}

/// Trains `count` seeds from the configuration's own on, in `seed-<n>` beneath `parent`.
pub fn train(
    config: &Config,
    count: u64,
    jobs: usize,
    parent: &Path,
    interrupted: &Arc<AtomicBool>,
    audience: &mut dyn Audience,
) -> Vec<Member> {
    let seeds: Vec<_> =
        (0..count).map(|i| config.seed + i).map(|seed| (seed, parent.join(format!("seed-{seed}")))).collect();
    // All folders at once, so that `resume` knows of the seeds that were never begun.
    let made = |(seed, path): &(u64, PathBuf)| {
        let config = Config { seed: *seed, ..config.clone() };
        (*seed, RunDir::create(Some(path), &config).map(|_| ()))
    };
    let made: BTreeMap<u64, Result<()>> = seeds.iter().map(made).collect();
    side_by_side(&seeds, jobs, interrupted, audience, |seed, path, reporter| {
        made[&seed].clone()?;
        Session::resume(path, None, Arc::clone(interrupted), reporter)
    })
}

/// Refuses what [`resume`] could do with some seeds beneath `parent` and not with others. Reads every checkpoint.
pub fn check(parent: &Path, total: Option<u64>) -> Result<()> {
    seeds_in(parent).iter().try_for_each(|(_, path)| session::check_resume(path, total))
}

/// Goes on with every seed beneath `parent`, to `total` control steps each where that is given.
pub fn resume(
    parent: &Path,
    total: Option<u64>,
    jobs: usize,
    interrupted: &Arc<AtomicBool>,
    audience: &mut dyn Audience,
) -> Vec<Member> {
    side_by_side(&seeds_in(parent), jobs, interrupted, audience, |_, path, reporter| {
        Session::resume(path, total, Arc::clone(interrupted), reporter)
    })
}

/// The seeds with a folder `seed-<n>` beneath `parent`, in rising order; none where `parent` is a run itself.
pub fn seeds_in(parent: &Path) -> Vec<(u64, PathBuf)> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let seed = |path: PathBuf| {
        let seed = path.file_name()?.to_str()?.strip_prefix("seed-")?.parse().ok()?;
        path.is_dir().then_some((seed, path))
    };
    let mut seeds: Vec<_> = entries.filter_map(|entry| seed(entry.path())).collect();
    seeds.sort();
    seeds
}

struct Hall<'a> {
    audience: &'a mut dyn Audience,
    steps: Vec<u64>,
}

/// What one seed says, with its name to it.
struct Voice<'h, 'a> {
    seed: u64,
    index: usize,
    hall: &'h Mutex<Hall<'a>>,
}

impl Reporter for Voice<'_, '_> {
    fn block(&mut self, progress: &Progress, _: Option<f64>) {
        if let Ok(mut hall) = self.hall.lock() {
            hall.steps[self.index] = progress.steps;
            let total = hall.steps.iter().sum();
            hall.audience.steps(total);
        }
    }

    fn evaluated(&mut self, _: &Progress, _: &crate::evaluate::Evaluation) {}

    fn note(&mut self, text: &str) {
        if let Ok(mut hall) = self.hall.lock() {
            hall.audience.note(self.seed, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    #[derive(Default)]
    struct Ears {
        steps: u64,
        done: Vec<u64>,
    }

    impl Audience for Ears {
        fn steps(&mut self, steps: u64) {
            self.steps = self.steps.max(steps);
        }

        fn note(&mut self, _: u64, _: &str) {}

        fn done(&mut self, member: &Member) {
            self.done.push(member.seed);
        }
    }

    fn config() -> Config {
        let set = ["rfm.actor_hidden=8", "rfm.critic_hidden=8", "rfm.learning_starts=100", "eval.episodes=1"];
        let set: Vec<String> = set.iter().map(ToString::to_string).collect();
        let sources = Sources { seed: Some(5), total_timesteps: Some(320), set: &set, ..Sources::default() };
        Config::resolve(&sources).unwrap()
    }

    /// Policies of three seeds, on one thread and on three.
    #[test]
    fn threads_do_not_change_a_bit() {
        let root = tempfile::tempdir().unwrap();
        let interrupted = Arc::new(AtomicBool::new(false));
        let policies = |jobs: usize| {
            let (parent, mut ears) = (root.path().join(jobs.to_string()), Ears::default());
            let members = train(&config(), 3, jobs, &parent, &interrupted, &mut ears);
            assert_eq!((ears.steps, ears.done.len()), (960, 3));
            assert_eq!(members.iter().map(|m| m.seed).collect::<Vec<_>>(), [5, 6, 7]);
            assert!(members.iter().all(|m| m.outcome.is_ok()));
            members.iter().map(|m| std::fs::read(m.path.join("policy.flw")).unwrap()).collect::<Vec<_>>()
        };
        let alone = policies(1);
        assert_eq!(alone, policies(3));
        assert!(alone[0] != alone[1] && alone[1] != alone[2]);
    }

    /// Seeds made longer on two threads are the seeds that were never stopped, one of them not even begun.
    #[test]
    fn seeds_go_on_together() {
        let root = tempfile::tempdir().unwrap();
        let interrupted = Arc::new(AtomicBool::new(false));
        let (whole, parts) = (root.path().join("whole"), root.path().join("parts"));
        let longer = Config { total_timesteps: 480, ..config() };
        train(&longer, 2, 2, &whole, &interrupted, &mut Ears::default());
        train(&config(), 2, 1, &parts, &interrupted, &mut Ears::default());
        let path = parts.join("seed-6");
        std::fs::remove_dir_all(&path).unwrap();
        RunDir::create(Some(&path), &Config { seed: 6, ..config() }).unwrap();
        let members = resume(&parts, Some(480), 2, &interrupted, &mut Ears::default());
        assert!(members.iter().map(|m| m.seed).eq([5, 6]) && members.iter().all(|m| m.outcome.is_ok()));
        for seed in ["seed-5", "seed-6"] {
            let policy = |parent: &Path| std::fs::read(parent.join(seed).join("policy.flw")).unwrap();
            assert_eq!(policy(&parts), policy(&whole), "{seed}");
        }
    }

    /// A length that one seed has behind it is refused before another, not yet begun, is trained to it.
    #[test]
    fn a_length_that_does_not_fit_every_seed_is_refused_for_all() {
        let root = tempfile::tempdir().unwrap();
        let interrupted = Arc::new(AtomicBool::new(false));
        train(&config(), 1, 1, root.path(), &interrupted, &mut Ears::default());
        let begun = root.path().join("seed-6");
        RunDir::create(Some(&begun), &Config { seed: 6, ..config() }).unwrap();
        let refusal = check(root.path(), Some(200)).unwrap_err().to_string();
        assert!(refusal.contains("seed-5") && refusal.contains("behind it"), "{refusal}");
        for total in [None, Some(320), Some(500)] {
            check(root.path(), total).unwrap();
        }
    }

    #[test]
    fn a_failed_seed_does_not_stop_the_others() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("seed-6")).unwrap();
        std::fs::write(root.path().join("seed-6/thesis.tex"), "mine").unwrap();
        let interrupted = Arc::new(AtomicBool::new(false));
        let members = train(&config(), 3, 2, root.path(), &interrupted, &mut Ears::default());
        let failed: Vec<bool> = members.iter().map(|m| m.outcome.is_err()).collect();
        assert_eq!(failed, [false, true, false]);
    }
}
