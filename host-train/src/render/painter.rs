//! One state of a task as pixels: MuJoCo's own renderer on an offscreen surface of EGL.
//!
//! No window and no graphics card are needed: without a card Mesa draws in software, and the same state gives the same
//! bytes on one machine; drivers and their versions differ in single pixels. A [`Painter`] belongs to the thread that made
//! it. No panics; a picture of 320 by 240 pixels takes Mesa some 10 ms of CPU.

use crate::env::Env;
use crate::{Error, Result};
use mujoco_rs::prelude::{MjModel, MjtObjBase};
use mujoco_rs::renderer::{MjRenderer, RendererError};
use mujoco_rs::wrappers::mj_visualization::MjvCamera;
use std::error::Error as _;

/// Not a camera of the model: one that stands still and sees its middle.
pub const FREE: &str = "free";

/// The first of these that the model has is the default, else its first camera, else [`FREE`]: those see a humanoid's back and
/// a quadruped from afar.
const PREFERRED: [&str; 2] = ["side", "y"];

/// Width and height of a picture, pixels.
pub type Size = (u32, u32);

/// Draws states of one environment.
pub struct Painter {
    renderer: MjRenderer,
    camera: String,
}

impl Painter {
    /// For pictures of one size of an environment's states by a camera of its model, or the default one.
    ///
    /// What MuJoCo does not simulate, a camera that the model has not, and a machine without EGL are one sentence.
    pub fn new(env: &mut dyn Env, (width, height): Size, camera: Option<&str>) -> Result<Self> {
        let name = env.spec().name.clone();
        let Some(scene) = env.scene() else { return Err(undrawable(&name)) };
        let mut model = scene.model().clone();
        let cameras = cameras(&model);
        let camera = match camera {
            None => PREFERRED
                .iter()
                .find(|name| cameras.iter().any(|c| c == **name))
                .map_or_else(|| cameras.first().cloned().unwrap_or_else(|| FREE.into()), |name| (*name).to_string()),
            Some(wanted) => wanted.to_string(),
        };
        let view = if camera == FREE {
            MjvCamera::new_free(&model)
        } else if let Some(id) = model.name_to_id(MjtObjBase::mjOBJ_CAMERA, &camera) {
            MjvCamera::new_fixed(id)
        } else {
            let known: Vec<&str> = cameras.iter().map(String::as_str).chain([FREE]).collect();
            return Err(Error::usage(format!("{name} has no camera {camera:?}: use one of {}", known.join(", "))));
        };
        let global = &mut model.vis_mut().global;
        (global.offwidth, global.offheight) = (width as i32, height as i32);
        let renderer =
            MjRenderer::builder().width(width).height(height).camera(view).build(&model).map_err(|e| no_egl(&e))?;
        Ok(Self { renderer, camera })
    }

    /// The camera's name.
    pub fn camera(&self) -> &str {
        &self.camera
    }

    /// The present state of the environment that the painter was made for: red, green and blue, row by row from above.
    pub fn paint(&mut self, env: &mut dyn Env) -> Result<Vec<u8>> {
        let failed =
            |e: RendererError| Error::failure(format!("MuJoCo cannot draw ({}): try a smaller picture", said(&e)));
        let name = env.spec().name.clone();
        let Some(scene) = env.scene() else { return Err(undrawable(&name)) };
        self.renderer.sync_data(scene).map_err(failed)?;
        self.renderer.render().map_err(failed)?;
        Ok(self.renderer.rgb_flat().unwrap_or_default().to_vec())
    }
}

/// The names of the model's cameras.
fn cameras(model: &MjModel) -> Vec<String> {
    let ids = 0..model.ncam() as usize;
    ids.filter_map(|id| model.id_to_name(MjtObjBase::mjOBJ_CAMERA, id)).map(str::to_string).collect()
}

/// The sentence for an environment that MuJoCo does not simulate.
fn undrawable(name: &str) -> Error {
    let tasks: Vec<&str> =
        crate::env::known().into_iter().filter(|name| crate::env::suite_task(name).is_some()).collect();
    Error::usage(format!(
        "{name} is not simulated by MuJoCo, which draws the pictures: use one of {}",
        tasks.join(", ")
    ))
}

/// The sentence for a machine on which no surface can be made.
fn no_egl(error: &RendererError) -> Error {
    Error::usage(format!(
        "there is no EGL to draw with ({}): run `cargo xtask fetch-mujoco --render`, or install a driver for EGL, on Debian by \
         `sudo apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri`",
        said(error)
    ))
}

/// An error with its causes.
fn said(error: &RendererError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}
