//! Flash that forgets bits, fails writes, or does nothing at all.

use super::{ARTEFACT, On, Sim, commit, load, state};
use embedded_storage::nor_flash as blocking;
use embedded_storage_async::nor_flash;
use flowlet::control::{Supervisor, Tolerance};
use flowlet_journal::simulated::{Faults, SimulatedError};
use flowlet_journal::{Blocking, Error, Fault, Journal, Progress};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const LENGTH: usize = 400;

type Small = Sim<7, 512, 8, 1>;

fn journal(flash: Small) -> On<Small, 128> {
    On::new(Blocking(flash), 0..7 * 512, LENGTH).unwrap()
}

/// A flash with this many states, restarted after each other one.
fn written(last: u32) -> Small {
    let mut flash = Small::new(5);
    for number in (1..=last).step_by(2) {
        let mut journal = journal(flash);
        load(&mut journal, LENGTH).unwrap();
        for number in number..=last.min(number + 1) {
            commit(&mut journal, &state(number, LENGTH)).unwrap();
        }
        flash = journal.release().0;
    }
    flash
}

/// The number of the state that is loaded; panics for one that was never committed.
fn loaded(flash: Small, last: u32) -> Option<u32> {
    match load(&mut journal(flash), LENGTH) {
        Ok(Some((_, bytes))) => Some((1..=last).find(|n| bytes == state(*n, LENGTH)).expect("a state of its own")),
        Ok(None) | Err(Error::Read(_)) => None,
        other => panic!("{other:?}"),
    }
}

/// Every single bit of the range: the last state or the one before it, or none where there is no other; after that, commits
/// go on.
#[test]
fn one_flipped_bit() {
    for last in [1, 2, 9] {
        let flash = written(last);
        let mut older = 0;
        for byte in 0..flash.bytes().len() {
            for bit in 0..8 {
                let mut flash = flash.clone();
                flash.bytes_mut()[byte] ^= 1 << bit;
                let found = loaded(flash.clone(), last);
                if found != Some(last) {
                    assert_eq!(found.unwrap_or(0), last - 1, "byte {byte} bit {bit}");
                    older += 1;
                }
                if bit == byte % 8 {
                    let mut journal = journal(flash);
                    drop(load(&mut journal, LENGTH));
                    commit(&mut journal, &state(77, LENGTH)).unwrap();
                    assert_eq!(load(&mut journal, LENGTH).unwrap().unwrap().1, state(77, LENGTH));
                }
            }
        }
        // What flips in the last state is noticed: all of its bits, and most of what is around them.
        assert!(older > 8 * LENGTH && older < 8 * (LENGTH + 200), "{older}");
    }
}

/// Many flipped bits, up to a sixteenth of them all: a state that was committed, or none.
#[test]
fn many_flipped_bits() {
    let flash = written(6);
    let mut none = 0;
    for seed in 0..3_000 {
        let mut flash = flash.clone();
        let size = flash.bytes().len();
        let mut draw = super::draws(seed);
        for _ in 0..1 << (draw() % 12) {
            let (byte, bit) = (draw() % size, draw() % 8);
            flash.bytes_mut()[byte] ^= 1 << bit;
        }
        none += u32::from(loaded(flash, 6).is_none());
    }
    assert!((300..2_700).contains(&none), "{none}");
}

/// Any content whatsoever: nothing is loaded, and after a commit the state is.
#[test]
fn garbage() {
    for seed in 0..300 {
        let mut draw = super::draws(seed);
        let mut flash = Small::new(seed);
        let mask = [0xff, 0x11, 0xf0, 0][seed as usize % 4];
        flash.bytes_mut().fill_with(|| draw() as u8 | mask as u8);
        let mut journal = journal(flash);
        assert_eq!(load(&mut journal, LENGTH), Ok(None));
        for number in 1..5 {
            commit(&mut journal, &state(number, LENGTH)).unwrap();
            assert_eq!(load(&mut journal, LENGTH).unwrap().unwrap().1, state(number, LENGTH));
        }
    }
}

/// A bit flips in one of so many bytes that are read: a state that was committed, and the last one as long as flips are rare.
#[test]
fn flipped_reads() {
    for (one_in, least) in [(50_000, 190), (3_000, 100), (300, 0)] {
        let mut last_ones = 0;
        for seed in 0..200 {
            let mut flash = written(4);
            flash.reseed(seed);
            flash.faults.flipped_reads = one_in;
            let mut journal = journal(flash);
            let before = load(&mut journal, LENGTH).ok().flatten().map_or(0, |(loaded, bytes)| {
                assert_eq!(bytes, state(loaded.generation, LENGTH));
                loaded.generation
            });
            last_ones += u32::from(before == 4);
            // A commit on such flash stores the state or says that it could not; what was loaded stays.
            let result = commit(&mut journal, &state(5, LENGTH));
            let mut flash = journal.release().0;
            flash.faults = Faults::default();
            let after = loaded(flash, 5).unwrap_or(0);
            assert!(if result.is_ok() { after == 5 } else { after >= before }, "{result:?} {before} {after}");
        }
        assert!(last_ones >= least, "1 in {one_in}: {last_ones}");
    }
}

