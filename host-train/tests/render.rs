//! Pictures of the Control Suite's tasks: what they show, what their files hold, what is refused.
//!
//! Needs `--features render`, and so `cargo xtask fetch-mujoco --render`.

#![cfg(feature = "render")]

use host_train::env::{self, Env, State};
use host_train::render::Painter;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::SeedableRng;
use serde_json::Value;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

const SIZE: (u32, u32) = (160, 120);

fn make(task: &str) -> Box<dyn Env> {
    let mut env = env::make(task, &BTreeMap::new()).unwrap();
    env.reset(&mut Xoshiro256PlusPlus::seed_from_u64(1)).unwrap();
    env
}

/// Colours of which all bodies of the suite are, and all targets.
fn of_a_body(pixel: &[u8]) -> bool {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(i32::from);
    r > b + 50 && g > b + 20
}

fn of_a_target(pixel: &[u8]) -> bool {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(i32::from);
    r > b + 40 && (g - b).abs() < 15
}

/// Where the body is, columns from the left and rows from above, and how many pixels it has.
fn body(picture: &[u8]) -> (f64, f64, usize) {
    let pixels = picture.chunks_exact(3).enumerate().filter(|(_, pixel)| of_a_body(pixel));
    let (mut x, mut y, mut n) = (0.0, 0.0, 0);
    for (at, _) in pixels {
        x += (at % SIZE.0 as usize) as f64;
        y += (at / SIZE.0 as usize) as f64;
        n += 1;
    }
    (x / n as f64, y / n as f64, n)
}

/// The cheetah in its default pose, so far along its way and so high, at a speed.
fn cheetah(env: &mut dyn Env, x: f64, z: f64, speed: f64) {
    let mut state = State { positions: vec![0.0; 9], speeds: vec![0.0; 9], ..State::default() };
    (state.positions[0], state.positions[1], state.speeds[0]) = (x, z, speed);
    env.place(&state).unwrap();
}

/// A camera that stands still sees a cheetah at speed go to the right, and a lifted one further up; the one of the task
/// goes with it, past a floor that changes.
#[test]
fn forward_is_right_and_up_is_up() {
    let mut env = make("cheetah-run");
    let env = &mut *env;
    let mut still = Painter::new(env, SIZE, Some("free")).unwrap();
    cheetah(env, 0.0, 0.3, 5.0);
    let mut last = body(&still.paint(env).unwrap());
    assert!(last.2 > 100, "{last:?}");
    for _ in 0..3 {
        (0..5).for_each(|_| assert!(!env.step(&[0.0; 6]).unwrap().terminated));
        let now = body(&still.paint(env).unwrap());
        // A quarter of a metre at 5 m/s, seen from three metres or so away.
        assert!((5.0..30.0).contains(&(now.0 - last.0)), "{last:?} {now:?}");
        last = now;
    }
    let mut seen = |env: &mut dyn Env, x, z| {
        cheetah(env, x, z, 0.0);
        body(&still.paint(env).unwrap())
    };
    let (low, high, gone) = (seen(env, 0.0, 0.0), seen(env, 0.0, 0.5), seen(env, 100.0, 0.0));
    assert!(low.1 - high.1 > 10.0 && (low.0 - high.0).abs() < 3.0, "{low:?} {high:?}");
    assert_eq!(gone.2, 0);
    drop(still);
    let mut side = Painter::new(env, SIZE, None).unwrap();
    assert_eq!(side.camera(), "side");
    let mut seen = |x| {
        cheetah(env, x, 0.0, 0.0);
        side.paint(env).unwrap()
    };
    let (here, there) = (seen(0.0), seen(20.5));
    let ((x, y, n), other) = (body(&here), body(&there));
    assert!(
        (x - other.0).abs() < 2.0 && (y - other.1).abs() < 2.0 && n.abs_diff(other.2) < n / 5,
        "{x} {y} {n} {other:?}"
    );
    assert!((40.0..120.0).contains(&x) && n > 200, "{x} {n}");
    assert!(here != there);
}

