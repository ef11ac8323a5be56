//! Export: a policy artefact in the forms other programs read.
//!
//! * [`tensors`]: safetensors, every number of the artefact as a named array.
//! * [`rust_source`]: a Rust module that embeds the artefact.
//! * [`onnx`]: the velocity network and the unrolled policy as ONNX graphs.
//!
//! All start from the checked view of an artefact and are deterministic: equal artefacts give equal files. `docs/export.md`
//! says what each holds. No panics; what cannot be exported is one sentence.

pub mod onnx;
pub mod rust_source;
pub mod tensors;

use crate::{Error, Result};
use flowlet::net::{Critic, VelocityNet};
use flowlet::policy::Artefact;
use serde_json::{Value, json};
use std::path::Path;

/// A file format of `export`.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The artefact itself.
    Flw,
    /// A Rust module with the artefact inside.
    Rust,
    /// Named arrays.
    Safetensors,
    /// A graph for onnxruntime and its like.
    Onnx,
}

impl Format {
    /// The ending of its files.
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Flw => "flw",
            Self::Rust => "rs",
            Self::Safetensors => "safetensors",
            Self::Onnx => "onnx",
        }
    }

    /// The format whose ending a file name has.
    pub fn of(path: &Path) -> Option<Self> {
        let ending = path.extension()?;
        [Self::Flw, Self::Rust, Self::Safetensors, Self::Onnx].into_iter().find(|format| format.ending() == ending)
    }
}

/// The matrices of a network whose first layer is split by input, in the order in which flowlet stores them.
///
/// Every matrix is stored by columns: the weight from input `j` to output `i` at `j * outputs + i`, which is the row-major
/// order of its transpose.
pub struct Layers<'a> {
    /// Blocks of the first layer: name, number of inputs, weights.
    pub first: Vec<(&'static str, usize, &'a [f32])>,
    /// Bias of the first layer.
    pub first_bias: &'a [f32],
    /// Weights and bias of each further hidden layer.
    pub hidden: Vec<(&'a [f32], &'a [f32])>,
    /// Weights and bias of the output layer.
    pub out: (&'a [f32], &'a [f32]),
}

impl<'a> Layers<'a> {
    /// The layers of a velocity network: inputs `state`, `latent`, `time`.
    pub fn of_velocity(net: &VelocityNet<'a>) -> Self {
        let shape = net.shape();
        let inputs = [("state", shape.obs), ("latent", shape.act), ("time", 2 * shape.frequencies)];
        Self::split(net.params(), &inputs, shape.hidden, shape.layers, shape.act)
    }

    /// The layers of a critic: inputs `state` and `action`.
    pub fn of_critic(critic: &Critic<'a>) -> Self {
        let shape = critic.shape();
        Self::split(critic.params(), &[("state", shape.obs), ("action", shape.act)], shape.hidden, shape.layers, 1)
    }

