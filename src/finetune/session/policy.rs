//! A session as what a controller asks for its decisions. No panics, no allocation.

use super::{Session, SessionError};
use crate::control::Decider;
use crate::policy::{Artefact, Menu, PolicyError};
use rand_core::Rng;

/// A session as the decider of a [`Controller`](crate::control::Controller): `factory` decides for the factory's weights, by
/// its own kernels and with its own self-test, so that a session that does not learn has the bits of the plain policy.
#[derive(Debug)]
pub struct LearningPolicy<'a, P, M> {
    factory: P,
    session: Session<'a, M>,
}

impl<'a, P, M: AsRef<[u32]> + AsMut<[u32]>> LearningPolicy<'a, P, M> {
    /// Both are of the same artefact.
    pub fn new<const OBS: usize, const ACT: usize>(factory: P, session: Session<'a, M>) -> Result<Self, SessionError>
    where
        P: Decider<OBS, ACT>,
    {
        let velocity = factory.artefact().velocity().as_f32();
        if velocity.is_none_or(|velocity| velocity.params() != session.learner.factory()) {
            return Err(SessionError::OtherPolicy);
        }
        Ok(Self { factory, session })
    }

    /// The session.
    pub fn session(&self) -> &Session<'a, M> {
        &self.session
    }

    /// The session, between two steps.
    pub fn session_mut(&mut self) -> &mut Session<'a, M> {
        &mut self.session
    }
}

impl<P, M, const OBS: usize, const ACT: usize> Decider<OBS, ACT> for LearningPolicy<'_, P, M>
where
    P: Decider<OBS, ACT>,
    M: AsRef<[u32]> + AsMut<[u32]>,
{
    fn artefact(&self) -> &Artefact<'_> {
        self.factory.artefact()
    }

    fn menu(&self) -> &Menu {
        self.factory.menu()
    }

    fn select(&mut self, plan: usize) -> Result<(), PolicyError> {
        self.factory.select(plan)
    }

    fn self_test(&mut self) -> Result<(), PolicyError> {
        self.factory.self_test()
    }

    fn decide<R: Rng + ?Sized>(&mut self, observation: &[f32; OBS], rng: &mut R) -> Result<[f32; ACT], PolicyError> {
        let mut action = [0.0; ACT];
        let factory = &mut self.factory;
        self.session.decide(observation, rng, &mut action, |rng: &mut R, action: &mut [f32]| {
            action.copy_from_slice(&factory.decide(observation, rng)?);
            Ok::<(), PolicyError>(())
        })?;
        Ok(action)
    }
}
