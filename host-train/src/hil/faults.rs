//! A bad line, for tests: frames are lost, corrupted, repeated and delayed at chosen rates, both ways, and counted.
//!
//! One frame has at most one fault. Which one is drawn from a seed; how many frames there are depends on timeouts, so
//! counts differ from run to run and returns do not. A corrupted byte never becomes or was a delimiter: a corrupted
//! frame is one bad frame, so that the counters of both ends must add up.

use super::line::Line;
use crate::{Error, Result};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde::Serialize;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// Bytes without a delimiter that are passed on as they are: more than any frame has.
const LONGEST: usize = 1 << 17;

/// Shares of the frames that each fault befalls; their sum is at most 0.9.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// Lost.
    pub drop: f64,
    /// One byte changed.
    pub corrupt: f64,
    /// Sent twice.
    pub repeat: f64,
    /// Sent after one to three later ones.
    pub delay: f64,
}

impl Rates {
    /// Refuses shares that are none, or too large for anything to arrive.
    pub fn check(&self) -> Result<()> {
        let all = [self.drop, self.corrupt, self.repeat, self.delay];
        if all.iter().any(|rate| !(0.0..=0.9).contains(rate)) || all.iter().sum::<f64>() > 0.9 {
            return Err(Error::usage(
                "--drop, --corrupt, --repeat and --delay are shares of the frames: give numbers from 0 to 0.9 with a sum of \
                 at most 0.9",
            ));
        }
        Ok(())
    }
}

/// What befell the frames of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Frames that were to be sent.
    pub frames: u32,
    /// Lost.
    pub dropped: u32,
    /// One byte changed.
    pub corrupted: u32,
    /// Sent twice.
    pub repeated: u32,
    /// Sent later.
    pub delayed: u32,
}

/// The frames of one direction.
struct Way {
    rates: Rates,
    rng: Xoshiro256PlusPlus,
    tally: Tally,
    /// Delayed frames, with the number of frames that still go before them.
    held: Vec<(u32, Vec<u8>)>,
}

impl Way {
    fn new(rates: Rates, seed: u64) -> Self {
        Self { rates, rng: Xoshiro256PlusPlus::seed_from_u64(seed), tally: Tally::default(), held: Vec::new() }
    }

    /// A frame with its delimiter goes in; what goes on in its place is handed to `out`.
    fn pass(&mut self, frame: &[u8], out: &mut dyn FnMut(&[u8])) {
        let Rates { drop, corrupt, repeat, delay } = self.rates;
        self.tally.frames += 1;
        let u = (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let mut ready = Vec::new();
        self.held.retain_mut(|(left, frame)| {
            *left -= 1;
            if *left == 0 {
                ready.push(std::mem::take(frame));
            }
            *left > 0
        });
        if u < drop {
            self.tally.dropped += 1;
        } else if u < drop + corrupt && frame.len() > 1 {
            self.tally.corrupted += 1;
            let mut bad = frame.to_vec();
            let at = (self.rng.next_u64() % (frame.len() as u64 - 1)) as usize;
            let other = 1 + (self.rng.next_u64() % 255) as u8;
            // Another byte than it was, and no delimiter.
            bad[at] = if other == bad[at] { (other % 255) + 1 } else { other };
            out(&bad);
        } else if u < drop + corrupt + repeat {
            self.tally.repeated += 1;
            out(frame);
            out(frame);
        } else if u < drop + corrupt + repeat + delay {
            self.tally.delayed += 1;
            self.held.push((1 + (self.rng.next_u64() % 3) as u32, frame.to_vec()));
        } else {
            out(frame);
        }
        ready.iter().for_each(|late| out(late));
    }

    /// No faults from here on; what is held goes out.
    fn mend(&mut self, out: &mut dyn FnMut(&[u8])) {
        self.rates = Rates::default();
        self.held.drain(..).for_each(|(_, frame)| out(&frame));
    }
}

/// A line whose frames have faults.
pub struct Faulty {
    line: Box<dyn Line>,
    name: String,
    to_board: Way,
    from_board: Way,
    /// The frame from the board that is under way.
    partial: Vec<u8>,
}

impl Faulty {
    /// A line with its name for errors, as good as it is.
    pub fn new(line: Box<dyn Line>, name: &str) -> Self {
        let [to_board, from_board] = [(); 2].map(|()| Way::new(Rates::default(), 0));
        Self { line, name: name.to_string(), to_board, from_board, partial: Vec::new() }
    }

