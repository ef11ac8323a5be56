//! Exported files in other programs: ONNX in onnxruntime, safetensors in numpy, against flowlet's own numbers.
//!
//! Run by `cargo xtask test`, which installs the packages of `requirements.txt` and sets `FLOWLET_PYTHON`. Every kind of
//! activation, trunk, solver, source and schedule occurs, with one and with six actions, untrained and trained.

use flowlet::flow::{Plan, Schedule, Solver, Source};
use flowlet::net::{Activation, CriticShape, Trunk, VelocityNet, VelocityShape};
use flowlet::policy::{CriticManifest, Manifest, Policy, PolicyScratch, Squash, Weights};
use host_train::export::onnx::{self, Part};
use host_train::export::tensors;
use host_train::policy::ArtefactBytes;
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Rows of a batch.
const ROWS: usize = 64;

/// Reads `list.txt` in the folder given: lines `file row-widths-of-inputs > row-width-of-output`, with the values of the
/// inputs in `file.in` and those of the output put into `file.out`, all `f32`, row after row.
const RUN_ONNX: &str = r#"
import sys, pathlib, numpy as np, onnx, onnxruntime
folder = pathlib.Path(sys.argv[1])
for name in folder.joinpath("list.txt").read_text().split():
    path = str(folder / name)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    values = np.fromfile(path + ".in", dtype="<f4")
    feed, at = {}, 0
    rows = int(folder.joinpath("rows.txt").read_text())
    for inp in session.get_inputs():
        assert inp.shape[0] == "batch", inp.shape
        n = rows * inp.shape[1]
        feed[inp.name] = values[at:at + n].reshape(rows, inp.shape[1])
        at += n
    assert at == len(values)
    [whole] = session.run(None, feed)
    # Another size of the batch gives the same rows.
    [one] = session.run(None, {k: v[:1] for k, v in feed.items()})
    assert np.allclose(one, whole[:1], rtol=1e-5, atol=1e-6), (one, whole[:1])
    whole.astype("<f4").tofile(path + ".out")
"#;

/// Computes one velocity with numpy from nothing but the file, as its documentation says.
const RUN_SAFETENSORS: &str = r#"
import sys, json, numpy as np
from safetensors import safe_open
with safe_open(sys.argv[1], framework="numpy") as f:
    a = {k: f.get_tensor(k) for k in f.keys()}
    facts = json.loads(f.metadata()["flowlet"])
o, n = a["self_test.observation"], a["self_test.noise"]
clip = facts["observation_clip"]
s = np.clip((o - a["observation.mean"]) * a["observation.scale"], -clip, clip)
f = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh,
     "silu": lambda z: z / (1 + np.exp(-z)),
     "gelu": lambda z: 0.5 * z * (1 + np.tanh(np.sqrt(2 / np.pi) * (z + 0.044715 * z**3)))}[
     facts["activation"].removesuffix("-libm")]
first = np.concatenate([a["velocity.first." + k + ".weight"] for k in ("state", "latent", "time")], axis=1)
def v(x, t):
    p = a["velocity.frequencies"] * t
    h = f(first @ np.concatenate([s, x, np.sin(p), np.cos(p)]) + a["velocity.first.bias"])
    for i in range(1, facts["layers"]):
        g = f(a[f"velocity.hidden.{i}.weight"] @ h + a[f"velocity.hidden.{i}.bias"])
        h = g + h if facts["trunk"] == "residual" else g
    return a["velocity.out.weight"] @ h + a["velocity.out.bias"]
assert facts["solver"] == "euler"
(t0, t1), steps = facts["interval"], facts["steps"]
x = n.astype(np.float64) * facts["start_scale"]
for i in range(steps):
    x = x + (t1 - t0) / steps * v(x, t0 + (t1 - t0) * i / steps)
x = np.clip(x, -facts["latent_clip"], facts["latent_clip"])
action = a["action.low"] + 0.5 * (np.tanh(x) + 1) * (a["action.high"] - a["action.low"])
assert np.allclose(action, a["self_test.action"], rtol=1e-5, atol=1e-5), (action, a["self_test.action"])
print(len(action))
"#;

