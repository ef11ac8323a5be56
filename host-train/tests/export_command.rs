//! `export` from outside: formats by name and by ending, where files go, wrong combinations.

use flowlet::policy::{Artefact, StepEntry};
use host_train::policy::ArtefactBytes;
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// The policy that is committed for the firmware: three Euler steps of two layers, without critics.
const POLICY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../firmware/policies/pendulum.flw");

fn export(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_host-train")).arg("export").args(args).output().unwrap()
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap()
}

fn path<'a>(folder: &'a Path, name: &str, held: &'a mut String) -> &'a str {
    *held = folder.join(name).display().to_string();
    held
}

#[test]
fn the_ending_or_the_name_chooses_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let mut place = String::new();
    let whole = ArtefactBytes::read(Path::new(POLICY)).unwrap();

    let flw = path(folder.path(), "a.flw", &mut place);
    assert_eq!(report(&export(&[POLICY, "--out", flw, "--json"]))["format"], "flw");
    // Of a version-1 policy in today's version; `assert!`, for the bytes would fill the screen.
    let same = whole.revised(*whole.artefact().unwrap().plan(), true).unwrap();
    assert!(fs::read(flw).unwrap() == same.as_slice());
    // An ending that says nothing is the artefact, as it always was.
    let bin = path(folder.path(), "a.bin", &mut place);
    assert_eq!(report(&export(&[POLICY, "--out", bin, "--json"]))["format"], "flw");

    let rs = path(folder.path(), "a.rs", &mut place);
    assert_eq!(report(&export(&[POLICY, "--out", rs, "--json", "--steps", "2"]))["steps"], 2);
    assert!(fs::read_to_string(rs).unwrap().contains("pub const STEPS: usize = 2;"));

    let tensors = path(folder.path(), "a.safetensors", &mut place);
    assert_eq!(report(&export(&[POLICY, "--out", tensors, "--json"]))["format"], "safetensors");
    let file = fs::read(tensors).unwrap();
    let bias = SafeTensors::deserialize(&file).unwrap().tensor("velocity.out.bias").unwrap().data().to_vec();
    let params = Artefact::new(whole.as_slice()).unwrap().velocity().as_f32().unwrap().params().to_vec();
    assert_eq!(bias, params.last().unwrap().to_le_bytes());

    let onnx = path(folder.path(), "a.onnx", &mut place);
    let policy = report(&export(&[POLICY, "--out", onnx, "--json"]));
    assert_eq!((&policy["format"], &policy["onnx_part"]), (&"onnx".into(), &"policy".into()));
    assert_eq!(policy["bytes"], fs::metadata(onnx).unwrap().len());
    let velocity = report(&export(&[POLICY, "--out", onnx, "--json", "--onnx-part", "velocity"]));
    assert_eq!(velocity["onnx_part"], "velocity");
}

#[test]
fn a_run_folder_gets_the_file_beside_its_policy() {
    let run = tempfile::tempdir().unwrap();
    fs::copy(POLICY, run.path().join("policy.flw")).unwrap();
    let folder = run.path().display().to_string();
    for (args, name) in [
        (&["--format", "onnx"][..], "policy.onnx"),
        (&["--format", "onnx", "--onnx-part", "velocity"], "policy.velocity.onnx"),
        (&["--format", "rust"], "policy.rs"),
        (&["--format", "safetensors"], "policy.safetensors"),
    ] {
        let told = report(&export(&[&[folder.as_str(), "--json"], args].concat()));
        assert_eq!(told["policy"], run.path().join(name).display().to_string());
        assert!(run.path().join(name).is_file(), "{name}");
    }
    assert_eq!(fs::read_dir(run.path()).unwrap().count(), 5);
}

#[test]
fn wrong_combinations_are_one_sentence() {
    for (args, words) in [
        (&[POLICY][..], ["--out FILE", "--firmware"]),
        (&[POLICY, "--format", "flw"], ["--out FILE", "--firmware"]),
        (&[POLICY, "--format", "onnx", "--out", "/tmp/a.rs"], [".rs", ".onnx"]),
        (&[POLICY, "--firmware", "--format", "rust"], ["--firmware", ".flw format"]),
        (&[POLICY, "--onnx-part", "policy", "--out", "/tmp/a.flw"], ["--onnx-part", "--format onnx"]),
        (&[POLICY, "--onnx-part", "critic", "--out", "/tmp/a.onnx"], ["critic", "velocity"]),
        (&[POLICY, "--format", "pickle"], ["pickle", "safetensors"]),
        (&[POLICY, "--firmware", "--out", "/tmp/a.flw"], ["--out FILE", "not both"]),
    ] {
        let output = export(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.starts_with("error: ") && said.lines().count() == 1, "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{args:?}: {said}");
    }
}

