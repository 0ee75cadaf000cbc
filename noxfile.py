"""Run what takes longer than a change waits for, and the usual checks: ``nox -s SESSION``.

The sessions use the environment that nox runs in.
"""

from __future__ import annotations

import os

import nox

nox.options.sessions = ["lint", "tests"]


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
    examples = os.environ.get("DIFFERENTIAL_EXAMPLES", "3000")
    if "--examples" in arguments:
        at = arguments.index("--examples")
        examples = arguments[at + 1]
        del arguments[at : at + 2]
    test = "tests/conformance/differential/test_differential.py::test_both_servers_answer_alike"
    command = ["pytest", "-q", "-s", "--control-plane", test, *arguments]
    session.run(*command, env={"DIFFERENTIAL_EXAMPLES": examples})
