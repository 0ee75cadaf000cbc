"""The roles that ``reconciler manifests`` prints."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from reconciler.apiserver.encoding.json_documents import decode_yaml
from reconciler.cli import main

OPERATOR = '''
from reconciler import Model, Reconciler, Resource, ResourceReconciler
from reconciler.controller import Permission

class Maps(Reconciler):
    """Declares nothing, and says no kind."""
    async def reconcile(self, request):
        pass

class Nodes(ResourceReconciler, resource="v1/Node"):
    permissions = (Permission("example.com/v1/Rack", "get"), Permission("v1/Pod", "delete"))
    async def reconcile_object(self, obj, status):
        pass

class RackSpec(Model):
    units: int = 42

class Rack(Resource[RackSpec], group="example.com", version="v1"):
    """A rack."""

class PointSpec(Model):
    x: int
    y: int

class Point(Resource[PointSpec], group="example.com", version="v1"):
    """A point."""

class OldRack(Resource[RackSpec], group="example.com", version="v1beta1", kind="Rack", storage=False):
    """A rack."""

def both(manager):
    manager.add_controller(Maps(), resource="v1/ConfigMap", owns=["v1/Secret"])
    manager.add_controller(Nodes())

async def both_async(manager):
    both(manager)

async def indexed(manager):
    manager.add_controller(Nodes())
    await manager.cache.informer("v1/Pod")
    await manager.cache.informer("networking.k8s.io/v1/Ingress", namespaces=None, metadata_only=True)
    await manager.cache.informer("v1/Secret", namespaces=["vault"])

async def asks(manager):
    await manager.client.live.get("v1/Namespace", "default")

def webhooked(manager):
    from reconciler.webhook import Validator
    class Rules(Validator, resource="v1/Node"):
        pass
    manager.add_controller(Nodes())
    manager.add_webhooks(Rules())

def converting(manager, *versions):
    from reconciler.webhook import Converter
    converter = Converter("example.com", "Rack", hub="v1")
    for version in versions:
        converter.add(version, to_hub=lambda rack: None, from_hub=lambda rack: None)
    manager.add_controller(Maps(), resource=Rack)
    manager.add_webhooks(converter)

def converting_more(manager):
    converting(manager, "v1beta1", "v1alpha1")

def converting_less(manager):
    converting(manager)

def converting_all(manager):
    converting(manager, "v1beta1")

def nobody(manager):
    pass

def broken(manager):
    raise KeyError("password")

instance = Nodes()
pair = [Nodes, instance]
'''


@pytest.fixture(autouse=True)
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rack_operator.py").write_text(OPERATOR)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "rack_operator", raising=False)


def manifests(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(["manifests", *arguments])
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    return (exit_.value.code if isinstance(exit_.value.code, int) else 0), output.out, output.err


def documents(text: str) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the documents by kind and namespace."""
    return {(each["kind"], each["metadata"].get("namespace", "")): each for each in yaml.safe_load_all(text)}


def allowed(role: dict[str, Any]) -> dict[str, str]:
    return {resource: " ".join(rule["verbs"]) for rule in role["rules"] for resource in rule["resources"]}


def test_a_cluster_role_for_all_namespaces(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = manifests(capsys, "rack_operator:both")
    found = documents(out)
    assert code == 0
    assert list(found) == [("ServiceAccount", "default"), ("ClusterRole", ""), ("ClusterRoleBinding", "")]
    assert allowed(found["ClusterRole", ""]) == {
        "configmaps": "get list watch",
        "configmaps/finalizers": "update",
        "secrets": "get list watch",
        "events": "create patch",
        "nodes": "get list watch",
        "nodes/status": "patch",
        "racks": "get",
        "pods": "delete",
    }
    assert {each["metadata"]["name"] for each in found.values()} == {"rack-operator"}
    binding = found["ClusterRoleBinding", ""]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "rack-operator", "namespace": "default"}]
    assert binding["roleRef"]["name"] == "rack-operator"
    maps, racks = err.splitlines()
    assert "Maps declares no permissions" in maps
    assert "or write permissions = () if there are none" in maps
    assert "racks in example.com" in racks


def test_roles_for_the_namespaces_that_are_watched(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = manifests(
        capsys,
        "rack_operator:both_async",
        "--namespace=prod",
        "--namespace=test",
        "--install-namespace=operators",
        "--name=racks",
        "--leader-election=rack-lock",
    )
    found = documents(out)
    assert code == 0
    assert [key for key in found if not key[0].endswith("Binding")] == [
        ("ServiceAccount", "operators"),
        ("ClusterRole", ""),
        ("Role", "prod"),
        ("Role", "test"),
        ("Role", "default"),
        ("Role", "operators"),
    ]
    assert allowed(found["ClusterRole", ""]) == {"nodes": "get list watch", "nodes/status": "patch"}
    assert allowed(found["Role", "prod"]) == allowed(found["Role", "test"])
    assert allowed(found["Role", "prod"])["secrets"] == "get list watch"
    assert allowed(found["Role", "default"]) == {"events": "create patch"}  # for the events of nodes
    assert found["Role", "operators"]["rules"] == [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["rack-lock"],
            "verbs": ["get", "update"],
        },
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},  # leader election
    ]
    assert found["RoleBinding", "prod"]["subjects"] == [
        {"kind": "ServiceAccount", "name": "racks", "namespace": "operators"}
    ]


