//! `ball_in_cup-catch`: a cup that moves in the plane catches the ball that hangs from it by a string.
//!
//! Observed: all positions and speeds. Reward: 1 with the ball wholly in the cup. Start: the ball anywhere about the cup,
//! touching nothing, the string slack.

use super::files::shipped;
use super::physics::{Physics, TRIES};
use super::{Entry, Out, Task};
use crate::{Error, Result};
use plants::uniform_in;
use rand_xoshiro::Xoshiro256PlusPlus;

pub(super) const TASKS: [Entry; 1] = [Entry {
    name: "ball_in_cup-catch",
    summary: "cup that catches a ball on a string",
    model: |folder| shipped(folder, "ball_in_cup.xml"),
    substeps: 10,
    channels: &[("position", 4), ("velocity", 4)],
    make: |p| {
        Ok(Box::new(BallInCup {
            target: p.site("target")?,
            ball: p.body("ball")?,
            geom: p.geom("ball")?,
            joints: [p.joint("ball_x")?.0, p.joint("ball_z")?.0],
        }))
    },
}];

struct BallInCup {
    target: usize,
    ball: usize,
    geom: usize,
    joints: [usize; 2],
}

impl Task for BallInCup {
    fn start(&mut self, p: &mut Physics, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        for _ in 0..TRIES {
            p.data_mut().qpos_mut()[self.joints[0]] = uniform_in(rng, -0.2, 0.2);
            p.data_mut().qpos_mut()[self.joints[1]] = uniform_in(rng, 0.2, 0.5);
            p.settle();
            if !p.touching() {
                return Ok(());
            }
        }
        Err(Error::failure(format!("no start without contacts in {TRIES} tries: set the physics back")))
    }

    fn observe(&self, p: &Physics, out: &mut Out) {
        out.all(p.data().qpos());
        out.all(p.data().qvel());
    }

    fn reward(&self, p: &Physics) -> f64 {
        let (target, ball) = (p.data().site_xpos()[self.target], p.data().xpos()[self.ball]);
        let (room, radius) = (p.model().site_size()[self.target], p.model().geom_size()[self.geom][0]);
        f64::from([0, 2].into_iter().all(|i| (target[i] - ball[i]).abs() < room[i] - radius))
    }
}
