# SPDX-License-Identifier: Apache-2.0
"""A certificate authority of a test's own, made by `openssl`."""

import subprocess
from pathlib import Path
from typing import NamedTuple

KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Pair(NamedTuple):
    """A certificate and its key, in files."""

    certificate: Path
    key: Path


class Authority:
    """`file` is its certificate."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.file = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl("req", "-x509", *KEY, "-subj", f"/CN={name}", "-days", "30", "-keyout", self._key, "-out", self.file)

    def issue(self, name: str, *others: str, days: int = 20) -> Pair:
        """Make a certificate for a name and others (`DNS:localhost`); one of -1 days has expired."""
        pair, request = Pair(self.folder / f"{name}.pem", self.folder / f"{name}.key"), self.folder / f"{name}.csr"
        subject = ("-subj", f"/CN={name}", *(("-addext", f"subjectAltName={','.join(others)}") if others else ()))
        _openssl("req", *KEY, *subject, "-keyout", pair.key, "-out", request)
        pair.key.chmod(0o600)
        made = ("-in", request, "-CA", self.file, "-CAkey", self._key, "-copy_extensions", "copyall")
        _openssl("x509", "-req", *made, "-days", str(days), "-out", pair.certificate)
        return pair


def _openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
