//! `humanoid-stand`, `humanoid-walk`, `humanoid-run`: a body of 21 joints stands, walks at 1 m/s, runs at 10 m/s.
//!
//! Observed: joints, the head's height, hands and feet as the torso sees them, the torso's tilt, the speed of the centre
//! of mass, all speeds. Reward: head up and torso upright, times small controls, times the speed in any direction or rest.
//! Start: joints anywhere in their ranges, turned anyhow, touching nothing.

use super::files::shipped;
use super::physics::{Physics, Sensor, TRIES, from_to, in_frame};
use super::{Entry, Out, Task, tolerance};
use crate::{Error, Result};
use mujoco_rs::prelude::MjModel;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::path::Path;

const HEAD: f64 = 1.4;
const SUBSTEPS: usize = 5;
const CHANNELS: &[(&str, usize)] = &[
    ("angle", 21),
    ("head_height", 1),
    ("extremity", 12),
    ("torso_vertical", 3),
    ("com_velocity", 3),
    ("velocity", 27),
];
const EXTREMITIES: [&str; 4] = ["left_hand", "left_foot", "right_hand", "right_foot"];

pub(super) const TASKS: [Entry; 3] = [
    Entry {
        name: "humanoid-stand",
        summary: "humanoid that stands up and stands",
        model,
        substeps: SUBSTEPS,
        channels: CHANNELS,
        make: |p| Humanoid::task(p, 0.0),
    },
    Entry {
        name: "humanoid-walk",
        summary: "humanoid that walks at 1 m/s",
        model,
        substeps: SUBSTEPS,
        channels: CHANNELS,
        make: |p| Humanoid::task(p, 1.0),
    },
    Entry {
        name: "humanoid-run",
        summary: "humanoid that runs at 10 m/s",
        model,
        substeps: SUBSTEPS,
        channels: CHANNELS,
        make: |p| Humanoid::task(p, 10.0),
    },
];

fn model(folder: &Path) -> Result<MjModel> {
    shipped(folder, "humanoid.xml")
}

struct Humanoid {
    torso: usize,
    head: usize,
    extremities: [usize; 4],
    velocity: Sensor,
    /// Wanted speed; 0 where it only stands.
    speed: f64,
}

impl Humanoid {
    fn task(p: &Physics, speed: f64) -> Result<Box<dyn Task>> {
        let [a, b, c, d] = EXTREMITIES.map(|name| p.body(name));
        Ok(Box::new(Self {
            torso: p.body("torso")?,
            head: p.body("head")?,
            extremities: [a?, b?, c?, d?],
            velocity: p.sensor("torso_subtreelinvel")?,
            speed,
        }))
    }
}

impl Task for Humanoid {
    fn start(&mut self, p: &mut Physics, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        for _ in 0..TRIES {
            p.randomize_joints(rng);
            p.settle();
            if !p.touching() {
                return Ok(());
            }
        }
        Err(Error::failure(format!("no start without contacts in {TRIES} tries: set the physics back")))
    }

    fn observe(&self, p: &Physics, out: &mut Out) {
        let (places, torso) = (p.data().xpos(), p.xmat(self.torso));
        out.all(&p.data().qpos()[7..]);
        out.one(places[self.head][2]);
        for extremity in self.extremities {
            out.all(&in_frame(from_to(&places[self.torso], &places[extremity]), torso));
        }
        out.all(&torso[6..9]);
        out.all(p.read(&self.velocity));
        out.all(p.data().qvel());
    }

    fn reward(&self, p: &Physics) -> f64 {
        let head = tolerance::gaussian(p.data().xpos()[self.head][2], HEAD, f64::INFINITY, HEAD / 4.0);
        let upright = tolerance::linear(p.upright(self.torso), 0.9, f64::INFINITY, 1.9, 0.0);
        let stand = (4.0 + tolerance::small_controls(p.data().ctrl())) / 5.0 * head * upright;
        let v = p.read(&self.velocity);
        if self.speed == 0.0 {
            let rest = |v: f64| tolerance::gaussian(v, 0.0, 0.0, 2.0);
            return stand * (rest(v[0]) + rest(v[1])) / 2.0;
        }
        let speed = (v[0] * v[0] + v[1] * v[1]).sqrt();
        stand * (5.0 * tolerance::linear(speed, self.speed, f64::INFINITY, self.speed, 0.0) + 1.0) / 6.0
    }
}
