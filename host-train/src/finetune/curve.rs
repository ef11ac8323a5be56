//! The curve of a fine-tuning over robot time: `progress.csv` and `curve.svg`.
//!
//! Both are written beside their place and renamed. No panics; what is not known leaves a gap.

use super::Row;
use crate::run::write_atomic;
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

/// Draws the returns of the kept and the acting policy over robot time, and that of a policy from scratch as a line.
pub fn write_curve(path: &Path, title: &str, rows: &[Row], scratch: Option<f64>) -> Result<()> {
    let mut svg = String::new();
    draw(&mut svg, title, rows, scratch)
        .map_err(|e| Error::failure(format!("cannot draw {} ({e})", path.display())))?;
    write_atomic(path, svg.as_bytes())
}

fn draw(
    svg: &mut String,
    title: &str,
    rows: &[Row],
    scratch: Option<f64>,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    const KEPT: RGBColor = RGBColor(0, 90, 160);
    const ACTING: RGBColor = RGBColor(213, 94, 0);
    const SCRATCH: RGBColor = RGBColor(90, 90, 90);
    let points = |of: fn(&Row) -> f64| -> Vec<(f64, f64)> {
        rows.iter().map(|row| (row.seconds / 60.0, of(row))).filter(|point| point.1.is_finite()).collect()
    };
    let (kept, acting) = (points(|row| row.kept.mean), points(|row| row.acting.mean));
    let end = rows.iter().map(|row| row.seconds / 60.0).fold(0.1, f64::max);
    let level: Vec<(f64, f64)> = scratch.iter().flat_map(|mean| [(0.0, *mean), (end, *mean)]).collect();
    let values = kept.iter().chain(&acting).chain(&level).map(|point| point.1);
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
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
    for (series, colour, label) in [
        (acting, ACTING, "the policy that learns"),
        (kept, KEPT, "the policy that is kept"),
        (level, SCRATCH, "trained from scratch"),
    ] {
        chart
            .draw_series(LineSeries::new(series, colour.stroke_width(2)))?
            .label(label)
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
    use crate::stats::Summary;
    use flowlet::finetune::{Report as Update, guard, session};

    #[test]
    fn a_curve_names_its_axes_and_leaves_gaps() {
        let dir = tempfile::tempdir().unwrap();
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
        let row = |seconds: f64, mean: f64| Row {
            seconds,
            training: f64::NAN,
            acting: Summary::of(&[mean, f64::NAN]),
            kept: Summary::of(&[mean, mean + 2.0]),
            report,
        };
        for rows in [vec![], vec![row(0.0, 5.0)], vec![row(0.0, 5.0), row(60.0, 7.0), row(120.0, f64::NAN)]] {
            let (svg, csv) = (dir.path().join("curve.svg"), dir.path().join("progress.csv"));
            write_curve(&svg, "furuta, adam", &rows, Some(9.0)).unwrap();
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
}