/// Runs a Python program with the packages.
fn python(program: &str, argument: &Path) -> String {
    let interpreter = std::env::var_os("FLOWLET_PYTHON");
    let mut command = Command::new(interpreter.expect("run `cargo xtask test`, which installs the Python packages"));
    let output = command.args(["-c", program]).arg(argument).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

struct Numbers(Xoshiro128PlusPlus);

impl Numbers {
    fn uniform(&mut self, n: usize, width: f32) -> Vec<f32> {
        (0..n).map(|_| width * flowlet::math::symmetric_uniform(self.0.next_u32())).collect()
    }
}

/// A policy of random weights.
fn random(shape: VelocityShape, plan: Plan, source: Source, schedule: Schedule, seed: u64) -> ArtefactBytes {
    let VelocityShape { obs, act, hidden, .. } = shape;
    let mut numbers = Numbers(Xoshiro128PlusPlus::seed_from_u64(seed));
    let params = numbers.uniform(shape.params(), (3.0 / hidden as f32).sqrt());
    let critic = CriticShape { obs, act, hidden: 8, layers: 1, activation: Activation::Relu };
    let critic_params = numbers.uniform(2 * critic.params(), 0.5);
    let names: Vec<String> = (0..obs.max(act)).map(|i| format!("c{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    ArtefactBytes::encode(&Manifest {
        name: "random",
        period_us: 10_000,
        shape,
        frequencies: &numbers.uniform(shape.frequencies, 12.0),
        weights: Weights::F32(&params),
        plan,
        source,
        schedule,
        obs_names: &names[..obs],
        act_names: &names[..act],
        obs_mean: &numbers.uniform(obs, 1.0),
        obs_scale: &numbers.uniform(obs, 1.0).iter().map(|u| 1.5 + u).collect::<Vec<_>>(),
        obs_clip: 2.0,
        low: &numbers.uniform(act, 1.0).iter().map(|u| u - 1.5).collect::<Vec<_>>(),
        high: &numbers.uniform(act, 1.0).iter().map(|u| u + 1.5).collect::<Vec<_>>(),
        squash: Squash::Tanh,
        critics: Some(CriticManifest {
            shape: critic,
            count: 2,
            params: &critic_params,
            particles: 4,
            temperature: 0.1,
        }),
        step_table: &[],
        test_observation: &numbers.uniform(obs, 1.0),
        test_noise: &numbers.uniform(act, 1.0),
    })
    .unwrap()
}

/// The policies: every activation with both trunks and every solver, then the sources and schedules that change a graph.
fn policies() -> Vec<ArtefactBytes> {
    let mut all = Vec::new();
    for (i, activation) in Activation::ALL.into_iter().enumerate() {
        for (j, trunk) in [Trunk::Plain, Trunk::Residual].into_iter().enumerate() {
            let solver = Solver::ALL[(i + 2 * j) % 4];
            let act = if (i + j) % 2 == 0 { 1 } else { 6 };
            let shape =
                VelocityShape { obs: 4 + i, act, hidden: 24, layers: 1 + i % 3, frequencies: 4 * j, activation, trunk };
            let plan = Plan { solver, steps: 1 + i, t_start: 0.0, t_end: 1.0, latent_clip: 6.0 };
            all.push(random(shape, plan, Source::Gaussian, Schedule::Linear, all.len() as u64));
        }
    }
    let (activation, trunk) = (Activation::Silu, Trunk::Plain);
    let shape = VelocityShape { obs: 3, act: 2, hidden: 16, layers: 2, frequencies: 3, activation, trunk };
    let plan = Plan { solver: Solver::Euler, steps: 4, t_start: 0.05, t_end: 0.95, latent_clip: 1.0 };
    let ve = Schedule::Ve { sigma_min: 0.1, sigma_max: 3.0 };
    all.push(random(shape, plan, Source::Laplace, ve, 100));
    all.push(random(shape, plan, Source::Uniform, Schedule::VpCosine, 101));
    // The policy that is flashed: trained, so with weights and a normaliser as they come.
    let trained = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware/policies/pendulum.flw");
    all.push(ArtefactBytes::read(&trained).unwrap());
    all
}

/// flowlet's decisions, row after row.
fn actions(policy: &Policy<'_>, observations: &[f32], noise: &[f32]) -> Vec<f32> {
    let shape = policy.artefact().velocity().shape();
    let mut memory = vec![0.0; PolicyScratch::len(shape, policy.plan())];
    let mut scratch = PolicyScratch::carve(shape, policy.plan(), &mut memory).unwrap();
    policy.prepare(&mut scratch).unwrap();
    let rows = observations.chunks(shape.obs).zip(noise.chunks(shape.act));
    let one = |(observation, noise)| {
        let mut action = vec![0.0; shape.act];
        policy.act_from_noise(observation, noise, &mut scratch, &mut action).unwrap();
        action
    };
    rows.flat_map(one).collect()
}

/// flowlet's velocities, row after row.
fn velocities(policy: &Policy<'_>, observations: &[f32], latents: &[f32], times: &[f32]) -> Vec<f32> {
    let net: &VelocityNet<'_> = policy.artefact().velocity().as_f32().unwrap();
    let (shape, h) = (net.shape(), net.shape().hidden);
    let (mut state, mut base, mut time) = (vec![0.0; shape.obs], vec![0.0; h], vec![0.0; h]);
    let (mut a, mut b) = (vec![0.0; h], vec![0.0; h]);
    let rows = observations.chunks(shape.obs).zip(latents.chunks(shape.act)).zip(times);
    let one = |((observation, latent), t): ((&[f32], &[f32]), &f32)| {
        policy.artefact().normalizer().apply(observation, &mut state).unwrap();
        net.state_part(&state, &mut base);
        net.time_part(*t, &mut time);
        base.iter_mut().zip(&time).for_each(|(base, time)| *base += time);
        let mut v = vec![0.0; shape.act];
        net.velocity(&base, latent, &mut a, &mut b, &mut v);
        v
    };
    rows.flat_map(one).collect()
}

#[test]
#[ignore = "needs the Python packages: cargo xtask test"]
fn onnxruntime_computes_what_flowlet_computes() {
    let folder = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(Xoshiro128PlusPlus::seed_from_u64(77));
    let mut list = Vec::new();
    let mut wanted = Vec::new();
    for (i, bytes) in policies().iter().enumerate() {
        let artefact = bytes.artefact().unwrap();
        let (shape, range) = (*artefact.velocity().shape(), *artefact.range());
        let policy = Policy::new(artefact).unwrap();
        // Some of them beyond the clip of the observation.
        let normalizer = artefact.normalizer();
        let spread = |(k, u): (usize, f32)| normalizer.mean[k % shape.obs] + u / normalizer.scale[k % shape.obs];
        let observations: Vec<f32> =
            numbers.uniform(ROWS * shape.obs, 3.0).into_iter().enumerate().map(spread).collect();
        let mut noise = vec![0.0; ROWS * shape.act];
        artefact.source().sample(&mut numbers.0, &mut noise);
        let times: Vec<f32> = numbers.uniform(ROWS, 0.5).iter().map(|u| u + 0.5).collect();
        for (part, inputs, outputs) in [
            (Part::Policy, vec![&observations, &noise], actions(&policy, &observations, &noise)),
            (Part::Velocity, vec![&observations, &noise, &times], velocities(&policy, &observations, &noise, &times)),
        ] {
            let name = format!("{i}-{}.onnx", part.name());
            let values: Vec<u8> = inputs.into_iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
            fs::write(folder.path().join(&name), onnx::encode(&artefact, part).unwrap()).unwrap();
            fs::write(folder.path().join(format!("{name}.in")), values).unwrap();
            let width = range.low.iter().zip(range.high).map(|(low, high)| high - low).fold(0.0, f32::max);
            wanted.push((name.clone(), outputs, if part == Part::Policy { width } else { 0.0 }));
            list.push(name);
        }
    }
    fs::write(folder.path().join("list.txt"), list.join("\n")).unwrap();
    fs::write(folder.path().join("rows.txt"), ROWS.to_string()).unwrap();
    python(RUN_ONNX, folder.path());
    let mut worst = (0.0f32, 0.0f32);
    for (name, outputs, width) in wanted {
        let bytes = fs::read(folder.path().join(format!("{name}.out"))).unwrap();
        let found: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(found.len(), outputs.len(), "{name}");
        // Rounding: sums of up to 70 products in another order, through at most four layers, are good to 1e-6 of the
        // largest velocity of the batch; the flow carries that through up to 16 evaluations with a slope below ten.
        let largest = outputs.iter().fold(width, |most, y| most.max(y.abs()));
        let differences = found.iter().zip(&outputs).map(|(x, y)| (x - y).abs() / largest);
        // max() would hide a NaN.
        let most = differences.fold(0.0f32, |most, d| if d <= most { most } else { d });
        assert!(most < 1e-5, "{name}: {most}");
        if width > 0.0 { worst.0 = worst.0.max(most) } else { worst.1 = worst.1.max(most) }
    }
    println!("largest differences: actions {:e} of their range, velocities {:e} of the largest", worst.0, worst.1);
}

#[test]
#[ignore = "needs the Python packages: cargo xtask test"]
fn numpy_decides_from_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("policy.safetensors");
    let mut seen = 0;
    for bytes in policies() {
        let artefact = bytes.artefact().unwrap();
        if artefact.plan().solver != Solver::Euler {
            continue;
        }
        fs::write(&path, tensors::encode(&artefact).unwrap()).unwrap();
        assert_eq!(python(RUN_SAFETENSORS, &path).trim(), artefact.velocity().shape().act.to_string());
        seen += 1;
    }
    assert!(seen >= 4, "{seen}");
}
