"""Finder of e-mail addresses.

Plain addresses (dot-atoms of RFC 5322, with letters of other scripts as in RFC 6531) and obfuscated ones
(`name [at] host dot com`). Addresses at example.com and similar domains are reserved (RFC 2606).
"""

import re
from collections.abc import Iterator

from groundup.text.pii import Finder, Range

_LETTER = "0-9A-Za-z_\u00c0-\u024f\u0370-\u060b\u060d-\u061a\u0620-\u06d3\u06d5-\u0963\u0966-\u0dff"
"""Letters of scripts that separate words by spaces; in other scripts an address directly follows a word."""
_ATOM = f"(?:[{_LETTER}+$-]|&(?!#|commat;)){{1,64}}+"
_LABEL = f"[{_LETTER}-]{{1,63}}+"
_START = f"(?<![{_LETTER}+&$-])(?<![{_LETTER}+&$-][.'])"
_TOP = f"(?:xn--[a-z0-9-]{{2,59}}|(?!\\d)[{_LETTER}]{{2,24}}(?<!\\d))(?![{_LETTER}(])"
_HAN = "\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
_SIGN = re.compile(r"(?<=[^\s@])(?:@|%40|&#(?:0*+64|x40);|&commat;)(?=[^\s@])")
_LOCAL = re.compile(
    rf'(?:{_START}{_ATOM}(?:[.\']{_ATOM}){{0,8}}+|[{_HAN}]{{1,12}}|(?<![\w"])"[^"\n@]{{1,64}}")\Z'
)
_LONGEST = 100
"""Characters before the @ that are searched for the local part."""
_DOMAIN = re.compile(
    rf"(?:{_LABEL}\.){{1,8}}{_TOP}|(?:[\w-]*[{_HAN}][\w-]*\.)+"
    "(?:[A-Za-z]{2,24}(?![A-Za-z])|中国|中國|公司|网络|网址|香港|台湾|台灣|广告|商标|在线|中文网|みんな|コム|한국|닷컴)"
)
_RESERVED = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org)|example|invalid|test|localhost)$", re.IGNORECASE)
_SERVICES = ("git", "svn", "hg", "cvs", "anoncvs", "anonymous")
_LOGIN = re.compile(r"(?:ssh|svn|sftp|rsync|git|hg)://\Z")
"""A login at a server of version control is no address."""
_FILE = re.compile(r"\.(?:png|jpe?g|gif|webp|svg|bmp|ico|css|js|json|html?|txt|pdf|exe|dll)$", re.IGNORECASE)

_AT = r"[ \t]{0,3}[\[({<][ \t]?(?:at|@|ät|arroba|chiocciola|arobase)[ \t]?[\])}>][ \t]{0,3}"
_DOT_WORD = "dot|punkt|punto|ponto|point|tochka|точка"
_DOT = rf"[ \t]{{0,3}}[\[({{<][ \t]?(?:{_DOT_WORD}|\.)[ \t]?[\])}}>][ \t]{{0,3}}|[ \t]{{1,3}}(?:dot|punkt)[ \t]{{1,3}}"
_SPOKEN_TOP = (
    "com|org|net|edu|gov|info|io|dev|ai|uk|de|fr|es|nl|ch|eu|ca|au|ru|pl|se|dk|fi|cz|gr|pt|br|jp|cn|kr"
)
_MAIL_HOSTS = (
    r"(?:web|gmx|t-online|freenet|posteo|mailbox)\.de|gmx\.(?:net|at|ch)|(?:gmail|googlemail|icloud|aol|protonmail|"
    r"fastmail|bigpond|qq|163|126)\.com|(?:yahoo|hotmail|outlook|live)\.(?:com(?:\.br|\.au)?|co\.uk|de|fr|it|es)|"
    r"(?:mail|yandex)\.ru|(?:libero|virgilio|tiscali)\.it|(?:orange|free|wanadoo|laposte)\.fr|(?:uol|bol|terra)\.com\.br"
)
"""Domains that hardly anything but an address has; `at` before another one is a word."""
_OBFUSCATED = re.compile(
    rf"{_START}(?:{_ATOM}(?:{_DOT}))?{_ATOM}(?:[.']{_ATOM}){{0,8}}+"
    rf"(?:{_AT}(?:{_LABEL}(?:\.|{_DOT})){{1,6}}[a-z]{{2,24}}"
    rf"|@(?:{_LABEL}\.){{0,4}}{_LABEL}[ \t]{{0,3}}[\[({{<][ \t]?(?:{_DOT_WORD})[ \t]?[\])}}>][ \t]{{0,3}}[a-z]{{2,24}}"
    rf"|[ \t]at[ \t](?:{_MAIL_HOSTS})"
    rf"|[ \t]{{1,3}}@[ \t]{{1,3}}{_LABEL}(?:[ \t]?\.[ \t]?{_LABEL}){{0,4}}[ \t]?\.[ \t]?(?:{_SPOKEN_TOP})"
    rf"|[ \t]{{1,3}}at[ \t]{{1,3}}(?:{_LABEL}(?:\.|{_DOT})){{0,5}}{_LABEL}(?:{_DOT})(?:{_SPOKEN_TOP}))(?![{_LETTER}])",
    re.IGNORECASE,
)
_OBFUSCATED_HINT = (
    r"(?i:[\[({<][ \t]?(?:at|@|ät|arroba|chiocciola|arobase)[ \t]?[\])}>]|[ \t]@[ \t]"
    r"|@.{1,80}[\[({<][ \t]?[^ \t]{1,8}[ \t]?[\])}>]|[ \t]at[ \t].{1,12}\."
    r"|[ \t]at[ \t].{1,80}[ \t\])}>]dot[ \t\[({<])"
)


def emails(reserved: bool) -> tuple[Finder, ...]:
    """Finders of plain and obfuscated e-mail addresses; with `reserved`, at example.com too."""

    def find(text: str) -> Iterator[Range]:
        for sign in _SIGN.finditer(text):
            domain = _DOMAIN.match(text, sign.end())
            local = domain and _LOCAL.search(text, max(0, sign.start() - _LONGEST), sign.start())
            if domain is None or local is None or local[0] in _SERVICES or _FILE.search(domain[0]):
                continue
            if _LOGIN.search(text, max(0, local.start() - 12), local.start()):
                continue
            if reserved or not _RESERVED.search(domain[0]):
                yield local.start(), domain.end()

    return (
        Finder("email", (r"[^\s@](?:@|%40|&#0*64;|&#x40;|&commat;)[^\s@]",), find),
        Finder("email", (_OBFUSCATED_HINT,), lambda text: (m.span() for m in _OBFUSCATED.finditer(text))),
    )
