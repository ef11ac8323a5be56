//! What the comparison says: tables, the CSV file, the JSON object, and the claims about the default.
//!
//! An average over cells is the plain mean of their numbers, so hard cells weigh most; the ratio to the published rule
//! is that of the averages, and beside it stands the geometric mean of the cells' ratios. Pure text from measured cells;
//! no panics.

use super::contenders::{AUTO, AUTO_PARTICLES, CONTENDERS, PUBLISHED};
use super::grid::{Cell, Grid, Place, Score, TIMES};
use serde_json::{Value, json};
use std::fmt::Write;

/// The default may exceed the best fixed proposal by this factor.
const ALLOWANCE: f64 = 1.1;
/// Share of the velocity's mean square that the squared bias should stay below.
const BIAS_SHARE: f64 = 0.05;

/// Mean score of a contender over cells.
pub fn average<'a>(cells: impl Iterator<Item = &'a Cell>, contender: usize) -> Score {
    let mut sum = Score::default();
    let mut count = 0.0;
    for score in cells.map(|cell| cell.scores[contender]) {
        sum.mse += score.mse;
        sum.bias2 += score.bias2;
        sum.variance += score.variance;
        // Cells at one (d, lambda) share targets, so these are not independent; the straight mean is an upper bound.
        sum.stderr += score.stderr;
        count += 1.0;
    }
    Score { mse: sum.mse / count, bias2: sum.bias2 / count, variance: sum.variance / count, stderr: sum.stderr / count }
}

/// Geometric mean over cells of the published rule's error over a contender's: every cell counts alike.
fn geometric_ratio(cells: &[Cell], contender: usize) -> f64 {
    let logs = cells.iter().map(|cell| (cell.scores[PUBLISHED].mse / cell.scores[contender].mse).ln());
    (logs.sum::<f64>() / cells.len() as f64).exp()
}

/// Three significant digits, in few characters.
pub fn short(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        m if (0.001..0.01).contains(&m) => format!("{x:.5}"),
        m if (0.01..0.1).contains(&m) => format!("{x:.4}"),
        m if (0.1..1.0).contains(&m) => format!("{x:.3}"),
        m if (1.0..10.0).contains(&m) => format!("{x:.2}"),
        m if (10.0..100.0).contains(&m) => format!("{x:.1}"),
        m if (100.0..100_000.0).contains(&m) => format!("{x:.0}"),
        _ => format!("{x:.1e}"),
    }
}

/// The three tables.
pub fn tables(grid: &Grid, cells: &[Cell]) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = write_tables(&mut text, grid, cells);
    text
}

fn write_tables(text: &mut String, grid: &Grid, cells: &[Cell]) -> std::fmt::Result {
    let published = average(cells.iter(), PUBLISHED).mse;
    writeln!(text, "averaged over the {} cells:", cells.len())?;
    let heads = ["mse", "bias^2", "variance", "+- mse", "published / it", "geometric"];
    let [mse, bias2, variance, error, ratio, geometric] = heads;
    writeln!(text, "{:32}{mse:>10}{bias2:>10}{variance:>10}{error:>10}{ratio:>16}{geometric:>11}", "estimator")?;
    for (c, contender) in CONTENDERS.iter().enumerate() {
        let s = average(cells.iter(), c);
        let [mse, bias2, variance, error] = [s.mse, s.bias2, s.variance, s.stderr].map(short);
        let (ratio, geometric) = (short(published / s.mse), short(geometric_ratio(cells, c)));
        let name = contender.name;
        writeln!(text, "{name:32}{mse:>10}{bias2:>10}{variance:>10}{error:>10}{ratio:>16}{geometric:>11}")?;
    }
    writeln!(text, "\nmean squared error per t:")?;
    write!(text, "{:32}", "estimator")?;
    TIMES.iter().try_for_each(|t| write!(text, "{t:>9}"))?;
    writeln!(text)?;
    for (c, contender) in CONTENDERS.iter().enumerate() {
        write!(text, "{:32}", contender.name)?;
        for t in TIMES {
            write!(text, "{:>9}", short(average(cells.iter().filter(|cell| cell.place.t == t), c).mse))?;
        }
        writeln!(text)?;
    }
    writeln!(text, "\naveraged over t; \"fixed\" is the best fixed proposal with eta=0:")?;
    writeln!(
        text,
        "{:>3}{:>8}{:>5}{:>11}{:>9}{:>16}{:>10}{:>20}{:>9}{:>12}{:>24}",
        "d",
        "lambda",
        "K",
        "published",
        "auto",
        "auto+particles",
        "pub/auto",
        "pub/auto+particles",
        "fixed",
        "auto/fixed",
        "worst auto/fixed, at t"
    )?;
    for group in Group::all(grid, cells) {
        let [published, auto, with] = [PUBLISHED, AUTO, AUTO_PARTICLES].map(|c| average(group.cells.iter(), c).mse);
        let fixed = group.best_fixed();
        let (worst, at) = group.worst();
        writeln!(
            text,
            "{:>3}{:>8}{:>5}{:>11}{:>9}{:>16}{:>10}{:>20}{:>9}{:>12}{:>18}, {:>4}",
            group.place.dim,
            group.place.lambda,
            group.place.samples,
            short(published),
            short(auto),
            short(with),
            short(published / auto),
            short(published / with),
            short(fixed),
            short(auto / fixed),
            short(worst),
            at
        )?;
    }
    Ok(())
}

