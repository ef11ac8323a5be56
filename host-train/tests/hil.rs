//! `hil` from outside: the program at one end of a TCP line, flowlet-link's board side at the other, in a thread.
//!
//! The board here is this computer, so a difference would be the protocol's: episodes, faults, uploads, what is refused.
//! The firmware does the same in QEMU under `cargo xtask test`.

use flowlet::flow::Plan;
use flowlet::policy::Policy;
use flowlet_link::device::{Memory, Port, scratch_len, serve};
use flowlet_link::frame::{frame_len, wire_len};
use host_train::policy::ArtefactBytes;
use serde_json::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

const PENDULUM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware/policies/pendulum.flw");
const FURUTA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware/policies/furuta.flw");

const FURUTA_CRITIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware/policies/furuta-critic.flw");

/// One client after another on one port, as QEMU has it.
struct Socket {
    listener: TcpListener,
    client: Option<TcpStream>,
    buffer: std::collections::VecDeque<u8>,
}

impl Port for Socket {
    const TICKS_PER_SECOND: u32 = 1_000_000;

    fn read(&mut self) -> Option<u8> {
        self.buffer.pop_front()
    }

    fn write(&mut self, bytes: &[u8]) {
        // Whoever hung up does not want to know.
        let _ = self.client.as_mut().map(|client| client.write_all(bytes));
    }

    fn idle(&mut self) -> bool {
        let client = self.client.get_or_insert_with(|| {
            let client = self.listener.accept().unwrap().0;
            client.set_nodelay(true).unwrap();
            client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            client
        });
        let mut bytes = [0; 512];
        match client.read(&mut bytes) {
            Ok(length) if length > 0 => self.buffer.extend(&bytes[..length]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            _ => self.client = None,
        }
        true
    }

    fn start_periods(&mut self, _: u32) -> bool {
        true
    }

    fn stop_periods(&mut self) {}

    fn periods(&mut self) -> u32 {
        0
    }

    fn measure<R>(&mut self, work: impl FnOnce() -> R) -> (R, u32) {
        (work(), 7)
    }
}

/// A board with the pendulum's policy, room for others and so much more scratch than the pendulum's needs; its address. It
/// lives as long as the test.
fn board(room: usize, more: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp:{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        const PAYLOAD: usize = 512;
        let flash = ArtefactBytes::read(Path::new(PENDULUM)).unwrap();
        let needed = scratch_len(&Policy::new(flash.artefact().unwrap()).unwrap());
        let (mut uploads, mut scratch) = (vec![0; room / 4], vec![0.0; needed + more]);
        let memory = Memory { uploads: &mut uploads, scratch: &mut scratch };
        let mut port = Socket { listener, client: None, buffer: Default::default() };
        serve::<_, { frame_len(PAYLOAD) }, { wire_len(PAYLOAD) }>("thread", flash.as_slice(), memory, &mut port)
    });
    address
}

fn hil(port: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_host-train")).args(["hil", "--port", port]).args(args).output().unwrap()
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap()
}

fn refusal(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    said.lines().last().unwrap().to_string()
}

#[test]
fn a_board_returns_what_the_host_does() {
    let port = board(0, 4096);
    let first = report(&hil(&port, &["--episodes", "3", "--json"]));
    assert_eq!((&first["equal"], &first["env"], &first["board"]), (&true.into(), &"pendulum".into(), &"thread".into()));
    assert_eq!((&first["decisions"], &first["decision"]["max"]), (&600.into(), &7.into()));
    // The return that `eval` prints.
    let eval = Command::new(env!("CARGO_BIN_EXE_host-train"))
        .args(["eval", "--policy", PENDULUM, "--episodes", "3", "--json"])
        .output()
        .unwrap();
    assert_eq!(report(&eval)["return_mean"], first["return_mean"]);
    // Another conversation with the same board, another seed.
    let second = report(&hil(&port, &["--episodes", "3", "--seed", "2", "--json"]));
    assert!(second["equal"] == true && second["return_mean"] != first["return_mean"]);
    let people = hil(&port, &["--episodes", "1"]);
    let said = String::from_utf8_lossy(&people.stdout).into_owned();
    assert!(people.status.success() && said.contains("equal, bit for bit") && said.contains("p99"), "{said}");
}