/// By default every task shows something that moves, on a ground or before a sky with a texture.
#[test]
fn every_task_is_seen() {
    let tasks: Vec<&str> = env::known().into_iter().skip(env::NAMES.len()).collect();
    assert_eq!(tasks.len(), 24);
    for task in tasks {
        let mut env = make(task);
        let mut painter = Painter::new(&mut *env, SIZE, None).unwrap();
        let before = painter.paint(&mut *env).unwrap();
        assert_eq!(before.len(), 3 * 160 * 120, "{task}");
        let colours: BTreeSet<&[u8]> = before.chunks_exact(3).collect();
        // Without light, ground and sky there would be a handful.
        assert!(colours.len() > 250, "{task}: {} colours", colours.len());
        let share = body(&before).2 as f64 / f64::from(SIZE.0 * SIZE.1);
        assert!((0.001..0.5).contains(&share), "{task}: {share}");
        assert_eq!(painter.paint(&mut *env).unwrap(), before, "{task}");
        let full: Vec<f64> = env.spec().high.iter().map(|high| f64::from(*high)).collect();
        (0..20).for_each(|_| assert!(!env.step(&full).unwrap().terminated));
        let after = painter.paint(&mut *env).unwrap();
        let moved = before.chunks_exact(3).zip(after.chunks_exact(3)).filter(|(a, b)| of_a_body(a) != of_a_body(b));
        assert!(moved.count() > 10, "{task} by {}", painter.camera());
    }
}

/// A target is seen where the task has one, and where this reset has put it.
#[test]
fn targets_are_seen_where_they_matter() {
    for (task, has) in [
        ("fish-swim", true),
        ("fish-upright", false),
        ("finger-turn_hard", true),
        ("finger-spin", false),
        ("reacher-easy", true),
    ] {
        let mut env = make(task);
        let mut painter = Painter::new(&mut *env, SIZE, None).unwrap();
        let mut places = BTreeSet::new();
        for seed in 0..4 {
            env.reset(&mut Xoshiro256PlusPlus::seed_from_u64(seed)).unwrap();
            let picture = painter.paint(&mut *env).unwrap();
            let of_it: Vec<usize> = (0..160 * 120).filter(|at| of_a_target(&picture[3 * at..])).collect();
            // Some of the ground's and the bodies' pixels have a target's colour by chance, a few.
            if of_it.len() > 20 {
                places.insert(of_it);
            }
        }
        assert_eq!(places.len(), if has { 4 } else { 0 }, "{task}");
    }
}

fn host_train(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_host-train")).args(args).current_dir(folder).output().unwrap()
}

