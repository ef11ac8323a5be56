//! The fast path of plain ReLU networks, in lanes of rows (see [`super::lanes`]).
//!
//! Three users, three forms. [`Candidates`] values many actions of each state under both critics and differentiates the
//! smaller one: that needs no activation, only where each was positive, which is one bit; and since the gradient of
//! min(Q_1, Q_2) passes through one critic only, the rows of each critic are gathered, bit by bit, into full panels
//! before they go backward. [`Flow`] takes a panel through all steps of an integration. [`Perceptron`] runs a batch
//! forward and, for a regression, backward: its products of activations and deltas over the rows are left to `gemm`.
//!
//! Weights are packed from the flat parameters at the start of a pass, which costs less than a hundredth of it, so
//! there is no second copy of them to keep in step. Nothing allocates after construction, but where more rows come than
//! ever before.

use super::hidden::{Hidden, take};
use super::lanes::{
    End, LANES, Lane, Packed, Start, dense, pack, pack_groups, pack_repeated, panels, squeeze, unpack, unpack_groups,
};
use super::math::vectorised;
use super::matmul;
use super::{Activation, Trunk};

/// Whether this path can run these layers.
pub fn fits(hidden: &Hidden) -> bool {
    hidden.activation == Activation::Relu && hidden.trunk == Trunk::Plain && !hidden.layer_norm
}

/// A batch through a network whose inputs are all its own: `inputs -> width -> .. -> width -> outputs`.
#[derive(Clone, Debug)]
pub struct Perceptron {
    inputs: usize,
    hidden: Hidden,
    /// Lanes per feature: panels, and one more where that avoids a power of two, which caches dislike.
    step: usize,
    layers: Vec<Packed>,
    transposed: Vec<Packed>,
    activations: Vec<Vec<Lane>>,
    output: Vec<Lane>,
    deltas: [Vec<Lane>; 2],
}

impl Perceptron {
    /// Room for `rows` rows.
    pub fn new(inputs: usize, hidden: Hidden, rows: usize) -> Self {
        let (h, o) = (hidden.width, hidden.outputs);
        let step = panels(rows) | 1;
        let layer = |l| Packed::new(if l == 0 { inputs } else { h }, if l == hidden.layers { o } else { h });
        Self {
            inputs,
            hidden,
            step,
            layers: (0..=hidden.layers).map(layer).collect(),
            transposed: (1..=hidden.layers).map(|l| Packed::new(if l == hidden.layers { o } else { h }, h)).collect(),
            activations: vec![vec![Lane::ZERO; h * step]; hidden.layers],
            output: vec![Lane::ZERO; o * step],
            deltas: [vec![Lane::ZERO; h * step], vec![Lane::ZERO; h * step]],
        }
    }

    /// Lanes per feature, of the inputs too.
    pub fn step(&self) -> usize {
        self.step
    }

    /// The outputs of `panels` panels of inputs, feature by feature; `params` is the flat network.
    pub fn forward(&mut self, params: &[f32], x: &[Lane], panels: usize) -> &mut [Lane] {
        let (h, step) = (self.hidden.width, self.step);
        let mut rest = params;
        for l in 0..=self.hidden.layers {
            let (inputs, outputs) = self.sizes(l);
            self.layers[l].set(take(&mut rest, inputs * outputs));
            let bias = Start::Bias(take(&mut rest, outputs));
            let (before, after) = self.activations.split_at_mut(l);
            for p in 0..panels {
                let x = if l == 0 { &x[p..] } else { &before[l - 1][p..] };
                let end = match after.first_mut() {
                    Some(out) => End::Relu(&mut out[p..h * step], step),
                    None => End::Store(&mut self.output[p..], step),
                };
                dense(&self.layers[l], x, step, bias, end);
            }
        }
        &mut self.output
    }

