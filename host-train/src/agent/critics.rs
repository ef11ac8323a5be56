//! The twin critic with its slow copy and its optimiser: what all algorithms but their policies have in common.
//!
//! One step of learning is an Adam step on sum over k of mean (Q_k - y)^2 with y = r + gamma mask (Qbar(s', a') + bonus),
//! Qbar the smaller or the mean of the slow critics, then Polyak averaging. Allocates at construction and when asked for
//! more states than ever before. Deterministic. Slices of a wrong length panic (programming errors).

use super::critic_shape;
use crate::config::{TrainConfig, Twins};
use crate::nn::critic::{CriticWork, TwinCritic};
use crate::nn::elementwise::polyak;
use crate::nn::optim::Adam;
use crate::noise::Noise;
use crate::replay::Minibatch;
use crate::state::Visitor;

/// Critics that learn and the slow ones that their targets come from.
#[derive(Clone, Debug)]
pub struct Critics {
    online: TwinCritic,
    target: TwinCritic,
    adam: Adam,
    twins: Twins,
    gamma: f32,
    tau: f32,
    work: CriticWork,
    group: usize,
    gradient: Vec<f32>,
    values: Vec<f32>,
}

impl Critics {
    /// Fresh critics, for batches of the configuration and up to `group` actions of a state.
    pub fn new(train: &TrainConfig, obs: usize, act: usize, group: usize, noise: &mut Noise) -> Self {
        let shape = critic_shape(train, obs, act);
        let online = TwinCritic::new(shape, std::f32::consts::SQRT_2, noise);
        let params = online.params().len();
        Self {
            target: online.clone(),
            adam: Adam::new(params, train.q_lr as f32, train.max_grad_norm as f32),
            twins: train.target_twins,
            gamma: train.gamma as f32,
            tau: train.tau as f32,
            work: CriticWork::new(&shape, train.batch_size, group),
            group,
            gradient: vec![0.0; params],
            values: vec![0.0; train.batch_size],
            online,
        }
    }

    /// One step on `batch`, with the policy's actions at s' and a bonus on their value (the entropy's) if there is one.
    /// Returns the sum over both critics of the mean squared error, and the mean of Q.
    pub fn learn(&mut self, batch: &Minibatch, next_action: &[f32], bonus: Option<&[f32]>) -> (f32, f32) {
        let values = &mut self.values[..batch.reward.len()];
        self.target.joined(self.twins.join(), &batch.next_obs, next_action, 1, values, &mut self.work);
        if let Some(bonus) = bonus {
            values.iter_mut().zip(bonus).for_each(|(q, b)| *q += b);
        }
        for ((q, r), mask) in values.iter_mut().zip(&batch.reward).zip(&batch.mask) {
            *q = r + self.gamma * mask * *q;
        }
        let stats = self.online.regress(&batch.obs, &batch.action, values, &mut self.work, &mut self.gradient);
        self.adam.step(self.online.params_mut(), &mut self.gradient);
        polyak(self.target.params_mut(), self.online.params(), self.tau);
        stats
    }

    /// min(Q_1, Q_2) of the critics that learn, at `group` actions for each of the states `s`.
    pub fn minimum(&mut self, s: &[f32], actions: &[f32], group: usize, q: &mut [f32]) {
        self.prepare(group);
        self.online.minimum(s, actions, group, q, &mut self.work);
    }

    /// As [`Self::minimum`], with the gradient with respect to each action.
    pub fn minimum_and_gradient(&mut self, s: &[f32], actions: &[f32], group: usize, q: &mut [f32], dq: &mut [f32]) {
        self.prepare(group);
        self.online.minimum_and_gradient(s, actions, group, q, dq, &mut self.work);
    }

    /// Shows parameters and moments.
    pub fn visit(&mut self, visitor: &mut dyn Visitor) {
        visitor.f32s("critic", self.online.params_mut());
        visitor.f32s("target_critic", self.target.params_mut());
        self.adam.visit("critic_adam", visitor);
    }

    /// Makes buffers that hold a group.
    fn prepare(&mut self, group: usize) {
        if group > self.group {
            (self.work, self.group) = (CriticWork::new(self.online.shape(), self.values.len(), group), group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::{Replay, Transition};

    /// Reward 1 for ever with gamma .5 and a bonus of .4: Q = (1 + .5 x .4) / (1 - .5) = 2.4, or 1 where it ends.
    #[test]
    fn values_reach_the_fixed_point() {
        for (terminated, bonus, want, target_twins) in [
            (false, 0.4, 2.4, Twins::Min),
            (false, 0.4, 2.4, Twins::Mean),
            (false, 0.0, 2.0, Twins::Min),
            (true, 0.4, 1.0, Twins::Min),
        ] {
            let mut replay = Replay::new(100, 1, 1);
            for i in 0..100 {
                let action = [i as f32 / 50.0 - 0.99];
                replay.push(Transition {
                    obs: &[0.5],
                    action: &action,
                    reward: 1.0,
                    next_obs: &[0.5],
                    terminated,
                    last: true,
                });
            }
            let train = TrainConfig { gamma: 0.5, tau: 0.05, target_twins, ..TrainConfig::standard() };
            let mut noise = Noise::new(1, 0);
            let mut critics = Critics::new(&train, 1, 1, 1, &mut noise);
            let mut batch = Minibatch::new(train.batch_size, 1, 1);
            let mut next = vec![0.0; train.batch_size];
            let bonus = vec![bonus; train.batch_size];
            let mut q_mean = 0.0;
            for _ in 0..1000 {
                replay.sample(&mut batch, &mut noise);
                noise.uniform_in(&mut next, -1.0, 1.0);
                (_, q_mean) = critics.learn(&batch, &next, Some(&bonus));
            }
            assert!((q_mean - want).abs() < 0.05, "{q_mean} for {want}");
            // The values asked for are those learned, whatever the group.
            let mut q = vec![0.0; 2000];
            critics.minimum(&[0.5, 0.5], &vec![0.3; 2000], 1000, &mut q);
            assert!(q.iter().all(|q| (q - want).abs() < 0.1));
        }
    }
}
