"""dm_control's control steps per CPU-second, for comparison with `host-train bench env`.

usage: steps_dm_control.py TASK SECONDS

Random actions drawn beforehand; resets after each episode are timed apart. Prints one JSON object.
"""

import json
import os
import sys
import time

os.environ["MUJOCO_GL"] = "disable"

import numpy as np
from dm_control import suite

ROUNDS = 9


def main(task, seconds):
    domain, name = task.split("-")
    env = suite.load(domain, name, task_kwargs={"random": 1})
    spec = env.action_spec()
    actions = np.random.default_rng(1).uniform(spec.minimum, spec.maximum, (997, *spec.shape))
    rates, whole, at, left = [], [], 0, 0
    for round in range(ROUNDS + 1):
        start, done, resets = time.process_time(), 0, 0.0
        while time.process_time() - start < seconds:
            for _ in range(50):
                if left == 0:
                    reset = time.process_time()
                    env.reset()
                    left, resets = 1000, resets + time.process_time() - reset
                env.step(actions[at])
                at, left = (at + 1) % 997, left - 1
            done += 50
        used = time.process_time() - start
        # The first warms up.
        if round > 0:
            rates.append(done / (used - resets))
            whole.append(done / used)
    rates, whole = sorted(rates)[ROUNDS // 2], sorted(whole)[ROUNDS // 2]
    print(json.dumps({"steps_per_cpu_second": rates, "with_resets_per_cpu_second": whole, "task": task}))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