fn host_train(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_host-train")).args(args).output().unwrap()
}

#[test]
fn an_int8_policy_tells_what_it_loses_and_is_a_policy_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let (mut place, mut again) = (String::new(), String::new());
    let out = path(folder.path(), "a.flw", &mut place);
    let quantize = |out: &str, more: &[&str]| {
        export(&[&[POLICY, "--quantize", "int8", "--out", out, "--episodes", "40"], more].concat())
    };
    let told = report(&quantize(out, &["--json"]));
    assert_eq!(told["number_format"], "int8");
    let quantized = &told["quantized"];
    assert_eq!((&quantized["episodes"], quantized["states"].as_u64().unwrap() > 1_000), (&40.into(), true));
    let number = |key: &str| quantized[key].as_f64().unwrap();
    assert!((number("return_f32") - number("return_int8") - number("lost")).abs() < 1e-9);
    // The policy returns some 1,100 more than random actions; int8 is not free, and within 2 % of that.
    assert!(number("lost_share").abs() < 0.02 && number("lost_ci95") > 0.0, "{quantized}");

    // Like any other, with what it returned itself in its step table.
    let inspected = report(&host_train(&["inspect", out, "--json"]));
    assert_eq!((&inspected["number_format"], &inspected["format_version"]), (&"int8".into(), &2.into()));
    assert!(host_train(&["verify", out]).status.success());
    let bytes = ArtefactBytes::read(Path::new(out)).unwrap();
    assert!(bytes.as_slice().len() < 2 * fs::read(POLICY).unwrap().len() / 3);
    let played = report(&host_train(&["profile", out, "--episodes", "2", "--json"]));
    assert!(played["rows"][0]["m4f_instructions"].is_null() && played["rows"][0]["return_mean"].is_f64());
    let rust = path(folder.path(), "a.rs", &mut again);
    report(&export(&[out, "--out", rust, "--json"]));

    // Deterministic; another seed looks at other states.
    let first = fs::read(out).unwrap();
    report(&quantize(out, &["--json"]));
    assert!(fs::read(out).unwrap() == first);
    let text = quantize(out, &["--seed", "2"]);
    assert!(String::from_utf8_lossy(&text.stdout).contains("% of what f32 returns above random actions"));
    assert!(fs::read(out).unwrap() != first);

    // Weights rounded to the nearest integer cost this policy more than 2 %.
    let furuta = POLICY.replace("pendulum", "furuta");
    let told = report(&export(&[&furuta, "--quantize", "int8", "--out", out, "--json"]));
    let share = |key: &str| told["quantized"][key].as_f64().unwrap();
    assert!(share("lost_share") < 0.01 && share("lost_share_ci95") < 0.01, "{told}");

    // A run's policy keeps its name; its table is measured anew.
    let table = [
        StepEntry { steps: 1, mean_return: 7e3, half_width: 0.0 },
        StepEntry { steps: 5, mean_return: 8e3, half_width: 0.0 },
    ];
    let with_table = ArtefactBytes::read(Path::new(POLICY)).unwrap().with_step_table(&table).unwrap();
    fs::write(folder.path().join("policy.flw"), with_table.as_slice()).unwrap();
    let told =
        report(&export(&[&folder.path().display().to_string(), "--quantize", "int8", "--episodes", "3", "--json"]));
    assert_eq!(told["policy"], folder.path().join("policy.int8.flw").display().to_string());
    let bytes = ArtefactBytes::read(&folder.path().join("policy.int8.flw")).unwrap();
    let steps: Vec<StepEntry> = bytes.artefact().unwrap().step_table().collect();
    assert_eq!(steps.iter().map(|e| e.steps).collect::<Vec<_>>(), [1, 5]);
    assert!(steps.iter().all(|e| e.mean_return < 0.0));
    assert_eq!(steps[1].mean_return, told["quantized"]["return_int8"].as_f64().unwrap() as f32);
}

