//! How often sectors are erased, what a step does at most, and what the formulas say of it.

use super::{ARTEFACT, On, Sim, commit, load, state};
use embedded_storage::nor_flash::{ErrorType, NorFlash, ReadNorFlash};
use flowlet::control::{Supervisor, Tolerance};
use flowlet_journal::simulated::SimulatedError;
use flowlet_journal::{Blocking, Journal, Layout, Progress};
use std::cell::Cell;
use std::rc::Rc;

/// Commits without a restart: every sector is erased as often as every other, and in all not more often than the formula
/// says, which is at most one largest item a sector above what is measured.
fn wear<const SECTORS: usize, const SECTOR: usize, const WORD: usize, const PAGE: usize>(length: usize) {
    type Flash<const N: usize, const S: usize, const W: usize> = Sim<N, S, W, 1>;
    const COMMITS: u32 = 500;
    let flash = Flash::<SECTORS, SECTOR, WORD>::new(1);
    let mut journal: On<_, PAGE> = On::new(Blocking(flash), 0..(SECTORS * SECTOR) as u32, length).unwrap();
    load(&mut journal, length).unwrap();
    for number in 0..COMMITS {
        commit(&mut journal, &state(number, length)).unwrap();
    }
    let total = journal.wear().erases;
    let most = journal.wear().per_sector();
    let erases = *journal.release().0.erases();
    assert_eq!(total, erases.iter().sum());
    let [low, high] = [erases.iter().min().unwrap(), erases.iter().max().unwrap()];
    assert!(high - low <= 1 && *high == most, "{erases:?}");
    let measured = f64::from(total) / f64::from(COMMITS);
    let formula = f64::from(Layout::<Blocking<Flash<SECTORS, SECTOR, WORD>>, PAGE>::erases_per_commit(length));
    let slack = 1.0 / (1.0 - PAGE as f64 / (SECTOR - 2 * WORD) as f64);
    // One erase too many, for the sector that is open at the end.
    assert!(measured <= formula + 1.0 / f64::from(COMMITS), "{measured} {formula}");
    assert!(measured * slack >= formula, "{measured} {formula} {slack}");
}

#[test]
fn sectors_are_erased_in_turn() {
    wear::<3, 4096, 4, 256>(100);
    wear::<3, 4096, 4, 256>(3_000);
    wear::<16, 4096, 4, 256>(20_000);
    wear::<5, 2048, 8, 256>(2_500);
    wear::<7, 1024, 16, 128>(1_800);
    wear::<8, 512, 8, 128>(1_000);
}

/// A restart costs one sector more, as the formula says, and the count of erases goes on.
#[test]
fn restarts_cost_a_sector() {
    let mut flash = Sim::<5, 2048, 4, 1>::new(1);
    let length = 300;
    let days = 400;
    for day in 0..days {
        let mut journal: On<_, 256> = On::new(Blocking(flash), 0..5 * 2048, length).unwrap();
        load(&mut journal, length).unwrap();
        for number in 0..3 {
            commit(&mut journal, &state(day * 3 + number, length)).unwrap();
        }
        assert_eq!(journal.wear().erases, journal.flash().0.erases().iter().sum());
        flash = journal.release().0;
    }
    // Three commits fit a sector: the start's erase is the only one.
    assert_eq!(flash.erases(), &[days / 5; 5]);
    type L = Layout<Blocking<Sim<5, 2048, 4, 1>>>;
    let years = L::years(length, 5, 3.0, 1.0, 10_000);
    assert!(years > 70.0 && years < 10_000.0 * 5.0 / 365.25, "{years}");
}

/// The largest write, and the bytes written and sectors erased since they were taken.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Work {
    largest: usize,
    written: usize,
    erased: usize,
}

struct Watched<F>(F, Rc<Cell<Work>>);

impl<F: ErrorType> ErrorType for Watched<F> {
    type Error = F::Error;
}

impl<F: ReadNorFlash> ReadNorFlash for Watched<F> {
    const READ_SIZE: usize = F::READ_SIZE;

    fn read(&mut self, offset: u32, bytes: &mut [u8]) -> Result<(), F::Error> {
        self.0.read(offset, bytes)
    }

    fn capacity(&self) -> usize {
        self.0.capacity()
    }
}

impl<F: NorFlash> NorFlash for Watched<F> {
    const WRITE_SIZE: usize = F::WRITE_SIZE;
    const ERASE_SIZE: usize = F::ERASE_SIZE;

    fn erase(&mut self, from: u32, to: u32) -> Result<(), F::Error> {
        let work = self.1.get();
        self.1.set(Work { erased: work.erased + (to - from) as usize / F::ERASE_SIZE, ..work });
        self.0.erase(from, to)
    }

    fn write(&mut self, offset: u32, bytes: &[u8]) -> Result<(), F::Error> {
        let Work { largest, written, erased } = self.1.get();
        self.1.set(Work { largest: largest.max(bytes.len()), written: written + bytes.len(), erased });
        self.0.write(offset, bytes)
    }
}

/// A step erases one sector or writes a page and the word that opens a sector, never both; loading does neither.
fn a_step<const WORD: usize, const PAGE: usize>() {
    let supervisor = Supervisor::new(Tolerance::default()).unwrap();
    let work = Rc::new(Cell::new(Work::default()));
    let flash = Watched(Sim::<9, 1024, WORD, 1>::new(1), Rc::clone(&work));
    let mut journal: Journal<_, PAGE> = Journal::new(Blocking(flash), 0..9 * 1024, 2_000).unwrap();
    for number in 0..20 {
        load(&mut journal, 2_000).unwrap();
        assert_eq!(work.take(), Work::default());
        let bytes = state(number, 2_000);
        let parts = [&bytes[..700], &[], &bytes[700..701], &bytes[701..]];
        let mut commit = journal.commit(&parts, ARTEFACT).unwrap();
        loop {
            let progress = commit.step(supervisor.at_rest().unwrap()).unwrap();
            let Work { largest, written, erased } = work.take();
            let one = written == 0 && erased <= 1 || written <= PAGE + WORD && erased == 0;
            assert!(one && largest < PAGE, "{largest} {written} {erased}");
            if progress == Progress::Done {
                break;
            }
        }
        assert_eq!(commit.step(supervisor.at_rest().unwrap()), Ok(Progress::Done));
        assert_eq!(work.take(), Work::default());
        let loaded: Result<_, flowlet_journal::Error<SimulatedError>> = load(&mut journal, 2_000);
        assert_eq!(loaded.unwrap().unwrap().1, bytes);
    }
}

#[test]
fn a_step_is_an_erase_or_a_page() {
    a_step::<4, 256>();
    a_step::<8, 128>();
    a_step::<16, 64>();
    a_step::<1, 256>();
}
