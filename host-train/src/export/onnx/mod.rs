//! ONNX: the velocity network, and the whole decision with its solver steps unrolled.
//!
//! Both graphs take observations in the plant's units and normalise inside; the first dimension is the batch. Operators
//! are those of set 17, all of them elementary. The time parts of the first layer are constants that flowlet computed. What
//! flowlet does and a graph cannot: refuse an observation that is not finite, set values below 2^-50 to zero, fix the order
//! of sums. So results agree to rounding, not to the bit; `tests/peers_onnx.rs` compares them.

mod graph;
mod proto;

use super::{Layers, facts, single_precision};
use crate::Result;
use flowlet::flow::Solver;
use flowlet::net::{Activation, Trunk, VelocityNet};
use flowlet::policy::Artefact;
use graph::Builder;
use prost::Message;
use proto::{Graph, Model, OperatorSet, Property};
use serde_json::json;

/// Version of the messages, and of the operators: those of ONNX 1.12.
const IR_VERSION: i64 = 8;
const OPERATORS: i64 = 17;

/// Which graph a file holds.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A decision: observation and noise to the action.
    Policy,
    /// The network alone: observation, latent and flow time to the velocity.
    Velocity,
}

impl Part {
    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Velocity => "velocity",
        }
    }
}

/// The file of an artefact.
pub fn encode(artefact: &Artefact<'_>, part: Part) -> Result<Vec<u8>> {
    let net = single_precision(artefact)?;
    let (graph, doc) = match part {
        Part::Policy => (policy(artefact, net), "a decision: observation and noise to the action"),
        Part::Velocity => {
            (velocity(artefact, net), "the velocity network: observation, latent and flow time to the velocity")
        }
    };
    let test = artefact.self_test();
    let self_test = json!({ "observation": test.0, "noise": test.1, "action": test.2 });
    let property = |key: &str, value: String| Property { key: key.into(), value };
    let model = Model {
        ir_version: IR_VERSION,
        producer_name: "flowlet".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        doc_string: format!("{}: {doc}", artefact.name()),
        graph: Some(graph),
        opset_import: vec![OperatorSet { domain: String::new(), version: OPERATORS }],
        metadata_props: vec![
            property("flowlet", facts(artefact).to_string()),
            property("flowlet.part", part.name().into()),
            property("flowlet.self_test", self_test.to_string()),
        ],
    };
    Ok(model.encode_to_vec())
}

/// `observation`, `latent`, `time` to `velocity`.
fn velocity(artefact: &Artefact<'_>, velocity: &VelocityNet<'_>) -> Graph {
    let mut g = Builder::default();
    let shape = velocity.shape();
    g.input("observation", shape.obs, "in the plant's units");
    g.input("latent", shape.act, "the point of the flow");
    g.input("time", 1, "flow time");
    let net = Net::new(&mut g, velocity);
    let mut base = state_part(&mut g, artefact, velocity);
    if shape.frequencies > 0 {
        let frequencies = g.constant("frequencies", &[1, shape.frequencies], velocity.frequencies());
        let phase = g.op("Mul", &["time", &frequencies]);
        let (sine, cosine) = (g.op("Sin", &[&phase]), g.op("Cos", &[&phase]));
        let features = g.concat(&[&sine, &cosine]);
        let weights = Layers::of_velocity(velocity).first.get(2).map_or(&[][..], |block| block.2);
        let weights = g.constant("first.time", &[2 * shape.frequencies, shape.hidden], weights);
        let part = g.op("MatMul", &[&features, &weights]);
        base = g.op("Add", &[&base, &part]);
    }
    let velocity = net.evaluate(&mut g, &base, "latent");
    g.output(&velocity, "velocity", shape.act, "d latent / d time");
    g.finish("velocity")
}