/// The cells of one (d, lambda, K), over t.
struct Group<'a> {
    place: Place,
    cells: &'a [Cell],
}

impl<'a> Group<'a> {
    /// All of them, in the order of the cells, which holds the times of a group together.
    fn all(grid: &Grid, cells: &'a [Cell]) -> impl Iterator<Item = Group<'a>> {
        let count = grid.dims.len() * grid.lambdas.len() * grid.samples.len();
        cells.chunks_exact(TIMES.len()).take(count).map(|cells| Group { place: cells[0].place, cells })
    }

    fn mse(&self, contender: usize) -> f64 {
        average(self.cells.iter(), contender).mse
    }

    /// Least error, averaged over t, of a fixed proposal with eta=0.
    fn best_fixed(&self) -> f64 {
        let fixed = (0..CONTENDERS.len()).filter(|c| CONTENDERS[*c].fixed);
        fixed.map(|c| self.mse(c)).fold(f64::INFINITY, f64::min)
    }

    /// The largest ratio to the best fixed proposal of a single t, and that t.
    fn worst(&self) -> (f64, f32) {
        let ratios = self.cells.iter().map(|cell| (cell.against_fixed.ratio, cell.place.t));
        ratios.fold((0.0, 0.0), |worst, next| if next.0 > worst.0 { next } else { worst })
    }
}

/// The CSV file: a line for a cell and contender.
pub fn csv(cells: &[Cell]) -> String {
    let mut text = String::from("estimator,t,d,lambda,samples,mse,bias2,variance,stderr,velocity2\n");
    for cell in cells {
        let Place { t, dim, lambda, samples } = cell.place;
        for (contender, s) in CONTENDERS.iter().zip(&cell.scores) {
            let Score { mse, bias2, variance, stderr } = s;
            let (name, velocity2) = (contender.name, cell.velocity2);
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{name},{t},{dim},{lambda},{samples},{mse:e},{bias2:e},{variance:e},{stderr:e},{velocity2:e}"
            );
        }
    }
    text
}

/// `summary`, `cells` and `claims` of the JSON object.
pub fn object(grid: &Grid, cells: &[Cell]) -> Value {
    let summary: Vec<Value> = (0..CONTENDERS.len())
        .map(|c| {
            let s = average(cells.iter(), c);
            json!({
                "estimator": CONTENDERS[c].name,
                "mse": s.mse,
                "bias2": s.bias2,
                "variance": s.variance,
            })
        })
        .collect();
    let mut rows = Vec::with_capacity(cells.len() * CONTENDERS.len());
    for cell in cells {
        for (contender, s) in CONTENDERS.iter().zip(&cell.scores) {
            rows.push(json!({
                "estimator": contender.name,
                "t": time(cell.place.t),
                "d": cell.place.dim,
                "lambda": cell.place.lambda,
                "samples": cell.place.samples,
                "mse": s.mse,
                "bias2": s.bias2,
                "variance": s.variance,
                "stderr": s.stderr,
                "velocity2": cell.velocity2,
            }));
        }
    }
    let claims: Vec<Value> = claims(grid, cells)
        .iter()
        .map(|c| {
            json!({
                "claim": c.claim,
                "promised": c.promised,
                "reached": c.reached,
                "value": c.value,
                "bound": c.bound,
                "note": c.note,
            })
        })
        .collect();
    json!({ "summary": summary, "cells": rows, "claims": claims })
}

