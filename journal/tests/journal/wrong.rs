//! What is refused, by name.

use super::{ARTEFACT, On, Sim, commit, load, state};
use flowlet::control::{Supervisor, Tolerance};
use flowlet_journal::{Blocking, Error, Journal, RangeError};
use std::ops::Range;

type Flash = Sim<16, 1024, 4, 1>;

fn made(range: Range<u32>, capacity: usize) -> Result<On<Flash, 256>, RangeError> {
    Journal::new(Blocking(Flash::new(1)), range, capacity)
}

#[test]
fn a_range_that_does_not_do() {
    let refused = |range: Range<u32>, capacity| made(range, capacity).err().unwrap();
    assert_eq!(refused(0..16_000, 100), RangeError::NotAligned { sector: 1024 });
    assert_eq!(refused(4..16_384, 100), RangeError::NotAligned { sector: 1024 });
    assert_eq!(refused(0..17_408, 100), RangeError::Outside { flash: 16_384 });
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is wrong with it")]
    let reversed = refused(2048..1024, 100);
    assert_eq!(reversed, RangeError::Outside { flash: 16_384 });
    assert_eq!(refused(0..0, 0), RangeError::TooSmall { needed: 3, given: 0 });
    assert_eq!(refused(0..2_048, 100), RangeError::TooSmall { needed: 3, given: 2 });
    let error = refused(0..16_384, 8_000);
    // 33 whole chunks, three a sector; what is left fits the eleventh.
    assert_eq!(error, RangeError::TooSmall { needed: 23, given: 16 });
    assert_eq!(error.to_string(), "states of this size need 23 sectors, the journal's range has 16");
    assert_eq!(refused(0..16_384, usize::MAX), RangeError::StateTooLarge { most: 65_535 * 240 });
    assert!(made(1024..16_384, 5_000).is_ok());
}

#[test]
fn a_state_that_does_not_fit() {
    let mut journal = made(0..16_384, 500).unwrap();
    load(&mut journal, 500).unwrap();
    assert_eq!(commit(&mut journal, &[1; 501]), Err(Error::StateTooLarge { capacity: 500 }));
    assert!(commit(&mut journal, &[1; 500]).is_ok());
    assert_eq!(load(&mut journal, 499), Err(Error::BufferTooSmall { needed: 500 }));
    assert_eq!(load(&mut journal, 500).unwrap().unwrap().1, [1; 500]);
    // In parts, and into more room than it needs.
    let (mut a, mut b, mut c) = ([9; 100], [9; 0], [9; 700]);
    let loaded = journal.load(&mut [&mut a, &mut b, &mut c], ARTEFACT).unwrap().unwrap();
    assert_eq!((loaded.generation, loaded.length), (1, 500));
    assert!(a == [1; 100] && c[..400] == [1; 400] && c[400..] == [9; 300]);
}

#[test]
fn a_commit_before_loading() {
    let mut journal = made(0..16_384, 500).unwrap();
    assert_eq!(commit(&mut journal, &[1; 5]), Err(Error::NotLoaded));
    load(&mut journal, 500).unwrap();
    assert!(commit(&mut journal, &[1; 5]).is_ok());
}

/// Another artefact's state is named and not loaded; it lasts until a commit for this one is complete.
#[test]
fn another_artefact() {
    let supervisor = Supervisor::new(Tolerance::default()).unwrap();
    let mut journal = made(0..16_384, 500).unwrap();
    load(&mut journal, 500).unwrap();
    commit(&mut journal, &state(1, 500)).unwrap();
    let mut buffer = [0; 500];
    let other = 0x0bad_0bad;
    assert_eq!(journal.load(&mut [&mut buffer], other), Err(Error::OtherArtefact { found: ARTEFACT }));
    let bytes = state(2, 400);
    let parts = [&bytes[..]];
    let mut second = journal.commit(&parts, other).unwrap();
    second.step(supervisor.at_rest().unwrap()).unwrap();
    assert_eq!(load(&mut journal, 500).unwrap().unwrap().1, state(1, 500));
    let mut second = journal.commit(&parts, other).unwrap();
    while second.step(supervisor.at_rest().unwrap()).unwrap() != flowlet_journal::Progress::Done {}
    assert_eq!(load(&mut journal, 500), Err(Error::OtherArtefact { found: other }));
    assert_eq!(journal.load(&mut [&mut buffer], other).unwrap().unwrap().length, 400);
    assert_eq!(buffer[..400], bytes);
}

/// A record of another version, newer than the last state of this one, is named; one that is older is passed over.
#[test]
fn another_version() {
    for (generation, newer) in [(9u32, true), (1, false)] {
        let mut journal = made(0..16_384, 500).unwrap();
        load(&mut journal, 500).unwrap();
        for number in 1..4 {
            commit(&mut journal, &state(number, 500)).unwrap();
        }
        let mut flash = journal.release().0;
        let [a, b, c, d] = generation.to_le_bytes();
        super::append(&mut flash, 15 * 1024..16 * 1024, &[b'R', 2, 0, 0, a, b, c, d, 1, 2, 3, 4]);
        let mut journal: On<Flash, 256> = Journal::new(Blocking(flash), 0..16_384, 500).unwrap();
        let loaded = load(&mut journal, 500);
        if newer {
            assert_eq!(loaded, Err(Error::OtherVersion { found: 2 }));
        } else {
            assert_eq!(loaded.unwrap().unwrap().1, state(3, 500));
        }
        commit(&mut journal, &state(10, 500)).unwrap();
        let (loaded, bytes) = load(&mut journal, 500).unwrap().unwrap();
        assert_eq!((loaded.generation, bytes), (if newer { 10 } else { 4 }, state(10, 500)));
    }
}

/// Numbers are used up without a panic and without a number that comes twice.
#[test]
fn the_last_generation() {
    let mut journal = made(0..16_384, 500).unwrap();
    load(&mut journal, 500).unwrap();
    let mut flash = journal.release().0;
    super::append(&mut flash, 0..1024, &[b'C', 2, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
    let mut journal: On<Flash, 256> = Journal::new(Blocking(flash), 0..16_384, 500).unwrap();
    assert_eq!(load(&mut journal, 500), Ok(None));
    commit(&mut journal, &state(1, 500)).unwrap();
    assert_eq!(commit(&mut journal, &state(2, 500)), Err(Error::GenerationsUsedUp));
    let (loaded, bytes) = load(&mut journal, 500).unwrap().unwrap();
    assert_eq!((loaded.generation, bytes), (u32::MAX, state(1, 500)));
}

/// The same range with another number of sectors, or elsewhere: a state or none, never a wrong one.
#[test]
fn another_range() {
    let mut journal = made(0..16_384, 1_000).unwrap();
    load(&mut journal, 1_000).unwrap();
    for number in 1..30 {
        commit(&mut journal, &state(number, 1_000)).unwrap();
        let flash = journal.flash().0.clone();
        for range in [0..7 * 1024, 1024..16_384, 3 * 1024..12 * 1024] {
            let mut moved: On<Flash, 256> = Journal::new(Blocking(flash.clone()), range, 1_000).unwrap();
            if let Some((_, bytes)) = load(&mut moved, 1_000).unwrap() {
                assert!((1..=number).any(|n| bytes == state(n, 1_000)));
            }
            commit(&mut moved, &state(99, 1_000)).unwrap();
            assert_eq!(load(&mut moved, 1_000).unwrap().unwrap().1, state(99, 1_000));
        }
    }
}
