"""How an update's cost grows with candidates, particles, Euler steps and batch: runs `host-train bench update` along each.

    python3 benches/scaling.py target/release/host-train

Prints Markdown: the time of an update at each point, a straight line through them by least squares, and the largest
deviation from it. A machine whose clock wanders moves both the update and the matrix products that are measured in turn
with it; so times are told at the clock of the first measurement, from each one's share of the peak. Standard library
only; about two CPU-minutes.
"""

import json
import subprocess
import sys

STANDARD = {"hidden": 64, "batch": 128, "actor-batch": 128, "particles": 1, "samples": 32, "integration-steps": 10}
AXES = [
    ("candidates K", ["samples"], [16, 32, 64, 128]),
    ("particles P (from two on the critics choose)", ["particles"], [2, 4, 8, 16]),
    ("Euler steps S", ["integration-steps"], [5, 10, 20, 40]),
    ("batch B = A", ["batch", "actor-batch"], [64, 128, 256, 512]),
]


def measure(binary, changed):
    options = [f"--{name}={value}" for name, value in {**STANDARD, **changed}.items()]
    command = [binary, "bench", "update", "--json", "--control-variate=diagonal", *options]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def line(x, y):
    """Least squares: slope, intercept."""
    mx, my = sum(x) / len(x), sum(y) / len(y)
    slope = sum((a - mx) * (b - my) for a, b in zip(x, y)) / sum((a - mx) ** 2 for a in x)
    return slope, my - slope * mx


def main():
    peak = None
    print("| along | at | microseconds | line | largest deviation |")
    print("|---|---|---|---|---:|")
    for title, names, points in AXES:
        times = []
        for point in points:
            found = measure(sys.argv[1], dict.fromkeys(names, point))
            peak = peak or found["gemm_peak_gflops"]
            times.append(1e3 * found["useful_mflop_per_update"] / (found["gemm_peak_share"] * peak))
        slope, start = line(points, times)
        worst = max(abs(start + slope * x - y) / y for x, y in zip(points, times))
        listed = ", ".join(map(str, points)), ", ".join(f"{t:.0f}" for t in times)
        print(f"| {title} | {listed[0]} | {listed[1]} | {start:.0f} + {slope:.2f} n | {100 * worst:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