#[test]
fn faults_are_survived_and_counted() {
    let port = board(1 << 17, 4096);
    let faults = ["--drop", "0.05", "--corrupt", "0.06", "--repeat", "0.07", "--delay", "0.08", "--timeout", "15"];
    // The upload goes over the bad line too.
    let args = [&["--policy", FURUTA, "--episodes", "1", "--json"], &faults[..]].concat();
    let r = report(&hil(&port, &args));
    assert_eq!((&r["equal"], &r["policy"], &r["decisions"]), (&true.into(), &"furuta".into(), &600.into()));
    let n = |path: &str| r.pointer(path).and_then(Value::as_u64).unwrap();
    for (end, way) in [("/counted_by_board", "/faults/to_board"), ("/counted_here", "/faults/from_board")] {
        let (counted, fault) = (|name: &str| n(&format!("{end}/{name}")), |name: &str| n(&format!("{way}/{name}")));
        assert!(["dropped", "corrupted", "repeated", "delayed"].iter().all(|name| fault(name) > 5), "{r}");
        assert_eq!(
            counted("frames"),
            fault("frames") - fault("dropped") - fault("corrupted") + fault("repeated"),
            "{r}"
        );
        assert_eq!(counted("crc") + counted("framing") + counted("too_long"), fault("corrupted"), "{r}");
        assert_eq!((counted("lost"), counted("refused")), (0, 0), "{r}");
        // What came and was not new was a repetition or late.
        assert!(counted("repeated") + counted("late") >= fault("repeated"), "{r}");
    }
    // Every question was carried out once: what arrived is one frame each, repetitions and late ones.
    let asked = 1 + 600 + 1 + 2 + std::fs::metadata(FURUTA).unwrap().len().div_ceil(508);
    assert_eq!(
        n("/counted_by_board/frames"),
        asked + n("/counted_by_board/repeated") + n("/counted_by_board/late"),
        "{r}"
    );
    assert!(n("/asked_again") >= n("/faults/to_board/dropped") + n("/faults/to_board/corrupted"), "{r}");
}

#[test]
fn policies_are_uploaded_read_back_and_refused_by_name() {
    let good = std::fs::read(FURUTA).unwrap();
    // Room for one policy, with a little beside it, and not for two.
    let room = good.len() / 4 * 4 + 4_000;
    let port = board(room, 4096);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut damaged = good.clone();
    damaged[1000] ^= 1;
    std::fs::write(path("damaged.flw"), &damaged).unwrap();
    std::fs::write(path("large.flw"), [&good[..], &good[..]].concat()).unwrap();
    for (file, words) in [("damaged.flw", "checksum"), ("large.flw", room.to_string().as_str())] {
        let said = refusal(&hil(&port, &["--policy", &path(file)]), 1);
        assert!(said.contains(words), "{said}");
        assert_eq!(report(&hil(&port, &["--episodes", "1", "--json"]))["policy"], "pendulum");
    }
    let log = path("log.csv");
    let args = ["--policy", FURUTA, "--episodes", "1", "--record", &log, "--read-back", &path("back.flw"), "--json"];
    assert_eq!(report(&hil(&port, &args))["policy"], "furuta");
    assert!(std::fs::read(path("back.flw")).unwrap() == good);
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 602);
    // It stays, and is what a later conversation reads back; it is not for another plant.
    assert_eq!(report(&hil(&port, &["--episodes", "1", "--json"]))["env"], "furuta");
    let said = refusal(&hil(&port, &["--env", "pendulum"]), 2);
    assert!(said.contains("5 observations"), "{said}");
    // No room beside it for one of the same size.
    let said = refusal(&hil(&port, &["--policy", &path("damaged.flw")]), 1);
    assert!(said.contains("bytes of room for uploads"), "{said}");
    // Of more steps than the board has memory for time tables.
    let policy = ArtefactBytes::new(&good);
    let plan = *policy.artefact().unwrap().plan();
    let long = policy.revised(Plan { steps: 50, ..plan }, false).unwrap();
    std::fs::write(path("long.flw"), long.as_slice()).unwrap();
    let said = refusal(&hil(&board(room, 0), &["--policy", &path("long.flw")]), 1);
    assert!(said.contains("floats of scratch"), "{said}");
}

