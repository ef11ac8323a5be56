//! Hardware in the loop, tested: `host-train hil` at one end, the firmware `hil` in QEMU at the other, its serial port on a
//! TCP socket between them.
//!
//! On every board of `BOARDS` an episode's return must be the host's bit for bit, policies of other shapes and of int8 must
//! decide as on the host, and numbers that are none, on each channel, must be held over and latched. On the Cortex-M4F there
//! are beside it a life in which the board learns what the host does, a bad line whose counters must add up, uploads that
//! are refused by name while the old policy goes on, one that takes over, patience that runs out, and garbage: for a bounded
//! number of bytes, or for a minute with `--long`. There too `cheetah-run` of the Control Suite is played in f32 and int8;
//! `--long` adds trainings whose policies are played on two cores ([`to_device`]). A program that does not end in time is stopped and is a failure.

use crate::boards::{self, Board};
use crate::cargo::{self, Firmware};
use crate::policy::{self, Bytes};
use crate::steps::{Steps, output_of};
use crate::test::PICTURES;
use crate::{digests, qemu, to_device, tools};
use anyhow::{Context, Result, bail, ensure};
use flowlet::control::{Fault, Reason, State, Status};
use flowlet::policy::Artefact;
use flowlet_link::frame::{Header, Receiver, crc32, encode, frame_len, wire_len};
use flowlet_link::message::{Action, Begin, Info, Reset, kind};
use plants::{Pendulum, Quadrotor2d};
use rand_xoshiro::Xoshiro128PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde_json::Value;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// `cargo xtask hil`.
#[derive(clap::Args)]
pub struct Options {
    /// Boards, separated by commas [default: m0,m4f,rv32imac]
    #[arg(long, value_delimiter = ',')]
    targets: Vec<String>,
    /// Send garbage for a minute
    #[arg(long)]
    long: bool,
}

/// The boards of the test command: every kind of serial port but the STM32's, the smallest RAM, both architectures.
const BOARDS: [&str; 3] = ["m0", "m4f", "rv32imac"];

/// One run of `host-train hil` may take so long on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// Decisions of an episode of the rotary pendulum.
const DECISIONS: u64 = 600;

/// Decisions of an episode of the committed policy for `cheetah-run`: one to two control steps.
const SUITE_DECISIONS: u64 = 500;

/// Boards on which the long list plays trained policies of the Control Suite.
const SUITE_BOARDS: [&str; 2] = ["m4f", "m55"];

/// Runs the checks of the named boards.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    let targets: Vec<String> =
        if options.targets.is_empty() { BOARDS.map(String::from).to_vec() } else { options.targets.clone() };
    let boards = boards::select(root, &targets)?;
    tools::ensure_targets(root, &boards)?;
    tools::ensure_qemu(&boards)?;
    let mut steps = Steps::default();
    check(&mut steps, root, &boards, options.long);
    Ok(steps.finish())
}

/// The checks of the test command.
pub fn steps(steps: &mut Steps, root: &Path, boards: &[Board], long: bool) {
    let boards: Vec<Board> = boards.iter().filter(|board| BOARDS.contains(&board.name.as_str())).cloned().collect();
    check(steps, root, &boards, long);
}

fn check(steps: &mut Steps, root: &Path, boards: &[Board], long: bool) {
    let mut program = None;
    steps.step("host-train for hardware in the loop", || {
        program = Some(host_train(root)?);
        Ok(String::new())
    });
    let Some(program) = program else { return };
    steps.parallel(
        boards,
        |board| format!("hardware in the loop on {}", board.name),
        |board| {
            let elf = cargo::build_firmware(root, board, "hil", &Firmware::default())?;
            let all = board.name == "m4f";
            let bench = Bench { root, program: &program, served: qemu::serve(board, &elf)? };
            let mut remark = bench.episode(board)?;
            bench.sensors()?;
            if all {
                remark += &bench.learning(if long { 120 } else { 18 })?;
                bench.bad_line()?;
                bench.uploads()?;
                bench.impatience()?;
                let garbage = if long { Duration::from_secs(60) } else { Duration::ZERO };
                remark += &bench.garbage(garbage)?;
                remark += &bench.suite()?;
            } else {
                bench.small_room()?;
            }
            bench.shapes_and_formats()?;
            let lines = bench.served.lines()?;
            match lines.as_slice() {
                [policy, waiting, learning @ ..]
                    if policy.starts_with("policy: furuta")
                        && waiting.starts_with("waiting")
                        && learning.is_empty() != all
                        && learning.iter().all(|line| line.starts_with("Learning {")) =>
                {
                    Ok(remark)
                }
                lines => bail!("the firmware logs:\n{}", lines.join("\n")),
            }
        },
    );
    if long {
        let cores = SUITE_BOARDS.join(" and ");
        steps.step(&format!("policies of the Control Suite, trained and played on {cores}"), || {
            let boards = boards::select(root, &SUITE_BOARDS.map(String::from))?;
            tools::ensure_targets(root, &boards)?;
            tools::ensure_qemu(&boards)?;
            to_device::check(root, &program, &boards)
        });
    }
}

