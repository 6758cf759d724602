#!/usr/bin/env python3
"""Signatures as dkimpy, Perl's Mail::DKIM and OpenDKIM see them, with the keys in a zone of Knot:
odd messages, through the real path, by DATA and BDAT, as they are and converted to 7 bits, in each
canonical form, RSA and Ed25519.

verifiers.py [TEST...]"""

import json
import re
import shutil
import subprocess

from setting import (CHUNKS, FULL, OLD, Failure, Keys, Receiver, Skip, TempDir, World, hayauma, peers, run,
                     signatures, wait_until)

from odd import MESSAGES

# Debian's, whatever other python3 there is.
DKIMPY = r"""
import sys, dkim, dns.resolver
resolver = dns.resolver.Resolver(configure=False)
resolver.nameservers, resolver.port = ["127.0.0.1"], int(sys.argv[1])
known = {}
def look_up(name, timeout=5):
    if name not in known:
        answer = resolver.resolve(name.decode(), "TXT", lifetime=4 * timeout)
        known[name] = b"".join(next(iter(answer)).strings)
    return known[name]
for file in sys.argv[2:]:
    try:
        good = dkim.DKIM(open(file, "rb").read()).verify(dnsfunc=look_up)
        print(file, "verdict", "pass" if good else "fail")
    except dkim.DKIMException as error:
        print(file, repr(error))
"""
FORMS = ("relaxed/relaxed", "relaxed/simple", "simple/relaxed", "simple/simple")
PERL = r"""
use strict; use warnings;
use Mail::DKIM::Verifier; use Mail::DKIM::DNS; use Net::DNS;
my $port = shift @ARGV;
my $resolver = Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $port, recurse => 0);
Mail::DKIM::DNS::resolver($resolver);
for my $file (@ARGV) {
    open(my $in, '<:raw', $file) or die "$file: $!";
    local $/; my $text = <$in>;
    my $v = Mail::DKIM::Verifier->new();
    $v->PRINT($text); $v->CLOSE;
    my ($s) = $v->signatures;
    printf "%s %s %s\n", $file, $s->algorithm, $s->result_detail;
}
"""


class Zone(peers.Knot):
    """The zone example. with the lines that keygen printed."""

    def __init__(self, keys):
        super().__init__(keys.zone)


def split(content):
    """The content with each of its two signatures alone."""
    at = content.index(b"\r\nDKIM-Signature:", 2) + 2
    end = re.compile(rb"\r\n(?![ \t])").search(content, at).end()
    return content[:at] + content[end:], content[at:]


class Graders:
    """Each takes files with one signature and says which of them do not verify."""

    def __init__(self, keys, zone):
        self.keys, self.zone = keys, zone

    def lines(self, name, argv, files):
        """What a verifier prints: a file and its verdict on a line."""
        done = subprocess.run([*argv, str(self.zone.port), *map(str, files)], capture_output=True,
                              text=True, check=False)
        if "Can't locate" in done.stderr or "ModuleNotFoundError" in done.stderr:
            raise Skip(f"{done.stderr.splitlines()[-1]}; run tools/deps test")
        results = dict(line.split(" ", 1) for line in done.stdout.splitlines())
        return [f"{f}: {name}: {results.get(str(f), done.stderr[-2000:])}" for f in files
                if not results.get(str(f), "").endswith(" pass")]

    def dkimpy(self, files):
        return self.lines("dkimpy", ["/usr/bin/python3", "-c", DKIMPY], files)

    def perl(self, files):
        """It knows RSA only, in Debian 12."""
        return self.lines("Mail::DKIM", ["perl", "-e", PERL],
                          [f for f in files if f.name.endswith(".rsa")])

    def opendkim(self, files):
        why = peers.missing("opendkim")
        if why:
            raise Skip(why)
        # A milter is given names and values, so it cannot tell "Cc:" from "Cc: ", as the simple form
        # of a header does.
        files = [f for f in files if "simple-" not in str(f) or "empty-fields" not in f.name]
        peer = OpenDkim(self.keys.published(), files)
        try:
            return peer.failed()
        finally:
            peer.stop()


