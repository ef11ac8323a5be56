//! MuJoCo as the tasks see it: named parts, the suite's step and reset, random joints, what went wrong.
//!
//! Everything that is derived from positions and speeds (frames, sensors of position and speed) belongs to the present
//! state, after a reset and after a step alike; sensors of forces and accelerations keep what they were before the last
//! integration. A step allocates nothing and does not panic. Names are looked up once, when a task is made. What is
//! `unsafe` here writes numbers of a model that MuJoCo does not check.

use crate::{Error, Result};
use mujoco_rs::mujoco_c::{mjtDisableBit, mjtEnableBit, mjtIntegrator, mjtWarning};
use mujoco_rs::prelude::{MjData, MjModel, MjtJoint, MjtObjBase};
use plants::{normal, uniform, uniform_in};
use rand_xoshiro::Xoshiro256PlusPlus;
use std::f64::consts::PI;
use std::ops::Range;

/// Tries to find a start without contacts.
pub(super) const TRIES: usize = 1000;

/// MuJoCo's warnings by number: the episode in which one is given ends, under its name.
const TROUBLES: [(mjtWarning, &str); 7] = [
    (mjtWarning::mjWARN_BADQACC, "diverged: an acceleration is not finite or too large"),
    (mjtWarning::mjWARN_BADQVEL, "diverged: a speed is not finite or too large"),
    (mjtWarning::mjWARN_BADQPOS, "diverged: a position is not finite or too large"),
    (mjtWarning::mjWARN_BADCTRL, "diverged: a control is not finite or too large"),
    (mjtWarning::mjWARN_INERTIA, "diverged: the inertia matrix is singular"),
    (mjtWarning::mjWARN_CONTACTFULL, "diverged: more contacts than memory holds"),
    (mjtWarning::mjWARN_CNSTRFULL, "diverged: more constraints than memory holds"),
];

/// A model with its state.
pub(super) struct Physics {
    data: MjData<Box<MjModel>>,
    substeps: usize,
    /// The integrator evaluates the dynamics several times a step, so that nothing can be computed ahead of it.
    several_stages: bool,
}

/// Where a sensor's numbers stand.
#[derive(Clone, Debug)]
pub(super) struct Sensor(Range<usize>);

impl Physics {
    /// `substeps` physics steps make a control step.
    pub(super) fn new(mut model: Box<MjModel>, substeps: usize) -> Result<Self> {
        // Nobody looks at it.
        model.opt_mut().enableflags &= !(mjtEnableBit::mjENBL_ENERGY as i32);
        if model.tree_bodyadr().len() == 1 {
            // One tree of bodies is one island, and its few geoms are compared faster than sorted; no bit depends on it.
            model.opt_mut().disableflags |= mjtDisableBit::mjDSBL_ISLAND as i32 | mjtDisableBit::mjDSBL_MIDPHASE as i32;
        }
        let several_stages = model.opt().integrator == mjtIntegrator::mjINT_RK4 as i32;
        let data = MjData::try_new(model)
            .map_err(|e| Error::failure(format!("MuJoCo has no memory for a model ({e}): close other programs")))?;
        Ok(Self { data, substeps, several_stages })
    }

    /// The model, as the present episode has it.
    pub(super) fn model(&self) -> &MjModel {
        self.data.model()
    }

    /// Positions, speeds, frames, sensors.
    pub(super) fn data(&self) -> &MjData<Box<MjModel>> {
        &self.data
    }

    /// The same, to write a state; derived numbers follow with [`Physics::settle`].
    pub(super) fn data_mut(&mut self) -> &mut MjData<Box<MjModel>> {
        &mut self.data
    }

    /// Seconds of a control step.
    pub(super) fn control_dt(&self) -> f64 {
        self.data.model_opt().timestep * self.substeps as f64
    }

    /// Puts another model of the same sizes in place; a reset must follow.
    pub(super) fn replace(&mut self, model: Box<MjModel>, masses: bool) -> Result<()> {
        self.data.try_swap_model(model).map_err(|e| Error::failure(format!("the model cannot be changed ({e})")))?;
        if masses {
            self.data.set_const();
        }
        Ok(())
    }

    /// The default pose at rest.
    pub(super) fn reset(&mut self) {
        self.data.reset();
    }

    /// Everything derived from the state, without the actuators: what a reset leaves.
    pub(super) fn settle(&mut self) {
        let flags = self.data.model_opt().disableflags;
        self.data.model_opt_mut().disableflags = flags | mjtDisableBit::mjDSBL_ACTUATION as i32;
        self.data.forward();
        self.data.model_opt_mut().disableflags = flags;
    }

    /// Everything derived from the state, with the actuators.
    pub(super) fn forward(&mut self) {
        self.data.forward();
    }

    /// A control step. The derived numbers of the present state serve the first physics step, and the last thing is to
    /// compute those of the state reached.
    pub(super) fn step(&mut self, action: &[f64]) {
        self.data.ctrl_mut().copy_from_slice(action);
        self.advance(self.substeps);
    }