    /// Faults from here on, and tallies from zero.
    pub fn spoil(&mut self, rates: Rates, seed: u64) {
        self.to_board = Way::new(rates, seed);
        self.from_board = Way::new(rates, !seed);
    }

    /// What the line is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Sends a whole frame with its delimiter.
    pub fn send(&mut self, frame: &[u8]) -> Result<()> {
        let mut bytes = Vec::new();
        self.to_board.pass(frame, &mut |frame| bytes.extend_from_slice(frame));
        self.raw(&bytes)
    }

    /// Sends a delimiter, which ends whatever is half received at the other end.
    pub fn flush_with_delimiter(&mut self) -> Result<()> {
        self.raw(&[0])
    }

    /// Sends bytes that are no frame and have no faults.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        self.line.send(bytes).map_err(|e| broken(&self.name, &e))
    }

    /// Takes what comes within a time.
    pub fn receive(&mut self, within: Duration, into: &mut VecDeque<u8>) -> Result<()> {
        let mut bytes = VecDeque::new();
        self.line.receive(within, &mut bytes).map_err(|e| broken(&self.name, &e))?;
        for byte in bytes {
            self.partial.push(byte);
            if byte == 0 || self.partial.len() >= LONGEST {
                self.from_board.pass(&std::mem::take(&mut self.partial), &mut |frame| into.extend(frame));
            }
        }
        Ok(())
    }

    /// No faults from here on; what was held back goes to the board, and `into`.
    pub fn mend(&mut self, into: &mut VecDeque<u8>) -> Result<()> {
        let mut bytes = Vec::new();
        self.to_board.mend(&mut |frame| bytes.extend_from_slice(frame));
        self.from_board.mend(&mut |frame| into.extend(frame));
        self.raw(&bytes)
    }

    /// What befell the frames to and from the board.
    pub fn tallies(&self) -> (Tally, Tally) {
        (self.to_board.tally, self.from_board.tally)
    }
}

fn broken(name: &str, error: &io::Error) -> Error {
    Error::failure(format!("the line {name} broke ({error}): connect the board again"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_is_accounted_for() {
        let rates = Rates { drop: 0.1, corrupt: 0.2, repeat: 0.15, delay: 0.2 };
        let mut way = Way::new(rates, 3);
        let mut out = Vec::new();
        for i in 0..2000u32 {
            let frame = [1 + (i % 255) as u8, 1 + (i / 255) as u8, 200, 0];
            way.pass(&frame, &mut |frame| out.push(frame.to_vec()));
        }
        way.mend(&mut |frame| out.push(frame.to_vec()));
        let t = way.tally;
        assert_eq!(out.len() as u32, t.frames - t.dropped + t.repeated);
        for (n, rate) in [(t.dropped, 0.1), (t.corrupted, 0.2), (t.repeated, 0.15), (t.delayed, 0.2)] {
            // Five standard deviations of a binomial count.
            assert!((f64::from(n) - 2000.0 * rate).abs() < 5.0 * (2000.0 * rate * (1.0 - rate)).sqrt(), "{t:?}");
        }
        assert!(out.iter().all(|frame| frame.iter().position(|b| *b == 0) == Some(3)));
        let original = |frame: &Vec<u8>| frame[2] == 200 && frame[0] > 0;
        assert!(out.iter().filter(|f| original(f)).count() < out.len());
    }

    #[test]
    fn a_good_line_changes_nothing() {
        let mut way = Way::new(Rates::default(), 1);
        for i in 0..100u8 {
            let mut out = Vec::new();
            way.pass(&[i, 0], &mut |frame| out.extend_from_slice(frame));
            assert_eq!(out, [i, 0]);
        }
    }

    #[test]
    fn rates_that_make_no_sense_are_refused() {
        for (drop, delay) in [(-0.1, 0.0), (0.95, 0.0), (f64::NAN, 0.0), (0.5, 0.5)] {
            assert!(Rates { drop, delay, ..Rates::default() }.check().is_err());
        }
        assert!(Rates { drop: 0.3, corrupt: 0.3, repeat: 0.1, delay: 0.2 }.check().is_ok());
    }
}