/// A time as people write it: the f32 0.02 is 0.02, not 0.0199999995529652.
fn time(t: f32) -> f64 {
    t.to_string().parse().unwrap_or(f64::from(t))
}

/// A claim about the default, held against the cells.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// What is claimed.
    pub claim: String,
    /// Whether it is promised of the default, or only told beside what is.
    pub promised: bool,
    /// Whether it holds on the cells asked for; nothing when they do not tell.
    pub reached: Option<bool>,
    /// The number it is about, and the bound on it.
    pub value: f64,
    /// The bound.
    pub bound: f64,
    /// Where, and how far.
    pub note: String,
}

impl Claim {
    fn new(claim: impl Into<String>, bound: f64, found: Option<(f64, bool, String)>) -> Self {
        let claim = claim.into();
        match found {
            Some((value, reached, note)) => Self { claim, promised: true, reached: Some(reached), value, bound, note },
            None => Self {
                claim,
                promised: true,
                reached: None,
                value: f64::NAN,
                bound,
                note: "no such cell was asked for".into(),
            },
        }
    }
}

/// The claims as lines.
pub fn verdict(grid: &Grid, cells: &[Cell]) -> String {
    let mut text = String::from("claims, on the cells asked for:");
    for claim in claims(grid, cells) {
        let word = match claim.reached {
            Some(_) if !claim.promised => "not claimed",
            Some(true) => "reached",
            Some(false) => "NOT reached",
            None => "not asked",
        };
        // Writing to a string does not fail.
        let _ = write!(text, "\n  {word:11}  {}: {}", claim.claim, claim.note);
    }
    text
}

/// All claims.
pub fn claims(grid: &Grid, cells: &[Cell]) -> Vec<Claim> {
    let groups: Vec<Group> = Group::all(grid, cells).collect();
    vec![
        factor(&groups, AUTO, 40.0),
        factor(&groups, AUTO_PARTICLES, 100.0),
        no_worse_in_a_cell(cells),
        no_worse_over_t(&groups),
        few_against_many(&groups),
        bias(cells, AUTO),
        Claim { promised: false, ..bias(cells, AUTO_PARTICLES) },
    ]
}

/// How far the default is below the published rule at d = 6, lambda = 0.02, K = 96.
fn factor(groups: &[Group], contender: usize, bound: f64) -> Claim {
    let at = |p: &Place| p.dim == 6 && p.lambda == 0.02 && p.samples == 96;
    let found = groups.iter().find(|g| at(&g.place)).map(|group| {
        let (published, own) = (group.mse(PUBLISHED), group.mse(contender));
        let ratio = published / own;
        (ratio, ratio >= bound, format!("{} times ({} against {})", short(ratio), short(own), short(published)))
    });
    let name = CONTENDERS[contender].name;
    let claim = format!("{name} at least {bound} times below published at d=6, lambda=0.02, K=96, averaged over t");
    Claim::new(claim, bound, found)
}

fn no_worse_in_a_cell(cells: &[Cell]) -> Claim {
    let worst = cells.iter().max_by(|a, b| a.against_fixed.ratio.total_cmp(&b.against_fixed.ratio));
    let found = worst.map(|cell| {
        let against = cell.against_fixed;
        let over = cells.iter().map(|c| c.against_fixed).filter(|a| a.ratio > ALLOWANCE);
        let surely = over.clone().filter(|a| a.ratio - 2.0 * a.stderr > ALLOWANCE).count();
        let note = format!(
            "worst {} +- {} at {}, against {}; {} of {} cells are over, {surely} by more than two standard errors",
            short(against.ratio),
            short(against.stderr),
            place(&cell.place),
            CONTENDERS[against.fixed].name,
            over.count(),
            cells.len()
        );
        (against.ratio, against.ratio <= ALLOWANCE, note)
    });
    Claim::new(
        format!("auto at most {ALLOWANCE} times the best fixed proposal with eta=0, in every cell (t, d, lambda, K)"),
        ALLOWANCE,
        found,
    )
}

