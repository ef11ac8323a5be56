//! What a board tells of its learning: drawn in the terminal while it goes on, and kept as a table.
//!
//! In a terminal the return and the temporal-difference error are drawn against robot time, and drawn anew with every frame;
//! elsewhere each frame is a line. The table is written beside its place and renamed, at most once a second and at the end.
//! No panics; what is not finite leaves a gap.

use crate::Result;
use crate::run::write_atomic;
use flowlet::finetune::session::Stage;
use flowlet_link::learning::Learning;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Columns and lines of a drawing.
const COLUMNS: usize = 60;
const LINES: usize = 5;

/// The heads of the table's columns.
const HEAD: &str = "robot_seconds,decisions,blocks,return,metric,reference,best,td_error,value,ess,updates,late,resets,\
                    refused,stage,player,guard,verdict,deployed,candidates,round,log2_over_factory,log2_over_incumbent,\
                    log2_needed,log2_harm,metric_factory,metric_incumbent,metric_candidate,odd_metrics";

/// What was told so far.
pub struct Watch {
    /// Seconds of a decision, and the factor on rewards that the learner has them with.
    period: f64,
    scale: f64,
    rows: Vec<Learning>,
    table: Option<PathBuf>,
    written: Option<Instant>,
    bar: ProgressBar,
    say: Box<dyn Fn(&str)>,
}

impl Watch {
    /// For decisions of `period` seconds and rewards that are the task's times `scale`; `say` gets a line where there is no
    /// terminal.
    pub fn new(period: f64, scale: f64, table: Option<&Path>, say: impl Fn(&str) + 'static) -> Result<Self> {
        let style = ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
        let watch = Self {
            period,
            scale,
            rows: Vec::new(),
            table: table.map(Path::to_path_buf),
            written: None,
            bar: ProgressBar::new_spinner().with_style(style),
            say: Box::new(say),
        };
        // A table that cannot be written is known before anything is learned.
        watch.write()?;
        Ok(watch)
    }

    /// Takes in a frame.
    pub fn frame(&mut self, learning: &Learning) -> Result<()> {
        self.rows.push(*learning);
        if self.bar.is_hidden() {
            (self.say)(&self.line(learning));
        } else {
            self.bar.set_message(self.picture(learning));
        }
        if self.written.is_none_or(|written| written.elapsed() >= Duration::from_secs(1)) {
            self.write()?;
            self.written = Some(Instant::now());
        }
        Ok(())
    }

    /// Leaves the last picture on the screen and the whole table on the disk.
    pub fn finish(&self) -> Result<()> {
        self.bar.abandon();
        self.write()
    }

    /// Frames so far.
    pub fn frames(&self) -> usize {
        self.rows.len()
    }

    fn seconds(&self, learning: &Learning) -> f64 {
        f64::from(learning.decisions) * self.period
    }

    /// The return of the last block, once there is one.
    fn block_return(&self, learning: &Learning) -> f64 {
        if learning.session.blocks == 0 { f64::NAN } else { f64::from(learning.session.block_return) / self.scale }
    }

    /// The frame in one line.
    fn line(&self, learning: &Learning) -> String {
        let known = |x: f64, text: String| if x.is_finite() { text } else { "none".to_string() };
        let total = self.block_return(learning);
        let s = &learning.session;
        format!(
            "{:6.1} s: return {}, TD error {:.3}, value {:.2}, {:.1} effective candidates, {} updates; {}",
            self.seconds(learning),
            known(total, format!("{total:.1}")),
            s.learner.td_error,
            s.learner.value,
            s.learner.effective,
            s.updates,
            told(learning)
        )
    }

    /// The frames so far as two drawings and a line.
    fn picture(&self, learning: &Learning) -> String {
        let points = |of: &dyn Fn(&Learning) -> f64| -> Vec<(f64, f64)> {
            self.rows.iter().map(|row| (self.seconds(row), of(row))).collect()
        };
        let td = |row: &Learning| if row.session.updates == 0 { f64::NAN } else { row.session.learner.td_error.into() };
        let mut lines = vec!["return of an episode".to_string()];
        lines.extend(draw(&points(&|row| self.block_return(row))));
        lines.push("temporal-difference error".to_string());
        lines.extend(draw(&points(&td)));
        lines.push(format!("{:>10} 0 to {:.0} s of robot time", "", self.seconds(learning)));
        lines.push(self.line(learning));
        lines.join("\n")
    }

