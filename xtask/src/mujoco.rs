//! `cargo xtask fetch-mujoco`: MuJoCo's library and the Control Suite's models, for `host-train` with `--features mujoco`.
//!
//! pip brings the two wheels that `host-train/mujoco/requirements.txt` pins, checks their digests and runs nothing of
//! them; what is needed of them (the library, the models, the licences) is unpacked beside `mujoco/`, which a rename then
//! puts in place: nothing half-written stays behind. A folder of these very wheels is left as it is. The download is
//! 83 MB, the folder 29 MB. Linux on x86-64 and AArch64; on others one sentence says so. With `--render` it also installs what
//! draws without a window, by `apt-get`, where a probe finds that nothing does.

use crate::{cargo, python, tools};
use anyhow::{Context, Result, bail};
use std::env::consts;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The pinned wheels with their digests.
const REQUIREMENTS: &str = "host-train/mujoco/requirements.txt";
/// Where they are unpacked.
const FOLDER: &str = "mujoco";
/// Written last; `host-train/build.rs` and the program look into it for the versions.
const STAMP: &str = "versions";

/// Puts the members of two wheels where they belong; arguments: the folder of the wheels, the folder to fill.
///
/// Every member is read to its end, so a damaged archive is an error here.
const UNPACK: &str = r#"
import pathlib, sys, zipfile
wheels, folder = map(pathlib.Path, sys.argv[1:])
for wheel in sorted(wheels.glob("*.whl")):
    package = wheel.name.split("-")[0]
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            path = pathlib.PurePosixPath(member.filename)
            if member.is_dir():
                continue
            if path.parts[0] == "mujoco" and len(path.parts) == 2 and path.name.startswith("libmujoco.so."):
                place = folder / "lib" / path.name
            elif path.parts[:2] == ("dm_control", "suite") and path.suffix in (".xml", ".stl", ".skn", ".msh", ".png"):
                place = folder / "suite" / pathlib.Path(*path.parts[2:])
            elif ".dist-info" in path.parts[0] and "licenses" in path.parts:
                place = folder / "licenses" / package / path.name
            else:
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(archive.read(member))
"#;

/// Debian's packages that draw without a window: the library, Mesa's driver for it, and the one that needs no graphics card.
const EGL_PACKAGES: [&str; 3] = ["libegl1", "libegl-mesa0", "libgl1-mesa-dri"];

/// Ends well where EGL has a device on which a display can be opened: what `host-train render` asks of it.
const PROBE: &str = r#"
import ctypes as c, sys
egl = c.CDLL("libEGL.so.1")
egl.eglGetProcAddress.restype = c.c_void_p
def function(name, result, *arguments):
    return c.CFUNCTYPE(result, *arguments)(egl.eglGetProcAddress(name) or sys.exit(1))
query = function(b"eglQueryDevicesEXT", c.c_uint, c.c_int, c.c_void_p, c.c_void_p)
display_of = function(b"eglGetPlatformDisplayEXT", c.c_void_p, c.c_uint, c.c_void_p, c.c_void_p)
egl.eglInitialize.argtypes = [c.c_void_p] * 3
devices, count = (c.c_void_p * 64)(), c.c_int()
EGL_PLATFORM_DEVICE_EXT = 0x313F
if not query(64, devices, c.byref(count)):
    sys.exit(1)
displays = [display_of(EGL_PLATFORM_DEVICE_EXT, device, None) for device in devices[:count.value]]
sys.exit(0 if any(display and egl.eglInitialize(display, None, None) for display in displays) else 1)
"#;

/// `cargo xtask fetch-mujoco`.
#[derive(clap::Args)]
pub struct Options {
    /// Install what draws pictures too (EGL and Mesa), for `host-train --features render`
    #[arg(long)]
    render: bool,
}

/// `cargo xtask fetch-mujoco`.
pub fn run(root: &Path, options: &Options) -> Result<u8> {
    let folder = fetch(root)?;
    if options.render {
        ensure_egl(root)?;
    }
    println!("{}", folder.display());
    Ok(0)
}

