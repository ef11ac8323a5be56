//! The table a robot builder needs: what steps and particles buy in return and take in instructions and memory.
//!
//! Returns are played by flowlet's own sampler on the bytes that would be flashed; every row plays the same episodes, so
//! that rows are compared by the differences of paired episodes. Deterministic for a seed; no panics.

pub mod cost;

use crate::env;
use crate::evaluate::{ArtefactPlayer, Player, Protocol, evaluate_until};
use crate::policy::ArtefactBytes;
use crate::stats::Summary;
use crate::{Error, Result};
use cost::Decision;
use flowlet::flow::Plan;
use flowlet::policy::StepEntry;
use std::sync::atomic::AtomicBool;

/// Numbers of solver steps beside the policy's own.
const STEPS: [usize; 5] = [1, 2, 3, 5, 10];

/// Numbers of samples from which the critics choose; only the first without critics.
const PARTICLES: [usize; 3] = [1, 4, 16];

/// The numbers of steps in a table: the usual ones and the policy's own.
fn usual_steps(own: usize) -> Vec<usize> {
    let mut steps: Vec<usize> = STEPS.into_iter().chain([own]).collect();
    steps.sort_unstable();
    steps.dedup();
    steps
}

/// The step table of a policy: what single samples return by each of the usual numbers of steps, over the same episodes.
/// `known` are returns of such numbers that were played before.
pub fn step_table(
    policy: &ArtefactBytes,
    env: &mut env::Decision,
    protocol: Protocol,
    known: &[(usize, Summary)],
    stop: &AtomicBool,
) -> Result<Vec<StepEntry>> {
    let artefact = policy.artefact()?;
    let mut entries = Vec::new();
    for steps in usual_steps(artefact.plan().steps) {
        let returns = match known.iter().find(|(known, _)| *known == steps) {
            Some((_, returns)) => *returns,
            None => {
                let revised = policy.revised(Plan { steps, ..*artefact.plan() }, false)?;
                evaluate_until(&mut ArtefactPlayer::new(revised.artefact()?)?, env, protocol, stop)?.plain()
            }
        };
        entries.push(entry(steps, &returns));
    }
    Ok(entries)
}

/// The entry of a step table. Of one episode there is no interval: none is claimed, as wide as a number goes.
pub fn entry(steps: usize, returns: &Summary) -> StepEntry {
    let half_width = if returns.ci95.is_finite() { returns.ci95 as f32 } else { f32::MAX };
    StepEntry { steps: steps as u32, mean_return: returns.mean as f32, half_width }
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Solver steps.
    pub steps: usize,
    /// Samples.
    pub particles: usize,
    /// The return.
    pub returns: Summary,
    /// By how much the return is above that of a plain sample by the policy's own plan, in paired episodes.
    pub gain: Summary,
    /// What a decision costs.
    pub decision: Decision,
}

/// Always decides from so many samples.
struct Fixed<'a> {
    player: ArtefactPlayer<'a>,
    particles: Option<usize>,
}

impl Player for Fixed<'_> {
    fn is_critical(&self) -> bool {
        false
    }

    fn begin(&mut self, number: u64) {
        self.player.begin(number);
    }

    fn act(&mut self, observation: &[f32], _: Option<usize>, action: &mut [f32]) -> Result<()> {
        self.player.act(observation, self.particles, action)
    }
}

