//! `bench estimator` from outside: its JSON, its files, its refusals.

use serde_json::Value;
use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_host-train")).arg("bench").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_summary_is_the_mean_of_the_cells() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new").join("bench");
    let out = out.to_str().unwrap();
    let args =
        ["estimator", "--dims", "1", "--lambda", "0.5", "--samples", "4,8", "--seed", "7", "--json", "--out", out];
    let output = run(&args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    assert_eq!(stdout.lines().count(), 1);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let (summary, cells) = (report["summary"].as_array().unwrap(), report["cells"].as_array().unwrap());
    let names: Vec<&str> = summary.iter().map(|s| s["estimator"].as_str().unwrap()).collect();
    for name in ["published", "auto", "auto+particles"] {
        assert_eq!(names.iter().filter(|n| **n == name).count(), 1, "{names:?}");
    }
    assert_eq!(cells.len(), names.len() * 2 * 11);
    for line in summary {
        let own = || cells.iter().filter(|c| c["estimator"] == line["estimator"]);
        assert_eq!(own().count(), 22);
        for key in ["mse", "bias2", "variance"] {
            let mean = own().map(|c| c[key].as_f64().unwrap()).sum::<f64>() / 22.0;
            assert!((mean - line[key].as_f64().unwrap()).abs() <= 1e-9 * mean.abs(), "{line} {key} {mean}");
        }
        // The mean square is bias and variance together, within what few repetitions leave.
        let [mse, bias2, variance] = ["mse", "bias2", "variance"].map(|key| line[key].as_f64().unwrap());
        assert!((mse - bias2 - variance).abs() < 0.05 * mse, "{line}");
    }
    for cell in cells {
        assert!(cell["t"].as_f64().unwrap() < 1.0 && cell["stderr"].as_f64().unwrap() >= 0.0);
        assert_eq!((cell["d"].as_u64(), cell["lambda"].as_f64()), (Some(1), Some(0.5)));
        assert!([4, 8].contains(&cell["samples"].as_u64().unwrap()));
    }
    assert!(cells.iter().any(|c| c["t"] == 0.02) && cells.iter().any(|c| c["t"] == 0.98));
    assert_eq!(report["seed"], 7);
    assert!(report["claims"].as_array().unwrap().iter().all(|c| c["claim"].is_string()));
    let csv = std::fs::read_to_string(format!("{out}/cells.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + cells.len());
    assert!(csv.starts_with("estimator,t,d,lambda,samples,mse,bias2,variance,stderr,"));
    for picture in ["heatmap.svg", "heatmap-particles.svg", "heatmap-fixed.svg"] {
        let svg = std::fs::read_to_string(format!("{out}/{picture}")).unwrap();
        assert!(svg.contains("d=1, lambda=0.5") && !svg.contains("NaN"));
    }
}

#[test]
fn wrong_use_is_refused_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    for (args, code, words) in [
        (&["estimator", "--dims", "0"][..], 2, vec!["--dims 0", "1 to 12"]),
        (&["estimator", "--dims", "1,13"], 2, vec!["--dims 13", "1 to 12"]),
        (&["estimator", "--dims", "-1"], 2, vec!["--dims -1", "1 to 12"]),
        (&["estimator", "--lambda", "-1"], 2, vec!["--lambda -1", "0.005 to 100"]),
        (&["estimator", "--samples", "8", "-8"], 2, vec!["--samples -8", "4 to 4096"]),
        (&["estimator", "--dims", "1", "two"], 2, vec!["'two'", "host-train bench estimator --help"]),
        (&["estimator", "--lambda", "0"], 2, vec!["--lambda 0", "0.005 to 100"]),
        (&["estimator", "--lambda", "nan"], 2, vec!["--lambda NaN", "0.005 to 100"]),
        (&["estimator", "--samples", "3"], 2, vec!["--samples 3", "4 to 4096"]),
        (&["estimator", "--samples"], 2, vec!["--samples", "host-train bench estimator --help"]),
        (&["estimator", "--seed", "-1"], 2, vec!["'-1'", "--seed"]),
        (&["estimator", "--out", file], 1, vec!["cannot make the folder", "--out"]),
        (&["estimators"], 2, vec!["'estimators'", "use one of estimator"]),
        (&[], 2, vec!["estimator", "host-train bench --help"]),
    ] {
        let output = run(args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "{args:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{args:?} does not say {word:?}: {stderr}");
        }
        assert!(output.stdout.is_empty());
    }
}

/// Figures of any environment, of one thread and of two; no figure is held to a size.
#[test]
fn an_environment_is_measured() {
    let output = run(&["env", "--env", "pendulum", "--seconds", "0.002", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!((report["env"].as_str(), report["rounds"].as_u64()), (Some("pendulum"), Some(9)));
    for threads in ["one_thread", "two_threads"] {
        let [least, median, most] = ["slowest_round", "steps_per_cpu_second", "fastest_round"]
            .map(|key| report[threads][key].as_f64().unwrap());
        assert!(0.0 < least && least <= median && median <= most, "{report}");
    }
    for args in [&["env", "--env", "nowhere"][..], &["env", "--env", "pendulum", "--seconds", "0"]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    }
}
