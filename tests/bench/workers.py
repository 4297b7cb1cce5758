"""One worker beside two: the demo's training at the same global batch, and whether their AP differ by more than chance.

    uv run rayseg demo
    uv run python tests/bench/workers.py --demo rayseg-demo                   4 minutes each, then the paired interval
    uv run python tests/bench/workers.py --demo rayseg-demo --steps 1000      the same number of steps instead

Two workers take half of each batch; one takes all of it in the same two halves, so that both add up the same gradients. Both
are measured on the held-out images, and compared as `rayseg eval --compare` does: images drawn anew, in pairs. What is there
already below OUT is not trained again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

JOB = Path(__file__).parents[2] / "jobs" / "train-demo.yaml"


def rayseg(*words: str) -> None:
    """Run the command; it must end well."""
    subprocess.run([str(Path(sys.executable).with_name("rayseg")), *words], check=True)


def train(demo: Path, out: Path, workers: int, budget: list[str]) -> None:
    """By `workers`, each with 2 of the 4 images of a batch at once."""
    places = [f"data={demo}/train", f"val={demo}/held-out", f"out={out}"]
    rayseg("train", "-f", str(JOB), *places, f"workers={workers}", "micro_batch=2", *budget)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("rayseg-demo"), help="what `rayseg demo` has left")
    parser.add_argument("--out", type=Path, help="models and evaluations; none: DEMO/workers")
    parser.add_argument("--steps", type=int, help="of each; none: 240 seconds")
    args = parser.parse_args()
    demo = args.demo.resolve()
    out = (args.out or demo / "workers").resolve()
    budget = [] if args.steps is None else ["seconds=null", f"steps={args.steps}"]
    for workers in (1, 2):
        train(demo, out / f"trained-{workers}", workers, budget)
        told = str(out / f"eval-{workers}")
        rayseg("eval", "--data", f"{demo}/held-out", "--model", str(out / f"trained-{workers}"), "--out", told)
    for workers in (1, 2):
        card = json.loads((out / f"trained-{workers}" / "model.json").read_text())
        print(f"{workers} worker{'s' if workers > 1 else ''}: {card['training']['steps']:,} steps")
    rayseg("eval", "--compare", str(out / "eval-1"), str(out / "eval-2"))


if __name__ == "__main__":
    main()
