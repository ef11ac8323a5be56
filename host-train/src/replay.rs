//! The replay buffer: a ring of transitions, sampled uniformly with replacement.
//!
//! A sampled transition may span several decisions of one episode ([`Replay::spanning`]; n-step targets: Sutton and Barto,
//! *Reinforcement Learning*, 2nd edition, chapter 7), put together when it is drawn from transitions that stay as they are.
//!
//! Observations are stored raw and normalised when they are sampled; rewards are stored scaled. A transition is one row,
//! so a sample costs one visit to memory. Memory comes as it is needed, or at once by [`Replay::reserve`]; when the ring is
//! full the oldest transition gives way. Deterministic given the stream. Sampling from an empty buffer panics (a
//! programming error).

use crate::noise::Noise;
use crate::normaliser::Normaliser;
use crate::state::Visitor;

/// One transition, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Transition<'a> {
    /// Raw observation before.
    pub obs: &'a [f32],
    /// Squashed action, in (-1, 1).
    pub action: &'a [f32],
    /// Scaled reward.
    pub reward: f32,
    /// Raw observation after; of the final state where the episode ended.
    pub next_obs: &'a [f32],
    /// Nothing to bootstrap from (a time limit is not meant).
    pub terminated: bool,
    /// The transition that goes on from `next_obs` is not the next one of the same lane: the episode ended.
    pub last: bool,
}

/// A ring buffer of transitions.
#[derive(Clone, Debug)]
pub struct Replay {
    obs: usize,
    act: usize,
    capacity: usize,
    /// Where the transition after one stands: so many further on, as many as environments take turns.
    stride: usize,
    /// Transitions that one of a minibatch spans at most, and the discount between them.
    horizon: usize,
    gamma: f32,
    /// Part of the capacity that was added after construction.
    grown: usize,
    len: usize,
    next: usize,
    rows: Vec<f32>,
    normaliser: Normaliser,
}

/// A minibatch, column by column.
#[derive(Clone, Debug)]
pub struct Minibatch {
    /// Normalised observations before, `n x obs`.
    pub obs: Vec<f32>,
    /// Actions, `n x act`.
    pub action: Vec<f32>,
    /// Rewards.
    pub reward: Vec<f32>,
    /// Normalised observations after, `n x obs`.
    pub next_obs: Vec<f32>,
    /// What the future counts: 0 after a terminal step, otherwise 1, or the discount of all decisions spanned but one.
    pub mask: Vec<f32>,
}

impl Minibatch {
    /// Room for `n` transitions.
    pub fn new(n: usize, obs: usize, act: usize) -> Self {
        Self {
            obs: vec![0.0; n * obs],
            action: vec![0.0; n * act],
            reward: vec![0.0; n],
            next_obs: vec![0.0; n * obs],
            mask: vec![0.0; n],
        }
    }
}

impl Replay {
    /// An empty buffer for `capacity` transitions (at least one), whose observations need no normalising.
    pub fn new(capacity: usize, obs: usize, act: usize) -> Self {
        Self::with_normaliser(capacity, Normaliser::identity(obs), act)
    }

    /// An empty buffer for `capacity` transitions (at least one).
    pub fn with_normaliser(capacity: usize, normaliser: Normaliser, act: usize) -> Self {
        let (capacity, obs) = (capacity.max(1), normaliser.mean().len());
        let (stride, horizon, gamma) = (1, 1, 1.0);
        Self { obs, act, capacity, stride, horizon, gamma, grown: 0, len: 0, next: 0, rows: Vec::new(), normaliser }
    }

    /// Makes minibatches of transitions over up to `horizon` decisions: their rewards are added up with the discount
    /// `gamma`, the observation after is that of the last, and the mask holds the discount up to that one. Of `stride`
    /// environments that take turns each goes on where it was.
    pub fn spanning(mut self, horizon: usize, stride: usize, gamma: f32) -> Self {
        (self.horizon, self.stride, self.gamma) = (horizon, stride, gamma);
        self
    }

    /// Makes room for so many transitions, or as many as there may be: until then none is copied when others come.
    pub fn reserve(&mut self, transitions: usize) {
        let more = transitions.min(self.capacity).saturating_sub(self.len);
        self.rows.reserve_exact(more * self.width());
    }

    /// Makes room for `more` transitions beyond the capacity so far.
    pub fn grow(&mut self, more: usize) {
        self.grown += more;
        self.capacity += more;
    }

    /// The normaliser of the observations.
    pub fn normaliser(&self) -> &Normaliser {
        &self.normaliser
    }

