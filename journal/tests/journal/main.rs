//! The journal from outside, on a simulated flash that loses its power, fails and forgets.

mod damage;
mod document;
mod power;
mod wear;
mod wrong;

use flowlet::control::{Supervisor, Tolerance};
use flowlet_journal::simulated::{SimulatedError, SimulatedFlash};
use flowlet_journal::{Blocking, Error, Journal, Loaded, Progress};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

const ARTEFACT: u32 = 0xfeed_f00d;

type Sim<const SECTORS: usize, const SECTOR: usize, const WORD: usize, const READ: usize> =
    SimulatedFlash<SECTORS, SECTOR, WORD, READ>;

type On<F, const PAGE: usize> = Journal<Blocking<F>, PAGE>;

type Result<T> = std::result::Result<T, Error<SimulatedError>>;

/// The state of this number: random bytes with runs of zeros and ones between them, which look like flash.
fn state(number: u32, length: usize) -> Vec<u8> {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(u64::from(number));
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let run = 1 + rng.next_u32() as usize % 24;
        match rng.next_u32() % 4 {
            0 => bytes.extend(std::iter::repeat_n(0xff, run)),
            1 => bytes.extend(std::iter::repeat_n(0, run)),
            _ => bytes.extend((0..run).map(|_| rng.next_u32() as u8)),
        }
    }
    bytes.truncate(length);
    bytes
}

/// Commits to the end; the number of steps.
fn commit<F, const PAGE: usize>(journal: &mut On<F, PAGE>, state: &[u8]) -> Result<u32>
where
    F: embedded_storage::nor_flash::NorFlash<Error = SimulatedError>,
{
    let supervisor = Supervisor::new(Tolerance::default()).unwrap();
    let parts = [state];
    let mut commit = journal.commit(&parts, ARTEFACT)?;
    for steps in 1.. {
        if commit.step(supervisor.at_rest().unwrap())? == Progress::Done {
            return Ok(steps);
        }
        assert!(steps < 100_000, "the commit does not end");
    }
    unreachable!()
}

/// The last complete state.
fn load<F, const PAGE: usize>(journal: &mut On<F, PAGE>, room: usize) -> Result<Option<(Loaded, Vec<u8>)>>
where
    F: embedded_storage::nor_flash::NorFlash<Error = SimulatedError>,
{
    let mut buffer = vec![0xa5; room];
    let loaded = journal.load(&mut [&mut buffer], ARTEFACT)?;
    Ok(loaded.map(|loaded| {
        buffer.truncate(loaded.length);
        (loaded, buffer)
    }))
}

/// Numbers drawn by a seed.
fn draws(seed: u64) -> impl FnMut() -> usize {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(seed);
    move || rng.next_u32() as usize
}

/// Puts an item into a sector as another version of the journal might have.
fn append<const SECTORS: usize, const SECTOR: usize, const WORD: usize, const READ: usize>(
    flash: &mut Sim<SECTORS, SECTOR, WORD, READ>,
    sector: std::ops::Range<u32>,
    item: &[u8],
) {
    use sequential_storage::{cache::Cache, queue};
    use std::task::{Context, Poll, Waker};
    let config = queue::QueueConfig::try_new(sector).unwrap();
    let mut queue = queue::QueueStorage::new(Blocking(flash), config, Cache::new_uncached());
    let pushed = std::pin::pin!(queue.push(item, false)).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(pushed, Poll::Ready(Ok(())));
}
