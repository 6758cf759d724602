"""SCRAM-SHA-256 (RFC 7677), both sides, for tests: written from the RFC alone."""

import base64
import hashlib
import hmac
import os


def encode(data):
    return base64.b64encode(data if isinstance(data, bytes) else data.encode()).decode()


def _hmac(key, text):
    return hmac.new(key, text.encode() if isinstance(text, str) else text, "sha256").digest()


def _keys(password, salt, iterations):
    """Client key and server key."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    return _hmac(salted, "Client Key"), _hmac(salted, "Server Key")


def _xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


def values(message):
    return dict(part.split("=", 1) for part in message.split(",") if "=" in part)


class Client:
    """say() is the first message; answer() that to the challenge; proved() looks at the server's last.
    bound: the bytes of what binding names, of SCRAM-SHA-256-PLUS."""

    def __init__(self, user, password, binding="n,,", bound=b""):
        self.user, self.password, self.binding, self.bound = user, password, binding, bound
        self.nonce = encode(os.urandom(18))
        self.bare = f"n={user.replace('=', '=3D').replace(',', '=2C')},r={self.nonce}"

    def say(self):
        return self.binding + self.bare

    def answer(self, challenge):
        v = values(challenge)
        assert v["r"].startswith(self.nonce) and len(v["r"]) > len(self.nonce), challenge
        client, server = _keys(self.password, base64.b64decode(v["s"]), int(v["i"]))
        last = f"c={encode(self.binding.encode() + self.bound)},r={v['r']}"
        signed = f"{self.bare},{challenge},{last}"
        self.signature = _hmac(server, signed)
        return f"{last},p={encode(_xor(client, _hmac(hashlib.sha256(client).digest(), signed)))}"

    def proved(self, message):
        return values(message).get("v") == encode(self.signature)


class Server:
    """challenge() answers the first message; check() the proof: the last message, or None."""

    def __init__(self, password, iterations=4096):
        self.salt, self.iterations = os.urandom(16), iterations
        self.client, self.server = _keys(password, self.salt, iterations)

    def challenge(self, message):
        self.bare = message.split(",", 2)[2]
        self.user = values(self.bare)["n"]
        self.said = f"r={values(self.bare)['r']}{encode(os.urandom(9))},s={encode(self.salt)}," \
                    f"i={self.iterations}"
        return self.said

    def check(self, message):
        signed = f"{self.bare},{self.said},{message.rpartition(',p=')[0]}"
        stored = hashlib.sha256(self.client).digest()
        proof = base64.b64decode(message.rpartition(",p=")[2])
        if hashlib.sha256(_xor(proof, _hmac(stored, signed))).digest() != stored:
            return None
        return f"v={encode(_hmac(self.server, signed))}"
