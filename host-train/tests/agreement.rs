//! The trainer's batched networks and estimator against flowlet's scalar ones, on the same inputs.
//!
//! Both are f32 and differ in the order of their sums and in their elementary functions, so they agree to a relative
//! 1e-4 and not to the bit. What the robot runs, and what `eval` plays, is flowlet's.

use flowlet::flow::{Plan, Solver};
use flowlet::math::ln_sech2;
use flowlet::net::{Critic, CriticScratch};
use flowlet::policy::{Policy, PolicyScratch};
use flowlet::rfm::{
    Annealed, Boltzmann, BoltzmannScratch, ControlVariate, EstimatorScratch, Langevin, Method, Mixture,
    RfmConfig as Estimator, Target,
};
use host_train::agent::batch::BatchEstimator;
use host_train::agent::posterior::{Estimates, Points, Posterior, Values};
use host_train::agent::rfm::Rfm;
use host_train::agent::sampler::Sampler;
use host_train::config::{Config, Sources};
use host_train::nn::critic::CriticWork;
use host_train::nn::lanes::{Lane, pack_groups, unpack_groups};
use host_train::noise::Noise;
use host_train::normaliser::Normaliser;
use host_train::policy::{ArtefactBytes, critic_shape, velocity_shape};
use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro128PlusPlus;

/// An agent for `cartpole` (5 observations, 1 action) or, given 2 actions, of the same networks with another width.
fn agent(set: &[&str], obs: usize, act: usize) -> (Config, Rfm) {
    let set: Vec<String> = set.iter().map(ToString::to_string).collect();
    let config = Config::resolve(&Sources { env: Some("cartpole"), set: &set, ..Sources::default() }).unwrap();
    let agent = Rfm::new(config.rfm().unwrap(), obs, act, 11);
    (config, agent)
}

fn close(a: f32, b: f32, scale: f32) -> bool {
    (a - b).abs() <= 1e-4 * scale.max(a.abs()).max(b.abs())
}

#[test]
fn samples_agree_for_every_activation_and_trunk() {
    for activation in ["relu", "tanh", "silu", "gelu"] {
        for trunk in ["plain", "residual"] {
            let (activation, trunk) = (format!("rfm.activation={activation:?}"), format!("rfm.trunk={trunk:?}"));
            let set =
                [activation.as_str(), &trunk, "rfm.actor_hidden=37", "rfm.actor_layers=3", "rfm.actor_out_gain=1"];
            let (config, agent) = agent(&set, 5, 1);
            let (rows, mut noise) = (50, Noise::new(2, 0));
            let (mut obs, mut latents) = (vec![0.0; 5 * rows], vec![0.0; rows]);
            noise.gaussian(&mut obs);
            noise.gaussian(&mut latents);
            let mut batched = latents.clone();
            Sampler::new(config.rfm().unwrap(), agent.actor().shape()).integrate(agent.actor(), &obs, 1, &mut batched);

            // The same through the artefact: its normaliser is undone, so that the network sees `obs`.
            let bytes = ArtefactBytes::of_agent(&config, &agent, &Normaliser::new(&config.env)).unwrap();
            let artefact = bytes.artefact().unwrap();
            let plan = Plan { solver: Solver::Euler, ..*artefact.plan() };
            let policy = Policy::with_plan(artefact, plan).unwrap();
            let shape = artefact.velocity().shape();
            let mut memory = vec![0.0; PolicyScratch::len(shape, &plan)];
            let mut scratch = PolicyScratch::carve(shape, &plan, &mut memory).unwrap();
            policy.prepare(&mut scratch).unwrap();
            let normalizer = artefact.normalizer();
            for ((s, latent), batched) in obs.chunks_exact(5).zip(&latents).zip(&batched) {
                let plant = s.iter().zip(normalizer.mean.iter().zip(normalizer.scale));
                let plant: Vec<f32> = plant.map(|(s, (mean, scale))| s / scale + mean).collect();
                policy.act_from_noise(&plant, &[*latent], &mut scratch, &mut [0.0]).unwrap();
                assert!(close(scratch.latent[0], *batched, 1.0), "{set:?}: {} {batched}", scratch.latent[0]);
            }
        }
    }
}

