//! What several plants share: the Runge-Kutta step, the inertia of a capsule, the suite's bell-shaped reward.
//!
//! Never panics, never allocates; every sum has a fixed order.

use core::f64::consts::PI;

/// One step of the classical fourth-order Runge-Kutta method, `rate` autonomous.
pub(crate) fn rk4<const N: usize>(s: &[f64; N], h: f64, rate: impl Fn(&[f64; N]) -> [f64; N]) -> [f64; N] {
    let k1 = rate(s);
    let k2 = rate(&advance(s, 0.5 * h, &k1));
    let k3 = rate(&advance(s, 0.5 * h, &k2));
    let k4 = rate(&advance(s, h, &k3));
    let mut mean = [0.0; N];
    for (i, slot) in mean.iter_mut().enumerate() {
        *slot = k1[i] * (1.0 / 6.0) + k2[i] * (1.0 / 3.0) + k3[i] * (1.0 / 3.0) + k4[i] * (1.0 / 6.0);
    }
    advance(s, h, &mean)
}

fn advance<const N: usize>(s: &[f64; N], h: f64, rate: &[f64; N]) -> [f64; N] {
    let mut next = *s;
    for (slot, rate) in next.iter_mut().zip(rate) {
        *slot += h * rate;
    }
    next
}

/// Inertia of a solid capsule about its centre, across its axis; `length` lies between the centres of its round ends.
///
/// A capsule is a cylinder with the two halves of a ball; the volumes share the mass.
pub(crate) fn capsule_inertia(mass: f64, length: f64, r: f64) -> f64 {
    let (cylinder, ball) = (PI * r * r * length, 4.0 / 3.0 * PI * r * r * r);
    let (m_c, m_b) = (mass * cylinder / (cylinder + ball), mass * ball / (cylinder + ball));
    m_c * (3.0 * r * r + length * length) / 12.0 + m_b * (0.4 * r * r + 0.375 * r * length + 0.25 * length * length)
}

/// 1 at zero, falling as a Gaussian to 0.1 at a distance of `margin`.
pub(crate) fn near_zero(value: f64, margin: f64) -> f64 {
    /// sqrt(-2 ln 0.1): at this distance a unit Gaussian has fallen to 0.1.
    const TENTH: f64 = 2.145_966_026_289_347;
    let z = value.abs() / margin * TENTH;
    libm::exp(-0.5 * (z * z))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The harmonic oscillator has a closed form; the error of the method falls with the fourth power of the step.
    #[test]
    fn runge_kutta_has_its_order() {
        let error = |steps: u32| {
            let h = 2.0 / f64::from(steps);
            let mut s = [1.0, 0.0];
            for _ in 0..steps {
                s = rk4(&s, h, |s| [s[1], -s[0]]);
            }
            (s[0] - libm::cos(2.0)).abs().max((s[1] + libm::sin(2.0)).abs())
        };
        let (coarse, fine) = (error(20), error(40));
        assert!(coarse < 1e-4 && (14.0..18.0).contains(&(coarse / fine)), "{coarse:e} {fine:e}");
    }

    /// Without a cylinder a capsule is a ball, and a thin one is a rod.
    #[test]
    fn capsules_lie_between_balls_and_rods() {
        assert!((capsule_inertia(2.0, 0.0, 0.3) - 0.4 * 2.0 * 0.09).abs() < 1e-15);
        assert!((capsule_inertia(2.0, 1.5, 1e-9) - 2.0 * 1.5 * 1.5 / 12.0).abs() < 1e-8);
    }
}
