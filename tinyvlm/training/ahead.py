"""Batches made ahead: while a GPU computes a step, a thread makes what the next one needs."""

from concurrent.futures import ThreadPoolExecutor


class MadeAhead:
    """`batch = MadeAhead(make, end, device)(step)` is make(step), a function of its step alone.

    make(step + 1) runs in a thread meanwhile, unless that is `end`. What it raises comes at its own
    step. On a CPU nothing is made ahead: a step needs all cores, and one that shares them takes a
    tenth longer (experiments/LOG.md).
    """

    def __init__(self, make, end, device):
        self.make, self.end = make, end
        self.pool = None if device.type == "cpu" else ThreadPoolExecutor(1)
        self.waiting = {}

    def __call__(self, step):
        if self.pool is None:
            return self.make(step)
        batch = self.waiting.pop(step, None) or self.pool.submit(self.make, step)
        batch = batch.result()
        if step + 1 < self.end:
            self.waiting = {step + 1: self.pool.submit(self.make, step + 1)}
        return batch