/// A write that fails costs a sector's turn; one in so many words fails.
#[test]
fn failing_writes() {
    let mut failed = 0;
    for (one_in, seeds) in [(300, 0..200), (30, 200..300)] {
        for seed in seeds {
            let mut flash = written(3);
            flash.reseed(seed);
            flash.faults.failing_writes = one_in;
            let mut journal = journal(flash);
            load(&mut journal, LENGTH).unwrap();
            let mut last = 3;
            for number in 4..12 {
                match commit(&mut journal, &state(number, LENGTH)) {
                    Ok(_) => last = number,
                    Err(Error::NoSector(Some(Fault::Flash(SimulatedError::Failed)))) => failed += 1,
                    other => panic!("{other:?}"),
                }
                // The write that failed last may have been the record's, and complete for all that.
                let bytes = load(&mut journal, LENGTH).unwrap().unwrap().1;
                if bytes != state(last, LENGTH) {
                    assert_eq!(bytes, state(number, LENGTH));
                    last = number;
                }
            }
            assert_eq!(loaded(journal.release().0, 12), Some(last));
        }
    }
    assert!(failed > 100, "{failed}");
}

/// A sector that cannot be written is passed over, in every round.
#[test]
fn one_sector_is_dead() {
    for sector in 0..7 {
        for kind in 0..3 {
            let mut flash = Small::new(1);
            let place = if kind > 0 { &mut flash.faults.deaf_sector } else { &mut flash.faults.dead_sector };
            *place = Some(sector);
            if kind == 2 {
                // Not erased for ever, where it would be for ever in the other case.
                flash.bytes_mut()[sector * 512 + 100] = 0x5a;
            }
            let mut journal = journal(flash);
            load(&mut journal, LENGTH).unwrap();
            for number in 1..40 {
                commit(&mut journal, &state(number, LENGTH)).unwrap();
                assert_eq!(load(&mut journal, LENGTH).unwrap().unwrap().1, state(number, LENGTH));
            }
            assert!(journal.wear().faults > 4, "{:?}", journal.wear());
        }
    }
}

/// A bit that flips in front of the last state, in the sector that is written on, neither hides it nor gets it overwritten,
/// even by flash that would, when the next commit is cut. Where the older state is stored as what looks erased, which its
/// mask makes unlikely, it may be hidden, and still nothing is written over it.
#[test]
fn a_flipped_bit_before_the_last_state() {
    const SHORT: usize = 132;
    // What the first state takes: two chunks and a record, after the word that opens the sector.
    const FIRST: usize = 8 + 128 + 40 + 40;
    let mut misled = 0;
    for (fill, looks_erased) in [(0xff, false), (0xff ^ 0x5a, true)] {
        let short = |number| if number == 1 { vec![fill; SHORT] } else { state(number, SHORT) };
        for bit in 8 * 8..8 * FIRST {
            for cut in 0..4 {
                let mut journal = journal(Small::new(cut));
                load(&mut journal, SHORT).unwrap();
                for number in 1..3 {
                    commit(&mut journal, &short(number)).unwrap();
                }
                let flash = &mut journal.flash().0;
                flash.bytes_mut()[bit / 8] ^= 1 << (bit % 8);
                flash.faults.overwriting = true;
                flash.faults.cut = (cut > 0).then_some(flash.operations() + 3 * cut);
                let before = flash.bytes()[FIRST..2 * FIRST - 8].to_vec();
                let last = if commit(&mut journal, &short(3)).is_ok() { 3 } else { 2 };
                assert_eq!(last == 3, cut == 0);
                misled += u32::from(cut == 0 && journal.wear().faults > 0);
                let mut flash = journal.release().0;
                flash.restart();
                assert!(flash.bytes()[FIRST..2 * FIRST - 8] == before, "fill {fill} bit {bit} cut {cut}");
                let found = load(&mut super::damage::journal(flash), SHORT).unwrap();
                let found = found.map(|(loaded, bytes)| (loaded.generation, bytes));
                let hidden = looks_erased && last == 2 && found.is_none();
                assert!(hidden || found == Some((last, short(last))), "fill {fill} bit {bit} cut {cut}");
            }
        }
        assert_eq!(misled > 0, looks_erased);
    }
}

