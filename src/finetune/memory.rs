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
        let before = if a.is_relu() && c.is_relu() { 0 } else { stacked };
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
            trace: [inputs, before, stacked, inner, max(a.outputs, c.outputs), hidden, max(hidden, inputs)],
            row: 2 * policy.obs + policy.act + 3,
            rows: config.batch,
            candidates: config.candidates,
            ring: ring.words(),
        }
    }

    const fn floats(&self) -> usize {
        let [input, pre, post, inner, output, upper, lower] = self.trace;
        self.actor * 5
            + self.critic * 4
            + max(self.actor, self.critic)
            + 2 * (input + post + inner + output)
            + pre
            + upper
            + lower
            + self.row * self.rows
            + 2 * self.obs
            + 7 * self.act
            + self.candidates * (self.act + 1)
    }

    pub(super) const fn words(&self) -> usize {
        self.floats() + (self.actor + 2 * self.critic) * self.moments + self.ring
    }
}

/// A delta of the actor that can be looked at, by its place in the memory.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Acting = 1,
    Kept = 2,
    Average = 4,
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

fn cut<'m, T>(rest: &mut &'m mut [T], n: usize) -> &'m mut [T] {
    match core::mem::take(rest).split_at_mut_checked(n) {
        Some((head, tail)) => {
            *rest = tail;
            head
        }
        None => &mut [],
    }
}

impl Layout {
    fn trace<'m>(&self, m: &mut &'m mut [f32], back: bool) -> Trace<'m> {
        let [input, pre, post, inner, output, upper, lower] = self.trace;
        let of_back = |n: usize| if back { n } else { 0 };
        Trace {
            input: cut(m, input),
            pre: cut(m, of_back(pre)),
            post: cut(m, post),
            inner: cut(m, inner),
            output: cut(m, output),
            upper: cut(m, of_back(upper)),
            lower: cut(m, of_back(lower)),
        }
    }

    /// All parts; floats come first, so that words become floats once.
    pub(super) fn carve<'m>(&self, memory: &'m mut [u32]) -> Parts<'m> {
        let (floats, mut words) = memory.split_at_mut_checked(self.floats()).unwrap_or_default();
        let mut f = <[f32]>::mut_from_bytes(floats.as_mut_bytes()).unwrap_or(&mut []);
        let w = &mut words;
        let critic = |f: &mut &'m mut [f32], w: &mut &'m mut [u32]| CriticParts {
            delta: cut(f, self.critic),
            slow: cut(f, self.critic),
            moments: cut(w, self.critic * self.moments),
        };
        let f = &mut f;
        Parts {
            actor: cut(f, self.actor),
            acting: cut(f, self.actor),
            kept: cut(f, self.actor),
            best: cut(f, self.actor),
            average: cut(f, self.actor),
            actor_moments: cut(w, self.actor * self.moments),
            critics: [critic(f, w), critic(f, w)],
            gradient: cut(f, max(self.actor, self.critic)),
            trace: self.trace(f, true),
            act_trace: self.trace(f, false),
            rows: cut(f, self.row * self.rows),
            seen: cut(f, self.obs),
            done: cut(f, self.act),
            entry: cut(f, self.obs + self.act),
            wander: cut(f, self.act),
            decided: cut(f, self.act),
            noise: cut(f, self.act),
            latent: cut(f, self.act),
            target: cut(f, self.act),
            candidates: cut(f, self.candidates * self.act),
            logits: cut(f, self.candidates),
            ring: cut(w, self.ring),
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
