//! `hopper-stand`, `hopper-hop`: a planar body on one leg stands, or hops forward at 2 m/s.
//!
//! Observed: everything but how far it has come, and the logarithms of what toe and heel press. Reward: a torso between
//! 0.6 and 2 m above the foot, times small controls or the forward speed. Start: joints anywhere in their ranges.

use super::files::shipped;
use super::physics::{Physics, Sensor};
use super::{Entry, Out, Task, tolerance};
use crate::Result;
use mujoco_rs::prelude::MjModel;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::path::Path;

const HEIGHT: [f64; 2] = [0.6, 2.0];
const SPEED: f64 = 2.0;
const SUBSTEPS: usize = 4;
const CHANNELS: &[(&str, usize)] = &[("position", 6), ("velocity", 7), ("touch", 2)];

pub(super) const TASKS: [Entry; 2] = [
    Entry {
        name: "hopper-stand",
        summary: "planar hopper that stands with little effort",
        model,
        substeps: SUBSTEPS,
        channels: CHANNELS,
        make: |p| Hopper::task(p, false),
    },
    Entry {
        name: "hopper-hop",
        summary: "planar hopper that hops at 2 m/s",
        model,
        substeps: SUBSTEPS,
        channels: CHANNELS,
        make: |p| Hopper::task(p, true),
    },
];

fn model(folder: &Path) -> Result<MjModel> {
    shipped(folder, "hopper.xml")
}

struct Hopper {
    torso: usize,
    foot: usize,
    velocity: Sensor,
    touch: [Sensor; 2],
    hops: bool,
}

impl Hopper {
    fn task(p: &Physics, hops: bool) -> Result<Box<dyn Task>> {
        Ok(Box::new(Self {
            torso: p.body("torso")?,
            foot: p.body("foot")?,
            velocity: p.sensor("torso_subtreelinvel")?,
            touch: [p.sensor("touch_toe")?, p.sensor("touch_heel")?],
            hops,
        }))
    }
}

impl Task for Hopper {
    fn start(&mut self, p: &mut Physics, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        p.randomize_joints(rng);
        Ok(())
    }

    fn observe(&self, p: &Physics, out: &mut Out) {
        out.all(&p.data().qpos()[1..]);
        out.all(p.data().qvel());
        for touch in &self.touch {
            out.one(p.read_one(touch).ln_1p());
        }
    }

    fn reward(&self, p: &Physics) -> f64 {
        // Between the centres of mass.
        let height = p.data().xipos()[self.torso][2] - p.data().xipos()[self.foot][2];
        let stand = tolerance::gaussian(height, HEIGHT[0], HEIGHT[1], 0.0);
        if self.hops {
            stand * tolerance::linear(p.read_one(&self.velocity), SPEED, f64::INFINITY, SPEED / 2.0, 0.5)
        } else {
            stand * (4.0 + tolerance::small_controls(p.data().ctrl())) / 5.0
        }
    }
}