/// Critics that only a board that learns would ask stay here where the board has no room for them; a policy that is damaged is
/// not made good by that.
#[test]
fn critics_that_do_not_fit_stay_here() {
    let whole = ArtefactBytes::read(Path::new(FURUTA_CRITIC)).unwrap();
    let plain = whole.revised(*whole.artefact().unwrap().plan(), false).unwrap();
    let (whole, plain) = (whole.as_slice(), plain.as_slice());
    let port = board((plain.len() + whole.len()) / 8 * 4, 4096);
    let folder = tempfile::tempdir().unwrap();
    let back = folder.path().join("back.flw").display().to_string();
    let said = hil(&port, &["--policy", FURUTA_CRITIC, "--episodes", "1", "--read-back", &back, "--json"]);
    assert_eq!(report(&said)["equal"], true);
    assert!(String::from_utf8_lossy(&said.stderr).contains("the critics stay here"));
    assert!(std::fs::read(&back).unwrap() == plain);
    let damaged = folder.path().join("damaged.flw").display().to_string();
    let mut bytes = whole.to_vec();
    bytes[1000] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let said = refusal(&hil(&board(plain.len() / 4 * 4 + 4, 4096), &["--policy", &damaged]), 1);
    assert!(said.contains("bytes of room for uploads") && said.contains("--without-critic"), "{said}");
    // With room for them they go along.
    let port = board(whole.len().next_multiple_of(4), 4096);
    report(&hil(&port, &["--policy", FURUTA_CRITIC, "--episodes", "1", "--read-back", &back, "--json"]));
    assert!(std::fs::read(&back).unwrap() == whole);
}

/// A run's folder is its policy, with the physics it was trained with, as in `eval`; `--set` goes before them.
#[test]
fn a_run_plays_with_its_own_physics() {
    let port = board(1 << 17, 4096);
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().display().to_string();
    std::fs::copy(PENDULUM, folder.path().join("policy.flw")).unwrap();
    let trained = Command::new(env!("CARGO_BIN_EXE_host-train"))
        .args(["train", "--out", &format!("{run}/short"), "--total-timesteps", "200", "--set", "env.mass=1.4"])
        .args(["--set", "eval.episodes=1"])
        .output()
        .unwrap();
    assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
    std::fs::copy(folder.path().join("short/config.toml"), folder.path().join("config.toml")).unwrap();
    let mean = |args: &[&str]| {
        let r = report(&hil(&port, &[&["--episodes", "2", "--json"], args].concat()));
        assert_eq!(r["equal"], true, "{r}");
        r["return_mean"].as_f64().unwrap().to_bits()
    };
    let heavy = mean(&["--policy", &run]);
    let eval = Command::new(env!("CARGO_BIN_EXE_host-train"))
        .args(["eval", "--policy", &format!("{run}/policy.flw"), "--episodes", "2", "--json"])
        .output()
        .unwrap();
    assert_eq!(report(&eval)["return_mean"].as_f64().unwrap().to_bits(), heavy);
    let nominal = mean(&["--policy", PENDULUM]);
    assert_eq!((mean(&["--policy", &run, "--set", "env.mass=1"]), heavy != nominal), (nominal, true));
}

/// The Control Suite's policies in flash, in both formats, on MuJoCo; physics that diverge end the episode on the board as here,
/// under a name.
#[cfg(feature = "mujoco")]
#[test]
fn a_task_of_the_control_suite_is_played() {
    let port = board(1 << 18, 4096);
    for format in ["", "-int8"] {
        let policy = format!("{}/../firmware/policies/cheetah-run{format}.flw", env!("CARGO_MANIFEST_DIR"));
        let r = report(&hil(&port, &["--policy", &policy, "--episodes", "1", "--json"]));
        assert_eq!(
            (&r["equal"], &r["env"], &r["decisions"]),
            (&true.into(), &"cheetah-run".into(), &500.into()),
            "{r}"
        );
        // Random actions return 3 to 10.
        assert!(r["return_mean"].as_f64().unwrap() > 50.0 && r["ways"].is_null(), "{r}");
        let wild = hil(&port, &["--policy", &policy, "--episodes", "2", "--set", "env.strength=1000000"]);
        let said = String::from_utf8_lossy(&wild.stdout).into_owned();
        assert!(wild.status.success() && said.contains("equal, bit for bit") && said.contains("diverged: "), "{said}");
        let other = refusal(&hil(&port, &["--policy", &policy, "--env", "walker-walk"]), 2);
        assert!(other.contains("17 observations and 6 actions, and walker-walk has 24 and 6"), "{other}");
    }
}

