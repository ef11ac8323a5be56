//! What a learner records and draws against the list of its decisions, and what its exploration adds.

extern crate std;

use super::super::tests::{config, factory, rng};
use super::super::{Storage, words};
use super::*;
use std::{vec, vec::Vec};
use zerocopy::IntoBytes;

fn learner(bytes: &[u32], config: Config) -> Learner<'_, Vec<u32>> {
    let artefact = Artefact::new(bytes.as_bytes()).unwrap();
    let memory = vec![0; words(artefact.velocity().shape(), artefact.critics().next().unwrap().shape(), &config)];
    Learner::new(&artefact, config, 3, memory).unwrap()
}

/// A decision as it was recorded; `None` where it was refused.
type Decided = Option<(f64, After)>;

/// Every row of many batches: its reward is the discounted sum over `n` decisions that follow one another, its next
/// observation that of the `n`-th after it, and `n` is as large as horizon, episode and ring allow.
#[test]
fn targets_look_ahead_over_decisions() {
    for (stride, horizon) in [(1, 1), (1, 4), (3, 1), (4, 3), (5, 2)] {
        let config = Config { stride, horizon, discount: 0.9, transitions: 60, storage: Storage::F32, ..config() };
        let bytes = factory(8);
        let (mut learner, mut rng, mut list) = (learner(&bytes, config), rng(1), Vec::<Decided>::new());
        let mut checked = [0u32; 3];
        while list.len() < 3000 {
            let index = list.len();
            let after = match rng.next_u32() % 60 {
                0 => After::Terminal,
                1 => After::Unknown,
                _ => After::Next,
            };
            let reward =
                if rng.next_u32() % 97 == 0 { f32::NAN } else { 4.0 * math::symmetric_uniform(rng.next_u32()) };
            // The observation is the number of the decision; the action tells it too, and its range is -2 to 2.
            learner.record(&[index as f32 / 1000.0, 0.5], &[index as f32 / 3000.0], reward, after);
            list.push(reward.is_finite().then_some((f64::from(reward), after)));
            if index < 100 || index % 10 != 0 {
                continue;
            }
            learner.at = Counter::IDLE;
            learner.draw_batch();
            let (rows, len) = (learner.layout.carve(learner.memory.as_mut()).rows.to_vec(), learner.layout.row);
            for row in rows.chunks_exact(len) {
                let [one, two, action, sum, mask, _, next, _] = *row else { panic!("a row of another length") };
                let first = (one * 1000.0).round() as usize;
                assert!(two == 0.5 && (action - first as f32 / 6000.0).abs() < 1e-6);
                // As far as the list goes on from there.
                let whole = list[first..].iter().take_while(|d| matches!(d, Some((_, After::Next)))).count();
                let ends = whole < (stride * horizon) as usize
                    && matches!(list.get(first + whole), Some(Some((_, After::Terminal))));
                let n = if mask == 0.0 {
                    assert!(ends, "{first} has no end");
                    checked[0] += 1;
                    whole + 1
                } else {
                    let n = (next * 1000.0).round() as usize - first;
                    assert_eq!(n % stride as usize, 0);
                    // Shorter than the horizon only where the episode ends, or what is recorded; a refused decision takes
                    // the entry before its own with it, which then has no successor.
                    let full = n == (stride * horizon) as usize;
                    let refused = matches!(list.get(first + whole), Some(None));
                    let lost = if refused { 2 * stride } else { stride } as usize;
                    let newest = first + n + 2 * stride as usize > index;
                    assert!((1..=whole).contains(&n) && (full || ends || newest || whole < n + lost), "{first} {n}");
                    assert!((f64::from(mask) - 0.9f64.powi(n as i32)).abs() < 1e-6);
                    checked[if full { 1 } else { 2 }] += 1;
                    n
                };
                let exact: f64 = (0..n).map(|i| 0.9f64.powi(i as i32) * list[first + i].unwrap().0).sum();
                assert!((f64::from(sum) - exact).abs() < 1e-5 * (1.0 + exact.abs()), "{first} {n}: {sum} {exact}");
            }
        }
        assert!(checked[0] > 20 && checked[1] > 500 && (checked[2] > 20 || horizon == 1), "{checked:?}");
    }
}

/// The exploration's noise keeps its deviation, and its autocorrelation is the configured one.
#[test]
fn exploration_wanders() {
    for correlation in [0.0, 0.8] {
        let config = Config { correlation, exploration: 0.1, ..config() };
        let bytes = factory(8);
        let (mut learner, mut action) = (learner(&bytes, config), [0.0]);
        let n = 40_000;
        let mut noise = rng(2);
        let seen: Vec<f64> = (0..n)
            .map(|_| {
                let (mut twin, mut plain) = (noise.clone(), [0.0]);
                learner.act(&[0.1, 0.2], &mut twin, &mut plain);
                learner.explore(&[0.1, 0.2], &mut noise, &mut action);
                f64::from(action[0] - plain[0])
            })
            .collect();
        let mean = |terms: &mut dyn Iterator<Item = f64>| terms.sum::<f64>() / f64::from(n);
        let variance = mean(&mut seen.iter().map(|x| x * x));
        let product = mean(&mut seen.windows(2).map(|pair| pair[0] * pair[1]));
        // The range is -2 to 2, so the deviation is 0.2; 40,000 numbers of correlation 0.8 tell it to 1.5 %.
        assert!((variance.sqrt() - 0.2).abs() < 0.01, "{variance}");
        assert!((product / variance - f64::from(correlation)).abs() < 0.03, "{}", product / variance);
    }
}