def test_roles_cover_informers_in_their_namespaces(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = manifests(capsys, "rack_operator:indexed", "--namespace=prod")
    found = documents(out)
    assert code == 0
    assert allowed(found["ClusterRole", ""])["ingresses"] == "get list watch"
    assert allowed(found["Role", "prod"])["pods"] == "delete get list watch"
    assert allowed(found["Role", "vault"]) == {"secrets": "get list watch"}


@pytest.mark.parametrize("attribute", ["Nodes", "instance"])
def test_target_can_be_a_reconciler_or_its_class(capsys: pytest.CaptureFixture[str], attribute: str) -> None:
    code, out, _ = manifests(capsys, f"rack_operator:{attribute}")
    assert code == 0
    assert allowed(documents(out)["ClusterRole", ""])["nodes/status"] == "patch"


def test_json_is_one_list(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = manifests(capsys, "rack_operator:Nodes", "--output=json")
    assert code == 0
    assert [item["kind"] for item in json.loads(out)["items"]] == [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
    ]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["rack_operator:Nobody"], "has no 'Nobody'"),
        (["rack_operator:nobody"], "no controller was added"),
        (["rack_operator:asks"], "GET /api/v1: manifests are generated without a cluster"),
        (["rack_operator:broken"], "KeyError"),
        (["rack_operator:pair"], "already"),
        (["rack_operator:Maps"], "does not state its kind"),
        (["rack_operator:Nodes", "--name=Rack_Operator"], "--name='Rack_Operator' is not a valid name"),
        (["rack_operator:Nodes", "--install-namespace=A"], "--install-namespace='A' is not a valid name"),
        (["rack_operator:Nodes", "--namespace=a", "--namespace=b\x85"], "--namespace='b\\x85' is not a valid name"),
        (["rack_operator:Nodes", "--leader-election=a\x7f"], "--leader-election='a\\x7f' is not a valid name"),
        (
            ["rack_operator:Nodes", "--leader-election=a", "--leader-election-namespace=\udc80"],
            "--leader-election-namespace='\\udc80' is not a valid name",
        ),
        (["rack_operator:Nodes", "--image=a\nb"], "--image='a\\nb' is not a valid image"),
        (["rack_operator:Nodes", "--directory=base", "--image=a\x7f"], "--image='a\\x7f' is not a valid image"),
        (["notification", "--name=Rack_Operator"], "--name='Rack_Operator' is not a valid name"),
    ],
)
def test_errors_are_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    code, out, err = manifests(capsys, *arguments)
    assert code == 1
    assert out == ""
    assert says in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("text", ["y", "on", "null", "1e3", "12e03", "0o7", "08", "0x1f", "2001-01-01"])
def test_names_stay_text_for_kubernetes(capsys: pytest.CaptureFixture[str], text: str) -> None:
    options = ("--name", "--install-namespace", "--namespace", "--leader-election", "--image")
    code, out, _ = manifests(capsys, "notification", *(f"{option}={text}" for option in options))
    assert code == 0
    assert re.findall(rf"(?m)[-:] {text}$", out) == []
    for document in out.split("\n---\n"):
        assert decode_yaml(document.encode())[0]["metadata"].get("namespace", text) == text


def test_fields_stay_text_for_kubernetes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["crd", "rack_operator:Point"])
    out = capsys.readouterr().out
    assert (exit_.value.code, "'y':" in out) == (0, True)


def test_closed_output_pipe_is_not_an_error() -> None:
    program = "from reconciler.cli import main; main(['manifests', 'rack_operator:both'])"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


def base(capsys: pytest.CaptureFixture[str], target: str, *arguments: str) -> tuple[int, list[str]]:
    code, out, err = manifests(capsys, target, "--directory=base", "--name=racks", *arguments)
    assert [line for line in err.splitlines() if "reconciler: note" not in line] == []
    return code, out.splitlines()


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (
            "converting_more",
            "the converter of Rack converts v1alpha1, but no class has this version: import its module",
        ),
        ("converting_less", "the converter of Rack does not convert v1beta1, the version of the class OldRack: add"),
    ],
)
def test_a_definition_never_lacks_a_version(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, target: str, says: str
) -> None:
    code, _, err = manifests(capsys, f"rack_operator:{target}", "--directory=base", "--name=racks")
    assert code == 1
    assert says in err
    assert list(tmp_path.glob("base")) == []
    assert base(capsys, "rack_operator:converting_all")[0] == 0


