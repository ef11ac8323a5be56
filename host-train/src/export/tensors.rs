//! safetensors: every number of an artefact as a named array, for PyTorch, JAX, numpy and the like.
//!
//! Matrices have the shape `[outputs, inputs]`, as a PyTorch `Linear` holds them; the blocks of a split first layer, joined
//! along their inputs, are the matrix of an ordinary one. What is not an array is one JSON object in the metadata under
//! the key `flowlet` (one key, because the order of several is not fixed). Nothing is lost: a test rebuilds the artefact.

use super::{Layers, facts, single_precision};
use crate::{Error, Result};
use flowlet::policy::Artefact;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;

/// The key of the metadata.
pub const METADATA: &str = "flowlet";

/// An array on its way into the file.
struct Array {
    name: String,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Array {
    fn vector(name: &str, values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Self { name: name.into(), shape: vec![values.len()], bytes }
    }

    /// A matrix stored by columns, written by rows.
    fn matrix(name: String, weights: &[f32], inputs: usize, outputs: usize) -> Self {
        let row = |i: usize| weights.iter().skip(i).step_by(outputs);
        let bytes = (0..outputs).flat_map(row).flat_map(|x| x.to_le_bytes()).collect();
        Self { name, shape: vec![outputs, inputs], bytes }
    }
}

/// The file of an artefact.
pub fn encode(artefact: &Artefact<'_>) -> Result<Vec<u8>> {
    let velocity = single_precision(artefact)?;
    let mut arrays = network("velocity", &Layers::of_velocity(velocity));
    for (i, critic) in artefact.critics().enumerate() {
        arrays.extend(network(&format!("critic.{i}"), &Layers::of_critic(&critic)));
    }
    let (normalizer, range, self_test) = (artefact.normalizer(), artefact.range(), artefact.self_test());
    for (name, values) in [
        ("velocity.frequencies", velocity.frequencies()),
        ("observation.mean", normalizer.mean),
        ("observation.scale", normalizer.scale),
        ("action.low", range.low),
        ("action.high", range.high),
        ("self_test.observation", self_test.0),
        ("self_test.noise", self_test.1),
        ("self_test.action", self_test.2),
        ("self_test.values", self_test.3),
    ] {
        arrays.push(Array::vector(name, values));
    }
    let failed = |e: safetensors::SafeTensorError| Error::failure(format!("the policy cannot be exported: {e}"));
    let mut views = Vec::new();
    for array in &arrays {
        let view = TensorView::new(Dtype::F32, array.shape.clone(), &array.bytes).map_err(failed)?;
        views.push((array.name.as_str(), view));
    }
    let metadata = HashMap::from([(METADATA.to_string(), facts(artefact).to_string())]);
    safetensors::serialize(views, Some(metadata)).map_err(failed)
}

/// `PREFIX.first.INPUT.weight`, `PREFIX.first.bias`, `PREFIX.hidden.N.weight` and `bias` from 1, `PREFIX.out.weight`, `bias`.
fn network(prefix: &str, layers: &Layers<'_>) -> Vec<Array> {
    let width = layers.first_bias.len();
    let mut arrays = Vec::new();
    for (input, n, weights) in &layers.first {
        arrays.push(Array::matrix(format!("{prefix}.first.{input}.weight"), weights, *n, width));
    }
    arrays.push(Array::vector(&format!("{prefix}.first.bias"), layers.first_bias));
    for (i, (weights, bias)) in layers.hidden.iter().enumerate() {
        arrays.push(Array::matrix(format!("{prefix}.hidden.{}.weight", i + 1), weights, width, width));
        arrays.push(Array::vector(&format!("{prefix}.hidden.{}.bias", i + 1), bias));
    }
    let (weights, bias) = layers.out;
    arrays.push(Array::matrix(format!("{prefix}.out.weight"), weights, width, bias.len()));
    arrays.push(Array::vector(&format!("{prefix}.out.bias"), bias));
    arrays
}

#[cfg(test)]
mod tests {
    use super::super::tests::policy;
    use super::*;
    use crate::policy::ArtefactBytes;
    use flowlet::flow::{Plan, Schedule, Solver, Source};
    use flowlet::net::{Activation, CriticShape, Trunk, VelocityShape};
    use flowlet::policy::{CriticManifest, Manifest, Squash, StepEntry, Weights};
    use safetensors::SafeTensors;
    use serde_json::Value;

