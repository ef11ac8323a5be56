//! Learning curves as a picture: SVG, or PNG rendered from the same SVG.
//!
//! One panel for each environment, one colour for each algorithm through all of them, bands of 95 % over seeds, a legend
//! above. The colours are those of Okabe and Ito, which most kinds of colour blindness tell apart; after seven the lines
//! are dashed. In the SVG text stays text; the PNG brings its own font (DejaVu Sans), so that a machine without any
//! draws the same picture. No panics. A picture of four panels takes a few milliseconds, its PNG half a second.

use super::curves::{Axis, Centre, Metric, Point, curve};
use super::group::Group;
use crate::{Error, Result};
use plotters::coord::Shift;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use resvg::tiny_skia::{self, Pixmap};
use resvg::usvg;
use std::collections::BTreeSet;

/// What is drawn, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// The return that is drawn.
    pub metric: Metric,
    /// Along what.
    pub axis: Axis,
    /// The middle of the seeds.
    pub centre: Centre,
}

/// Blue, vermilion, green, purple, orange, sky blue, black.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

const INK: RGBColor = RGBColor(34, 34, 34);

/// Pixels of a panel, alone and beside others; of the head above all panels, and of a row of the legend.
const ALONE: (u32, u32) = (780, 460);
const BESIDE: (u32, u32) = (540, 360);
const HEAD: u32 = 34;
const ROW: u32 = 22;
/// Margin of the whole, and the sample of a line in the legend.
const MARGIN: u32 = 16;
const SAMPLE: u32 = 26;

/// Pixels of the PNG for each of the SVG.
const PNG_SCALE: f32 = 2.0;

type DrawResult = std::result::Result<(), Box<dyn std::error::Error>>;

/// Draws the groups as SVG.
pub fn svg(groups: &[Group], style: Style) -> Result<String> {
    let failed = |e: Box<dyn std::error::Error>| Error::failure(format!("cannot draw the learning curves ({e})"));
    let panels = panels(groups, style);
    if panels.iter().all(|panel| panel.curves.iter().all(|(_, points)| points.is_empty())) {
        return Err(Error::usage(format!(
            "no run knows the {}: choose another with --metric, or train further",
            metric_name(style.metric)
        )));
    }
    let mut text = String::new();
    draw(&mut text, &panels, style).map_err(failed)?;
    Ok(text)
}

/// Renders an SVG as PNG, twice as large.
pub fn png(svg: &str) -> Result<Vec<u8>> {
    pixels(svg, PNG_SCALE)?.encode_png().map_err(|e| unrendered(&e))
}

/// Renders an SVG, so many times as large.
pub fn pixels(svg: &str, scale: f32) -> Result<Pixmap> {
    let mut options = usvg::Options { font_family: "DejaVu Sans".into(), ..usvg::Options::default() };
    let fonts = options.fontdb_mut();
    fonts.load_font_data(dejavu::sans::regular().to_vec());
    fonts.set_sans_serif_family("DejaVu Sans");
    let tree = usvg::Tree::from_str(svg, &options).map_err(|e| unrendered(&e))?;
    let size = tree.size().to_int_size().scale_by(scale).ok_or_else(|| unrendered(&"it has no size"))?;
    let pixels = Pixmap::new(size.width(), size.height());
    let mut pixels = pixels.ok_or_else(|| unrendered(&"it is too large"))?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut pixels.as_mut());
    Ok(pixels)
}

fn unrendered(what: &dyn std::fmt::Display) -> Error {
    Error::failure(format!("cannot render the picture as PNG ({what}): write another kind of file instead"))
}

/// One environment.
struct Panel {
    title: String,
    /// Number of the series, and its points.
    curves: Vec<(usize, Vec<Point>)>,
    names: Vec<String>,
}

