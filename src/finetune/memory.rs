//! The learner's memory: one block of words, cut into parts whose sizes follow from networks and configuration.
//!
//! Sizes are constant functions, so that a firmware knows them when it is built ([`words`], [`Fits`]). No panics at run
//! time, no allocation; cutting costs some twenty comparisons.

use super::config::Config;
use super::replay::Ring;
use super::trained::{Perceptron, Trace};
use crate::net::{CriticShape, VelocityShape};
use zerocopy::{FromBytes, IntoBytes};

/// Sizes that follow from networks and configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Layout {
    /// Observations.
    pub obs: usize,
    /// Actions.
    pub act: usize,
    /// Numbers of the actor's delta.
    pub actor: usize,
    /// Numbers of a critic's.
    pub critic: usize,
    /// Words of moments a number.
    pub moments: usize,
    /// Parts of a trace, in order.
    trace: [usize; 7],
    /// Numbers of a row of the batch.
    pub row: usize,
    rows: usize,
    candidates: usize,
    ring: usize,
}

const fn max(a: usize, b: usize) -> usize {
    if a > b { a } else { b }
}

impl Layout {
    pub(super) const fn new(policy: &VelocityShape, critic: &CriticShape, config: &Config) -> Self {
        let (a, c) = (Perceptron::velocity(policy), Perceptron::critic(critic));
        let hidden = max(a.hidden, c.hidden);
        let inputs = max(a.inputs, c.inputs);
        let stacked = max(a.hidden * a.layers, c.hidden * c.layers);
        let inner = max((a.layers + 1) * a.rank(config.actor), (c.layers + 1) * c.rank(config.critic));
        let ring = Ring {
            capacity: config.transitions,
            obs: policy.obs,
            act: policy.act,
            storage: config.storage,
            obs_limit: 1.0,
            reward_limit: 1.0,
        };
        Self {
            obs: policy.obs,
            act: policy.act,
            actor: a.delta(config.actor),
            critic: c.delta(config.critic),
            moments: config.optimiser.words(),
            trace: [inputs, stacked, stacked, inner, max(a.outputs, c.outputs), hidden, max(hidden, inputs)],
            row: 2 * policy.obs + policy.act + 3,
            rows: config.batch,
            candidates: config.candidates,
            ring: ring.words(),
        }
    }

    const fn trace_words(&self) -> usize {
        let t = &self.trace;
        t[0] + t[1] + t[2] + t[3] + t[4] + t[5] + t[6]
    }

    pub(super) const fn words(&self) -> usize {
        let networks =
            self.actor * (5 + self.moments) + 2 * self.critic * (2 + self.moments) + max(self.actor, self.critic);
        networks
            + 2 * self.trace_words()
            + self.row * self.rows
            + 2 * self.obs
            + 7 * self.act
            + self.candidates * (self.act + 1)
            + self.ring
    }
}

/// A delta of the actor that can be looked at, by its place in the memory.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Acting = 1,
    Kept = 2,
}

impl Layout {
    /// One of the actor's deltas, which come first.
    pub(super) fn delta<'m>(&self, place: Place, memory: &'m [u32]) -> &'m [f32] {
        let start = place as usize * self.actor;
        let words = memory.get(start..start + self.actor).unwrap_or(&[]);
        <[f32]>::ref_from_bytes(words.as_bytes()).unwrap_or(&[])
    }
}

/// Words of memory that a learner of these sizes takes.
pub const fn words(policy: &VelocityShape, critic: &CriticShape, config: &Config) -> usize {
    Layout::new(policy, critic, config).words()
}

/// The memory in its parts.
pub(super) struct Parts<'m> {
    pub actor: &'m mut [f32],
    pub acting: &'m mut [f32],
    pub kept: &'m mut [f32],
    /// The best so far that was not yet kept.
    pub best: &'m mut [f32],
    /// The slow average of the actor: the next candidate.
    pub average: &'m mut [f32],
    pub actor_moments: &'m mut [u32],
    pub critics: [CriticParts<'m>; 2],
    pub gradient: &'m mut [f32],
    pub trace: Trace<'m>,
    pub act_trace: Trace<'m>,
    pub rows: &'m mut [f32],
    /// Observation and action of the decision under way, in the plant's units.
    pub seen: &'m mut [f32],
    pub done: &'m mut [f32],
    /// Normalised observation and action in `[-1, 1]` of the entry of the ring under way.
    pub entry: &'m mut [f32],
    /// The exploration's noise.
    pub wander: &'m mut [f32],
    /// The latent of a decision.
    pub decided: &'m mut [f32],
    pub noise: &'m mut [f32],
    pub latent: &'m mut [f32],
    pub target: &'m mut [f32],
    pub candidates: &'m mut [f32],
    pub logits: &'m mut [f32],
    pub ring: &'m mut [u32],
}

