//! `bench update`: updates per CPU-second, and how much of the machine's matrix products they reach.

use super::{Output, size};
use crate::bench::update::{ROUNDS, Speed, measure, rfm_macs, sac_macs};
use crate::config::{Algorithm, ControlVariate, RfmConfig};
use crate::{Error, Result};
use clap::Args;
use serde_json::json;

/// Options of `bench update`; what is not given has the preset's value.
#[derive(Args, Clone, Debug)]
pub struct UpdateArgs {
    /// Algorithm: rfm or sac
    #[arg(long, value_name = "NAME", default_value = "rfm")]
    pub algo: String,
    /// Constants to start from: default or paper
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub preset: String,
    /// Width of the observation
    #[arg(long, value_name = "N", default_value = "17", value_parser = size(1024))]
    pub obs: usize,
    /// Width of the action
    #[arg(long, value_name = "N", default_value = "6", value_parser = size(256))]
    pub act: usize,
    /// Transitions in an update of the critics
    #[arg(long, value_name = "B", value_parser = size(65_536))]
    pub batch: Option<usize>,
    /// States in an update of the actor, rfm's
    #[arg(long, value_name = "A", value_parser = size(65_536))]
    pub actor_batch: Option<usize>,
    /// Width of all hidden layers
    #[arg(long, value_name = "H", value_parser = size(1024))]
    pub hidden: Option<usize>,
    /// Policy samples of a state, among which the critics choose, rfm's
    #[arg(long, value_name = "P", value_parser = size(1024))]
    pub particles: Option<usize>,
    /// Candidates of a posterior mean, rfm's; the proposals keep their proportions
    #[arg(long, value_name = "K", value_parser = size(65_536))]
    pub samples: Option<usize>,
    /// Euler steps of a policy sample, rfm's
    #[arg(long, value_name = "S", value_parser = size(1024))]
    pub integration_steps: Option<usize>,
    /// none or diagonal, rfm's; diagonal is the published estimator, whose candidates all come from the source
    #[arg(long, value_name = "NAME", value_parser = ["none", "diagonal"])]
    pub control_variate: Option<String>,
}

/// Runs the command.
pub(super) fn run(args: &UpdateArgs, output: Output) -> Result<()> {
    let mut algorithm = Algorithm::preset(&args.algo, &args.preset)?;
    let train = algorithm.train_mut();
    if let Some(batch) = args.batch {
        train.batch_size = batch;
        train.buffer_size = train.buffer_size.max(batch);
    }
    if let Some(hidden) = args.hidden {
        (train.actor_hidden, train.critic_hidden) = (hidden, hidden);
    }
    let macs = match &mut algorithm {
        Algorithm::Rfm(c) => {
            apply(args, c)?;
            rfm_macs(c, args.obs, args.act)
        }
        Algorithm::Sac(c) => {
            only_rfm(args)?;
            sac_macs(c, args.obs, args.act)
        }
        _ => return Err(Error::usage(format!("--algo {}: bench update measures rfm and sac", args.algo))),
    };
    let speed = measure(&algorithm, args.obs, args.act, macs);
    report(args, &algorithm, macs, &speed, output);
    Ok(())
}

/// Takes the options that only Reverse Flow Matching has.
fn apply(args: &UpdateArgs, c: &mut RfmConfig) -> Result<()> {
    c.actor_batch = args.actor_batch.unwrap_or(c.actor_batch.min(c.train.batch_size));
    if c.actor_batch > c.train.batch_size {
        return Err(Error::usage(format!(
            "--actor-batch {} is more than the batch of {}: its states are the first of the batch",
            c.actor_batch, c.train.batch_size
        )));
    }
    if let Some(particles) = args.particles {
        c.target_particles = particles;
    }
    if let Some(steps) = args.integration_steps {
        c.integration_steps = steps;
    }
    match args.control_variate.as_deref() {
        None => {}
        Some("none") => c.control_variate = ControlVariate::None,
        // The published estimator: its coefficients go with candidates from the source alone.
        _ => {
            c.control_variate = ControlVariate::Diagonal;
            (c.bridge, c.uniform, c.kernel) = (c.candidates(), 0, 0);
        }
    }
    if let Some(samples) = args.samples {
        if samples < 3 && c.uniform + c.kernel > 0 {
            return Err(Error::usage(format!("--samples {samples} is too few for the proposals: give at least 3")));
        }
        let (all, uniform, kernel) = (c.candidates(), c.uniform, c.kernel);
        let share = |part: usize| (part * samples + all / 2) / all;
        (c.uniform, c.kernel) = (share(uniform), share(kernel));
        if c.uniform + c.kernel > samples {
            return Err(Error::usage(format!("--samples {samples} is too few for the proposals: give at least 3")));
        }
        c.bridge = samples - c.uniform - c.kernel;
    }
    Ok(())
}