/// Builds the trainer as the host tests have it.
pub(crate) fn host_train(root: &Path) -> Result<PathBuf> {
    let mut build = cargo::cargo(root);
    output_of(build.args(["build", "--workspace", "--bin", "host-train", "--profile", "checked"]).args(PICTURES))?;
    Ok(cargo::target_directory(root).join("checked/host-train"))
}

/// A board that waits, and the program that asks it.
struct Bench<'a> {
    root: &'a Path,
    program: &'a Path,
    served: qemu::Served,
}

/// A PC that speaks the protocol over a perfect line: for what no plant would give.
struct Asker {
    stream: TcpStream,
    receiver: Receiver<{ frame_len(4096) }>,
    session: u16,
    sequence: u32,
    payload: usize,
}

impl Asker {
    fn connect(port: u16, session: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut asker = Self { stream, receiver: Receiver::new(), session, sequence: 0, payload: 128 };
        asker.stream.write_all(&[0])?;
        let info = Info::read(&asker.ask(kind::HELLO, &[])?).context("what is no info")?;
        asker.payload = info.payload.into();
        Ok(asker)
    }

    /// The payload of the answer; an error is one.
    fn ask(&mut self, asked: u8, payload: &[u8]) -> Result<Vec<u8>> {
        self.sequence += 1;
        let header = Header::new(asked, self.session, self.sequence);
        let mut wire = vec![0; wire_len(payload.len())];
        let length = encode(header, payload, &mut wire).context("a question does not fit its frame")?;
        self.stream.write_all(&wire[..length])?;
        loop {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).context("no answer")?;
            let Some((header, payload)) = self.receiver.push(byte[0]) else { continue };
            if (header.session, header.sequence) != (self.session, self.sequence) {
                continue;
            }
            ensure!(header.kind == asked | kind::ANSWER, "{asked} is answered: {}", String::from_utf8_lossy(payload));
            return Ok(payload.to_vec());
        }
    }

    fn observe(&mut self, observation: &[f32]) -> Result<(Status, Vec<f32>)> {
        let payload: Vec<u8> = observation.iter().flat_map(|value| value.to_le_bytes()).collect();
        let answer = self.ask(kind::OBSERVATION, &payload)?;
        let action = Action::read(&answer).context("what is no action")?;
        Ok((action.status, action.values().collect()))
    }

    fn upload(&mut self, bytes: &[u8]) -> Result<Info> {
        self.ask(kind::BEGIN, &Begin { length: bytes.len() as u32, crc: crc32(bytes) }.bytes())?;
        let room = self.payload - 4;
        for (i, piece) in bytes.chunks(room).enumerate() {
            self.ask(kind::CHUNK, &[&((i * room) as u32).to_le_bytes()[..], piece].concat())?;
        }
        Info::read(&self.ask(kind::COMMIT, &[])?).context("what is no info")
    }
}

/// What `host-train hil` said.
struct Answer {
    code: Option<i32>,
    report: Value,
    error: String,
}

