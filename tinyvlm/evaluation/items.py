"""What each item of a test scored, as a file: who compares two runs later needs no model for it.

items.json holds {name: metric} with the arrays of each metric, some kB in all: numbers as they come
from float32, compressed, in base64.
"""

import base64
import json
import math
import zlib

import numpy as np

from tinyvlm.evaluation.statistics import RatioMetric
from tinyvlm.training.files import write_atomically


def save_items(path, scores):
    """{name: RatioMetric} -> a file."""
    packed = {name: pack(metric) for name, metric in scores.items()}
    write_atomically(path, (json.dumps(packed, indent=1) + "\n").encode())


def load_items(path):
    """A file of save_items -> {name: RatioMetric}, whose arrays are float32's numbers."""
    packed = json.loads(path.read_text(encoding="utf-8"))
    return {name: unpack(one) for name, one in packed.items()}


def pack(metric):
    """A metric as a dict of texts and, where it has one, its chance. A denominator that is the same
    for all items (a proportion's is) is one number."""
    denominator = metric.denominator
    if (denominator == denominator[0]).all():
        denominator = denominator[:1]
    packed = dict(
        numerator=to_text(metric.numerator, "<f4"),
        denominator=to_text(denominator, "<f4"),
        cluster=to_text(np.diff(metric.cluster, prepend=0), "<i4"),
    )
    return packed if math.isnan(metric.chance) else packed | dict(chance=round(metric.chance, 6))


def unpack(packed):
    numerator = from_text(packed["numerator"], "<f4").astype(float)
    denominator = from_text(packed["denominator"], "<f4").astype(float)
    return RatioMetric(
        numerator,
        np.broadcast_to(denominator, numerator.shape),
        from_text(packed["cluster"], "<i4").cumsum(),
        chance=packed.get("chance", math.nan),
    )


def to_text(array, dtype):
    compressed = zlib.compress(np.ascontiguousarray(array, dtype).tobytes(), 9)
    return base64.b64encode(compressed).decode()


def from_text(text, dtype):
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype)
