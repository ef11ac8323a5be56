//! `gym:ID`: a continuous Gymnasium environment in a child process of Python.
//!
//! The child runs `gym_child.py`, which is part of this binary, and speaks its small binary protocol over its standard
//! input and output. The interpreter is the one that `FLOWLET_PYTHON` names, else `python3`. The child starts with the
//! first reset, in a process group of its own, so that Ctrl-C reaches the trainer alone. What an ID is (channels, limits,
//! period) is asked once. When an environment is dropped its child is killed, but for one of each ID that waits for the
//! next such environment, since importing Python's packages takes a second; it ends with this process, whose end closes
//! its input.
//!
//! Every reset is seeded with 31 bits of the generator, so episodes repeat as far as the environment is deterministic.
//! Time limits are the environment's own truncations; without one, episodes are cut off after 1000 steps. Errors are one
//! sentence and never a panic: Python or a package that is missing, an unknown ID, discrete or unbounded actions,
//! observations that are no plain array, a child that dies. A step costs a round trip through the pipe, some 50 us.

use super::{Constants, Env, EnvSpec, Step};
use crate::{Error, Result};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::Rng;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

const SCRIPT: &str = include_str!("gym_child.py");
/// The environment variable that names the interpreter.
const PYTHON: &str = "FLOWLET_PYTHON";
/// Control steps of an episode of an environment that sets no limit.
const NO_LIMIT: usize = 1_000;
/// More channels than this are images, which no network here is made for.
const MOST_CHANNELS: usize = 1_024;
/// Longest message, bytes.
const LONGEST: usize = 1 << 24;

/// What the environments asked for so far are, each with at most one idle child.
static KNOWN: Mutex<BTreeMap<String, (Info, Option<Process>)>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Debug, Deserialize)]
struct Info {
    obs: usize,
    low: Vec<f64>,
    high: Vec<f64>,
    period: f64,
    limit: Option<usize>,
    version: String,
}

/// A Gymnasium environment.
pub(super) struct GymEnv {
    id: String,
    spec: EnvSpec,
    observation: Vec<f64>,
    process: Option<Process>,
}

impl GymEnv {
    /// Asks Python what `id` is.
    pub(super) fn new(id: &str) -> Result<Self> {
        let known = KNOWN.lock().map_or(None, |known| known.get(id).map(|(info, _)| info.clone()));
        let (info, process) = match known {
            Some(info) => (info, None),
            None => {
                let (process, info) = Process::start(id)?;
                if let Ok(mut known) = KNOWN.lock() {
                    known.entry(id.to_string()).or_insert((info.clone(), None));
                }
                (info, Some(process))
            }
        };
        let (act, obs) = (info.low.len(), info.obs);
        if act == 0 || act != info.high.len() || obs == 0 || act > MOST_CHANNELS || obs > MOST_CHANNELS {
            return Err(Error::usage(format!(
                "{id} has {obs} observation and {act} action channels: between 1 and {MOST_CHANNELS} of each can be \
                 trained on, choose another environment"
            )));
        }
        let limits = |v: &[f64]| v.iter().map(|x| *x as f32).collect();
        Ok(Self {
            spec: EnvSpec {
                name: format!("gym:{id}"),
                summary: format!("Gymnasium {}'s {id}, in a Python process", info.version),
                obs_names: (0..obs).map(|i| format!("obs_{i}")).collect(),
                act_names: (0..act).map(|i| format!("act_{i}")).collect(),
                low: limits(&info.low),
                high: limits(&info.high),
                control_dt: info.period,
                action_repeat: 1,
                time_limit: info.limit.unwrap_or(NO_LIMIT).max(1),
                reward_scale: 1.0,
                obs_mean: vec![0.0; obs],
                obs_scale: vec![1.0; obs],
                obs_clip: 10.0,
                obs_unknown: true,
                total_timesteps: 50_000,
                constants: Constants::Small,
            },
            id: id.to_string(),
            observation: vec![0.0; obs],
            process,
        })
    }

    /// Sends a command and reads reward and ends; the observation is kept.
    fn ask(&mut self, kind: u8, body: &[u8]) -> Result<Step> {
        if self.process.is_none() {
            let idle = KNOWN.lock().map_or(None, |mut known| known.get_mut(&self.id)?.1.take());
            self.process = Some(match idle {
                Some(process) => process,
                None => Process::start(&self.id)?.0,
            });
        }
        let Some(process) = self.process.as_mut() else {
            return Err(Error::failure(format!("the Python process of gym:{} is not there", self.id)));
        };
        let answer = process.ask(&self.id, kind, body).inspect_err(|_| process.sound = false)?;
        let fixed = 10;
        if answer.len() != fixed + 8 * self.observation.len() {
            return Err(Error::failure(format!(
                "gym:{} sent an observation of another size than it announced: mend the environment",
                self.id
            )));
        }
        let (head, rest) = answer.split_at(fixed);
        for (slot, bytes) in self.observation.iter_mut().zip(rest.chunks_exact(8)) {
            *slot = number(bytes);
        }
        Ok(Step { reward: number(&head[..8]), terminated: head[8] != 0, truncated: head[9] != 0 })
    }
}

