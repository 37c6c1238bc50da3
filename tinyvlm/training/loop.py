"""What stands around a training loop, and never a loop: stop signals, seeds, what is shown."""

import dataclasses
import signal
import sys
import threading

import torch

from data.shapes.scene import WORLDS
from tinyvlm.training.config import Stopped, UserError


class GracefulStop:
    """Ctrl-C and SIGTERM wait for the end of a step: `with StopSignals() as stop`, then ask `stop.caught`. A second Ctrl-C does not wait."""

    def __enter__(self):
        self.caught, self.before = None, {}
        if threading.current_thread() is threading.main_thread():
            self.before = {number: signal.signal(number, self.catch) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def catch(self, number, frame):
        if number == self.caught == signal.SIGINT:
            raise KeyboardInterrupt
        self.caught = self.caught or number  # SIGTERM often comes twice, from the system and from torchrun

    def __exit__(self, *error):
        for number, handler in self.before.items():
            signal.signal(number, handler)


def stopped(number, step):
    """What to raise after a stop signal, when step `step` is done and saved."""
    return Stopped(f"stopped after step {step}, which is saved; go on with --resume", 128 + (number or signal.SIGTERM))


def with_seed(make, seed):
    """make() with torch's generators seeded and put back afterwards, so that each part's weights depend on `seed` alone."""
    with torch.random.fork_rng(devices=[]):  # weights are made on the CPU
        torch.manual_seed(seed)
        return make()


def build_world(config):
    """The world that a script's settings name: World. UserError if they do not go together."""
    try:
        return dataclasses.replace(WORLDS[config.world], held_out=config.held_out)
    except ValueError as error:
        raise UserError(f"--world {config.world} --held-out {config.held_out}: {error}")


def progress_bar(total, start, label, shown=True):
    """tqdm; where the output is no terminal, a line every half minute."""
    from tqdm import tqdm

    pause = 0.5 if sys.stderr.isatty() else 30
    return tqdm(total=total, initial=start, desc=label, unit="step", dynamic_ncols=True, mininterval=pause, disable=not shown)


def print_table(title, rows):
    """rows: [(name, value, interval or None, items, what it means)]."""
    print(f"\n{title}")
    print(f"  {'':28}{'value':>8}  {'95 % interval':>17}{'items':>8}")
    for name, value, interval, items, meaning in rows:
        span = f"[{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        print(f"  {name:28}{value:8.3f}  {span:>17}{items:>8}  {meaning}")
    print()
