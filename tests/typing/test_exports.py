"""The public names: sorted, visible, resolvable, and loaded on first use."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import reconciler

ROOMS = sorted(
    f"reconciler.{module.name}" for module in pkgutil.iter_modules(reconciler.__path__) if module.name[0] != "_"
)
PACKAGES = sorted(
    module.name
    for module in pkgutil.walk_packages(reconciler.__path__, "reconciler.")
    if module.ispkg and not any(part.startswith("_") for part in module.name.split("."))
)
HEAVY = ["aiohttp", "kubernetes", "kubernetes_asyncio", "prometheus_client", "pydantic", "tenacity", "yaml"]
EXTRAS = [
    "ahocorasick",
    "aiosmtplib",
    "cel_expr_python",
    "cyclopts",
    "jsonpatch",
    "jsonschema_rs",
    "kubernetes",
    "looptime",
    "minijinja",
    "opentelemetry",
    "pydantic_settings",
    "re2",
    "rich",
    "uvloop",
    "watchfiles",
]


def in_a_fresh_interpreter(code: str) -> str:
    """Run code and return what it printed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def isort_order(name: str) -> tuple[int, str]:
    """Sort as ruff's RUF022 does: constants, classes, the rest."""
    rank = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
    return rank, name


@pytest.mark.parametrize("module", ["reconciler", *ROOMS])
def test_all_is_sorted_without_duplicates_and_every_name_exists(module: str) -> None:
    loaded = importlib.import_module(module)
    names = loaded.__all__
    assert list(names) == sorted(set(names), key=isort_order)
    for name in names:
        assert getattr(loaded, name) is not None


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_class_and_function_has_a_docstring_of_its_own(room: str) -> None:
    loaded = importlib.import_module(room)
    for name in loaded.__all__:
        value = getattr(loaded, name)
        if inspect.isclass(value) or inspect.isroutine(value):
            own = vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__
            assert own, f"{room}.{name}"


def public_methods(package: str) -> Iterator[tuple[str, object, str]]:
    """Yield name, function and docstring of the public methods and functions of a package."""
    loaded = importlib.import_module(package)
    for name in getattr(loaded, "__all__", ()):
        value = getattr(loaded, name)
        if not inspect.isclass(value):
            yield name, value, inspect.getdoc(value) or ""
            continue
        own = {
            attribute for base in value.__mro__ if base.__module__.startswith("reconciler") for attribute in vars(base)
        }
        for attribute in sorted(name for name in own if name[0] != "_"):
            found = inspect.getattr_static(value, attribute)
            function = getattr(found, "fget", None) or getattr(found, "__func__", found)
            if inspect.isfunction(function):
                yield f"{name}.{attribute}", function, inspect.getdoc(getattr(value, attribute)) or ""


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_method_and_property_has_a_docstring(package: str) -> None:
    without = [name for name, function, text in public_methods(package) if inspect.isfunction(function) and not text]
    assert without == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_coroutine_documents_cancellation(package: str) -> None:
    silent = [
        name
        for name, function, text in public_methods(package)
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
        if "cancel" not in text.lower()
    ]
    assert silent == []


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_has_a_docstring(package: str) -> None:
    assert importlib.import_module(package).__doc__


def test_dir_of_the_package_equals_all() -> None:
    assert dir(reconciler) == sorted(reconciler.__all__)


def test_type_checkers_see_the_same_names_as_the_interpreter() -> None:
    tree = ast.parse(Path(reconciler.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: statement.module
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert set(imported) == set(reconciler.__all__)
    for name, home in imported.items():
        assert home is not None
        assert getattr(reconciler, name) is getattr(importlib.import_module(home), name)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'reconciler' has no attribute 'Reconciller'"):
        getattr(reconciler, "Reconciller")  # noqa: B009 - a typo is what is tested


def test_importing_the_package_loads_nothing_of_it() -> None:
    loaded = in_a_fresh_interpreter("import sys, reconciler; print(*sorted(sys.modules))").split()
    assert [name for name in loaded if name.startswith("reconciler")] == ["reconciler"]
    assert not set(loaded) & set(HEAVY)


@pytest.mark.parametrize("name", ["TerminalError", "Request", "StatusBatcher"])
def test_a_light_name_loads_no_heavy_library(name: str) -> None:
    loaded = in_a_fresh_interpreter(f"import sys; from reconciler import {name}; print(*sys.modules)").split()
    assert not set(loaded) & set(HEAVY)


@pytest.mark.parametrize("room", ["clock", "errors", "http", "meta", "status", "workqueue"])
def test_a_light_package_loads_no_heavy_library(room: str) -> None:
    loaded = in_a_fresh_interpreter(f"import sys, reconciler.{room}; print(*sys.modules)").split()
    assert not set(loaded) & set(HEAVY)


def test_every_package_can_be_imported_without_the_extras() -> None:
    code = f"""
import importlib, importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
for room in {ROOMS!r}:
    module = importlib.import_module(room)
    for name in module.__all__:
        getattr(module, name)
"""
    assert in_a_fresh_interpreter(code) == ""