#[test]
fn critics_and_their_action_gradients_agree() {
    for activation in ["relu", "tanh", "silu", "gelu"] {
        let activation = format!("rfm.critic_activation={activation:?}");
        let (config, agent) = agent(&[&activation, "rfm.critic_hidden=29"], 5, 2);
        let mut shape = critic_shape(config.train(), config.make_env().unwrap().spec());
        shape.act = 2;
        let (states, k, mut noise) = (7, 9, Noise::new(3, 0));
        let (mut s, mut actions) = (vec![0.0; 5 * states], vec![0.0; 2 * states * k]);
        noise.gaussian(&mut s);
        noise.uniform_in(&mut actions, -1.0, 1.0);
        let critic = agent.critic();
        let mut work = CriticWork::new(critic.shape(), states, k);
        let (mut q, mut gradient) = (vec![0.0; states * k], vec![0.0; 2 * states * k]);
        critic.minimum_and_gradient(&s, &actions, k, &mut q, &mut gradient, &mut work);

        let params = [agent.critic_params(0), agent.critic_params(1)];
        let scalar = params.each_ref().map(|p| Critic::new(shape, p).unwrap());
        let (mut part, mut pre, mut a, mut b) = (vec![0.0; 29], vec![0.0; 58], vec![0.0; 29], vec![0.0; 29]);
        for (row, (action, (q, gradient))) in
            actions.chunks_exact(2).zip(q.iter().zip(gradient.chunks_exact(2))).enumerate()
        {
            let values = scalar.map(|critic| {
                critic.state_part(&s[row / k * 5..][..5], &mut part);
                let mut scratch = CriticScratch { pre: &mut pre, a: &mut a, b: &mut b };
                let mut slope = [0.0; 2];
                (critic.value_and_gradient(&part, action, &mut scratch, &mut slope), slope)
            });
            let (least, slope) = if values[1].0 < values[0].0 { values[1] } else { values[0] };
            assert!(close(least, *q, 1.0), "{least} {q}");
            for (slope, gradient) in slope.iter().zip(gradient) {
                assert!(close(*slope, *gradient, 1.0), "{activation}: {slope} {gradient}");
            }
        }
    }
}

