//! How far the runs of a sweep are, and how long the rest will take: told on standard error, from their folders alone, so
//! that it is the same on every engine.
//!
//! A line for each run that is finished or has failed, and one a minute where there is nothing else to tell. The time
//! left is the work left over the work done since the sweep began, both in CPU-seconds as the curves tell them, so it
//! needs to know nothing of the machines. A look reads all of `evaluation.json` or `progress.csv` of each open run,
//! some kilobytes: every half second here, every two seconds elsewhere.

use super::{Failure, Plan, State};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Without anything else to tell there is a line so often.
const QUIET: Duration = Duration::from_secs(60);

/// How far one run is.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Point {
    /// Control steps taken.
    steps: u64,
    /// CPU-seconds of training for them.
    cpu: f64,
    /// Trained and evaluated, with this return of single samples.
    finished: Option<f64>,
}

impl Point {
    /// What the folder of a run tells.
    fn of(plan: &Plan, run: usize) -> Self {
        let folder = plan.folder(run);
        if let Some(point) = Self::finished(&folder.join("evaluation.json")) {
            return point;
        }
        let (steps, cpu) = last_row(&folder.join("progress.csv")).unwrap_or_default();
        Self { steps, cpu, finished: None }
    }

    fn finished(path: &Path) -> Option<Self> {
        let value: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
        let single = value["single"]["mean"].as_f64().unwrap_or(f64::NAN);
        let (steps, cpu) = (value["timesteps"].as_u64(), value["cpu_seconds"].as_f64());
        Some(Self { steps: steps.unwrap_or_default(), cpu: cpu.unwrap_or_default(), finished: Some(single) })
    }
}

/// Control steps and CPU-seconds of the last whole row.
fn last_row(path: &Path) -> Option<(u64, f64)> {
    let text = fs::read_to_string(path).ok()?;
    let whole = &text[..text.rfind('\n')?];
    let (header, last) = (whole.lines().next()?, whole.lines().next_back()?);
    let field = |name: &str| last.split(',').nth(header.split(',').position(|column| column == name)?);
    Some((field("timesteps")?.parse().ok()?, field("cpu_seconds")?.parse().ok()?))
}

/// The work that is left, and what was done since the start, in CPU-seconds; none where no run tells what a step costs.
/// Nothing is left of the runs that were given up.
fn work(plan: &Plan, start: &[Point], now: &[Point], failures: &[Failure]) -> Option<(f64, f64)> {
    let mut rates: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    let mut all = (0.0, 0.0);
    for (run, point) in plan.runs.iter().zip(now) {
        let rate = rates.entry(&run.setting).or_default();
        for sums in [rate, &mut all] {
            sums.0 += point.cpu;
            sums.1 += point.steps as f64;
        }
    }
    let rate = |&(cpu, steps): &(f64, f64)| (cpu > 0.0 && steps > 0.0).then(|| cpu / steps);
    let overall = rate(&all)?;
    let given_up: BTreeSet<usize> = failures.iter().map(|failure| failure.run).collect();
    let (mut left, mut done) = (0.0, 0.0);
    for (number, ((run, start), now)) in plan.runs.iter().zip(start).zip(now).enumerate() {
        let cost = rates.get(run.setting.as_str()).and_then(rate).unwrap_or(overall);
        if now.finished.is_none() && !given_up.contains(&number) {
            left += cost * run.steps.saturating_sub(now.steps) as f64;
        }
        done += cost * now.steps.saturating_sub(start.steps) as f64;
    }
    Some((left, done))
}

/// A duration for people.
fn told(seconds: Option<f64>) -> String {
    match seconds {
        None => "no estimate of the time left yet".into(),
        Some(s) if s < 90.0 => format!("about {s:.0} s left"),
        Some(s) if s < 5400.0 => format!("about {:.0} min left", s / 60.0),
        Some(s) => format!("about {:.1} h left", s / 3600.0),
    }
}

/// Tells how a sweep goes.
pub struct Watch<'a> {
    plan: &'a Plan,
    tell: &'a (dyn Fn(&str) + Sync),
    begun: Instant,
    start: Vec<Point>,
    known: Mutex<Known>,
}

