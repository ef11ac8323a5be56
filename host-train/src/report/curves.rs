//! Learning curves over seeds: the mean or the interquartile mean along control steps or CPU time, with its interval.
//!
//! Runs need not be evaluated at the same places nor end together. A run counts between its first and its last point,
//! by linear interpolation; along CPU time a finished run goes on counting with its last value, since that policy is
//! what one has from then on. The curve ends where fewer than half of the runs are left. Pure; no panics.

use super::load::{Row, Run};
use crate::stats::{Bootstrap, Interval, interquartile_mean, mean};

/// What is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Metric {
    /// Return of single samples of the policy
    Single,
    /// Return of the greedy choice
    Greedy,
    /// Return of the training episodes
    Train,
}

/// Along what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Axis {
    /// Control steps
    Steps,
    /// CPU-seconds of training
    Cpu,
}

/// The middle of the seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Centre {
    /// Mean
    Mean,
    /// Interquartile mean
    Iqm,
}

/// A point of a curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Control steps or CPU-seconds.
    pub x: f64,
    /// Mean or interquartile mean of the seeds.
    pub centre: f64,
    /// Its 95 % bootstrap interval; not known of one seed.
    pub band: Interval,
}

/// Points of a curve at most: more than a picture shows.
const MOST_POINTS: usize = 120;

/// Resamples of a point: the ends of its band are known to a few percent of its width, less than a line is thick.
const RESAMPLES: usize = 1000;

/// The curve of one group.
pub fn curve(runs: &[Run], metric: Metric, axis: Axis, centre: Centre) -> Vec<Point> {
    let lines: Vec<Line> =
        runs.iter().map(|run| Line::of(run, metric, axis)).filter(|l| !l.points.is_empty()).collect();
    let grid = grid(&lines, axis);
    let end = lines.iter().filter_map(|line| line.points.last()).fold(f64::NEG_INFINITY, |end, p| end.max(p.0));
    let mut curve = Vec::with_capacity(grid.len());
    for x in grid {
        let values: Vec<f64> = lines.iter().filter_map(|line| line.at(x, axis, end)).collect();
        if 2 * values.len() < lines.len() || values.is_empty() {
            continue;
        }
        let bootstrap = Bootstrap { resamples: RESAMPLES, seed: 0 };
        let (centre, band) = match centre {
            Centre::Mean => (mean(&values), bootstrap.interval(&[&values], mean)),
            Centre::Iqm => (interquartile_mean(&values), bootstrap.interval(&[&values], interquartile_mean)),
        };
        curve.push(Point { x, centre, band });
    }
    curve
}

/// What single samples of a run's policy reached after so many CPU-seconds of its training: between the points of its
/// curve, after the end of a finished run its last one. NaN where that is not known.
pub fn single_at_cpu(run: &Run, seconds: f64) -> f64 {
    Line::of(run, Metric::Single, Axis::Cpu).at(seconds, Axis::Cpu, f64::INFINITY).unwrap_or(f64::NAN)
}

/// The known points of one run.
struct Line {
    points: Vec<(f64, f64)>,
    finished: bool,
}

impl Line {
    fn of(run: &Run, metric: Metric, axis: Axis) -> Self {
        let value = |row: &Row| match metric {
            Metric::Single => row.single,
            Metric::Greedy => row.greedy,
            Metric::Train => row.train,
        };
        let place = |row: &Row| match axis {
            Axis::Steps => row.timesteps,
            Axis::Cpu => row.cpu_seconds,
        };
        let mut points: Vec<(f64, f64)> = Vec::with_capacity(run.rows.len());
        for point in run.rows.iter().map(|row| (place(row), value(row))) {
            let rises = points.last().is_none_or(|last| point.0 > last.0);
            if rises && point.0.is_finite() && point.1.is_finite() {
                points.push(point);
            }
        }
        Self { points, finished: run.finished() }
    }

    /// Its value at a place; none where the run does not count.
    fn at(&self, x: f64, axis: Axis, end: f64) -> Option<f64> {
        let (first, last) = (self.points.first()?, self.points.last()?);
        if x < first.0 {
            return None;
        }
        if x >= last.0 {
            let goes_on = axis == Axis::Cpu && self.finished && x <= end;
            return (x == last.0 || goes_on).then_some(last.1);
        }
        let above = self.points.partition_point(|p| p.0 <= x);
        let (a, b) = (self.points[above - 1], self.points[above]);
        Some(a.1 + (b.1 - a.1) * (x - a.0) / (b.0 - a.0))
    }
}