    /// The gradient of the parameters, `params`, from that of the outputs, after a forward pass of the same inputs.
    /// Lanes of `d_output` past row `rows` must be zero.
    pub fn backward(&mut self, params: &[f32], x: &[Lane], d_output: &[Lane], rows: usize, gradient: &mut [f32]) {
        let (step, layers) = (self.step, self.hidden.layers);
        let panels = panels(rows);
        let mut end = gradient.len();
        for l in (0..=layers).rev() {
            let (inputs, outputs) = self.sizes(l);
            let at = end - (inputs + 1) * outputs;
            let (dw, db) = gradient[at..end].split_at_mut(inputs * outputs);
            let (below, delta) = self.deltas.split_at_mut(1);
            // The deltas of layer l and l - 1 lie in turn in one and the other.
            let (next, delta) = if l % 2 == 0 { (&mut delta[0], &below[0]) } else { (&mut below[0], &delta[0]) };
            let delta = if l == layers { d_output } else { delta };
            let source = if l == 0 { x } else { &self.activations[l - 1] };
            matmul::weight_gradient_of_lanes(dw, source, delta, inputs, outputs, rows, step);
            vectorised(|| {
                for (db, delta) in db.iter_mut().zip(delta.chunks(step)) {
                    let mut sums = [0.0; LANES];
                    for lane in &delta[..panels] {
                        sums.iter_mut().zip(&lane.0).for_each(|(s, d)| *s += d);
                    }
                    *db = sums.iter().sum();
                }
            });
            if l > 0 {
                let w = &mut self.transposed[l - 1];
                w.set_transposed(&params[at..at + inputs * outputs]);
                for p in 0..panels {
                    let end = End::Where(&source[p..], &mut next[p..], step);
                    dense(w, &delta[p..], step, Start::Zero, end);
                }
            }
            end = at;
        }
    }

    fn sizes(&self, l: usize) -> (usize, usize) {
        let Hidden { width, layers, outputs, .. } = self.hidden;
        (if l == 0 { self.inputs } else { width }, if l == layers { outputs } else { width })
    }
}

/// Euler integration of a velocity network, panel by panel: a panel takes all its steps while it is in the cache.
#[derive(Clone, Debug)]
pub struct Flow {
    obs: usize,
    act: usize,
    hidden: Hidden,
    state: Packed,
    first: Packed,
    layers: Vec<Packed>,
    output: Packed,
    s: Vec<Lane>,
    x: Vec<Lane>,
    v: Vec<Lane>,
    part: Vec<Lane>,
    buffers: [Vec<Lane>; 2],
}

/// The flat parameters of a velocity network, and the tables that one integration needs.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// W_s, W_x and the first bias with everything constant in it.
    pub first: [&'a [f32]; 3],
    /// The layers after the first.
    pub tail: &'a [f32],
    /// Time parts, one row a step.
    pub times: &'a [f32],
    /// Step size.
    pub dt: f32,
    /// Largest magnitude of a result.
    pub clip: f32,
}

impl Flow {
    /// For networks of these sizes, whose layers [`fits`] approves.
    pub fn new(obs: usize, act: usize, hidden: Hidden) -> Self {
        let h = hidden.width;
        Self {
            obs,
            act,
            hidden,
            state: Packed::new(obs, h),
            first: Packed::new(act, h),
            layers: vec![Packed::new(h, h); hidden.layers - 1],
            output: Packed::new(h, act),
            s: vec![Lane::ZERO; obs],
            x: vec![Lane::ZERO; act],
            v: vec![Lane::ZERO; act],
            part: vec![Lane::ZERO; h],
            buffers: [vec![Lane::ZERO; h], vec![Lane::ZERO; h]],
        }
    }

