"""One dataclass of settings to a typed command line: one flag a field, and nothing is guessed.

A field says its help, and its bounds or choices where it has any:

    steps: int = option(1000, "optimizer steps", min=1)

Unknown and abbreviated flags are errors, `--compile False` is one too (a switch is `--compile` or `--no-compile`).
"""

import argparse
import dataclasses
import difflib
import math
import os
import signal
import sys
import threading
import traceback


class UserError(Exception):
    """The user's input is at fault: exit code 2. The text is "WHAT; WHAT TO DO"."""


class Stopped(Exception):
    """A stop signal ended a run in good order: (text, exit code)."""


def option(default, help, *, min=None, max=None, choices=None, positional=False, alias=None):
    """A dataclass field with the help text, the bounds (inclusive) and the choices of its flag; alias: an older name of the flag; positional: it has no flag, its value stands alone."""
    return dataclasses.field(default=default, metadata=dict(help=help, min=min, max=max, choices=choices, positional=positional, alias=alias))


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message.replace(os.linesep, ' ')}; see --help")


def parse(config_class, arguments, description):
    """Command-line arguments (a list of strings) -> a checked config. Raises UserError."""
    parser = Parser(description=description, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(config_class):
        flag, meta = "--" + field.name.replace("_", "-"), field.metadata
        shown = meta["help"] + (f": {', '.join(map(str, meta['choices']))}" if meta["choices"] else "")
        shown = f"{shown} (default: {field.default if field.default not in ('', ()) else 'none'})".replace("%", "%%")
        if meta["positional"]:
            parser.add_argument(field.name, nargs="?", default=field.default, help=shown, metavar=field.name.upper())
        elif field.type is tuple:
            parser.add_argument(flag, nargs="+", default=field.default, help=shown, metavar=field.name.upper())
        elif field.type is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=field.default, help=shown)
        else:
            parser.add_argument(flag, *[meta["alias"]] * bool(meta["alias"]), type=field.type, default=field.default, help=shown, metavar=field.type.__name__.upper())
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        raise UserError(f"unknown argument {unknown[0]!r}{did_you_mean(unknown[0], flags_of(config_class))}; see --help")
    return validate(config_class(**{name: tuple(v) if isinstance(v, list) else v for name, v in vars(known).items()}))


def validate(config):
    """Raise UserError if a field is out of its bounds; returns the config."""
    for field in dataclasses.fields(config):
        value, meta, flag = getattr(config, field.name), field.metadata, "--" + field.name.replace("_", "-")
        if field.type is float and not math.isfinite(value):
            raise UserError(f"{flag} is {value}; give a finite number")
        if meta["min"] is not None and value < meta["min"]:
            raise UserError(f"{flag} is {value}; give at least {meta['low']}")
        if meta["max"] is not None and value > meta["max"]:
            raise UserError(f"{flag} is {value}; give at most {meta['high']}")
        if meta["choices"] and value not in meta["choices"]:
            raise UserError(f"{flag} is {value!r}{did_you_mean(value, meta['choices'])}; choose one of {', '.join(map(str, meta['choices']))}")
    return config


def flags_of(config_class):
    names = [(f.name.replace("_", "-"), f.type) for f in dataclasses.fields(config_class) if not f.metadata["positional"]]
    return ["--" + name for name, _ in names] + ["--no-" + name for name, kind in names if kind is bool]


def did_you_mean(word, known):
    close = difflib.get_close_matches(str(word).split("=")[0], [str(k) for k in known], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def run_script(main, config_class, description):
    """Parse sys.argv, call main(config), and turn what goes wrong into one line and an exit code."""
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)
        main(parse(config_class, sys.argv[1:], description))
        sys.stdout.flush()
    except UserError as error:
        exit_with_error(error, 2)
    except Stopped as stop:
        exit_with_error(*stop.args)
    except KeyboardInterrupt:
        exit_with_error("stopped; a training goes on from its last save with --resume", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:  # whatever else: one line for people, the traceback for TINYVLM_DEBUG=1
        out_of_memory = isinstance(error, MemoryError) or "out of memory" in str(error) or "can't allocate memory" in str(error)
        hint = "try a smaller --batch-size (or fewer --items)" if out_of_memory else "TINYVLM_DEBUG=1 shows the traceback"
        exit_with_error(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}; {hint}", 1)


def on_sigterm(number, frame):
    """SIGTERM where nothing has to be saved: an exit like any other, with a line and a code."""
    raise Stopped("stopped", 128 + number)


def exit_with_error(message, code):
    if os.environ.get("TINYVLM_DEBUG") == "1":
        traceback.print_exc()
    rank = os.environ.get("RANK", "0")
    print(f"error: {message}" if rank == "0" else f"error: process {rank}: {message}", file=sys.stderr)
    sys.exit(code)
