"""TLS between the functions and the embedded DynamoDB, on loopback."""

import ssl
import subprocess
from pathlib import Path
from typing import Any

from emulator import ROOT
from proxy import Proxies

ROOTS = ROOT / "shared/src/amazon-roots.pem"


class Tls:
    """A terminator in front of a port, for as long as it runs. As DynamoDB does, it speaks
    HTTP/1.1 and has an RSA certificate behind an intermediate one."""

    def __init__(self, port: int, folder: Path) -> None:
        chain, key, self._trusted = certificates(folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        context.set_alpn_protocols(["http/1.1"])
        self._proxies: Any = Proxies().__enter__()
        self._port = self._proxies.to(port, context).port

    def env(self) -> dict[str, str]:
        """The variables with which a function calls DynamoDB through it. The SDKs for Node.js and
        Python have variables of their own for certificates."""
        trusted = str(self._trusted)
        return {
            "AWS_ENDPOINT_URL_DYNAMODB": f"https://127.0.0.1:{self._port}",
            "SSL_CERT_FILE": trusted,
            "NODE_EXTRA_CA_CERTS": trusted,
            "AWS_CA_BUNDLE": trusted,
        }

    def stop(self) -> None:
        """Stops it."""
        self._proxies.__exit__()


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Makes a chain of certificates for loopback and its key. The third file has its root among
    those of Amazon, as many as a function has to read."""
    authority = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n"
    server = "basicConstraints=critical,CA:FALSE\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n"
    issuer = None
    for name, extensions in (("root", authority), ("intermediate", authority), ("server", server)):
        (folder / f"{name}.ext").write_text(extensions)
        request = ["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"]
        openssl(folder, *request, "-keyout", f"{name}.key", "-out", f"{name}.csr")
        signer = ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key"] if issuer else ["-signkey", f"{name}.key"]
        sign = ["x509", "-req", "-in", f"{name}.csr", "-days", "2", "-sha256", "-extfile", f"{name}.ext"]
        openssl(folder, *sign, *signer, "-set_serial", str(len(name)), "-out", f"{name}.pem")
        issuer = name
    chain, trusted = folder / "chain.pem", folder / "trusted.pem"
    chain.write_text("".join((folder / f"{name}.pem").read_text() for name in ("server", "intermediate")))
    trusted.write_text(ROOTS.read_text() + (folder / "root.pem").read_text())
    return chain, folder / "server.key", trusted


def openssl(folder: Path, *arguments: str) -> None:
    """Runs openssl, which prints nothing if it succeeds."""
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
