"""EnvPool's control steps per CPU-second, for comparison with `host-train bench env`.

usage: steps_envpool.py TASK SECONDS

One thread, batches of 1, 16 and 64 environments, of which the fastest counts. Random actions drawn beforehand; resets after
each episode are part of the work, and the clock is the process's, so the thread that hands the batches out counts, too.
Prints one JSON object.
"""

import json
import sys
import time

import envpool
import numpy as np

ROUNDS = 9
BATCHES = (1, 16, 64)


def rate(name, batch, seconds):
    env = envpool.make(name, env_type="gymnasium", num_envs=batch, num_threads=1, seed=1)
    low, high = env.action_space.low, env.action_space.high
    actions = np.random.default_rng(1).uniform(low, high, (97, batch, *low.shape)).astype(env.action_space.dtype)
    env.reset()
    rates, at = [], 0
    for round in range(ROUNDS + 1):
        start, done = time.process_time(), 0
        while time.process_time() - start < seconds:
            env.step(actions[at])
            at = (at + 1) % 97
            done += batch
        if round > 0:
            rates.append(done / (time.process_time() - start))
    env.close()
    return sorted(rates)[ROUNDS // 2]


def main(task, seconds):
    name = "".join(part.capitalize() for part in task.replace("-", "_").split("_")) + "-v1"
    rates = {batch: rate(name, batch, seconds / len(BATCHES)) for batch in BATCHES}
    print(json.dumps({"with_resets_per_cpu_second": max(rates.values()), "task": name, "batches": rates}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
