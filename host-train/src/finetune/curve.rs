//! The curve of a fine-tuning over robot time: `progress.csv` and `curve.svg`.
//!
//! Both are written beside their place and renamed. No panics; what is not known leaves a gap.

use super::Row;
use crate::run::write_atomic;
use crate::stats::Summary;
use crate::{Error, Result};
use plotters::prelude::*;
use std::path::Path;

/// Writes the rows as a table.
pub fn write_progress(path: &Path, rows: &[Row]) -> Result<()> {
    let mut text = String::from(
        "robot_seconds,updates,train_return,acting_mean,acting_ci95,kept_mean,kept_ci95,td_error,q_mean,ess,reference_metric,\
         best_metric,stage\n",
    );
    for row in rows {
        let numbers = [
            row.training,
            row.acting.mean,
            row.acting.ci95,
            row.kept.mean,
            row.kept.ci95,
            f64::from(row.report.learner.td_error),
            f64::from(row.report.learner.value),
            f64::from(row.report.learner.effective),
            f64::from(row.report.reference),
            f64::from(row.report.best),
        ];
        let cells = numbers.map(|x| if x.is_finite() { x.to_string() } else { String::new() });
        text += &format!("{},{},{},{:?}\n", row.seconds, row.report.updates, cells.join(","), row.report.stage);
    }
    write_atomic(path, text.as_bytes())
}

/// A line of the picture, with a band about it.
#[derive(Clone, Debug)]
pub struct Line {
    label: &'static str,
    colour: RGBColor,
    /// Minutes of robot time, mean, half the width of the band.
    points: Vec<[f64; 3]>,
}

const DEPLOYED: (&str, RGBColor) = ("the deployed policy", RGBColor(0, 90, 160));
const CANDIDATE: (&str, RGBColor) = ("the learner's candidate", RGBColor(213, 94, 0));
const SCRATCH: (&str, RGBColor) = ("trained from scratch", RGBColor(90, 90, 90));

/// Deployed policy and candidate of one run over robot time, and the return of a policy from scratch. Without bands, which
/// would be those of episodes.
pub fn lines(rows: &[Row], scratch: Option<f64>) -> Vec<Line> {
    let of = |value: fn(&Row) -> f64| rows.iter().map(|row| [row.seconds / 60.0, value(row), 0.0]).collect();
    made(of(|row| row.acting.mean), of(|row| row.kept.mean), scratch)
}

/// The same in the mean over seeds, with the 95 % interval of that mean as a band.
pub fn lines_over_seeds(runs: &[&[Row]], scratch: Option<f64>) -> Vec<Line> {
    let marks = runs.iter().map(|rows| rows.len()).min().unwrap_or(0);
    let of = |value: fn(&Row) -> f64| {
        let at = |mark: usize| {
            let values: Vec<f64> = runs.iter().map(|rows| value(&rows[mark])).collect();
            let Summary { mean, ci95, .. } = Summary::of(&values);
            [runs[0][mark].seconds / 60.0, mean, ci95]
        };
        (0..marks).map(at).collect()
    };
    made(of(|row| row.acting.mean), of(|row| row.kept.mean), scratch)
}

fn made(candidate: Vec<[f64; 3]>, deployed: Vec<[f64; 3]>, scratch: Option<f64>) -> Vec<Line> {
    let end = deployed.iter().map(|point| point[0]).fold(0.1, f64::max);
    let level = scratch.iter().flat_map(|mean| [[0.0, *mean, 0.0], [end, *mean, 0.0]]).collect();
    let all = [(CANDIDATE, candidate), (DEPLOYED, deployed), (SCRATCH, level)];
    all.map(|((label, colour), points)| Line { label, colour, points }).into()
}

/// Draws the lines; points that are not finite leave gaps.
pub fn write_curve(path: &Path, title: &str, lines: &[Line]) -> Result<()> {
    let mut svg = String::new();
    draw(&mut svg, title, lines).map_err(|e| Error::failure(format!("cannot draw {} ({e})", path.display())))?;
    write_atomic(path, svg.as_bytes())
}

