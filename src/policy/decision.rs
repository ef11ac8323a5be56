//! One decision: normalise, draw noise, integrate, squash and scale.
//!
//! [`Policy`] is a view that borrows an artefact and decides in memory the caller lends; [`StaticPolicy`] owns that
//! memory with its sizes in the type, for firmware. Both run the same code. No panics, no allocation; the same
//! artefact, seed and observations give the same bits on every machine. An action is written only when it is finite
//! and inside its limits.
//!
//! Cost: see [`Policy::macs_per_decision`]; besides the multiply-accumulates a decision draws `act` numbers from the source and
//! takes `act` hyperbolic tangents.

use super::{Artefact, ArtefactError, BestOfScratch, Menu};
use crate::flow::{Plan, PlanError, SampleError, Sampler, SamplerScratch};
use crate::math;
use crate::net::VelocityShape;
use rand_core::Rng;

/// Why a policy cannot decide.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum PolicyError {
    /// The artefact was refused.
    Artefact(ArtefactError),
    /// The plan was refused.
    Plan(PlanError),
    /// The sample failed.
    Sample(SampleError),
    /// This observation channel is not finite; a sensor has failed.
    Observation {
        /// Index of the channel.
        channel: usize,
    },
    /// A slice does not have the length the policy needs.
    Length {
        /// What the slice holds.
        what: &'static str,
        /// Length it needs.
        expected: usize,
        /// Length it has.
        found: usize,
    },
    /// The self-test gave other bits than the artefact expects: this machine does not compute what was measured.
    SelfTest,
    /// Best-of-n selection needs an artefact with a critic.
    NoCritic,
}

/// Memory a decision writes.
#[derive(Debug)]
pub struct PolicyScratch<'s> {
    /// Memory of the sampler.
    pub sampler: SamplerScratch<'s>,
    /// Normalised observation, `obs` floats.
    pub state: &'s mut [f32],
    /// Latent, `act` floats.
    pub latent: &'s mut [f32],
}

impl<'s> PolicyScratch<'s> {
    /// Floats that [`carve`](Self::carve) takes for a shape and plan.
    pub const fn len(shape: &VelocityShape, plan: &Plan) -> usize {
        let layers = plan.nodes().saturating_add(4).saturating_mul(shape.hidden);
        layers.saturating_add(shape.obs).saturating_add(shape.act.saturating_mul(4))
    }

    /// The scratch as parts of one slice of at least [`len`](Self::len) floats; `None` when it is shorter.
    pub fn carve(shape: &VelocityShape, plan: &Plan, memory: &'s mut [f32]) -> Option<Self> {
        let h = shape.hidden;
        let (table, memory) = memory.split_at_mut_checked(plan.nodes().saturating_mul(h))?;
        let (state_part, memory) = memory.split_at_mut_checked(h)?;
        let (base, memory) = memory.split_at_mut_checked(h)?;
        let (a, memory) = memory.split_at_mut_checked(h)?;
        let (b, memory) = memory.split_at_mut_checked(h)?;
        let (slopes, memory) = memory.split_at_mut_checked(shape.act.saturating_mul(3))?;
        let (state, memory) = memory.split_at_mut_checked(shape.obs)?;
        let (latent, _) = memory.split_at_mut_checked(shape.act)?;
        let sampler = SamplerScratch { table, state: state_part, base, a, b, slopes };
        Some(Self { sampler, state, latent })
    }
}

/// A policy as a view over an artefact.
#[derive(Debug, Clone, Copy)]
pub struct Policy<'a> {
    artefact: Artefact<'a>,
    plan: Plan,
    /// Factor of the noise at the plan's start, 1 for every schedule but VE.
    start_scale: f32,
}

impl<'a> Policy<'a> {
    /// The policy of an artefact, with the plan it was exported with.
    #[inline(never)]
    pub fn new(artefact: Artefact<'a>) -> Result<Self, PolicyError> {
        Self::with_plan(artefact, *artefact.plan())
    }

    /// The policy with another plan: fewer steps for a shorter deadline, say.
    pub fn with_plan(artefact: Artefact<'a>, plan: Plan) -> Result<Self, PolicyError> {
        plan.check().map_err(PolicyError::Plan)?;
        let start_scale = artefact.schedule().start_scale(plan.t_start);
        Ok(Self { artefact, plan, start_scale })
    }

