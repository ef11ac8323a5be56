# The child process of `--env gym:ID`: one Gymnasium environment behind a binary pipe.
#
# Every message is a length (u32) and that many bytes; all numbers are little-endian.
#   to the child    R seed:u64              reset
#                   S action:f64 * act      one control step
#   from the child  I json                  once: what the environment is
#                   O reward:f64 terminated:u8 truncated:u8 observation:f64 * obs
#                   E sentence              the command could not be carried out; the child ends
# The end of standard input ends the child.
import json
import os
import struct
import sys

# Whatever libraries print must not get into the pipe.
pipe_in = os.fdopen(os.dup(0), "rb")
pipe_out = os.fdopen(os.dup(1), "wb")
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
os.dup2(2, 1)


def send(kind, body):
    pipe_out.write(struct.pack("<I", 1 + len(body)) + kind + body)
    pipe_out.flush()


def fail(sentence):
    send(b"E", " ".join(str(sentence).split()).encode())
    sys.exit(1)


def reason(error):
    return "%s: %s" % (type(error).__name__, error)


env_id = sys.argv[1]
try:
    import gymnasium
    import numpy
except ImportError as error:
    fail(
        "%s has no Gymnasium (%s): run its `-m pip install gymnasium[mujoco]`, or name another interpreter in FLOWLET_PYTHON"
        % (sys.executable, error)
    )
try:
    env = gymnasium.make(env_id)
except Exception as error:
    fail("Gymnasium cannot make %s (%s): check the ID and that its packages are installed" % (env_id, reason(error)))

actions, observations = env.action_space, env.observation_space
if not isinstance(actions, gymnasium.spaces.Box):
    fail(
        "the actions of %s are %s: only continuous actions (a Box) can be trained on, choose another environment"
        % (env_id, actions)
    )
if not isinstance(observations, gymnasium.spaces.Box):
    fail("the observations of %s are %s: only a Box can be observed, choose another environment" % (env_id, observations))
low, high = actions.low.ravel().astype(float), actions.high.ravel().astype(float)
if not (numpy.isfinite(low).all() and numpy.isfinite(high).all() and (low < high).all()):
    fail("the actions of %s are not bounded (%s): wrap it so that they are" % (env_id, actions))

period = getattr(env.unwrapped, "dt", None)
if not isinstance(period, (int, float)) or not period > 0:
    frames = env.metadata.get("render_fps") or 0
    period = 1.0 / frames if frames > 0 else 0.02
send(
    b"I",
    json.dumps(
        {
            "obs": int(numpy.prod(observations.shape)),
            "low": low.tolist(),
            "high": high.tolist(),
            "period": float(period),
            "limit": env.spec.max_episode_steps,
            "version": gymnasium.__version__,
        }
    ).encode(),
)


def answer(reward, terminated, truncated, observation):
    numbers = numpy.asarray(observation, dtype="<f8").tobytes()
    send(b"O", struct.pack("<dBB", float(reward), bool(terminated), bool(truncated)) + numbers)


try:
    while True:
        head = pipe_in.read(4)
        if len(head) < 4:
            break
        message = pipe_in.read(struct.unpack("<I", head)[0])
        if message[:1] == b"R":
            observation, _ = env.reset(seed=struct.unpack("<Q", message[1:])[0])
            answer(0.0, False, False, observation)
        else:
            action = numpy.frombuffer(message[1:], dtype="<f8").reshape(actions.shape).astype(actions.dtype)
            observation, reward, terminated, truncated, _ = env.step(action)
            answer(reward, terminated, truncated, observation)
except BrokenPipeError:
    pass
except Exception as error:
    fail("the environment %s failed (%s): mend it or choose another" % (env_id, reason(error)))
