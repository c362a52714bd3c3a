"""Command line options that the lab's programs share."""

import argparse
import contextlib
import pathlib

from . import wan
from .gateway import PLACEMENTS, parse_setting
from .lab import Lab, default_binary
from .process import LabError

# The emulator's bounds of a queue and of a seed.
QUEUE_FRAMES_MAX = 1 << 20
SEED_MAX = (1 << 64) - 1


def parser(program, text):
    """A parser that shows the description as it was written."""
    return argparse.ArgumentParser(
        prog=program, description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def count(text):
    """A number of things or seconds: whole, and at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 on")
    return int(text)


def whole(low, high):
    """A whole number within bounds, for an option."""
    return _bounded(int, low, high, "a whole number")


def real(low, high):
    """A number within bounds, for an option."""
    return _bounded(float, low, high, "a number")


def _bounded(kind, low, high, what):
    def read(text):
        with contextlib.suppress(ValueError):
            value = kind(text)
            if low <= value <= high:
                return value
        raise argparse.ArgumentTypeError(f"'{text}' is not {what} from {low} to {high}")

    return read


def add_lab_options(options, *, placement=True):
    """What every program that makes a lab understands."""
    options.add_argument(
        "--binary",
        type=pathlib.Path,
        default=default_binary(),
        help="the program to run (default: the release build, or $SHARDGATE)",
    )
    options.add_argument("--name", help="the lab's name (default: sg and four random digits)")
    options.add_argument(
        "--hugepages",
        choices=("auto", "on", "off"),
        default="auto",
        help="reserve hugepages while the lab is up (default: auto, if the machine has room)",
    )
    options.add_argument(
        "--no-hugepages", dest="hugepages", action="store_const", const="off",
        help="the same as --hugepages off: packet memory is ordinary memory",
    )  # fmt: skip
    if placement:
        options.add_argument(
            "--placement",
            choices=PLACEMENTS,
            default="inline",
            help="where the crypto units run (default: inline)",
        )
    options.add_argument(
        "--set",
        dest="settings",
        metavar="SECTION.KEY=VALUE",
        action="append",
        type=setting,
        default=[],
        help="a setting of both gateways, such as tunnel.ordering=none; may be repeated",
    )


def add_path_options(options, default):
    """A named path, and each of its properties."""
    options.add_argument("--path", choices=sorted(wan.PATHS), default=default)
    # The emulator's own bounds.
    for name, low, high in (
        ("delay-ms", 0, 10_000), ("jitter-ms", 0, 10_000),
        ("rate-mbit", 0.001, 400_000), ("burst", 1, 1_000_000),
    ):  # fmt: skip
        options.add_argument(f"--{name}", type=real(low, high))
    for name in ("loss", "reorder", "duplicate", "corrupt"):
        options.add_argument(f"--{name}-percent", type=real(0, 100))
    options.add_argument("--queue-frames", type=whole(0, QUEUE_FRAMES_MAX))
    options.add_argument("--seed", type=whole(0, SEED_MAX))


def path_of(arguments):
    """The path that the options describe."""
    fields = {name: getattr(arguments, name, None) for name in wan.Path.__dataclass_fields__}
    changed = {name: value for name, value in fields.items() if value is not None}
    return wan.PATHS[arguments.path].but(**changed)


def lab_of(arguments, **more):
    """A lab as the options want it."""
    return Lab(binary=arguments.binary, name=arguments.name, hugepages=arguments.hugepages, **more)


def setting(text):
    """`section.key=value`, for an option."""
    try:
        return parse_setting(text)
    except LabError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