/// The places at which the curve is drawn: where the runs were evaluated along control steps, evenly along CPU time.
fn grid(lines: &[Line], axis: Axis) -> Vec<f64> {
    let mut places: Vec<f64> = lines.iter().flat_map(|line| line.points.iter().map(|p| p.0)).collect();
    places.sort_unstable_by(f64::total_cmp);
    places.dedup();
    let (Some(&first), Some(&last)) = (places.first(), places.last()) else { return places };
    if axis == Axis::Steps && places.len() <= MOST_POINTS {
        return places;
    }
    let even = |i: usize| first + (last - first) * i as f64 / (MOST_POINTS - 1) as f64;
    // The last one exactly: a rounded one may lie beyond every run.
    (0..MOST_POINTS).map(|i| if i + 1 == MOST_POINTS { last } else { even(i) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture::{Fixture, progress};
    use crate::report::load::Run;

    /// Runs with the given points (control steps, CPU-seconds, return); `finished` says which have an evaluation.
    fn runs(curves: &[&[(f64, f64, f64)]], finished: &[bool]) -> Vec<Run> {
        let all = Fixture::new();
        let make = |(i, curve): (usize, &&[(f64, f64, f64)])| {
            let name = format!("r{i}");
            all.run(&name, "pendulum", "rfm", i as u64);
            all.file(&format!("{name}/progress.csv"), &progress(curve));
            if !finished[i] {
                std::fs::remove_file(all.path(&format!("{name}/evaluation.json"))).unwrap();
            }
            Run::load(&all.path(&name)).unwrap()
        };
        curves.iter().enumerate().map(make).collect()
    }

    fn centres(curve: &[Point]) -> Vec<(f64, f64)> {
        curve.iter().map(|p| (p.x, p.centre)).collect()
    }

    #[test]
    fn runs_at_the_same_places_are_averaged_there() {
        let all = runs(&[&[(0.0, 0.0, -10.0), (100.0, 1.0, 4.0)], &[(0.0, 0.0, -20.0), (100.0, 1.0, 8.0)]], &[true; 2]);
        let found = curve(&all, Metric::Single, Axis::Steps, Centre::Mean);
        assert_eq!(centres(&found), [(0.0, -15.0), (100.0, 6.0)]);
        // Of two seeds the interval reaches from one to the other.
        assert_eq!((found[1].band.low, found[1].band.high), (4.0, 8.0));
        let greedy = curve(&all, Metric::Greedy, Axis::Steps, Centre::Iqm);
        assert_eq!(centres(&greedy), [(0.0, -10.0), (100.0, 11.0)]);
        // No training episode is known.
        assert!(curve(&all, Metric::Train, Axis::Steps, Centre::Mean).is_empty());
        assert!(curve(&[], Metric::Single, Axis::Cpu, Centre::Mean).is_empty());
    }

    #[test]
    fn one_seed_has_a_line_and_no_band() {
        let found =
            curve(&runs(&[&[(0.0, 0.0, 1.0), (10.0, 1.0, 2.0)]], &[true]), Metric::Single, Axis::Steps, Centre::Mean);
        assert_eq!(centres(&found), [(0.0, 1.0), (10.0, 2.0)]);
        assert!(found.iter().all(|p| !p.band.is_known()));
    }

    #[test]
    fn other_places_are_interpolated_and_the_end_is_where_half_are_left() {
        let all = runs(
            &[
                &[(0.0, 0.0, 0.0), (100.0, 1.0, 10.0), (300.0, 3.0, 30.0)],
                &[(0.0, 0.0, 0.0), (200.0, 2.0, 40.0)],
                &[(0.0, 0.0, 0.0), (100.0, 1.0, 30.0)],
            ],
            &[false; 3],
        );
        let found = curve(&all, Metric::Single, Axis::Steps, Centre::Mean);
        // At 100: 10, 20, 30. At 200: 20 and 40. At 300 one of three is left.
        assert_eq!(centres(&found), [(0.0, 0.0), (100.0, 20.0), (200.0, 30.0)]);
    }

    #[test]
    fn along_cpu_time_a_finished_run_keeps_its_last_value() {
        let curves: [&[(f64, f64, f64)]; 2] =
            [&[(0.0, 0.0, 0.0), (100.0, 2.0, 10.0)], &[(0.0, 0.0, 0.0), (100.0, 4.0, 20.0)]];
        let found = curve(&runs(&curves, &[true; 2]), Metric::Single, Axis::Cpu, Centre::Mean);
        assert_eq!(found.len(), MOST_POINTS);
        for p in found {
            let wanted = 0.5 * (5.0 * p.x.min(2.0) + 5.0 * p.x);
            assert!((p.centre - wanted).abs() < 1e-9, "{p:?}");
        }
        // An unfinished one does not: what it will have is not known.
        let found = curve(&runs(&curves, &[false; 2]), Metric::Single, Axis::Cpu, Centre::Mean);
        let beyond = found.iter().find(|p| p.x > 2.5).unwrap();
        assert!((beyond.centre - 5.0 * beyond.x).abs() < 1e-9);
    }
}
