"""Run what takes longer than a change waits for, and the usual checks: ``nox -s SESSION``.

The sessions use the environment that nox runs in.
"""

from __future__ import annotations

import os

import nox

nox.options.sessions = ["lint", "tests"]


def taken(arguments: list[str], option: str, default: str) -> str:
    """Remove an option from the arguments and return its value."""
    if option not in arguments:
        return default
    at = arguments.index(option)
    value = arguments[at + 1]
    del arguments[at : at + 2]
    return value


@nox.session(python=False)
def lint(session: nox.Session) -> None:
    """Check form, types and imports."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")
    session.run("mypy")
    session.run("pyright")


@nox.session(python=False)
def tests(session: nox.Session) -> None:
    """Run all tests on the embedded server; arguments go to pytest."""
    session.run("pytest", "-q", *session.posargs)


@nox.session(python=False)
def campaign(session: nox.Session) -> None:
    """Compare the embedded server with a real one in thousands of random sequences.

    ``-- --examples N`` sets their number; the default is that of the environment variable DIFFERENTIAL_EXAMPLES, or
    3000. DIFFERENTIAL_SEED draws the sequences of an earlier campaign again. Other arguments go to pytest.
    """
    arguments = list(session.posargs)
    examples = taken(arguments, "--examples", os.environ.get("DIFFERENTIAL_EXAMPLES", "3000"))
    test = "tests/conformance/differential/test_differential.py::test_both_servers_answer_alike"
    command = ["pytest", "-q", "-s", "--control-plane", test, *arguments]
    session.run(*command, env={"DIFFERENTIAL_EXAMPLES": examples})


@nox.session(python=False)
def chaos(session: nox.Session) -> None:
    """Run whole operators on virtual time in a world where everything goes wrong, from many seeds.

    ``-- --seeds N --first S`` sets how many, and the first one; the defaults are those of the environment variables
    CHAOS_SEEDS and CHAOS_FIRST, or 500 from 1000. Other arguments go to pytest.
    """
    arguments = list(session.posargs)
    seeds = taken(arguments, "--seeds", os.environ.get("CHAOS_SEEDS", "500"))
    first = taken(arguments, "--first", os.environ.get("CHAOS_FIRST", "1000"))
    session.run("pytest", "-q", "tests/chaos", *arguments, env={"CHAOS_SEEDS": seeds, "CHAOS_FIRST": first})
