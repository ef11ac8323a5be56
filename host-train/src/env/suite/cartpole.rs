//! `cartpole-balance`, `cartpole-swingup`, `cartpole-swingup_sparse`: a cart on a rail holds a pole up, or swings it up.
//!
//! Observed: the cart's place, the pole's cosine and sine from upright, both speeds. Reward: upright, in the middle, slow
//! and with small forces; the sparse one is 1 where the pole is within 6 degrees of upright near the middle. Start: near
//! upright, or hanging.

use super::files::shipped;
use super::physics::Physics;
use super::{Entry, Out, Task, tolerance};
use crate::Result;
use mujoco_rs::prelude::MjModel;
use plants::{normal, uniform_in};
use rand_xoshiro::Xoshiro256PlusPlus;
use std::f64::consts::PI;
use std::path::Path;

const CHANNELS: &[(&str, usize)] = &[("cart", 1), ("cos_pole", 1), ("sin_pole", 1), ("velocity", 2)];
/// Largest offset and cosine of the sparse reward.
const SPARSE_OFFSET: f64 = 0.25;
const SPARSE_COSINE: f64 = 0.995;
/// Deviation of what is drawn about a start.
const JITTER: f64 = 0.01;

pub(super) const TASKS: [Entry; 3] = [
    Entry {
        name: "cartpole-balance",
        summary: "pole on a cart, to hold up",
        model,
        substeps: 1,
        channels: CHANNELS,
        make: |p| Cartpole::task(p, false, false),
    },
    Entry {
        name: "cartpole-swingup",
        summary: "pole on a cart, to swing up and hold",
        model,
        substeps: 1,
        channels: CHANNELS,
        make: |p| Cartpole::task(p, true, false),
    },
    Entry {
        name: "cartpole-swingup_sparse",
        summary: "pole on a cart, rewarded only where it stands in the middle",
        model,
        substeps: 1,
        channels: CHANNELS,
        make: |p| Cartpole::task(p, true, true),
    },
];

fn model(folder: &Path) -> Result<MjModel> {
    shipped(folder, "cartpole.xml")
}

struct Cartpole {
    pole: usize,
    slider: usize,
    hinge: (usize, usize),
    hangs: bool,
    sparse: bool,
}

impl Cartpole {
    fn task(p: &Physics, hangs: bool, sparse: bool) -> Result<Box<dyn Task>> {
        let (slider, hinge) = (p.joint("slider")?.0, p.joint("hinge_1")?);
        Ok(Box::new(Self { pole: p.body("pole_1")?, slider, hinge, hangs, sparse }))
    }
}

impl Task for Cartpole {
    fn start(&mut self, p: &mut Physics, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        let (cart, pole) = if self.hangs {
            (JITTER * normal(rng), PI + JITTER * normal(rng))
        } else {
            (uniform_in(rng, -0.1, 0.1), uniform_in(rng, -0.034, 0.034))
        };
        p.data_mut().qpos_mut()[self.slider] = cart;
        p.data_mut().qpos_mut()[self.hinge.0] = pole;
        p.data_mut().qvel_mut().iter_mut().for_each(|v| *v = JITTER * normal(rng));
        Ok(())
    }

    fn observe(&self, p: &Physics, out: &mut Out) {
        let xmat = p.xmat(self.pole);
        out.all(&[p.data().qpos()[self.slider], xmat[8], xmat[2]]);
        out.all(p.data().qvel());
    }

    fn reward(&self, p: &Physics) -> f64 {
        let (cart, cosine) = (p.data().qpos()[self.slider], p.upright(self.pole));
        if self.sparse {
            return f64::from(cart.abs() <= SPARSE_OFFSET && (SPARSE_COSINE..=1.0).contains(&cosine));
        }
        let effort = (4.0 + tolerance::small_controls(p.data().ctrl())) / 5.0;
        let calm = (1.0 + tolerance::gaussian(p.data().qvel()[self.hinge.1], 0.0, 0.0, 5.0)) / 2.0;
        let middle = (1.0 + tolerance::gaussian(cart, 0.0, 0.0, 2.0)) / 2.0;
        (1.0 + cosine) / 2.0 * effort * calm * middle
    }
}
