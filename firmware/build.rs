//! Picks the board and the policies of a firmware build.
//!
//! * `FLOWLET_BOARD` names a folder of `boards/`; without it the target triple decides. Its `memory.x` goes to the
//!   linker, its `board.toml` becomes `board.rs` in `OUT_DIR`.
//! * Every committed artefact `policies/NAME.flw`, or `policies/NAME-int8.flw` for a board whose `format` is int8, becomes a
//!   file `NAME.rs` of constants in `OUT_DIR`, from which a program checks at compile time that the policy fits it, and its
//!   bytes beside it. `policies/NAME.local.flw`, which `host-train
//!   export --firmware` writes, goes before the committed one unless `FLOWLET_COMMITTED` is set; `FLOWLET_POLICY`, an
//!   artefact's path, goes before both, whichever policy a program asks for. A file that is missing, damaged or of a newer
//!   format ends the build with one sentence. The self-test is left to the device, which is what it tests.

use flowlet::policy::{Artefact, Policy};
use std::path::{Path, PathBuf};
use std::{env, fs};

/// The committed artefacts, each a module of `embedded`: its name, its file, and whether it is there in every number format.
const NAMES: [(&str, &str, bool); 3] =
    [("pendulum", "pendulum", true), ("furuta", "furuta", true), ("furuta_critic", "furuta-critic", false)];

fn main() {
    if let Err(message) = build() {
        println!("cargo::error={message}");
    }
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let format = board(&out)?;
    policies(&out, format)
}

/// What follows the name of a committed artefact, by the number format.
const FORMATS: [(&str, &str); 2] = [("f32", ""), ("int8", "-int8")];

/// The drivers of src/uart.rs.
const UARTS: [&str; 4] = ["cmsdk", "nrf51", "ns16550", "stm32"];

/// The board that stands for a triple when none is named.
fn default_board(triple: &str) -> Result<&'static str, String> {
    match triple {
        "thumbv6m-none-eabi" => Ok("m0"),
        "thumbv7m-none-eabi" => Ok("m3"),
        "thumbv7em-none-eabihf" => Ok("m4f"),
        "thumbv8m.main-none-eabihf" => Ok("m33"),
        "riscv32imac-unknown-none-elf" => Ok("rv32imac"),
        "riscv32imafc-unknown-none-elf" => Ok("rv32imafc"),
        _ => Err(format!("no board of firmware/boards is of the target {triple}")),
    }
}

/// Writes what the board's folder says; what follows the names of its artefacts.
fn board(out: &Path) -> Result<&'static str, String> {
    println!("cargo::rerun-if-env-changed=FLOWLET_BOARD");
    let triple = env::var("TARGET").map_err(|_| "cargo sets no TARGET")?;
    let name = match env::var("FLOWLET_BOARD") {
        Ok(name) if !name.is_empty() => name,
        _ => default_board(&triple)?.to_string(),
    };
    let folder = Path::new("boards").join(&name);
    println!("cargo::rerun-if-changed={}", folder.display());
    let text = fs::read_to_string(folder.join("board.toml"))
        .map_err(|_| format!("FLOWLET_BOARD={name} is no folder of firmware/boards"))?;
    let facts: toml::Table = text.parse().map_err(|error| format!("boards/{name}/board.toml: {error}"))?;
    let number = |key: &str| {
        facts.get(key).and_then(toml::Value::as_integer).ok_or(format!("boards/{name}/board.toml has no number {key}"))
    };
    let inner = |table: &str, key: &str| {
        let value = facts.get(table).and_then(|table| table.get(key)).and_then(toml::Value::as_integer);
        value.ok_or(format!("boards/{name}/board.toml has no number {table}.{key}"))
    };
    if facts.get("triple").and_then(toml::Value::as_str) != Some(&triple) {
        return Err(format!("FLOWLET_BOARD={name} is not of the target {triple}: choose it by --target"));
    }
    let source = format!(
        "/// The board's name.\npub const NAME: &str = {name:?};\n\
         /// Clock of the control timer in QEMU.\npub const TIMER_HZ: u32 = {};\n\
         /// Every instruction takes 2^ICOUNT_SHIFT ns of virtual time in QEMU.\npub const ICOUNT_SHIFT: u32 = {};\n\
         /// Address of the serial port's registers.\npub const UART_BASE: usize = {};\n\
         /// Number of its receive interrupt.\npub const UART_INTERRUPT: u16 = {};\n\
         /// Its clock.\npub const UART_HZ: u32 = {};\n\
         /// Bytes for uploaded policies.\npub const HIL_UPLOADS: usize = {};\n\
         /// Floats of scratch for them.\npub const HIL_SCRATCH: usize = {};\n\
         /// Longest payload of a frame.\npub const HIL_PAYLOAD: usize = {};\n",
        number("timer_hz")?,
        number("icount_shift")?,
        inner("uart", "base")?,
        inner("uart", "interrupt")?,
        inner("uart", "clock")?,
        inner("hil", "uploads")?,
        inner("hil", "scratch")?,
        inner("hil", "payload")?,
    );
    println!("cargo::rustc-check-cfg=cfg(uart, values({}))", UARTS.map(|kind| format!("{kind:?}")).join(", "));
    match facts.get("uart").and_then(|uart| uart.get("kind")).and_then(toml::Value::as_str) {
        Some(kind) if UARTS.contains(&kind) => println!("cargo::rustc-cfg=uart={kind:?}"),
        _ => return Err(format!("boards/{name}/board.toml: uart.kind must be one of {}", UARTS.join(", "))),
    }
    write(&out.join("board.rs"), source.as_bytes())?;
    let memory = fs::read(folder.join("memory.x")).map_err(|error| format!("boards/{name}/memory.x: {error}"))?;
    write(&out.join("memory.x"), &memory)?;
    println!("cargo::rustc-link-search={}", out.display());
    for argument in ["--nmagic", "-Tlink.x", "-Tdefmt.x", &format!("--defsym=flowlet_board_{name}=1")] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
    let format = facts.get("format").and_then(toml::Value::as_str);
    let known = FORMATS.into_iter().find(|(name, _)| Some(*name) == format);
    known.map(|(_, ending)| ending).ok_or(format!("boards/{name}/board.toml: format must be f32 or int8"))
}

