//! The distilled head: u = x_0 + v(x_0, s), regressed on where the teacher's ten steps carry x_0.
//!
//! The squared error of a latent counts by how far it moves the action: (tanh u - tanh u*)^2 + FLOOR (u - u*)^2, for
//! beyond +-2 latents differ and actions do not. In terms of the plain regression that is a target between the student's
//! latent and the teacher's, at the weight of the secant's slope squared, held fixed in the gradient. Starts from the
//! teacher's own network at the first flow time where the sizes are equal: there its first Euler step, prolonged.

use super::teacher::{Teacher, one_step};
use super::{Course, Learner};
use crate::agent::sampler::Sampler;
use crate::nn::hidden::Hidden;
use crate::nn::optim::Adam;
use crate::nn::velocity::{VelocityNet, VelocityShape, VelocityWork};
use crate::noise::Noise;

/// What an error of a latent counts where it does not move the action.
const FLOOR: f32 = 0.01;

/// The student and the memory of its updates.
pub struct Head<'t> {
    teacher: &'t mut Teacher,
    net: VelocityNet,
    adam: Adam,
    step: Sampler,
    work: VelocityWork,
    gradient: Vec<f32>,
    start: Vec<f32>,
    wanted: Vec<f32>,
    reached: Vec<f32>,
    zeros: Vec<f32>,
}

impl<'t> Head<'t> {
    /// A student with hidden layers as given, from the teacher's weights where they fit, else from fresh ones.
    pub fn new(teacher: &'t mut Teacher, hidden: Hidden, course: &Course, noise: &mut Noise) -> Self {
        let mut net = teacher.net.held(teacher.config.t_min as f32, &[]);
        if hidden != net.shape().hidden {
            let gain = std::f32::consts::SQRT_2;
            net = VelocityNet::new(VelocityShape { hidden, ..net.shape().clone() }, gain, 0.1 * gain, noise);
        }
        let (n, act, params) = (course.batch, net.shape().act, net.params().len());
        Self {
            adam: Adam::new(params, course.rate, 0.0),
            step: one_step(&teacher.config, net.shape()),
            work: VelocityWork::new(net.shape(), n),
            gradient: vec![0.0; params],
            start: vec![0.0; n * act],
            wanted: vec![0.0; n * act],
            reached: vec![0.0; n * act],
            zeros: vec![0.0; n],
            teacher,
            net,
        }
    }
}

impl Learner for Head<'_> {
    fn update(&mut self, s: &[f32], rate: f32, noise: &mut Noise) -> f32 {
        noise.gaussian(&mut self.start);
        self.wanted.copy_from_slice(&self.start);
        self.reached.copy_from_slice(&self.start);
        self.teacher.carry(s, &mut self.wanted);
        self.step.integrate(&self.net, s, 1, &mut self.reached);
        for ((wanted, reached), start) in self.wanted.iter_mut().zip(&self.reached).zip(&self.start) {
            let gap = reached - *wanted;
            let slope =
                if gap.abs() > 1e-3 { (reached.tanh() - wanted.tanh()) / gap } else { 1.0 - wanted.tanh().powi(2) };
            *wanted = reached - (slope * slope + FLOOR) * gap - start;
        }
        let (work, gradient) = (&mut self.work, &mut self.gradient);
        let loss = self.net.regress(s, &self.start, &self.zeros, &self.wanted, work, gradient);
        self.adam.set_rate(rate);
        self.adam.step(self.net.params_mut(), &mut self.gradient);
        loss
    }

    fn one_step(&self) -> VelocityNet {
        self.net.clone()
    }
}
