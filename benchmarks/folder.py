"""A table of a user's own files at size: seconds and memory of reading it, and of `find` with its files.

    python -m benchmarks.folder [--rows=1000000] [--folder=DIR]

The table and as many small files, a thousand in a folder, are written below --folder (a temporary one by default) and
taken away again. Memory is the peak of the process, before and after each step.
"""

import argparse
import csv
import pathlib
import resource
import tempfile
import time

from data_prep.catalog import Options
from data_prep.folder import downloads, table
from msddf_jax import paths


def write_files(root, rows):
    """The table of so many rows, and its files, each of another size than its neighbours. Returns the table's path."""
    names = [f"{i // 1000:04d}/photo {i}, {i % 7}.jpg" for i in range(rows)]
    for start in range(0, rows, 1000):
        (root / names[start]).parent.mkdir(parents=True)
        for number, name in enumerate(names[start : start + 1000], start):
            with open(root / name, "wb") as file:
                file.write(b"%d" % number)
    with open(root / "list.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "method", "identity"))
        writer.writerows((n, i % 2, "simswap" * (i % 2), f"p{i // 5}") for i, n in enumerate(names))
    return root / "list.csv"


def measure(what, function):
    """Call, and print its seconds and the peak of the process in MiB. Returns the result."""
    start = time.perf_counter()
    result = function()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{what}: {time.perf_counter() - start:.1f} s, peak {peak:.0f} MiB", flush=True)
    return result


def main():
    """Write, read, find."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=paths.expand, help="where to write, on the disk that is to be measured")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as root:
        path = measure("write", lambda: write_files(pathlib.Path(root), args.rows))
        rows, _ = measure("read the table", lambda: table.read_table(path))
        print(f"{len(rows)} rows")
        del rows
        entries, problems = measure("find", lambda: downloads.find(path, "scenes", Options()))
        print(f"{len(entries)} files; {', '.join(problem.detail for problem in problems)}")


if __name__ == "__main__":
    main()
