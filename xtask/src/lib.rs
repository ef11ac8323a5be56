//! What `cargo xtask` does: the test command, firmware in QEMU, and the digests that show that every target computes
//! the same bits.
//!
//! * [`bench_peers`], [`bench_suite`]: the trainer's speed, and the Control Suite's, against other programs'.
//! * [`boards`]: the targets, read from `firmware/boards/*/board.toml`.
//! * [`cargo`]: cargo as a child process, with an environment that does not leak from one build into another.
//! * [`tools`]: rustup targets and components, QEMU; installs what is missing.
//! * [`python`]: Python environments with the packages that results are checked against.
//! * [`mujoco`]: MuJoCo's library and the Control Suite's models, fetched once.
//! * [`elf`]: flash and static RAM from an ELF's sections.
//! * [`images`]: builds the images of real boards and says what they take.
//! * [`qemu`]: runs an ELF and decodes its `defmt` log.
//! * [`snapshot`]: compares a log with the `.out` file beside its program.
//! * [`policy`]: artefacts on the host, and untrained ones for tests.
//! * [`digests`]: the actions' digest on the host and on every target.
//! * [`hil`]: `host-train hil` against the firmware in QEMU, over its serial port.
//! * [`to_device`]: the Control Suite's policies, exported and played on boards in QEMU.
//! * [`estimates`]: instructions and RAM of one estimate of a posterior mean.
//! * [`firmware_report`]: kernels and whole decisions on every target, instructions and memory.
//! * [`learner`]: what learning on the device takes.
//! * [`profile_fit`]: the cost model of `host-train profile`, fitted and checked; [`cost`] is the model itself.
//! * [`refusals`]: what the firmware must refuse, at build time and at boot.
//! * [`results`], [`ablation`], [`reproduce`], [`few_step`], [`fine_tune`]: trainings over seeds ([`campaign`]) and what they show ([`document`]).
//! * [`sweep`]: the far engines of `host-train sweep`, Ray and Slurm, for real.
//! * [`steps`]: a list of checks with times and a closing line; [`mod@test`]: the list itself.
//!
//! Nothing here is skipped in silence: what cannot run is an error with one sentence that says what to do.

pub mod ablation;
pub mod bench_peers;
pub mod bench_suite;
pub mod boards;
pub mod c_interface;
pub mod campaign;
pub mod cargo;
pub mod cycles;
pub mod digests;
pub mod document;
pub mod elf;
pub mod estimates;
pub mod few_step;
pub mod fine_tune;
pub mod firmware_report;
pub mod hil;
pub mod images;
pub mod learner;
pub mod mujoco;
pub mod policy;
pub mod profile_fit;
pub mod python;
pub mod qemu;
pub mod refusals;
pub mod reproduce;
pub mod results;
pub mod snapshot;
pub mod steps;
pub mod suite_results;
pub mod sweep;
pub mod test;
pub mod to_device;
pub mod tools;

/// The trainer's file: the program that shows the model and the one that fits it count the same things.
#[path = "../../host-train/src/profile/cost.rs"]
pub mod cost;

/// The firmware's files: what happens on a board happens here.
#[path = "../../firmware/src/learning.rs"]
pub mod learning;
#[path = "../../firmware/src/scenario.rs"]
pub mod scenario;

use std::fmt;
use std::path::{Path, PathBuf};

