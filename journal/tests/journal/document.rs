//! What docs/persistence.md shows is what the code does.

use super::{On, Sim};
use flowlet::control::{Supervisor, Tolerance};
use flowlet_journal::{Blocking, Layout, Progress};

const PAGE: &str = include_str!("../../../docs/persistence.md");

#[test]
fn the_example_has_the_bytes_of_the_page() {
    let supervisor = Supervisor::new(Tolerance::default()).unwrap();
    let flash = Sim::<3, 128, 4, 1>::new(1);
    let mut journal: On<_, 64> = On::new(Blocking(flash), 0..384, 11).unwrap();
    assert_eq!(journal.load(&mut [], 0x1234_5678), Ok(None));
    let parts: [&[u8]; 2] = [b"learned", b" bit"];
    let mut commit = journal.commit(&parts, 0x1234_5678).unwrap();
    while commit.step(supervisor.at_rest().unwrap()).unwrap() != Progress::Done {}
    let flash = journal.release().0;
    let mut shown = String::new();
    for (row, bytes) in flash.bytes()[..68].chunks(16).enumerate() {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let halves: Vec<String> = hex.chunks(8).map(|half| half.join(" ")).collect();
        shown += &format!("    {:04x}  {}\n", 16 * row, halves.join("  "));
    }
    // The record's CRC, the last four bytes, was computed by Python's zlib.
    assert!(PAGE.contains(&shown), "\n{shown}");
    assert!(flash.bytes()[68..].iter().all(|byte| *byte == 0xff));
}

/// Flash of a part by its data sheet, state, sectors given, commits and starts a day, endurance.
fn row<const SECTOR: usize, const WORD: usize>(
    name: &str,
    state: usize,
    given: usize,
    [commits, starts]: [u32; 2],
    endurance: u32,
) -> String {
    type L<const SECTOR: usize, const WORD: usize> = Layout<Blocking<Sim<1, SECTOR, WORD, 1>>>;
    let needed = L::<SECTOR, WORD>::sectors(state);
    let years = L::<SECTOR, WORD>::years(state, given, commits as f32, starts as f32, endurance);
    format!("| {name} | {state} | {needed} | {given} | {commits}, {starts} | {years:.1} |\n")
}

#[test]
fn the_table_is_computed() {
    let rows = row::<4096, 4>("nRF52840, 4 kB, words of 4, 10,000 erases", 20_000, 16, [24, 2], 10_000)
        + &row::<2048, 8>("STM32G491, 2 kB, words of 8, 10,000 erases", 4_000, 16, [24, 2], 10_000)
        + &row::<131_072, 4>("STM32F405, 128 kB, words of 4, 10,000 erases", 4_000, 3, [24, 2], 10_000)
        + &row::<4096, 1>("external, 4 kB, words of 1, 100,000 erases", 65_536, 64, [24, 2], 100_000);
    assert!(PAGE.contains(&rows), "\n{rows}");
    assert!(
        PAGE.contains(&format!("{} for words of 1, 4 and 8 bytes", Layout::<Blocking<Sim<1, 4096, 8, 1>>>::PAYLOAD))
    );
    assert!(PAGE.contains(&format!(", {} for 16.", Layout::<Blocking<Sim<1, 4096, 16, 1>>>::PAYLOAD)));
}
