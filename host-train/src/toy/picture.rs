//! The picture of a toy: its density beside the samples of each method, as one small SVG.
//!
//! Dots of a panel are one path of zero-length strokes with round caps, and the density is runs of grey cells, so that
//! a picture stays below 100 kB. Text stays text. Pure; no panics.

use super::energy::Toy;
use std::fmt::Write;

/// Side of a panel and the room around it, in pixels.
const SIDE: usize = 260;
const GAP: usize = 12;
const HEAD: usize = 44;
/// The plane is shown on a square of this half width.
const HALF: f32 = 2.5;
/// Cells of the density a side, and its shades of grey.
const CELLS: usize = 104;
const SHADES: usize = 6;
/// Dots of a panel.
const DOTS: usize = 1500;

/// One panel of samples.
#[derive(Clone, Copy, Debug)]
pub struct Panel<'a> {
    /// What stands over it.
    pub title: &'a str,
    /// A second line.
    pub subtitle: &'a str,
    /// Samples, `n x 2`.
    pub samples: &'a [f32],
}

/// Draws the density of `toy` and the panels from left to right.
pub fn draw(toy: Toy, panels: &[Panel<'_>]) -> String {
    let count = panels.len() + 1;
    let (width, height) = (count * (SIDE + GAP) + GAP, HEAD + SIDE + GAP);
    let mut svg = String::new();
    // Writing into a String cannot fail.
    let _ = writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="sans-serif" fill="none">
<rect width="{width}" height="{height}" fill="#ffffff"/>"##
    );
    open_panel(&mut svg, 0, toy.name(), "density, known up to a factor");
    density(&mut svg, toy);
    svg.push_str("</g>\n");
    for (i, panel) in panels.iter().enumerate() {
        open_panel(&mut svg, i + 1, panel.title, panel.subtitle);
        dots(&mut svg, panel.samples);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

/// Title, frame and coordinate system of the panel at a place; the group is left open.
fn open_panel(svg: &mut String, place: usize, title: &str, subtitle: &str) {
    let x = GAP + place * (SIDE + GAP);
    let _ = writeln!(
        svg,
        r##"<g transform="translate({x} {HEAD})"><text x="0" y="-24" font-size="15" fill="#222222">{title}</text><text x="0" y="-7" font-size="12" fill="#555555">{subtitle}</text><rect width="{SIDE}" height="{SIDE}" stroke="#999999"/>"##
    );
}

/// A point of the plane in a panel's pixels; none outside.
fn pixel(x: [f32; 2]) -> Option<[f32; 2]> {
    let [u, v] = [x[0], -x[1]].map(|c| (c / HALF + 1.0) * 0.5 * SIDE as f32);
    let inside = |c: f32| (1.0..SIDE as f32 - 1.0).contains(&c);
    (inside(u) && inside(v)).then_some([u, v])
}

fn density(svg: &mut String, toy: Toy) {
    let cell = |column: usize, row: usize| {
        let [x, y] = [column, CELLS - 1 - row].map(|c| ((c as f32 + 0.5) / CELLS as f32 * 2.0 - 1.0) * HALF);
        toy.log_density([x, y])
    };
    let all = (0..CELLS * CELLS).map(|i| cell(i % CELLS, i / CELLS));
    let highest = all.fold(f32::NEG_INFINITY, f32::max);
    let shade = |column, row| ((cell(column, row) - highest).exp() * SHADES as f32).ceil() as usize;
    let size = SIDE as f32 / CELLS as f32;
    // The lightest shade begins at 2 % of the highest density.
    let shade = |column, row| if cell(column, row) - highest < -4.0 { 0 } else { shade(column, row) };
    for level in 1..=SHADES {
        let mut path = String::new();
        for row in 0..CELLS {
            let mut column = 0;
            while column < CELLS {
                let start = column;
                while column < CELLS && shade(column, row) == level {
                    column += 1;
                }
                if column > start {
                    let (x, y) = (start as f32 * size, (row as f32 + 0.5) * size);
                    let _ = write!(path, "M{x:.1} {y:.2}h{:.1}", (column - start) as f32 * size);
                } else {
                    column += 1;
                }
            }
        }
        let grey = 225 - 185 * (level - 1) / (SHADES - 1);
        let _ = writeln!(svg, r##"<path d="{path}" stroke="rgb({grey},{grey},{grey})" stroke-width="{size:.2}"/>"##);
    }
}

fn dots(svg: &mut String, samples: &[f32]) {
    let mut path = String::new();
    for [u, v] in samples.chunks_exact(2).take(DOTS).filter_map(|x| pixel([x[0], x[1]])) {
        let _ = write!(path, "M{u:.1} {v:.1}h0");
    }
    let _ = writeln!(
        svg,
        r##"<path d="{path}" stroke="#005aa0" stroke-opacity="0.55" stroke-width="2.2" stroke-linecap="round"/>"##
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::Noise;
    use crate::toy::energy::Grid;

    #[test]
    fn a_picture_has_its_panels_and_stays_small() {
        for toy in Toy::ALL {
            let samples = Grid::new(toy).sample(3000, &mut Noise::new(1, 0));
            let panel = Panel { title: "rfm", subtitle: "20 steps", samples: &samples };
            let svg = draw(toy, &[panel; 3]);
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
            assert_eq!(svg.matches("<g ").count(), 4);
            assert_eq!(svg.matches("20 steps").count(), 3);
            assert!(svg.contains(toy.name()) && !svg.contains("NaN") && !svg.contains("inf"));
            // Dots of three panels inside the frame: nearly all of them.
            assert!(svg.matches("h0").count() > 3 * DOTS * 9 / 10);
            assert!(svg.len() < 150_000, "{} bytes", svg.len());
        }
    }

    #[test]
    fn points_outside_the_frame_are_left_out() {
        assert_eq!(pixel([0.0, 0.0]), Some([130.0, 130.0]));
        assert!(pixel([2.6, 0.0]).is_none() && pixel([0.0, f32::NAN]).is_none());
    }
}