/// A task and its options.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Run all checks: format, clippy, tests, documentation, firmware snapshots and digests in QEMU
    Test(test::Options),
    /// Compare the digest of a thousand actions on the host and on every target
    Digests(digests::Options),
    /// Measure the instructions and the RAM of one estimate of a posterior mean, for several sizes
    Estimates(estimates::Options),
    /// Measure kernels and whole decisions on every target and write docs/firmware.md
    FirmwareReport(firmware_report::Options),
    /// Measure what learning on the device takes: RAM by mode, slices, instructions of an update
    Learner(learner::Options),
    /// Measure random policies on the Cortex-M4F and fit the constants of `host-train profile`
    ProfileFit(profile_fit::Options),
    /// Train all algorithms on all tasks over seeds and write docs/results.md with its pictures
    Results(results::Options),
    /// Train variants of the default agent against it, paired by seed, and write docs/ablation.md
    Ablation(ablation::Options),
    /// Train, distil one-step policies and write docs/few-step.md
    FewStep(few_step::Options),
    /// Fine-tune policies on changed plants and with wrong rewards, and write docs/fine-tuning.md
    FineTune(fine_tune::Options),
    /// Compare updates per CPU-second with JAX's and stable-baselines3's, and the Control Suite's steps with dm_control's
    /// and EnvPool's
    BenchPeers(bench_peers::Options),
    /// Build the images of real boards and print the flash and the RAM they take
    Boards(images::Options),
    /// Play episodes with the firmware in QEMU over its serial port: bad lines, uploads, garbage
    Hil(hil::Options),
    /// Export the Control Suite's policies in f32 and int8 and play them on boards in QEMU: returns equal the host's
    ToDevice(to_device::Options),
    /// Run a firmware ELF on a board in QEMU and print its log
    Qemu(qemu::Options),
    /// Write capi/include/flowlet.h, build the firmware in C and compare its digests with the host's
    CInterface,
    /// Train on the Control Suite's tasks over algorithms and seeds; can be stopped and goes on
    Reproduce(reproduce::Options),
    /// Run a sweep on Ray and by Slurm on this machine, kill parts of it, and compare with the local engine
    SweepEngines(sweep::Options),
    /// Bring MuJoCo's library and the Control Suite's models, for `host-train --features mujoco`
    FetchMujoco(mujoco::Options),
    /// Install the rustup targets and components, QEMU, MuJoCo, EGL and the tests' Python packages, and check nothing
    Setup,
}

/// An argument that makes no sense: exit code 2.
#[derive(Debug)]
pub struct WrongUse(pub String);

impl fmt::Display for WrongUse {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUse {}

/// Carries a task out and returns the exit code.
pub fn run(command: Command) -> anyhow::Result<u8> {
    let root = root();
    match command {
        Command::Test(options) => test::run(&root, &options),
        Command::Digests(options) => digests::run(&root, &options),
        Command::Estimates(options) => estimates::run(&root, &options),
        Command::FirmwareReport(options) => firmware_report::run(&root, &options),
        Command::Learner(options) => learner::run(&root, &options),
        Command::ProfileFit(options) => profile_fit::run(&root, &options),
        Command::Results(options) => results::run(&root, &options),
        Command::Ablation(options) => ablation::run(&root, &options),
        Command::FewStep(options) => few_step::run(&root, &options),
        Command::FineTune(options) => fine_tune::run(&root, &options),
        Command::BenchPeers(options) => bench_peers::run(&root, &options),
        Command::Boards(options) => images::run(&root, &options),
        Command::Hil(options) => hil::run(&root, &options),
        Command::ToDevice(options) => to_device::run(&root, &options),
        Command::Qemu(options) => qemu::run(&root, &options),
        Command::CInterface => c_interface::run(&root),
        Command::Reproduce(options) => reproduce::run(&root, &options),
        Command::SweepEngines(options) => sweep::run(&root, &options),
        Command::FetchMujoco(options) => mujoco::run(&root, &options),
        Command::Setup => {
            let boards = boards::all(&root)?;
            tools::ensure_components(&root)?;
            tools::ensure_targets(&root, &boards)?;
            tools::ensure_qemu(&boards)?;
            tools::ensure_arm_gcc()?;
            mujoco::fetch(&root)?;
            mujoco::ensure_egl(&root)?;
            println!("FLOWLET_PYTHON={}", python::test_venv(&root)?.display());
            Ok(0)
        }
    }
}

/// The root of the repository this program was built in.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}