/// The panels, each with the names of all series.
fn panels(groups: &[Group], style: Style) -> Vec<Panel> {
    let mut names: Vec<String> = Vec::new();
    let mut panels: Vec<(String, BTreeSet<usize>, Panel)> = Vec::new();
    for group in groups {
        let name = group.name();
        let series = names.iter().position(|known| *known == name).unwrap_or_else(|| {
            names.push(name);
            names.len() - 1
        });
        if panels.last().is_none_or(|(env, ..)| *env != group.env) {
            let panel = Panel { title: String::new(), curves: Vec::new(), names: Vec::new() };
            panels.push((group.env.clone(), BTreeSet::new(), panel));
        }
        if let Some((_, seeds, panel)) = panels.last_mut() {
            seeds.insert(group.runs.len());
            panel.curves.push((series, curve(&group.runs, style.metric, style.axis, style.centre)));
        }
    }
    let titled = |(env, seeds, panel): (String, BTreeSet<usize>, Panel)| {
        let seeds = match (seeds.first(), seeds.last()) {
            (Some(1), Some(1)) => "1 seed".into(),
            (Some(few), Some(many)) if few < many => format!("{few} to {many} seeds"),
            (_, many) => format!("{} seeds", many.unwrap_or(&0)),
        };
        Panel { title: format!("{env}, {seeds}"), names: names.clone(), ..panel }
    };
    panels.into_iter().map(titled).collect()
}

fn metric_name(metric: Metric) -> &'static str {
    match metric {
        Metric::Single => "return of an episode, single samples",
        Metric::Greedy => "return of an episode, greedy choice",
        Metric::Train => "return of training episodes",
    }
}

/// The colour of a series, and whether it is dashed.
fn pen(series: usize) -> (RGBColor, bool) {
    (COLOURS[series % COLOURS.len()], series / COLOURS.len() % 2 == 1)
}

/// Width of a text in pixels, rather too large: no font is at hand while the SVG is drawn.
fn text_width(text: &str, size: u32) -> u32 {
    text.chars().count() as u32 * size * 3 / 5
}

/// The places of the legend's entries within a width, and its number of rows.
fn legend(names: &[String], width: u32) -> (Vec<(u32, u32)>, u32) {
    let (mut x, mut row) = (0, 0);
    let mut places = Vec::with_capacity(names.len());
    for name in names {
        let needs = SAMPLE + 8 + text_width(name, 13) + 22;
        if x > 0 && x + needs > width {
            (x, row) = (0, row + 1);
        }
        places.push((x, row));
        x += needs;
    }
    (places, row + 1)
}

fn draw(svg: &mut String, panels: &[Panel], style: Style) -> DrawResult {
    let columns = match panels.len() {
        0 | 1 => 1,
        2..=4 => 2,
        _ => 3,
    };
    let rows = panels.len().div_ceil(columns).max(1);
    let (width, height) = if panels.len() > 1 { BESIDE } else { ALONE };
    let names = panels.first().map_or(&[][..], |panel| &panel.names);
    let whole = columns as u32 * width + 2 * MARGIN;
    let (places, legend_rows) = legend(names, whole - 2 * MARGIN - 10);
    let head = HEAD + legend_rows * ROW + 8;
    let area = SVGBackend::with_string(svg, (whole, head + rows as u32 * height + MARGIN)).into_drawing_area();
    area.fill(&WHITE)?;
    let (above, below) = area.split_vertically(head);
    let middle = if style.centre == Centre::Iqm { "interquartile mean" } else { "mean" };
    let title = format!("{}: {middle} over seeds, 95 % bootstrap interval", metric_name(style.metric));
    above.draw(&Text::new(title, (MARGIN as i32 + 10, 14), ("sans-serif", 15).into_font().color(&INK)))?;
    for ((series, name), (x, row)) in names.iter().enumerate().zip(places) {
        let (left, middle) = ((MARGIN + 10 + x) as i32, (HEAD + row * ROW + ROW / 2) as i32);
        stroke(&above, series, (left, middle), (left + SAMPLE as i32, middle))?;
        let font = ("sans-serif", 13).into_font().color(&INK);
        above.draw(&Text::new(name.clone(), (left + SAMPLE as i32 + 8, middle - 6), font))?;
    }
    let (_, below) = below.split_horizontally(MARGIN);
    for (panel, area) in panels.iter().zip(below.margin(0, MARGIN, 0, MARGIN).split_evenly((rows, columns))) {
        draw_panel(&area, panel, style)?;
    }
    area.present()?;
    Ok(())
}

/// A stroke of the legend in a series' colour.
fn stroke<B>(area: &DrawingArea<B, Shift>, series: usize, from: (i32, i32), to: (i32, i32)) -> DrawResult
where
    B: DrawingBackend,
    B::ErrorType: 'static,
{
    let (colour, dashed) = pen(series);
    if dashed {
        area.draw(&DashedPathElement::new([from, to], 6, 4, colour.stroke_width(2)))?;
    } else {
        area.draw(&PathElement::new([from, to], colour.stroke_width(2)))?;
    }
    Ok(())
}