    fn write(&self) -> Result<()> {
        let Some(path) = &self.table else { return Ok(()) };
        let mut text = format!("{HEAD}\n");
        for row in &self.rows {
            let (s, g) = (&row.session, &row.session.guard);
            let numbers = [
                self.block_return(row),
                s.block_metric.into(),
                s.reference.into(),
                s.best.into(),
                s.learner.td_error.into(),
                s.learner.value.into(),
                s.learner.effective.into(),
            ];
            let numbers = numbers.map(|x| if x.is_finite() { x.to_string() } else { String::new() }).join(",");
            let [factory, incumbent, candidate] = g.means.map(|mean| f64::from(mean) / 255.0);
            text += &format!(
                "{},{},{},{numbers},{},{},{},{},{:?},{:?},{:?},{:?},{:?},{},{},{},{},{},{},{factory:.3},{incumbent:.3},\
                 {candidate:.3},{}\n",
                self.seconds(row),
                row.decisions,
                s.blocks,
                s.updates,
                s.late,
                s.resets,
                s.refused,
                s.stage,
                s.player,
                g.phase,
                g.verdict,
                g.deployed,
                g.candidates,
                g.round,
                g.over_factory,
                g.over_incumbent,
                g.needed,
                g.harm,
                g.odd
            );
        }
        write_atomic(path, text.to_lowercase().as_bytes())
    }
}

/// What session and guard are at.
fn told(learning: &Learning) -> String {
    let (s, g) = (&learning.session, &learning.session.guard);
    let stage = format!("{:?}, {:?} plays", s.stage, s.player).to_lowercase();
    match s.stage {
        Stage::Trial => format!(
            "{stage}, round {} of candidate {}, evidence 2^{} over the factory's and 2^{} over the incumbent's of 2^{}",
            g.round, g.candidates, g.over_factory, g.over_incumbent, g.needed
        ),
        Stage::Reference => stage,
        _ => format!(
            "{stage}, best candidate's metric {:.3}, deployed {:.3}, last verdict {}",
            s.best,
            s.reference,
            format!("{:?}", g.verdict).to_lowercase()
        ),
    }
}

