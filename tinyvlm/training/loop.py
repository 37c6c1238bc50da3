"""What stands around a training loop, and never a step of it: settings, files, clock, stops."""

import contextlib
import shutil
import signal
import sys
import time

import torch
from tqdm import tqdm

from tinyvlm.training import files
from tinyvlm.training.checkpoint import (
    checkpoint_file,
    describe_what_is_there,
    differences,
    load_checkpoint,
    load_optimizers,
    require_same,
    save_checkpoint,
)
from tinyvlm.training.config import Stopped, UserError
from tinyvlm.training.distributed import Distributed
from tinyvlm.training.interrupts import GracefulStop
from tinyvlm.training.optim import describe_optimizers

# What a run that goes on may change.
MAY_DIFFER = (
    "out", "resume", "overwrite", "device", "log_every", "eval_every", "eval_items", "clip", "init",
)  # fmt: skip

COMPILERS = ("g++", "clang++", "cl")  # of which torch.compile needs one on a CPU


class Run:
    """A run in its folder: `with Run(config, "clip") as run`, then steps, after_step, finish.

    Holds the processes, the folder's lock, the clock, the progress bar and the stop signals, and
    lets go of all of them however the context ends. Only the first process writes and prints.
    """

    def __init__(self, config, kind):
        self.config, self.kind = config, kind
        self.stack = contextlib.ExitStack()
        self.saved = None  # the checkpoint that the run goes on from
        self.start = None  # the same, or the one whose weights it begins with (--init)
        self.start_path = config.init
        self.begins = 0  # the first step of a run that goes on from none
        self.plan = [[0, config.steps]]  # from which step on how many steps were planned
        self.clock = dict(seconds=0.0, image_seconds=0.0, images=0, wall=0.0)

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            self.dist = stack.enter_context(Distributed(self.config.device))
            self.device, self.t_start = self.dist.device, time.time()
            self.folder = files.make_folder(self.config.out)
            if self.dist.is_main:
                stack.enter_context(files.locked(self.folder))
            self.look_into_folder()
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def look_into_folder(self):
        """Load what is to go on; refuse to replace another run unless that is asked for."""
        config, path = self.config, self.folder / "last.pt"
        if config.resume and config.overwrite:
            raise UserError("--resume goes on and --overwrite begins anew; give one of them")
        if config.resume:
            self.saved = self.start = load_checkpoint(path, self.kind)
            self.start_path = path
            planned = self.saved["config"]["steps"]
            may_differ = MAY_DIFFER + ("steps",) * (config.steps > planned)
            other = differences(config, self.saved["config"], path, may_differ)
            if other:
                what = f"{path} was trained with other settings ({'; '.join(other)})"
                raise UserError(f"{what}; give the same, or begin anew with --overwrite")
            self.plan = self.saved.get("plan", [[0, planned]])
            if config.steps > planned:
                self.plan = [*self.plan, [self.first_step, config.steps]]
                self.say(f"note: {describe_plan(self.plan)}")
            times = files.read_json(self.folder / "times.json")
            if not times:
                self.say(f"note: {self.folder}/times.json is missing; times count from here")
            self.clock |= {name: times[name] for name in self.clock if name in times}
        elif (lost := files.what_would_be_lost(self.folder)) and not config.overwrite:
            what = f"{self.folder} holds {describe_what_is_there(config, lost, MAY_DIFFER)}"
            hint = "name another --out, or go on with --resume, or replace it with --overwrite"
            raise UserError(f"{what}; {hint}")
        if config.init and not self.saved:
            self.start = load_checkpoint(config.init, self.kind)
            settings = self.start["config"]
            require_same(config, settings, config.init, ["held_out"], "give the same")

    @property
    def first_step(self):
        return self.saved["step"] if self.saved else self.begins

    def finished_metrics(self):
        """What metrics.json holds, if the run that goes on has nothing left to do; else None."""
        metrics = files.read_json(self.folder / "metrics.json")
        if not self.saved or self.first_step < self.config.steps or not metrics:
            return None
        path = checkpoint_file(self.folder)
        self.say(f"{path} is finished ({self.first_step} steps); nothing to do")
        return metrics

    def load_optimizers(self, optimizers):
        """Put them back to where the run goes on."""
        if self.saved:
            load_optimizers(optimizers, self.saved["optimizers"], self.folder / "last.pt")

    def say(self, text):
        """Print, in the first process alone, and above the progress bar."""
        if self.dist.is_main:
            tqdm.write(text)

    def describe(self, model, optimizers, title="training"):
        """What is trained: a line for the model and one for each group of parameters."""
        numbers = sum(p.numel() for p in model.parameters())
        lines = [f"{title}: {numbers:,} parameters on {self.device}, of which learn"]
        self.say("\n".join(lines + describe_optimizers(optimizers)))

    def prepare(self, model, find_unused=False):
        """The model as a step calls it: compiled if that is asked for, and what it learns shared by
        all processes; see Distributed.wrap_ddp. To be called anew when what is frozen changes."""
        ddp_model = self.dist.wrap_ddp(model, find_unused)
        if not self.config.compile:
            return ddp_model
        if self.device.type == "cpu" and not any(map(shutil.which, COMPILERS)):
            raise UserError(
                f"--compile needs a C++ compiler ({', '.join(COMPILERS)}); leave it out"
            )
        return torch.compile(ddp_model)

    # ------------------------------------------------------------ the steps

    def steps(self):
        """The steps that are left, each seeded by (seed, step), with a progress bar."""
        config = self.config
        self.stop = self.stack.enter_context(GracefulStop())
        bar = progress_bar(config.steps, self.first_step, self.kind, self.dist.is_main)
        self.bar = self.stack.enter_context(bar)
        for step in range(self.first_step, config.steps):
            torch.manual_seed(step_seed(config.seed, step, self.dist.rank))
            self.t0 = time.time()
            yield step
        self.bar.close()
        self.stop.restore()

    def after_step(
        self, step, loss, *, model, optimizers, validate, images, extra_state=None, **log
    ):
        """Everything that follows a step: clock, bar, log, validation, save, stop.

        loss: a scalar tensor, averaged over the processes for the log. validate: () -> {name:
        number}. images: pictures that the step saw. extra_state: what a checkpoint holds besides.
        log: more for the log's line. Raises Stopped after a stop signal, when all is saved.
        """
        config, next_step = self.config, step + 1
        if self.dist.is_main and step == self.first_step:
            # From here on it is this run's folder: one that cannot even begin leaves it as it was.
            files.start_run(self.folder, config, step if self.saved else 0)
        self.count_time(images)
        stopping = self.dist.any_rank(self.stop.caught is not None)
        mean = self.dist.all_reduce_sum(loss).item() / self.dist.size
        self.show_progress(mean, images, log.get("stage", ""))
        is_last = next_step == config.steps
        is_eval = next_step % config.eval_every == 0 or is_last
        if self.dist.is_main:
            if next_step % config.log_every == 0 or is_last:
                files.append_log(self.folder, next_step, **log, loss=mean)
            if is_eval:
                files.append_log(self.folder, next_step, **validate())
            if is_eval or stopping:
                self.save(next_step, model, optimizers, extra_state or {})
        if stopping or (is_last and self.dist.any_rank(self.stop.caught is not None)):
            self.dist.leaves_in_order = True
            text = f"stopped after step {next_step}, which is saved; go on with --resume"
            raise Stopped(text, 128 + (self.stop.caught or signal.SIGTERM))

    def count_time(self, images):
        self.dt = time.time() - self.t0
        self.clock["seconds"] += self.dt
        self.clock["images"] += images
        self.clock["image_seconds"] += self.dt * (images > 0)

    def show_progress(self, loss, images, stage):
        rate, unit = (images or self.config.batch_size) / self.dt, "images" if images else "texts"
        stage = f"{stage}, " if stage else ""
        self.bar.set_postfix_str(f"{stage}loss {loss:.3f}, {rate:.0f} {unit}/s", refresh=False)
        self.bar.update()

    def save(self, step, model, optimizers, extra_state):
        wall = self.clock["wall"] + time.time() - self.t_start
        times = self.clock | dict(wall=wall)
        files.write_json(self.folder / "times.json", {k: round(v, 2) for k, v in times.items()})
        save_checkpoint(
            self.folder, kind=self.kind, config=self.config, step=step,
            model=model, optimizers=optimizers, plan=self.plan, **extra_state,
        )  # fmt: skip

    # ------------------------------------------------------------ the end

    def finish(self, scores, found):
        """Write metrics.json: times, what stages found, {name: metric} as numbers; returns that."""
        clock = self.clock
        wall = clock["wall"] + time.time() - self.t_start  # with validation, test and pictures
        rate = clock["images"] / max(clock["image_seconds"], 1e-9)
        result = dict(seconds=clock["seconds"], wall_seconds=wall, images_per_second=rate)
        result = {name: round(value, 1) for name, value in result.items()}
        result |= found | {name: metric.value for name, metric in scores.items()}
        files.write_json(self.folder / "metrics.json", result)
        times = f"{wall:.0f} s, of which {clock['seconds']:.0f} s of training, {rate:.0f} images/s"
        if len(self.plan) > 1:
            print(describe_plan(self.plan))
        print(f"{times}; {self.folder}/samples.png and curves.png show what it learned")
        return result


def describe_plan(plan):
    """What the schedule of a run did that went on with more steps than it was begun for."""
    parts = [f"from step {first} on for {steps} steps" for first, steps in plan]
    return f"the learning rate was planned {', '.join(parts)}"


def step_seed(seed, step, rank):
    """A seed for whatever a step draws (dropout, say): the same when a run is resumed."""
    return (seed * 0x9E3779B1 + step * 0x85EBCA77 + rank * 0xC2B2AE3D) % 2**32


def progress_bar(total, start, label, shown=True):
    """tqdm; where the output is no terminal, a line every half minute."""
    pause = 0.5 if sys.stderr.isatty() else 30
    return tqdm(
        total=total, initial=start, desc=label, unit="step",
        dynamic_ncols=True, mininterval=pause, disable=not shown,
    )  # fmt: skip