fn no_worse_over_t(groups: &[Group]) -> Claim {
    let ratios = groups.iter().map(|g| (g.mse(AUTO) / g.best_fixed(), g));
    let found = ratios.clone().max_by(|a, b| a.0.total_cmp(&b.0)).map(|(ratio, group)| {
        let over = ratios.filter(|r| r.0 > ALLOWANCE).count();
        let Place { dim, lambda, samples, .. } = group.place;
        let note = format!(
            "worst {} at d={dim}, lambda={lambda}, K={samples}; {over} of {} are over",
            short(ratio),
            groups.len()
        );
        (ratio, ratio <= ALLOWANCE, note)
    });
    Claim::new(
        format!(
            "auto at most {ALLOWANCE} times the best fixed proposal with eta=0, averaged over t, at every (d, lambda, K)"
        ),
        ALLOWANCE,
        found,
    )
}

/// The default with 16 evaluations against the published rule with 512.
fn few_against_many(groups: &[Group]) -> Claim {
    let find = |lambda: f64, samples: usize| {
        let at = |p: &Place| p.dim == 6 && p.lambda == lambda && p.samples == samples;
        groups.iter().find(|g| at(&g.place))
    };
    let mut worst: Option<(f64, f64)> = None;
    let mut above = 0;
    for few in groups.iter().filter(|g| g.place.dim == 6 && g.place.samples == 16) {
        let Some(many) = find(few.place.lambda, 512) else { continue };
        let ratio = few.mse(AUTO) / many.mse(PUBLISHED);
        above += usize::from(ratio >= 1.0);
        if worst.is_none_or(|w| ratio > w.0) {
            worst = Some((ratio, few.place.lambda));
        }
    }
    let found = worst.map(|(ratio, lambda)| {
        let note = format!("worst {} times it, at lambda={lambda}; {above} temperatures are above", short(ratio));
        (ratio, above == 0, note)
    });
    Claim::new("auto with K=16 below published with K=512 at d=6, averaged over t, at every lambda", 1.0, found)
}

/// Squared bias as a share of the velocity's mean square.
fn bias(cells: &[Cell], contender: usize) -> Claim {
    let covered = |p: &Place| p.t >= 0.05 && p.dim <= 6 && p.lambda >= 0.02 && p.samples >= 32;
    let shares = cells.iter().filter(|c| covered(&c.place)).map(|c| (c.scores[contender].bias2 / c.velocity2, c));
    let found = shares.clone().max_by(|a, b| a.0.total_cmp(&b.0)).map(|(share, cell)| {
        let (over, count) = (shares.clone().filter(|s| s.0 >= BIAS_SHARE).count(), shares.count());
        let percent = short(100.0 * share);
        let note = format!("worst {percent} % at {}; {over} of {count} cells are over", place(&cell.place));
        (share, share < BIAS_SHARE, note)
    });
    let name = CONTENDERS[contender].name;
    Claim::new(
        format!("{name} with bias^2 under 5 % of E|v*|^2 for t >= 0.05, d <= 6, lambda >= 0.02, K >= 32"),
        BIAS_SHARE,
        found,
    )
}

