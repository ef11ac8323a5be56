//! Best of n: draw several actions and keep the one the artefact's critics value most.
//!
//! The value is the smaller of the critics' where there are two. Actions are drawn and valued in groups of
//! [`LANES`], which read every weight once; noise is drawn in the order of single draws, and the result has the bits of
//! `n` single draws one after the other. No panics, no allocation; the memory does not grow with `n`. Cost: that of `n`
//! rounded up to whole groups, the state halves of all first layers computed once.

use super::{Policy, PolicyError, PolicyScratch, StaticPolicy};
use crate::flow::SampleError;
use crate::net::{CriticShape, LANES, VelocityShape};
use rand_core::Rng;

/// Memory that the selection writes, beside the decision's own. Lanes are interleaved: row `j` holds number `j` of every
/// action of a group.
#[derive(Debug)]
pub struct BestOfScratch<'s> {
    /// State halves of the critics' first layers, `critics * critic H` floats.
    pub state_parts: &'s mut [f32],
    /// Two layers, each of as many rows as the wider of the networks.
    pub layers: [&'s mut [[f32; LANES]]; 2],
    /// Latents of a group, `act` rows.
    pub latents: &'s mut [[f32; LANES]],
    /// Slopes of the solver, `3 act` rows.
    pub slopes: &'s mut [[f32; LANES]],
    /// Squashed actions of a group, `act` rows.
    pub squashed: &'s mut [[f32; LANES]],
    /// Best latent so far, `act` floats.
    pub best: &'s mut [f32],
}

impl<'s> BestOfScratch<'s> {
    /// Floats that [`carve`](Self::carve) takes for `count` critics of a shape beside a velocity network.
    pub const fn len(velocity: &VelocityShape, critic: &CriticShape, count: usize) -> usize {
        let layers = widest(velocity, critic).saturating_mul(2 * LANES);
        let actions = velocity.act.saturating_mul(5 * LANES + 1);
        count.saturating_mul(critic.hidden).saturating_add(layers).saturating_add(actions)
    }

    /// The scratch as parts of one slice of at least [`len`](Self::len) floats; `None` when it is shorter.
    pub fn carve(velocity: &VelocityShape, critic: &CriticShape, count: usize, memory: &'s mut [f32]) -> Option<Self> {
        let (width, act) = (widest(velocity, critic), velocity.act);
        let (state_parts, memory) = memory.split_at_mut_checked(count.saturating_mul(critic.hidden))?;
        let (best, memory) = memory.split_at_mut_checked(act)?;
        let (a, rows) = memory.as_chunks_mut().0.split_at_mut_checked(width)?;
        let (b, rows) = rows.split_at_mut_checked(width)?;
        let (latents, rows) = rows.split_at_mut_checked(act)?;
        let (slopes, rows) = rows.split_at_mut_checked(act.saturating_mul(3))?;
        let (squashed, _) = rows.split_at_mut_checked(act)?;
        Some(Self { state_parts, layers: [a, b], latents, slopes, squashed, best })
    }
}

/// Width of the wider network.
const fn widest(velocity: &VelocityShape, critic: &CriticShape) -> usize {
    if velocity.hidden > critic.hidden { velocity.hidden } else { critic.hidden }
}

const SHORT: PolicyError = PolicyError::Sample(SampleError::Scratch);

