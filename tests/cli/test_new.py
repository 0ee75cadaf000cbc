"""``reconciler new``: the project that it writes works at once, and invalid input writes nothing."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
import yaml

from reconciler.testing import Cluster
from tests.cli.projects import ROOT, documents, new, passes, snapshot
from tests.cli.test_command_line import run
from tests.prose.__main__ import findings

LONGEST = "the_longest_name_that_a_project_can_have"
VARIANTS = {
    "plain": [],
    "by-key": ["--by-key"],
    "webhook": ["--webhook"],
    "kind": ["--kind", "BlogPost", "--webhook"],
    "versions": ["--versions", "v1alpha1,v1beta1,v1", "--group", "apps.example.org"],
    "everything": ["--webhook", "--by-key", "--versions", "v1,v2"],
}

# A cold mypy reads all that the project imports.
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in an empty directory, and let other processes find this library."""
    monkeypatch.chdir(tmp_path)
    for variable in ("PYTHONPATH", "MYPYPATH"):
        monkeypatch.setenv(variable, str(ROOT))
    return tmp_path


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a project with everything, which tests only read."""
    directory = tmp_path_factory.mktemp("everything") / "web_site"
    options = [*VARIANTS["everything"], "--directory", str(directory)]
    passes(ROOT, "reconciler", "new", "web_site_operator", *options)
    return directory


def linted(directory: Path) -> None:
    """Check a project with its own settings of ruff, and its texts with this project's check of wording."""
    passes(directory, "ruff", "check", "--no-cache", ".")
    passes(directory, "ruff", "format", "--no-cache", "--check", ".")
    texts = [path for suffix in ("py", "md") for path in directory.rglob(f"*.{suffix}")]
    assert [finding for path in texts for finding in findings(path)] == []


