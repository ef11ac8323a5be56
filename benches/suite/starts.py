"""Moments of dm_control's start states, for `host-train/tests/suite.rs` to hold ours against.

usage: suite_starts.py EPISODES OUT.json TASK...

For each task the means of x, x^2 and x^4 over so many resets, of all observation channels and then of all positions.
"""

import json
import os
import sys

os.environ["MUJOCO_GL"] = "disable"

import numpy as np
from dm_control import suite


def moments(task, episodes):
    domain, name = task.split("-")
    env = suite.load(domain, name, task_kwargs={"random": 1})
    sums = 0.0
    for _ in range(episodes):
        seen = [np.ravel(part) for part in env.reset().observation.values()] + [env.physics.data.qpos]
        x = np.concatenate(seen)
        sums = sums + np.stack([x, x**2, x**4])
    return [[float(f"{value:.12g}") for value in row] for row in sums / episodes]


def main(episodes, out, tasks):
    found = {}
    for task in tasks:
        found[task] = moments(task, episodes)
        print(task, flush=True)
    with open(out + ".part", "w") as file:
        json.dump({"episodes": episodes, "tasks": found}, file, separators=(",", ":"))
    os.replace(out + ".part", out)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
