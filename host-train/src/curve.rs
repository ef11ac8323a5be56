//! The learning curve of a run as an SVG picture.
//!
//! Drawn again at every evaluation and put in place atomically. Text stays text in the picture, so no font is needed
//! here. No panics; a column that is not known at some point leaves a gap there.

use crate::run::{ProgressRow, write_atomic};
use crate::{Error, Result};
use plotters::prelude::*;
use std::path::Path;

/// Draws `curve.svg`: the return of single samples with its interval, and of the greedy choice, over control steps.
pub fn write_curve(path: &Path, title: &str, greedy: &str, rows: &[ProgressRow]) -> Result<()> {
    let mut svg = String::new();
    draw(&mut svg, title, greedy, rows).map_err(|e| Error::failure(format!("cannot draw {} ({e})", path.display())))?;
    write_atomic(path, svg.as_bytes())
}

type DrawResult = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw(svg: &mut String, title: &str, greedy: &str, rows: &[ProgressRow]) -> DrawResult {
    const SINGLE: RGBColor = RGBColor(0, 90, 160);
    const BEST: RGBColor = RGBColor(213, 94, 0);
    let mean: Vec<_> = points(rows, |r| r.return_mean);
    let best: Vec<_> = points(rows, |r| r.return_best_of);
    let low = points(rows, |r| r.return_mean - r.return_ci95);
    let high = points(rows, |r| r.return_mean + r.return_ci95);

    let last = rows.iter().map(|r| r.timesteps).max().unwrap_or(0).max(1) as f64;
    let values = mean.iter().chain(&best).chain(&low).chain(&high).map(|p| p.1);
    let (bottom, top) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
    let (bottom, top) = if bottom <= top { (bottom, top) } else { (0.0, 1.0) };
    let room = 0.05 * (top - bottom).max(1.0);

    let area = SVGBackend::with_string(svg, (760, 440)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(14)
        .margin_right(36)
        .x_label_area_size(46)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..last, bottom - room..top + room)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .x_desc("control steps")
        .y_desc("return of an episode")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .draw()?;
    let band: Vec<_> = low.iter().chain(high.iter().rev()).copied().collect();
    if band.len() > 2 {
        chart.draw_series([Polygon::new(band, SINGLE.mix(0.15))])?;
    }
    for (series, colour, label) in
        [(mean, SINGLE, "single sample, 95 % interval".to_string()), (best, BEST, greedy.to_string())]
    {
        chart
            .draw_series(LineSeries::new(series.iter().copied(), colour.stroke_width(2)).point_size(3))?
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

/// A column over control steps, where it is known.
fn points(rows: &[ProgressRow], column: impl Fn(&ProgressRow) -> f64) -> Vec<(f64, f64)> {
    rows.iter().map(|row| (row.timesteps as f64, column(row))).filter(|point| point.1.is_finite()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(timesteps: u64, return_mean: f64) -> ProgressRow {
        ProgressRow {
            timesteps,
            decisions: timesteps / 4,
            updates: timesteps / 4,
            cpu_seconds: 0.25,
            train_return: f64::NAN,
            return_mean,
            return_ci95: 80.0 / (1.0 + timesteps as f64 / 4e3),
            return_best_of: return_mean + 40.0,
            critic_loss: 1.5e-3,
            actor_loss: 1.0,
            q_mean: -3.25,
            ess: 3.0,
            entropy: f64::NAN,
            temperature: 0.1,
            grad_norm: f64::INFINITY,
        }
    }

    #[test]
    fn a_curve_names_its_axes_and_both_series() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curve.svg");
        let rows: Vec<_> =
            (0..=12).map(|i| row(i * 1000, -1300.0 + 1150.0 * (1.0 - (-(i as f64) / 3.0).exp()))).collect();
        write_curve(&path, "pendulum, rfm, seed 1", "best of 16 by the critic", &rows).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        for word in
            ["control steps", "return of an episode", "best of 16", "single sample", "pendulum, rfm", "12000", "-1200"]
        {
            assert!(svg.contains(word), "{word} is not in the picture");
        }
        assert!(svg.matches("<polyline").count() >= 2);
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn few_points_or_unknown_ones_still_make_a_picture() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("curve.svg");
        for rows in [vec![], vec![row(0, 5.0)], vec![row(0, f64::NAN), row(10, f64::NAN)]] {
            write_curve(&path, "x", "best of 16", &rows).unwrap();
            let svg = std::fs::read_to_string(&path).unwrap();
            assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"));
        }
    }
}