/// Refuses the options that soft actor-critic has not.
fn only_rfm(args: &UpdateArgs) -> Result<()> {
    for (given, option) in [
        (args.actor_batch.is_some(), "--actor-batch"),
        (args.particles.is_some(), "--particles"),
        (args.samples.is_some(), "--samples"),
        (args.integration_steps.is_some(), "--integration-steps"),
        (args.control_variate.is_some(), "--control-variate"),
    ] {
        if given {
            return Err(Error::usage(format!("{option} belongs to rfm: leave it out with --algo {}", args.algo)));
        }
    }
    Ok(())
}

fn report(args: &UpdateArgs, algorithm: &Algorithm, macs: f64, speed: &Speed, output: Output) {
    let train = algorithm.train();
    let [updates, slowest, fastest] = speed.updates;
    let mut object = json!({
        "updates_per_cpu_second": updates,
        "useful_gflops": speed.useful_gflops,
        "gemm_peak_gflops": speed.peak_gflops,
        "gemm_peak_share": speed.peak_share,
        "slowest_round": slowest,
        "fastest_round": fastest,
        "useful_mflop_per_update": macs * 2e-6,
        "algo": args.algo,
        "preset": args.preset,
        "obs": args.obs,
        "act": args.act,
        "batch": train.batch_size,
        "hidden": train.critic_hidden,
    });
    let mut settings =
        format!("{} {}, obs {}, act {}, batch {}", args.algo, args.preset, args.obs, args.act, train.batch_size);
    if let Algorithm::Rfm(c) = algorithm {
        let more = json!({
            "actor_batch": c.actor_batch,
            "particles": c.target_particles,
            "samples": c.candidates(),
            "bridge": c.bridge,
            "uniform": c.uniform,
            "kernel": c.kernel,
            "integration_steps": c.integration_steps,
            "control_variate": c.control_variate,
        });
        if let (Some(object), Some(more)) = (object.as_object_mut(), more.as_object()) {
            object.extend(more.clone());
        }
        settings += &format!(
            ", actor batch {}, particles {}, samples {} (bridge {}, uniform {}, kernel {}), {} steps",
            c.actor_batch,
            c.target_particles,
            c.candidates(),
            c.bridge,
            c.uniform,
            c.kernel,
            c.integration_steps
        );
    }
    output.line(&format!("{settings}, hidden {}", train.critic_hidden));
    output.line(&format!(
        "{updates:.1} updates per CPU-second, median of {ROUNDS} rounds ({slowest:.1} to {fastest:.1}), one thread"
    ));
    output.line(&format!(
        "{:.3} useful MFLOP an update: {:.1} GFLOP/s, {:.1} % of the {:.1} GFLOP/s that matrix products reach here",
        macs * 2e-6,
        speed.useful_gflops,
        100.0 * speed.peak_share,
        speed.peak_gflops
    ));
    output.object(&object);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    /// The constants that a command line asks for.
    fn constants(options: &str) -> Result<RfmConfig> {
        let words = format!("host-train bench update {options}");
        let cli = Cli::try_parse_from(words.split_whitespace()).unwrap();
        let Some(crate::cli::Command::Bench(crate::cli::BenchCommand::Update(args))) = cli.command else {
            panic!("another command")
        };
        let mut c = RfmConfig::standard();
        c.train.batch_size = args.batch.unwrap_or(c.train.batch_size);
        apply(&args, &mut c).map(|()| c)
    }

    #[test]
    fn proposals_share_the_candidates() {
        let standard = RfmConfig::standard();
        let shares = |options: &str| constants(options).map(|c| (c.bridge, c.uniform, c.kernel));
        assert_eq!(shares(""), Ok((standard.bridge, standard.uniform, standard.kernel)));
        let (k, four) = (standard.candidates(), 4 * standard.candidates());
        let fourfold = (4 * standard.bridge, 4 * standard.uniform, 4 * standard.kernel);
        assert_eq!(shares(&format!("--samples {four} --control-variate none")), Ok(fourfold));
        assert_eq!(shares("--control-variate diagonal"), Ok((k, 0, 0)));
        assert_eq!(shares("--samples 32 --control-variate diagonal"), Ok((32, 0, 0)));
        for samples in 3..40 {
            let c = constants(&format!("--samples {samples}")).unwrap();
            assert_eq!(c.candidates(), samples);
        }
        assert!(constants("--samples 2").is_err());
        assert!(constants("--batch 16 --actor-batch 17").is_err());
        assert_eq!(constants("--batch 16").unwrap().actor_batch, standard.actor_batch.min(16));
    }
}
