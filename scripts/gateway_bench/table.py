"""Prints a Markdown table of lines `KIND CONNECTIONS REQUESTS/S P50_US P99_US FAILURES`. Usage: table.py FILE"""

import statistics
import sys

NAMES = {
    "native": "disrust, native protocol",
    "json": "disrust-gateway, JSON",
    "binary": "disrust-gateway, binary tensors",
    "fastapi": "FastAPI + onnxruntime, JSON",
    "mlserver": "MLServer + LightGBM, JSON",
}


def cell(values):
    digits = 0 if min(values) >= 100 else 1
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f}..{max(values):,.{digits}f})"


def against(ours, theirs):
    """The median of ours over theirs, round by round."""
    return statistics.median(own / other for own, other in zip(ours, theirs))


def main():
    runs = {}
    with open(sys.argv[1], encoding="ascii") as lines:
        for line in lines:
            kind, connections, *figures = line.split()
            runs.setdefault((int(connections), kind), []).append([float(figure) for figure in figures])
    columns = {run: list(zip(*figures)) for run, figures in runs.items()}
    print("| connections | server | requests/s | p50 µs | p99 µs | failed | p50 above native, µs | JSON gateway's requests/s × | its p50 × |")
    print("|---|---|---|---|---|---|---|---|---|")
    for (connections, kind), own in sorted(columns.items(), key=lambda run: (run[0][0], list(NAMES).index(run[0][1]))):
        native, gateway = columns.get((connections, "native")), columns.get((connections, "json"))
        above = times = part = ""
        if kind in ("json", "binary") and native:
            above = f"{statistics.median(a - b for a, b in zip(own[1], native[1])):,.1f}"
        if kind in ("fastapi", "mlserver") and gateway:
            times, part = f"{against(gateway[0], own[0]):.1f}", f"{against(gateway[1], own[1]):.3f}"
        print(f"| {connections} | {NAMES[kind]} | " + " | ".join(map(cell, own[:3])) + f" | {sum(own[3]):.0f} | {above} | {times} | {part} |")


main()
