//! `walker-stand`, `walker-walk`, `walker-run`: a planar body on two legs stands, walks at 1 m/s, runs at 8 m/s.
//!
//! Observed: how each body is turned, the torso's height, all speeds. Reward: a torso above 1.2 m and upright, times the
//! forward speed where one is asked for. Start: joints anywhere in their ranges, turned anyhow.

use super::files::shipped;
use super::physics::{Physics, Sensor};
use super::{Entry, Out, Task, tolerance};
use crate::Result;
use mujoco_rs::prelude::MjModel;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::path::Path;

const HEIGHT: f64 = 1.2;
const SUBSTEPS: usize = 10;
const CHANNELS: &[(&str, usize)] = &[("orientation", 14), ("height", 1), ("velocity", 9)];

pub(super) const TASKS: [Entry; 3] = [
    Entry {
        name: "walker-stand",
        summary: "planar walker that stands up and stands",
        model,
        substeps: SUBSTEPS,
        channels: CHANNELS,
        make: |p| Walker::task(p, 0.0),
    },
    Entry {
        name: "walker-walk",
        summary: "planar walker that walks at 1 m/s",
        model,
        substeps: SUBSTEPS,
        channels: CHANNELS,
        make: |p| Walker::task(p, 1.0),
    },
    Entry {
        name: "walker-run",
        summary: "planar walker that runs at 8 m/s",
        model,
        substeps: SUBSTEPS,
        channels: CHANNELS,
        make: |p| Walker::task(p, 8.0),
    },
];

fn model(folder: &Path) -> Result<MjModel> {
    shipped(folder, "walker.xml")
}

struct Walker {
    torso: usize,
    velocity: Sensor,
    /// Wanted forward speed; 0 where it only stands.
    speed: f64,
}

impl Walker {
    fn task(p: &Physics, speed: f64) -> Result<Box<dyn Task>> {
        Ok(Box::new(Self { torso: p.body("torso")?, velocity: p.sensor("torso_subtreelinvel")?, speed }))
    }
}

impl Task for Walker {
    fn start(&mut self, p: &mut Physics, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        p.randomize_joints(rng);
        Ok(())
    }

    fn observe(&self, p: &Physics, out: &mut Out) {
        // Without the world.
        for xmat in &p.data().xmat()[1..] {
            out.all(&[xmat[0], xmat[2]]);
        }
        out.one(p.data().xpos()[self.torso][2]);
        out.all(p.data().qvel());
    }

    fn reward(&self, p: &Physics) -> f64 {
        let height = tolerance::gaussian(p.data().xpos()[self.torso][2], HEIGHT, f64::INFINITY, HEIGHT / 2.0);
        let stand = (3.0 * height + (1.0 + p.upright(self.torso)) / 2.0) / 4.0;
        if self.speed == 0.0 {
            return stand;
        }
        let run = tolerance::linear(p.read_one(&self.velocity), self.speed, f64::INFINITY, self.speed / 2.0, 0.5);
        stand * (5.0 * run + 1.0) / 6.0
    }
}