/// Flash that is dead altogether is an error and no loop, and the last state is what it was.
#[test]
fn all_sectors_fail() {
    let mut flash = written(3);
    flash.faults.failing_writes = 1;
    let mut journal = journal(flash);
    load(&mut journal, LENGTH).unwrap();
    for _ in 0..3 {
        let result = commit(&mut journal, &state(4, LENGTH));
        assert_eq!(result, Err(Error::NoSector(Some(Fault::Flash(SimulatedError::Failed)))));
    }
    let mut flash = journal.release().0;
    flash.faults = Faults::default();
    assert_eq!(loaded(flash.clone(), 3), Some(3));
    let mut journal = super::damage::journal(flash);
    load(&mut journal, LENGTH).unwrap();
    commit(&mut journal, &state(4, LENGTH)).unwrap();
    assert_eq!(loaded(journal.release().0, 4), Some(4));
}

/// A commit that is dropped has stored nothing, and the next one does.
#[test]
fn a_dropped_commit() {
    let supervisor = Supervisor::new(Tolerance::default()).unwrap();
    let mut journal = journal(written(3));
    load(&mut journal, LENGTH).unwrap();
    for (number, steps) in (4..).zip(0..7) {
        let bytes = state(number, LENGTH);
        let parts = [&bytes[..]];
        let mut dropped = journal.commit(&parts, ARTEFACT).unwrap();
        for _ in 0..steps {
            dropped.step(supervisor.at_rest().unwrap()).unwrap();
        }
        assert_eq!(load(&mut journal, LENGTH).unwrap().unwrap().1, state(3, LENGTH));
    }
    for number in 20..30 {
        commit(&mut journal, &state(number, LENGTH)).unwrap();
        assert_eq!(load(&mut journal, LENGTH).unwrap().unwrap().1, state(number, LENGTH));
    }
}

/// Flash that is not ready when it is first asked.
struct Slow(Small);

/// Is ready at the second time of asking.
async fn pause() {
    let mut asked = false;
    std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut asked, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

impl nor_flash::ErrorType for Slow {
    type Error = SimulatedError;
}

impl nor_flash::ReadNorFlash for Slow {
    const READ_SIZE: usize = 1;

    async fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), SimulatedError> {
        blocking::ReadNorFlash::read(&mut self.0, offset, bytes)
    }

    fn capacity(&self) -> usize {
        blocking::ReadNorFlash::capacity(&self.0)
    }
}

impl nor_flash::NorFlash for Slow {
    const WRITE_SIZE: usize = 8;
    const ERASE_SIZE: usize = 512;

    async fn erase(&mut self, from: u32, to: u32) -> Result<(), SimulatedError> {
        pause().await;
        blocking::NorFlash::erase(&mut self.0, from, to)?;
        pause().await;
        Ok(())
    }

    async fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), SimulatedError> {
        pause().await;
        blocking::NorFlash::write(&mut self.0, offset, bytes)?;
        pause().await;
        Ok(())
    }
}

/// The asynchronous form, broken off wherever it waits: the commit is over, the last state is there, the next commit works.
#[test]
fn a_step_that_is_broken_off() {
    let supervisor = Supervisor::new(Tolerance::default()).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let bytes = state(4, LENGTH);
    let parts = [&bytes[..]];
    // How often the whole commit waits, then every place in turn.
    let mut places = usize::MAX;
    let mut place = usize::MAX;
    loop {
        let mut journal: Journal<_, 128> = Journal::new(Slow(written(3)), 0..7 * 512, LENGTH).unwrap();
        let mut buffer = vec![0; LENGTH];
        let loading = pin!(journal.load_async(&mut [&mut buffer], ARTEFACT)).poll(&mut context);
        assert!(matches!(loading, Poll::Ready(Ok(Some(loaded))) if loaded.generation == 3));
        let mut commit = journal.commit(&parts, ARTEFACT).unwrap();
        let mut waited = 0;
        let done = 'commit: loop {
            let mut step = pin!(commit.step_async(supervisor.at_rest().unwrap()));
            loop {
                match step.as_mut().poll(&mut context) {
                    Poll::Ready(Ok(Progress::Done)) => break 'commit true,
                    Poll::Ready(result) => break assert_eq!(result, Ok(Progress::More)),
                    Poll::Pending if waited == place => break 'commit false,
                    Poll::Pending => waited += 1,
                }
            }
        };
        if !done {
            let step = pin!(commit.step_async(supervisor.at_rest().unwrap())).poll(&mut context);
            assert_eq!(step, Poll::Ready(Err(Error::Broken)));
        }
        assert_eq!(done, place >= places);
        let last = done || place + 1 == places;
        // Broken off after its last write it is complete, and nobody was told.
        let found = loaded(journal.flash().0.clone(), 4);
        assert_eq!(found, Some(if last { 4 } else { 3 }), "{place} of {places}");
        let mut journal = super::damage::journal(journal.release().0);
        load(&mut journal, LENGTH).unwrap();
        super::commit(&mut journal, &state(9, LENGTH)).unwrap();
        assert_eq!(load(&mut journal, LENGTH).unwrap().unwrap().1, state(9, LENGTH));
        if place == usize::MAX {
            (places, place) = (waited, 0);
        } else if done {
            break;
        } else {
            place += 1;
        }
    }
    assert!(places > 20, "{places}");
}