    /// Carries the latents `u`, `particles` rows for each of the states `s`, along the field, in place.
    pub fn integrate(&mut self, field: Field<'_>, s: &[f32], particles: usize, u: &mut [f32]) {
        let (h, act) = (self.hidden.width, self.act);
        let [w_s, w_x, bias] = field.first;
        self.state.set(w_s);
        self.first.set(w_x);
        let mut rest = field.tail;
        for layer in &mut self.layers {
            layer.set(take(&mut rest, h * h));
            take(&mut rest, h);
        }
        self.output.set(take(&mut rest, h * act));
        for (p, u) in u.chunks_mut(LANES * act).enumerate() {
            pack(u, act, 1, &mut self.x);
            pack_repeated(s, self.obs, particles, p * LANES, u.len() / act, &mut self.s);
            dense(&self.state, &self.s, 1, Start::Bias(bias), End::Store(&mut self.part, 1));
            for time in field.times.chunks_exact(h) {
                self.velocity(field.tail, time);
                let steps = self.x.iter_mut().zip(&self.v);
                vectorised(|| {
                    for (x, v) in steps {
                        x.0.iter_mut().zip(&v.0).for_each(|(x, v)| *x += field.dt * v);
                    }
                });
            }
            unpack(&self.x, act, 1, u);
            u.iter_mut().for_each(|u| *u = u.clamp(-field.clip, field.clip));
        }
    }

    /// The velocities of the panel.
    fn velocity(&mut self, tail: &[f32], time: &[f32]) {
        let h = self.hidden.width;
        let [one, two] = &mut self.buffers;
        let (mut x, mut out) = (one, two);
        dense(&self.first, &self.x, 1, Start::LanesAndBias(&self.part, time), End::Relu(x, 1));
        for (layer, params) in self.layers.iter().zip(tail.chunks_exact((h + 1) * h)) {
            dense(layer, x, 1, Start::Bias(&params[h * h..]), End::Relu(out, 1));
            std::mem::swap(&mut x, &mut out);
        }
        let bias = &tail[tail.len() - self.act..];
        dense(&self.output, x, 1, Start::Bias(bias), End::Store(&mut self.v, 1));
    }
}

/// One critic's weights for the pass over candidates.
#[derive(Clone, Debug)]
struct Weights {
    state: Packed,
    action: Packed,
    hidden: Vec<Packed>,
    /// The transposes of `action` and `hidden`.
    back: Packed,
    backs: Vec<Packed>,
    /// The output layer as one of one input: its weights are the last layer's gradient.
    last: Packed,
    /// Biases of the hidden layers but the first, weights of the output layer and its bias.
    tail: Vec<f32>,
}

/// Rows of one critic that wait for a full panel of them.
#[derive(Clone, Debug)]
struct Waiting {
    /// For each layer, each feature's bits of the rows.
    bits: Vec<u64>,
    /// Panel and lane of each.
    rows: Vec<(usize, usize)>,
}

/// Memory for values and action gradients of many candidates.
#[derive(Clone, Debug)]
pub struct Candidates {
    obs: usize,
    act: usize,
    hidden: Hidden,
    weights: [Weights; 2],
    parts: [Vec<Lane>; 2],
    layers: [Vec<Lane>; 2],
    bits: [Vec<u32>; 2],
    waiting: [Waiting; 2],
    gathered: Vec<u32>,
    d_action: Vec<Lane>,
    /// Rows as lanes: states, actions, values, gradients.
    room: [Vec<Lane>; 4],
}

/// Fewest states for which lanes of states are worth it: with fewer, lanes hold candidates of one state too.
const FEW_STATES: usize = 24;