/// Runs a command that must succeed, with `--json`.
fn told(folder: &Path, args: &[&str]) -> Value {
    let output = host_train(folder, &[args, &["--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A PNG's width, height and pixels, and for an animation the frames with their seconds.
fn png_file(path: &Path) -> (u32, u32, Vec<(Vec<u8>, f64)>) {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let (width, height) = reader.info().size();
    let count = reader.info().animation_control().map_or(1, |control| control.num_frames);
    let frames = (0..count).map(|_| {
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let control = reader.info().frame_control();
        (pixels, control.map_or(0.0, |c| f64::from(c.delay_num) / f64::from(c.delay_den)))
    });
    let frames = frames.collect();
    (width, height, frames)
}

#[test]
fn a_strip_has_its_frames_and_their_times() {
    let dir = tempfile::tempdir().unwrap();
    let plain = told(dir.path(), &["render", "--env", "cartpole-swingup"]);
    let (width, height, frames) = png_file(&dir.path().join("cartpole-swingup.png"));
    assert_eq!((width, height), (6 * 320 + 5 * 4, 240 + 26));
    assert_eq!(
        (plain["frames"].as_u64(), plain["to"].as_f64(), plain["seconds"].as_f64()),
        (Some(6), Some(10.0), Some(10.0))
    );
    assert!((0.0..1000.0).contains(&plain["return"].as_f64().unwrap()), "{plain}");
    // Each frame has a cart on its rail and a time below; between them it is white.
    let row = |y: usize| &frames[0].0[y * 3 * width as usize..][..3 * width as usize];
    for frame in 0..6 {
        let columns = 324 * frame..324 * frame + 320;
        let count = |rows: std::ops::Range<usize>, is: fn(&[u8]) -> bool| {
            rows.map(|y| columns.clone().filter(|x| is(&row(y)[3 * x..3 * x + 3])).count()).sum::<usize>()
        };
        assert!(count(0..240, of_a_body) > 300, "{frame}");
        assert!(count(240..266, |pixel| pixel[0] < 100) > 20, "{frame}");
    }
    assert!((0..266).all(|y| row(y)[3 * 320..3 * 324].iter().all(|&x| x == 255)));
    // The same again is the same file, a colder start and another seed are not.
    let drawn = |name: &str, more: &[&str]| {
        let args =
            ["render", "--env", "cartpole-swingup", "--out", name, "--frames", "2", "--width", "64", "--height", "48"];
        told(dir.path(), &[&args, more].concat());
        std::fs::read(dir.path().join(name)).unwrap()
    };
    let one = drawn("a.png", &[]);
    assert_eq!(one, drawn("b.png", &[]));
    assert_eq!(png_file(&dir.path().join("b.png")).0, 2 * 64 + 4);
    assert_ne!(one, drawn("c.png", &["--seed", "2"]));
    assert_ne!(one, drawn("c.png", &["--camera", "lookatcart"]));
    assert_ne!(one, drawn("c.png", &["--from", "1"]));
    let left = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(
        left.collect::<BTreeSet<_>>(),
        ["a.png", "b.png", "c.png", "cartpole-swingup.png"].map(String::from).into()
    );
}

/// Both kinds of animation hold the same pictures for the same times, a GIF with fewer colours.
#[test]
fn animations_have_their_frames() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["render", "--env", "cheetah-run", "--seconds", "0.5", "--width", "96", "--height", "64", "--out"];
    for name in ["film.gif", "film.apng"] {
        assert_eq!(told(dir.path(), &[&args[..], &[name]].concat())["frames"], 10);
    }
    let (width, height, exact) = png_file(&dir.path().join("film.apng"));
    assert_eq!((width, height, exact.len()), (96, 64, 10));
    assert!(exact.iter().all(|(_, seconds)| (seconds - 0.05).abs() < 1e-9));
    let mut reader = gif::DecodeOptions::new();
    reader.set_color_output(gif::ColorOutput::RGBA);
    let mut reader = reader.read_info(std::fs::File::open(dir.path().join("film.gif")).unwrap()).unwrap();
    assert_eq!((reader.width(), reader.height(), reader.repeat()), (96, 64, gif::Repeat::Infinite));
    let mut shown = vec![0u8; 96 * 64 * 3];
    for (number, (exact, _)) in exact.iter().enumerate() {
        let frame = reader.read_next_frame().unwrap().unwrap();
        assert_eq!((frame.width, frame.height, frame.delay), (96, 64, 5));
        for (pixel, new) in shown.chunks_exact_mut(3).zip(frame.buffer.chunks_exact(4)) {
            if new[3] != 0 {
                pixel.copy_from_slice(&new[..3]);
            }
        }
        let apart: f64 =
            shown.iter().zip(exact).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / shown.len() as f64;
        assert!(apart < 4.0, "frame {number}: {apart}");
    }
    assert!(reader.read_next_frame().unwrap().is_none());
    assert!(exact.windows(2).all(|pair| pair[0].0 != pair[1].0));
    // As many as are asked for, however they fall on the control steps.
    let three = told(dir.path(), &[&args[..], &["film.apng", "--frames", "3"]].concat());
    assert_eq!(three["frames"], 3);
    let times: Vec<f64> = png_file(&dir.path().join("film.apng")).2.iter().map(|frame| frame.1).collect();
    assert_eq!(times, [0.17, 0.16, 0.17]);
}

/// What is drawn is the first episode of `eval`, with the same return to the bit; another task's policy is refused.
#[test]
fn a_policy_is_drawn_as_it_is_evaluated() {
    let dir = tempfile::tempdir().unwrap();
    let train = ["train", "--env", "cartpole-swingup", "--out", "run", "--total-timesteps", "1200"];
    let short = ["--set", "eval.episodes=1", "--set", "env.action_repeat=8", "--set", "env.mass=1.1"];
    // Only critics without layer normalisation travel with the policy.
    let plain = ["--set", "rfm.critic_layer_norm=false"];
    told(dir.path(), &[&train[..], &short, &plain].concat());
    let eval = told(dir.path(), &["eval", "--policy", "run", "--episodes", "1", "--seed", "7", "--best-of", "4"]);
    let render = ["render", "--policy", "run", "--seed", "7", "--frames", "2", "--width", "64", "--height", "48"];
    let plain = told(dir.path(), &render);
    assert_eq!((plain["env"].as_str(), &plain["return"]), (Some("cartpole-swingup"), &eval["return_mean"]));
    let best = told(dir.path(), &[&render[..], &["--best-of", "4"]].concat());
    assert_eq!(best["return"], eval["return_best_of"]);
    assert_ne!(best["return"], plain["return"]);
    refused(
        dir.path(),
        &["render", "--policy", "run", "--env", "cheetah-run"],
        &["the policy is for cartpole-swingup", "cheetah-run"],
    );
}

/// An episode that physics break off is drawn until then; where that is at once there is nothing to draw.
#[test]
fn a_broken_episode_is_drawn_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let told = told(dir.path(), &["render", "--env", "hopper-hop", "--set", "env.strength=1000", "--out", "a.gif"]);
    assert!(told["fault"].as_str().unwrap().starts_with("diverged: "), "{told}");
    assert!(told["seconds"].as_f64().unwrap() < 20.0 && told["to"].as_f64() <= told["seconds"].as_f64(), "{told}");
    let wild = ["render", "--env", "hopper-hop", "--set", "env.strength=1000000", "--out", "b.gif"];
    refused(dir.path(), &wild, &["diverged: ", "hopper-hop", "nothing is to be drawn"]);
    assert!(!dir.path().join("b.gif").exists());
}

/// One sentence to standard error with the words, exit code 2, and no file.
fn refused(folder: &Path, args: &[&str], words: &[&str]) {
    said(args, &host_train(folder, args), words);
}

fn said(args: &[&str], output: &Output, words: &[&str]) {
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), said.lines().count()), (Some(2), 1), "{args:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{args:?} does not say {word:?}: {said}");
    }
}

