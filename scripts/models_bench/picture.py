"""Draws what network_table.py prints as a picture: median response times by server and connections, on a logarithmic axis.

Usage: picture.py FILE NOTE > models.svg
FILE has the lines `KIND CONNECTIONS REQUESTS/S P50_US P99_US P999_US FAILURES` of models_bench.sh; NOTE says where they are from.
"""

import math
import statistics
import sys
from xml.sax.saxutils import escape

# Colours that the colour-blind tell apart (Okabe and Ito).
SERVERS = {
    "disrust": ("disrust", "#0072b2"),
    "fastapi": ("FastAPI + onnxruntime", "#e69f00"),
    "mlserver": ("MLServer + LightGBM", "#999999"),
}
WIDTH, LEFT, RIGHT, TOP, BAR = 760, 120, 90, 64, 20


def main():
    runs = {}
    with open(sys.argv[1], encoding="ascii") as lines:
        for line in lines:
            kind, connections, _, p50, *_ = line.split()
            runs.setdefault((int(connections), kind), []).append(float(p50))
    groups = sorted({connections for connections, _ in runs})
    decades = math.ceil(math.log10(max(map(statistics.median, runs.values())))) - 1
    x = lambda microseconds: LEFT + (WIDTH - LEFT - RIGHT) * (math.log10(microseconds) - 1) / decades
    parts, y = [], TOP
    for connections in groups:
        here = [kind for kind in SERVERS if (connections, kind) in runs]
        middle = y + len(here) * BAR / 2 + 4
        parts.append(f'<text x="{LEFT - 8}" y="{middle}" text-anchor="end">{connections} connection{"s" * (connections > 1)}</text>')
        for kind in here:
            times = runs[connections, kind]
            end = x(statistics.median(times))
            parts.append(f'<rect x="{LEFT}" y="{y + 2}" width="{end - LEFT:.1f}" height="{BAR - 4}" fill="{SERVERS[kind][1]}"/>')
            parts.append(f'<path d="M{x(min(times)):.1f} {y + BAR / 2}H{x(max(times)):.1f}" stroke="#000"/>')
            parts.append(f'<text x="{max(end, x(max(times))) + 6:.1f}" y="{y + BAR / 2 + 4}">{statistics.median(times):,.0f} µs</text>')
            y += BAR
        y += 14
    for decade in range(decades + 1):
        at = x(10 ** (decade + 1))
        parts.append(f'<path d="M{at:.1f} {TOP - 6}V{y}" stroke="#ccc" stroke-width="0.5"/>')
        parts.append(f'<text x="{at:.1f}" y="{y + 14}" text-anchor="middle">{10 ** (decade + 1):,}</text>')
    for index, (name, colour) in enumerate(SERVERS.values()):
        parts.append(f'<rect x="{LEFT + index * 190}" y="34" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + index * 190 + 18}" y="44">{name}</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{y + 32}" text-anchor="middle">µs from request to answer, median; lines: smallest to largest</text>')
    parts.append(f'<text x="{WIDTH / 2}" y="{y + 50}" text-anchor="middle" fill="#555">{escape(sys.argv[2])}</text>')
    print(f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 62}" font-family="sans-serif" font-size="12">')
    print('<rect width="100%" height="100%" fill="#fff"/>')
    print('<text x="16" y="22" font-size="15">One row of a LightGBM model of 100 trees, scored over the network</text>')
    print("\n".join(parts) + "\n</svg>")


main()