impl Candidates {
    /// For critics of these sizes, whose layers [`fits`] approves.
    pub fn new(obs: usize, act: usize, hidden: Hidden) -> Self {
        let (h, layers) = (hidden.width, hidden.layers);
        let weights = || Weights {
            state: Packed::new(obs, h),
            action: Packed::new(act, h),
            hidden: vec![Packed::new(h, h); layers - 1],
            back: Packed::new(h, act),
            backs: vec![Packed::new(h, h); layers - 1],
            last: Packed::new(1, h),
            tail: vec![0.0; layers * h + 1],
        };
        let waiting = || Waiting { bits: vec![0; layers * h], rows: Vec::with_capacity(2 * LANES) };
        Self {
            obs,
            act,
            hidden,
            weights: [weights(), weights()],
            parts: [vec![Lane::ZERO; h], vec![Lane::ZERO; h]],
            layers: [vec![Lane::ZERO; h], vec![Lane::ZERO; h]],
            bits: [vec![0; layers * h], vec![0; layers * h]],
            waiting: [waiting(), waiting()],
            gathered: vec![0; layers * h],
            d_action: vec![Lane::ZERO; act],
            room: Default::default(),
        }
    }

    /// As [`Self::lanes`], of rows: `s` has one a state, the others `group` for each, state by state.
    #[expect(clippy::too_many_arguments, reason = "the two critics, and what a pass takes and gives")]
    pub fn rows(
        &mut self,
        critics: [&[f32]; 2],
        join: fn(f32, f32) -> f32,
        s: &[f32],
        actions: &[f32],
        group: usize,
        q: &mut [f32],
        d_actions: &mut [f32],
    ) {
        let (obs, act) = (self.obs, self.act);
        // Few states are repeated, so that every row is a state of its own.
        let repeat = if q.len() < FEW_STATES * group { group } else { 1 };
        let (n, group) = (q.len() / group * repeat, group / repeat);
        let mut room = std::mem::take(&mut self.room);
        let slopes = if d_actions.is_empty() { 0 } else { group * act };
        for (lanes, width) in room.iter_mut().zip([obs, group * act, group, slopes]) {
            lanes.resize(panels(n) * width, Lane::ZERO);
        }
        let [states, action_lanes, values, gradients] = &mut room;
        for (p, states) in states.chunks_exact_mut(obs).enumerate() {
            pack_repeated(s, obs, repeat, p * LANES, (n - p * LANES).min(LANES), states);
        }
        pack_groups(actions, act, group, action_lanes);
        self.lanes(critics, join, states, action_lanes, group, n, values, gradients);
        unpack_groups(values, 1, group, q);
        unpack_groups(gradients, act, group, d_actions);
        self.room = room;
    }

    /// Q_1 and Q_2 of `group` candidates for each of `n` states, made one number by `join`; and where `d_actions` is not
    /// empty the gradient of the smaller one with respect to the action.
    ///
    /// Per panel of 32 states: `s` has one lane a channel; `actions` and `d_actions` one a candidate and channel, `q`
    /// one a candidate.
    #[expect(clippy::too_many_arguments, reason = "the two critics, and what a pass takes and gives")]
    pub fn lanes(
        &mut self,
        critics: [&[f32]; 2],
        join: fn(f32, f32) -> f32,
        s: &[Lane],
        actions: &[Lane],
        group: usize,
        n: usize,
        q: &mut [Lane],
        d_actions: &mut [Lane],
    ) {
        let (act, differentiate) = (self.act, !d_actions.is_empty());
        for (weights, params) in self.weights.iter_mut().zip(critics) {
            weights.set(params, self.obs, act, &self.hidden, differentiate);
        }
        let inputs = (self.obs + act) * self.hidden.width;
        for (panel, (s, actions)) in s.chunks_exact(self.obs).zip(actions.chunks_exact(group * act)).enumerate() {
            for ((weights, params), parts) in self.weights.iter().zip(critics).zip(&mut self.parts) {
                let bias = Start::Bias(&params[inputs..inputs + self.hidden.width]);
                dense(&weights.state, s, 1, bias, End::Store(parts, 1));
            }
            let valid = u32::MAX >> (LANES - (n - panel * LANES).min(LANES));
            for (c, action) in actions.chunks_exact(act).enumerate() {
                let at = panel * group + c;
                let values = [self.value(0, action), self.value(1, action)];
                q[at] = Lane(std::array::from_fn(|i| join(values[0].0[i], values[1].0[i])));
                if differentiate {
                    let chosen = smaller(&values) & valid;
                    self.wait(0, chosen, at, d_actions);
                    self.wait(1, !chosen & valid, at, d_actions);
                }
            }
        }
        if differentiate {
            (0..2).for_each(|k| self.go_back(k, d_actions));
        }
    }

