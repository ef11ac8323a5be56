//! `pendulum-swingup`: a pendulum with too weak a motor, rewarded within 8 degrees of upright.
//!
//! Observed: cosine and sine of the angle from upright, and the speed. Start: any angle, at rest.

use super::files::shipped;
use super::physics::Physics;
use super::{Entry, Out, Task};
use crate::Result;
use plants::uniform_in;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::f64::consts::PI;

/// Degrees from upright that are rewarded.
const WITHIN: f64 = 8.0;

pub(super) const TASKS: [Entry; 1] = [Entry {
    name: "pendulum-swingup",
    summary: "pendulum to swing up and hold, rewarded only where it stands",
    model: |folder| shipped(folder, "pendulum.xml"),
    substeps: 1,
    channels: &[("cos_angle", 1), ("sin_angle", 1), ("velocity", 1)],
    make: |p| Ok(Box::new(Pendulum { pole: p.body("pole")?, upright: WITHIN.to_radians().cos() })),
}];

struct Pendulum {
    pole: usize,
    upright: f64,
}

impl Task for Pendulum {
    fn start(&mut self, p: &mut Physics, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        p.data_mut().qpos_mut()[0] = uniform_in(rng, -PI, PI);
        Ok(())
    }

    fn observe(&self, p: &Physics, out: &mut Out) {
        let xmat = p.xmat(self.pole);
        out.all(&[xmat[8], xmat[2], p.data().qvel()[0]]);
    }

    fn reward(&self, p: &Physics) -> f64 {
        f64::from((self.upright..=1.0).contains(&p.upright(self.pole)))
    }
}