/// Plays every row, telling `progress` how many are done and how many there are.
pub fn table(
    policy: &ArtefactBytes,
    env: &mut env::Decision,
    episodes: usize,
    seed: u64,
    progress: impl Fn(usize, usize),
) -> Result<Vec<Row>> {
    let artefact = policy.artefact()?;
    let own = artefact.plan().steps;
    let critics = artefact.critics().next().map(|critic| (*critic.shape(), artefact.critics().count()));
    let steps = usual_steps(own);
    let particles = if critics.is_some() { &PARTICLES[..] } else { &PARTICLES[..1] };
    let pairs: Vec<(usize, usize)> = steps.iter().flat_map(|s| particles.iter().map(|p| (*s, *p))).collect();
    let mut played = Vec::new();
    for (done, (steps, particles)) in pairs.iter().enumerate() {
        progress(done, pairs.len());
        let revised = policy.revised(Plan { steps: *steps, ..*artefact.plan() }, *particles > 1)?;
        let view = revised.artefact()?;
        let mut player =
            Fixed { player: ArtefactPlayer::new(view)?, particles: (*particles > 1).then_some(*particles) };
        let protocol = Protocol { episodes, seed, best_of: *particles };
        let evaluation = evaluate_until(&mut player, env, protocol, &AtomicBool::new(false))?;
        let decision = Decision { shape: *view.velocity().shape(), plan: *view.plan(), critics, particles: *particles };
        played.push((decision, evaluation.returns));
    }
    let reference = played.iter().find(|(decision, _)| decision.plan.steps == own && decision.particles == 1);
    let reference = match reference {
        Some((_, returns)) => returns.clone(),
        None => return Err(Error::failure("the policy's own plan was not played")),
    };
    Ok(played
        .into_iter()
        .map(|(decision, returns)| {
            let differences: Vec<f64> = returns.iter().zip(&reference).map(|(a, b)| a - b).collect();
            Row {
                steps: decision.plan.steps,
                particles: decision.particles,
                returns: Summary::of(&returns),
                gain: Summary::of(&differences),
                decision,
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::{env_for, evaluate};
    use std::collections::BTreeMap;
    use std::path::Path;

    #[test]
    fn a_step_table_holds_evaluations_and_travels_with_the_policy() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware/policies/pendulum.flw");
        let policy = ArtefactBytes::read(&path).unwrap();
        let mut env = env_for(&policy.artefact().unwrap(), None, &BTreeMap::new()).unwrap();
        let protocol = Protocol { episodes: 2, seed: 7, best_of: 1 };
        let told = Summary { n: 2, mean: -7.5, sd: 0.5, ci95: 0.25 };
        let table = step_table(&policy, &mut env, protocol, &[(5, told)], &AtomicBool::new(false)).unwrap();
        assert_eq!(table.iter().map(|e| e.steps as usize).collect::<Vec<_>>(), STEPS);
        assert_eq!(table[3], StepEntry { steps: 5, mean_return: -7.5, half_width: 0.25 });
        let two = policy.revised(Plan { steps: 2, ..*policy.artefact().unwrap().plan() }, false).unwrap();
        let wanted = evaluate(&two.artefact().unwrap(), &mut env, protocol).unwrap().plain();
        assert_eq!((table[1].mean_return, table[1].half_width), (wanted.mean as f32, wanted.ci95 as f32));
        // It holds for any number of steps of this plan and for no other solver.
        let with = policy.with_step_table(&table).unwrap();
        let plan = *with.artefact().unwrap().plan();
        let kept = |plan: Plan| with.revised(plan, false).unwrap().artefact().unwrap().step_table().collect::<Vec<_>>();
        assert_eq!(kept(Plan { steps: 2, ..plan }), table);
        assert!(kept(Plan { solver: flowlet::flow::Solver::Heun, ..plan }).is_empty());
        // Of a single episode no interval is known.
        let unknown = entry(1, &Summary::of(&[1.0]));
        assert_eq!((unknown.mean_return, unknown.half_width), (1.0, f32::MAX));
        policy.with_step_table(&[unknown]).unwrap().artefact().unwrap();
    }

    #[test]
    fn rows_are_evaluations_of_the_revised_policy() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware/policies/pendulum.flw");
        let policy = ArtefactBytes::read(&path).unwrap();
        let artefact = policy.artefact().unwrap();
        let mut env = env_for(&artefact, None, &BTreeMap::new()).unwrap();
        let rows = table(&policy, &mut env, 3, 7, |_, _| ()).unwrap();
        // No critics travel with the committed policy, and its own five steps are in the list.
        assert_eq!(rows.iter().map(|row| (row.steps, row.particles)).collect::<Vec<_>>(), STEPS.map(|s| (s, 1)));
        let protocol = Protocol { episodes: 3, seed: 7, best_of: 1 };
        for row in &rows {
            let plan = Plan { steps: row.steps, ..*artefact.plan() };
            let revised = policy.revised(plan, false).unwrap();
            let wanted = evaluate(&revised.artefact().unwrap(), &mut env, protocol).unwrap().plain();
            assert_eq!((row.returns.mean, row.returns.ci95), (wanted.mean, wanted.ci95));
        }
        assert_eq!((rows[3].gain.mean, rows[3].decision.macs()), (0.0, 21_312));
    }
}
