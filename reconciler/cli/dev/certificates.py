"""Development certificates for webhooks: a new CA, and a certificate that it has signed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from reconciler.errors import ConfigurationError, MissingExtra

__all__ = ["print_certificates", "write_certificates"]

_FILES = ("ca.crt", "tls.crt", "tls.key")


def print_certificates(directory: Path, hosts: Sequence[str]) -> int:
    """Write development certificates, and print where they are."""
    write_certificates(directory, hosts)
    print(f"wrote {', '.join(str(directory / name) for name in _FILES)} for {', '.join(hosts)}")
    print("They are for development: the key of the CA is not kept.")
    return 0


def write_certificates(directory: Path, hosts: Sequence[str]) -> bytes:
    """Write ``ca.crt``, ``tls.crt`` and ``tls.key`` for host names or addresses; return the CA's certificate in PEM.

    Raises:
        ConfigurationError: a host is invalid, a file exists, or one cannot be written.
        MissingExtra: the extra ``develop`` is not installed.
    """
    try:
        import trustme
    except ModuleNotFoundError as error:
        raise MissingExtra("trustme", extra="develop", purpose="making development certificates") from error
    authority = trustme.CA()
    try:
        certificate = authority.issue_cert(*hosts)
    except (ValueError, UnicodeError) as error:
        raise ConfigurationError(f"{', '.join(hosts)}: not valid names of a certificate: {error}") from error
    contents = (
        authority.cert_pem.bytes(),
        b"".join(each.bytes() for each in certificate.cert_chain_pems),
        certificate.private_key_pem.bytes(),
    )
    written: list[Path] = []
    existed = directory.exists()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in zip(_FILES, contents, strict=True):
            path = directory / name
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                written.append(path)
                file.write(content)
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if not existed:
            with contextlib.suppress(OSError):
                directory.rmdir()
        if isinstance(error, FileExistsError):
            raise ConfigurationError(f"{error.filename} exists, and is not overwritten") from error
        if isinstance(error, OSError):
            raise ConfigurationError(f"cannot write {error.filename or directory}: {error.strerror}") from error
        raise
    return contents[0]
