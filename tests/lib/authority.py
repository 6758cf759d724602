"""A certificate authority of a test, by the openssl program."""

import pathlib
import ssl
import subprocess

CONFIG = """
[ca]
default_ca = it
[it]
dir = {dir}
new_certs_dir = {dir}
database = {dir}/index
serial = {dir}/serial
default_md = sha256
policy = any
unique_subject = no
copy_extensions = copy
[any]
commonName = optional
"""


class Authority:
    """ca: its certificate's file. certificate() issues others, each a pair of files (chain, key)."""

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        self.dir.mkdir(parents=True, exist_ok=True)
        (self.dir / "index").touch()
        (self.dir / "serial").write_text("01\n")
        (self.dir / "config").write_text(CONFIG.format(dir=self.dir))
        self.ca, self.key = self.self_signed("authority.test", name="ca")

    def openssl(self, *arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True,
                       timeout=60)

    def files(self, name):
        return self.dir / f"{name}.pem", self.dir / f"{name}.key"

    @staticmethod
    def key_options(rsa):
        return ("rsa:2048",) if rsa else ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")

    def self_signed(self, host, name=None, rsa=False, more=()):
        """Also in the place of what the files hold; more: further names."""
        chain, key = self.files(name or f"self-{host}")
        names = ",".join(f"DNS:{n}" for n in (host, *more))
        self.openssl("req", "-x509", "-newkey", *self.key_options(rsa), "-nodes", "-days", 30,
                     "-subj", f"/CN={host}", "-addext", f"subjectAltName={names}",
                     "-keyout", key, "-out", chain)
        return chain, key

    def certificate(self, host, expired=False, rsa=False):
        chain, key = self.files(f"{'expired' if expired else 'good'}-{host}")
        request = self.dir / f"{host}.csr"
        self.openssl("req", "-new", "-newkey", *self.key_options(rsa), "-nodes",
                     "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}",
                     "-keyout", key, "-out", request)
        times = ("-startdate", "20200101000000Z", "-enddate", "20200201000000Z") if expired \
            else ("-days", 30)
        self.openssl("ca", "-batch", "-notext", "-config", self.dir / "config", "-cert", self.ca,
                     "-keyfile", self.key, *times, "-in", request, "-out", chain)
        return chain, key


    def revoke(self, files):
        self.openssl("ca", "-config", self.dir / "config", "-cert", self.ca, "-keyfile", self.key,
                     "-revoke", files[0])

    def crl(self, file, expired=False):
        """Writes the list of what was revoked."""
        times = ("-crl_lastupdate", "20200101000000Z", "-crl_nextupdate", "20200201000000Z") if expired \
            else ("-crldays", 30)
        self.openssl("ca", "-config", self.dir / "config", "-cert", self.ca, "-keyfile", self.key,
                     "-gencrl", *times, "-out", file)
        return file


def serving(files):
    """A server's context with a certificate's files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    return context


def trusting(*chains):
    """A client's context that trusts these certificates, and nobody else."""
    context = ssl.create_default_context()
    for chain in chains:
        context.load_verify_locations(chain)
    return context


def careless(**settings):
    """One that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for name, value in settings.items():
        setattr(context, name, value)
    return context
