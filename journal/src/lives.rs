//! A device that loses its power in every life, the same on every target: for a program in QEMU and its twin on a PC.
//!
//! Each life loads, checks what it got, and commits until the power goes, in one of the next few hundred operations of the
//! flash. The outcome is a digest of everything the flash ever held; a state that is lost, or none that was committed, is an
//! error with the number of the life.

use crate::simulated::SimulatedFlash;
use crate::{Blocking, Journal, Progress};
use flowlet::control::{Supervisor, Tolerance};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

/// Bytes of a state.
pub const LENGTH: usize = 400;

/// Seven sectors of 512 bytes, written in words of 8.
pub type Flash = SimulatedFlash<7, 512, 8>;

/// Bytes of a page.
pub const PAGE: usize = 128;

/// Operations of the flash after which a life is cut, at most: some three commits.
const LONGEST: u32 = 250;

const ARTEFACT: u32 = 0x0a57_e1fa;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Loading at the beginning of a life.
    Load,
    /// A step of a commit.
    Step,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// States that were committed, those that the last write of a cut completed included.
    pub states: u32,
    /// Steps of commits.
    pub steps: u32,
    /// Erases of all sectors.
    pub erases: u32,
    /// CRC-32 of what the flash held at the end of every life, one after the other.
    pub digest: u32,
}

/// Lives so many times; `watch` runs the work that it is given, once.
pub fn live(lives: u32, mut watch: impl FnMut(Work, &mut dyn FnMut())) -> Result<Outcome, u32> {
    static CRC32: crc::Crc<u32, crc::NoTable> = crc::Crc::<u32, crc::NoTable>::new(&crc::CRC_32_ISO_HDLC);
    let mut digest = CRC32.digest();
    let mut flash = Flash::new(1);
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(2);
    let (mut number, mut last, mut outcome) = (0, 0, Outcome { states: 0, steps: 0, erases: 0, digest: 0 });
    for life in 0..lives {
        flash.restart();
        flash.faults.cut = Some(flash.operations() + u64::from(rng.next_u32() % LONGEST));
        let supervisor = Supervisor::new(Tolerance::default()).ok_or(life)?;
        let mut journal: Journal<_, PAGE> = Journal::new(Blocking(&mut flash), 0..7 * 512, LENGTH).map_err(|_| life)?;
        let mut buffer = [0; LENGTH];
        let mut loaded = Ok(None);
        watch(Work::Load, &mut || loaded = journal.load(&mut [&mut buffer], ARTEFACT));
        match loaded {
            Ok(None) if last == 0 => {}
            Ok(Some(_)) if last > 0 && buffer == state(last) => {}
            Ok(Some(_)) if buffer == state(number) => {
                // Its commit was cut, and complete for all that.
                (last, outcome.states) = (number, outcome.states + 1);
            }
            _ => return Err(life),
        }
        'life: loop {
            number += 1;
            let bytes = state(number);
            let parts: [&[u8]; 1] = [&bytes];
            let mut commit = journal.commit(&parts, ARTEFACT).map_err(|_| life)?;
            loop {
                let mut progress = Ok(Progress::More);
                let mut rest = supervisor.at_rest();
                watch(Work::Step, &mut || {
                    if let Some(rest) = rest.take() {
                        progress = commit.step(rest);
                    }
                });
                outcome.steps += 1;
                match progress {
                    Ok(Progress::More) => {}
                    Ok(Progress::Done) => break,
                    Err(_) => break 'life,
                }
            }
            (last, outcome.states) = (number, outcome.states + 1);
        }
        digest.update(flash.bytes());
    }
    outcome.erases = flash.erases().iter().sum();
    outcome.digest = digest.finalize();
    Ok(outcome)
}

fn state(number: u32) -> [u8; LENGTH] {
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(u64::from(number));
    let mut bytes = [0; LENGTH];
    rng.fill_bytes(&mut bytes);
    bytes
}
