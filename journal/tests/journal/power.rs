//! Power that goes in every single write of a word and in every erase.

use super::{On, Sim, commit, load, state};
use flowlet_journal::Blocking;

/// Sizes of a run: the flash's, the page's, the state's, and which share of the double cuts is tried.
#[derive(Clone, Copy)]
struct Case {
    length: usize,
    /// Sessions, each between two restarts, and commits in one.
    sessions: u32,
    commits: u32,
    /// Every how many-th operation of the recovery is cut; 0: none.
    second: u64,
}

/// A device between two restarts.
struct Session<const SECTORS: usize, const SECTOR: usize, const WORD: usize, const READ: usize, const PAGE: usize> {
    flash: Sim<SECTORS, SECTOR, WORD, READ>,
    length: usize,
    /// Number of the last complete state, 0 for none.
    last: u32,
    /// Number of the state whose commit was cut.
    cut: Option<u32>,
}

impl<const SECTORS: usize, const SECTOR: usize, const WORD: usize, const READ: usize, const PAGE: usize> Clone
    for Session<SECTORS, SECTOR, WORD, READ, PAGE>
{
    fn clone(&self) -> Self {
        Self { flash: self.flash.clone(), ..*self }
    }
}

impl<const SECTORS: usize, const SECTOR: usize, const WORD: usize, const READ: usize, const PAGE: usize>
    Session<SECTORS, SECTOR, WORD, READ, PAGE>
{
    /// Starts, checks what is loaded, and commits these states until the power goes, if it does.
    fn run(&mut self, numbers: std::ops::Range<u32>) {
        self.flash.restart();
        let range = 0..(SECTORS * SECTOR) as u32;
        let flash = self.flash.clone();
        let mut journal: On<_, PAGE> = On::new(Blocking(flash), range, self.length).unwrap();
        let loaded = load(&mut journal, self.length).unwrap();
        let is = |number: u32| loaded.as_ref().is_some_and(|(_, bytes)| *bytes == state(number, self.length));
        match self.cut.filter(|cut| is(*cut)) {
            Some(cut) => self.last = cut,
            None if self.last == 0 => assert!(loaded.is_none(), "something was loaded that was never complete"),
            None => assert!(is(self.last), "state {} is lost, {:?} cut", self.last, self.cut),
        }
        self.cut = None;
        for number in numbers {
            if commit(&mut journal, &state(number, self.length)).is_err() {
                self.cut = Some(number);
                break;
            }
            self.last = number;
        }
        self.flash = journal.release().0;
    }
}

fn every_cut<const SECTORS: usize, const SECTOR: usize, const WORD: usize, const READ: usize, const PAGE: usize>(
    case: Case,
) -> [u64; 2] {
    let Case { length, sessions, commits, second } = case;
    let mut base = Session::<SECTORS, SECTOR, WORD, READ, PAGE> { flash: Sim::new(1), length, last: 0, cut: None };
    let mut cuts = [0; 2];
    for session in 0..sessions {
        let numbers = 1 + session * commits..1 + (session + 1) * commits;
        let begin = base.flash.operations();
        let mut uncut = base.clone();
        uncut.run(numbers.clone());
        assert_eq!(uncut.last + 1, numbers.end);
        for at in begin..uncut.flash.operations() {
            let mut first = base.clone();
            first.flash.reseed(at);
            first.flash.faults.cut = Some(at);
            first.run(numbers.clone());
            assert_eq!(first.flash.operations(), at + 1);
            assert_eq!(first.cut, Some(first.last + 1));
            cuts[0] += 1;
            // The recovery is not cut ...
            let next = 1000 * (session + 1);
            let mut recovered = first.clone();
            recovered.run(next..next + 2);
            assert_eq!(recovered.last, next + 1);
            // ... or is, and so on.
            let operations = first.flash.operations()..recovered.flash.operations();
            for at in operations.filter(|at| second > 0 && at.is_multiple_of(second)) {
                let mut again = first.clone();
                again.flash.reseed(at ^ 0x5555);
                again.flash.faults.cut = Some(at);
                again.run(next..next + 2);
                assert!(again.cut.is_some());
                cuts[1] += 1;
                again.run(next + 10..next + 11);
                assert_eq!(again.last, next + 10);
                again.run(0..0);
            }
            recovered.run(next + 10..next + 11);
            recovered.run(0..0);
            assert_eq!(recovered.last, next + 10);
        }
        base = uncut;
    }
    assert!(base.flash.erases().iter().all(|n| *n > 1), "the ring was not gone round: {:?}", base.flash.erases());
    cuts
}

/// A flash so small that every pair of cuts can be tried: what is on it after each goes through the next.
#[test]
fn any_two_cuts() {
    let case = Case { length: 130, sessions: 4, commits: 3, second: 1 };
    assert_eq!(every_cut::<5, 256, 4, 1, 64>(case), [672, 75_264]);
}

/// Words of 4 bytes that are read singly or in words, several generations in a sector or several sectors a generation.
#[test]
fn any_cut_with_words_of_4_bytes() {
    let case = |length, second| Case { length, sessions: 6, commits: 4, second };
    every_cut::<3, 512, 4, 1, 256>(case(100, 13));
    every_cut::<3, 512, 4, 4, 256>(case(0, 1));
    every_cut::<9, 512, 4, 4, 256>(case(700, 211));
    every_cut::<13, 256, 4, 4, 128>(case(700, 211));
}

#[test]
fn any_cut_with_words_of_8_bytes() {
    let case = |length, second| Case { length, sessions: 6, commits: 4, second };
    every_cut::<3, 512, 8, 1, 128>(case(300, 7));
    every_cut::<3, 2048, 8, 8, 256>(case(500, 101));
    every_cut::<6, 1024, 8, 1, 256>(case(1_500, 211));
}

#[test]
fn any_cut_with_words_of_16_bytes() {
    let case = |length, second| Case { length, sessions: 6, commits: 4, second };
    every_cut::<9, 512, 16, 1, 128>(case(1_000, 53));
    every_cut::<3, 1024, 16, 16, 64>(case(90, 5));
}

/// External flash that is written by the byte, and the widest words there are.
#[test]
fn any_cut_with_words_of_1_and_of_32_bytes() {
    let case = |length, second| Case { length, sessions: 6, commits: 4, second };
    every_cut::<3, 512, 1, 1, 128>(case(150, 997));
    every_cut::<7, 512, 32, 1, 128>(case(500, 13));
}

/// A state of 64 kB, whose commit takes thousands of writes: every 301st is cut.
#[test]
fn a_cut_of_a_large_state() {
    const LENGTH: usize = 65_536;
    let mut session = Session::<41, 4096, 16, 1, 256> { flash: Sim::new(3), length: LENGTH, last: 0, cut: None };
    session.run(1..2);
    let first = session.clone();
    session.run(2..3);
    for at in (first.flash.operations()..session.flash.operations()).step_by(301) {
        let mut cut = first.clone();
        cut.flash.faults.cut = Some(at);
        cut.run(2..3);
        assert_eq!((cut.last, cut.cut), (1, Some(2)));
        cut.run(0..0);
    }
}

/// What the program `journal` plays in QEMU, for longer.
#[test]
fn a_thousand_lives() {
    let outcome = flowlet_journal::lives::live(1_000, |_, work| work()).unwrap();
    assert!(outcome.states > 1_000 && outcome.erases > 2_000, "{outcome:?}");
}