    /// The artefact.
    pub fn artefact(&self) -> &Artefact<'a> {
        &self.artefact
    }

    /// The plan of integration.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn sampler(&self) -> Sampler<'_> {
        Sampler::by_checked(self.artefact.velocity(), self.plan)
    }

    /// Changes the number of steps; the scratch must then hold the time table of the new plan.
    pub fn set_steps(&mut self, steps: usize) -> Result<(), PolicyError> {
        let plan = Plan { steps, ..*self.plan() };
        plan.check().map_err(PolicyError::Plan)?;
        self.plan = plan;
        Ok(())
    }

    /// Multiply-accumulates of one decision:
    /// `obs H + evaluations ((act + (L - 1) H) H + H act)`, the time part cached.
    pub fn macs_per_decision(&self) -> usize {
        let shape = self.artefact.velocity().shape();
        let evaluations = self.plan().evaluations().saturating_mul(shape.macs_per_evaluation());
        shape.macs_of_state_part().saturating_add(evaluations)
    }

    /// Multiply-accumulates a decision that the table of time parts saves: `evaluations 2F H`.
    pub fn macs_saved_per_decision(&self) -> usize {
        self.plan().evaluations().saturating_mul(self.artefact.velocity().shape().macs_of_time_part())
    }

    /// Fills the table of time parts; once for a policy and scratch.
    pub fn prepare(&self, scratch: &mut PolicyScratch<'_>) -> Result<(), PolicyError> {
        self.sampler().prepare(&mut scratch.sampler).map_err(PolicyError::Sample)
    }

    /// Decides: draws noise from `rng` and writes an action in the plant's units.
    ///
    /// `observation` is in the plant's units too. On an error `action` is left as it was.
    pub fn act<R: Rng + ?Sized>(
        &self,
        observation: &[f32],
        rng: &mut R,
        scratch: &mut PolicyScratch<'_>,
        action: &mut [f32],
    ) -> Result<(), PolicyError> {
        self.check_action(action)?;
        self.observe(observation, scratch)?;
        self.draw(rng, scratch)?;
        self.artefact.range().apply(self.latent(scratch)?, action);
        Ok(())
    }

    /// Decides from given noise, which is what the self-test does.
    pub fn act_from_noise(
        &self,
        observation: &[f32],
        noise: &[f32],
        scratch: &mut PolicyScratch<'_>,
        action: &mut [f32],
    ) -> Result<(), PolicyError> {
        self.check_action(action)?;
        self.observe(observation, scratch)?;
        let latent = scratch.latent.get_mut(..self.act_dim()).ok_or(PolicyError::Sample(SampleError::Scratch))?;
        check_length("the noise", noise, latent.len())?;
        for (latent, noise) in latent.iter_mut().zip(noise) {
            *latent = math::flush(*noise);
        }
        self.scale(latent);
        self.sampler().integrate(latent, &mut scratch.sampler).map_err(PolicyError::Sample)?;
        self.artefact.range().apply(latent, action);
        Ok(())
    }

    /// Runs the artefact's self-test and compares bits; `action` is overwritten.
    ///
    /// The test runs by the plan the policy has, so it passes only with the artefact's own.
    pub fn self_test(&self, scratch: &mut PolicyScratch<'_>, action: &mut [f32]) -> Result<(), PolicyError> {
        let (observation, noise, expected, _) = self.artefact.self_test();
        self.act_from_noise(observation, noise, scratch, action)?;
        let same = action.iter().zip(expected).all(|(a, e)| a.to_bits() == e.to_bits());
        if same { Ok(()) } else { Err(PolicyError::SelfTest) }
    }

    /// Runs the self-test and then the critics' part of it: their values at the self-test's observation and latent.
    ///
    /// For programs that choose by the critics; an artefact without any passes as by [`self_test`](Self::self_test).
    pub fn self_test_critics(
        &self,
        scratch: &mut PolicyScratch<'_>,
        selection: &mut BestOfScratch<'_>,
        action: &mut [f32],
    ) -> Result<(), PolicyError> {
        self.self_test(scratch, action)?;
        let expected = self.artefact.self_test().3;
        if expected.is_empty() {
            return Ok(());
        }
        let values = self.critic_values(scratch, selection)?;
        let same = values.iter().zip(expected).all(|(value, e)| value.to_bits() == e.to_bits());
        if same { Ok(()) } else { Err(PolicyError::SelfTest) }
    }

    /// Normalises an observation and computes the state part of the first layer.
    pub(super) fn observe(&self, observation: &[f32], scratch: &mut PolicyScratch<'_>) -> Result<(), PolicyError> {
        let obs = self.artefact.velocity().shape().obs;
        check_length("the observation", observation, obs)?;
        let state = scratch.state.get_mut(..obs).ok_or(PolicyError::Sample(SampleError::Scratch))?;
        let normalised = self.artefact.normalizer().apply(observation, state);
        normalised.map_err(|channel| PolicyError::Observation { channel })?;
        self.sampler().observe(state, &mut scratch.sampler).map_err(PolicyError::Sample)
    }

    /// Draws one latent for the observation taken in last, into `scratch.latent`.
    pub(super) fn draw<R: Rng + ?Sized>(
        &self,
        rng: &mut R,
        scratch: &mut PolicyScratch<'_>,
    ) -> Result<(), PolicyError> {
        let latent = scratch.latent.get_mut(..self.act_dim()).ok_or(PolicyError::Sample(SampleError::Scratch))?;
        self.artefact.source().sample(rng, latent);
        self.scale(latent);
        self.sampler().integrate(latent, &mut scratch.sampler).map_err(PolicyError::Sample)
    }

    /// Makes source noise the start of the integration.
    pub(super) fn scale(&self, latent: &mut [f32]) {
        if self.start_scale != 1.0 {
            latent.iter_mut().for_each(|x| *x = math::flush(self.start_scale * *x));
        }
    }

    pub(super) fn act_dim(&self) -> usize {
        self.artefact.velocity().shape().act
    }

    pub(super) fn check_action(&self, action: &[f32]) -> Result<(), PolicyError> {
        check_length("the action", action, self.act_dim())
    }

    fn latent<'s>(&self, scratch: &'s PolicyScratch<'_>) -> Result<&'s [f32], PolicyError> {
        scratch.latent.get(..self.act_dim()).ok_or(PolicyError::Sample(SampleError::Scratch))
    }
}

