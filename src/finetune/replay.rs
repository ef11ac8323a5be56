//! The last so many transitions, in a ring: observation, action, reward and what comes after.
//!
//! The next observation of a transition is the observation of the entry after it, so a transition takes `obs + act + 1`
//! numbers and two bits. Numbers are floats, or 16-bit integers of a fixed range ([`Storage`]). [`Replay`] is a view
//! over words that the caller owns. No panics, no allocation, the same bits everywhere.

use crate::math;
use zerocopy::{FromBytes, IntoBytes};

/// How the ring keeps its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Storage {
    /// As they are: 4 bytes a number.
    F32,
    /// In 65,535 equal steps over a range: 2 bytes a number, off by at most half a step.
    I16,
}

/// What comes after a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum After {
    /// The next entry.
    Next = 0,
    /// Nothing: the episode is over for good.
    Terminal = 1,
    /// Nothing that is known; the entry serves only as what comes after the one before it.
    Unknown = 2,
}

/// Sizes and ranges of a ring.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ring {
    /// Number of entries, at least two.
    pub capacity: usize,
    /// Observations of an entry.
    pub obs: usize,
    /// Actions of an entry, each in `[-1, 1]`.
    pub act: usize,
    /// How numbers are kept.
    pub storage: Storage,
    /// Largest magnitude of a normalised observation.
    pub obs_limit: f32,
    /// Largest magnitude of a reward.
    pub reward_limit: f32,
}

/// Where the ring stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Entries there are.
    pub len: usize,
    /// Where the next goes.
    pub head: usize,
}

const STEPS: f32 = 32_767.0;
/// Flags of two bits in a word.
const FLAGS: usize = 16;

impl Ring {
    /// Numbers of an entry.
    pub const fn numbers(&self) -> usize {
        self.obs + self.act + 1
    }

    const fn number_words(&self) -> usize {
        let numbers = self.capacity * self.numbers();
        match self.storage {
            Storage::F32 => numbers,
            Storage::I16 => numbers.div_ceil(2),
        }
    }

    /// Words that the ring takes.
    pub const fn words(&self) -> usize {
        self.number_words() + self.capacity.div_ceil(FLAGS)
    }

    fn limit(&self, place: usize) -> f32 {
        if place < self.obs {
            self.obs_limit
        } else if place < self.obs + self.act {
            1.0
        } else {
            self.reward_limit
        }
    }
}

/// A ring over words that live elsewhere.
#[derive(Debug)]
pub struct Replay<'m> {
    ring: Ring,
    cursor: &'m mut Cursor,
    words: &'m mut [u32],
}

impl<'m> Replay<'m> {
    /// A view over [`Ring::words`] words.
    pub fn new(ring: Ring, cursor: &'m mut Cursor, words: &'m mut [u32]) -> Self {
        Self { ring, cursor, words }
    }

    /// Takes in a transition; the oldest makes room. Numbers beyond their ranges are clipped.
    pub fn push(&mut self, observation: &[f32], action: &[f32], reward: f32, after: After) {
        let at = self.cursor.head;
        let values = observation.iter().take(self.ring.obs).chain(action.iter().take(self.ring.act)).chain([&reward]);
        for (place, value) in values.enumerate() {
            self.set(at, place, *value);
        }
        self.set_after(at, after);
        self.cursor.head = if at + 1 >= self.ring.capacity { 0 } else { at + 1 };
        self.cursor.len = (self.cursor.len + 1).min(self.ring.capacity);
    }

    /// The newest entry has no successor: what follows belongs to something else.
    pub fn cut(&mut self) {
        if self.cursor.len > 0 {
            let newest = (self.cursor.head + self.ring.capacity - 1) % self.ring.capacity.max(1);
            if self.after(newest) == After::Next {
                self.set_after(newest, After::Unknown);
            }
        }
    }

