//! `acrobot-swingup`: two links with a motor at the elbow alone, to swing the tip up to a target above.
//!
//! Observed: sines of both links from upright, their cosines, both speeds. Reward: 1 with the tip in the target, falling
//! with its distance. Start: any angles, at rest.

use super::files::shipped;
use super::physics::{Physics, from_to, length};
use super::{Entry, Out, Task, tolerance};
use crate::Result;
use plants::uniform_in;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::f64::consts::PI;

pub(super) const TASKS: [Entry; 1] = [Entry {
    name: "acrobot-swingup",
    summary: "two links with a motor at the elbow, to swing up",
    model: |folder| shipped(folder, "acrobot.xml"),
    substeps: 1,
    channels: &[("sin_upper", 1), ("sin_lower", 1), ("cos_upper", 1), ("cos_lower", 1), ("velocity", 2)],
    make: |p| {
        let arms = [p.body("upper_arm")?, p.body("lower_arm")?];
        Ok(Box::new(Acrobot { arms, tip: p.site("tip")?, target: p.site("target")? }))
    },
}];

struct Acrobot {
    arms: [usize; 2],
    tip: usize,
    target: usize,
}

impl Task for Acrobot {
    fn start(&mut self, p: &mut Physics, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        p.data_mut().qpos_mut().iter_mut().for_each(|q| *q = uniform_in(rng, -PI, PI));
        Ok(())
    }

    fn observe(&self, p: &Physics, out: &mut Out) {
        let [upper, lower] = self.arms.map(|arm| p.xmat(arm));
        out.all(&[upper[2], lower[2], upper[8], lower[8]]);
        out.all(p.data().qvel());
    }

    fn reward(&self, p: &Physics) -> f64 {
        let sites = p.data().site_xpos();
        let away = length(&from_to(&sites[self.tip], &sites[self.target]));
        tolerance::gaussian(away, 0.0, p.model().site_size()[self.target][0], 1.0)
    }
}
