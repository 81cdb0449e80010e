"""Sound records for tests, made without training."""

import base64
import hashlib
import json
import math

from bisam.evidence import record
from bisam.training import data, environment


def sound(run, accuracy=90.0, schema=record.SCHEMA, experiment="e", scale="paper", images=500):
    """A record of a run in which every epoch has the same accuracy; with schema 3 it must be a whole number of the images."""
    epochs, right = run.epochs, round(accuracy * images / 100)
    rows = {"lr": None, "train_loss": 0.5, "train_accuracy": 95.0, "broken": 3, "validation_accuracy": 91.0, "test_accuracy": accuracy}
    if "rate" in run.recipe.to_dict()["radius"]:
        rows["rho"] = 0.1
    packed = ("1" * right).ljust(-(-images // 8) * 8, "0")
    text = base64.b64encode(int(packed, 2).to_bytes(len(packed) // 8, "big")).decode()
    there = environment.environment("cpu", 1.0, run.precision)
    rates = [round(run.lr / 2 * (1 + math.cos(math.pi * epoch / epochs)), 5) for epoch in range(epochs)]
    found = {
        "schema": schema, "experiment": experiment, "scale": scale, "run": run.to_dict(),
        "final": {
            "selected_epoch": 1, "selected_test_accuracy": accuracy, "last_test_accuracy": accuracy, "broken": 3.0, "skipped": 0,
            "train_accuracy": 97.0, "gap": 97.0 - accuracy,
        },
        "curve": {name: [value] * epochs for name, value in rows.items()} | {"lr": rates},
        "right": {"images": images, "selected": text, "last": text},
        "data_fingerprint": data.load("digits").fingerprint, "weights_digest": hashlib.sha256(json.dumps(run.to_dict()).encode()).hexdigest()[:16], "environment": there,
    }  # fmt: skip
    if schema < 3:
        del found["right"], found["final"]["train_accuracy"], found["final"]["gap"]
        found["environment"] = {name: there[name] for name in ("python", "torch", "device", "wall_seconds", "commit")}
    return found