    /// Q_k of a panel, leaving the bits of its layers.
    fn value(&mut self, k: usize, action: &[Lane]) -> Lane {
        let (h, layers) = (self.hidden.width, self.hidden.layers);
        let (weights, [one, two]) = (&self.weights[k], &mut self.layers);
        let (bias, output) = weights.tail.split_at((layers - 1) * h);
        let mut q = Lane([output[h]; LANES]);
        let (mut x, mut out) = (one, two);
        for (l, bits) in self.bits[k].chunks_exact_mut(h).enumerate() {
            let (w, input, start) = match l {
                0 => (&weights.action, action, Start::Lanes(&self.parts[k])),
                _ => (&weights.hidden[l - 1], &x[..], Start::Bias(&bias[(l - 1) * h..l * h])),
            };
            let end = if l + 1 == layers { End::ReluDot(&output[..h], &mut q, bits) } else { End::ReluBits(out, bits) };
            dense(w, input, 1, start, end);
            std::mem::swap(&mut x, &mut out);
        }
        q
    }

    /// Puts the chosen rows of panel `at` among those that wait for critic `k`, and sends a full panel of them back.
    fn wait(&mut self, k: usize, chosen: u32, at: usize, d_actions: &mut [Lane]) {
        let Waiting { bits, rows } = &mut self.waiting[k];
        squeeze(&self.bits[k], chosen, rows.len() as u32, bits);
        let mut left = chosen;
        while left != 0 {
            rows.push((at, left.trailing_zeros() as usize));
            left &= left - 1;
        }
        if rows.len() >= LANES {
            self.go_back(k, d_actions);
        }
    }

    /// The gradient of up to a panel of rows that wait for critic `k`, written to where they came from.
    fn go_back(&mut self, k: usize, d_actions: &mut [Lane]) {
        let (h, layers, act) = (self.hidden.width, self.hidden.layers, self.act);
        let (weights, Waiting { bits, rows }) = (&self.weights[k], &mut self.waiting[k]);
        for (gathered, bits) in self.gathered.iter_mut().zip(bits) {
            *gathered = *bits as u32;
            *bits >>= LANES;
        }
        let [one, two] = &mut self.layers;
        let (mut delta, mut next) = (one, two);
        // The last layer's delta is the output layer's weight wherever the unit was active.
        dense(
            &weights.last,
            &[Lane([1.0; LANES])],
            1,
            Start::Zero,
            End::Masked(&self.gathered[(layers - 1) * h..], delta),
        );
        for (w, bits) in weights.backs.iter().zip(self.gathered.chunks_exact(h)).rev() {
            dense(w, delta, 1, Start::Zero, End::Masked(bits, next));
            std::mem::swap(&mut delta, &mut next);
        }
        dense(&weights.back, delta, 1, Start::Zero, End::Store(&mut self.d_action, 1));
        let count = rows.len().min(LANES);
        for (i, (at, lane)) in rows.drain(..count).enumerate() {
            for (d, found) in d_actions[at * act..(at + 1) * act].iter_mut().zip(&self.d_action) {
                d.0[lane] = found.0[i];
            }
        }
    }
}

