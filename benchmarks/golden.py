"""Whether a change has changed a result: compares what `kedro run --env test` has made before it and after it.

    python benchmarks/golden.py BEFORE AFTER [--dataset test_run]

BEFORE and AFTER are `data` folders of the old revision and of the new one, made on one machine with as many threads.
The three training histories and `metrics.json` must be equal to the digit, wherever in the folders they lie; only the
seconds that a training took may differ. Exits with 1 if anything differs. A metric that is new is named, and no error.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

HISTORIES = ("field_history.csv", "classifier_history.csv", "denoiser_history.csv")


def find(data: Path, dataset: str, name: str) -> Path:
    found = sorted(data.glob(f"*/{dataset}/**/{name}"))
    if len(found) != 1:
        raise SystemExit(
            f"{len(found)} files {name} of {dataset} in {data}, where one is expected: run on an empty folder"
        )
    return found[0]


def compare_histories(before: Path, after: Path) -> list[str]:
    """What differs, a line for each column."""
    old, new = (pd.read_csv(path).drop(columns="seconds") for path in (before, after))
    if list(old.columns) != list(new.columns) or len(old) != len(new):
        return [f"{after.name}: {len(old)} rows of {list(old.columns)} before, {len(new)} of {list(new.columns)} after"]
    return [f"{after.name}: {column} differs" for column in old if not old[column].equals(new[column])]


def compare_metrics(before: Path, after: Path) -> tuple[list[str], list[str]]:
    """What differs, and the names of what is new."""
    old, new = (json.loads(path.read_text()) for path in (before, after))
    differing = [f"{name}: {old[name]} before, {new.get(name)} after" for name in old if old[name] != new.get(name)]
    return differing, sorted(new.keys() - old.keys())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="the folder `data` of the old revision's run")
    parser.add_argument("after", type=Path, help="the folder `data` of the new revision's run")
    parser.add_argument("--dataset", default="test_run", help="folder of the run, below each layer")
    options = parser.parse_args(arguments)
    differing: list[str] = []
    for name in HISTORIES:
        differing += compare_histories(*(find(data, options.dataset, name) for data in (options.before, options.after)))
    found, new = compare_metrics(
        *(find(data, options.dataset, "metrics.json") for data in (options.before, options.after))
    )
    differing += found
    for line in differing:
        print(line)
    if new:
        print(f"new in metrics.json: {', '.join(new)}")
    print("results differ" if differing else "results are equal to the digit")
    return int(bool(differing))


if __name__ == "__main__":
    raise SystemExit(main())