/// A board learns what `finetune` learns; a bad line changes nothing. What it leaves can be evaluated and trained from.
#[test]
fn a_board_learns_what_the_host_does() {
    let port = board(1 << 18, 4096);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    // Ten episodes in which candidates are screened and tried by a test that is hardly one.
    let learning = ["--set", "env.friction=5", "--seconds", "60", "--seed", "3", "--json"];
    let soon = ["screening=1", "gain=0", "alpha=0.5", "margin=0", "rounds=3", "actor_rate=0.003", "warmup=50"];
    let soon: Vec<String> = soon.iter().flat_map(|pair| ["--set".to_string(), format!("finetune.{pair}")]).collect();
    let soon: Vec<&str> = soon.iter().map(String::as_str).collect();
    let (out, log) = (path("board"), path("log.csv"));
    let here = ["finetune", "--policy", FURUTA_CRITIC, "--without-scratch", "--episodes", "1", "--every", "60"];
    let host = path("host");
    let host_run = Command::new(env!("CARGO_BIN_EXE_host-train"))
        .args([&here[..], &learning, &soon, &["--out", &host]].concat())
        .output()
        .unwrap();
    let host_report = report(&host_run);
    let args =
        [&["--finetune", "--policy", FURUTA_CRITIC, "--out", &out, "--record", &log][..], &learning, &soon].concat();
    let r = report(&hil(&port, &args));
    assert_eq!((&r["equal"], &r["board"], &r["decisions"]), (&true.into(), &"thread".into(), &6000.into()));
    assert_eq!((&r["updates"], r["telemetry"].as_u64()), (&host_report["updates"], Some(70)));
    assert_eq!((r["returns"].as_array().unwrap().len(), &r["ram_bytes"]), (10, &r["ram_bytes"]));
    let learned = path("board/learned.flw");
    assert_eq!(std::fs::read(&learned).unwrap(), std::fs::read(path("host/learned.flw")).unwrap());
    assert_eq!(r["promoted"], host_report["promoted"].as_u64().unwrap().gt(&0));
    // A row a second, and one at the end of every episode.
    let table = std::fs::read_to_string(path("board/learning.csv")).unwrap();
    let last: Vec<&str> = table.lines().last().unwrap().split(',').collect();
    assert_eq!((table.lines().count(), last[0], last[1]), (71, "60", "6000"), "{table}");
    let command = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_host-train")).args(args).output().unwrap();
    for args in [&["verify", &learned, "--json"][..], &["inspect", &learned, "--json"]] {
        report(&command(args));
    }
    let args = ["eval", "--policy", &learned, "--set", "env.friction=5", "--episodes", "2", "--json"];
    assert!(report(&command(&args))["return_mean"].as_f64().unwrap() > 100.0);
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 6002);
    let run = path("run");
    let args = ["train", "--init", &learned, "--replay", &log, "--total-timesteps", "3200", "--out", &run, "--json"];
    report(&command(&[&args[..], &["--set", "env.friction=5", "--set", "eval.episodes=1"]].concat()));
    // Over a bad line, with the table elsewhere, to a board that still learned; and the board is as good for a plain run.
    let faults = ["--drop", "0.01", "--corrupt", "0.01", "--repeat", "0.02", "--delay", "0.02", "--timeout", "10"];
    let (out, csv) = (path("again"), path("told.csv"));
    let files = ["--finetune", "--out", &out, "--csv", &csv, "--read-back", &path("read.flw")];
    let r = report(&hil(&port, &[&files[..], &learning, &soon, &faults].concat()));
    assert!(r["equal"] == true && r["asked_again"].as_u64().unwrap() > 20, "{r}");
    assert_eq!(std::fs::read(path("read.flw")).unwrap(), std::fs::read(&learned).unwrap());
    assert!(std::path::Path::new(&csv).is_file() && !std::path::Path::new(&path("again/learned.flw")).exists());
    assert_eq!(report(&hil(&port, &["--episodes", "1", "--json"]))["equal"], true);
    assert_eq!(report(&hil(&port, &["--policy", FURUTA, "--episodes", "1", "--json"]))["policy"], "furuta");
}

