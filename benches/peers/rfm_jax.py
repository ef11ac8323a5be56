"""Reverse Flow Matching's update in straightforward JAX, for comparison with `host-train bench update`.

One update with one policy sample a state, K bridge candidates, the diagonal control variate (so with the critics'
gradient), Adam for both networks and Polyak averaging, on a batch drawn from a replay on the device. Everything is one
jitted function of the state, compiled and warm before the clock runs. The first layers are not split by input and
nothing is arranged for speed beyond what `jit` and `vmap` do: this is how one writes it down.

Prints one JSON object: updates per CPU-second (median of the repetitions), and their spread.
"""

import argparse
import json
import math
import os
import time

# Before JAX starts: one thread.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

GAMMA, TAU, LEARNING_RATE, TEMPERATURE = 0.99, 0.01, 1e-3, 0.1
RIDGE, CLIP, LATENT_CLIP = 1e-4, 2.0, 6.0
FREQUENCIES = (math.pi / 2) * jnp.array([1.0, 2.0, 4.0, 8.0])


def network(key, sizes):
    """Weights and biases of a perceptron; orthogonal with gain sqrt 2."""
    keys = jax.random.split(key, len(sizes) - 1)
    init = jax.nn.initializers.orthogonal(math.sqrt(2))
    return [(init(k, (i, o)), jnp.zeros(o)) for k, i, o in zip(keys, sizes[:-1], sizes[1:])]


def apply(params, x):
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w + b)
    w, b = params[-1]
    return x @ w + b


def velocity(actor, x, t, s):
    t = jnp.broadcast_to(t, x.shape[:-1] + (1,))
    return apply(actor, jnp.concatenate([s, x, jnp.sin(t * FREQUENCIES), jnp.cos(t * FREQUENCIES)], -1))


def q_values(critics, s, a):
    x = jnp.concatenate([s, a], -1)
    return jnp.stack([apply(c, x)[..., 0] for c in critics])


def q_min(critics, s, a):
    return q_values(critics, s, a).min(0)


def sample(actor, s, key, act, steps):
    x = jax.random.normal(key, s.shape[:-1] + (act,))
    dt = 1.0 / steps

    def step(i, x):
        return x + dt * velocity(actor, x, i * dt, s)

    return jnp.clip(jax.lax.fori_loop(0, steps, step, x), -LATENT_CLIP, LATENT_CLIP)


def log_sech2(u):
    return -2.0 * (jnp.logaddexp(u, -u) - math.log(2.0))


def posterior_mean(critics, s, x, t, noise):
    """E[X_1 | X_t = x] of one point, from the candidates that `noise` (K x act) makes."""
    y = (x - (1.0 - t) * noise) / t

    def log_target(y):
        return q_min(critics, s, jnp.tanh(y)) / TEMPERATURE + log_sech2(y).sum()

    value, gradient = jax.vmap(jax.value_and_grad(log_target))(y)
    w = jax.nn.softmax(value)[:, None]
    score = gradient + t / (1.0 - t) * noise
    mean, average = (w * y).sum(0), (w * score).sum(0)
    cross = (w * w * (y - mean) * (score - average)).sum(0)
    square = (w * w * (score - average) ** 2).sum(0)
    return mean + jnp.clip(-cross / (square + RIDGE), -CLIP, CLIP) * average


def adam(params, moments, gradient, count):
    first, second = moments
    first = jax.tree.map(lambda m, g: m + 0.1 * (g - m), first, gradient)
    second = jax.tree.map(lambda v, g: v + 0.001 * (g * g - v), second, gradient)
    rate, correction = LEARNING_RATE / (1.0 - 0.9**count), 1.0 / (1.0 - 0.999**count)
    params = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(v * correction) + 1e-8), params, first, second
    )
    return params, (first, second)