#[test]
fn posterior_means_agree_for_every_proposal_and_control_variate() {
    const ACT: usize = 2;
    let (config, agent) = agent(&["rfm.critic_hidden=24"], 5, ACT);
    let mut shape = critic_shape(config.train(), config.make_env().unwrap().spec());
    shape.act = ACT;
    let params = [agent.critic_params(0), agent.critic_params(1)];
    let critics = params.each_ref().map(|p| Critic::new(shape, p).unwrap());
    for (bridge, uniform, kernel) in [(12, 0, 0), (0, 12, 0), (0, 0, 12), (4, 4, 4), (3, 3, 2)] {
        for (name, variate) in [
            ("none", ControlVariate::None),
            ("eta", ControlVariate::Eta(0.4)),
            ("diagonal", ControlVariate::Diagonal { ridge: 1e-4, clip: 2.0 }),
            ("fisher", ControlVariate::Fisher),
        ] {
            let mut rfm = config.rfm().unwrap().clone();
            (rfm.bridge, rfm.uniform, rfm.kernel, rfm.eta) = (bridge, uniform, kernel, 0.4);
            (rfm.ridge, rfm.clip) = (1e-4, 2.0);
            let name = format!("rfm.control_variate={name:?}");
            rfm.control_variate = Config::resolve(&Sources { set: &[name], ..Sources::default() })
                .unwrap()
                .rfm()
                .unwrap()
                .control_variate;
            let mut posterior = Posterior::new(&rfm, ACT);
            let (n, k, temperature) = (40, bridge + uniform + kernel, 0.3);
            let mut noise = Noise::new(5, 0);
            let (mut s, mut x, mut t, mut centre) =
                (vec![0.0; 5], vec![0.0; n * ACT], vec![0.0; n], vec![0.0; n * ACT]);
            noise.gaussian(&mut s);
            noise.gaussian(&mut x);
            noise.uniform_in(&mut t, 0.05, 0.95);
            noise.gaussian(&mut centre);
            let points = Points { x: &x, t: &t, centre: &centre };
            let lanes = || vec![Lane::ZERO; posterior.lanes(n) * ACT];
            let (mut latents, mut actions, mut slopes) = (lanes(), lanes(), lanes());
            posterior.draw_noise(&mut latents, &mut noise);
            posterior.candidates(points, &mut latents, &mut actions);
            let mut y = vec![0.0; n * k * ACT];
            unpack_groups(&latents, ACT, k, &mut y);
            // Q and its gradient from flowlet's critics, so that only the estimators are compared here.
            let (mut part, mut pre, mut a, mut b) = (vec![0.0; 24], vec![0.0; 48], vec![0.0; 24], vec![0.0; 24]);
            let (mut q, mut gradient) = (vec![0.0; n * k], vec![0.0; n * k * ACT]);
            for (y, (q, gradient)) in y.chunks_exact(ACT).zip(q.iter_mut().zip(gradient.chunks_exact_mut(ACT))) {
                let action: Vec<f32> = y.iter().map(|y| y.tanh()).collect();
                *q = f32::INFINITY;
                for critic in &critics {
                    critic.state_part(&s, &mut part);
                    let mut scratch = CriticScratch { pre: &mut pre, a: &mut a, b: &mut b };
                    let mut slope = [0.0; ACT];
                    let value = critic.value_and_gradient(&part, &action, &mut scratch, &mut slope);
                    if value < *q {
                        *q = value;
                        gradient.copy_from_slice(&slope);
                    }
                }
            }
            let mut estimates = Estimates::new(n, ACT);
            let mut values = vec![Lane::ZERO; posterior.lanes(n)];
            pack_groups(&q, 1, k, &mut values);
            pack_groups(&gradient, ACT, k, &mut slopes);
            let values = Values { latents: &latents, actions: &actions, q: &values, gradient: &slopes, temperature };
            posterior.estimate(points, values, &mut estimates);

            let bandwidth = rfm.bandwidth as f32;
            let mixture = Mixture { bridge, uniform, kernel, bandwidth, ..Mixture::default() };
            let estimator = Estimator { control_variate: variate, ..Estimator::importance(mixture) };
            let (mut parts, mut action, mut slope) = (vec![0.0; 48], [0.0; ACT], [0.0; ACT]);
            let memory = BoltzmannScratch {
                state_parts: &mut parts,
                critic: CriticScratch { pre: &mut pre, a: &mut a, b: &mut b },
                action: &mut action,
                gradient: &mut slope,
            };
            let mut target = Boltzmann::new(&critics, &s, temperature, memory).unwrap();
            let mut memory = vec![0.0; EstimatorScratch::len(ACT, k)];
            for i in 0..n {
                let candidates = &y[i * k * ACT..(i + 1) * k * ACT];
                let mut scratch = EstimatorScratch::carve(&mut memory, ACT, k).unwrap();
                scratch.candidates.copy_from_slice(candidates);
                let (x, centre) = (&x[i * ACT..][..ACT], &centre[i * ACT..][..ACT]);
                let mut mean = [0.0; ACT];
                let found = estimator.weigh(t[i], x, &mut target, centre, &mut scratch, &mut mean).unwrap();
                let case = format!("{bridge}/{uniform}/{kernel} {variate:?} t={}", t[i]);
                assert!(
                    close(found.effective_sample_size, estimates.ess[i], 1.0),
                    "{case}: {found:?} {}",
                    estimates.ess[i]
                );
                // Rounding grows with the spread of the candidates, which the mean averages.
                let spread = candidates.iter().fold(1.0f32, |most, y| most.max(y.abs()));
                for (j, mean) in mean.iter().enumerate() {
                    let batched = estimates.mean[i * ACT + j];
                    assert!(close(*mean, batched, spread), "{case}: {mean} {batched}");
                }
            }
        }
    }
}