    /// Rebuilds the artefact from nothing but the file.
    fn decode(file: &[u8]) -> ArtefactBytes {
        let (_, header) = SafeTensors::read_metadata(file).unwrap();
        let facts: Value = serde_json::from_str(&header.metadata().as_ref().unwrap()[METADATA]).unwrap();
        let file = SafeTensors::deserialize(file).unwrap();
        let floats = |name: &str| -> (Vec<usize>, Vec<f32>) {
            let view = file.tensor(name).unwrap();
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
            (view.shape().to_vec(), values)
        };
        let vector = |name: &str| floats(name).1;
        // By columns again.
        let matrix = |name: String| {
            let (shape, values) = floats(&name);
            (0..shape[1])
                .flat_map(|j| (0..shape[0]).map(move |i| (i, j)))
                .map(|(i, j)| values[i * shape[1] + j])
                .collect()
        };
        let params = |prefix: &str, inputs: &[&str], layers: usize| -> Vec<f32> {
            let mut all: Vec<Vec<f32>> =
                inputs.iter().map(|input| matrix(format!("{prefix}.first.{input}.weight"))).collect();
            all.push(vector(&format!("{prefix}.first.bias")));
            for layer in (1..layers).map(|i| format!("hidden.{i}")).chain(["out".to_string()]) {
                all.push(matrix(format!("{prefix}.{layer}.weight")));
                all.push(vector(&format!("{prefix}.{layer}.bias")));
            }
            all.concat()
        };
        let number = |value: &Value| value.as_f64().unwrap() as f32;
        let count = |value: &Value| value.as_u64().unwrap() as usize;
        let names = |key: &str| -> Vec<String> {
            facts[key].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_string()).collect()
        };
        let activation =
            |value: &Value| Activation::ALL.into_iter().find(|a| a.name() == value.as_str().unwrap()).unwrap();
        let (frequencies, mean, low) =
            (vector("velocity.frequencies"), vector("observation.mean"), vector("action.low"));
        let shape = VelocityShape {
            obs: mean.len(),
            act: low.len(),
            hidden: count(&facts["hidden"]),
            layers: count(&facts["layers"]),
            frequencies: frequencies.len(),
            activation: activation(&facts["activation"]),
            trunk: [Trunk::Plain, Trunk::Residual].into_iter().find(|t| t.name() == facts["trunk"]).unwrap(),
        };
        let critics = count(facts["critics"].get("count").unwrap_or(&0.into()));
        let critic_layers = if critics == 0 { 0 } else { count(&facts["critics"]["layers"]) };
        let critic_params: Vec<f32> =
            (0..critics).flat_map(|i| params(&format!("critic.{i}"), &["state", "action"], critic_layers)).collect();
        let (obs_names, act_names) = (names("observation"), names("action"));
        let sources = [Source::Gaussian, Source::TruncatedGaussian { bound: number(&facts["source_parameter"]) }];
        let schedule_parameters = [0, 1].map(|i| number(&facts["schedule_parameters"][i]));
        let steps: Vec<StepEntry> = (facts["step_table"].as_array().unwrap().iter())
            .map(|e| StepEntry { steps: count(&e[0]) as u32, mean_return: number(&e[1]), half_width: number(&e[2]) })
            .collect();
        let schedules = (0..4).filter_map(|code| Schedule::from_code(code, schedule_parameters).ok());
        ArtefactBytes::encode(&Manifest {
            name: facts["name"].as_str().unwrap(),
            period_us: count(&facts["period_us"]) as u32,
            shape,
            frequencies: &frequencies,
            weights: Weights::F32(&params("velocity", &["state", "latent", "time"], shape.layers)),
            plan: Plan {
                solver: Solver::ALL.into_iter().find(|s| s.name() == facts["solver"]).unwrap(),
                steps: count(&facts["steps"]),
                t_start: number(&facts["interval"][0]),
                t_end: number(&facts["interval"][1]),
                latent_clip: number(&facts["latent_clip"]),
            },
            source: sources.into_iter().find(|s| s.name() == facts["source"]).unwrap(),
            schedule: schedules.into_iter().find(|s| s.name() == facts["schedule"]).unwrap(),
            obs_names: &obs_names.iter().map(String::as_str).collect::<Vec<_>>(),
            act_names: &act_names.iter().map(String::as_str).collect::<Vec<_>>(),
            obs_mean: &mean,
            obs_scale: &vector("observation.scale"),
            obs_clip: number(&facts["observation_clip"]),
            low: &low,
            high: &vector("action.high"),
            squash: [Squash::TanhLibm, Squash::Tanh].into_iter().find(|s| s.name() == facts["squash"]).unwrap(),
            critics: (critics > 0).then(|| CriticManifest {
                shape: CriticShape {
                    obs: shape.obs,
                    act: shape.act,
                    hidden: count(&facts["critics"]["hidden"]),
                    layers: critic_layers,
                    activation: activation(&facts["critics"]["activation"]),
                },
                count: critics,
                params: &critic_params,
                particles: count(&facts["critics"]["particles"]),
                temperature: number(&facts["critics"]["temperature"]),
            }),
            step_table: &steps,
            test_observation: &vector("self_test.observation"),
            test_noise: &vector("self_test.noise"),
        })
        .unwrap()
    }

    #[test]
    fn the_artefact_comes_back_bit_for_bit() {
        for (obs, act, critics, frequencies) in [(3, 2, 2, 4), (1, 1, 0, 0), (4, 6, 1, 1)] {
            let bytes = policy(obs, act, critics, frequencies);
            let file = encode(&bytes.artefact().unwrap()).unwrap();
            assert_eq!(decode(&file).as_slice(), bytes.as_slice(), "{obs} {act} {critics} {frequencies}");
            assert_eq!(encode(&bytes.artefact().unwrap()).unwrap(), file);
        }
    }

    #[test]
    fn matrices_have_a_row_an_output() {
        // By columns: 1 and 2 leave the first input.
        let array = Array::matrix("w".into(), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 3, 2);
        let values: Vec<f32> = array.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!((array.shape, values), (vec![2, 3], vec![1.0, 3.0, 5.0, 2.0, 4.0, 6.0]));
    }
}
