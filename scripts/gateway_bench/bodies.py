"""Writes one row as each server takes it. Usage: bodies.py FOLDER FEATURES"""

import json
import os
import random
import struct
import sys

folder, features = sys.argv[1], int(sys.argv[2])
random.seed(17)
row = [struct.unpack("<f", struct.pack("<f", random.uniform(-3, 3)))[0] for _ in range(features)]
tensor = {"name": "input", "shape": [1, features], "datatype": "FP32"}


def write(name, *parts):
    with open(os.path.join(folder, name), "wb") as file:
        file.write(b"".join(parts))


# What a client writes who has 32-bit numbers, to four digits, as people write features down.
short = [round(value, 4) for value in row]
write("fastapi.body", json.dumps({"rows": [short]}).encode())
write("kserve.body", json.dumps({"inputs": [{**tensor, "data": short}]}).encode())
head = json.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": 4 * features}}], "parameters": {"binary_data_output": True}})
write("binary.body", head.encode(), struct.pack(f"<{features}f", *short))
write("binary.headers", f"Inference-Header-Content-Length: {len(head)}".encode())