#[test]
fn what_cannot_be_quantised_is_one_sentence_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let out = at("out.flw");
    fs::write(at("noise.flw"), [7; 900]).unwrap();
    let done = export(&[POLICY, "--quantize", "int8", "--out", &at("int8.flw"), "--episodes", "2"]);
    assert!(done.status.success());
    let committed = ArtefactBytes::read(Path::new(POLICY)).unwrap();
    let narrow = narrow(&committed);
    fs::write(at("narrow.flw"), narrow.as_slice()).unwrap();
    for (args, code, words) in [
        (&[POLICY, "--quantize", "int4", "--out", &out][..], 2, ["int4", "int8"]),
        (&[POLICY, "--quantize", "int8", "--out", &at("a.onnx")], 2, [".onnx", "floats"]),
        (&[POLICY, "--quantize", "int8", "--format", "safetensors"], 2, [".safetensors", "floats"]),
        (&[POLICY, "--quantize", "int8", "--out", &out, "--env", "cartpole"], 2, ["cartpole", "its own environment"]),
        (&[POLICY, "--quantize", "int8", "--out", &out, "--env", "moon"], 2, ["moon", "unknown environment"]),
        (&[POLICY, "--quantize", "int8", "--out", &out, "--episodes", "1"], 2, ["--episodes", "2"]),
        (&[POLICY, "--out", &out, "--episodes", "9"], 2, ["--quantize", "--help"]),
        (&[&at("int8.flw"), "--quantize", "int8", "--out", &out], 2, ["already", "f32"]),
        (&[&at("none.flw"), "--quantize", "int8", "--out", &out], 2, ["none.flw", "cannot read"]),
        (&[&at("noise.flw"), "--quantize", "int8", "--out", &out], 1, ["noise.flw", "artefact"]),
        (&[&at("narrow.flw"), "--quantize", "int8", "--out", &out], 1, ["hidden layers", "4 units"]),
        (&[&at(""), "--quantize", "int8", "--out", &out], 2, ["policy.flw", "cannot read"]),
    ] {
        let output = export(args);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{said}");
        assert!(words.iter().all(|word| errors[0].contains(word)), "{args:?}: {said}");
        assert!(!Path::new(&out).exists());
    }
}

/// The policy with a network of three units.
fn narrow(policy: &ArtefactBytes) -> ArtefactBytes {
    use host_train::config::{Activation, Trunk};
    use host_train::nn::hidden::Hidden;
    use host_train::nn::velocity::{VelocityNet, VelocityShape};
    use host_train::noise::Noise;
    let (activation, trunk) = (Activation::Relu, Trunk::Plain);
    let hidden = Hidden { width: 3, layers: 2, outputs: 1, activation, trunk, layer_norm: false };
    let shape = VelocityShape { obs: 3, act: 1, hidden, frequencies: Vec::new(), constant: Vec::new() };
    policy.one_step(&VelocityNet::new(shape, 1.0, 1.0, &mut Noise::new(1, 0)), true).unwrap()
}

#[test]
fn a_profile_has_a_row_for_every_number_of_steps() {
    let profile =
        |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_host-train")).arg("profile").args(args).output().unwrap();
    let told = report(&profile(&[POLICY, "--episodes", "2", "--json"]));
    assert_eq!((&told["env"], &told["solver"], &told["own_steps"]), (&"pendulum".into(), &"euler".into(), &5.into()));
    let rows = told["rows"].as_array().unwrap();
    let steps: Vec<u64> = rows.iter().map(|row| row["steps"].as_u64().unwrap()).collect();
    assert_eq!(steps, [1, 2, 3, 5, 10]);
    for (row, steps) in rows.iter().zip(steps) {
        // Three observations, width 64, two layers, one action; (steps + 4) 64 + 3 + 4 floats.
        assert_eq!(row["macs"], 3 * 64 + steps * (64 + 64 * 64 + 64));
        assert_eq!(row["ram_bytes"], 4 * ((steps + 4) * 64 + 7));
        assert!(row["return_mean"].as_f64().unwrap() < 0.0 && row["gain_ci95"].as_f64().is_some());
    }
    let text = profile(&[POLICY, "--episodes", "1"]);
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("M4F instructions") && text.contains("no critics travel"), "{text}");
    let other = profile(&[POLICY, "--env", "cartpole"]);
    assert_eq!(other.status.code(), Some(2));
}
