"""The command ``reconciler recording fetch``: copies the recording of a running operator."""

from __future__ import annotations

from pathlib import Path

import msgspec

from reconciler.cli.operator.endpoint import EndpointError, read_debug
from reconciler.cli.options import AccessFlags
from reconciler.errors import ConfigurationError
from reconciler.recording.segments import SUFFIX

_PATH = "/debug/recording"


def fetch_recording(endpoint: str, access: AccessFlags, directory: Path) -> int:
    """Copy the segments of an operator's recording to a directory, whose files only their owner can read.

    Args:
        endpoint: the operator's.
        access: the token to send, and which certificates to trust.
        directory: a new or an empty directory.

    Raises:
        ConfigurationError: the directory is in use, or cannot be written.
        EndpointError: the operator cannot be asked, does not record, or refuses.
    """
    try:
        names = msgspec.json.decode(read_debug(endpoint, access, _PATH), type=list[str])
    except msgspec.MsgspecError as error:
        raise EndpointError(f"--endpoint {endpoint}: the response is not that of an operator") from error
    if any(not name.endswith(SUFFIX) or "/" in name or "\\" in name for name in names):
        raise EndpointError(f"--endpoint {endpoint}: the response is not that of an operator")
    size = 0
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise ConfigurationError(f"{directory} is not empty: choose another directory")
        for name in names:
            data = read_debug(endpoint, access, _PATH, segment=name)
            path = directory / name
            path.touch(mode=0o600)
            size += path.write_bytes(data)
    except OSError as error:
        raise ConfigurationError(f"cannot write to {directory}: {error.strerror}") from error
    print(f"{len(names)} segments, {size:,} bytes, in {directory}")
    return 0
