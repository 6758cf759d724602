"""Real servers from Debian's packages, unpacked by `tools/deps peers` and run in temporary
directories: Postfix, Exim, OpenSMTPD, Dovecot, Knot DNS, Unbound.

Each takes mail for its own domain, keeps it in Maildirs and refuses users it does not know. They
need root (private mount namespaces) and leave nothing behind."""

import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "lib"))
from proc import Process, TempDir, free_port, wait_port, wait_until  # noqa: E402

IN_ROOT = pathlib.Path(__file__).resolve().parent.parent / "lib" / "in_root"
TREES = pathlib.Path(os.environ.get("HAYAUMA_PEERS") or pathlib.Path(
    os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "hayauma" / "peers")
USERS = ("taro", "hanako", "jiro")
MAIL_ID = 5000  # owner of the Maildirs; every account here is above 5000 and exists only inside


def missing(*trees):
    """Why these peers cannot run here, or None."""
    if os.geteuid() != 0:
        return "real peers run in mount namespaces, which needs root"
    absent = [t for t in trees if not (TREES / t / ".complete").exists()]
    return f"not unpacked: {' '.join(absent)}; run tools/deps peers" if absent else None


def bracketed(host):
    return f"[{host}]" if ":" in host else host


class Peer:
    """One server. Subclasses set tree and accounts, and say in argv() what to run."""

    tree = ""
    accounts = ""
    key_open = True  # whoever the server becomes reads its key

    def __init__(self, domain, host="127.0.0.1", port=None):
        self.domain, self.host = domain, host
        self.port = port or free_port((host,))
        self.temp = TempDir(f"hayauma-{self.tree}-")
        self.dir = self.temp.path
        self.mail = self.dir / "mail"
        self.mail.mkdir()
        os.chown(self.mail, MAIL_ID, MAIL_ID)
        self.process = None
        self.chain = self.key = None

    def encrypt(self, chain, key):
        """Offers STARTTLS with copies of these files; before start()."""
        self.chain = self.write("tls.pem", pathlib.Path(chain).read_text())
        self.key = self.write("tls.key", pathlib.Path(key).read_text(), 0o644 if self.key_open else 0o600)
        return self

    def write(self, name, text, mode=0o644):
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def configure(self):
        """Writes the configuration."""

    def argv(self):
        raise NotImplementedError

    def in_root(self, argv, prepare="true"):
        return [IN_ROOT, TREES / self.tree, self.dir, f"vmail:{MAIL_ID} {self.accounts}", "--",
                "/bin/sh", "-c", f'{prepare} && exec "$@"', "sh", *argv]

    prepare = "true"  # shell commands inside the root before argv

    def start(self):
        self.configure()
        self.process = Process(self.in_root(self.argv(), self.prepare), self.dir / "log")
        self.wait_ready()
        return self

    def wait_ready(self):
        wait_port((self.host, self.port), self.process)

    def stop(self):
        if self.process:
            self.process.kill()
            self.process = None
        self.temp.close()

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()

    def maildir(self, user):
        """Paths of the messages that user has, oldest first."""
        found = [*(self.mail / user / "new").glob("*"), *(self.mail / user / "cur").glob("*")]
        return sorted(found, key=lambda p: (p.stat().st_mtime_ns, p.name))

    def wait_mail(self, user, count=1, timeout_s=30):
        """The contents of user's messages once there are count of them."""
        wait_until(f"{count} messages of {user} at {self.domain}, there are "
                   f"{len(self.maildir(user))}",
                   lambda: len(self.maildir(user)) >= count, timeout_s, process=self.process)
        return [p.read_bytes() for p in self.maildir(user)]


class Postfix(Peer):
    tree = "postfix"
    accounts = "postfix:5101 postdrop:5102"
    prepare = "install -d -o postfix /var/lib/postfix"

    def __init__(self, domain, host="127.0.0.1", port=None, relayhost=None, settings=None):
        super().__init__(domain, host, port)
        self.relayhost = relayhost  # "[host]:port": relays everything that is not its own
        self.settings = settings or {}

    def configure(self):
        spool = self.dir / "spool"
        settings = {
            "compatibility_level": "3.6",
            "queue_directory": spool, "data_directory": "/var/lib/postfix",
            "maillog_file": self.dir / "log", "maillog_file_prefixes": self.dir,
            "myhostname": f"mx.{self.domain}", "mydestination": "", "inet_protocols": "ipv4",
            "mynetworks": "127.0.0.0/8",
            "smtpd_relay_restrictions": "permit_mynetworks, reject_unauth_destination",
            "virtual_mailbox_domains": self.domain, "virtual_mailbox_base": self.mail,
            "virtual_mailbox_maps": "inline:{ " + ", ".join(
                f"{{ {u}@{self.domain} = {u}/ }}" for u in USERS) + " }",
            "virtual_uid_maps": f"static:{MAIL_ID}", "virtual_gid_maps": f"static:{MAIL_ID}",
            "virtual_mailbox_limit": 0, "message_size_limit": 50 << 20, "smtputf8_enable": "yes",
            "local_recipient_maps": "", "alias_maps": "", "alias_database": "",
            "smtp_host_lookup": "native", "disable_dns_lookups": "yes",
            "transport_maps": f"inline:{{ {{ * = smtp:{self.relayhost} }} }}",
        }
        if not self.relayhost:
            del settings["transport_maps"]
        if self.chain:
            settings.update({"smtpd_tls_security_level": "may", "smtpd_tls_loglevel": 1,
                             "smtpd_tls_cert_file": self.chain, "smtpd_tls_key_file": self.key,
                             "smtpd_tls_received_header": "yes"})
        settings.update(self.settings)
        main = "".join(f"{k} = {v}\n" for k, v in settings.items())
        self.write("etc/main.cf", main)
        services = ["cleanup unix n - n - 0 cleanup", "qmgr unix n - n 300 1 qmgr",
                    "tlsmgr unix - - n 1000? 1 tlsmgr", "rewrite unix - - n - - trivial-rewrite",
                    "bounce unix - - n - 0 bounce", "defer unix - - n - 0 bounce",
                    "trace unix - - n - 0 bounce", "verify unix - - n - 1 verify",
                    "proxymap unix - - n - - proxymap", "proxywrite unix - - n - 1 proxymap",
                    "smtp unix - - n - - smtp", "relay unix - - n - - smtp",
                    "error unix - - n - - error", "retry unix - - n - - error",
                    "discard unix - - n - - discard", "local unix - n n - - local",
                    "virtual unix - n n - - virtual", "lmtp unix - - n - - lmtp",
                    "anvil unix - - n - 1 anvil", "scache unix - - n - 1 scache",
                    "flush unix n - n 1000? 0 flush", "pickup unix n - n 60 1 pickup",
                    "postlog unix-dgram n - n - 1 postlogd",
                    f"{bracketed(self.host)}:{self.port} inet n - n - - smtpd"]
        self.write("etc/master.cf", "\n".join(services) + "\n")
        self.prepare = (
            f"install -d -o postfix /var/lib/postfix && mkdir -p {spool}/pid && "
            f"for d in active bounce corrupt defer deferred flush hold incoming private saved "
            f"trace; do install -d -m 700 -o postfix {spool}/$d; done && "
            f"install -d -m 710 -o postfix -g postdrop {spool}/public && "
            f"install -d -m 730 -o postfix -g postdrop {spool}/maildrop")

    def argv(self):
        return ["/usr/lib/postfix/sbin/master", "-d", "-c", self.dir / "etc"]


class Exim(Peer):
    tree = "exim"
    accounts = "Debian-exim:5201"

    def __init__(self, domain, host="127.0.0.1", port=None, old=False):
        super().__init__(domain, host, port)
        self.old = old  # offers neither SMTPUTF8 nor 8BITMIME

    def configure(self):
        users = ":".join(USERS)
        # acl_not_smtp and friends stay at their defaults: nothing is submitted locally.
        self.write("exim.conf", f"""
primary_hostname = mx.{self.domain}
domainlist ours = {self.domain}
local_interfaces = {self.host}
daemon_smtp_ports = {self.port}
spool_directory = {self.dir}/spool
log_file_path = {self.dir}/exim-%slog
acl_smtp_rcpt = check_rcpt
smtputf8_advertise_hosts = {"" if self.old else "*"}
accept_8bitmime = {"false" if self.old else "true"}
chunking_advertise_hosts = *
pipelining_advertise_hosts = *
smtp_accept_max = 200
smtp_accept_max_per_connection = 10000
smtp_accept_queue_per_connection = 0
queue_only_load = 1000
message_size_limit = 50M
tls_advertise_hosts = {"*" if self.chain else ""}
tls_certificate = {self.chain or ""}
tls_privatekey = {self.key or ""}
rfc1413_query_timeout = 0s
begin acl
check_rcpt:
  deny !domains = +ours
       message = relaying denied
  deny !local_parts = {users}
       message = no such user
  accept
begin routers
mailboxes:
  driver = accept
  domains = +ours
  local_parts = {users}
  transport = maildirs
begin transports
maildirs:
  driver = appendfile
  directory = {self.mail}/$local_part_data
  maildir_format
  create_directory
  user = vmail
  group = vmail
""")
        self.prepare = (f"cp {self.dir}/exim.conf /etc/exim4/exim4.conf && "
                        f"install -d -o Debian-exim -g Debian-exim {self.dir}/spool && "
                        f"chown Debian-exim {self.dir}")

    def argv(self):
        return ["/usr/sbin/exim4", "-bdf"]


class OpenSmtpd(Peer):
    tree = "opensmtpd"
    key_open = False
    accounts = "opensmtpd:5301 opensmtpq:5302"

    def configure(self):
        self.write("users", "".join(f"{u} {MAIL_ID}:{MAIL_ID}:{self.mail}/{u}\n" for u in USERS))
        pki = f"mx.{self.domain}"
        lines = (f'pki {pki} cert "{self.chain}"\npki {pki} key "{self.key}"\n' if self.chain else "")
        self.write("smtpd.conf", f"""
{lines}table users file:{self.dir}/users
listen on {self.host} port {self.port} {f"tls pki {pki}" if self.chain else ""} hostname mx.{self.domain}
action "store" maildir "{self.mail}/%{{rcpt.user}}" userbase <users>
match from any for domain "{self.domain}" action "store"
""", 0o600)
        self.prepare = "install -d -m 711 /var/spool/smtpd && cp /bin/true /usr/sbin/sendmail"

    def argv(self):
        return ["/usr/sbin/smtpd", "-d", "-v", "-f", self.dir / "smtpd.conf"]


class Dovecot(Peer):
    """port takes LMTP; imap_port and pop3_port read. Any known user's password is "secret"."""

    tree = "dovecot"
    accounts = "dovecot:5401 dovenull:5402"

    def __init__(self, domain, host="127.0.0.1", port=None):
        super().__init__(domain, host, port)
        self.imap_port, self.pop3_port = free_port((host,)), free_port((host,))

    def configure(self):
        self.write("users", "".join(
            f"{u}@{self.domain}:{{PLAIN}}secret:{MAIL_ID}:{MAIL_ID}::{self.mail}/{u}::\n"
            for u in USERS))
        self.write("dovecot.conf", f"""
base_dir = /run/dovecot
log_path = {self.dir}/log
protocols = lmtp imap pop3
listen = {self.host}
ssl = no
disable_plaintext_auth = no
default_internal_user = dovecot
default_login_user = dovenull
mail_location = maildir:{self.mail}/%n
first_valid_uid = {MAIL_ID}
lda_mailbox_autocreate = yes
lmtp_rcpt_check_quota = no
hostname = mx.{self.domain}
postmaster_address = postmaster@{self.domain}
passdb {{
  driver = passwd-file
  args = username_format=%u {self.dir}/users
}}
userdb {{
  driver = passwd-file
  args = username_format=%u {self.dir}/users
}}
service lmtp {{
  inet_listener lmtp {{
    address = {self.host}
    port = {self.port}
  }}
  unix_listener {self.dir}/lmtp.sock {{
    mode = 0666
  }}
}}
service imap-login {{
  inet_listener imap {{
    port = {self.imap_port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {self.pop3_port}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
""")
        self.prepare = "mkdir -p /run/dovecot /var/lib/dovecot"

    def argv(self):
        return ["/usr/sbin/dovecot", "-F", "-c", self.dir / "dovecot.conf"]

    def wait_ready(self):
        for port in (self.port, self.imap_port, self.pop3_port):
            wait_port((self.host, port), self.process)


class Nginx(Peer):
    """Subclasses say in http() what stands in its http block."""

    tree = "nginx"

    def http(self):
        raise NotImplementedError

    def configure(self):
        self.write("nginx.conf", f"""
user root;
daemon off;
worker_processes 1;
pid {self.dir}/nginx.pid;
error_log stderr;
events {{}}
http {{
  access_log {self.dir}/access;
  client_body_temp_path {self.dir}/body; proxy_temp_path {self.dir}/proxy;
  fastcgi_temp_path {self.dir}/fastcgi; uwsgi_temp_path {self.dir}/uwsgi; scgi_temp_path {self.dir}/scgi;
{self.http()}
}}
""")

    def argv(self):
        return ["/usr/sbin/nginx", "-e", "stderr", "-c", self.dir / "nginx.conf"]


class Knot(Peer):
    """Authoritative server of the zone example., whose records are zone file lines."""

    tree = "dns"
    accounts = "knot:5501"

    def __init__(self, records, host="127.0.0.1", port=None):
        super().__init__("example", host, port)
        self.records = records

    def configure(self):
        self.write("example.zone", "$ORIGIN example.\n$TTL 60\n@ SOA ns hostmaster 1 60 60 60 5\n"
                   f"@ NS ns\nns A {self.host}\n{self.records}\n")
        self.write("knot.conf", f"""
server:
  rundir: {self.dir}
  listen: {self.host}@{self.port}
log:
  - target: stderr
    any: info
database:
  storage: {self.dir}/db
zone:
  - domain: example.
    file: {self.dir}/example.zone
""")

    def argv(self):
        return ["/usr/sbin/knotd", "-c", self.dir / "knot.conf"]


class Unbound(Peer):
    """Resolver that finds the zone example. at one authoritative server."""

    tree = "dns"
    accounts = "unbound:5502"

    def __init__(self, server, host="127.0.0.1", port=None):
        super().__init__("", host, port)
        self.server = server

    def configure(self):
        self.write("unbound.conf", f"""
server:
  interface: {self.host}
  port: {self.port}
  do-daemonize: no
  use-syslog: no
  logfile: ""
  chroot: ""
  username: ""
  pidfile: "{self.dir}/unbound.pid"
  directory: "{self.dir}"
  do-not-query-localhost: no
  do-ip6: no
  module-config: "iterator"
  local-zone: "example." transparent
  # On a loaded machine the zone's server answers late, and is not dead: by default it gets 376 ms at
  # first, is given up after a few such waits, and queries of more than 200 ms make room for others.
  unknown-server-time-limit: 10000
  infra-cache-min-rtt: 5000
  infra-keep-probing: yes
  jostle-timeout: 60000
  num-queries-per-thread: 4096
remote-control:
  control-enable: no
stub-zone:
  name: "example"
  stub-addr: {self.server.host}@{self.server.port}
""")

    def argv(self):
        return ["/usr/sbin/unbound", "-d", "-p", "-c", self.dir / "unbound.conf"]
