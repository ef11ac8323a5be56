//! What docs/protocol.md shows is what the code does.

use flowlet_link::frame::{Header, encode, wire_len};
use flowlet_link::message::{Refusal, kind};

const PAGE: &str = include_str!("../../docs/protocol.md");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_example_has_the_bytes_of_the_page() {
    let payload: Vec<u8> = [1.0f32, -2.5].iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut wire = vec![0; wire_len(payload.len())];
    let length = encode(Header::new(kind::OBSERVATION, 0x1234, 7), &payload, &mut wire).unwrap();
    assert!(PAGE.contains(&format!("\n    {}\n", hex(&wire[..length]))), "{}", hex(&wire[..length]));
    let mut frame = vec![0; length];
    let decoded = cobs::decode(&wire[..length], &mut frame).unwrap().frame_size();
    let shown = hex(&frame[..decoded]);
    let shown = [&shown[..23], &shown[24..47], &shown[48..]].join("  ");
    assert!(PAGE.contains(&format!("\n    {shown}\n")), "{shown}");
}

#[test]
fn kinds_and_codes_are_those_of_the_page() {
    for (number, name) in [
        (kind::HELLO, "Hello"),
        (kind::RESET, "Reset"),
        (kind::OBSERVATION, "Observation"),
        (kind::BEGIN, "Begin"),
        (kind::CHUNK, "Chunk"),
        (kind::COMMIT, "Commit"),
        (kind::ABORT, "Abort"),
        (kind::READ, "Read"),
        (kind::COUNT, "Count"),
        (kind::LEARN, "Learn"),
        (kind::SAMPLE, "Sample"),
        (kind::SNAPSHOT, "Snapshot"),
        (kind::PARAMETERS, "Parameters"),
    ] {
        assert!(PAGE.contains(&format!("\n| {number} | {name} |")), "{name}");
    }
    let codes = PAGE.split_once("### Errors").unwrap().1.split_once("###").unwrap().0;
    let listed = codes.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse::<u8>().ok());
    assert!(listed.eq((0..=255).filter(|code| Refusal::from_code(*code).is_some())));
}
