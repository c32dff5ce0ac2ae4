"""Finders of API keys and credentials: by published token formats, and by `password = ...` with a random value.

in:  a text
out: ranges of secrets; in a URL or an assignment the secret alone

The formats follow the services' documentation; Gitleaks (https://github.com/gitleaks/gitleaks, MIT) is the reference.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator

from groundup.text.pii import Finder, Range

# (prefix, rest): the prefix alone is the hint.
_TOKENS = (
    ("(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])", "[A-Z0-9]{16}"),  # AWS access key id
    ("gh[pousr]_", "[A-Za-z0-9]{30,251}"),  # GitHub
    ("github_pat_", r"\w{22,100}"),
    ("gl(?:pat|dt|rt|cbt|ptt|ft|soat|imt|agent|oas)-", r"[\w.-]{20,300}"),  # GitLab
    ("GR1348941", r"[\w-]{20}"),
    ("xox[abeoprs](?:\\.xox[bp])?-", r"[A-Za-z0-9-]{10,250}"),  # Slack
    ("xapp-[0-9]-", r"[A-Za-z0-9-]{30,200}"),
    ("(?:https?://)?hooks\\.slack\\.com/(?:services|workflows|triggers)/", r"[A-Za-z0-9+/]{30,60}"),
    ("[srp]k_(?:live|test|prod)_", r"[A-Za-z0-9]{10,255}"),  # Stripe
    ("whsec_", r"[A-Za-z0-9+/=]{24,64}"),
    ("AIza", r"[\w-]{30,45}"),  # Google
    ("GOCSPX-", r"[\w-]{20,40}"),
    ("ya29\\.", r"[\w-]{30,300}"),
    ("sk-(?:proj|svcacct|admin|None|or-v1|ant)-", r"[\w-]{20,250}"),  # OpenAI, OpenRouter, Anthropic
    ("sk-", r"[A-Za-z0-9]{20,64}"),
    ("(?:hf|api_org)_", "[A-Za-z0-9]{30,40}"),  # Hugging Face
    ("npm_", "[A-Za-z0-9]{30,40}"),
    ("pypi-", r"(?:AgE[\w-]{16,1000}|[A-Za-z0-9]{40,1000})"),
    ("(?:SK|AC)[0-9a-f]{4}", "[0-9a-f]{28}"),  # Twilio
    ("SG\\.", r"[\w-]{16,32}\.[\w-]{32,64}"),  # SendGrid
    ("key-[0-9a-f]{4}", "[0-9a-f]{28}"),  # Mailgun
    ("do[opr]_v1_", "[0-9a-f]{64}"),  # DigitalOcean
    ("shp(?:at|ca|pa|ss)_", "[0-9A-Fa-f]{32}"),  # Shopify
    ("sq0[a-z]{3}-", r"[\w-]{22,60}"),  # Square
    ("dapi[0-9a-f]{4}", "[0-9a-f]{28}(?:-[0-9])?"),  # Databricks
    ("hv[sb]\\.", r"[\w-]{90,300}"),  # Vault
    ("dckr_pat_", r"[\w-]{27,36}"),  # Docker
    ("rubygems_", "[0-9a-f]{48}"),
    ("gsk_", "[A-Za-z0-9]{52}"),  # Groq
    ("r8_", "[A-Za-z0-9]{37}"),  # Replicate
    ("xai-", "[A-Za-z0-9]{80}"),
    ("pplx-", "[A-Za-z0-9]{48}"),
    ("(?:ntn|secret)_", "[A-Za-z0-9]{43,48}"),  # Notion
    ("lin_api_", "[A-Za-z0-9]{40}"),  # Linear
    ("gl(?:c|sa)_", "[A-Za-z0-9+/=_]{32,400}"),  # Grafana
    ("NRAK-", "[A-Z0-9]{27}"),  # New Relic
    ("PMAK-", "[0-9a-f]{24}-[0-9a-f]{34}"),  # Postman
    ("ATATT3", r"[\w=-]{180,200}"),  # Atlassian
    ("dp\\.(?:pt|st|ct|sa)\\.", r"[\w.-]{40,70}"),  # Doppler
    ("ops_eyJ", "[A-Za-z0-9+/=]{250,1000}"),  # 1Password
    ("AGE-SECRET-KEY-1", "[0-9A-Z]{58}"),
    ("EAAA[A-Za-z]", r"[\w-]{40,250}"),  # Facebook, Square
    ("[A-Za-z0-9_-]{11}:APA91b", r"[\w-]{100,200}"),  # Firebase
    ("[0-9a-f]{24}", "[0-9a-f]{8}-us[0-9]{1,2}"),  # Mailchimp
    ("[MNO][A-Za-z0-9]{23,27}\\.", r"[\w-]{6}\.[\w-]{27,40}"),  # Discord
    ("(?:https?://)?discord(?:app)?\\.com/api/webhooks/", r"[0-9]{17,20}/[\w-]{60,70}"),
    ("[0-9]{8,10}:AA", r"[\w-]{33}"),  # Telegram
    ("[A-Za-z0-9_~.]{3}[0-9]Q~", r"[\w~.-]{31,34}"),  # Microsoft Entra
    (
        "eyJ",
        r"[\w-]{10,4000}+\.(?:eyJ[\w-]{10,8000}+(?:\.[\w-]{10,2000}+)?|[\w-]{10,8000}+\.[\w-]{20,2000}+)",
    ),  # JSON Web Token
)
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9_])(?<!\w-)(?:"
    + "|".join(f"{begin}(?:{rest})" for begin, rest in _TOKENS)
    + r")(?![A-Za-z0-9])",
    re.ASCII,
)
_TOKEN_HINT = "|".join(begin + r"[\w=.+/-]{8}" for begin, _ in _TOKENS)

_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?P<body>(?:[^-]|-(?!----)){20,20000}+)"
    r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----)?"
)
_KEY_LINE = re.compile(r"[A-Za-z0-9+/]{16}")
_URL_LOGIN = re.compile(
    r"""://(?P<login>[^\s/:@"'<>\\]{0,100}+:(?P<password>[^\s/@"'<>]{3,200}+))@(?=[\w\[])"""
)

