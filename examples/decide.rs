//! Loads an artefact and decides a few times, as a firmware does: checked view, self-test, seeded noise.
//!
//! `cargo run --release --example decide [POLICY.flw]`; without a path the firmware's own policy is taken.

use flowlet::policy::{Artefact, Policy, PolicyScratch};
use rand_xoshiro::{Xoshiro128PlusPlus, rand_core::SeedableRng};
use zerocopy::IntoBytes;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/firmware/policies/pendulum.flw").to_string();
    let file = std::fs::read(std::env::args().nth(1).unwrap_or(default))?;

    // The view reads floats in place, so the bytes must begin at an address divisible by four.
    let mut words = vec![0u32; file.len().div_ceil(4)];
    let bytes = &mut words.as_mut_slice().as_mut_bytes()[..file.len()];
    bytes.copy_from_slice(&file);
    let artefact = Artefact::new(bytes)?;
    let policy = Policy::new(artefact)?;

    // A host lends memory of run-time size; firmware has it in the type, see `StaticPolicy`.
    let shape = artefact.velocity().shape();
    let mut memory = vec![0.0; PolicyScratch::len(shape, policy.plan())];
    let mut scratch = PolicyScratch::carve(shape, policy.plan(), &mut memory).ok_or("the memory is too short")?;
    policy.prepare(&mut scratch)?;
    let mut action = vec![0.0; shape.act];
    policy.self_test(&mut scratch, &mut action)?;
    println!("{}: self-test passed, {} multiply-accumulates a decision", artefact.name(), policy.macs_per_decision());

    let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
    let observation = artefact.normalizer().mean.to_vec();
    for _ in 0..3 {
        policy.act(&observation, &mut rng, &mut scratch, &mut action)?;
        let named: Vec<String> = artefact.act_names().zip(&action).map(|(name, a)| format!("{name} {a:.4}")).collect();
        println!("{}", named.join(", "));
    }
    Ok(())
}
