//! `quadruped-walk`, `quadruped-run`: a body on four legs walks at 0.5 m/s or runs at 5 m/s.
//!
//! Observed: joints and what drives them, the torso's speed, its tilt, what its inertial sensors measure, and forces and
//! torques at the toes, which go through the inverse hyperbolic sine. Reward: the forward speed, times how upright. Start:
//! turned anyhow, as low as nothing touches.

use super::files::{delete, edited};
use super::physics::{Physics, Sensor, any_orientation};
use super::{Entry, Out, Task, tolerance};
use crate::{Error, Result};
use mujoco_rs::prelude::MjModel;
use rand_xoshiro::Xoshiro256PlusPlus;
use std::path::Path;

const WALK: f64 = 0.5;
const RUN: f64 = 5.0;
/// Half the floor's width is what it covers in so many seconds.
const FLOOR_SECONDS: f64 = 20.0;
/// What the start rises by until nothing touches, and how often at most.
const RISE: f64 = 0.01;
const RISES: usize = 10_000;
const SUBSTEPS: usize = 4;
const CHANNELS: &[(&str, usize)] = &[
    ("position", 16),
    ("velocity", 16),
    ("drive", 12),
    ("torso_velocity", 3),
    ("upright", 1),
    ("imu", 6),
    ("force_torque", 24),
];
const TOES: [&str; 4] = ["front_left", "front_right", "back_right", "back_left"];

pub(super) const TASKS: [Entry; 2] = [
    Entry {
        name: "quadruped-walk",
        summary: "four-legged body that walks at 0.5 m/s",
        model: |folder| model(folder, WALK),
        substeps: SUBSTEPS,
        channels: CHANNELS,
        make: |p| Quadruped::task(p, WALK),
    },
    Entry {
        name: "quadruped-run",
        summary: "four-legged body that runs at 5 m/s",
        model: |folder| model(folder, RUN),
        substeps: SUBSTEPS,
        channels: CHANNELS,
        make: |p| Quadruped::task(p, RUN),
    },
];

/// Without terrain, walls, ball and target, which belong to other tasks, on a floor that is large enough.
fn model(folder: &Path, speed: f64) -> Result<MjModel> {
    edited(folder, "quadruped.xml", |spec| {
        if let Some(floor) = spec.geom_mut("floor") {
            *floor.size_mut() = [FLOOR_SECONDS * speed, FLOOR_SECONDS * speed, 0.5];
        }
        for wall in ["wall_px", "wall_py", "wall_nx", "wall_ny", "terrain"] {
            delete(spec.geom_mut(wall), wall)?;
        }
        delete(spec.body_mut("ball"), "ball")?;
        delete(spec.site_mut("target"), "target")?;
        for (row, column) in (0..4).flat_map(|row| (0..5).map(move |column| (row, column))) {
            let rangefinder = format!("rf_{row}{column}");
            delete(spec.sensor_mut(&rangefinder), &rangefinder)?;
        }
        Ok(())
    })
}

struct Quadruped {
    torso: usize,
    hinges: (Vec<usize>, Vec<usize>),
    velocity: Sensor,
    imu: [Sensor; 2],
    toes: Vec<Sensor>,
    speed: f64,
}

impl Quadruped {
    fn task(p: &Physics, speed: f64) -> Result<Box<dyn Task>> {
        let kinds = ["force", "torque"].into_iter();
        let toes = kinds.flat_map(|kind| TOES.map(|toe| p.sensor(&format!("{kind}_toe_{toe}"))));
        Ok(Box::new(Self {
            torso: p.body("torso")?,
            hinges: p.hinges(),
            velocity: p.sensor("velocimeter")?,
            imu: [p.sensor("imu_accel")?, p.sensor("imu_gyro")?],
            toes: toes.collect::<Result<_>>()?,
            speed,
        }))
    }
}

impl Task for Quadruped {
    fn start(&mut self, p: &mut Physics, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        let orientation = any_orientation(rng);
        for rise in 0..=RISES {
            p.reset();
            let root = p.data_mut().qpos_mut();
            root[..3].copy_from_slice(&[0.0, 0.0, RISE * rise as f64]);
            root[3..7].copy_from_slice(&orientation);
            p.settle();
            if !p.touching() {
                return Ok(());
            }
        }
        Err(Error::failure("the quadruped touches something at any height: set the physics back"))
    }

    fn observe(&self, p: &Physics, out: &mut Out) {
        out.some(p.data().qpos(), &self.hinges.0);
        out.some(p.data().qvel(), &self.hinges.1);
        out.all(p.data().act());
        out.all(p.read(&self.velocity));
        out.one(p.upright(self.torso));
        self.imu.iter().for_each(|sensor| out.all(p.read(sensor)));
        for toe in &self.toes {
            p.read(toe).iter().for_each(|x| out.one(x.asinh()));
        }
    }

    fn reward(&self, p: &Physics) -> f64 {
        let upright = tolerance::linear(p.upright(self.torso), 1.0, f64::INFINITY, 2.0, 0.0);
        upright * tolerance::linear(p.read_one(&self.velocity), self.speed, f64::INFINITY, self.speed, 0.5)
    }
}