fn check_length(what: &'static str, slice: &[f32], expected: usize) -> Result<(), PolicyError> {
    if slice.len() == expected { Ok(()) } else { Err(PolicyError::Length { what, expected, found: slice.len() }) }
}

/// A policy with the memory for its decisions, sizes in the type.
///
/// `NODES` is [`Plan::nodes`]: the number of Euler steps, for instance; with several plans
/// ([`with_menu`](Self::with_menu)) it is [`Menu::nodes`], the sum of theirs. Size: `(NODES + 4) HIDDEN + OBS + 4 ACT`
/// floats beside the view.
///
/// ```no_run
/// use flowlet::policy::StaticPolicy;
/// use rand_xoshiro::{Xoshiro128PlusPlus, rand_core::SeedableRng};
///
/// # fn main() -> Result<(), flowlet::policy::PolicyError> {
/// # let bytes: &[u8] = &[];
/// let mut policy = StaticPolicy::<3, 1, 64, 3>::new(bytes)?; // bytes: the artefact, in flash
/// policy.self_test()?;
/// let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
/// let torque = policy.act(&[1.0, 0.0, 0.3], &mut rng)?;
/// # let _ = torque; Ok(()) }
/// ```
#[derive(Debug)]
pub struct StaticPolicy<'a, const OBS: usize, const ACT: usize, const HIDDEN: usize, const NODES: usize> {
    policy: Policy<'a>,
    menu: Menu,
    /// The first row of the present plan's time table.
    first_node: usize,
    table: [[f32; HIDDEN]; NODES],
    layers: [[f32; HIDDEN]; 4],
    slopes: [[f32; ACT]; 3],
    state: [f32; OBS],
    latent: [f32; ACT],
}

