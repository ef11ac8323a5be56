//! `dog-run`: a dog of 73 hinges and 38 actuators runs forward at 9 m/s.
//!
//! Observed: joints, heights and tilts, speeds, inertial sensors, forces at and touch under the paws, the actuators'
//! state. Reward: standing as high and upright as by default, its weight on its paws, times the forward speed. Start: the
//! default pose, any heading, a little moving and turning.

use super::files::{delete, edited};
use super::physics::{Physics, Sensor, in_frame};
use super::{Entry, Out, Task, tolerance};
use crate::Result;
use mujoco_rs::prelude::MjModel;
use plants::{normal, uniform_in};
use rand_xoshiro::Xoshiro256PlusPlus;
use std::f64::consts::TAU;
use std::path::Path;

/// Forward speed: full reward from the first to the second.
const SPEED: [f64; 2] = [9.0, 18.0];
/// Half the floor's width is what it covers in so many seconds.
const FLOOR_SECONDS: f64 = 15.0;
/// Share of the default heights that is high enough.
const HIGH: f64 = 0.9;
/// Degrees that skull, torso and pelvis may tilt.
const TILT: f64 = 30.0;
/// Deviation of the speeds at the start.
const JITTER: f64 = 2.0;

pub(super) const TASKS: [Entry; 1] = [Entry {
    name: "dog-run",
    summary: "dog that runs at 9 m/s",
    model,
    substeps: 3,
    channels: &[
        ("angle", 73),
        ("velocity", 73),
        ("height", 2),
        ("vertical", 9),
        ("com_velocity", 3),
        ("inertial", 9),
        ("force", 12),
        ("touch", 4),
        ("drive", 38),
    ],
    make: Dog::task,
}];

/// Without ball, target and walls, which belong to another task, on a floor that is large enough.
fn model(folder: &Path) -> Result<MjModel> {
    edited(folder, "dog.xml", |spec| {
        if let Some(floor) = spec.geom_mut("floor") {
            *floor.size_mut() = [FLOOR_SECONDS * SPEED[0], FLOOR_SECONDS * SPEED[0], 0.1];
        }
        for wall in ["target", "wall_px", "wall_nx", "wall_py", "wall_ny"] {
            delete(spec.geom_mut(wall), wall)?;
        }
        for camera in ["ball", "head"] {
            delete(spec.camera_mut(camera), camera)?;
        }
        delete(spec.body_mut("ball"), "ball")
    })
}

struct Dog {
    /// Skull, torso, pelvis.
    bodies: [usize; 3],
    hinges: (Vec<usize>, Vec<usize>),
    velocity: Sensor,
    inertial: [Sensor; 3],
    forces: [Sensor; 4],
    touch: [Sensor; 4],
    /// Of torso and pelvis in the default pose, m.
    heights: [f64; 2],
    /// Newtons.
    weight: f64,
}

impl Dog {
    /// The physics are in the default pose.
    fn task(p: &Physics) -> Result<Box<dyn Task>> {
        let bodies = [p.body("skull")?, p.body("torso")?, p.body("pelvis")?];
        let [accelerometer, velocimeter, gyro] = ["accelerometer", "velocimeter", "gyro"].map(|name| p.sensor(name));
        let [foot_l, foot_r, hand_l, hand_r] = ["foot_L", "foot_R", "hand_L", "hand_R"].map(|name| p.sensor(name));
        let [palm_l, palm_r, sole_l, sole_r] = ["palm_L", "palm_R", "sole_L", "sole_R"].map(|name| p.sensor(name));
        Ok(Box::new(Self {
            bodies,
            hinges: p.hinges(),
            velocity: p.sensor("torso_linvel")?,
            inertial: [accelerometer?, velocimeter?, gyro?],
            forces: [foot_l?, foot_r?, hand_l?, hand_r?],
            touch: [palm_l?, palm_r?, sole_l?, sole_r?],
            heights: [bodies[1], bodies[2]].map(|body| p.data().xpos()[body][2]),
            weight: p.model().opt().gravity[2].abs() * p.model().body_subtreemass()[bodies[1]],
        }))
    }

    /// The velocity of the centre of mass as the torso sees it: forward first.
    fn velocity(&self, p: &Physics) -> [f64; 3] {
        let v = p.read(&self.velocity);
        in_frame([v[0], v[1], v[2]], p.xmat(self.bodies[1]))
    }
}

impl Task for Dog {
    fn start(&mut self, p: &mut Physics, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        let heading = uniform_in(rng, 0.0, TAU) / 2.0;
        p.data_mut().qpos_mut()[3..7].copy_from_slice(&[heading.cos(), 0.0, 0.0, heading.sin()]);
        for axis in [0, 1, 5] {
            p.data_mut().qvel_mut()[axis] = JITTER * normal(rng);
        }
        for actuator in 0..p.data().act().len() {
            let [low, high] = p.model().actuator_ctrlrange()[actuator];
            p.data_mut().act_mut()[actuator] = uniform_in(rng, low, high);
        }
        Ok(())
    }

    fn observe(&self, p: &Physics, out: &mut Out) {
        let [_, torso, pelvis] = self.bodies;
        out.some(p.data().qpos(), &self.hinges.0);
        out.some(p.data().qvel(), &self.hinges.1);
        out.all(&[p.data().xpos()[torso][2], p.data().xpos()[pelvis][2]]);
        self.bodies.iter().for_each(|&body| out.all(&p.xmat(body)[6..9]));
        out.all(&self.velocity(p));
        self.inertial.iter().chain(&self.forces).chain(&self.touch).for_each(|sensor| out.all(p.read(sensor)));
        out.all(p.data().act());
    }

    fn reward(&self, p: &Physics) -> f64 {
        let [_, torso, pelvis] = self.bodies;
        let mut reward = 1.0;
        for (body, height) in [torso, pelvis].into_iter().zip(self.heights) {
            let high = HIGH * height;
            reward *= tolerance::gaussian(p.data().xpos()[body][2], high, f64::INFINITY, high);
        }
        let upright = TILT.to_radians().cos();
        for &body in &self.bodies {
            reward *= tolerance::linear(p.upright(body), upright, f64::INFINITY, 1.0 + upright, 0.0);
        }
        let pressed: f64 = self.touch.iter().map(|sensor| p.read_one(sensor)).sum();
        reward *= tolerance::linear(pressed, self.weight, f64::INFINITY, self.weight, 0.9);
        let forward = tolerance::linear(self.velocity(p)[0], SPEED[0], SPEED[1], SPEED[0], 0.0);
        reward * (4.0 * forward + 1.0) / 5.0
    }
}