impl Policy<'_> {
    /// Draws `n` actions (at least one) and writes the one with the greatest value, which is returned.
    ///
    /// On an error `action` is left as it was.
    pub fn act_best_of<R: Rng + ?Sized>(
        &self,
        observation: &[f32],
        n: usize,
        rng: &mut R,
        scratch: &mut PolicyScratch<'_>,
        selection: &mut BestOfScratch<'_>,
        action: &mut [f32],
    ) -> Result<f32, PolicyError> {
        self.check_action(action)?;
        self.observe(observation, scratch)?;
        self.observe_critics(scratch, selection)?;
        let mut best_value = f32::NEG_INFINITY;
        let (mut first, mut left) = (true, n.max(1));
        while left > 0 {
            let count = left.min(LANES);
            self.draw_group(count, rng, scratch, selection)?;
            let [one, two] = self.values(selection)?;
            for (lane, (one, two)) in one.into_iter().zip(two).enumerate().take(count) {
                // NaN wins, and then loses against every other action below.
                let lower = |low: f32, q: f32| if q < low || q.is_nan() { q } else { low };
                let value = lower(lower(f32::INFINITY, one), two);
                if first || value > best_value || (best_value.is_nan() && !value.is_nan()) {
                    (first, best_value) = (false, value);
                    for (best, latents) in selection.best.iter_mut().zip(selection.latents.iter()) {
                        *best = latents.get(lane).copied().unwrap_or(0.0);
                    }
                }
            }
            left -= count;
        }
        self.artefact().range().apply(selection.best, action);
        Ok(best_value)
    }

    /// Each critic's value of the observation and latent that `scratch` holds; infinite where there is no critic.
    pub fn critic_values(
        &self,
        scratch: &PolicyScratch<'_>,
        selection: &mut BestOfScratch<'_>,
    ) -> Result<[f32; 2], PolicyError> {
        self.observe_critics(scratch, selection)?;
        let latents = selection.latents.get_mut(..self.act_dim()).ok_or(SHORT)?;
        for (lanes, latent) in latents.iter_mut().zip(scratch.latent.iter()) {
            lanes.fill(*latent);
        }
        Ok(self.values(selection)?.map(|[first, ..]| first))
    }

    /// Draws the latents of a group, `count` of them; what is left of its lanes repeats the first.
    fn draw_group<R: Rng + ?Sized>(
        &self,
        count: usize,
        rng: &mut R,
        scratch: &mut PolicyScratch<'_>,
        selection: &mut BestOfScratch<'_>,
    ) -> Result<(), PolicyError> {
        let act = self.act_dim();
        let latents = selection.latents.get_mut(..act).ok_or(SHORT)?;
        let noise = scratch.latent.get_mut(..act).ok_or(SHORT)?;
        for lane in 0..count {
            self.artefact().source().sample(rng, noise);
            self.scale(noise);
            for (lanes, noise) in latents.iter_mut().zip(noise.iter()) {
                // The first one fills the row, and the others take their places in it.
                let places = if lane == 0 { lanes.get_mut(..) } else { lanes.get_mut(lane..=lane) };
                places.into_iter().flatten().for_each(|place| *place = *noise);
            }
        }
        let [a, b] = &mut selection.layers;
        let integrated = self.sampler().integrate_batch(latents, &mut scratch.sampler, [a, b], selection.slopes);
        integrated.map_err(PolicyError::Sample)
    }

    /// Checks the lent memory and computes the state half of each critic's first layer.
    fn observe_critics(
        &self,
        scratch: &PolicyScratch<'_>,
        selection: &mut BestOfScratch<'_>,
    ) -> Result<(), PolicyError> {
        let mut parts = &mut *selection.state_parts;
        let mut critics = 0;
        for critic in self.artefact().critics() {
            let width = critic.shape().hidden;
            if selection.layers.iter().any(|layer| layer.len() < width) {
                return Err(SHORT);
            }
            let (part, rest) = parts.split_at_mut_checked(width).ok_or(SHORT)?;
            critic.state_part(scratch.state, part);
            parts = rest;
            critics += 1;
        }
        if critics == 0 { Err(PolicyError::NoCritic) } else { Ok(()) }
    }

    /// Each critic's values of the group in `selection.latents`.
    fn values(&self, selection: &mut BestOfScratch<'_>) -> Result<[[f32; LANES]; 2], PolicyError> {
        let BestOfScratch { state_parts, layers: [a, b], latents, squashed, .. } = selection;
        let act = self.act_dim();
        let (latents, squashed) = (latents.get(..act).ok_or(SHORT)?, squashed.get_mut(..act).ok_or(SHORT)?);
        self.artefact().range().squash.apply(latents.as_flattened(), squashed.as_flattened_mut());
        let mut values = [[f32::INFINITY; LANES]; 2];
        let mut parts = &**state_parts;
        for (values, critic) in values.iter_mut().zip(self.artefact().critics()) {
            let width = critic.shape().hidden;
            let (part, rest) = parts.split_at_checked(width).unwrap_or((parts, &[]));
            let (a, b) = (a.get_mut(..width).ok_or(SHORT)?, b.get_mut(..width).ok_or(SHORT)?);
            *values = critic.values_batch(part, squashed, [a, b]);
            parts = rest;
        }
        Ok(values)
    }
}

