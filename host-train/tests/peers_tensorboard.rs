//! Event files read back by TensorBoard's own reader.

use host_train::tensorboard::EventFile;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Prints the scalars of a folder as JSON: tag -> list of [wall time, step, value].
const READER: &str = r#"
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
events.Reload()
scalars = {tag: [[e.wall_time, e.step, e.value] for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
print(json.dumps(scalars))
"#;

fn read(folder: &Path) -> Value {
    let python = std::env::var("FLOWLET_PYTHON")
        .expect("FLOWLET_PYTHON is not set: run `cargo xtask test`, which installs the Python packages");
    let output = Command::new(python).args(["-c", READER]).arg(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(String::from_utf8_lossy(&output.stdout).lines().last().unwrap()).unwrap()
}

#[test]
#[ignore = "needs the Python packages: cargo xtask test"]
fn tensorboard_reads_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut events = EventFile::create(dir.path(), 1_700_000_000.0).unwrap();
    let value = |i: u64| (i as f64 * 0.37).sin() * 1e3;
    for i in 0..400 {
        // Steps beyond 32 bits and two tags, one with letters outside ASCII.
        events.scalar("return/single", i * 20_000_000, value(i), 1_700_000_000.25 + i as f64).unwrap();
        events.scalar("τ", i, -value(i), 0.5).unwrap();
    }
    events.scalar("return/single", 1, f64::NAN, 0.0).unwrap();
    let found = read(dir.path());
    let series = found["return/single"].as_array().unwrap();
    assert_eq!((series.len(), found["τ"].as_array().unwrap().len()), (400, 400));
    for (i, point) in series.iter().enumerate() {
        let i = i as u64;
        assert_eq!(point[0].as_f64().unwrap(), 1_700_000_000.25 + i as f64);
        assert_eq!(point[1].as_u64().unwrap(), i * 20_000_000);
        // Written as the nearest f32; the text in between may cost the last bit of an f64, which an f32 does not have.
        assert_eq!(point[2].as_f64().unwrap() as f32, value(i) as f32);
    }
}

#[test]
#[ignore = "needs the Python packages: cargo xtask test"]
fn a_file_cut_off_anywhere_is_read_up_to_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut events = EventFile::create(dir.path(), 1_700_000_000.0).unwrap();
    for i in 0..3 {
        events.scalar("x", i, 1.0, 2.0).unwrap();
    }
    let whole = fs::read(events.path()).unwrap();
    // Through the header, the data and the last sum of the third record.
    for missing in [1, 10, 25] {
        fs::write(events.path(), &whole[..whole.len() - missing]).unwrap();
        assert_eq!(read(dir.path())["x"].as_array().unwrap().len(), 2, "{missing} bytes missing");
    }
}