def test_the_output_has_the_next_commands_in_their_order(
    capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "kube-reconciler @ file:///src/kube-reconciler"
    for found, library in (({"url": "file:///src/kube-reconciler"}, f"'{source}' "), (None, "")):
        text = None if found is None else json.dumps(found)
        monkeypatch.setattr(PathDistribution, "read_text", lambda _, name, text=text: text)
        the_output_has_the_next_commands(capsys, library)
        shutil.rmtree("website")


def the_output_has_the_next_commands(capsys: pytest.CaptureFixture[str], library: str) -> None:
    code, out, err = run(capsys, "new", "website")
    assert (code, err) == (0, "")
    commands = [line.strip() for line in out.splitlines() if line.startswith("  ")]
    assert commands == [
        "cd website",
        f"python3 -m venv .venv && . .venv/bin/activate && pip install {library}-e '.[dev]'",
        "pytest",
        "reconciler dev",
        "export KUBECONFIG=reconciler.kubeconfig",
        "kubectl apply -f examples/website.yaml",
        "kubectl apply -f deploy/base/crd.yaml",
        "reconciler run website:add_controllers",
        "kubectl apply -f examples/website.yaml",
    ]


@pytest.mark.usefixtures("here")
def test_the_tests_of_a_project_with_everything_pass_and_its_linters_are_content(everything: Path) -> None:
    assert "5 passed" in passes(everything, "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    linted(everything)
    assert "is up to date" in passes(everything, "reconciler", "manifests", "--check")


@pytest.mark.thorough
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_each_variant_is_linted_typed_and_tested(
    capsys: pytest.CaptureFixture[str], here: Path, options: list[str]
) -> None:
    directory = new(capsys, here, "website", *options)
    linted(directory)
    passes(directory, "mypy", "--cache-dir", str(here / "cache"))
    passes(directory, "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")


def test_a_kind_of_another_name_than_the_package(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    directory = new(capsys, here, "website", *VARIANTS["kind"])
    assert yaml.safe_load((directory / "examples" / "blog_post.yaml").read_text())["kind"] == "BlogPost"
    passes(directory, "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    linted(directory)
    assert "is up to date" in passes(directory, "reconciler", "manifests", "--check")


@pytest.mark.parametrize("options", [[], pytest.param(["--by-key"], marks=pytest.mark.thorough)])
def test_the_test_of_the_project_fails_without_the_reconciler(
    capsys: pytest.CaptureFixture[str], here: Path, options: list[str]
) -> None:
    directory = new(capsys, here, "website", *options)
    controller = directory / "website" / "controller.py"
    text = controller.read_text()
    assert "await self.client.apply" in text
    controller.write_text(text.replace("await self.client.apply(config_map_for(obj), owner=obj)", "pass"))
    with pytest.raises(AssertionError, match="1 failed"):
        passes(directory, "pytest", "-q", "-p", "no:cacheprovider")


def test_the_longest_name_is_formatted_too(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    directory = new(capsys, here, LONGEST, *VARIANTS["everything"])
    passes(directory, "ruff", "check", "--no-cache", ".")
    passes(directory, "ruff", "format", "--no-cache", "--check", ".")
    assert run(capsys, "new", LONGEST + "s")[0] == 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("null", VARIANTS["plain"]),  # a name that YAML would read as something else, were it not quoted
        ("everything", VARIANTS["everything"]),
    ],
)
async def test_api_servers_accept_the_manifests(
    capsys: pytest.CaptureFixture[str], here: Path, cluster: Cluster, name: str, options: list[str]
) -> None:
    directory = new(capsys, here, name, *options)
    found = documents(directory)
    expected = {"CustomResourceDefinition", "ClusterRole", "Role", "Deployment", "Service"}
    if options:
        expected |= {"ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"}
    assert {each["kind"] for each in found} >= expected
    for each in found:
        if each["kind"] == "CustomResourceDefinition":
            await cluster.install(each)
            continue
        if "namespace" in each["metadata"]:
            each["metadata"]["namespace"] = cluster.namespace
        # A webhook configuration that stays would make the server call a webhook that nobody serves.
        dry_run = "WebhookConfiguration" in each["kind"]
        await cluster.client.create(each, field_validation="Strict", dry_run=dry_run)
    example = yaml.safe_load((directory / "examples" / f"{name}.yaml").read_text())
    example["metadata"]["namespace"] = cluster.namespace
    await cluster.client.create(example, field_validation="Strict")


def test_the_manifests_fit_together(everything: Path) -> None:
    by_kind = {each["kind"]: each for each in documents(everything)}
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == by_kind["ServiceAccount"]["metadata"]["name"] == "web-site-operator"
    lease = next(rule for rule in by_kind["Role"]["rules"] if "resourceNames" in rule)
    assert f"--leader-election={lease['resourceNames'][0]}" in pod["containers"][0]["args"]
    labels = by_kind["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert by_kind["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert by_kind["Service"]["spec"]["selector"] == labels
    service = by_kind["ValidatingWebhookConfiguration"]["webhooks"][0]["clientConfig"]["service"]
    assert service["name"] == by_kind["Service"]["metadata"]["name"] == "web-site-operator-webhook"
    assert pod["volumes"][0]["secret"]["secretName"] == service["name"]
    budget = by_kind["PodDisruptionBudget"]["spec"]
    assert (budget["maxUnavailable"], budget["selector"]["matchLabels"]) == (1, labels)


def test_kubectl_builds_the_kustomization_with_the_users_image(everything: Path) -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(everything / "deploy")], capture_output=True, text=True, check=True
    )
    found = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(done.stdout)}
    (container,) = found["Deployment", "web-site-operator"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example.com/web-site-operator:0.1.0"
    assert ("Certificate", "web-site-operator-webhook") in found
    assert len(found) == len(documents(everything)) + 2, "and the certificate with its issuer"


def test_an_empty_directory_is_filled_and_others_can_read_it(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    (here / "a b").mkdir()
    code, out, _ = run(capsys, "new", "website", "--directory", "a b")
    assert code == 0
    assert "  cd 'a b'" in out
    assert (here / "a b" / "website" / "kind.py").exists()
    assert run(capsys, "new", "website")[0] == 0
    assert stat.S_IMODE((here / "website").stat().st_mode) == stat.S_IMODE((here / "a b").stat().st_mode)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("my-operator", "Python identifier"),
        ("MyOperator", "Python identifier"),
        ("2fast", "Python identifier"),
        ("", "Python identifier"),
        ("../up", "Python identifier"),
        ("größe", "Python identifier"),
        ("class", "Python identifier"),
        ("true", "True' is not a valid kind"),
        ("model", "Model is a class already"),
        ("permission", "Permission is a class already"),
        ("conditioned", "ConditionedStatus is a class already"),
        ("deploy", "a directory of it has that name"),
        ("examples", "a directory of it has that name"),
        ("json", "is the name of an existing package"),
        ("yaml", "is the name of an existing package"),
    ],
)
def test_an_invalid_name_is_one_line_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], here: Path, name: str, says: str
) -> None:
    code, out, err = run(capsys, "new", name)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert says in err
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("directory", "says"),
    [("full", "is not empty"), ("full/file", "is not a directory"), ("full/file/below", "full/file/below")],
)
def test_an_invalid_directory_is_one_line_and_stays_as_it_is(
    capsys: pytest.CaptureFixture[str], here: Path, directory: str, says: str
) -> None:
    (here / "full").mkdir()
    (here / "full" / "file").write_text("mine")
    code, out, err = run(capsys, "new", "website", "--directory", directory)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert says in err
    assert [path.name for path in here.rglob("*")] == ["full", "file"]
    assert (here / "full" / "file").read_text() == "mine"


