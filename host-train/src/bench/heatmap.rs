//! The comparison as pictures: how many powers of ten one estimator's error lies below another's.
//!
//! A panel a dimension (across) and temperature (down); in it t runs across and K down. Blue is better, orange worse,
//! white equal; every field holds its number. Text stays text in the SVG, so no font is needed here. No panics.

use super::grid::{Cell, Grid, TIMES};
use crate::run::write_atomic;
use crate::{Error, Result};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::path::Path;

/// Width and height of a field.
const FIELD: (i32, i32) = (26, 16);
/// Space left of a panel's fields (labels of K) and above them (its title).
const PANEL_LEFT: i32 = 40;
const PANEL_TOP: i32 = 22;
/// Space below a panel's fields, for the labels of t, and right of them.
const PANEL_BOTTOM: i32 = 20;
const PANEL_RIGHT: i32 = 14;
/// Space above all panels.
const HEAD: i32 = 64;
const BETTER: RGBColor = RGBColor(0, 90, 160);
const WORSE: RGBColor = RGBColor(213, 94, 0);
/// Power of ten at which a colour is full.
const FULL: f64 = 3.0;

/// Draws `ratio` of every cell: the other error over ours, so that more than 1 is better.
pub fn write(path: &Path, title: &str, grid: &Grid, cells: &[Cell], ratio: impl Fn(&Cell) -> f64) -> Result<()> {
    let mut svg = String::new();
    draw(&mut svg, title, grid, cells, ratio)
        .map_err(|e| Error::failure(format!("cannot draw {} ({e})", path.display())))?;
    write_atomic(path, svg.as_bytes())
}

type DrawResult = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw(svg: &mut String, title: &str, grid: &Grid, cells: &[Cell], ratio: impl Fn(&Cell) -> f64) -> DrawResult {
    let (columns, rows) = (grid.dims.len() as i32, grid.lambdas.len() as i32);
    let panel_width = PANEL_LEFT + TIMES.len() as i32 * FIELD.0 + PANEL_RIGHT;
    let panel_height = PANEL_TOP + grid.samples.len() as i32 * FIELD.1 + PANEL_BOTTOM;
    // A single panel still has to leave room for the title.
    let width = (columns * panel_width + 10).max(720);
    let height = HEAD + rows * panel_height + 10;
    let area = SVGBackend::with_string(svg, (width as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let text = |size: i32, colour: RGBColor, h: HPos| {
        ("sans-serif", size).into_font().color(&colour).pos(Pos::new(h, VPos::Center))
    };
    area.draw(&Text::new(title.to_string(), (12, 20), text(17, BLACK, HPos::Left)))?;
    let legend =
        "log10 of that ratio of mean squared errors; t across, K down; blue: the second is better, orange: the first";
    area.draw(&Text::new(legend, (12, 44), text(13, BLACK, HPos::Left)))?;
    for cell in cells {
        let at = |found: Option<usize>| found.unwrap_or(0) as i32;
        let column = at(grid.dims.iter().position(|d| *d == cell.place.dim));
        let row = at(grid.lambdas.iter().position(|l| *l == cell.place.lambda));
        let across = at(TIMES.iter().position(|t| *t == cell.place.t));
        let down = at(grid.samples.iter().position(|k| *k == cell.place.samples));
        let left = 5 + column * panel_width + PANEL_LEFT;
        let top = HEAD + row * panel_height + PANEL_TOP;
        let (x, y) = (left + across * FIELD.0, top + down * FIELD.1);
        let (centre_x, centre_y) = (x + FIELD.0 / 2, y + FIELD.1 / 2);
        let value = ratio(cell).log10();
        let (colour, dark) = colour(value);
        area.draw(&Rectangle::new([(x, y), (x + FIELD.0 - 1, y + FIELD.1 - 1)], colour.filled()))?;
        let ink = if dark { WHITE } else { BLACK };
        // Not a negative zero.
        let shown = format!("{:.1}", (value * 10.0).round() / 10.0 + 0.0);
        area.draw(&Text::new(shown, (centre_x, centre_y), text(10, ink, HPos::Center)))?;
        if across == 0 {
            let label = cell.place.samples.to_string();
            area.draw(&Text::new(label, (left - 5, centre_y), text(11, BLACK, HPos::Right)))?;
        }
        if down == 0 {
            let below = top + grid.samples.len() as i32 * FIELD.1 + 7;
            area.draw(&Text::new(cell.place.t.to_string(), (centre_x, below), text(10, BLACK, HPos::Center)))?;
            if across == 0 {
                let name = format!("d={}, lambda={}", cell.place.dim, cell.place.lambda);
                area.draw(&Text::new(name, (left, top - 10), text(12, BLACK, HPos::Left)))?;
            }
        }
    }
    area.present()?;
    Ok(())
}

/// The colour of a power of ten, and whether it is dark. What is not a number is grey.
fn colour(value: f64) -> (RGBColor, bool) {
    if value.is_nan() {
        return (RGBColor(200, 200, 200), false);
    }
    let full = if value >= 0.0 { BETTER } else { WORSE };
    let share = (value.abs() / FULL).min(1.0);
    let mix = |c: u8| (255.0 + share * (f64::from(c) - 255.0)).round() as u8;
    (RGBColor(mix(full.0), mix(full.1), mix(full.2)), share > 0.6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::contenders::CONTENDERS;
    use crate::bench::grid::{AgainstFixed, Place, Score};

    #[test]
    fn every_field_and_label_is_there() {
        let grid = Grid { dims: vec![1, 6], lambdas: vec![0.2, 0.02], samples: vec![8, 96], ..Grid::default() };
        let mut cells = Vec::new();
        for (dim, lambda) in [(1, 0.2), (1, 0.02), (6, 0.2), (6, 0.02)] {
            for samples in [8, 96] {
                for t in TIMES {
                    cells.push(Cell {
                        place: Place { t, dim, lambda, samples },
                        velocity2: 1.0,
                        scores: [Score::default(); CONTENDERS.len()],
                        against_fixed: AgainstFixed { fixed: 0, ratio: 1.0, stderr: 0.0 },
                    });
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("map.svg");
        write(&path, "one over the other", &grid, &cells, |c| if c.place.t < 0.5 { 1000.0 } else { 0.1 }).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        for word in ["one over the other", "d=6, lambda=0.02", "96", "0.98", "3.0", "-1.0"] {
            assert!(svg.contains(word), "{word} is not in the picture");
        }
        // The background and a field a cell.
        assert_eq!(svg.matches("<rect").count(), 1 + cells.len());
        assert_eq!(svg.matches("#005AA0").count(), cells.len() * 5 / 11);
    }

    #[test]
    fn colours_run_from_orange_over_white_to_blue() {
        assert_eq!(colour(0.0).0, RGBColor(255, 255, 255));
        assert_eq!((colour(4.0), colour(-4.0)), ((BETTER, true), (WORSE, true)));
        assert_eq!(colour(f64::NAN), (RGBColor(200, 200, 200), false));
    }
}
