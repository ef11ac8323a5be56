# Gymnasium environments that misbehave, for peers_gym.rs: import them as `gym_cases:NAME-v0`.
import os
import time

import gymnasium
import numpy
from gymnasium.envs.registration import register
from gymnasium.spaces import Box, Dict


class Case(gymnasium.Env):
    metadata = {"render_fps": 20}

    def __init__(self, case):
        self.case = case
        bound = numpy.inf if case == "unbounded" else 1.0
        self.action_space = Box(-bound, bound, (2,), numpy.float32)
        plain = Box(-numpy.inf, numpy.inf, (3,), numpy.float64)
        self.observation_space = Dict({"a": plain}) if case == "dict" else plain
        self.steps = 0

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.np_random.normal(size=3), {}

    def step(self, action):
        self.steps += 1
        observation, reward = numpy.zeros(3), 1.0
        if self.steps == 5:
            if self.case == "nan_reward":
                reward = float("nan")
            if self.case == "nan_observation":
                observation[1] = float("nan")
            if self.case == "dies":
                os._exit(3)
            if self.case == "raises":
                raise ValueError("the motor\nis hot")
        if self.case == "prints":
            print("noise on standard output")
        if self.case == "slow":
            time.sleep(0.01)
        return observation, reward, False, False, {}


for name in ["unbounded", "dict", "nan_reward", "nan_observation", "dies", "raises", "prints", "slow"]:
    limit = 10 if name == "prints" else None
    register("%s-v0" % name, entry_point=Case, kwargs={"case": name}, max_episode_steps=limit)
