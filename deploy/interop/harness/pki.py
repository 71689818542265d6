"""Throw-away certificates made with openssl."""
import os

from .lab import run

_LEAF = """basicConstraints=CA:FALSE
keyUsage=digitalSignature
subjectAltName={san}
extendedKeyUsage={usage}
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""
_CA = """basicConstraints=critical,CA:TRUE
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
"""
_IKE = "1.3.6.1.5.5.7.3.17"
# What makes a certificate of 1 KB one of 2 KB.
_COMMENT = "nsComment=" + "swugate interop " * 40 + "\n"
_KEYS = {"rsa": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
         "rsa-4096": ["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:4096"],
         "ecdsa": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]}


class Pki:
    """Certificates of one key type in `directory`.

    Files: ca.pem (root), gw.pem (gateway, followed by its intermediate CA when there is one), gw.key,
    ue.pem, ue.key, ue.p12 (password "interop", friendly name "ue-KIND").
    """

    def __init__(self, directory, kind, intermediate=False, long=False):
        """intermediate: the gateway's certificate has an issuer between it and the root, with long the UE's too.

        long: certificates of 2 KB.
        """
        self.dir, self.kind, self.more = directory, kind, _COMMENT if long else ""
        os.makedirs(directory, exist_ok=True)
        self._authority("ca", "swugate interop root", None)
        issuer = "ca"
        if intermediate:
            self._authority("sub", "swugate interop intermediate", "ca")
            issuer = "sub"
        self._leaf("gw", "gw.test", "DNS:gw.test,IP:10.98.0.1", f"serverAuth,{_IKE}", issuer)
        self._leaf("ue", "ue.test", "DNS:ue.test,email:ue@ue.test", f"clientAuth,{_IKE}", issuer if long else "ca")
        if intermediate:
            with open(self.file("gw.pem"), "a") as chain, open(self.file("sub.pem")) as sub:
                chain.write(sub.read())
        self._openssl("pkcs12", "-export", "-in", "ue.pem", "-inkey", "ue.key", "-name", f"ue-{kind}",
                      "-passout", "pass:interop", "-out", "ue.p12")

    def file(self, name):
        return os.path.join(self.dir, name)

    def _openssl(self, *arguments):
        files = ("pem", "key", "csr", "ext", "p12")
        paths = [self.file(a) if a.rpartition(".")[2] in files else a for a in arguments]
        run(["openssl", *paths])

    def _request(self, name, subject):
        self._openssl("genpkey", *_KEYS[self.kind], "-out", f"{name}.key")
        os.chmod(self.file(f"{name}.key"), 0o600)
        self._openssl("req", "-new", "-key", f"{name}.key", "-subj", f"/O=swugate {self.kind}/CN={subject}", "-out", f"{name}.csr")

    def _sign(self, name, extensions, issuer):
        with open(self.file(f"{name}.ext"), "w") as file:
            file.write(extensions + self.more)
        signer = ["-CA", f"{issuer}.pem", "-CAkey", f"{issuer}.key", "-CAcreateserial"] if issuer else \
                 ["-signkey", f"{name}.key"]
        self._openssl("x509", "-req", "-in", f"{name}.csr", "-sha256", "-days", "3650", *signer,
                      "-extfile", f"{name}.ext", "-out", f"{name}.pem")

    def _authority(self, name, subject, issuer):
        self._request(name, subject)
        self._sign(name, _CA, issuer)

    def _leaf(self, name, subject, san, usage, issuer):
        self._request(name, subject)
        self._sign(name, _LEAF.format(san=san, usage=usage), issuer)
