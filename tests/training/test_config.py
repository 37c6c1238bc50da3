"""Settings: a dataclass as a command line where nothing is guessed, and a script's exit codes."""

import dataclasses
import os
import re
import signal
import sys
import threading

import pytest

import ablate
import evaluate
import sample
import train_clip
import train_vlm
from tinyvlm.training import config as settings
from tinyvlm.training.config import (
    Stopped,
    UserError,
    kwargs_for,
    option,
    parse,
    refuse_unused,
    run_script,
    validate_config,
    with_recipe,
)

pytestmark = pytest.mark.quick

SCRIPTS = [train_clip, train_vlm, sample, evaluate, ablate]


@dataclasses.dataclass
class Config:
    path: str = option("", "a file", positional=True)
    steps: int = option(10, "how many", min=1, max=100)
    rate: float = option(0.5, "how fast, 100 % is 1", min=0.0, max=1.0)
    mode: str = option("quick", "how", choices=("quick", "slow"), renamed={"fast": "quick"})
    wide_steps: int = option(3, "how wide", alias="--width")
    compile: bool = option(False, "whether to compile")
    names: tuple = option((), "several names")


def parsed(*words):
    return parse(Config, list(words), "A script.")


# ---------------------------------------------------------------- parsing


def test_without_words_there_are_the_defaults():
    assert parsed() == Config()


def test_every_kind_of_setting_has_its_type():
    words = "file --steps 7 --rate 1e-3 --mode slow --wide-steps 4 --compile --names a b"
    wanted = Config("file", 7, 1e-3, "slow", 4, True, ("a", "b"))
    assert parsed(*words.split()) == wanted
    assert parsed("--steps=7").steps == 7 and parsed("--no-compile").compile is False


def test_an_alias_is_understood():
    assert parsed("--width", "8").wide_steps == 8
    assert parse(train_vlm.Config, ["--queries", "8"], "").image_tokens == 8
    assert parse(train_vlm.Config, ["--num-queries", "8"], "").image_tokens == 8
    assert parse(train_vlm.Config, ["--questions", "8", "--blind", "2"], "").num_blind == 2
    assert with_recipe(train_vlm.Config, dict(num_queries=8)).image_tokens == 8
    assert parse(train_clip.Config, ["--dim", "32"], "").encoder_dim == 32
    assert parse(train_clip.Config, ["--world", "shapes-zipf"], "").dataset == "shapes-zipf"


def test_a_renamed_value_is_called_as_today():
    assert parsed("--mode", "fast").mode == "quick"
    assert validate_config(Config(mode="fast")) == Config()
    for words, name, today in (
        (["--loss", "plain"], "loss", "clip"),
        (["--loss", "multi_positive"], "loss", "masked_clip"),
        (["--world", "full"], "dataset", "shapes-full"),
        (["--dataset", "default"], "dataset", "shapes"),
        (["--dataset", "friends"], "dataset", "shapes-cooccurrence"),
    ):
        assert getattr(parse(train_clip.Config, words, ""), name) == today


@pytest.mark.parametrize(
    "words, named",
    [
        (["--steps", "0"], "--steps is 0; give at least 1"),
        (["--steps", "101"], "--steps is 101; give at most 100"),
        (["--steps", "1e3"], "--steps"),
        (["--steps"], "--steps"),
        (["--rate", "nan"], "--rate is nan; give a finite number"),
        (["--rate=-inf"], "--rate is -inf; give a finite number"),
        (["--mode", "qick"], "--mode is 'qick' (did you mean quick?); choose one of quick, slow"),
        (["--stepz", "3"], "unknown argument '--stepz' (did you mean --steps?)"),
        (["--step", "3"], "unknown argument '--step' (did you mean --steps?)"),
        (["--widht=3"], "did you mean --width?"),
        (["--no-compil"], "did you mean --no-compile?"),
        (["--compile", "False"], "'False'"),
        (["--compile=False"], "--compile"),
        (["--zzz"], "unknown argument '--zzz'; see --help"),
        (["one", "two"], "'two'"),
    ],
)
def test_what_cannot_be_meant_is_an_error(words, named):
    if words == ["--compile", "False"]:
        words = ["file", *words]  # or it would be the file's name
    with pytest.raises(UserError, match=re.escape(named)):
        parsed(*words)


@pytest.mark.parametrize("wrong", [dict(steps=0), dict(rate=float("nan")), dict(mode="typo")])
def test_a_config_made_in_python_is_checked_too(wrong):
    with pytest.raises(UserError, match=f"--{next(iter(wrong))}"):
        validate_config(Config(**wrong))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_the_defaults_of_every_script_are_allowed(script):
    config = script.Config()
    assert parse(script.Config, [], "") == validate_config(config) == config


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_every_flag_of_every_script_is_listed_for_hints(script):
    flags = settings.flags_of(script.Config)
    assert len(flags) == len(set(flags))
    for field in dataclasses.fields(script.Config):
        assert (settings.flag_of(field) in flags) != field.metadata["positional"]
        if field.type is bool:
            assert "--no-" + settings.flag_of(field)[2:] in flags