#[test]
fn what_cannot_be_learned_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run").display().to_string();
    let port = board(1 << 18, 4096);
    for (args, code, words) in [
        (&["--finetune"][..], 2, "critics"),
        (&["--finetune", "--policy", FURUTA], 2, "critics"),
        (&["--finetune", "--policy", FURUTA_CRITIC, "--mode", "none"], 2, "adam, lean, all or last"),
        (&["--finetune", "--policy", FURUTA_CRITIC, "--set", "finetune.depth=1"], 2, "finetune.depth"),
        (&["--finetune", "--policy", FURUTA_CRITIC, "--set", "finetune.discount=1"], 2, "discount is out of range"),
        (&["--seconds", "5"], 2, "--finetune"),
        (&["--set", "finetune.batch=8"], 2, "env.KEY=NUMBER"),
        (&["--finetune", "--csv", "nowhere/learning.csv"], 2, "nowhere/learning.csv"),
    ] {
        let output = hil(&port, &[args, &["--out", &out][..if args.contains(&"--finetune") { 2 } else { 0 }]].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && said.contains(words), "{args:?}: {said}");
    }
    // Room for the policy, and not for a learner beside it.
    let size = std::fs::metadata(FURUTA_CRITIC).unwrap().len() as usize;
    let port = board(size + 50_000, 4096);
    let said = refusal(&hil(&port, &["--finetune", "--policy", FURUTA_CRITIC, "--out", &out]), 1);
    assert!(said.contains("words of memory"), "{said}");
}

#[test]
fn wrong_use_is_named() {
    let port = board(0, 4096);
    for (args, code, words) in [
        (&["--drop", "0.95"][..], 2, "at most 0.9"),
        (&["--policy", "nowhere.flw"], 2, "nowhere.flw"),
        (&["--env", "nowhere"], 2, "unknown environment"),
        (&["--set", "mass=1"], 2, "env.KEY=NUMBER"),
    ] {
        let said = refusal(&hil(&port, args), code);
        assert!(said.contains(words), "{said}");
    }
    // What is wrong whatever the board is said before anybody is asked: nobody listens on this port. A cart-pole has as many
    // channels as a furuta pendulum, and is none.
    let nobody = "tcp:127.0.0.1:1";
    let nowhere = std::env::temp_dir().join("no such folder").join("file");
    let nowhere = nowhere.to_str().unwrap();
    for (args, words) in [
        (&["--policy", FURUTA, "--env", "cartpole"][..], &["furuta", "arm", "cart_x"][..]),
        (&["--policy", PENDULUM, "--env", "furuta"], &["3 observations", "5"]),
        (&["--env", "nowhere"], &["unknown environment"]),
        (&["--set", "env.nothing=1", "--policy", PENDULUM], &["nothing"]),
        (&["--record", nowhere], &[nowhere, "folder"]),
        (&["--read-back", nowhere], &[nowhere, "folder"]),
        (&["--baud", "0"], &["--baud"]),
        (&["--episodes", "0"], &["--episodes"]),
    ] {
        let said = refusal(&hil(nobody, args), 2);
        assert!(words.iter().all(|word| said.contains(word)), "{args:?}: {said}");
    }
    let said = refusal(&hil(nobody, &[]), 1);
    assert!(said.contains("cannot connect"), "{said}");
    // Somebody listens there who does not speak the protocol.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let said = refusal(&hil(&format!("tcp:{}", mute.local_addr().unwrap()), &["--timeout", "5"]), 1);
    assert!(said.contains("does not answer") && said.contains("firmware `hil`"), "{said}");
}