impl<'a, const OBS: usize, const ACT: usize, const HIDDEN: usize, const NODES: usize>
    StaticPolicy<'a, OBS, ACT, HIDDEN, NODES>
{
    /// Checks the bytes of an artefact and its fit to the type's sizes, and fills the time table.
    ///
    /// Until it has reached its variable the owner is moved, which takes several times its size of stack;
    /// [`place`](Self::place) takes none.
    pub fn new(bytes: &'a [u8]) -> Result<Self, PolicyError> {
        Self::from_policy(Policy::new(Artefact::new(bytes).map_err(PolicyError::Artefact)?)?)
    }

    /// The same for a policy that was checked before, with a plan of its own perhaps.
    pub fn from_policy(policy: Policy<'a>) -> Result<Self, PolicyError> {
        Self::with_menu(policy, Menu::single(policy.plan().steps))
    }

    /// The same with a time table for every plan of `menu`; the longest is chosen, see [`select`](Self::select).
    pub fn with_menu(policy: Policy<'a>, menu: Menu) -> Result<Self, PolicyError> {
        let mut place = None;
        Self::place(&mut place, &policy, menu)?;
        place.ok_or(PolicyError::Sample(SampleError::Scratch))
    }

    /// The same in the caller's memory, for a stack that has no room to move an owner: it is made where it stays.
    ///
    /// On an error the place is empty.
    pub fn place<'p>(
        place: &'p mut Option<Self>,
        policy: &Policy<'a>,
        menu: Menu,
    ) -> Result<&'p mut Self, PolicyError> {
        if let Err(error) = Self::fill(place, policy, menu) {
            *place = None;
            return Err(error);
        }
        place.as_mut().ok_or(PolicyError::Sample(SampleError::Scratch))
    }

    #[inline(never)]
    fn fill(place: &mut Option<Self>, policy: &Policy<'a>, menu: Menu) -> Result<(), PolicyError> {
        let shape = *policy.artefact.velocity().shape();
        for (what, expected, found) in [
            ("the observations of the firmware's type", shape.obs, OBS),
            ("the actions of the firmware's type", shape.act, ACT),
            ("the hidden width of the firmware's type", shape.hidden, HIDDEN),
            ("the time nodes of the firmware's type", menu.nodes(policy.plan().solver), NODES),
        ] {
            if expected != found {
                return Err(PolicyError::Length { what, expected, found });
            }
        }
        *place = Some(Self {
            policy: *policy,
            menu,
            first_node: 0,
            // Constants are filled in place, where an expression would be made on the stack first.
            table: const { [[0.0; HIDDEN]; NODES] },
            layers: const { [[0.0; HIDDEN]; 4] },
            slopes: [[0.0; ACT]; 3],
            state: [0.0; OBS],
            latent: [0.0; ACT],
        });
        let Some(owner) = place else { return Err(PolicyError::Sample(SampleError::Scratch)) };
        for index in 0..menu.len() {
            owner.select(index)?;
            let (policy, mut scratch) = owner.parts();
            policy.prepare(&mut scratch)?;
        }
        Ok(())
    }

    /// The plans among which [`select`](Self::select) chooses.
    pub fn menu(&self) -> &Menu {
        &self.menu
    }

    /// Decides by the plan of this index from now on, the longest beyond the end; costs no evaluation.
    pub fn select(&mut self, index: usize) -> Result<(), PolicyError> {
        let index = index.min(self.menu.len().saturating_sub(1));
        self.policy.set_steps(self.menu.steps(index))?;
        self.first_node = self.menu.first_node(index, self.policy.plan().solver);
        Ok(())
    }

    /// The policy without its memory.
    pub fn policy(&self) -> &Policy<'a> {
        &self.policy
    }

    /// Decides; see [`Policy::act`].
    #[inline]
    pub fn act<R: Rng + ?Sized>(&mut self, observation: &[f32; OBS], rng: &mut R) -> Result<[f32; ACT], PolicyError> {
        let mut action = [0.0; ACT];
        let (policy, mut scratch) = self.parts();
        policy.act(observation, rng, &mut scratch, &mut action)?;
        Ok(action)
    }

    /// Runs the artefact's self-test; see [`Policy::self_test`].
    pub fn self_test(&mut self) -> Result<(), PolicyError> {
        let mut action = [0.0; ACT];
        let (policy, mut scratch) = self.parts();
        policy.self_test(&mut scratch, &mut action)
    }

    /// The view and its memory, for the calls that this type does not repeat.
    pub fn parts(&mut self) -> (&Policy<'a>, PolicyScratch<'_>) {
        let [state, base, a, b] = &mut self.layers;
        let sampler = SamplerScratch {
            table: self.table.get_mut(self.first_node..).unwrap_or(&mut []).as_flattened_mut(),
            state,
            base,
            a,
            b,
            slopes: self.slopes.as_flattened_mut(),
        };
        (&self.policy, PolicyScratch { sampler, state: &mut self.state, latent: &mut self.latent })
    }
}

impl core::fmt::Display for PolicyError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Artefact(error) => error.fmt(f),
            Self::Plan(error) => error.fmt(f),
            Self::Sample(error) => error.fmt(f),
            Self::Observation { channel } => {
                write!(f, "observation channel {channel} is not finite: check that sensor")
            }
            Self::Length { what, expected, found } => {
                write!(f, "the policy needs {expected} for {what}, which has {found}")
            }
            Self::SelfTest => f.write_str(
                "the self-test gave other bits than the artefact expects: this machine does not compute what was measured",
            ),
            Self::NoCritic => f.write_str("best-of-n selection needs an artefact with a critic"),
        }
    }
}

impl core::error::Error for PolicyError {}
