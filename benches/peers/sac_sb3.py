"""stable-baselines3's SAC, for comparison with `host-train bench update --algo sac`.

Its own defaults but for the sizes: two hidden layers of 64, batches of 100, one thread, CPU. Two rates: of updates alone
(`train` on a filled replay buffer, which is what `bench update` measures of ours) and of `learn`, one environment step
and one update at a time, on an environment that costs nothing.

Prints one JSON object.
"""

import argparse
import json
import time

import gymnasium
import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common.logger import Logger


class Nothing(gymnasium.Env):
    """Random observations; the reward is the first channel of the action."""

    def __init__(self, obs, act):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (obs,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (act,), np.float32)
        self.observations = np.random.default_rng(1).normal(size=(1024, obs)).astype(np.float32)
        self.steps = 0

    def reset(self, seed=None, options=None):
        return self.observations[self.steps % 1024], {}

    def step(self, action):
        self.steps += 1
        return self.observations[self.steps % 1024], float(action[0]), False, self.steps % 1000 == 0, {}


def rate(seconds, repetitions, burst, run):
    """Median, least and most of `burst` calls of work per second of CPU time."""
    rates = []
    for _ in range(repetitions):
        start, done = time.process_time(), 0
        while time.process_time() - start < seconds:
            run()
            done += burst
        rates.append(done / (time.process_time() - start))
    rates.sort()
    return rates[len(rates) // 2], rates[0], rates[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in [("obs", 17), ("act", 6), ("batch", 100), ("hidden", 64)]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--seconds", type=float, default=2.0, help="CPU time of one repetition")
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = stable_baselines3.SAC(
        "MlpPolicy",
        Nothing(args.obs, args.act),
        batch_size=args.batch,
        learning_starts=1000,
        buffer_size=10_000,
        policy_kwargs={"net_arch": [args.hidden, args.hidden]},
        device="cpu",
        seed=1,
    )
    model.set_logger(Logger(folder=None, output_formats=[]))
    model.learn(1500)
    updates = rate(args.seconds, args.repetitions, 50, lambda: model.train(gradient_steps=50, batch_size=args.batch))
    steps = rate(args.seconds, 1, 100, lambda: model.learn(100, reset_num_timesteps=False))
    print(
        json.dumps(
            {
                "updates_per_cpu_second": updates[0],
                "slowest": updates[1],
                "fastest": updates[2],
                "steps_per_cpu_second": steps[0],
                "stable_baselines3": stable_baselines3.__version__,
                "torch": torch.__version__,
            }
        )
    )


if __name__ == "__main__":
    main()