/// Installs EGL with Mesa's drivers where nothing can draw without a window.
pub fn ensure_egl(root: &Path) -> Result<()> {
    let python = python::bare_venv(root)?;
    let draws = || {
        let mut probe = cargo::command(&python, root);
        probe.args(["-c", PROBE]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    };
    if draws() {
        return Ok(());
    }
    tools::apt_install("EGL", &EGL_PACKAGES, "`dnf install mesa-libEGL mesa-dri-drivers`, `pacman -S mesa libglvnd`")?;
    if !draws() {
        bail!(
            "EGL still opens no display after {} were installed: look at the graphics drivers",
            EGL_PACKAGES.join(", ")
        );
    }
    Ok(())
}

/// Brings what is missing and tells the folder.
pub fn fetch(root: &Path) -> Result<PathBuf> {
    let list = root.join(REQUIREMENTS);
    let wanted = fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let (folder, stamp) = (root.join(FOLDER), stamp(&wanted));
    let lock = root.join("mujoco.lock");
    let locked = File::create(&lock).and_then(|file| file.lock().map(|()| file));
    let _locked = locked.with_context(|| format!("cannot lock {}", lock.display()))?;
    if fs::read_to_string(folder.join(STAMP)).is_ok_and(|found| found == stamp) {
        return Ok(folder);
    }
    let platform = platform()?;
    let python = python::bare_venv(root)?;
    eprintln!("fetching: {} into {}", names(&stamp).join(" and "), folder.display());
    // In the repository, not in the system's folder for temporary files: a rename does not cross file systems.
    let made = tempfile::Builder::new().prefix("mujoco.partial-").tempdir_in(root);
    let made = made.with_context(|| format!("cannot create a folder in {}", root.display()))?;
    let (wheels, filled) = (made.path().join("wheels"), made.path().join(FOLDER));
    fs::create_dir_all(&filled).with_context(|| format!("cannot create {}", filled.display()))?;
    let mut pip = cargo::command(&python, root);
    pip.args(["-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet", "--no-deps"]);
    pip.args(["--only-binary=:all:", "--implementation=cp", "--python-version=3.12", "--require-hashes"]);
    pip.args(platform.iter().map(|tag| format!("--platform={tag}")));
    pip.arg("--dest").arg(&wheels).arg("--requirement").arg(&list);
    python::finish(
        &mut pip,
        &format!(
            "the wheels of {REQUIREMENTS} cannot be fetched: check the network, or, without one, point pip at a folder \
             of wheels (PIP_FIND_LINKS), and try again"
        ),
    )?;
    let mut unpack: Command = cargo::command(&python, root);
    unpack.args(["-c", UNPACK]).arg(&wheels).arg(&filled);
    python::finish(&mut unpack, "the wheels cannot be unpacked: look whether the disk is full, and try again")?;
    for needed in ["lib", "suite/common", "suite/dog_assets", "licenses/mujoco", "licenses/dm_control"] {
        if !filled.join(needed).is_dir() {
            bail!("the wheels of {REQUIREMENTS} hold no {needed}: pin those that do");
        }
    }
    fs::write(filled.join(STAMP), &stamp).with_context(|| format!("cannot write {}", filled.display()))?;
    // An older one steps aside first and goes with the temporary folder.
    if folder.exists() {
        fs::rename(&folder, made.path().join("old")).with_context(|| format!("cannot move {}", folder.display()))?;
    }
    fs::rename(&filled, &folder).with_context(|| format!("cannot move the files to {}", folder.display()))?;
    Ok(folder)
}

/// What the folder says of itself: one line for each package, `NAME VERSION`, then the digests.
fn stamp(requirements: &str) -> String {
    let words = requirements.lines().filter(|line| !line.starts_with('#')).flat_map(str::split_whitespace);
    let (mut packages, mut digests) = (String::new(), String::new());
    for word in words {
        if let Some((name, version)) = word.split_once("==") {
            packages += &format!("{name} {version}\n");
        } else if let Some(digest) = word.strip_prefix("--hash=") {
            digests += &format!("{digest}\n");
        }
    }
    packages + &digests
}

/// The packages of a stamp.
fn names(stamp: &str) -> Vec<&str> {
    stamp.lines().filter(|line| line.contains(' ')).collect()
}

/// The tags of the wheels for this machine.
fn platform() -> Result<[String; 2]> {
    match (consts::OS, consts::ARCH) {
        ("linux", arch @ ("x86_64" | "aarch64")) => {
            Ok([format!("manylinux_2_28_{arch}"), format!("manylinux_2_27_{arch}")])
        }
        (os, arch) => bail!(
            "the Control Suite is set up for Linux on x86-64 and AArch64, not for {os} on {arch}: use the environments \
             that need no MuJoCo"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_wheels_are_pinned_by_digest() {
        let text = fs::read_to_string(crate::root().join(REQUIREMENTS)).unwrap();
        let stamp = stamp(&text);
        assert_eq!(names(&stamp), ["mujoco 3.17.0", "dm-control 1.0.50"]);
        let digests: Vec<&str> = stamp.lines().filter(|line| !line.contains(' ')).collect();
        // A library for each of two architectures, and the models.
        assert_eq!(digests.len(), 3);
        assert!(digests.iter().all(|d| d.len() == "sha256:".len() + 64 && d.starts_with("sha256:")), "{digests:?}");
    }

    /// A folder with the right stamp is left alone; without a network nothing else could be tested here.
    #[test]
    fn what_is_there_is_not_fetched_again() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("host-train/mujoco")).unwrap();
        fs::create_dir_all(root.path().join(FOLDER)).unwrap();
        let list = "a==1 \\\n    --hash=sha256:00\n# c==3\nb==2 --hash=sha256:01\n";
        fs::write(root.path().join(REQUIREMENTS), list).unwrap();
        fs::write(root.path().join(FOLDER).join(STAMP), "a 1\nb 2\nsha256:00\nsha256:01\n").unwrap();
        assert_eq!(fetch(root.path()).unwrap(), root.path().join(FOLDER));
    }
}
