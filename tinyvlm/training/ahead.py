"""Batches made ahead: while a step runs, a thread makes what the next one needs."""

from concurrent.futures import ThreadPoolExecutor


class MadeAhead:
    """`batch = MadeAhead(make, end)(step)` is make(step), which is a function of its step alone.

    make(step + 1) runs in a thread meanwhile, unless that is `end`. What it raises comes at its own
    step.
    """

    def __init__(self, make, end):
        self.make, self.end = make, end
        self.pool, self.waiting = ThreadPoolExecutor(1), {}

    def __call__(self, step):
        batch = self.waiting.pop(step, None) or self.pool.submit(self.make, step)
        batch = batch.result()
        if step + 1 < self.end:
            self.waiting = {step + 1: self.pool.submit(self.make, step + 1)}
        return batch