    /// So many physics steps under the present controls.
    pub(super) fn advance(&mut self, steps: usize) {
        // Of the sensors only the last step is seen: those of forces in it, the others after it.
        let flags = self.data.model_opt().disableflags;
        let blind = flags | mjtDisableBit::mjDSBL_SENSOR as i32;
        for step in 0..steps {
            self.data.model_opt_mut().disableflags = if step + 1 < steps { blind } else { flags };
            if step == 0 && !self.several_stages {
                self.data.step2();
            } else {
                self.data.step();
            }
        }
        self.data.step1();
    }

    /// What MuJoCo warned of since the last reset.
    pub(super) fn trouble(&self) -> Option<&'static str> {
        let warnings = self.data.warning();
        TROUBLES.iter().find(|(number, _)| warnings[*number as usize].number > 0).map(|(_, name)| *name)
    }

    fn id(&self, kind: MjtObjBase, what: &str, name: &str) -> Result<usize> {
        self.model().name_to_id(kind, name).ok_or_else(|| {
            Error::failure(format!(
                "the model has no {what} {name:?}: run `cargo xtask fetch-mujoco` for the right one"
            ))
        })
    }

    /// A body by its name.
    pub(super) fn body(&self, name: &str) -> Result<usize> {
        self.id(MjtObjBase::mjOBJ_BODY, "body", name)
    }

    /// A geom by its name.
    pub(super) fn geom(&self, name: &str) -> Result<usize> {
        self.id(MjtObjBase::mjOBJ_GEOM, "geom", name)
    }

    /// A site by its name.
    pub(super) fn site(&self, name: &str) -> Result<usize> {
        self.id(MjtObjBase::mjOBJ_SITE, "site", name)
    }

    /// A joint's places in the positions and in the speeds.
    pub(super) fn joint(&self, name: &str) -> Result<(usize, usize)> {
        let id = self.id(MjtObjBase::mjOBJ_JOINT, "joint", name)?;
        Ok((self.model().jnt_qposadr()[id] as usize, self.model().jnt_dofadr()[id] as usize))
    }

    /// The places of all hinges in the positions and in the speeds.
    pub(super) fn hinges(&self) -> (Vec<usize>, Vec<usize>) {
        let model = self.model();
        let places = model.jnt_qposadr().iter().zip(model.jnt_dofadr());
        let hinges = places.zip(model.jnt_type()).filter(|(_, kind)| **kind == MjtJoint::mjJNT_HINGE);
        hinges.map(|((q, v), _)| (*q as usize, *v as usize)).unzip()
    }

    /// A sensor by its name.
    pub(super) fn sensor(&self, name: &str) -> Result<Sensor> {
        let id = self.id(MjtObjBase::mjOBJ_SENSOR, "sensor", name)?;
        let start = self.model().sensor_adr()[id] as usize;
        Ok(Sensor(start..start + self.model().sensor_dim()[id] as usize))
    }

    /// What a sensor shows.
    pub(super) fn read(&self, sensor: &Sensor) -> &[f64] {
        &self.data.sensordata()[sensor.0.clone()]
    }

    /// The first number of what a sensor shows.
    pub(super) fn read_one(&self, sensor: &Sensor) -> f64 {
        self.data.sensordata()[sensor.0.start]
    }

    /// A body's rotation, row by row: its axes are the columns.
    pub(super) fn xmat(&self, body: usize) -> &[f64; 9] {
        &self.data.xmat()[body]
    }

    /// How upright a body stands: the cosine of its tilt.
    pub(super) fn upright(&self, body: usize) -> f64 {
        self.data.xmat()[body][8]
    }

    /// Whether anything touches.
    pub(super) fn touching(&self) -> bool {
        self.data.ncon() > 0
    }

    /// Moves a geom that is fixed in its body: a target.
    pub(super) fn move_geom(&mut self, geom: usize, x: [Option<f64>; 3]) {
        let pos = &mut self.numbers().geom_pos_mut()[geom];
        pos.iter_mut().zip(x).for_each(|(p, x)| *p = x.unwrap_or(*p));
    }

    /// Moves a site that is fixed in its body.
    pub(super) fn move_site(&mut self, site: usize, x: [Option<f64>; 3]) {
        let pos = &mut self.numbers().site_pos_mut()[site];
        pos.iter_mut().zip(x).for_each(|(p, x)| *p = x.unwrap_or(*p));
    }

    /// The model, to change numbers in it.
    fn numbers(&mut self) -> &mut MjModel {
        // SAFETY: the model must not be exchanged and its sizes and indices must stay. The callers in this file write
        // positions, sizes and damping coefficients.
        unsafe { self.data.model_mut() }
    }

    /// Writes an entry of the model as a record names it, `ARRAY:KIND:NAME`.
    pub(super) fn overwrite(&mut self, entry: &str, values: &[f64]) -> Result<()> {
        let unfit = || {
            Error::usage(format!("the record writes {entry} = {values:?}, which the model has not: record it again"))
        };
        let parts: Vec<&str> = entry.split(':').collect();
        let three = || <[f64; 3]>::try_from(values).map_err(|_| unfit());
        match *parts.as_slice() {
            ["geom_pos", "geom", name] => {
                let geom = self.geom(name)?;
                self.numbers().geom_pos_mut()[geom] = three()?;
            }
            ["geom_size", "geom", name] => {
                let geom = self.geom(name)?;
                self.numbers().geom_size_mut()[geom] = three()?;
            }
            ["site_pos", "site", name] => {
                let site = self.site(name)?;
                self.numbers().site_pos_mut()[site] = three()?;
            }
            ["site_size", "site", name] => {
                let site = self.site(name)?;
                self.numbers().site_size_mut()[site] = three()?;
            }
            ["dof_damping", "joint", name] => {
                let (_, dof) = self.joint(name)?;
                self.numbers().dof_damping_mut()[dof] = *values.first().ok_or_else(unfit)?;
            }
            _ => return Err(unfit()),
        }
        Ok(())
    }

    /// Draws every joint: a hinge or slide with limits between them, a free hinge all around, a free body's orientation;
    /// slides without limits, and where a free body is, stay.
    pub(super) fn randomize_joints(&mut self, rng: &mut Xoshiro256PlusPlus) {
        for joint in 0..self.model().jnt_type().len() {
            let (kind, limited) = (self.model().jnt_type()[joint], self.model().jnt_limited()[joint]);
            let (at, [low, high]) = (self.model().jnt_qposadr()[joint] as usize, self.model().jnt_range()[joint]);
            let qpos = self.data.qpos_mut();
            match kind {
                MjtJoint::mjJNT_HINGE | MjtJoint::mjJNT_SLIDE if limited => qpos[at] = uniform_in(rng, low, high),
                MjtJoint::mjJNT_HINGE => qpos[at] = uniform_in(rng, -PI, PI),
                // The suite draws from the positive corner of the cube, and so do we.
                MjtJoint::mjJNT_FREE => {
                    qpos[at + 3..at + 7].copy_from_slice(&normalised(std::array::from_fn(|_| uniform(rng))));
                }
                _ => {}
            }
        }
    }
}

