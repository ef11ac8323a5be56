//! `finger-spin`, `finger-turn_hard`: a finger of two links spins a body about its hinge, or turns its tip onto a target.
//!
//! Observed: the finger's angles, where the body's tip is from its hinge, three speeds, the logarithms of what the
//! fingertip's sides press; with a target also where that is, and how far from its edge the tip. Reward: 1 at 15 rad/s
//! backwards, or with the tip in the target. Start: anywhere, touching nothing.

use super::files::shipped;
use super::physics::{Physics, Sensor, TRIES};
use super::{Entry, Out, Task};
use crate::{Error, Result};
use mujoco_rs::prelude::{MjModel, MjtObjBase};
use plants::uniform_in;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::f64::consts::PI;
use std::path::Path;

/// Speed of the hinge at which it spins.
const SPIN: f64 = -15.0;
/// Damping of the hinge where it is to spin.
const SPIN_DAMPING: f64 = 0.03;
/// Radius of the small target.
const TARGET: f64 = 0.03;

pub(super) const TASKS: [Entry; 2] = [
    Entry {
        name: "finger-spin",
        summary: "finger that spins a body about its hinge",
        model: spinning,
        substeps: 2,
        channels: &[("position", 4), ("velocity", 3), ("touch", 2)],
        make: |p| Finger::task(p, false),
    },
    Entry {
        name: "finger-turn_hard",
        summary: "finger that turns the tip of a body onto a small target",
        model: turning,
        substeps: 2,
        channels: &[("position", 4), ("velocity", 3), ("touch", 2), ("target", 2), ("distance", 1)],
        make: |p| Finger::task(p, true),
    },
];

fn spinning(folder: &Path) -> Result<MjModel> {
    let mut model = shipped(folder, "finger.xml")?;
    if let Some(hinge) = model.name_to_id(MjtObjBase::mjOBJ_JOINT, "hinge") {
        let dof = model.jnt_dofadr()[hinge] as usize;
        model.dof_damping_mut()[dof] = SPIN_DAMPING;
    }
    // Nobody sees what has no part in the task.
    for site in ["target", "tip"].map(|name| model.name_to_id(MjtObjBase::mjOBJ_SITE, name)).into_iter().flatten() {
        model.site_rgba_mut()[site][3] = 0.0;
    }
    Ok(model)
}

fn turning(folder: &Path) -> Result<MjModel> {
    let mut model = shipped(folder, "finger.xml")?;
    if let Some(target) = model.name_to_id(MjtObjBase::mjOBJ_SITE, "target") {
        model.site_size_mut()[target][0] = TARGET;
    }
    Ok(model)
}

struct Finger {
    angles: [Sensor; 2],
    tip: Sensor,
    spinner: Sensor,
    speeds: [Sensor; 3],
    touch: [Sensor; 2],
    target: Sensor,
    target_site: usize,
    /// Joint about which the body turns, and the geom that gives the radius of the target's circle.
    hinge: usize,
    cap: usize,
    turns: bool,
}

impl Finger {
    fn task(p: &Physics, turns: bool) -> Result<Box<dyn Task>> {
        let hinge = p.model().name_to_id(MjtObjBase::mjOBJ_JOINT, "hinge");
        Ok(Box::new(Self {
            angles: [p.sensor("proximal")?, p.sensor("distal")?],
            tip: p.sensor("tip")?,
            spinner: p.sensor("spinner")?,
            speeds: [p.sensor("proximal_velocity")?, p.sensor("distal_velocity")?, p.sensor("hinge_velocity")?],
            touch: [p.sensor("touchtop")?, p.sensor("touchbottom")?],
            target: p.sensor("target")?,
            target_site: p.site("target")?,
            hinge: hinge.ok_or_else(|| Error::failure("the finger has no hinge: run `cargo xtask fetch-mujoco`"))?,
            cap: p.geom("cap1")?,
            turns,
        }))
    }

    /// From the tip to the edge of the target; negative inside.
    fn to_edge(&self, p: &Physics) -> f64 {
        let (tip, target) = (p.read(&self.tip), p.read(&self.target));
        let (x, z) = (target[0] - tip[0], target[2] - tip[2]);
        (x * x + z * z).sqrt() - p.model().site_size()[self.target_site][0]
    }
}

impl Task for Finger {
    fn start(&mut self, p: &mut Physics, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        if self.turns {
            let angle = uniform_in(rng, -PI, PI);
            let anchor = p.data().xanchor()[self.hinge];
            let radius: f64 = p.model().geom_size()[self.cap].iter().sum();
            p.move_site(
                self.target_site,
                [Some(anchor[0] + radius * angle.sin()), None, Some(anchor[2] + radius * angle.cos())],
            );
        }
        for _ in 0..TRIES {
            p.randomize_joints(rng);
            p.settle();
            if !p.touching() {
                return Ok(());
            }
        }
        Err(Error::failure(format!("no start without contacts in {TRIES} tries: set env.friction and the like back")))
    }

    fn observe(&self, p: &Physics, out: &mut Out) {
        let (tip, spinner) = (p.read(&self.tip), p.read(&self.spinner));
        self.angles.iter().for_each(|angle| out.one(p.read_one(angle)));
        out.all(&[tip[0] - spinner[0], tip[2] - spinner[2]]);
        self.speeds.iter().for_each(|speed| out.one(p.read_one(speed)));
        self.touch.iter().for_each(|touch| out.one(p.read_one(touch).ln_1p()));
        if self.turns {
            let target = p.read(&self.target);
            out.all(&[target[0] - spinner[0], target[2] - spinner[2], self.to_edge(p)]);
        }
    }

    fn reward(&self, p: &Physics) -> f64 {
        f64::from(if self.turns { self.to_edge(p) <= 0.0 } else { p.read_one(&self.speeds[2]) <= SPIN })
    }
}
