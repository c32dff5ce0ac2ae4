"""Generates API keys, tokens, passwords and private keys in the formats of their issuers."""

import base64
import json
import random
import string
from collections.abc import Callable, Sequence

from groundup.doctor.synthetic_pii.writing import ANYWHERE, BASE62, BASE64URL, CODE, HEX, some

_BASE32 = string.ascii_uppercase + "234567"


def api_key(rng: random.Random) -> tuple[str, Sequence[str]]:
    make = rng.choice(
        [_token, _token, _token, _token, _password, _password, _login, _private_key, _json_web_token]
    )
    return make(rng)


_TOKENS: tuple[Callable[[random.Random], str], ...] = (
    lambda rng: rng.choice(["AKIA", "ASIA"]) + some(rng, _BASE32, 16),
    lambda rng: rng.choice(["ghp_", "gho_", "ghu_", "ghs_", "ghr_"]) + some(rng, BASE62, 36),
    lambda rng: f"github_pat_{some(rng, BASE62, 22)}_{some(rng, BASE62, 59)}",
    lambda rng: "glpat-" + some(rng, BASE64URL, 19) + some(rng, BASE62, 1),
    lambda rng: f"xoxb-{some(rng, '123456789', 12)}-{some(rng, '123456789', 13)}-{some(rng, BASE62, 24)}",
    lambda rng: (
        f"https://hooks.slack.com/services/T{some(rng, _BASE32, 8)}/B{some(rng, _BASE32, 10)}/"
        + some(rng, BASE62, 24)
    ),
    lambda rng: rng.choice(["sk_live_", "rk_live_", "sk_test_"]) + some(rng, BASE62, rng.choice([24, 99])),
    lambda rng: "AIza" + some(rng, BASE64URL, 34) + some(rng, BASE62, 1),
    lambda rng: "GOCSPX-" + some(rng, BASE64URL, 27) + some(rng, BASE62, 1),
    lambda rng: f"sk-{some(rng, BASE62, 20)}T3BlbkFJ{some(rng, BASE62, 20)}",
    lambda rng: f"sk-proj-{some(rng, BASE64URL, 74)}T3BlbkFJ{some(rng, BASE64URL, 73)}A",
    lambda rng: f"sk-ant-api03-{some(rng, BASE64URL, 93)}AA",
    lambda rng: "hf_" + some(rng, string.ascii_letters, 34),
    lambda rng: "npm_" + some(rng, BASE62, 36),
    lambda rng: "pypi-AgEIcHlwaS5vcmc" + some(rng, BASE64URL, 149) + "w",
    lambda rng: "SK" + some(rng, HEX, 32),
    lambda rng: f"SG.{some(rng, BASE64URL, 22)}.{some(rng, BASE64URL, 42)}k",
    lambda rng: f"{some(rng, '123456789', 10)}:AA{some(rng, BASE64URL, 32)}k",
    lambda rng: "shpat_" + some(rng, HEX, 32),
    lambda rng: "dop_v1_" + some(rng, HEX, 64),
)


def _token(rng: random.Random) -> tuple[str, Sequence[str]]:
    own = (
        "export KEY={}\n",
        'token = "{}"',
        "Authorization: Bearer {}",
        "curl -H 'X-Key: {}'",
        "?key={}&x=1",
        "--token={} ",
    )
    return rng.choice(_TOKENS)(rng), (*ANYWHERE, *CODE, *own)


def _password(rng: random.Random) -> tuple[str, Sequence[str]]:
    """A random password or key without a recognizable format, next to a name that identifies it."""
    alphabet = rng.choice([BASE62, BASE62 + "!#$%&*+-?@^_", BASE62 + "+/", HEX])
    size = rng.choice([32, 40, 64] if alphabet in (HEX, BASE62 + "+/") else [12, 16, 20, 32])
    secret = ""
    while not any(map(str.isdigit, secret)) or not any(map(str.isalpha, secret)):
        secret = some(rng, alphabet, size - 2) + some(rng, BASE62, 2)
    return secret, (
        'password = "{}"', "PASSWORD={}\n", '"password": "{}"', "password: {}\n", "db_password: '{}'",
        "My password is {} .",
        "aws_secret_access_key = {}\n", 'API_KEY="{}"', "api-key: {}\n", "client_secret={} ", "<password>{}</password>",
        "Passwort: {}\n", "пароль: {}\n", "auth_token => '{}'", "the API key is `{}`", 'config["secret_key"] = "{}"',
    )  # fmt: skip


def _login(rng: random.Random) -> tuple[str, Sequence[str]]:
    name, password = rng.choice(["admin", "deploy", "root", "svc-build"]), some(rng, BASE62, 14)
    return f"{name}:{password}", (
        "https://{}@db.internal.net/", "postgres://{}@10.0.0.5:5432/app", "redis://{}@cache:6379", "ftp://{}@ftp.acme.io",
        "git clone https://{}@git.acme.io/x.git", "mongodb+srv://{}@cluster0.mongodb.net/test",
    )  # fmt: skip


def _private_key(rng: random.Random) -> tuple[str, Sequence[str]]:
    kind = rng.choice(["RSA ", "EC ", "OPENSSH ", "", "ENCRYPTED "])
    body = base64.b64encode(rng.randbytes(rng.choice([120, 600, 1200]))).decode()
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    text = "\n".join([f"-----BEGIN {kind}PRIVATE KEY-----", *lines, f"-----END {kind}PRIVATE KEY-----"])
    return (text if rng.random() < 0.7 else text.replace("\n", "\\n")), (
        "\n{}\n",
        '"{}"',
        "key = '{}'",
        "```\n{}\n```",
    )


def _json_web_token(rng: random.Random) -> tuple[str, Sequence[str]]:
    claims = {
        "sub": some(rng, string.digits, 10),
        "name": rng.choice(["Ana", "John", "Wei"]),
        "iat": rng.randrange(10**9, 2 * 10**9),
    }
    parts = [json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, claims)] + [
        rng.randbytes(32)
    ]
    token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    return token, (
        *ANYWHERE,
        *CODE,
        "Authorization: Bearer {}",
        "?jwt={}&x=1",
        "Cookie: session={}; path=/",
    )
