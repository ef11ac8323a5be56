//! Best of n: draw several actions and keep the one the artefact's critics value most.
//!
//! The value is the smaller of the critics' where there are two. No panics, no allocation; `n` samples and `n`
//! critic evaluations, the state halves of all first layers computed once.

use super::{Policy, PolicyError, PolicyScratch};
use crate::flow::SampleError;
use crate::net::{CriticScratch, CriticShape};
use rand_core::Rng;

/// Memory that the selection writes, beside the decision's own.
#[derive(Debug)]
pub struct BestOfScratch<'s> {
    /// State halves of the critics' first layers, `critics * critic H` floats.
    pub state_parts: &'s mut [f32],
    /// Memory of one critic evaluation.
    pub critic: CriticScratch<'s>,
    /// Squashed action, `act` floats.
    pub squashed: &'s mut [f32],
    /// Best latent so far, `act` floats.
    pub best: &'s mut [f32],
}

impl<'s> BestOfScratch<'s> {
    /// Floats that [`carve`](Self::carve) takes for `count` critics of a shape.
    pub const fn len(shape: &CriticShape, count: usize) -> usize {
        let rows = count.saturating_add(shape.layers).saturating_add(2);
        rows.saturating_mul(shape.hidden).saturating_add(shape.act.saturating_mul(2))
    }

    /// The scratch as parts of one slice of at least [`len`](Self::len) floats; `None` when it is shorter.
    pub fn carve(shape: &CriticShape, count: usize, memory: &'s mut [f32]) -> Option<Self> {
        let h = shape.hidden;
        let (state_parts, memory) = memory.split_at_mut_checked(count.saturating_mul(h))?;
        let (pre, memory) = memory.split_at_mut_checked(shape.layers.saturating_mul(h))?;
        let (a, memory) = memory.split_at_mut_checked(h)?;
        let (b, memory) = memory.split_at_mut_checked(h)?;
        let (squashed, memory) = memory.split_at_mut_checked(shape.act)?;
        let (best, _) = memory.split_at_mut_checked(shape.act)?;
        Some(Self { state_parts, critic: CriticScratch { pre, a, b }, squashed, best })
    }
}

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
        let short = PolicyError::Sample(SampleError::Scratch);
        self.check_action(action)?;
        self.observe(observation, scratch)?;
        self.observe_critics(scratch, selection)?;
        let act = self.act_dim();
        let mut best_value = f32::NEG_INFINITY;
        for i in 0..n.max(1) {
            self.draw(rng, scratch)?;
            let value = self.values(scratch, selection)?.into_iter().fold(f32::INFINITY, |low, q| {
                // NaN wins, and then loses against every other action below.
                if q < low || q.is_nan() { q } else { low }
            });
            if i == 0 || value > best_value || (best_value.is_nan() && !value.is_nan()) {
                best_value = value;
                let best = selection.best.get_mut(..act).ok_or(short)?;
                best.copy_from_slice(scratch.latent.get(..act).ok_or(short)?);
            }
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
        self.values(scratch, selection)
    }

    /// Checks the lent memory and computes the state half of each critic's first layer.
    fn observe_critics(
        &self,
        scratch: &PolicyScratch<'_>,
        selection: &mut BestOfScratch<'_>,
    ) -> Result<(), PolicyError> {
        let short = PolicyError::Sample(SampleError::Scratch);
        let mut parts = &mut *selection.state_parts;
        let mut critics = 0;
        for critic in self.artefact().critics() {
            let (width, layers) = (critic.shape().hidden, critic.shape().layers);
            let memory = &selection.critic;
            if memory.pre.len() < layers * width || memory.a.len() != width || memory.b.len() != width {
                return Err(short);
            }
            let (part, rest) = parts.split_at_mut_checked(width).ok_or(short)?;
            critic.state_part(scratch.state, part);
            parts = rest;
            critics += 1;
        }
        if critics == 0 { Err(PolicyError::NoCritic) } else { Ok(()) }
    }

    fn values(&self, scratch: &PolicyScratch<'_>, selection: &mut BestOfScratch<'_>) -> Result<[f32; 2], PolicyError> {
        let BestOfScratch { state_parts, critic: memory, squashed, .. } = selection;
        let squashed = squashed.get_mut(..self.act_dim()).ok_or(PolicyError::Sample(SampleError::Scratch))?;
        self.artefact().range().squash.apply(scratch.latent, squashed);
        let mut values = [f32::INFINITY; 2];
        let mut parts = &**state_parts;
        for (value, critic) in values.iter_mut().zip(self.artefact().critics()) {
            let (part, rest) = parts.split_at_checked(critic.shape().hidden).unwrap_or((parts, &[]));
            *value = critic.value(part, squashed, memory);
            parts = rest;
        }
        Ok(values)
    }
}