def make_update(replay, act, batch, samples, steps):
    size = replay["reward"].shape[0]

    def update(state):
        count = state["count"] + 1.0
        key, k_rows, k_flow, k_time, k_point, k_candidates = jax.random.split(state["key"], 6)
        rows = jax.random.randint(k_rows, (batch,), 0, size)
        b = {name: column[rows] for name, column in replay.items()}
        u = sample(state["actor"], b["next_obs"], k_flow, act, steps)

        y = b["reward"] + GAMMA * b["mask"] * q_min(state["target"], b["next_obs"], jnp.tanh(u))

        def critic_loss(critics):
            return ((q_values(critics, b["obs"], b["action"]) - y) ** 2).mean(1).sum()

        q_loss, gradient = jax.value_and_grad(critic_loss)(state["critics"])
        critics, critic_moments = adam(state["critics"], state["critic_moments"], gradient, count)
        target = jax.tree.map(lambda t, c: t + TAU * (c - t), state["target"], critics)

        t = jax.random.uniform(k_time, (batch, 1), minval=0.01, maxval=0.99)
        x = t * u + (1.0 - t) * jax.random.normal(k_point, u.shape)
        noise = jax.random.normal(k_candidates, (batch, samples, act))
        mean = jax.vmap(posterior_mean, (None, 0, 0, 0, 0))(critics, b["next_obs"], x, t, noise)
        wanted = (mean - x) / (1.0 - t)

        def actor_loss(actor):
            return ((velocity(actor, x, t, b["next_obs"]) - wanted) ** 2).mean()

        a_loss, gradient = jax.value_and_grad(actor_loss)(state["actor"])
        actor, actor_moments = adam(state["actor"], state["actor_moments"], gradient, count)
        state = {
            "actor": actor,
            "critics": critics,
            "target": target,
            "actor_moments": actor_moments,
            "critic_moments": critic_moments,
            "count": count,
            "key": key,
        }
        return state, (q_loss, a_loss)

    return update


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in [("obs", 17), ("act", 6), ("batch", 128), ("hidden", 64), ("samples", 32)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--integration-steps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time of one repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    obs, act, h = args.obs, args.act, args.hidden

    keys = jax.random.split(jax.random.key(0), 9)
    size = 10_000
    replay = {
        "obs": jax.random.normal(keys[0], (size, obs)),
        "next_obs": jax.random.normal(keys[1], (size, obs)),
        "action": jax.random.uniform(keys[2], (size, act), minval=-1.0, maxval=1.0),
        "mask": jnp.ones(size),
    }
    replay["reward"] = replay["action"][:, 0]
    actor = network(keys[3], [obs + act + 8, h, h, act])
    critics = [network(k, [obs + act, h, h, 1]) for k in keys[4:6]]
    zeros = lambda tree: (jax.tree.map(jnp.zeros_like, tree), jax.tree.map(jnp.zeros_like, tree))  # noqa: E731
    state = {
        "actor": actor,
        "critics": critics,
        "target": jax.tree.map(jnp.copy, critics),
        "actor_moments": zeros(actor),
        "critic_moments": zeros(critics),
        "count": jnp.float32(0.0),
        "key": keys[6],
    }
    update = jax.jit(make_update(replay, act, args.batch, args.samples, args.integration_steps), donate_argnums=0)
    for _ in range(20):
        state, losses = update(state)
    jax.block_until_ready(state)

    rates = []
    for _ in range(args.repetitions):
        start, done = time.process_time(), 0
        while time.process_time() - start < args.seconds:
            for _ in range(10):
                state, losses = update(state)
            jax.block_until_ready(state)
            done += 10
        rates.append(done / (time.process_time() - start))
    rates.sort()
    print(
        json.dumps(
            {
                "updates_per_cpu_second": rates[len(rates) // 2],
                "slowest": rates[0],
                "fastest": rates[-1],
                "critic_loss": float(losses[0]),
                "actor_loss": float(losses[1]),
                "jax": jax.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