pub(super) struct CriticParts<'m> {
    pub delta: &'m mut [f32],
    pub slow: &'m mut [f32],
    pub moments: &'m mut [u32],
}

fn cut<'m>(rest: &mut &'m mut [u32], n: usize) -> &'m mut [u32] {
    match core::mem::take(rest).split_at_mut_checked(n) {
        Some((head, tail)) => {
            *rest = tail;
            head
        }
        None => &mut [],
    }
}

fn floats<'m>(rest: &mut &'m mut [u32], n: usize) -> &'m mut [f32] {
    <[f32]>::mut_from_bytes(cut(rest, n).as_mut_bytes()).unwrap_or(&mut [])
}

impl Layout {
    fn trace<'m>(&self, m: &mut &'m mut [u32]) -> Trace<'m> {
        let t = &self.trace;
        Trace {
            input: floats(m, t[0]),
            pre: floats(m, t[1]),
            post: floats(m, t[2]),
            inner: floats(m, t[3]),
            output: floats(m, t[4]),
            upper: floats(m, t[5]),
            lower: floats(m, t[6]),
        }
    }

    pub(super) fn carve<'m>(&self, memory: &'m mut [u32]) -> Parts<'m> {
        let mut m = memory;
        let critic = |m: &mut &'m mut [u32]| CriticParts {
            delta: floats(m, self.critic),
            slow: floats(m, self.critic),
            moments: cut(m, self.critic * self.moments),
        };
        Parts {
            actor: floats(&mut m, self.actor),
            acting: floats(&mut m, self.actor),
            kept: floats(&mut m, self.actor),
            best: floats(&mut m, self.actor),
            average: floats(&mut m, self.actor),
            actor_moments: cut(&mut m, self.actor * self.moments),
            critics: [critic(&mut m), critic(&mut m)],
            gradient: floats(&mut m, max(self.actor, self.critic)),
            trace: self.trace(&mut m),
            act_trace: self.trace(&mut m),
            rows: floats(&mut m, self.row * self.rows),
            seen: floats(&mut m, self.obs),
            done: floats(&mut m, self.act),
            entry: floats(&mut m, self.obs + self.act),
            wander: floats(&mut m, self.act),
            decided: floats(&mut m, self.act),
            noise: floats(&mut m, self.act),
            latent: floats(&mut m, self.act),
            target: floats(&mut m, self.act),
            candidates: floats(&mut m, self.candidates * self.act),
            logits: floats(&mut m, self.candidates),
            ring: cut(&mut m, self.ring),
        }
    }
}

/// A claim that so many bytes fit into so many others, refused when the program is built.
///
/// ```
/// use flowlet::finetune::Fits;
/// const _: () = Fits::<90_000, 96_000>::OK;
/// ```
///
/// ```compile_fail
/// use flowlet::finetune::Fits;
/// // error: the learner needs 100000 bytes, 4000 more than the 96000 there are
/// const _: () = Fits::<100_000, 96_000>::OK;
/// ```
pub struct Fits<const NEEDED: usize, const LIMIT: usize>;

impl<const NEEDED: usize, const LIMIT: usize> Fits<NEEDED, LIMIT> {
    /// Exists where `NEEDED` is at most `LIMIT`.
    pub const OK: () = {
        if NEEDED > LIMIT {
            let text = Text::new()
                .words(b"the learner needs ")
                .number(NEEDED)
                .words(b" bytes, ")
                .number(NEEDED - LIMIT)
                .words(b" more than the ")
                .number(LIMIT)
                .words(b" there are: train less of the networks, keep fewer transitions, or use Optimiser::Lean");
            panic!("{}", text.as_str());
        }
    };
}

/// A sentence that is put together when the program is built.
struct Text {
    bytes: [u8; 240],
    len: usize,
}

impl Text {
    const fn new() -> Self {
        Self { bytes: [0; 240], len: 0 }
    }

    const fn words(mut self, words: &[u8]) -> Self {
        let mut i = 0;
        while i < words.len() && self.len < self.bytes.len() {
            self.bytes[self.len] = words[i];
            self.len += 1;
            i += 1;
        }
        self
    }

    const fn number(mut self, n: usize) -> Self {
        let mut unit = 1;
        while n / unit >= 10 {
            unit *= 10;
        }
        while unit > 0 && self.len < self.bytes.len() {
            self.bytes[self.len] = b'0' + (n / unit % 10) as u8;
            self.len += 1;
            unit /= 10;
        }
        self
    }

    const fn as_str(&self) -> &str {
        match core::str::from_utf8(self.bytes.split_at(self.len).0) {
            Ok(text) => text,
            Err(_) => "the learner does not fit",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_has_its_numbers() {
        let text = Text::new().words(b"needs ").number(100_007).words(b", ").number(0).words(b" more");
        assert_eq!(text.as_str(), "needs 100007, 0 more");
    }
}
