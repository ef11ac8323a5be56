//! `fish-upright`, `fish-swim`: a fish rights itself in the water, or swims to a target.
//!
//! Observed: joints, how upright, all speeds; with a target also where the mouth sees it. Reward: upright, or mostly the
//! mouth at the target. Start: turned anyhow, the target anywhere in the tank.

use super::files::shipped;
use super::physics::{Physics, any_orientation, from_to, in_frame, length};
use super::{Entry, Out, Task, tolerance};
use crate::Result;
use mujoco_rs::prelude::{MjModel, MjtObjBase};
use plants::uniform_in;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::path::Path;

const SUBSTEPS: usize = 10;
const JOINTS: [&str; 7] =
    ["tail1", "tail_twist", "tail2", "finright_roll", "finright_pitch", "finleft_roll", "finleft_pitch"];

pub(super) const TASKS: [Entry; 2] = [
    Entry {
        name: "fish-upright",
        summary: "fish that rights itself",
        model: alone,
        substeps: SUBSTEPS,
        channels: &[("angle", 7), ("upright", 1), ("velocity", 13)],
        make: |p| Fish::task(p, false),
    },
    Entry {
        name: "fish-swim",
        summary: "fish that swims to a target",
        model: |folder| shipped(folder, "fish.xml"),
        substeps: SUBSTEPS,
        channels: &[("angle", 7), ("upright", 1), ("target", 3), ("velocity", 13)],
        make: |p| Fish::task(p, true),
    },
];

/// With a target that nobody sees: it has no part in the task.
fn alone(folder: &Path) -> Result<MjModel> {
    let mut model = shipped(folder, "fish.xml")?;
    if let Some(target) = model.name_to_id(MjtObjBase::mjOBJ_GEOM, "target") {
        model.geom_rgba_mut()[target][3] = 0.0;
    }
    Ok(model)
}

struct Fish {
    joints: Vec<usize>,
    torso: usize,
    mouth: usize,
    target: usize,
    swims: bool,
}

impl Fish {
    fn task(p: &Physics, swims: bool) -> Result<Box<dyn Task>> {
        let joints = JOINTS.iter().map(|name| Ok(p.joint(name)?.0)).collect::<Result<_>>()?;
        let (mouth, target) = (p.geom("mouth")?, p.geom("target")?);
        Ok(Box::new(Self { joints, torso: p.body("torso")?, mouth, target, swims }))
    }

    /// From the mouth to the target.
    fn to_target(&self, p: &Physics) -> [f64; 3] {
        from_to(&p.data().geom_xpos()[self.mouth], &p.data().geom_xpos()[self.target])
    }
}

impl Task for Fish {
    fn start(&mut self, p: &mut Physics, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        p.data_mut().qpos_mut()[3..7].copy_from_slice(&any_orientation(rng));
        for &joint in &self.joints {
            p.data_mut().qpos_mut()[joint] = uniform_in(rng, -0.2, 0.2);
        }
        if self.swims {
            let place = [(-0.4, 0.4), (-0.4, 0.4), (0.1, 0.3)].map(|(low, high)| Some(uniform_in(rng, low, high)));
            p.move_geom(self.target, place);
        }
        Ok(())
    }

    fn observe(&self, p: &Physics, out: &mut Out) {
        out.some(p.data().qpos(), &self.joints);
        out.one(p.upright(self.torso));
        if self.swims {
            out.all(&in_frame(self.to_target(p), &p.data().geom_xmat()[self.mouth]));
        }
        out.all(p.data().qvel());
    }

    fn reward(&self, p: &Physics) -> f64 {
        let upright = p.upright(self.torso);
        if !self.swims {
            return tolerance::gaussian(upright, 1.0, 1.0, 1.0);
        }
        let sizes = p.model().geom_size();
        let radii = sizes[self.mouth][0] + sizes[self.target][0];
        let there = tolerance::gaussian(length(&self.to_target(p)), 0.0, radii, 2.0 * radii);
        (7.0 * there + (1.0 + upright) / 2.0) / 8.0
    }
}
