//! The Rust source that `export` writes, compiled and run: the same bits as the artefact.
//!
//! `golden/policy.rs` is the source of the artefact `golden/policy.flw`. `BLESS=1 cargo test -p host-train --test
//! exported_rust` writes both anew.

#[path = "golden/policy.rs"]
mod policy;

use flowlet::flow::{Plan, Schedule, Solver, Source};
use flowlet::net::{Activation, Trunk, VelocityShape};
use flowlet::policy::{Manifest, Squash, Weights};
use host_train::policy::{ArtefactBytes, HostPolicy};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A small policy with a solver whose nodes are not its steps.
fn artefact() -> ArtefactBytes {
    let (activation, trunk) = (Activation::Silu, Trunk::Residual);
    let shape = VelocityShape { obs: 3, act: 2, hidden: 8, layers: 2, frequencies: 2, activation, trunk };
    let mut rng = Xoshiro128PlusPlus::seed_from_u64(5);
    let params: Vec<f32> =
        (0..shape.params()).map(|_| 0.5 * flowlet::math::symmetric_uniform(rng.next_u32())).collect();
    ArtefactBytes::encode(&Manifest {
        name: "golden",
        period_us: 20_000,
        shape,
        frequencies: &[1.5, 3.0],
        weights: Weights::F32(&params),
        plan: Plan { solver: Solver::Midpoint, steps: 3, t_start: 0.0, t_end: 1.0, latent_clip: 5.0 },
        source: Source::Gaussian,
        schedule: Schedule::Linear,
        obs_names: &["cos", "sin", "speed"],
        act_names: &["left", "right"],
        obs_mean: &[0.0, 0.1, -0.5],
        obs_scale: &[1.0, 1.0, 0.125],
        obs_clip: 8.0,
        low: &[-2.0, -1.0],
        high: &[2.0, 1.5],
        squash: Squash::Tanh,
        critics: None,
        step_table: &[],
        test_observation: &[0.5, -0.25, 3.0],
        test_noise: &[0.7, -1.2],
    })
    .unwrap()
}

#[test]
fn the_source_is_what_export_writes() {
    let artefact = artefact();
    let source = host_train::export::rust_source::encode(&artefact.artefact().unwrap());
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(golden("policy.flw"), artefact.as_slice()).unwrap();
        std::fs::write(golden("policy.rs"), &source).unwrap();
    }
    assert!(std::fs::read(golden("policy.flw")).unwrap() == artefact.as_slice(), "another artefact");
    assert!(
        std::fs::read_to_string(golden("policy.rs")).unwrap() == source,
        "another source: see the top of this file"
    );
}

#[test]
fn the_module_decides_with_the_artefacts_bits() {
    let bytes = ArtefactBytes::read(&golden("policy.flw")).unwrap();
    let view = bytes.artefact().unwrap();
    let plan = view.plan();
    assert_eq!((policy::OBS, policy::ACT, policy::HIDDEN), (3, 2, 8));
    assert_eq!((policy::STEPS, policy::NODES, policy::PERIOD_US), (plan.steps, plan.nodes(), view.period_us()));
    let mut host = HostPolicy::new(view).unwrap();
    let mut embedded = policy::load().unwrap();
    let (mut rng, mut same) = (Xoshiro128PlusPlus::seed_from_u64(1), Xoshiro128PlusPlus::seed_from_u64(1));
    for i in 0..200u8 {
        let observation = [0.02, -0.03, 0.4].map(|slope: f32| slope * (f32::from(i) - 100.0));
        let mut action = [0.0; policy::ACT];
        host.act(&observation, &mut rng, &mut action).unwrap();
        let found = embedded.act(&observation, &mut same).unwrap();
        assert_eq!(found.map(f32::to_bits), action.map(f32::to_bits));
    }
}