@pytest.mark.parametrize("exists", [False, True], ids=["new", "existing"])
def test_a_project_that_cannot_be_written_leaves_nothing(
    capsys: pytest.CaptureFixture[str], here: Path, *, exists: bool
) -> None:
    # The names of some files have room in a path that the system accepts, those of others have not.
    room = os.pathconf(here, "PC_PATH_MAX") - len("/pyproject.toml\0") - len(str(here))
    target = Path(str(here) + "/long" * (room // 5 - 1) + "/" + "x" * (room % 5 + 4))
    (target if exists else target.parent).mkdir(parents=True)
    before = sorted(here.rglob("*"))
    code, out, err = run(capsys, "new", "website", "--directory", str(target))
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "cannot write /" in err
    assert os.strerror(errno.ENAMETOOLONG) in err
    assert len(err) < 12_000, "one reason, not that of each file"
    assert sorted(here.rglob("*")) == before


def test_a_missing_temporary_directory_is_one_line(
    capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(here / "none"))
    code, out, err = run(capsys, "new", "website")
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "cannot write a temporary directory: [Errno 2] No such file" in err
    assert list(here.iterdir()) == []


def test_options_in_the_environment_do_not_change_the_manifests(
    capsys: pytest.CaptureFixture[str], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = new(capsys, here)
    monkeypatch.setenv("RECONCILER_CRD_OUTPUT", "json")
    monkeypatch.setenv("RECONCILER_MANIFESTS_NAMESPACE", "other")
    assert run(capsys, "new", "website", "--directory", "again")[0] == 0
    assert snapshot(here / "again") == snapshot(plain)


def test_the_tutorial_shows_the_files_as_they_are(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    directory = new(capsys, here)
    tutorial = (ROOT / "docs" / "first-operator.md").read_text()
    for file in ("website/kind.py", "website/controller.py", "tests/test_website.py"):
        text = (directory / file).read_text()
        body = text.partition('"""\n\n')[2]
        own = re.compile(r"\n(?:from website\S* import .*\n)+")  # one page needs no imports of its own
        assert f"```python\n{own.sub('', body)}```" in tutorial, file


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--versions", "1"], "'1' is not a valid version"),
        (["--versions", "v1.2"], "'v1.2' is not a valid version"),
        (["--kind", "blogPost"], "'blogPost' is not a valid kind"),
        (["--kind", ""], "'' is not a valid kind"),
        (["--versions", ""], "'' is not a valid version"),
        (["--versions", "v1,v1"], "versions must differ"),
        (["--group", "example"], "'example' is not a valid API group"),
        (["--group", "Example.com"], "'Example.com' is not a valid API group"),
        (["--group", "x" * 250 + ".com"], "is not a valid API group"),
    ],
)
def test_an_invalid_option_is_one_line_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], here: Path, options: list[str], says: str
) -> None:
    code, out, err = run(capsys, "new", "website", *options)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert says in err
    assert list(here.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_must_not_be_written_is_one_line(capsys: pytest.CaptureFixture[str], here: Path) -> None:
    here.chmod(0o500)
    code, out, err = run(capsys, "new", "website")
    here.chmod(0o700)
    assert (code, out, len(err.splitlines())) == (1, "", 1)
    assert "Permission denied" in err


def test_an_interrupt_leaves_nothing(here: Path) -> None:
    program = """
import os, signal, sys
from importlib.metadata import PathDistribution
from pathlib import Path
written = Path.write_bytes
def interrupted(path, *arguments):
    if path.name == "test_website.py":
        os.kill(os.getpid(), signal.SIGINT)
    return written(path, *arguments)
Path.write_bytes = interrupted
from reconciler.cli import main
main(["new", "website"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode in (130, -signal.SIGINT), done.stderr
    assert "Traceback" not in done.stderr
    assert list(here.iterdir()) == []


@pytest.mark.usefixtures("here")
def test_a_project_for_something_outside_passes_its_tests_and_is_the_one_in_the_docs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, _, err = run(capsys, "new", "my_buckets", "--external", "--kind", "Bucket")
    assert (code, err) == (0, "")
    project = Path("my_buckets").resolve()
    assert "6 passed" in passes(project, "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    assert "nothing was found" in passes(project, "reconciler", "check", "--runs=3")
    linted(project)
    page = (ROOT / "docs" / "external-systems.md").read_text()
    for name in ("service.py", "controller.py"):
        assert f"```py\n{(project / 'my_buckets' / name).read_text().strip()}\n```" in page


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("other", [("--by-key",), ("--versions", "v1,v2")], ids=["by key", "versions"])
def test_an_external_project_has_one_version_and_gets_the_object(
    capsys: pytest.CaptureFixture[str], other: tuple[str, ...]
) -> None:
    code, _, err = run(capsys, "new", "my_buckets", "--external", *other)
    assert code == 1
    assert "--external goes with one version, and without --by-key" in err
    assert not Path("my_buckets").exists()
