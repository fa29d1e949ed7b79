"""A key and two certificates for HTTPS servers on loopback. They guard nothing: nobody but a test trusts them."""

from __future__ import annotations

import ssl
from pathlib import Path

KEY = """\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIP5Lvm4+qIinQmK3+Jjoo04xOUT3JHs3gQvc7KqGPVlcoAoGCCqGSM49
AwEHoUQDQgAEjin5Tw0Og3/ocY1fGZ6Lom1f1V/St2i0kmkTjfy3661SMndUBf3W
Td3wYTjCu0vbXDmt6pPl/GQrVauI0OxxVg==
-----END EC PRIVATE KEY-----
"""

# For localhost and 127.0.0.1, until 2120.
GOOD = """\
-----BEGIN CERTIFICATE-----
MIIBajCCARCgAwIBAgIBAjAKBggqhkjOPQQDAjAXMRUwEwYDVQQDDAxydW5uZXIg
dGVzdHMwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBcxFTATBgNV
BAMMDHJ1bm5lciB0ZXN0czBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABI4p+U8N
DoN/6HGNXxmei6JtX9Vf0rdotJJpE438t+utUjJ3VAX91k3d8GE4wrtL21w5reqT
5fxkK1WriNDscVajSzBJMBoGA1UdEQQTMBGCCWxvY2FsaG9zdIcEfwAAATAMBgNV
HRMEBTADAQH/MB0GA1UdDgQWBBSQqXbLGrRiYMuPjQxpLf5fW5HmhzAKBggqhkjO
PQQDAgNIADBFAiEA2q6Xp8uW93F1gvtc2ogqnK2c1F2bFDph1jkWkJF5j5sCIFz/
IoDCjxriaux4D57y3iUeGFSwMdc7EfnRMPW/0ZUl
-----END CERTIFICATE-----
"""

# The same, but its one day was in 2020.
EXPIRED = """\
-----BEGIN CERTIFICATE-----
MIIBZzCCAQ6gAwIBAgIBATAKBggqhkjOPQQDAjAXMRUwEwYDVQQDDAxydW5uZXIg
dGVzdHMwHhcNMjAwMTAxMDAwMDAwWhcNMjAwMTAyMDAwMDAwWjAXMRUwEwYDVQQD
DAxydW5uZXIgdGVzdHMwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASOKflPDQ6D
f+hxjV8ZnouibV/VX9K3aLSSaRON/LfrrVIyd1QF/dZN3fBhOMK7S9tcOa3qk+X8
ZCtVq4jQ7HFWo0swSTAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwDAYDVR0T
BAUwAwEB/zAdBgNVHQ4EFgQUkKl2yxq0YmDLj40MaS3+X1uR5ocwCgYIKoZIzj0E
AwIDRwAwRAIgOcmFhCpfau/0Vv0Ue6XuM/5ULLUzdlQ1zIVdwbGc/GUCIC3XT5Et
o7H+tXJhjbmCoFGFidIuaqV0gcb3ilaC3mJ4
-----END CERTIFICATE-----
"""


def server_side(folder: Path, certificate: str = GOOD) -> ssl.SSLContext:
    """For a server; the files that `ssl` insists on go to `folder`."""
    (folder / "key.pem").write_text(KEY)
    (folder / "certificate.pem").write_text(certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


def client_side(certificate: str = GOOD) -> ssl.SSLContext:
    """For a client that trusts this certificate and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=certificate)
    return context