/// What was told.
struct Known {
    points: Vec<Point>,
    failures: Vec<Failure>,
    spoken: Instant,
    /// What the engine has to add to the line a minute.
    aside: String,
}

impl<'a> Watch<'a> {
    /// Looks at all runs and says where they stand.
    pub fn new(plan: &'a Plan, tell: &'a (dyn Fn(&str) + Sync)) -> Self {
        let start: Vec<Point> = (0..plan.runs.len()).map(|run| Point::of(plan, run)).collect();
        let begun = (0..plan.runs.len()).filter(|&run| plan.state(run) == State::Begun).count();
        let finished = start.iter().filter(|point| point.finished.is_some()).count();
        tell(&format!(
            "{finished} of {} runs are finished, {begun} are begun, in {}",
            start.len(),
            plan.root.join(&plan.out).display()
        ));
        let known = Known { points: start.clone(), failures: Vec::new(), spoken: Instant::now(), aside: String::new() };
        Self { plan, tell, begun: Instant::now(), start, known: Mutex::new(known) }
    }

    /// Says something.
    pub fn note(&self, text: &str) {
        (self.tell)(text);
    }

    /// A run is given up.
    pub fn failed(&self, run: usize, sentence: &str) {
        let mut known = self.lock();
        let failure = Failure { run, sentence: format!("{}: {sentence}", self.plan.runs[run].folder.display()) };
        let told = format!("FAILED: {}", failure.sentence);
        known.failures.push(failure);
        (self.tell)(&format!("{told}; {}", self.left(&known)));
        known.spoken = Instant::now();
    }

    /// What the engine has to add, from now on, to the line a minute.
    pub fn aside(&self, text: String) {
        self.lock().aside = text;
    }

    /// The runs that were given up.
    pub fn failures(&self) -> Vec<Failure> {
        self.lock().failures.clone()
    }

