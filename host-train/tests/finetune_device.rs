//! What `host-train finetune` plays is what the device plays: the firmware's life, controller, journal and slices with it,
//! ends in the same report as the loop of the command, bit for bit.

#[path = "../../firmware/src/learning.rs"]
#[allow(dead_code)] // The firmware asks for more of it.
mod learning;

use flowlet::control::LentPolicy;
use flowlet::finetune::session::state_bytes;
use flowlet::finetune::words;
use flowlet::policy::{Artefact, Policy, PolicyScratch};
use host_train::env::{Decision, make};
use host_train::evaluate::env_for;
use host_train::finetune::{Options, Reward, finetune, mode, session_config};
use host_train::policy::ArtefactBytes;
use learning::{Flash, LEARNER, Memory, Script};
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn the_command_and_the_device_live_the_same_life() {
    // Seven episodes: a reference, a screening, updates with the actor's step.
    let script = Script { episodes: 7, slices: 1000, hurried: false };
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../firmware/policies/furuta-critic.flw");
    let bytes = ArtefactBytes::read(&path).unwrap();
    let artefact = Artefact::new(bytes.as_slice()).unwrap();
    let (shape, critic) = (*artefact.velocity().shape(), *artefact.critics().next().unwrap().shape());

    let policy = Policy::new(artefact).unwrap();
    let mut scratch = vec![0.0; PolicyScratch::len(&shape, policy.plan())];
    let mut policy = LentPolicy::new(policy, &mut scratch).unwrap();
    let mut learner = vec![0; words(&shape, &critic, &LEARNER)];
    let mut state = vec![0; state_bytes(&shape, &LEARNER)];
    let mut flash = Flash::new(1);
    let mut memory = Memory { learner: &mut learner, flash: &mut flash, state: &mut state };
    let device = learning::live(&mut policy, &artefact, &mut memory, script, |_, what| what()).unwrap();

    let physics = BTreeMap::from([("friction".to_string(), 5.0)]);
    let mut live = Decision::new(make("furuta", &physics).unwrap(), 1);
    let mut apart = env_for(&artefact, Some("furuta"), &physics).unwrap();
    let config = mode("adam", live.spec(), &artefact).unwrap();
    let seconds = f64::from(script.episodes * learning::STEPS) * live.period();
    let options = Options {
        seed: 1,
        seconds,
        every: seconds,
        episodes: [1, 1],
        eval_seed: 0,
        reward_scale: live.spec().reward_scale,
        reward: Reward::Task,
        session: session_config(live.spec()).unwrap(),
    };
    let outcome = finetune(&artefact, config, &options, (&mut live, &mut apart), &mut |_| Ok(())).unwrap();
    let command = outcome.rows.last().unwrap().report;
    assert!(command.updates > config.warmup && command.late == 0);
    assert_eq!(command, device.report);
}