impl Bench<'_> {
    fn hil(&self, arguments: &[&str]) -> Result<Answer> {
        let mut child = Command::new(self.program)
            .args(["hil", "--json", "--episodes", "1", "--port", &format!("tcp:127.0.0.1:{}", self.served.port)])
            .args(arguments)
            .current_dir(self.root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start host-train")?;
        let deadline = Instant::now() + LIMIT;
        while child.try_wait()?.is_none() {
            if Instant::now() >= deadline {
                child.kill()?;
                bail!("host-train hil {} did not end within {} s", arguments.join(" "), LIMIT.as_secs());
            }
            thread::sleep(Duration::from_millis(10));
        }
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let report = text.lines().last().map_or(Ok(Value::Null), serde_json::from_str)?;
        let error = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_string();
        Ok(Answer { code: output.status.code(), report, error })
    }

    /// A run that must succeed, on the plant `env`.
    fn equal(&self, env: &str, arguments: &[&str]) -> Result<Value> {
        let Answer { code, report, error } = self.hil(arguments)?;
        ensure!(code == Some(0), "host-train hil {}: {error}", arguments.join(" "));
        ensure!(report["equal"] == true && report["env"] == env, "host-train hil {}: {report}", arguments.join(" "));
        Ok(report)
    }

    /// A run that must be refused in these words.
    fn refused(&self, arguments: &[&str], words: &str) -> Result<()> {
        let Answer { code, error, .. } = self.hil(arguments)?;
        ensure!(code == Some(1) && error.contains(words), "instead of `{words}` with exit code 1, {code:?}: {error}");
        Ok(())
    }

    fn episode(&self, board: &Board) -> Result<String> {
        let report = self.equal("furuta", &[])?;
        ensure!(report["decisions"] == DECISIONS && report["board"] == board.name.as_str(), "{report}");
        let number = |path: &str| report.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
        Ok(format!(
            "return {}, {:.0} instructions a decision, round trip over the socket {:.2} ms (p50), {:.2} ms (p99)",
            number("/return_mean"),
            number("/decision/mean"),
            number("/round_trip_ms/p50"),
            number("/round_trip_ms/p99")
        ))
    }

    fn bad_line(&self) -> Result<()> {
        let faults = ["--drop", "0.04", "--corrupt", "0.04", "--repeat", "0.04", "--delay", "0.04", "--timeout", "25"];
        let report = self.equal("furuta", &faults)?;
        let good = self.equal("furuta", &[])?;
        ensure!(report["return_mean"] == good["return_mean"], "{report}");
        for (end, way) in [("/counted_by_board", "/faults/to_board"), ("/counted_here", "/faults/from_board")] {
            let number = |side: &str, name: &str| {
                report.pointer(&format!("{side}/{name}")).and_then(Value::as_u64).unwrap_or(u64::MAX)
            };
            let (counted, fault) = (|name: &str| number(end, name), |name: &str| number(way, name));
            let arrived = fault("frames") - fault("dropped") - fault("corrupted") + fault("repeated");
            let broken = counted("crc") + counted("framing") + counted("too_long");
            ensure!(fault("corrupted") > 0 && fault("delayed") > 0 && fault("repeated") > 0, "no faults: {report}");
            ensure!(counted("frames") == arrived && broken == fault("corrupted"), "{end} does not add up: {report}");
            ensure!(counted("lost") == 0 && counted("refused") == 0, "{end}: {report}");
        }
        Ok(())
    }

    /// Policies that the Cortex-M4F must refuse, each by name, and one that it takes.
    fn uploads(&self) -> Result<()> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let file = |name: &str, bytes: &[u8]| -> Result<String> {
            let path = folder.path().join(name);
            fs::write(&path, bytes)?;
            Ok(path.display().to_string())
        };
        let good = Bytes::read(&digests::default_policy(self.root))?;
        let pendulum = file("good.flw", good.get())?;
        let mut corrupted = good.clone();
        let middle = corrupted.get().len() / 2;
        corrupted.get_mut()[middle] ^= 1;
        let mut newer = good.clone();
        newer.get_mut()[4] = 0x7f;
        policy::reseal(&mut newer);
        let mut wrong = good.clone();
        let artefact = Artefact::new(wrong.get())?;
        let at = artefact.self_test().2.as_ptr().addr() - wrong.get().as_ptr().addr();
        wrong.get_mut()[at] ^= 1;
        policy::reseal(&mut wrong);
        let bad = [
            (file("corrupted.flw", corrupted.get())?, "checksum"),
            (file("truncated.flw", &good.get()[..middle])?, "truncated"),
            (file("newer.flw", newer.get())?, "format version 127"),
            (file("wrong.flw", wrong.get())?, "self-test"),
            (file("large.flw", &vec![0; 1 << 20])?, "bytes of room for uploads"),
        ];
        for (path, words) in &bad {
            self.refused(&["--policy", path], words)?;
        }
        self.equal("furuta", &[])?;
        self.equal("pendulum", &["--policy", &pendulum])?;
        self.refused(&["--policy", &bad[0].0], bad[0].1)?;
        let back = folder.path().join("back.flw");
        self.equal("pendulum", &["--read-back", &back.display().to_string()])?;
        ensure!(fs::read(&back)? == good.get(), "the policy that was read back is another one");
        Ok(())
    }

    /// An episode of a task of the Control Suite in each number format, MuJoCo being the plant.
    fn suite(&self) -> Result<String> {
        let mut remark = String::new();
        for policy in ["cheetah-run", "cheetah-run-int8"] {
            let path = digests::committed(self.root, policy).display().to_string();
            let report = self.equal("cheetah-run", &["--policy", &path])?;
            ensure!(report["decisions"] == SUITE_DECISIONS && report["policy"] == "cheetah-run", "{report}");
            remark += &format!(
                "; {policy} returns {}, {} instructions a decision",
                report["return_mean"], report["decision"]["mean"]
            );
        }
        Ok(remark)
    }

    /// A life of so many seconds in which the board learns: the host compares every return and what was learned.
    fn learning(&self, seconds: u32) -> Result<String> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let out = folder.path().join("run").display().to_string();
        let (policy, seconds) = (self.root.join("firmware/policies/furuta-critic.flw"), seconds.to_string());
        let args = ["--finetune", "--policy", &policy.display().to_string(), "--set", "env.friction=5", "--out", &out];
        // A candidate is screened in the second of three episodes, and tried by a test that is hardly one.
        let soon = ["screening=1", "gain=0", "alpha=0.5", "margin=0", "rounds=3", "actor_rate=0.003", "warmup=50"];
        let soon: Vec<String> =
            soon.iter().flat_map(|pair| ["--set".to_string(), format!("finetune.{pair}")]).collect();
        let mut args: Vec<&str> = args.to_vec();
        args.extend(soon.iter().map(String::as_str));
        args.extend(["--seconds", &seconds]);
        let report = self.equal("furuta", &args)?;
        let number = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        let table = fs::read_to_string(format!("{out}/learning.csv"))?;
        ensure!(
            number("/updates") > 0 && number("/telemetry") as usize + 1 == table.lines().count(),
            "{report}\n{table}"
        );
        Ok(format!("; {} updates of learning have the host's bits", number("/updates")))
    }

    /// Where virtual time passes at once, an observation is always late.
    fn impatience(&self) -> Result<()> {
        self.refused(&["--patience", "1"], "fallback")?;
        self.equal("pendulum", &[]).map(drop)
    }

    /// A policy that the board has no room for is refused, small ones take over one after the other, of several shapes.
    fn small_room(&self) -> Result<()> {
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let path = folder.path().join("policy.flw").display().to_string();
        fs::write(&path, vec![0; 1 << 20])?;
        self.refused(&["--policy", &path], "bytes of room for uploads")?;
        let (pendulum, quadrotor) = (&Pendulum::OBS_NAMES[..], &Quadrotor2d::OBS_NAMES[..]);
        let (torque, thrusts) = (&Pendulum::ACT_NAMES[..], &Quadrotor2d::ACT_NAMES[..]);
        for (env, obs, act, int8) in [
            ("pendulum", pendulum, torque, false),
            ("quadrotor2d", quadrotor, thrusts, true),
            ("pendulum", pendulum, torque, true),
        ] {
            fs::write(&path, policy::untrained(obs, act, 16, int8)?.get())?;
            self.equal(env, &["--policy", &path, "--env", env])?;
        }
        Ok(())
    }

    /// Policies of 17 observations and 6 actions, f32 and int8, each decision with the host's bits.
    fn shapes_and_formats(&self) -> Result<()> {
        let names: Vec<String> = (0..17).map(|i| format!("channel_{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut asker = Asker::connect(self.served.port, 0x1706)?;
        for int8 in [false, true] {
            let policy = policy::untrained(&names, &names[..6], 8, int8)?;
            let info = asker.upload(policy.get())?;
            let formats = (info.number_format, info.obs, info.act);
            ensure!(formats == (u8::from(int8), 17, 6), "the board says {info:?}");
            let observations: Vec<Vec<f32>> =
                (0..20u16).map(|i| (0..17u16).map(|j| f32::from(i * 17 + j) / 64.0 - 2.0).collect()).collect();
            asker.ask(kind::RESET, &Reset { seed: 3, ..Reset::default() }.bytes())?;
            let expected = policy::decisions(&policy, 3, &observations)?;
            for (observation, expected) in observations.iter().zip(expected) {
                let (status, action) = asker.observe(observation)?;
                let bits: Vec<u32> = action.iter().map(|a| a.to_bits()).collect();
                ensure!(status.state == State::Running && bits == expected, "int8 {int8}: {status:?} {action:?}");
            }
        }
        Ok(())
    }

    /// Numbers that are none: each on each channel at each of ten decisions of the flashed policy, then for good.
    fn sensors(&self) -> Result<()> {
        const DECISIONS: usize = 10;
        let mut asker = Asker::connect(self.served.port, 0x5e45)?;
        for channel in 0..5u8 {
            for at in 0..DECISIONS {
                let bad = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][at % 3];
                asker.ask(kind::RESET, &Reset { seed: 1, ..Reset::default() }.bytes())?;
                let mut held = 0.0;
                for i in 0..at + 4 {
                    let mut observation = [0.1, -1.0, 0.0, 0.0, 0.5];
                    if i >= at {
                        observation[usize::from(channel)] = bad;
                    }
                    let (status, action) = asker.observe(&observation)?;
                    let [volts] = action[..] else { bail!("{} actions", action.len()) };
                    let fault = Fault::at(Reason::NotFinite, channel.into());
                    let (state, fault, command) = match i.checked_sub(at) {
                        None => (State::Running, Fault::NONE, volts),
                        Some(0 | 1) => (State::Holding, Fault::NONE, held),
                        Some(_) => (State::Fault, fault, 0.0),
                    };
                    let found = (status.state, status.fault, volts.to_bits());
                    let said = || format!("{bad} on channel {channel} from {at} on, at {i}: {status:?}, {volts} V");
                    ensure!(found == (state, fault, command.to_bits()) && volts.abs() <= 10.0, said());
                    held = volts;
                }
            }
        }
        Ok(())
    }

    /// Random bytes, at least 100,000 of them and for at least `duration`. After each thousand the board must answer a
    /// question, whose answer also keeps more bytes from gathering in the sockets than the port takes in a moment.
    fn garbage(&self, duration: Duration) -> Result<String> {
        let mut rng = Xoshiro128PlusPlus::seed_from_u64(1);
        let (start, mut sent) = (Instant::now(), 0);
        let mut stream = TcpStream::connect(("127.0.0.1", self.served.port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut receiver = Receiver::<{ frame_len(4096) }>::new();
        for sequence in 1.. {
            if sent >= 100_000 && start.elapsed() >= duration {
                break;
            }
            let mut bytes: Vec<u8> = (0..1000)
                .map(|_| {
                    let word = rng.next_u32();
                    if word % 16 == 0 { 0 } else { (word >> 8) as u8 }
                })
                .collect();
            sent += bytes.len();
            bytes.push(0);
            let asked = Header::new(kind::HELLO, 0x5a5a, sequence);
            let mut wire = [0; wire_len(0)];
            let length = encode(asked, &[], &mut wire).context("a question does not fit its frame")?;
            bytes.extend_from_slice(&wire[..length]);
            stream.write_all(&bytes)?;
            let expected = Header::new(kind::HELLO | kind::ANSWER, 0x5a5a, sequence);
            let mut answered = false;
            while !answered {
                let mut buffer = [0; 4096];
                let length =
                    stream.read(&mut buffer).with_context(|| format!("no answer after {sent} bytes of garbage"))?;
                ensure!(length > 0, "the board hung up after {sent} bytes of garbage");
                for byte in &buffer[..length] {
                    if let Some((header, _)) = receiver.push(*byte) {
                        ensure!(header == expected && !answered, "garbage is answered by {header:?}");
                        answered = true;
                    }
                }
            }
        }
        drop(stream);
        self.equal("pendulum", &[])?;
        Ok(format!("; {sent} bytes of garbage survived"))
    }
}