    /// Does `work`, and meanwhile looks at the folders so often.
    pub fn during<T>(&self, every: Duration, work: impl FnOnce() -> T) -> T {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let looking = scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    self.look();
                    thread::park_timeout(every);
                }
                // What was finished while the last look was under way.
                self.look();
            });
            let result = work();
            over.store(true, Ordering::SeqCst);
            looking.thread().unpark();
            result
        })
    }

    /// Looks once and tells what is new.
    pub fn look(&self) {
        let mut known = self.lock();
        for run in 0..self.plan.runs.len() {
            if known.points[run].finished.is_some() {
                continue;
            }
            known.points[run] = Point::of(self.plan, run);
            if let Point { cpu, finished: Some(single), .. } = known.points[run] {
                let (count, all) = (self.finished(&known), self.plan.runs.len());
                let left = self.left(&known);
                let name = self.plan.name(run);
                (self.tell)(&format!("{count} of {all}: {name}: {single:.1}, {cpu:.1} CPU-seconds; {left}"));
                known.spoken = Instant::now();
            }
        }
        if known.spoken.elapsed() >= QUIET {
            let begun = (0..self.plan.runs.len()).filter(|&run| self.plan.state(run) == State::Begun).count();
            let (count, all) = (self.finished(&known), self.plan.runs.len());
            let aside = if known.aside.is_empty() { String::new() } else { format!(" ({})", known.aside) };
            (self.tell)(&format!("{count} of {all} finished, {begun} begun{aside}; {}", self.left(&known)));
            known.spoken = Instant::now();
        }
    }

    fn finished(&self, known: &Known) -> usize {
        known.points.iter().filter(|point| point.finished.is_some()).count()
    }

    fn left(&self, known: &Known) -> String {
        let seconds = work(self.plan, &self.start, &known.points, &known.failures)
            .filter(|(_, done)| *done > 0.0)
            .map(|(left, done)| left / done * self.begun.elapsed().as_secs_f64());
        told(seconds)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{plan, put};
    use super::*;

    const HEADER: &str = "timesteps,decisions,cpu_seconds,return_mean\n";

    fn said(heard: &Mutex<Vec<String>>) -> Vec<String> {
        std::mem::take(&mut heard.lock().unwrap())
    }

    #[test]
    fn what_is_new_is_told_once() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(root.path(), &["a", "b"], &[1]);
        put(&plan, 0, "config.toml", "");
        let heard = Mutex::new(Vec::new());
        let tell = |text: &str| heard.lock().unwrap().push(text.to_string());
        let watch = Watch::new(&plan, &tell);
        assert!(said(&heard)[0].starts_with("0 of 2 runs are finished, 1 are begun, in "));
        watch.look();
        assert!(said(&heard).is_empty());
        put(&plan, 0, "evaluation.json", "{\"timesteps\":1000,\"cpu_seconds\":2.5,\"single\":{\"mean\":-170.04}}");
        watch.look();
        watch.look();
        let lines = said(&heard);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("1 of 2: a, seed 1: -170.0, 2.5 CPU-seconds; about "), "{lines:?}");
        watch.failed(1, "no such thing");
        assert!(said(&heard)[0].starts_with("FAILED: runs/s/b/seed-1: no such thing; "));
        assert_eq!(watch.failures()[0].run, 1);
    }

    #[test]
    fn work_is_in_seconds_of_the_settings_own_speed() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(root.path(), &["a", "b", "c"], &[1, 2]);
        let point = |steps: u64, cpu: f64, finished: bool| Point { steps, cpu, finished: finished.then_some(0.0) };
        let none = vec![Point::default(); 6];
        assert_eq!(work(&plan, &none, &none, &[]), None);
        // A step of `a` takes 2 ms, one of `b` 4 ms, and `c`, not begun, is taken to be the mean of all: 3000 ms of 1250
        // steps. Seed 2 of none is begun.
        let mut now = none.clone();
        now[0] = point(1000, 2.0, true);
        now[1] = point(250, 1.0, false);
        let mut start = none.clone();
        start[0] = point(500, 1.0, false);
        let (left, done) = work(&plan, &start, &now, &[]).unwrap();
        let wanted = 0.004 * 750.0 + 0.0024 * 1000.0 + 0.002 * 1000.0 + 0.004 * 1000.0 + 0.0024 * 1000.0;
        assert!((left - wanted).abs() < 1e-9 && (done - 2.0).abs() < 1e-9, "{left} {done}");
        // What was given up is not left to do.
        let given_up = [Failure { run: 1, sentence: String::new() }, Failure { run: 0, sentence: String::new() }];
        let (left, done) = work(&plan, &start, &now, &given_up).unwrap();
        assert!((left - wanted + 3.0).abs() < 1e-9 && (done - 2.0).abs() < 1e-9, "{left} {done}");
    }

    /// However soon the work is over after a run is.
    #[test]
    fn the_last_run_is_told() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(root.path(), &["a"], &[1]);
        let heard = Mutex::new(Vec::new());
        let tell = |text: &str| heard.lock().unwrap().push(text.to_string());
        let watch = Watch::new(&plan, &tell);
        watch.during(Duration::from_secs(60), || put(&plan, 0, "evaluation.json", "{}"));
        let lines = said(&heard);
        assert!(lines.len() == 2 && lines[1].starts_with("1 of 1: a, seed 1: "), "{lines:?}");
    }

    #[test]
    fn a_curve_that_is_being_written_counts_up_to_its_last_whole_line() {
        let root = tempfile::tempdir().unwrap();
        let plan = plan(root.path(), &["a"], &[1]);
        let at = |text: &str| {
            put(&plan, 0, "progress.csv", text);
            let point = Point::of(&plan, 0);
            (point.steps, point.cpu)
        };
        assert_eq!(at(""), (0, 0.0));
        assert_eq!(at(HEADER), (0, 0.0));
        assert_eq!(at(&format!("{HEADER}500,500,1.5,-3\n")), (500, 1.5));
        assert_eq!(at(&format!("{HEADER}500,500,1.5,-3\n750,7")), (500, 1.5));
    }

    #[test]
    fn times_are_told_in_fitting_units() {
        let texts = [None, Some(30.0), Some(600.0), Some(7200.0)].map(told);
        let wanted = ["no estimate of the time left yet", "about 30 s left", "about 10 min left", "about 2.0 h left"];
        assert_eq!(texts, wanted);
    }
}