# ---------------------------------------------------------------- settings without effect


def test_a_setting_without_effect_is_refused_only_if_it_was_changed():
    refuse_unused(Config(), ["steps", "mode"], "here")
    with pytest.raises(UserError, match="--wide-steps has no effect here; leave it out"):
        refuse_unused(Config(wide_steps=4), ["steps", "wide_steps"], "here")


class Variant:
    def __init__(self, *, size, num_patches=5):
        pass


def test_a_variant_is_given_what_it_asks_for():
    config = Config(steps=7)
    assert kwargs_for(Variant, config, dict(size="steps")) == dict(size=7)
    given = kwargs_for(Variant, config, dict(size="steps"), num_patches=9, unasked=1)
    assert given == dict(size=7, num_patches=9)
    assert kwargs_for(Variant, config, dict(size="steps", heads="wide_steps")) == dict(size=7)


def test_a_setting_that_a_variant_does_not_have_is_refused():
    config = Config(wide_steps=4)
    with pytest.raises(UserError, match="--wide-steps has no effect with Variant"):
        kwargs_for(Variant, config, dict(size="steps", heads="wide_steps"))


# ---------------------------------------------------------------- exit codes


@pytest.fixture
def script(monkeypatch, capfd):
    """Call run_script with this main; (exit code, stdout, stderr). Signals are put back."""
    monkeypatch.delenv("TINYVLM_DEBUG", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(main, *words):
        monkeypatch.setattr(sys, "argv", ["script.py", *words])
        code = 0
        try:
            run_script(main, Config, "A script.")
        except SystemExit as end:
            code = end.code
        return code, *capfd.readouterr()

    yield call
    for number, handler in before.items():
        signal.signal(number, handler)


def raising(error):
    def main(config):
        raise error

    return main


def test_a_script_that_ends_well_says_nothing_more(script):
    seen = []
    assert script(seen.append, "--steps", "3") == (0, "", "")
    assert seen == [Config(steps=3)]


@pytest.mark.parametrize(
    "error, code, said",
    [
        (UserError("a is 1; give 2"), 2, "error: a is 1; give 2\n"),
        (Stopped("stopped after step 3", 143), 143, "error: stopped after step 3\n"),
        (KeyboardInterrupt(), 130, "--resume"),
        (MemoryError("no room"), 1, "--batch-size"),
        (RuntimeError("CUDA out of memory. Tried"), 1, "--batch-size"),
        (ValueError("two\nlines"), 1, "ValueError: two lines; TINYVLM_DEBUG=1"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_goes_wrong_is_one_line_and_an_exit_code(script, error, code, said):
    found, stdout, stderr = script(raising(error))
    assert (found, stdout) == (code, "") and said in stderr
    assert stderr.startswith("error: ") and stderr.count("\n") == 1


def test_a_wrong_flag_is_exit_code_2_and_main_is_not_called(script):
    code, _, stderr = script(raising(AssertionError("called")), "--stepz", "3")
    assert code == 2 and "did you mean --steps?" in stderr and stderr.count("\n") == 1


def test_help_is_no_error(script):
    code, stdout, stderr = script(raising(AssertionError("called")), "--help")
    assert (code, stderr) == (0, "") and "A script." in stdout and "100 % is 1" in stdout


def test_a_traceback_is_shown_where_it_is_asked_for(script, monkeypatch):
    monkeypatch.setenv("TINYVLM_DEBUG", "1")
    code, _, stderr = script(raising(ValueError("wrong")))
    assert code == 1 and "Traceback" in stderr and "error: ValueError: wrong" in stderr


def test_a_process_of_several_says_which_one_it_is(script, monkeypatch):
    monkeypatch.setenv("RANK", "3")
    assert script(raising(UserError("no")))[2] == "error: process 3: no\n"


def test_sigterm_is_an_exit_like_any_other(script):
    code, _, stderr = script(lambda config: os.kill(os.getpid(), signal.SIGTERM))
    assert code == 143 and stderr == "error: stopped\n"


def test_a_script_can_be_run_in_a_thread(monkeypatch):
    """Where no signal handler can be set."""
    monkeypatch.setattr(sys, "argv", ["script.py"])
    before, seen = signal.getsignal(signal.SIGTERM), []
    thread = threading.Thread(target=lambda: run_script(seen.append, Config, ""))
    thread.start()
    thread.join()
    assert seen == [Config()] and signal.getsignal(signal.SIGTERM) == before