/// A policy that chooses by its critics, with the memory for that, sizes in the type.
///
/// The first four sizes are those of [`StaticPolicy`]; `CRITIC` is the critics' width and `WIDTH` the larger of `HIDDEN` and
/// `CRITIC`. Size: `2 CRITIC + 8 WIDTH + 21 ACT` floats beside the policy's, whatever the number of actions drawn.
///
/// ```no_run
/// use flowlet::policy::{StaticBestOf, StaticPolicy};
/// use rand_xoshiro::{Xoshiro128PlusPlus, rand_core::SeedableRng};
///
/// # fn main() -> Result<(), flowlet::policy::PolicyError> {
/// # let bytes: &[u8] = &[];
/// let policy = StaticPolicy::<3, 1, 64, 5>::new(bytes)?; // bytes: the artefact, in flash
/// let mut policy = StaticBestOf::<3, 1, 64, 5, 48, 64>::new(policy)?;
/// policy.self_test()?;
/// let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
/// let torque = policy.act(&[1.0, 0.0, 0.3], 8, &mut rng)?;
/// # let _ = torque; Ok(()) }
/// ```
#[derive(Debug)]
pub struct StaticBestOf<
    'a,
    const OBS: usize,
    const ACT: usize,
    const HIDDEN: usize,
    const NODES: usize,
    const CRITIC: usize,
    const WIDTH: usize,
> {
    policy: StaticPolicy<'a, OBS, ACT, HIDDEN, NODES>,
    state_parts: [[f32; CRITIC]; 2],
    layers: [[[f32; LANES]; WIDTH]; 2],
    latents: [[f32; LANES]; ACT],
    slopes: [[[f32; LANES]; ACT]; 3],
    squashed: [[f32; LANES]; ACT],
    best: [f32; ACT],
}

impl<
    'a,
    const OBS: usize,
    const ACT: usize,
    const HIDDEN: usize,
    const NODES: usize,
    const CRITIC: usize,
    const WIDTH: usize,
> StaticBestOf<'a, OBS, ACT, HIDDEN, NODES, CRITIC, WIDTH>
{
    /// Checks that critics travel with the policy and fit the type's sizes.
    pub fn new(policy: StaticPolicy<'a, OBS, ACT, HIDDEN, NODES>) -> Result<Self, PolicyError> {
        let critic = policy.policy().artefact().critics().next().ok_or(PolicyError::NoCritic)?;
        for (what, expected, found) in [
            ("the critics' width of the firmware's type", critic.shape().hidden, CRITIC),
            ("the wider network's width of the firmware's type", HIDDEN.max(CRITIC), WIDTH),
        ] {
            if expected != found {
                return Err(PolicyError::Length { what, expected, found });
            }
        }
        Ok(Self {
            policy,
            state_parts: [[0.0; CRITIC]; 2],
            layers: [[[0.0; LANES]; WIDTH]; 2],
            latents: [[0.0; LANES]; ACT],
            slopes: [[[0.0; LANES]; ACT]; 3],
            squashed: [[0.0; LANES]; ACT],
            best: [0.0; ACT],
        })
    }

    /// The policy, for the calls that this type does not repeat: a single draw, or the choice of a plan.
    pub fn policy(&mut self) -> &mut StaticPolicy<'a, OBS, ACT, HIDDEN, NODES> {
        &mut self.policy
    }

    /// The best of `n` actions; see [`Policy::act_best_of`].
    pub fn act<R: Rng + ?Sized>(
        &mut self,
        observation: &[f32; OBS],
        n: usize,
        rng: &mut R,
    ) -> Result<[f32; ACT], PolicyError> {
        let mut action = [0.0; ACT];
        let (policy, mut scratch, mut selection) = self.parts();
        policy.act_best_of(observation, n, rng, &mut scratch, &mut selection, &mut action)?;
        Ok(action)
    }

    /// Runs the self-test with the critics' part of it; see [`Policy::self_test_critics`].
    pub fn self_test(&mut self) -> Result<(), PolicyError> {
        let mut action = [0.0; ACT];
        let (policy, mut scratch, mut selection) = self.parts();
        policy.self_test_critics(&mut scratch, &mut selection, &mut action)
    }

    fn parts(&mut self) -> (&Policy<'a>, PolicyScratch<'_>, BestOfScratch<'_>) {
        let (policy, scratch) = self.policy.parts();
        let [a, b] = &mut self.layers;
        let selection = BestOfScratch {
            state_parts: self.state_parts.as_flattened_mut(),
            layers: [a, b],
            latents: &mut self.latents,
            slopes: self.slopes.as_flattened_mut(),
            squashed: &mut self.squashed,
            best: &mut self.best,
        };
        (policy, scratch, selection)
    }
}