impl Env for GymEnv {
    fn spec(&self) -> &EnvSpec {
        &self.spec
    }

    fn reset(&mut self, rng: &mut Xoshiro256PlusPlus) -> Result<()> {
        // Some environments hand their seed to generators that take a positive 32-bit number.
        let seed = rng.next_u64() >> 33;
        self.ask(b'R', &seed.to_le_bytes())?;
        Ok(())
    }

    fn step(&mut self, action: &[f64]) -> Result<Step> {
        let limits = self.spec.low.iter().zip(&self.spec.high);
        let clipped = action.iter().zip(limits).map(|(a, (low, high))| a.max(f64::from(*low)).min(f64::from(*high)));
        let bytes: Vec<u8> = clipped.flat_map(f64::to_le_bytes).collect();
        self.ask(b'S', &bytes)
    }

    fn observe(&self, out: &mut [f64]) {
        out.copy_from_slice(&self.observation);
    }
}

impl Drop for GymEnv {
    /// Keeps one child of each ID for the next environment; the others end.
    fn drop(&mut self) {
        let Some(process) = self.process.take().filter(|process| process.sound) else { return };
        if let Ok(mut known) = KNOWN.lock()
            && let Some((_, idle)) = known.get_mut(&self.id)
        {
            idle.get_or_insert(process);
        }
    }
}

/// Eight little-endian bytes.
fn number(bytes: &[u8]) -> f64 {
    bytes.try_into().map_or(f64::NAN, f64::from_le_bytes)
}

/// What the child says: a letter and a body, or a sentence instead.
enum Message {
    Said(u8, Vec<u8>),
    Refused(String),
}

/// The child with both ends of its pipes.
struct Process {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    /// Every command so far was answered.
    sound: bool,
}

impl Process {
    /// Starts the child and reads what it says of itself.
    fn start(id: &str) -> Result<(Self, Info)> {
        let python = std::env::var_os(PYTHON).filter(|p| !p.is_empty()).unwrap_or_else(|| OsString::from("python3"));
        let shown = python.to_string_lossy().into_owned();
        let mut command = Command::new(&python);
        command.args(["-c", SCRIPT, id]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(|e| {
            Error::usage(format!(
                "cannot start Python as {shown} ({e}): install Python 3, or name its interpreter in {PYTHON}"
            ))
        })?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::failure(format!("the Python process of gym:{id} has no pipes")));
        };
        let mut process = Self { child, input, output, sound: true };
        let info = match process.read(id)? {
            Message::Refused(sentence) => return Err(Error::Usage(sentence)),
            Message::Said(b'I', json) => serde_json::from_slice(&json).ok(),
            Message::Said(..) => None,
        };
        let info = info.ok_or_else(|| {
            Error::failure(format!("{shown} does not speak the protocol of gym:{id}: name a Python 3 in {PYTHON}"))
        })?;
        Ok((process, info))
    }

    /// A command and the body of its answer.
    fn ask(&mut self, id: &str, kind: u8, body: &[u8]) -> Result<Vec<u8>> {
        let mut message = Vec::with_capacity(5 + body.len());
        message.extend_from_slice(&(1 + body.len() as u32).to_le_bytes());
        message.push(kind);
        message.extend_from_slice(body);
        // A child that is gone is told by the read, which also hears its last words.
        let _ = self.input.write_all(&message).and_then(|()| self.input.flush());
        match self.read(id)? {
            Message::Said(b'O', answer) => Ok(answer),
            Message::Said(..) => {
                Err(Error::failure(format!("the Python process of gym:{id} answered something else than asked")))
            }
            Message::Refused(sentence) => Err(Error::Failure(sentence)),
        }
    }

    /// One message.
    fn read(&mut self, id: &str) -> Result<Message> {
        let mut head = [0; 5];
        let mut body = Vec::new();
        let whole = self.output.read_exact(&mut head).and_then(|()| {
            let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
            body.resize(length.clamp(1, LONGEST) - 1, 0);
            self.output.read_exact(&mut body)
        });
        match (whole, head[4]) {
            (Err(_), _) => Err(Error::failure(format!(
                "the Python process of gym:{id} died ({}): look whether the environment runs by itself, and start again",
                self.last_status()
            ))),
            (Ok(()), b'E') => Ok(Message::Refused(String::from_utf8_lossy(&body).into_owned())),
            (Ok(()), kind) => Ok(Message::Said(kind, body)),
        }
    }

    /// How the child ended, once its pipe has.
    fn last_status(&mut self) -> String {
        for _ in 0..100 {
            match self.child.try_wait() {
                Ok(Some(status)) => return status.to_string(),
                Ok(None) => std::thread::sleep(Duration::from_millis(10)),
                Err(e) => return e.to_string(),
            }
        }
        "its pipe is closed".to_string()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone is as good; waiting leaves no zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