def test_a_base_is_written_and_kept_current(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    files = ["kustomization", "rbac", "deployment", "service"]
    code, out = base(capsys, "rack_operator:Nodes", "--check")
    assert (code, len(out), list(tmp_path.glob("base"))) == (1, 5, [])
    assert base(capsys, "rack_operator:Nodes") == (0, [f"created base/{name}.yaml" for name in files])
    assert base(capsys, "rack_operator:Nodes") == (0, ["base is up to date"])
    assert base(capsys, "rack_operator:Nodes", "--check") == (0, ["base is up to date"])

    code, out = base(capsys, "rack_operator:Nodes", "--leader-election=lock", "--check")
    assert code == 1
    assert "changed base/deployment.yaml" in out
    assert "  -  replicas: 1" in out
    assert "  +        - --leader-election=lock" in out
    assert out[-1] == "base is out of date: run 'reconciler manifests'"
    assert base(capsys, "rack_operator:Nodes", "--check") == (0, ["base is up to date"]), "nothing was written"

    code, out = base(capsys, "rack_operator:webhooked")
    assert code == 0
    assert "created base/webhooks.yaml" in out
    assert "  +- webhooks.yaml" in out
    code, out = base(capsys, "rack_operator:Nodes")
    assert "removed base/webhooks.yaml" in out
    assert not (tmp_path / "base" / "webhooks.yaml").exists()


def test_files_that_were_not_generated_are_neither_overwritten_nor_removed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "mine.yaml").write_text("a: 1\n")
    assert base(capsys, "rack_operator:Nodes")[0] == 0
    assert (tmp_path / "base" / "mine.yaml").read_text() == "a: 1\n"
    (tmp_path / "base" / "rbac.yaml").write_text("a: 1\n")
    code, out, err = manifests(capsys, "rack_operator:Nodes", "--directory=base")
    assert (code, out) == (1, "")
    assert "base/rbac.yaml was not generated, so it is not overwritten" in err
    assert (tmp_path / "base" / "rbac.yaml").read_text() == "a: 1\n"


def test_options_come_from_the_project_and_the_command_line_takes_precedence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.reconciler.manifests]\ntarget = 'rack_operator:Nodes'\ndirectory = 'base'\nname = 'racks'\n"
    )
    assert manifests(capsys)[0] == 0
    assert "name: racks" in (tmp_path / "base" / "deployment.yaml").read_text()
    code, out, _ = manifests(capsys, "--name", "others", "--check")
    assert code == 1
    assert "  +  name: others" in out.splitlines()


def test_a_ca_bundle_is_put_into_the_webhook_configurations(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["certificates", "certs", "--host", "racks-webhook.default.svc"])
    assert exit_.value.code == 0
    assert {path.name for path in (tmp_path / "certs").iterdir()} == {"ca.crt", "tls.crt", "tls.key"}
    assert (tmp_path / "certs" / "tls.key").stat().st_mode & 0o077 == 0
    base(capsys, "rack_operator:webhooked", "--ca-bundle", "certs/ca.crt")
    _, configuration = yaml.safe_load_all((tmp_path / "base" / "webhooks.yaml").read_text())
    bundle = configuration["webhooks"][0]["clientConfig"]["caBundle"]
    assert base64.b64decode(bundle) == (tmp_path / "certs" / "ca.crt").read_bytes()
    assert "annotations" not in configuration["metadata"]


def test_certificates_are_not_overwritten(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "tls.key").write_text("mine")
    with pytest.raises(SystemExit) as exit_:
        main(["certificates", "."])
    assert exit_.value.code == 1
    assert "tls.key exists, and is not overwritten" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if path.suffix in (".crt", ".key")] == ["tls.key"]
    with pytest.raises(SystemExit):
        main(["certificates", "tls.key"])
    assert capsys.readouterr().err == "reconciler: cannot write tls.key/ca.crt: Not a directory\n"


@pytest.mark.parametrize(
    ("arguments", "text", "says"),
    [
        (["rack_operator:Nodes", "--check"], None, "--check needs --directory"),
        (["notification", "--directory=base"], None, "only printed"),
        (["rack_operator:Nodes", "--directory=rack_operator.py"], None, "rack_operator.py is not a directory"),
        (["rack_operator:Nodes", "--directory=rack_operator.py/x"], None, "cannot write rack_operator.py/x"),
        (
            ["rack_operator:webhooked", "--directory=base", "--ca-bundle=absent"],
            None,
            "--ca-bundle absent: No such file",
        ),
        (["rack_operator:webhooked", "--directory=base", "--ca-bundle=rack_operator.py"], None, "not a certificate"),
        ([], "[tool", "pyproject.toml: not a readable TOML file"),
        ([], "", "missing argument target"),
        ([], "[tool.reconciler.manifests]\nimages = 'x'", "Unknown option"),
    ],
)
def test_invalid_input_for_a_base_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, arguments: list[str], text: str | None, says: str
) -> None:
    if text is not None:
        (tmp_path / "pyproject.toml").write_text(text)
    code, out, err = manifests(capsys, *arguments)
    assert (code in (1, 2), out, len(err.splitlines())) == (True, "", 1), err
    assert says.lower() in err.lower()
    assert not (tmp_path / "base").exists()