    /// The normaliser, to be fitted.
    pub fn normaliser_mut(&mut self) -> &mut Normaliser {
        &mut self.normaliser
    }

    /// Shows the transitions, where the next one goes, and the normaliser.
    pub fn visit(&mut self, visitor: &mut dyn Visitor) {
        let mut counts = [self.len as u64, self.next as u64, self.grown as u64];
        visitor.u64s("replay.counts", &mut counts);
        visitor.list("replay.rows", &mut self.rows);
        self.normaliser.visit(visitor);
        self.capacity -= self.grown;
        self.grown = counts[2] as usize;
        self.capacity += self.grown;
        // A loaded ring may be of another size: what does not fit its rows would be read out of bounds.
        self.len = self.rows.len() / self.width();
        self.next = if self.len < self.capacity { self.len } else { counts[1] as usize % self.capacity };
    }

    fn width(&self) -> usize {
        2 * self.obs + self.act + 3
    }

    /// Transitions stored.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is stored.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Stores a transition, in place of the oldest where the buffer is full.
    pub fn push(&mut self, transition: Transition<'_>) {
        let (obs, act) = (self.obs, self.act);
        let width = self.width();
        if self.next == self.len {
            self.rows.resize((self.len + 1) * width, 0.0);
        }
        let row = &mut self.rows[self.next * width..(self.next + 1) * width];
        row[..obs].copy_from_slice(transition.obs);
        row[obs..2 * obs].copy_from_slice(transition.next_obs);
        row[2 * obs..2 * obs + act].copy_from_slice(transition.action);
        row[width - 3] = transition.reward;
        row[width - 2] = if transition.terminated { 0.0 } else { 1.0 };
        row[width - 1] = if transition.last { 0.0 } else { 1.0 };
        self.next = (self.next + 1) % self.capacity;
        self.len = (self.len + 1).min(self.capacity);
    }

    /// No transition goes on from the newest of each environment: what comes next starts elsewhere.
    pub fn cut(&mut self) {
        let width = self.width();
        for age in 1..=self.stride.min(self.len) {
            let at = (self.next + self.len - age) % self.len;
            self.rows[(at + 1) * width - 1] = 0.0;
        }
    }