fn place(p: &Place) -> String {
    format!("t={}, d={}, lambda={}, K={}", p.t, p.dim, p.lambda, p.samples)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::grid::AgainstFixed;

    /// Cells in which every contender errs by 100, but the default by `auto` and with particles by `with`.
    fn cells(grid: &Grid, auto: f64, with: f64) -> Vec<Cell> {
        let mut cells = Vec::new();
        for &dim in &grid.dims {
            for &lambda in &grid.lambdas {
                for &samples in &grid.samples {
                    for t in TIMES {
                        let mut scores =
                            [Score { mse: 100.0, bias2: 60.0, variance: 40.0, stderr: 1.0 }; CONTENDERS.len()];
                        scores[AUTO] = Score { mse: auto, bias2: 0.03, variance: auto - 0.03, stderr: 0.1 };
                        scores[AUTO_PARTICLES] = Score { mse: with, bias2: 0.09, ..scores[AUTO] };
                        let against_fixed = AgainstFixed { fixed: 1, ratio: auto / 100.0, stderr: 0.01 };
                        cells.push(Cell {
                            place: Place { t, dim, lambda, samples },
                            velocity2: 1.0,
                            scores,
                            against_fixed,
                        });
                    }
                }
            }
        }
        cells
    }

    fn reached(grid: &Grid, cells: &[Cell]) -> Vec<Option<bool>> {
        claims(grid, cells).iter().map(|c| c.reached).collect()
    }

    #[test]
    fn claims_are_judged_on_their_cells() {
        let (yes, no) = (Some(true), Some(false));
        let grid = Grid { dims: vec![6], lambdas: vec![0.2, 0.02], samples: vec![16, 96, 512], ..Grid::default() };
        // 50 and 80 times below, bias 3 % and 9 %.
        let mut all = cells(&grid, 2.0, 1.25);
        assert_eq!(reached(&grid, &all), [yes, no, yes, yes, yes, yes, no]);
        // The bias with particles is told, but nobody promised it.
        let text = verdict(&grid, &all);
        assert_eq!((text.matches("NOT reached").count(), text.matches("not claimed  auto+particles").count()), (1, 1));
        // One cell over the allowance: the average over t hides it.
        let i = all.iter().position(|c| c.place.t == 0.5 && c.place.samples == 96).unwrap();
        all[i].scores[AUTO].mse = 120.0;
        all[i].against_fixed.ratio = 1.2;
        assert_eq!(reached(&grid, &all)[2..4], [no, yes]);
        assert!(
            verdict(&grid, &all).contains("worst 1.20 +- 0.0100 at t=0.5, d=6, lambda=0.2, K=96, against bridge eta=0")
        );
        // Sixteen evaluations above the published rule's 512 at one temperature.
        let mut all = cells(&grid, 2.0, 1.0);
        let few = |c: &&mut Cell| c.place.samples == 16 && c.place.lambda == 0.02;
        all.iter_mut().filter(few).for_each(|c| c.scores[AUTO].mse = 101.0);
        assert_eq!(reached(&grid, &all)[4], no);
        // Bias where it does not count, and where it does.
        let mut all = cells(&grid, 2.0, 1.0);
        let mut late = |t: f32, bias2: f64| {
            all.iter_mut().filter(|c| c.place.t == t).for_each(|c| c.scores[AUTO].bias2 = bias2);
            reached(&grid, &all)[5]
        };
        assert_eq!((late(0.02, 0.5), late(0.05, 0.5)), (yes, no));
    }

    #[test]
    fn what_was_not_asked_is_not_judged() {
        let grid = Grid { dims: vec![12], lambdas: vec![1.0], samples: vec![8], ..Grid::default() };
        let all = cells(&grid, 2.0, 1.0);
        assert_eq!(reached(&grid, &all), [None, None, Some(true), Some(true), None, None, None]);
        assert!(verdict(&grid, &all).contains("not asked"));
        assert!(object(&grid, &all)["claims"][0]["value"].is_null());
    }

    #[test]
    fn tables_and_csv_have_a_line_for_everything() {
        let grid = Grid { dims: vec![1, 6], lambdas: vec![0.2], samples: vec![16, 96], ..Grid::default() };
        let all = cells(&grid, 2.0, 1.25);
        let text = tables(&grid, &all);
        // Two tables of contenders, one of groups; a heading and a title each, and two empty lines.
        assert_eq!(text.lines().count(), 2 * CONTENDERS.len() + 4 + 3 * 2 + 2);
        let words = |l: &str| l.split_whitespace().map(String::from).collect::<Vec<_>>();
        let auto = text.lines().find(|l| l.starts_with("auto ")).map(words).unwrap();
        assert_eq!(auto, ["auto", "2.00", "0.0300", "1.97", "0.100", "50.0", "50.0"]);
        let csv = csv(&all);
        assert_eq!(csv.lines().count(), 1 + 4 * 11 * CONTENDERS.len());
        let auto = csv.lines().find(|l| l.starts_with("auto,")).unwrap();
        assert_eq!(auto, "auto,0.02,1,0.2,16,2e0,3e-2,1.97e0,1e-1,1e0");
    }

    #[test]
    fn numbers_are_short() {
        for (x, wanted) in [
            (0.0, "0"),
            (1.2345e-5, "1.2e-5"),
            (0.0012345, "0.00123"),
            (0.123456, "0.123"),
            (12.345, "12.3"),
            (-1234.5, "-1234"),
            (1.5e6, "1.5e6"),
        ] {
            assert_eq!(short(x), wanted);
        }
    }
}