#[test]
fn wrong_use_is_one_sentence_and_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let task = ["render", "--env", "cheetah-run"];
    let with = |more: &[&str], words: &[&str]| refused(dir.path(), &[&task[..], more].concat(), words);
    with(&["--out", "film.mp4"], &["film.mp4", ".png", ".gif", ".apng"]);
    with(&["--out", "film"], &[".png"]);
    with(&["--out", "films/a.png"], &["no folder films"]);
    with(&["--camera", "front"], &["\"front\"", "side, back, free"]);
    with(&["--frames", "0"], &["--frames"]);
    with(&["--frames", "2000"], &["--frames 2000", "1001 states"]);
    with(&["--out", "film.gif", "--seconds", "0"], &["--seconds 0"]);
    with(&["--out", "film.gif", "--from", "10"], &["--from 10", "10.00 s"]);
    with(&["--from", "11"], &["--from 11", "10.00 s"]);
    with(&["--seconds", "NaN"], &["--seconds"]);
    with(&["--width", "8"], &["--width", "16..=4096"]);
    with(&["--frames", "1001", "--width", "4096", "--height", "4096"], &["GB", "fewer"]);
    with(&["--set", "env.weight=2"], &["weight"]);
    with(&["--best-of", "4"], &["--policy"]);
    refused(dir.path(), &["render"], &["--policy"]);
    refused(
        dir.path(),
        &["render", "--env", "pendulum"],
        &["pendulum is not simulated by MuJoCo", "cheetah-run", "dog-run"],
    );
    refused(dir.path(), &["render", "--env", "cheetah-walk"], &["cheetah-walk", "cheetah-run"]);
    refused(dir.path(), &["render", "--policy", "no.flw"], &["no.flw"]);
    let blind = Command::new(env!("CARGO_BIN_EXE_host-train"))
        .args(task)
        .current_dir(dir.path())
        // The libraries are there, but no driver.
        .env("__EGL_VENDOR_LIBRARY_FILENAMES", dir.path().join("nothing.json"))
        .output()
        .unwrap();
    said(&task, &blind, &["EGL", "`cargo xtask fetch-mujoco --render`", "apt-get install libegl1"]);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