    /// Fills `batch` with transitions drawn uniformly with replacement.
    pub fn sample(&self, batch: &mut Minibatch, noise: &mut Noise) {
        assert!(self.len > 0, "the replay buffer is empty");
        let (obs, act, width) = (self.obs, self.act, self.width());
        for i in 0..batch.reward.len() {
            let mut at = noise.below(self.len);
            let mut row = &self.rows[at * width..(at + 1) * width];
            batch.obs[i * obs..(i + 1) * obs].copy_from_slice(&row[..obs]);
            batch.action[i * act..(i + 1) * act].copy_from_slice(&row[2 * obs..2 * obs + act]);
            let (mut reward, mut discount) = (row[width - 3], 1.0);
            // Transitions that came after this one.
            let mut newer = if self.next > at { self.next - 1 - at } else { self.len + self.next - 1 - at };
            for _ in 1..self.horizon {
                if row[width - 1] == 0.0 || newer < self.stride {
                    break;
                }
                newer -= self.stride;
                at = (at + self.stride) % self.len;
                row = &self.rows[at * width..(at + 1) * width];
                discount *= self.gamma;
                reward += discount * row[width - 3];
            }
            batch.next_obs[i * obs..(i + 1) * obs].copy_from_slice(&row[obs..2 * obs]);
            batch.reward[i] = reward;
            batch.mask[i] = discount * row[width - 2];
        }
        self.normaliser.apply(&mut batch.obs);
        self.normaliser.apply(&mut batch.next_obs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Transition number `i`, recognisable in every part.
    fn push(replay: &mut Replay, i: u32) {
        let x = i as f32;
        replay.push(Transition {
            obs: &[x, x + 0.1],
            action: &[x + 0.2],
            reward: x + 0.3,
            next_obs: &[x + 0.4, x + 0.5],
            terminated: i.is_multiple_of(3),
            last: i.is_multiple_of(3),
        });
    }

    #[test]
    fn rows_stay_together_and_the_oldest_leave() {
        let mut replay = Replay::new(50, 2, 1);
        assert!(replay.is_empty());
        for i in 0..130 {
            push(&mut replay, i);
            assert_eq!(replay.len(), (i as usize + 1).min(50));
        }
        let mut batch = Minibatch::new(5000, 2, 1);
        replay.sample(&mut batch, &mut Noise::new(1, 0));
        let mut counts = [0_u32; 130];
        for i in 0..5000 {
            let x = batch.obs[i * 2];
            counts[x as usize] += 1;
            assert_eq!(batch.obs[i * 2 + 1], x + 0.1);
            assert_eq!(batch.action[i], x + 0.2);
            assert_eq!(batch.reward[i], x + 0.3);
            assert_eq!(batch.next_obs[i * 2..i * 2 + 2], [x + 0.4, x + 0.5]);
            assert_eq!(batch.mask[i], if (x as u32).is_multiple_of(3) { 0.0 } else { 1.0 });
        }
        assert!(counts[..80].iter().all(|&c| c == 0), "overwritten transitions came back");
        // Binomial(5000, 1/50): mean 100, deviation 9.9; five of them.
        assert!(counts[80..].iter().all(|&c| (50..150).contains(&c)), "{counts:?}");
    }

    /// Three environments in turn, with episodes of different lengths that end in both ways, in a ring that has wrapped:
    /// every sampled transition is what walking along its own episode gives.
    #[test]
    fn spans_follow_their_own_episode() {
        const LANES: usize = 3;
        const GAMMA: f32 = 0.9;
        // The whole history, so that a row is known by its number.
        let rows: Vec<(f32, bool, bool)> = (0..200)
            .map(|i| {
                let (lane, time) = (i % LANES, i / LANES);
                let last = time % (4 + lane) == 3 + lane;
                ((i as f32).sin(), last && time % 2 == 0, last)
            })
            .collect();
        for (horizon, pushed) in [(1, 200), (3, 200), (5, 200), (5, 31)] {
            let capacity = 50;
            let mut replay = Replay::new(capacity, 1, 1).spanning(horizon, LANES, GAMMA);
            for (i, &(reward, terminated, last)) in rows[..pushed].iter().enumerate() {
                let (obs, next_obs) = (&[i as f32], &[(i + LANES) as f32]);
                replay.push(Transition { obs, action: &[0.0], reward, next_obs, terminated, last });
            }
            let mut batch = Minibatch::new(2000, 1, 1);
            replay.sample(&mut batch, &mut Noise::new(3, 0));
            let mut longest = 0;
            for k in 0..2000 {
                let first = batch.obs[k] as usize;
                assert!(first + capacity >= pushed, "an overwritten row came back");
                let (mut at, mut steps, mut reward) = (first, 1, rows[first].0);
                while steps < horizon && !rows[at].2 && at + LANES < pushed {
                    at += LANES;
                    reward += GAMMA.powi(steps as i32) * rows[at].0;
                    steps += 1;
                }
                longest = longest.max(steps);
                assert_eq!(batch.next_obs[k], (at + LANES) as f32);
                assert!((batch.reward[k] - reward).abs() < 1e-5, "sums of five numbers below 1 in another order");
                let mask = if rows[at].1 { 0.0 } else { GAMMA.powi(steps as i32 - 1) };
                assert!((batch.mask[k] - mask).abs() < 1e-6);
            }
            assert_eq!(longest, horizon);
        }
    }

    #[test]
    fn no_span_goes_on_beyond_a_cut() {
        // Part filled, and wrapped.
        for before in [20, 130] {
            let mut replay = Replay::new(60, 1, 1).spanning(4, 2, 0.5);
            let add = |replay: &mut Replay, i: usize| {
                let (obs, next_obs) = (&[i as f32], &[(i + 2) as f32]);
                replay.push(Transition { obs, action: &[0.0], reward: 0.0, next_obs, terminated: false, last: false });
            };
            (0..before).for_each(|i| add(&mut replay, i));
            replay.cut();
            (before..before + 20).for_each(|i| add(&mut replay, i));
            let mut batch = Minibatch::new(2000, 1, 1);
            replay.sample(&mut batch, &mut Noise::new(4, 0));
            for k in 0..2000 {
                let (from, to) = (batch.obs[k] as usize, batch.next_obs[k] as usize);
                // The first row of the same environment on the other side of the cut, or of the end.
                let side = if from < before { before } else { before + 20 };
                let ends = side + (from + side) % 2;
                assert_eq!(to, (from + 8).min(ends), "from {from}");
            }
        }
    }

    #[test]
    fn a_part_filled_ring_gives_only_what_it_holds() {
        let mut replay = Replay::new(1000, 2, 1);
        (0..3).for_each(|i| push(&mut replay, i + 7));
        let mut batch = Minibatch::new(100, 2, 1);
        replay.sample(&mut batch, &mut Noise::new(2, 0));
        assert!(batch.obs.chunks(2).all(|o| (7.0..10.0).contains(&o[0])));
    }
}
