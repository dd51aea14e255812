"""Prints a Markdown table of lines `KIND CONNECTIONS REQUESTS/S P50_US P99_US P999_US FAILURES`. Usage: network_table.py FILE"""

import statistics
import sys

NAMES = {"disrust": "disrust", "fastapi": "FastAPI + onnxruntime", "mlserver": "MLServer + LightGBM"}


def cell(values):
    digits = 0 if min(values) >= 100 else 1
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}..{max(values):,.{digits}f})"


def main():
    runs = {}
    with open(sys.argv[1], encoding="ascii") as lines:
        for line in lines:
            kind, connections, *figures = line.split()
            runs.setdefault((int(connections), kind), []).append([float(figure) for figure in figures])
    print("| connections | server | requests/s | p50 µs | p99 µs | p99.9 µs | failed |")
    print("|---|---|---|---|---|---|---|")
    for (connections, kind), figures in sorted(runs.items(), key=lambda run: (run[0][0], list(NAMES).index(run[0][1]))):
        columns = list(zip(*figures))
        print(f"| {connections} | {NAMES[kind]} | " + " | ".join(map(cell, columns[:4])) + f" | {sum(columns[4]):.0f} |")


main()
