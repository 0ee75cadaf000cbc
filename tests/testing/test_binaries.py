"""Finding and building the binaries of a control plane, with a fake Go."""

import fcntl
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import pytest

from reconciler.testing.control_plane import build
from reconciler.testing.control_plane.binaries import BinariesMissing, binaries_path, find_or_build

GO = """#!/bin/sh
set -e
echo "$PWD $*" >> "$CALLS"
test -f go.mod && test -f go.sum
test -n "$GOBIN" && mkdir -p "$GOBIN"
for name in server etcdutl kube-apiserver kubectl kube-controller-manager; do
  printf '#!/bin/sh\\n' > "$GOBIN/$name"
  chmod +x "$GOBIN/$name"
done
"""
BROKEN_GO = """#!/bin/sh
echo "go: no such module" >&2
exit 1
"""


def program(path: Path, text: str = "#!/bin/sh\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set up a fake Go, an empty cache and no KUBEBUILDER_ASSETS; return the file with Go's calls."""
    program(tmp_path / "go" / "go", GO)
    monkeypatch.setenv("PATH", f"{tmp_path / 'go'}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    monkeypatch.delenv("GOFLAGS", raising=False)
    return tmp_path / "calls"


def test_kubebuilder_assets_take_precedence(calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("etcd", "kube-apiserver"):
        program(tmp_path / "assets" / name)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    assert binaries_path() == tmp_path / "assets"
    assert find_or_build() == tmp_path / "assets"
    assert not calls.exists()


def test_incomplete_kubebuilder_assets_are_an_error_and_not_ignored(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build()
    program(tmp_path / "assets" / "etcd")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    with pytest.raises(BinariesMissing, match=r"^no kube-apiserver in KUBEBUILDER_ASSETS, .*/assets: build them"):
        binaries_path()
    with pytest.raises(BinariesMissing):
        find_or_build()


def test_missing_binaries_are_reported_in_one_line_with_the_remedy(calls: Path) -> None:
    with pytest.raises(BinariesMissing) as caught:
        binaries_path()
    text = str(caught.value)
    assert text.startswith("no etcd and no kube-apiserver in ")
    assert "'reconciler envtest build'" in text
    assert "KUBEBUILDER_ASSETS" in text
    assert "\n" not in text


def test_missing_go_is_reported_in_one_line_with_the_remedies(calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BinariesMissing) as caught:
        build()
    assert "install it (https://go.dev/dl), or set KUBEBUILDER_ASSETS" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_binaries_are_built_once_into_the_users_cache(calls: Path, tmp_path: Path) -> None:
    path = build()
    assert path == find_or_build() == build() == binaries_path()
    assert path.parent.parent == tmp_path / "cache" / "kube-reconciler" / "envtest"
    assert sorted(p.name for p in path.iterdir()) == ["etcd", "etcdutl", "kube-apiserver", "kubectl"]
    (call,) = calls.read_text().splitlines()
    flags = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3"
    assert f" install -v -ldflags {flags} go.etcd.io/etcd/server/v3 go.etcd.io/etcd/etcdutl/v3 k8s.io/" in call
    assert sorted(p.name for p in path.parent.iterdir()) == ["bin", "lock"]


def test_controller_manager_is_built_only_if_wanted(calls: Path) -> None:
    path = build()
    assert not (path / "kube-controller-manager").exists()
    assert build(controller_manager=True) == find_or_build(controller_manager=True) == path
    assert (path / "kube-controller-manager").exists()
    first, second = calls.read_text().splitlines()
    assert "kube-controller-manager" not in first
    assert second.endswith("gitVersion=v1.36.3 k8s.io/kubernetes/cmd/kube-controller-manager")


def test_missing_controller_manager_in_kubebuilder_assets_is_an_error(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("etcd", "kube-apiserver"):
        program(tmp_path / "assets" / name)
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    with pytest.raises(BinariesMissing, match=r"^no kube-controller-manager in KUBEBUILDER_ASSETS, .*: unset it"):
        find_or_build(controller_manager=True)
    assert not calls.exists()


def test_the_module_of_the_package_is_not_built_in(calls: Path) -> None:
    build()
    assert "/site-packages/" not in calls.read_text()
    assert "/reconciler/testing/" not in calls.read_text()


def test_a_second_builder_waits_for_the_first(calls: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = {future.result() for future in [pool.submit(build) for _ in range(4)]}
    assert len(paths) == 1
    assert len(calls.read_text().splitlines()) == 1


def test_processes_wait_for_each_other_too(calls: Path) -> None:
    command = [sys.executable, "-c", "from reconciler.testing.control_plane import build; build()"]
    running = [subprocess.Popen(command, env=os.environ.copy()) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert len(calls.read_text().splitlines()) == 1


def test_a_failed_build_reports_the_compilers_output_and_leaves_nothing(calls: Path, tmp_path: Path) -> None:
    program(tmp_path / "go" / "go", BROKEN_GO)
    with pytest.raises(BinariesMissing, match=r"go install' of the control plane failed: go: no such module$"):
        build()
    with pytest.raises(BinariesMissing, match=r"^no etcd"):
        binaries_path()
    program(tmp_path / "go" / "go", GO)
    assert build() == binaries_path()


def test_a_failed_build_without_output_reports_its_exit_code(calls: Path, tmp_path: Path) -> None:
    program(tmp_path / "go" / "go", "#!/bin/sh\nexit 3\n")
    with pytest.raises(BinariesMissing, match="failed: exit code 3"):
        build()


def test_flags_of_the_environment_are_kept(calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "go" / "go", GO.replace('echo "$PWD $*"', 'echo "$GOFLAGS"'))
    monkeypatch.setenv("GOFLAGS", "-buildvcs=false")
    build()
    assert calls.read_text() == "-buildvcs=false -mod=mod\n"


def test_the_cache_is_in_the_home_directory_by_default(
    calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert build().is_relative_to(tmp_path / "home" / ".cache" / "kube-reconciler")


def test_output_of_go_in_another_encoding_does_not_stop_its_reader(calls: Path, tmp_path: Path) -> None:
    program(tmp_path / "go" / "go", "#!/bin/sh\nexec >&2\nprintf '\\377\\n'\necho 'bad.go:1:2: no'\nexit 1\n")
    with pytest.raises(BinariesMissing, match=r"bad\.go:1:2: no"):
        build()


def test_a_build_reports_what_go_has_done(calls: Path, tmp_path: Path) -> None:
    goes_on = tmp_path / "goes on"
    os.mkfifo(goes_on)
    program(
        tmp_path / "go" / "go",
        f"{GO}exec >&2\necho 'go: downloading k8s.io/api v0.36.3'\necho k8s.io/api/core/v1\nread line < '{goes_on}'\n",
    )
    reports: list[str] = []

    def report(text: str) -> None:
        reports.append(text)
        if "packages compiled: 1" in text and len(reports) > 1:
            goes_on.write_text("\n")

    build(progress=report)
    assert reports[-1] == "building etcd and kube-apiserver: modules downloaded: 1, packages compiled: 1"


def test_waiting_for_another_build_is_reported(calls: Path) -> None:
    build()
    cache = binaries_path().parent
    (cache / "bin" / "kubectl").unlink()
    told: Queue[str] = Queue()
    with ThreadPoolExecutor(1) as pool, (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting = pool.submit(build, progress=told.put)
        assert told.get(timeout=30) == "another process is building etcd and kube-apiserver: waiting for it"
        fcntl.flock(lock, fcntl.LOCK_UN)
        waiting.result()


def test_names_of_packages_are_not_part_of_an_error(calls: Path, tmp_path: Path) -> None:
    program(
        tmp_path / "go" / "go",
        "#!/bin/sh\nexec >&2\necho k8s.io/api/core/v1\necho '# k8s.io/bad'\necho 'bad.go:1:2: no'\necho fmt\nexit 1\n",
    )
    with pytest.raises(BinariesMissing, match=r"failed: # k8s\.io/bad \| bad\.go:1:2: no$"):
        build()
