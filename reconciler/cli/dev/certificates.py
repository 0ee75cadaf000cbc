"""Development certificates for webhooks: a new CA, and a certificate that it has signed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reconciler.cli.writing import write_files
from reconciler.errors import ConfigurationError, MissingExtra

__all__ = ["print_certificates", "write_certificates"]

_FILES = ("ca.crt", "tls.crt", "tls.key")


def print_certificates(directory: Path, hosts: Sequence[str]) -> int:
    """Write development certificates, and print where they are."""
    write_certificates(directory, hosts)
    print(f"wrote {', '.join(str(directory / name) for name in _FILES)} for {', '.join(hosts)}")
    print("They are for development: the key of the CA is not kept.")
    return 0


def write_certificates(directory: Path, hosts: Sequence[str]) -> None:
    """Write ``ca.crt``, ``tls.crt`` and ``tls.key`` for host names or addresses; only their owner may read them.

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
    chain = b"".join(each.bytes() for each in certificate.cert_chain_pems)
    contents = authority.cert_pem.bytes(), chain, certificate.private_key_pem.bytes()
    files = {name: content.decode() for name, content in zip(_FILES, contents, strict=True)}
    write_files(directory, files, mode=0o600)