    /// Whether entry `at` can be learned from: what comes after it is known.
    pub fn is_whole(&self, at: usize) -> bool {
        let newest = (self.cursor.head + self.ring.capacity - 1) % self.ring.capacity.max(1);
        match self.after(at) {
            After::Terminal => at < self.cursor.len,
            After::Next => at < self.cursor.len && at != newest,
            After::Unknown => false,
        }
    }

    /// An entry that is whole, uniformly but for those next to one that is not; `None` where eight draws find none.
    pub fn draw(&self, mut random: impl FnMut() -> u32) -> Option<usize> {
        for _ in 0..8 {
            let at = ((u64::from(random()) * self.cursor.len as u64) >> 32) as usize;
            if self.is_whole(at) {
                return Some(at);
            }
        }
        None
    }

    /// Number `place` of entry `at`: observations, actions, reward.
    pub fn get(&self, at: usize, place: usize) -> f32 {
        let i = at * self.ring.numbers() + place;
        match self.ring.storage {
            Storage::F32 => self.words.get(i).map_or(0.0, |w| f32::from_bits(*w)),
            Storage::I16 => {
                let halves = <[i16]>::ref_from_bytes(self.words.as_bytes()).unwrap_or(&[]);
                let step = self.ring.limit(place) / STEPS;
                halves.get(i).map_or(0.0, |h| math::flush(f32::from(*h) * step))
            }
        }
    }

    /// The first numbers of entry `at`, as many as `out` takes.
    pub fn read(&self, at: usize, out: &mut [f32]) {
        let numbers = self.ring.numbers();
        let place = at * numbers..(at + 1) * numbers;
        match self.ring.storage {
            Storage::F32 => {
                let words = self.words.get(place).unwrap_or(&[]);
                out.iter_mut().zip(words).for_each(|(out, word)| *out = f32::from_bits(*word));
            }
            Storage::I16 => {
                let halves = <[i16]>::ref_from_bytes(self.words.as_bytes()).unwrap_or(&[]);
                let mut halves = halves.get(place).unwrap_or(&[]).iter();
                let mut out = out.iter_mut();
                let ring = &self.ring;
                for (count, limit) in [(ring.obs, ring.obs_limit), (ring.act, 1.0), (1, ring.reward_limit)] {
                    let step = limit / STEPS;
                    for (out, half) in out.by_ref().take(count).zip(halves.by_ref()) {
                        *out = math::flush(f32::from(*half) * step);
                    }
                }
            }
        }
    }

    /// What comes after entry `at`.
    pub fn after(&self, at: usize) -> After {
        let word = self.words.get(self.ring.number_words() + at / FLAGS).copied().unwrap_or(0);
        match (word >> (2 * (at % FLAGS))) & 3 {
            0 => After::Next,
            1 => After::Terminal,
            _ => After::Unknown,
        }
    }

    /// The entry after `at`.
    pub fn next(&self, at: usize) -> usize {
        if at + 1 >= self.ring.capacity { 0 } else { at + 1 }
    }

    fn set(&mut self, at: usize, place: usize, value: f32) {
        let i = at * self.ring.numbers() + place;
        let limit = self.ring.limit(place);
        let value = math::flush(math::clip(value, limit));
        match self.ring.storage {
            Storage::F32 => {
                if let Some(word) = self.words.get_mut(i) {
                    *word = value.to_bits();
                }
            }
            Storage::I16 => {
                let halves = <[i16]>::mut_from_bytes(self.words.as_mut_bytes()).unwrap_or(&mut []);
                let steps = value * (STEPS / limit);
                if let Some(half) = halves.get_mut(i) {
                    *half = (steps + if steps < 0.0 { -0.5 } else { 0.5 }) as i16;
                }
            }
        }
    }

    fn set_after(&mut self, at: usize, after: After) {
        let (place, shift) = (self.ring.number_words() + at / FLAGS, 2 * (at % FLAGS));
        if let Some(word) = self.words.get_mut(place) {
            *word = (*word & !(3 << shift)) | ((after as u32) << shift);
        }
    }
}