_CURL = re.compile(
    r"""(?<![A-Za-z0-9_])curl\b[^\n]{0,300}?\s(?:-u|--user)[ =]?["']?"""
    r"""(?P<secret>[^\s:"']{1,64}:(?P<password>[^\s"']{3,200}))"""
)
_NETRC = re.compile(
    r"(?<![A-Za-z0-9_])(?:machine\s+\S{1,200}|default)\s+login\s+\S{1,200}\s+password\s+(?P<secret>(?P<password>\S{3,200}))"
)

_NAMED = (
    r"(?i:pass(?:word|wd|phrase|code|wort)|passwd|pwd|secret|token|credentials?|authorization|contraseña|mot de passe|"
    r"пароль|密码|パスワード|(?:api|access|auth|private|account|encryption|signing|subscription|master|app)[ _-]?key)"
    r"[A-Za-z0-9_-]{0,30}[\"'`\]]{0,2}(?:[ \t]{0,4}(?:=>|:=|==?|:)|[ \t]is|>)[ \t]{0,4}(?:(?:Bearer|Basic|Token)[ \t])?"
)
_ASSIGNED = re.compile(
    _NAMED + r"(?:(?P<quote>[\"'`])(?P<quoted>[^\s\"'`]{8,256}+)(?P=quote)"
    r"|(?P<bare>[^\s\"'`<>,;(){}\[\]]{8,256}+)(?=[\s\"'`<>,;)}\]]|$))"
)
_ASSIGNED_HINT = _NAMED + r"[\"'`]?[^\s\"'`]{0,80}[0-9]"
_WORD = re.compile(r"[A-Za-z]*[0-9]{0,4}|(?:[A-Z]?[a-z]{2,}[0-9]{0,5})+")
_BETWEEN_WORDS = re.compile(r"[._:/\\@-]")
_PLACEHOLDER = re.compile(
    r"^[$%][A-Za-z_({]|\$\{|\{\{|%\(|://|x{4}|X{4}|\*{3}|\.{3}|…|(?<![A-Za-z0-9])example|changeme|placeholder|your",
    re.IGNORECASE,
)
_OBVIOUS = {"pass", "password", "passwd", "pwd", "secret", "token", "port"}


def keys() -> tuple[Finder, ...]:
    """Finders of service tokens, private key blocks, and passwords in URLs and assignments."""
    return (
        Finder("api_key", (_TOKEN_HINT,), lambda text: (match.span() for match in _TOKEN.finditer(text))),
        Finder("api_key", ("PRIVATE KEY",), _find_blocks),
        Finder("api_key", (r"://[^\s/@]+@",), _find_logins),
        Finder("api_key", (_ASSIGNED_HINT,), _find_assigned),
        Finder("api_key", (r"(?:-u|--user)[ =]|(?i:\bpassword[ \t\n])",), _find_command_logins),
    )


def _find_blocks(text: str) -> Iterator[Range]:
    for match in _BLOCK.finditer(text):
        if _KEY_LINE.search(match["body"]):
            yield match.span()


def _find_logins(text: str) -> Iterator[Range]:
    for match in _URL_LOGIN.finditer(text):
        password = match["password"]
        own = match["login"].partition(":")[0]
        if not _PLACEHOLDER.search(password) and password.lower() not in (*_OBVIOUS, own.lower()):
            yield match.span("login")


def _find_command_logins(text: str) -> Iterator[Range]:
    """Logins of `curl -u user:password` and passwords of .netrc."""
    for pattern in (_CURL, _NETRC):
        for match in pattern.finditer(text):
            password = match["password"]
            if not _PLACEHOLDER.search(password) and password.lower() not in _OBVIOUS:
                yield match.span("secret")


def _find_assigned(text: str) -> Iterator[Range]:
    for match in _ASSIGNED.finditer(text):
        part = "quoted" if match["quoted"] else "bare"
        value = match[part].rstrip(".")
        if is_random(value):
            yield match.start(part), match.start(part) + len(value)


def is_random(value: str) -> bool:
    """Whether a value looks random: digits inside words, and high entropy.

    The threshold is 3.2 bits per character, lower for values that are too short to reach it.
    """
    if len(value) < 8 or _PLACEHOLDER.search(value) or value.isdigit() or not any(map(str.isdigit, value)):
        return False
    if all(map(_WORD.fullmatch, _BETWEEN_WORDS.split(value))):
        return False
    return entropy(value) >= min(3.2, math.log2(len(value)) - 0.6)


def entropy(text: str) -> float:
    """Shannon entropy in bits per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