impl Weights {
    /// Packs the flat parameters of a critic; the transposes only where `back` asks for them.
    fn set(&mut self, params: &[f32], obs: usize, act: usize, hidden: &Hidden, back: bool) {
        let h = hidden.width;
        let mut rest = params;
        self.state.set(take(&mut rest, obs * h));
        let action = take(&mut rest, act * h);
        self.action.set(action);
        if back {
            self.back.set_transposed(action);
        }
        // b_0 is part of the states' parts.
        take(&mut rest, h);
        for (l, w) in self.hidden.iter_mut().enumerate() {
            let flat = take(&mut rest, h * h);
            w.set(flat);
            if back {
                self.backs[l].set_transposed(flat);
            }
            self.tail[l * h..(l + 1) * h].copy_from_slice(take(&mut rest, h));
        }
        self.last.set(&rest[..h]);
        let at = (hidden.layers - 1) * h;
        self.tail[at..].copy_from_slice(rest);
    }
}

/// The bits of the rows whose first value is not the larger one.
fn smaller([one, two]: &[Lane; 2]) -> u32 {
    let each = one.0.iter().zip(&two.0).enumerate();
    each.fold(0, |bits, (i, (one, two))| bits | u32::from(one <= two) << i)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::critic::{CriticShape, CriticWork, TwinCritic};
    use crate::noise::Noise;

    /// Values and gradients of the fast path against those of the generic one, for sizes that fill panels and that do
    /// not. A bias keeps sums away from zero, where the two could differ in the sign of a rounding error.
    #[test]
    fn candidates_equal_the_generic_path() {
        let mut noise = Noise::new(1, 0);
        for (n, group, layers, width) in [(1, 1, 1, 8), (40, 5, 2, 24), (64, 9, 3, 13), (33, 40, 2, 16), (3, 30, 2, 9)]
        {
            let (obs, act) = (5, 3);
            let (activation, trunk) = (Activation::Relu, Trunk::Plain);
            let hidden = Hidden { width, layers, outputs: 1, activation, trunk, layer_norm: false };
            let shape = CriticShape { obs, act, hidden };
            let mut critic = TwinCritic::new(shape, 1.4, &mut noise);
            let mut shake = vec![0.0; critic.params().len()];
            noise.gaussian(&mut shake);
            critic.params_mut().iter_mut().zip(&shake).for_each(|(p, s)| *p += 0.1 * s);
            let (mut s, mut a) = (vec![0.0; n * obs], vec![0.0; n * group * act]);
            noise.gaussian(&mut s);
            noise.uniform_in(&mut a, -1.0, 1.0);
            let run = |work: &mut CriticWork| {
                let (mut q, mut d) = (vec![0.0; n * group], vec![0.0; n * group * act]);
                critic.minimum_and_gradient(&s, &a, group, &mut q, &mut d, work);
                let mut alone = vec![0.0; n * group];
                critic.minimum(&s, &a, group, &mut alone, work);
                assert_eq!(q, alone);
                (q, d)
            };
            let want = run(&mut CriticWork::generic(&shape, n, group));
            let found = run(&mut CriticWork::new(&shape, n, group));
            let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5 * (1.0 + b.abs()));
            assert!(close(&found.0, &want.0) && close(&found.1, &want.1), "{n} {group} {layers}");

            let room = |width: usize| vec![Lane([f32::NAN; LANES]); panels(n) * width];
            let (mut s_lanes, mut a_lanes) = (room(obs), room(group * act));
            pack_groups(&s, obs, 1, &mut s_lanes);
            pack_groups(&a, act, group, &mut a_lanes);
            for mut work in [CriticWork::generic(&shape, n, group), CriticWork::new(&shape, n, group)] {
                let (mut q_lanes, mut d_lanes) = (room(group), room(group * act));
                critic.candidates(&s_lanes, &a_lanes, group, n, &mut q_lanes, &mut d_lanes, &mut work);
                let (mut q, mut d) = (vec![0.0; n * group], vec![0.0; n * group * act]);
                unpack_groups(&q_lanes, 1, group, &mut q);
                unpack_groups(&d_lanes, act, group, &mut d);
                assert!(close(&q, &want.0) && close(&d, &want.1), "lanes: {n} {group} {layers}");
            }
        }
    }
}