/// `observation`, `noise` to `action`.
fn policy(artefact: &Artefact<'_>, velocity: &VelocityNet<'_>) -> Graph {
    let mut g = Builder::default();
    let (shape, plan, range) = (velocity.shape(), artefact.plan(), artefact.range());
    g.input("observation", shape.obs, "in the plant's units");
    let mut x = g.input("noise", shape.act, &format!("independent draws of the {} source", artefact.source().name()));
    let net = Net::new(&mut g, velocity);
    let state = state_part(&mut g, artefact, velocity);
    let start_scale = artefact.schedule().start_scale(plan.t_start);
    if start_scale != 1.0 {
        let scale = g.scalar(start_scale);
        x = g.op("Mul", &[&x, &scale]);
    }
    // The first layer without the latent, for each flow time.
    let mut row = vec![0.0; shape.hidden];
    let bases: Vec<String> = (0..plan.nodes())
        .map(|node| {
            velocity.time_part(plan.node_time(node), &mut row);
            let time = g.vector(&format!("time.{node}"), &row);
            g.op("Add", &[&state, &time])
        })
        .collect();
    let (stages, nodes_per_step) = tableau(plan.solver);
    let step = (plan.t_end - plan.t_start) / plan.steps as f32;
    let step_length = g.scalar(step);
    for i in 0..plan.steps {
        let mut slope: Option<String> = None;
        let mut sum: Option<String> = None;
        for stage in stages {
            let point = match &slope {
                Some(slope) if stage.c != 0.0 => {
                    let length = g.scalar(stage.c * step);
                    let way = g.op("Mul", &[slope, &length]);
                    g.op("Add", &[&x, &way])
                }
                _ => x.clone(),
            };
            let base = &bases[i * nodes_per_step + stage.node];
            let k = net.evaluate(&mut g, base, &point);
            if stage.b != 0.0 {
                let weight = g.scalar(stage.b);
                let share = g.op("Mul", &[&k, &weight]);
                sum = Some(match sum {
                    Some(sum) => g.op("Add", &[&sum, &share]),
                    None => share,
                });
            }
            slope = Some(k);
        }
        if let Some(sum) = sum {
            let way = g.op("Mul", &[&sum, &step_length]);
            x = g.op("Add", &[&x, &way]);
        }
    }
    let latent = g.clip(&x, plan.latent_clip);
    let squashed = g.op("Tanh", &[&latent]);
    let (one, half) = (g.scalar(1.0), g.scalar(0.5));
    let above = g.op("Add", &[&squashed, &one]);
    let share = g.op("Mul", &[&above, &half]);
    let widths: Vec<f32> = range.low.iter().zip(range.high).map(|(low, high)| high - low).collect();
    let (low, high, width) = (g.vector("low", range.low), g.vector("high", range.high), g.vector("width", &widths));
    let scaled = g.op("Mul", &[&share, &width]);
    let action = g.op("Add", &[&scaled, &low]);
    let action = g.op("Max", &[&action, &low]);
    let action = g.op("Min", &[&action, &high]);
    g.output(&action, "action", shape.act, "in the plant's units");
    g.finish("policy")
}

/// The normalised observation's part of the first layer, bias included.
fn state_part(g: &mut Builder, artefact: &Artefact<'_>, velocity: &VelocityNet<'_>) -> String {
    let (normalizer, shape) = (artefact.normalizer(), velocity.shape());
    let (mean, scale) =
        (g.vector("observation.mean", normalizer.mean), g.vector("observation.scale", normalizer.scale));
    let centred = g.op("Sub", &["observation", &mean]);
    let scaled = g.op("Mul", &[&centred, &scale]);
    let state = g.clip(&scaled, normalizer.clip);
    let layers = Layers::of_velocity(velocity);
    let weights = layers.first.first().map_or(&[][..], |block| block.2);
    let weights = g.constant("first.state", &[shape.obs, shape.hidden], weights);
    let bias = g.vector("first.bias", layers.first_bias);
    let product = g.op("MatMul", &[&state, &weights]);
    g.op("Add", &[&product, &bias])
}

/// The constants of the network, shared by all of its evaluations.
struct Net {
    activation: Activation,
    residual: bool,
    latent: String,
    /// Weights and bias of each further layer, the output's last.
    layers: Vec<(String, String)>,
    /// Factors of GELU.
    gelu: [String; 4],
}

impl Net {
    fn new(g: &mut Builder, net: &VelocityNet<'_>) -> Self {
        let (shape, layers) = (net.shape(), Layers::of_velocity(net));
        let weights = layers.first.get(1).map_or(&[][..], |block| block.2);
        let latent = g.constant("first.latent", &[shape.act, shape.hidden], weights);
        let mut names = Vec::new();
        for (i, (weights, bias)) in layers.hidden.iter().enumerate() {
            let weights = g.constant(&format!("hidden.{}", i + 1), &[shape.hidden, shape.hidden], weights);
            names.push((weights, g.vector(&format!("hidden.{}.bias", i + 1), bias)));
        }
        let weights = g.constant("out", &[shape.hidden, shape.act], layers.out.0);
        names.push((weights, g.vector("out.bias", layers.out.1)));
        let gelu = if matches!(shape.activation, Activation::Gelu | Activation::GeluLibm) {
            // sqrt(2 / pi), as flowlet rounds it.
            [0.5, 1.0, 0.797_884_6, 0.044_715].map(|factor| g.scalar(factor))
        } else {
            Default::default()
        };
        let residual = shape.trunk == Trunk::Residual;
        Self { activation: shape.activation, residual, latent, layers: names, gelu }
    }