    /// `params` has been checked against the shape by flowlet.
    fn split(
        params: &'a [f32],
        inputs: &[(&'static str, usize)],
        hidden: usize,
        layers: usize,
        outputs: usize,
    ) -> Self {
        let mut rest = params;
        let mut take = |n: usize| {
            let (head, tail) = rest.split_at(n);
            rest = tail;
            head
        };
        Self {
            first: inputs.iter().map(|(name, n)| (*name, *n, take(n * hidden))).collect(),
            first_bias: take(hidden),
            hidden: (1..layers).map(|_| (take(hidden * hidden), take(hidden))).collect(),
            out: (take(hidden * outputs), take(outputs)),
        }
    }
}

/// The velocity network of an artefact in single precision, from which the other formats are made.
pub fn single_precision<'v, 'a>(artefact: &'v Artefact<'a>) -> Result<&'v VelocityNet<'a>> {
    artefact.velocity().as_f32().ok_or_else(|| {
        Error::usage(
            "this is an int8 policy, and safetensors, ONNX and a warm start hold floats: give the f32 policy that it was made from",
        )
    })
}

/// Everything of an artefact that is not an array: what the metadata of safetensors and ONNX files say.
pub fn facts(artefact: &Artefact<'_>) -> Value {
    let (shape, plan) = (artefact.velocity().shape(), artefact.plan());
    let critics = artefact.critics().next().map(|critic| {
        let shape = critic.shape();
        json!({
            "count": artefact.critics().count(),
            "hidden": shape.hidden,
            "layers": shape.layers,
            "activation": shape.activation.name(),
            "particles": artefact.particles(),
            "temperature": artefact.temperature(),
        })
    });
    json!({
        "format_version": artefact.format_version(),
        "name": artefact.name(),
        "period_us": artefact.period_us(),
        "observation": artefact.obs_names().collect::<Vec<_>>(),
        "action": artefact.act_names().collect::<Vec<_>>(),
        "observation_clip": artefact.normalizer().clip,
        "number_format": artefact.velocity().format().name(),
        "hidden": shape.hidden,
        "layers": shape.layers,
        "activation": shape.activation.name(),
        "trunk": shape.trunk.name(),
        "solver": plan.solver.name(),
        "steps": plan.steps,
        "interval": [plan.t_start, plan.t_end],
        "latent_clip": plan.latent_clip,
        "source": artefact.source().name(),
        "source_parameter": artefact.source().parameter(),
        "schedule": artefact.schedule().name(),
        "schedule_parameters": artefact.schedule().parameters(),
        "start_scale": artefact.schedule().start_scale(plan.t_start),
        "squash": artefact.range().squash.name(),
        "step_table": artefact.step_table().map(|e| json!([e.steps, e.mean_return, e.half_width])).collect::<Vec<_>>(),
        "critics": critics,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::policy::ArtefactBytes;
    use flowlet::flow::{Plan, Schedule, Solver, Source};
    use flowlet::net::{Activation, CriticShape, Trunk, VelocityShape};
    use flowlet::policy::{CriticManifest, Manifest, Squash, StepEntry, Weights};

    /// A small policy with nothing at its default, and random weights.
    pub(crate) fn policy(obs: usize, act: usize, critics: usize, frequencies: usize) -> ArtefactBytes {
        let (hidden, layers) = (5, 3);
        let shape = VelocityShape {
            obs,
            act,
            hidden,
            layers,
            frequencies,
            activation: Activation::Gelu,
            trunk: Trunk::Residual,
        };
        let critic = CriticShape { obs, act, hidden: 4, layers: 2, activation: Activation::Silu };
        let mut state = 1u32;
        let mut values = |n: usize, low: f32, high: f32| -> Vec<f32> {
            let mut next = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                low + (high - low) * (state >> 8) as f32 / (1 << 24) as f32
            };
            (0..n).map(|_| next()).collect()
        };
        let params = values(shape.params(), -0.8, 0.8);
        let critic_params = values(critics * critic.params(), -0.8, 0.8);
        let names: Vec<String> = (0..obs.max(act)).map(|i| format!("canal é{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        ArtefactBytes::encode(&Manifest {
            name: "essai",
            period_us: 12_345,
            shape,
            frequencies: &values(frequencies, 1.0, 9.0),
            weights: Weights::F32(&params),
            plan: Plan { solver: Solver::Heun, steps: 3, t_start: 0.1, t_end: 0.9, latent_clip: 3.0 },
            source: Source::TruncatedGaussian { bound: 2.5 },
            schedule: Schedule::Ve { sigma_min: 0.5, sigma_max: 4.0 },
            obs_names: &names[..obs],
            act_names: &names[..act],
            obs_mean: &values(obs, -1.0, 1.0),
            obs_scale: &values(obs, 0.5, 2.0),
            obs_clip: 4.0,
            low: &values(act, -3.0, -1.0),
            high: &values(act, 0.5, 2.0),
            squash: Squash::TanhLibm,
            critics: (critics > 0).then_some(CriticManifest {
                shape: critic,
                count: critics,
                params: &critic_params,
                particles: 7,
                temperature: 0.3,
            }),
            step_table: &[StepEntry { steps: 2, mean_return: -1.5, half_width: 0.25 }],
            test_observation: &values(obs, -1.0, 1.0),
            test_noise: &values(act, -1.0, 1.0),
        })
        .unwrap()
    }

    #[test]
    fn endings_name_formats() {
        for format in [Format::Flw, Format::Rust, Format::Safetensors, Format::Onnx] {
            assert_eq!(Format::of(&Path::new("a.b/c").with_extension(format.ending())), Some(format));
        }
        assert_eq!((Format::of(Path::new("onnx")), Format::of(Path::new("a.bin"))), (None, None));
    }

    #[test]
    fn layers_hold_every_parameter_in_order() {
        let bytes = policy(3, 2, 1, 4);
        let artefact = bytes.artefact().unwrap();
        for (layers, params) in [
            (Layers::of_velocity(single_precision(&artefact).unwrap()), single_precision(&artefact).unwrap().params()),
            (Layers::of_critic(&artefact.critics().next().unwrap()), artefact.critics().next().unwrap().params()),
        ] {
            let first = layers.first.iter().flat_map(|(_, _, weights)| weights.iter());
            let hidden = layers.hidden.iter().flat_map(|(w, b)| w.iter().chain(b.iter()));
            let all = first.chain(layers.first_bias).chain(hidden).chain(layers.out.0).chain(layers.out.1);
            assert_eq!(all.copied().collect::<Vec<f32>>(), params);
        }
    }
}