class OpenDkim(peers.Peer):
    """`opendkim -t` over files, with the keys in a file: it asks no server at another port than 53."""

    tree = "opendkim"
    accounts = "opendkim:5601"

    def __init__(self, public, files):
        super().__init__("")
        self.files = files
        self.write("keys", "".join(f"{name} {text}\n" for name, text in public.items()))
        self.write("opendkim.conf", f"Mode v\nTestPublicKeys {self.dir}/keys\nSyslog no\n")
        for f in files:
            shutil.copy(f, self.dir / f.name)

    def failed(self):
        inside = ",".join(str(self.dir / f.name) for f in self.files)
        done = subprocess.run([str(a) for a in self.in_root(
            ["/usr/sbin/opendkim", "-v", "-v", "-x", self.dir / "opendkim.conf", "-t", inside])],
            capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        return [f"{f}: OpenDKIM: {said[-2000:] if len(self.files) < 3 else ''}" for f in self.files
                if not re.search(rf"{re.escape(f.name)}: verification \(.*\) succeeded", said)]


def grade(graders, directory, contents):
    """contents: name -> bytes. Each must have an RSA and then an Ed25519 signature, and all graders
    must take both."""
    files = []
    for name, content in contents.items():
        found = signatures(content)
        algorithms = [s["a"] for s in found[:2]]
        if algorithms != ["rsa-sha256", "ed25519-sha256"]:
            raise Failure(f"{name}: {found}")
        assert "l" not in found[0], found
        for kind, text in zip(("rsa", "ed25519"), split(content)):
            f = directory / f"{name.replace('/', '-')}.{kind}"
            f.write_bytes(text)
            files.append(f)
    bad = graders.dkimpy(files) + graders.perl(files) + graders.opendkim(files)
    if bad:
        raise Failure("\n".join(bad[:20]) + f"\n{len(bad)} of {3 * len(files)}")
    return len(files)


def take(world, users):
    """Sends the messages of users to all receivers; what they got, by receiver and user."""
    for user in users:
        world.send(MESSAGES[user], *(f"{user}@{name}.example" for name in world.receivers),
                   chunked=user in ("no-final-crlf", "eight-bit-header"))
    got = {}
    for name, receiver in world.receivers.items():
        world.wait(name, len(users), 90)
        for recipients, content, size in receiver.taken:
            user = recipients[0].split("@")[0]
            got[f"{name}-{user}"] = content
            if size is not None:
                assert size == len(content), (name, user, size, len(content))
            assert content.endswith(b"\r\n"), (name, user)
        receiver.taken.clear()
    assert len(got) == len(users) * len(world.receivers), sorted(got)
    return got


def lines_of(content):
    return content.split(b"\r\n\r\n", 1)[0].split(b"\r\n")


def test_odd_messages():
    """All of them, in each canonical form: a reload changes it, and what waits is signed anew."""
    temp = TempDir("hayauma-verify-")
    keys = Keys(temp.path / "keys")
    keys.make("sender.example")
    with Zone(keys) as zone:
        wait_until("the zone", lambda: _answers(keys, zone), 30, process=zone.process)
        graders = Graders(keys, zone)
        world = World({"full": Receiver(FULL), "chunks": Receiver(CHUNKS), "old": Receiver(OLD)},
                      {"canonicalization": FORMS[0]}, keys)
        for form in FORMS:
            users = [u for u in MESSAGES if u != "large" or form == FORMS[0]]
            world.engine.config["dkim"]["canonicalization"] = form
            world.engine.reload()
            got = take(world, users)
            for name, content in got.items():
                assert signatures(content)[0]["c"] == form, name
                assert all(len(line) < 78 for line in lines_of(content)[:10]
                           if line.startswith((b"DKIM-", b" "))), name
                if name.startswith("old-"):
                    assert content.isascii(), name
            directory = temp.path / form.replace("/", "-")
            directory.mkdir()
            grade(graders, directory, got)
        world.finish()


def _answers(keys, zone):
    """Whether `dkim check` finds the keys in the zone."""
    config = zone.dir / "check.yaml"
    config.write_text(json.dumps({
        "dns": {"servers": [f"127.0.0.1:{zone.port}"], "timeout": "2s"}, "dkim": {"keys": keys.rows}}))
    try:
        said = hayauma("dkim", "check", "-c", config).stdout.decode()
    except Failure:
        return False
    return said.count(": good") == len(keys.rows)


if __name__ == "__main__":
    run(globals())