    /// The velocity at the latent `x`, `base` being the rest of the first layer.
    fn evaluate(&self, g: &mut Builder, base: &str, x: &str) -> String {
        let product = g.op("MatMul", &[x, &self.latent]);
        let sum = g.op("Add", &[&product, base]);
        let mut h = self.activate(g, &sum);
        for (i, (weights, bias)) in self.layers.iter().enumerate() {
            let product = g.op("MatMul", &[&h, weights]);
            let sum = g.op("Add", &[&product, bias]);
            if i + 1 == self.layers.len() {
                return sum;
            }
            let next = self.activate(g, &sum);
            h = if self.residual { g.op("Add", &[&next, &h]) } else { next };
        }
        h
    }

    fn activate(&self, g: &mut Builder, z: &str) -> String {
        match self.activation {
            Activation::Relu => g.op("Relu", &[z]),
            Activation::Tanh | Activation::TanhLibm => g.op("Tanh", &[z]),
            Activation::Silu | Activation::SiluLibm => {
                let gate = g.op("Sigmoid", &[z]);
                g.op("Mul", &[z, &gate])
            }
            Activation::Gelu | Activation::GeluLibm => {
                let [half, one, slope, cube] = &self.gelu;
                let square = g.op("Mul", &[z, z]);
                let third = g.op("Mul", &[&square, z]);
                let bent = g.op("Mul", &[&third, cube]);
                let sum = g.op("Add", &[z, &bent]);
                let inner = g.op("Mul", &[&sum, slope]);
                let tanh = g.op("Tanh", &[&inner]);
                let above = g.op("Add", &[&tanh, one]);
                let halved = g.op("Mul", &[z, half]);
                g.op("Mul", &[&halved, &above])
            }
        }
    }
}

/// A stage of a solver: offset of its flow time in the plan's nodes, share of the step, weight of its slope.
struct Stage {
    node: usize,
    c: f32,
    b: f32,
}

/// The stages of `docs/format.md`, and the nodes of a step.
fn tableau(solver: Solver) -> (&'static [Stage], usize) {
    const fn stage(node: usize, c: f32, b: f32) -> Stage {
        Stage { node, c, b }
    }
    match solver {
        Solver::Euler => (const { &[stage(0, 0.0, 1.0)] }, 1),
        Solver::Midpoint => (const { &[stage(0, 0.0, 0.0), stage(1, 0.5, 1.0)] }, 2),
        Solver::Heun => (const { &[stage(0, 0.0, 0.5), stage(1, 1.0, 0.5)] }, 1),
        Solver::Rk4 => (
            const {
                &[
                    stage(0, 0.0, 1.0 / 6.0),
                    stage(1, 0.5, 1.0 / 3.0),
                    stage(1, 0.5, 1.0 / 3.0),
                    stage(2, 1.0, 1.0 / 6.0),
                ]
            },
            2,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::policy as small;
    use super::*;
    use std::collections::HashSet;

    /// What the checker of the `onnx` package asks of a graph, without it: every value has one source, ahead of its use.
    #[test]
    fn values_are_named_once_and_used_after() {
        for frequencies in [0, 4] {
            let bytes = small(3, 2, 1, frequencies);
            let artefact = bytes.artefact().unwrap();
            for part in [Part::Policy, Part::Velocity] {
                let file = encode(&artefact, part).unwrap();
                assert_eq!(encode(&artefact, part).unwrap(), file);
                let graph = Model::decode(file.as_slice()).unwrap().graph.unwrap();
                let mut known = HashSet::new();
                for constant in &graph.initializer {
                    let floats: i64 = constant.dims.iter().product();
                    assert_eq!(constant.raw_data.len() as i64, 4 * floats, "{}", constant.name);
                    assert!(known.insert(constant.name.clone()), "{} twice", constant.name);
                }
                for input in &graph.input {
                    assert!(known.insert(input.name.clone()), "{} twice", input.name);
                }
                for node in &graph.node {
                    assert!(node.input.iter().all(|name| known.contains(name)), "{node:?}");
                    assert!(node.output.iter().all(|name| known.insert(name.clone())), "{node:?}");
                }
                let outputs: Vec<&str> = graph.output.iter().map(|output| output.name.as_str()).collect();
                assert_eq!(outputs, [if part == Part::Policy { "action" } else { "velocity" }]);
                assert!(known.contains(outputs[0]));
            }
        }
    }

    #[test]
    fn the_metadata_names_the_policy() {
        let bytes = small(3, 2, 1, 4);
        let model = Model::decode(encode(&bytes.artefact().unwrap(), Part::Policy).unwrap().as_slice()).unwrap();
        let of = |key: &str| model.metadata_props.iter().find(|p| p.key == key).unwrap().value.clone();
        let facts: serde_json::Value = serde_json::from_str(&of("flowlet")).unwrap();
        assert_eq!((&facts["name"], &facts["source"]), (&"essai".into(), &"truncated-gaussian".into()));
        assert_eq!(of("flowlet.part"), "policy");
    }
}