fn draw_panel(area: &DrawingArea<SVGBackend, Shift>, panel: &Panel, style: Style) -> DrawResult {
    let all = || panel.curves.iter().flat_map(|(_, points)| points);
    let span = |values: &mut dyn Iterator<Item = f64>| {
        let finite = values.filter(|v| v.is_finite());
        let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(v), b.max(v)));
        if low <= high { (low, high) } else { (0.0, 1.0) }
    };
    let (bottom, top) = span(&mut all().flat_map(|p| [p.centre, p.band.low, p.band.high]));
    let (_, last) = span(&mut all().map(|p| p.x));
    let last = if last > 0.0 { last } else { 1.0 };
    // A flat curve still gets a scale, one that a number of its size can be read from.
    let room = 0.05 * (top - bottom).max(1e-3 * top.abs().max(bottom.abs())).max(1e-9);
    let decimals = decimals(top - bottom + 2.0 * room);
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 15).into_font().color(&INK))
        .margin_right(22)
        .margin_bottom(6)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(0.0..last * 1.01, bottom - room..top + room)?;
    let (x_name, x_decimals) = match style.axis {
        Axis::Steps => ("control steps", 0),
        Axis::Cpu => ("CPU-seconds of training", self::decimals(last)),
    };
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.09))
        .axis_style(BLACK.mix(0.45))
        .x_labels(8)
        .y_labels(7)
        .x_desc(x_name)
        .y_desc("return")
        .x_label_formatter(&|x| if style.axis == Axis::Steps { thousands(*x) } else { short(*x, x_decimals) })
        .y_label_formatter(&|y| short(*y, decimals))
        .label_style(("sans-serif", 12).into_font().color(&INK))
        .axis_desc_style(("sans-serif", 13).into_font().color(&INK))
        .draw()?;
    // All bands below all lines: no line is tinted by another's band.
    for (series, points) in &panel.curves {
        let (colour, _) = pen(*series);
        for part in points.split(|p| !p.band.is_known()).filter(|part| part.len() > 1) {
            let low = part.iter().map(|p| (p.x, p.band.low));
            let high = part.iter().rev().map(|p| (p.x, p.band.high));
            chart.draw_series([Polygon::new(low.chain(high).collect::<Vec<_>>(), colour.mix(0.15))])?;
        }
    }
    for (series, points) in &panel.curves {
        let (colour, dashed) = pen(*series);
        let line: Vec<(f64, f64)> = points.iter().map(|p| (p.x, p.centre)).collect();
        if let [only] = line[..] {
            chart.draw_series([Circle::new(only, 3, colour.filled())])?;
        } else if dashed {
            chart.draw_series(DashedLineSeries::new(line, 6, 4, colour.stroke_width(2)))?;
        } else {
            chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
        }
    }
    Ok(())
}

/// Decimals that tell the marks of a scale of some length apart.
fn decimals(span: f64) -> usize {
    // About seven marks: they are a twentieth of the scale apart at the least.
    let digits = -(span / 20.0).log10().floor();
    digits.clamp(0.0, 9.0) as usize
}

/// A number without the zeros that say nothing.
fn short(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if text == "-0" { "0".into() } else { text.into() }
}

