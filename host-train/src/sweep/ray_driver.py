"""Runs the open runs of a sweep on a Ray cluster, one task each.

Reads one line of JSON from standard input: where the cluster is, the command of a task, and the numbers of the runs.
Writes one line of JSON for each run that is over: its number, its exit code and its last words. A task that fails is
retried by Ray, wherever it likes, and goes on from the newest checkpoint; exit code 2, a refusal, is not retried. The end
of standard input stops the sweep: a training whose worker is gone saves its state and stops, since its own standard
input ends then.
"""

import json
import os
import signal
import subprocess
import sys
import threading

# Ray's own instance, started for a sweep, reports to nobody unless the user wants it to.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray  # noqa: E402


class Failed(Exception):
    """An attempt that is worth another one."""


def attempt(command, folder):
    """One attempt at one run; its exit code and last words."""
    # A session of its own, so that whoever kills the worker's group leaves it the time to save.
    child = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    said = [line.strip() for line in child.stdout if line.strip()]
    code = child.wait()
    last = said[-1].removeprefix("error: ") if said else "no reason was given"
    if code in (0, 2):
        return code, last
    raise Failed(f"{last} (exit code {code})")


def reason(error):
    """The last line of what Ray says went wrong."""
    cause = getattr(error, "cause", None)
    lines = [line for line in str(cause or error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__


def stop_at_the_end_of_input():
    for _ in sys.stdin:
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main():
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=stop_at_the_end_of_input, daemon=True).start()
    jobs, address = request["jobs"], request["address"]
    own = {}
    if address == "local":
        own = {"num_cpus": jobs, "include_dashboard": False, "object_store_memory": 100_000_000}
    ray.init(address=address, log_to_driver=False, logging_level="warning", **own)
    # Ray has a handler of its own; ours ends the waiting below.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    task = ray.remote(num_cpus=1, max_retries=request["retries"], retry_exceptions=[Failed])(attempt)
    waiting, running = list(reversed(request["runs"])), {}
    while waiting or running:
        while waiting and (jobs is None or len(running) < jobs):
            run = waiting.pop()
            running[task.remote([*request["command"], str(run)], request["folder"])] = run
        done, _ = ray.wait(list(running), num_returns=1)
        for reference in done:
            try:
                code, said = ray.get(reference)
            except Exception as error:  # whatever Ray wraps it in
                code, said = 1, reason(error)
            print(json.dumps({"run": running.pop(reference), "code": code, "said": said}), flush=True)
    ray.shutdown()


try:
    main()
except KeyboardInterrupt:
    sys.exit(130)
except Exception as error:
    print(f"error: {reason(error)}", file=sys.stderr)
    sys.exit(1)
