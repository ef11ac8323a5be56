//! `cheetah-run`: a planar body on two legs of three joints runs forward, as fast as 10 m/s.
//!
//! Observed: everything but how far it has come. Reward: the forward speed over 10 m/s, at most 1. Start: joints anywhere
//! in their ranges, then two seconds of rest under gravity.

use super::files::shipped;
use super::physics::{Physics, Sensor};
use super::{Entry, Out, Task, tolerance};
use crate::Result;
use plants::uniform_in;
use rand_xoshiro::Xoshiro256PlusPlus;

const SPEED: f64 = 10.0;
/// Physics steps from the drawn joints to the start.
const REST: usize = 200;

pub(super) const TASKS: [Entry; 1] = [Entry {
    name: "cheetah-run",
    summary: "planar cheetah that runs, as fast as 10 m/s",
    model: |folder| shipped(folder, "cheetah.xml"),
    substeps: 1,
    channels: &[("position", 8), ("velocity", 9)],
    make: |p| Ok(Box::new(Cheetah { velocity: p.sensor("torso_subtreelinvel")? })),
}];

struct Cheetah {
    velocity: Sensor,
}

impl Task for Cheetah {
    fn start(&mut self, p: &mut Physics, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        for joint in 0..p.model().jnt_limited().len() {
            let (at, [low, high]) = (p.model().jnt_qposadr()[joint] as usize, p.model().jnt_range()[joint]);
            if p.model().jnt_limited()[joint] {
                p.data_mut().qpos_mut()[at] = uniform_in(rng, low, high);
            }
        }
        p.advance(REST);
        p.data_mut().set_time(0.0);
        Ok(())
    }

    fn observe(&self, p: &Physics, out: &mut Out) {
        out.all(&p.data().qpos()[1..]);
        out.all(p.data().qvel());
    }

    fn reward(&self, p: &Physics) -> f64 {
        tolerance::linear(p.read_one(&self.velocity), SPEED, f64::INFINITY, SPEED, 0.0)
    }
}
