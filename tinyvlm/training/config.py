"""One dataclass of settings to a typed command line: one flag a field, and nothing is guessed.

A field says its help, and its bounds or choices where it has any:

    steps: int = option(1000, "optimizer steps", min=1)

Unknown and abbreviated flags are errors, `--compile False` is one too (a switch is `--compile` or
`--no-compile`).
"""

import argparse
import contextlib
import dataclasses
import difflib
import inspect
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


def option(
    default, help, *, min=None, max=None, choices=None, alias="", renamed=None, positional=False
):
    """A dataclass field with its help text, bounds (inclusive) and choices.

    alias: older names of the flag, by spaces, still understood. renamed: {older value: today's}.
    positional: it has no flag, its value stands alone.
    """
    metadata = dict(help=help, min=min, max=max, choices=choices, positional=positional)
    return dataclasses.field(
        default=default, metadata=metadata | dict(alias=alias.split(), renamed=renamed)
    )


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise UserError(f"{message.replace(os.linesep, ' ')}; see --help")


def flag_of(field):
    """As it is typed: a positional one stands alone."""
    return field.name if field.metadata["positional"] else "--" + field.name.replace("_", "-")


def parse(config_class, arguments, description):
    """Command-line arguments (a list of strings) -> a checked config. Raises UserError."""
    given = parse_settings(config_class, arguments, description)
    return validate_config(with_recipe(config_class, given))


def parse_settings(config_class, arguments, description=""):
    """What the arguments say, {name: value}, and nothing else. Raises UserError."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = Parser(description=description, allow_abbrev=False, formatter_class=formatter)
    for field in dataclasses.fields(config_class):
        add_argument(parser, field)
    known, unknown = parser.parse_known_args(arguments)
    if unknown:
        hint = did_you_mean(unknown[0], flags_of(config_class))
        raise UserError(f"unknown argument {unknown[0]!r}{hint}; see --help")
    return {k: tuple(v) if isinstance(v, list) else v for k, v in vars(known).items()}


def with_recipe(config_class, given):
    """A config of the settings {name: value} that are given, and for the others the values of the
    recipe that they name, or the defaults. (A class that has recipes says so in RECIPES.)"""
    recipes, given = getattr(config_class, "RECIPES", {}), in_todays_names(given, config_class)
    return config_class(**recipes.get(given.get("recipe"), {}) | given)


def in_todays_names(settings, config_class):
    """Settings {name: value}, called as today: a flag's alias was its name once."""
    today = {
        alias.removeprefix("--").replace("-", "_"): field.name
        for field in dataclasses.fields(config_class)
        for alias in field.metadata["alias"]
    }
    return {today.get(name, name): value for name, value in settings.items()}


def add_argument(parser, field):
    """One field's flag."""
    meta, name = field.metadata, field.name.upper()
    text = meta["help"] + (f": {', '.join(map(str, meta['choices']))}" if meta["choices"] else "")
    default = field.default if field.default not in ("", ()) else "none"
    text = f"{text} (default: {default})".replace("%", "%%")
    flags = [flag_of(field)] + meta["alias"]
    common = dict(default=argparse.SUPPRESS, help=text)  # what is not given is not there
    if meta["positional"]:
        parser.add_argument(field.name, nargs="?", metavar=name, **common)
    elif field.type is tuple:
        parser.add_argument(*flags, nargs="+", action="extend", metavar=name, **common)
    elif field.type is bool:
        parser.add_argument(*flags, action=argparse.BooleanOptionalAction, **common)
    else:
        metavar = field.type.__name__.upper()
        parser.add_argument(*flags, dest=field.name, type=field.type, metavar=metavar, **common)


def validate_config(config):
    """The config, with values as they are called today. UserError if one is out of bounds."""
    renamed = {
        field.name: field.metadata["renamed"][getattr(config, field.name)]
        for field in dataclasses.fields(config)
        if getattr(config, field.name) in (field.metadata["renamed"] or {})
    }
    config = dataclasses.replace(config, **renamed)
    for field in dataclasses.fields(config):
        value, meta, flag = getattr(config, field.name), field.metadata, flag_of(field)
        if field.type is float and not math.isfinite(value):
            raise UserError(f"{flag} is {value}; give a finite number")
        if meta["min"] is not None and value < meta["min"]:
            raise UserError(f"{flag} is {value}; give at least {meta['min']}")
        if meta["max"] is not None and value > meta["max"]:
            raise UserError(f"{flag} is {value}; give at most {meta['max']}")
        if meta["choices"] and value not in (*meta["choices"], field.default):
            hint = did_you_mean(value, meta["choices"])
            choices = ", ".join(map(str, meta["choices"]))
            raise UserError(f"{flag} is {value!r}{hint}; choose one of {choices}")
    return config


def flags_of(config_class):
    """All flags of a config, aliases and --no-... included."""
    flags = []
    for field in dataclasses.fields(config_class):
        if not field.metadata["positional"]:
            flags += [flag_of(field)] + field.metadata["alias"]
            flags += [flag_of(field).replace("--", "--no-", 1)] * (field.type is bool)
    return flags


def did_you_mean(word, known):
    close = difflib.get_close_matches(str(word).split("=")[0], [str(k) for k in known], n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def is_changed(config, name):
    """Has this setting another value than its default?"""
    [default] = [f.default for f in dataclasses.fields(config) if f.name == name]
    return getattr(config, name) != default


def refuse_unused(config, names, why):
    """UserError if one of these settings, which can have no effect here, was changed."""
    for name in names:
        if is_changed(config, name):
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} has no effect {why}; leave it out")


def kwargs_for(variant, config, settings, **given):
    """The keyword arguments that a variant (a class) asks for.

    settings: {argument: name of the config's setting}, given: others. UserError if a setting was
    changed that the variant does not have.
    """
    asked = inspect.signature(variant).parameters
    for argument, name in settings.items():
        if argument not in asked:
            refuse_unused(config, [name], f"with {variant.__name__}")
    given = given | {argument: getattr(config, name) for argument, name in settings.items()}
    return {name: value for name, value in given.items() if name in asked}


# ---------------------------------------------------------------- scripts and their ends


def run_script(main, config_class, description):
    """Parse sys.argv, call main(config), turn what goes wrong into one line and an exit code."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # what a terminal cannot show becomes "?"
            stream.reconfigure(errors="replace")
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
    except Exception as error:  # whatever else: one line for people
        exit_with_error(describe_failure(error), 1)


def describe_failure(error):
    """One line that says what failed and what to do."""
    text = " ".join(str(error).split())[:300]
    phrases = ("out of memory", "can't allocate memory")
    if isinstance(error, MemoryError) or any(phrase in text for phrase in phrases):
        hint = "try a smaller --batch-size (or fewer --items)"
    else:
        hint = "TINYVLM_DEBUG=1 shows the traceback"
    return f"{type(error).__name__}: {text}; {hint}"


def on_sigterm(number, frame):
    """SIGTERM where nothing has to be saved: an exit like any other, with a line and a code."""
    raise Stopped("stopped", 128 + number)


def exit_with_error(message, code):
    if os.environ.get("TINYVLM_DEBUG") == "1":
        traceback.print_exc()
    rank = os.environ.get("RANK", "0")
    who = "" if rank == "0" else f"process {rank}: "
    line = str(message).replace("\n", " ")  # a file's name may have two
    print(f"error: {who}{line}", file=sys.stderr)
    sys.exit(code)