/// Embeds one artefact for each committed one.
fn policies(out: &Path, format: &str) -> Result<(), String> {
    for variable in ["FLOWLET_POLICY", "FLOWLET_COMMITTED"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let named = env::var_os("FLOWLET_POLICY").filter(|path| !path.is_empty()).map(PathBuf::from);
    let committed = env::var_os("FLOWLET_COMMITTED").is_some_and(|value| !value.is_empty());
    for (name, file, formats) in NAMES {
        let local = PathBuf::from(format!("policies/{file}.local.flw"));
        let format = if formats { format } else { "" };
        println!("cargo::rerun-if-changed={}", local.display());
        let path = match &named {
            Some(path) => path.clone(),
            None if local.is_file() && !committed => local,
            None => PathBuf::from(format!("policies/{file}{format}.flw")),
        };
        policy(out, name, &path)?;
    }
    Ok(())
}

/// Checks the artefact, copies it beside the other generated files and writes its sizes.
fn policy(out: &Path, name: &str, path: &Path) -> Result<(), String> {
    println!("cargo::rerun-if-changed={}", path.display());
    let shown = path.display();
    let file = fs::read(path).map_err(|error| {
        format!("cannot read the policy {shown} ({error}): name an artefact by FLOWLET_POLICY, with an absolute path")
    })?;
    // The view wants an address divisible by four.
    let mut room = vec![0; file.len() + 4];
    let start = room.as_ptr().align_offset(4);
    let bytes = &mut room[start..start + file.len()];
    bytes.copy_from_slice(&file);
    let refused = |error: &dyn std::fmt::Display| format!("the policy {shown} is refused: {error}");
    let artefact = Artefact::new(bytes).map_err(|error| refused(&error))?;
    let policy = Policy::new(artefact).map_err(|error| refused(&error))?;
    let shape = artefact.velocity().shape();
    // A program that goes on training asks for all sizes; the others for none of these.
    let critic = artefact.critics().next().map(|critic| *critic.shape());
    let source = format!(
        "/// Observation channels of the policy.\npub const OBS: usize = {};\n\
         /// Action channels of the policy.\npub const ACT: usize = {};\n\
         /// Width of its hidden layers.\npub const HIDDEN: usize = {};\n\
         /// Rows of its time table.\npub const NODES: usize = {};\n\
         /// Its control period in microseconds.\npub const PERIOD_US: u32 = {};\n\
         /// Sizes of its velocity network.\npub const VELOCITY: VelocityShape = {};\n\
         /// Sizes of its critics.\npub const CRITIC: Option<CriticShape> = {};\n\
         /// What to say at build time when the policy does not fit a program.\npub const MISFIT: &str = {:?};\n",
        shape.obs,
        shape.act,
        shape.hidden,
        policy.plan().nodes(),
        artefact.period_us(),
        literal(&format!("{shape:?}")),
        literal(&format!("{critic:?}")),
        format!(
            "the policy {shown} ({}) has {} observations, {} actions and a period of {} us, \
             which does not fit this program: name another artefact by FLOWLET_POLICY",
            artefact.name(),
            shape.obs,
            shape.act,
            artefact.period_us()
        ),
    );
    write(&out.join(format!("{name}.rs")), source.as_bytes())?;
    write(&out.join(format!("{name}.flw")), bytes)
}

/// What derived `Debug` shows of a shape, as an expression: the names of variants need their types.
fn literal(shown: &str) -> String {
    shown.replace("activation: ", "activation: Activation::").replace("trunk: ", "trunk: Trunk::")
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(path, bytes).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