/// 0, 500, 20k, 1.5M.
fn thousands(x: f64) -> String {
    match x.abs() {
        size if size >= 1e6 => format!("{}M", short(x / 1e6, 2)),
        size if size >= 1e4 => format!("{}k", short(x / 1e3, 2)),
        _ => short(x, 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::{Fixture, progress};
    use crate::report::group::group;
    use crate::report::load::load;

    const STYLE: Style = Style { metric: Metric::Single, axis: Axis::Steps, centre: Centre::Mean };

    /// Environments x algorithms x seeds of curves that rise to different heights.
    fn groups(envs: &[&str], algos: &[&str], seeds: u64) -> Vec<Group> {
        let all = Fixture::new();
        for (e, env) in envs.iter().enumerate() {
            for (a, algo) in algos.iter().enumerate() {
                for seed in 1..=seeds {
                    let name = format!("{e}/{a}/seed-{seed}");
                    all.run(&name, env, algo, seed);
                    let wobble = |i: i32| 40.0 * f64::from((i * 7 + seed as i32 * 13 + a as i32 * 5) % 11 - 5);
                    let curve: Vec<(f64, f64, f64)> = (0..=20)
                        .map(|i| {
                            let rise = 1.0 - (-f64::from(i) / (3.0 + a as f64)).exp();
                            let top = 1000.0 - 90.0 * a as f64;
                            (f64::from(i) * 6000.0, 0.7 * f64::from(i), top * rise - 1200.0 + wobble(i))
                        })
                        .collect();
                    all.file(&format!("{name}/progress.csv"), &progress(&curve));
                }
            }
        }
        group(load(&[all.path("")]).unwrap().runs).0
    }

    #[test]
    fn a_picture_names_its_axes_environments_and_algorithms() {
        let text = svg(&groups(&["pendulum", "cartpole"], &["rfm", "sac"], 3), STYLE).unwrap();
        for word in
            ["control steps", "return of an episode", "pendulum, 3 seeds", "cartpole, 3 seeds", "rfm", "sac", "100k"]
        {
            assert!(text.contains(word), "{word} is not in the picture");
        }
        // A band for each curve, and its colour in both panels and the legend.
        assert_eq!(text.matches("<polygon").count(), 4);
        assert_eq!(text.matches("stroke=\"#0072B2\"").count(), 3);
        assert!(!text.contains("NaN") && !text.contains("inf"));
    }

    #[test]
    fn one_seed_one_point_and_many_algorithms_make_a_picture() {
        let one = svg(&groups(&["pendulum"], &["rfm"], 1), STYLE).unwrap();
        assert!(one.contains("pendulum, 1 seed") && !one.contains("<polygon"));
        let names: Vec<String> = (0..9).map(|i| format!("algorithm-{i}")).collect();
        let many = groups(&["pendulum"], &names.iter().map(String::as_str).collect::<Vec<_>>(), 2);
        let text = svg(&many, STYLE).unwrap();
        assert!(names.iter().all(|name| text.contains(name.as_str())));
        let mut point = groups(&["pendulum"], &["rfm"], 2);
        for run in &mut point[0].runs {
            run.rows.truncate(1);
        }
        assert!(svg(&point, STYLE).unwrap().contains("<circle"));
        let refusal = svg(&point, Style { metric: Metric::Train, ..STYLE }).unwrap_err().to_string();
        assert!(refusal.contains("return of training episodes") && refusal.contains("--metric"), "{refusal}");
    }

    #[test]
    fn png_has_the_curves_and_the_text() {
        let text = svg(&groups(&["pendulum"], &["rfm", "sac"], 3), STYLE).unwrap();
        let image = png(&text).unwrap();
        let pixels = resvg::tiny_skia::Pixmap::decode_png(&image).unwrap();
        assert_eq!(pixels.width(), 2 * (ALONE.0 + 2 * MARGIN));
        let count = |text: &str| {
            let image = resvg::tiny_skia::Pixmap::decode_png(&png(text).unwrap()).unwrap();
            let dark = |p: &&resvg::tiny_skia::PremultipliedColorU8| p.red() < 90 && p.green() < 90 && p.blue() < 90;
            image.pixels().iter().filter(dark).count()
        };
        let blue = pixels.pixels().iter().filter(|p| (p.red(), p.green(), p.blue()) == (0, 114, 178)).count();
        assert!(blue > 1000, "{blue} pixels of the first line");
        // Without its text the picture has hardly a dark pixel: the font was found.
        let silent: String = text
            .split("<text")
            .enumerate()
            .map(|(i, part)| match i {
                0 => part.to_string(),
                _ => part.split_once("</text>").map_or(String::new(), |(_, rest)| rest.to_string()),
            })
            .collect();
        assert!(count(&text) > 2000 + 2 * count(&silent), "{} against {}", count(&text), count(&silent));
    }

    #[test]
    fn scales_are_short_and_distinct() {
        let texts = [0.0, 500.0, 9999.0, 10_000.0, 20_000.0, 2500.5, 125_000.0, 1_500_000.0].map(thousands);
        assert_eq!(texts, ["0", "500", "9999", "10k", "20k", "2500.5", "125k", "1.5M"]);
        assert_eq!([2000.0, 19.0, 1.0, 0.5, 0.01].map(decimals), [0, 1, 2, 2, 4]);
        assert_eq!(
            [(-1200.0, 0), (-0.0001, 2), (2.0, 1), (2.5, 2)].map(|(x, d)| short(x, d)),
            ["-1200", "0", "2", "2.5"]
        );
        let (places, rows) = legend(&["a".into(), "b".into(), "c".repeat(60)], 300);
        assert_eq!((places[0], places[1].1, places[2], rows), ((0, 0), 0, (0, 1), 2));
    }
}
