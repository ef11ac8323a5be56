//! `reacher-easy`, `reacher-hard`: a planar arm of two links reaches a target of 5 cm or 1.5 cm radius.
//!
//! Observed: both angles, the way from the fingertip to the target, both speeds. Reward: 1 where they overlap. Start:
//! joints anywhere in their ranges, the target anywhere on a ring about the shoulder.

use super::files::shipped;
use super::physics::Physics;
use super::{Entry, Out, Task};
use crate::Result;
use mujoco_rs::prelude::{MjModel, MjtObjBase};
use plants::uniform_in;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::f64::consts::TAU;
use std::path::Path;

const CHANNELS: &[(&str, usize)] = &[("position", 2), ("to_target", 2), ("velocity", 2)];

pub(super) const TASKS: [Entry; 2] = [
    Entry {
        name: "reacher-easy",
        summary: "planar arm that reaches a large target",
        model: |folder| model(folder, 0.05),
        substeps: 1,
        channels: CHANNELS,
        make: Reacher::task,
    },
    Entry {
        name: "reacher-hard",
        summary: "planar arm that reaches a small target",
        model: |folder| model(folder, 0.015),
        substeps: 1,
        channels: CHANNELS,
        make: Reacher::task,
    },
];

fn model(folder: &Path, radius: f64) -> Result<MjModel> {
    let mut model = shipped(folder, "reacher.xml")?;
    if let Some(target) = model.name_to_id(MjtObjBase::mjOBJ_GEOM, "target") {
        model.geom_size_mut()[target][0] = radius;
    }
    Ok(model)
}

struct Reacher {
    target: usize,
    finger: usize,
}

impl Reacher {
    fn task(p: &Physics) -> Result<Box<dyn Task>> {
        Ok(Box::new(Self { target: p.geom("target")?, finger: p.geom("finger")? }))
    }

    fn to_target(&self, p: &Physics) -> [f64; 2] {
        let (target, finger) = (p.data().geom_xpos()[self.target], p.data().geom_xpos()[self.finger]);
        [target[0] - finger[0], target[1] - finger[1]]
    }
}

impl Task for Reacher {
    fn start(&mut self, p: &mut Physics, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        p.randomize_joints(rng);
        let (angle, radius) = (uniform_in(rng, 0.0, TAU), uniform_in(rng, 0.05, 0.20));
        p.move_geom(self.target, [Some(radius * angle.sin()), Some(radius * angle.cos()), None]);
        Ok(())
    }

    fn observe(&self, p: &Physics, out: &mut Out) {
        out.all(p.data().qpos());
        out.all(&self.to_target(p));
        out.all(p.data().qvel());
    }

    fn reward(&self, p: &Physics) -> f64 {
        let [x, y] = self.to_target(p);
        let sizes = p.model().geom_size();
        f64::from((x * x + y * y).sqrt() <= sizes[self.target][0] + sizes[self.finger][0])
    }
}