fn draw(svg: &mut String, title: &str, lines: &[Line]) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let known = |line: &Line| -> Vec<[f64; 3]> {
        line.points
            .iter()
            .filter(|point| point[1].is_finite())
            .map(|&[t, y, h]| [t, y, if h > 0.0 { h } else { 0.0 }])
            .collect()
    };
    let all: Vec<[f64; 3]> = lines.iter().flat_map(known).collect();
    let end = all.iter().map(|point| point[0]).fold(0.1, f64::max);
    let low = all.iter().map(|[_, y, h]| y - h).fold(f64::INFINITY, f64::min);
    let high = all.iter().map(|[_, y, h]| y + h).fold(f64::NEG_INFINITY, f64::max);
    let (low, high) = if low <= high { (low, high) } else { (0.0, 1.0) };
    let room = 0.05 * (high - low).max(1.0);
    let area = SVGBackend::with_string(svg, (760, 440)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(14)
        .margin_right(36)
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..end, low - room..high + room)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .x_desc("robot time, minutes")
        .y_desc("return of an episode")
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .draw()?;
    for line in lines {
        let (points, colour) = (known(line), line.colour);
        if points.iter().any(|point| point[2] > 0.0) {
            let above = points.iter().map(|[t, y, h]| (*t, y + h));
            let below = points.iter().rev().map(|[t, y, h]| (*t, y - h));
            chart.draw_series([Polygon::new(above.chain(below).collect::<Vec<_>>(), colour.mix(0.15))])?;
        }
        chart
            .draw_series(LineSeries::new(points.iter().map(|[t, y, _]| (*t, *y)), colour.stroke_width(2)))?
            .label(line.label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 13))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowlet::finetune::{Report as Update, guard, session};

    fn row(seconds: f64, mean: f64) -> Row {
        let guard = guard::Guard::new(guard::Config::new(10), 1).unwrap().report();
        let report = session::Report {
            stage: session::Stage::Screening,
            player: guard.player,
            blocks: 3,
            block_return: 5.0,
            block_metric: 0.5,
            reference: 0.5,
            best: 0.6,
            learner: Update { td_error: 0.5, value: f32::NAN, effective: 2.0 },
            updates: 3,
            late: 0,
            resets: 0,
            refused: 0,
            guard,
        };
        let (acting, kept) = (Summary::of(&[mean, f64::NAN]), Summary::of(&[mean, mean + 2.0]));
        Row { seconds, training: f64::NAN, acting, kept, report }
    }

    #[test]
    fn a_curve_names_its_axes_and_leaves_gaps() {
        let dir = tempfile::tempdir().unwrap();
        for rows in [vec![], vec![row(0.0, 5.0)], vec![row(0.0, 5.0), row(60.0, 7.0), row(120.0, f64::NAN)]] {
            let (svg, csv) = (dir.path().join("curve.svg"), dir.path().join("progress.csv"));
            write_curve(&svg, "furuta, adam", &lines(&rows, Some(9.0))).unwrap();
            write_progress(&csv, &rows).unwrap();
            let (svg, csv) = (std::fs::read_to_string(svg).unwrap(), std::fs::read_to_string(csv).unwrap());
            for word in ["robot time", "return of an episode", "trained from scratch", "furuta, adam"] {
                assert!(svg.contains(word), "{word} is not in the picture");
            }
            assert!(!svg.contains("NaN") && !csv.contains("NaN"));
            assert_eq!(csv.lines().count(), rows.len() + 1);
            assert!(csv.lines().all(|line| line.split(',').count() == 13));
        }
    }

    /// Two seeds at 5 and 7: 6 in the middle, and Student's half-width with one degree of freedom, 12.706 standard errors.
    #[test]
    fn the_band_is_the_interval_over_seeds() {
        let (one, two) = ([row(0.0, 5.0), row(60.0, 8.0)], [row(0.0, 7.0), row(60.0, 8.0), row(120.0, 1.0)]);
        let lines = lines_over_seeds(&[&one, &two], None);
        let [_, deployed, scratch] = &lines[..] else { panic!("{lines:?}") };
        // Kept is the mean of what the row was made with and that plus 2.
        assert_eq!((deployed.points.len(), deployed.points[0][1], deployed.points[1]), (2, 7.0, [1.0, 9.0, 0.0]));
        assert!((deployed.points[0][2] - 12.706).abs() < 1e-3 && scratch.points.is_empty());
    }
}