#[test]
fn flowlet_s_estimator_in_batch_is_flowlet_s_estimator() {
    const ACT: usize = 2;
    let halves = Mixture { bridge: 2, uniform: 2, kernel: 0, ..Mixture::default() };
    let with = |method| Estimator { method, ..Estimator::default() };
    for (name, k, estimator) in [
        ("auto", 8, Estimator::auto(8)),
        ("auto", 32, Estimator::auto(32)),
        ("mala", 8, with(Method::Mala(Langevin::new(halves, 1, 4)))),
        ("smc", 8, with(Method::Smc(Annealed::new(2, 4)))),
    ] {
        let set = ["rfm.critic_hidden=24", &format!("rfm.estimator={name:?}"), &format!("rfm.bridge={}", k - 5)];
        let (config, agent) = agent(&set, 5, ACT);
        let mut shape = critic_shape(config.train(), config.make_env().unwrap().spec());
        shape.act = ACT;
        let (n, temperature) = (40, 0.3);
        let mut noise = Noise::new(5, 0);
        let (mut s, mut x, mut t, mut latent) =
            (vec![0.0; 5 * n], vec![0.0; n * ACT], vec![0.0; n], vec![0.0; n * ACT]);
        noise.gaussian(&mut s);
        noise.gaussian(&mut x);
        noise.uniform_in(&mut t, 0.05, 0.95);
        noise.gaussian(&mut latent);

        let critic = agent.critic();
        let mut work = CriticWork::new(critic.shape(), n, k);
        let mut estimates = Estimates::new(n, ACT);
        BatchEstimator::new(config.rfm().unwrap(), n, ACT).unwrap().estimate(
            Points { x: &x, t: &t, centre: &latent },
            temperature,
            &mut Noise::new(6, 0),
            |actions, group, q, gradient| {
                critic.minimum_and_gradient(&s, actions, group, q, gradient, &mut work);
            },
            &mut estimates,
        );
        assert_eq!(estimates.refused, 0);

        let params = [agent.critic_params(0), agent.critic_params(1)];
        let critics = params.each_ref().map(|p| Critic::new(shape, p).unwrap());
        let (mut pre, mut a, mut b) = (vec![0.0; 48], vec![0.0; 24], vec![0.0; 24]);
        let (mut parts, mut action, mut slope) = (vec![0.0; 48], [0.0; ACT], [0.0; ACT]);
        let mut memory = vec![0.0; EstimatorScratch::len(ACT, k)];
        let mut seeds = Noise::new(6, 0);
        for i in 0..n {
            let boltzmann = BoltzmannScratch {
                state_parts: &mut parts,
                critic: CriticScratch { pre: &mut pre, a: &mut a, b: &mut b },
                action: &mut action,
                gradient: &mut slope,
            };
            let mut target = Boltzmann::new(&critics, &s[i * 5..][..5], temperature, boltzmann).unwrap();
            let mut rng = Xoshiro128PlusPlus::seed_from_u64(seeds.rng().next_u64());
            let mut scratch = EstimatorScratch::carve(&mut memory, ACT, k).unwrap();
            let (x, latent, mut mean) = (&x[i * ACT..][..ACT], &latent[i * ACT..][..ACT], [0.0; ACT]);
            let found = estimator.estimate(t[i], x, &mut target, latent, &mut rng, &mut scratch, &mut mean).unwrap();
            let case = format!("{name} K={k} t={}", t[i]);
            // The critics sum in another order, and later candidates follow from the earlier ones' values: what is a
            // relative 1e-6 in Q becomes up to a hundred times that in a mean.
            assert!(
                close(found.effective_sample_size, estimates.ess[i], 1.0),
                "{case}: {found:?} {}",
                estimates.ess[i]
            );
            let spread = scratch.candidates.iter().fold(1.0f32, |most, y| most.max(y.abs()));
            for (mean, batched) in mean.iter().zip(&estimates.mean[i * ACT..]) {
                assert!(close(*mean, *batched, spread), "{case}: {mean} {batched}");
            }
        }
    }
}

#[test]
fn the_log_density_of_the_target_is_the_trainers() {
    // min Q / lambda + sum ln sech^2, written out.
    let (config, agent) = agent(&[], 5, 1);
    let shape = critic_shape(config.train(), config.make_env().unwrap().spec());
    assert_eq!(
        velocity_shape(config.rfm().unwrap(), config.make_env().unwrap().spec()).params(),
        agent.actor_params().len()
    );
    let params = [agent.critic_params(0), agent.critic_params(1)];
    let critics = params.each_ref().map(|p| Critic::new(shape, p).unwrap());
    let (h, s) = (shape.hidden, [0.1, -0.2, 0.3, 0.4, -0.5]);
    let (mut parts, mut pre, mut a, mut b) = (vec![0.0; 2 * h], vec![0.0; 2 * h], vec![0.0; h], vec![0.0; h]);
    for latent in [-3.0f32, -0.4, 0.0, 1.7] {
        let memory = BoltzmannScratch {
            state_parts: &mut parts,
            critic: CriticScratch { pre: &mut pre, a: &mut a, b: &mut b },
            action: &mut [0.0],
            gradient: &mut [0.0],
        };
        let found = Boltzmann::new(&critics, &s, 0.2, memory).unwrap().log_density(&[latent]);
        let critic = agent.critic();
        let mut q = [0.0];
        critic.minimum(&s, &[latent.tanh()], 1, &mut q, &mut CriticWork::new(critic.shape(), 1, 1));
        assert!(close(found, q[0] / 0.2 + ln_sech2(latent), 1.0));
    }
}