/// Multiplies the forces of all actuators.
pub(super) fn strengthen(model: &mut MjModel, factor: f64) {
    // SAFETY: no entry may turn into an index that MuJoCo does not check: some kinds of actuators keep indices here. The
    // suite's are motors and servos, whose first gain is a coefficient.
    let gains = unsafe { model.actuator_gainprm_mut() };
    gains.iter_mut().for_each(|gain| gain[0] *= factor);
    // A servo pulls back by its bias.
    model.actuator_biasprm_mut().iter_mut().for_each(|bias| bias[..3].iter_mut().for_each(|b| *b *= factor));
}

/// A rotation uniform over all.
pub(super) fn any_orientation(rng: &mut Xoshiro256PlusPlus) -> [f64; 4] {
    normalised(std::array::from_fn(|_| normal(rng)))
}

fn normalised(q: [f64; 4]) -> [f64; 4] {
    let length = q.iter().map(|x| x * x).sum::<f64>().sqrt();
    // Nobody draws four zeros, but a number has to stand there.
    if length > 0.0 { q.map(|x| x / length) } else { [1.0, 0.0, 0.0, 0.0] }
}

/// The difference of two points.
pub(super) fn from_to(a: &[f64], b: &[f64]) -> [f64; 3] {
    [b[0] - a[0], b[1] - a[1], b[2] - a[2]]
}

/// The length of a vector.
pub(super) fn length(v: &[f64]) -> f64 {
    v.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// A vector of the world in the frame with the rotation `r`.
pub(super) fn in_frame(v: [f64; 3], r: &[f64; 9]) -> [f64; 3] {
    std::array::from_fn(|i| v[0] * r[i] + v[1] * r[3 + i] + v[2] * r[6 + i])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_xoshiro::rand_core::SeedableRng;

    /// A quarter turn about the vertical: what the world has in front, the body has on its right.
    #[test]
    fn a_frame_turns_vectors_back() {
        let quarter = [0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0];
        assert_eq!(in_frame([1.0, 0.0, 0.0], &quarter), [0.0, -1.0, 0.0]);
        assert_eq!(in_frame([0.0, 1.0, 2.0], &quarter), [1.0, 0.0, 2.0]);
        assert_eq!(from_to(&[1.0, 2.0, 3.0], &[3.0, 0.0, 4.0]), [2.0, -2.0, 1.0]);
        assert_eq!(length(&[2.0, -2.0, 1.0]), 3.0);
    }

    #[test]
    fn orientations_are_of_unit_length() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(3);
        let mut mean = [0.0; 4];
        for _ in 0..4000 {
            let q = any_orientation(&mut rng);
            assert!((length(&q) - 1.0).abs() < 1e-12);
            mean.iter_mut().zip(q).for_each(|(m, q)| *m += q / 4000.0);
        }
        // Five standard errors of a coordinate of the unit sphere in four dimensions.
        assert!(mean.iter().all(|m| m.abs() < 5.0 * 0.5 / 4000f64.sqrt()), "{mean:?}");
        assert_eq!(normalised([0.0; 4]), [1.0, 0.0, 0.0, 0.0]);
    }
}