/// Columns of eighths over the time from zero to the last point: the mean of the points in each, or of the last before it.
fn draw(points: &[(f64, f64)]) -> Vec<String> {
    const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let end = points.last().map_or(0.0, |point| point.0);
    let (mut sums, mut counts) = ([0.0; COLUMNS], [0u32; COLUMNS]);
    for &(time, value) in points.iter().filter(|point| point.1.is_finite()) {
        let at = ((time / end * COLUMNS as f64).ceil() as usize).clamp(1, COLUMNS) - 1;
        sums[at] += value;
        counts[at] += 1;
    }
    let mut last = None;
    let values: Vec<Option<f64>> = sums
        .iter()
        .zip(counts)
        .map(|(sum, count)| {
            last = if count > 0 { Some(sum / f64::from(count)) } else { last };
            last
        })
        .collect();
    let known = values.iter().flatten();
    let (low, high) = known.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(*v), b.max(*v)));
    let height = |value: f64| -> usize {
        let share = if high > low { (value - low) / (high - low) } else { 0.5 };
        1 + (share * (8 * LINES - 1) as f64).round() as usize
    };
    let label = |line: usize| match line {
        0 if high >= low => format!("{high:.4}"),
        line if line + 1 == LINES && high >= low => format!("{low:.4}"),
        _ => String::new(),
    };
    (0..LINES)
        .map(|line| {
            let below = 8 * (LINES - 1 - line);
            let cells: String = values
                .iter()
                .map(|value| EIGHTHS[value.map_or(0, |value| height(value).saturating_sub(below).min(8))])
                .collect();
            format!("{:>10} {}", label(line), cells.trim_end()).trim_end().to_string()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowlet::finetune;
    use flowlet::finetune::guard::{Phase, Player, Report, Verdict};
    use flowlet::finetune::session;
    use std::cell::RefCell;
    use std::rc::Rc;

    fn frame(decisions: u32, blocks: u32, total: f32, td_error: f32, stage: Stage) -> Learning {
        let guard = Report {
            phase: Phase::Observing,
            verdict: Verdict::Worse,
            player: Player::Factory,
            deployed: Player::Factory,
            candidates: 3,
            round: 2,
            over_factory: 4,
            over_incumbent: -1,
            needed: 7,
            harm: 0,
            means: [51, 0, 255],
            odd: 1,
        };
        let session = session::Report {
            stage,
            player: Player::Candidate,
            blocks,
            block_return: total,
            block_metric: 0.5,
            reference: 0.25,
            best: 0.75,
            learner: finetune::Report { td_error, value: 1.5, effective: 3.0 },
            updates: decisions / 4,
            late: 0,
            resets: 0,
            refused: 0,
            guard,
        };
        Learning { decisions, session }
    }

    #[test]
    fn a_ramp_is_drawn_as_one() {
        let points: Vec<(f64, f64)> = (1..=60).map(|i| (f64::from(i), f64::from(i - 1) / 59.0 * 39.0)).collect();
        let lines = draw(&points);
        assert_eq!(lines.len(), LINES);
        assert!(lines[0].starts_with("   39.0000 ") && lines[LINES - 1].starts_with("    0.0000 ▁"), "{lines:?}");
        assert!(lines[0].ends_with('█') && lines[LINES - 1].ends_with("███████"), "{lines:?}");
        // Column by column the height does not fall, from one eighth to all of them.
        let heights: Vec<usize> = (0..COLUMNS)
            .map(|column| {
                let cell = |line: &String| line.chars().nth(11 + column).unwrap_or(' ');
                lines.iter().map(|line| " ▁▂▃▄▅▆▇█".chars().position(|c| c == cell(line)).unwrap()).sum()
            })
            .collect();
        assert!(heights.is_sorted() && heights[0] == 1 && heights[COLUMNS - 1] == 8 * LINES, "{heights:?}");
    }

    #[test]
    fn what_is_not_known_is_a_gap() {
        let empty = vec![String::new(); LINES];
        assert_eq!(draw(&[]), empty);
        assert_eq!(draw(&[(0.0, f64::NAN), (1.0, f64::INFINITY)]), empty);
        let flat = draw(&[(0.0, f64::NAN), (6.0, 2.0), (12.0, 2.0)]);
        // From half the time on, in the middle of the height.
        assert_eq!(flat[LINES - 1], format!("{:>10} {}{}", "2.0000", " ".repeat(29), "█".repeat(31)));
        assert!(!flat[0].contains('█'), "{flat:?}");
        draw(&[(0.0, 1.0)]);
    }

    #[test]
    fn frames_become_lines_and_a_table() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("learning.csv");
        let said = Rc::new(RefCell::new(Vec::new()));
        let to = Rc::clone(&said);
        let mut watch =
            Watch::new(0.01, 0.5, Some(&path), move |line: &str| to.borrow_mut().push(line.to_string())).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 1);
        for (decisions, blocks, total, td, stage) in [
            (100, 0, 0.0, f32::NAN, Stage::Reference),
            (600, 1, 7.0, 0.25, Stage::Screening),
            (1200, 2, 8.0, 0.125, Stage::Trial),
        ] {
            watch.frame(&frame(decisions, blocks, total, td, stage)).unwrap();
        }
        watch.finish().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
        assert!(rows.len() == 4 && rows.iter().all(|row| row.len() == rows[0].len()), "{text}");
        let cell = |row: usize, name: &str| rows[row][rows[0].iter().position(|head| *head == name).unwrap()];
        assert_eq!((cell(1, "return"), cell(1, "td_error"), cell(1, "robot_seconds")), ("", "", "1"));
        assert_eq!((cell(2, "return"), cell(2, "td_error"), cell(2, "stage")), ("14", "0.25", "screening"));
        assert_eq!((cell(3, "verdict"), cell(3, "log2_needed"), cell(3, "metric_factory")), ("worse", "7", "0.200"));
        assert_eq!(cell(3, "odd_metrics"), "1");
        // Tests have no terminal.
        let said = said.borrow();
        for (line, words) in said.iter().zip([
            &["1.0 s: return none", "reference, candidate plays"][..],
            &[
                "6.0 s: return 14.0",
                "TD error 0.250",
                "screening",
                "best candidate's metric 0.750, deployed 0.250",
                "last verdict worse",
            ],
            &["12.0 s", "return 16.0", "round 2 of candidate 3", "2^4", "2^-1", "of 2^7"],
        ]) {
            assert!(words.iter().all(|word| line.contains(word)), "{line} has not {words:?}");
        }
        assert_eq!(said.len(), 3);
        // What a terminal would show fits 80 columns, but for the last line, and leaves no number out.
        let picture = watch.picture(&frame(1200, 2, 8.0, 0.125, Stage::Trial));
        let lines: Vec<&str> = picture.lines().collect();
        assert_eq!(lines.len(), 2 * (LINES + 1) + 2);
        assert!(lines[..lines.len() - 1].iter().all(|line| line.chars().count() < 80) && !picture.contains("NaN"));
    }

    #[test]
    fn a_table_that_cannot_be_written_is_known_at_once() {
        let nowhere = tempfile::tempdir().unwrap().path().join("gone/learning.csv");
        let Err(error) = Watch::new(0.01, 1.0, Some(&nowhere), |_: &str| {}) else { panic!("taken") };
        assert!(error.to_string().contains("learning.csv"), "{error}");
    }
}
