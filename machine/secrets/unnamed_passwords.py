"""Passwords without a name: in options of programs, in files of users, and in the logins of protocols."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from machine.secrets.credential_looks import looks_chosen, looks_like_credential
from machine.secrets.finding import Finding, cookies
from machine.secrets.kubernetes_manifests import SIGN_OF_MANIFESTS, in_manifests
from machine.secrets.pattern_search import PIECE, SHORT, pieces
from machine.secrets.program_arguments import in_commands
from machine.secrets.redacted_text import Work

_PGPASS: Final = re.compile(
    r":(?:[0-9]{1,5}+|\*):[\w.*-]{1,64}+:[\w.@*-]{1,64}+:([^\s:]{4,256}+)(?=[\r\n]|\Z)"
)
_HTDIGEST: Final = re.compile(
    r"^[\w.@-]{1,64}+:[A-Z][\w.-]{1,30}+ [\w. -]{1,30}+:([0-9a-f]{32})(?=[\r\n]|\Z)", re.MULTILINE
)
_COOKIES: Final = re.compile(r"-(?<!\S-)b[ =]{1,4}+[\"']([^\"'\r\n]{1,4096}+)[\"']")
_OF_COMMANDS: Final = (
    " -",
    " '-",
    " set ",
    ":set ",
    "obscure ",
    "_user ",
    "passphrase ",
    " config ",
    "sqlplus ",
    " AUTH ",
    " login ",
)
"""Texts of which every command with a password without a name has one."""

_END: Final = r"(?=[\r\n]|\\[rn]|\Z)"
_HASH: Final = r"\$(?:apr1|[0-9][abxy]?|y|gy|argon2i?d?|scrypt|sha1|md5)\$[^\s:\"']{8,512}+"
_LINES: Final = {
    (" -u", " --user"): r"-(?<!\S-)(?:u|-user)[ =]{1,4}+[\"']?[^\s:\"']{1,100}+:([^\s\"']{1,512}+)",
    (" -u", " -U"): r"-(?<!\S-)[uU][ =]{0,4}+[\"']?[\w.\\-]{1,60}+[%,]([^\s\"',;]{6,200}+)",
    ("AUTH",): r"AUTH(?<![\w-]AUTH)\"?[ \t]{1,4}+(?:\"?[\w.-]{1,40}+\"?[ \t]{1,4}+)?"
    rf"\"?([^\s\"\\]{{6,512}}+)\"?[ \t]{{0,4}}+{_END}",
    (
        "LOGIN ",
    ): rf"LOGIN(?<![\w-]LOGIN)[ \t]{{1,4}}+\"?[^\s\"]{{1,100}}+\"?[ \t]{{1,4}}+\"?([^\s\"\\]{{6,512}}+)\"?{_END}",
    (":$", ":{S"): rf"^[\"']?[\w.@-]{{1,64}}+:({_HASH}|\{{S?S?HA[0-9]{{0,3}}\}}[^\s:\"']{{8,512}}+)",
    (
        "chpasswd",
    ): r"(?<![\w.-])[\w.-]{1,64}+:([^\s\"']{4,200}+)[\"']?[ \t]{0,8}+\|[ \t]{0,8}+(?:sudo )?chpasswd",
    (
        "user ",
        "user=",
    ): r"^[ \t]{0,16}+(?:proxy-)?user[ \t]{0,8}+=[ \t]{0,8}+\"?[^\s:\"]{1,100}+:([^\s\"]{4,200}+)",
    ("thin:", "sqlplus", "expdp", "impdp", "rman"): (
        r"(?:thin:|(?:sqlplus|expdp|impdp|rman)[ \t]{1,4}+(?:-\w{1,8}[ \t]{1,4}+){0,3}+)"
        r"[\w$.]{1,60}+/\"?([^\s\"@/]{4,200}+(?:/[^\s\"@/]{1,200}+){0,4}+)\"?@"
    ),
    ("SETUSER",): r"SETUSER[ \t][^\r\n>]{1,200}+>([^\s\"']{4,200}+)",
    ("AUTH\r\n",): r"AUTH\r\n(?:\$[0-9]{1,4}\r\n\S{1,100}+\r\n)?\$[0-9]{1,4}\r\n(\S{4,512}+)(?=\r\n|\Z)",
    ("@tcp(", "@unix("): r"(?<![\w.-])[\w.-]{1,60}+:([^\s:@/\"']{4,200}+)@(?:tcp|unix)\(",
    (" on >",): r"user(?<![\w-]user)[ \t]{1,4}+\S{1,60}+[ \t]{1,4}+on[ \t]{1,4}+>([^\s\"']{4,200}+)",
    ('" "md5', '" "SCRAM-'): r"\"[^\"\r\n]{1,64}+\" \"(md5[0-9a-f]{32}|SCRAM-SHA-256\$[^\"\s]{20,400}+)\"",
    ("snmp-server community ",): r"snmp-server community (\S{4,200}+)",
    ("login(",): r"login\([\"']([^\"'\s]{20,256}+)[\"']\)",
    (
        "UID",
        "uid",
    ): r"(?i:uid[ \t]{0,8}+=[ \t]{0,8}+[^\s;]{1,60}+\s{1,8}+pwd)[ \t]{0,8}+=[ \t]{0,8}+(\S{4,200}+)",
    ("createUser ",): r"createUser \S{1,60}+ (?:MD5|SHA[0-9-]{0,4}) \"?([^\s\"]{6,200}+)",
    ('" * "',): r"\"[^\"\r\n]{1,60}\" \* \"([^\"\r\n]{4,200}+)\"",
    ("grub.pbkdf2",): r"(grub\.pbkdf2\.sha512\.[0-9]{1,7}\.[0-9A-Fa-f.]{32,600}+)",
    ("<Cookie ",): r"<Cookie [^=\s>]{1,100}+=([^\s>]{4,2048}+) for ",
    ("--password-stdin", "sudo -S", "sudo -k"): (
        r"echo (?:-n )?[\"']?([^\s\"'|]{4,200}+)[\"']? ?\| ?"
        r"(?:[\w. -]{1,60}? login [^\r\n|]{0,200}?--password-stdin|sudo (?:-\w+ ){0,2}-\w{0,3}S)"
    ),
    ("PASSWORD ",): r"PASSWORD \w{2,30}+ = (\S{6,200}+)",
    ("asswort", "ennwort", "de passe", "ontrase", "achtwoord", "enha:"): (
        r"[pPkK\u212amMcCwWsS\u017f]"
        r"(?i:(?<=p)asswort|(?<=k)ennwort|(?<=m)ot de passe|(?<=c)ontrase\u00f1a|(?<=w)achtwoord|(?<=s)enha)"
        r"(?: (?:lautet|ist|est|es|is))?"
        r"[ \t\u00a0]{0,3}+[:=][ \t\u00a0]{0,4}+[\"'`]?([^\s\"'`,;]{6,200}+)"
    ),
    ("send ",): r"assword[^\r\n]{0,20}\r?\n[ \t]{0,8}+send(?: --)? \"([^\"\r\n\\]{4,100}+)",
    ("new mysqli(", "new PDO(", "getConnection(", "DBI->connect(", "mysqli_connect("): (
        r"(?:mysqli|PDO|getConnection|DBI->connect|mysqli_connect)\([^,()\r\n]{1,200},"
        r"[ \t]{0,4}+[\"'][^\"'\r\n]{1,100}+[\"'],[ \t]{0,4}+[\"']([^\"'\r\n]{4,256}+)[\"']"
    ),
    ("hmac.new(", "jwt.sign(", "jwt.verify(", "jwt.encode(", "jwt.decode(", "createHmac("): (
        r"(?:hmac\.new\(|(?:jwt\.(?:sign|verify|encode|decode)|createHmac)\([^,()\r\n]{1,60}+,[ \t]{0,4}+)"
        r"b?[\"']([^\"'\s]{8,256}+)[\"']"
    ),
    ("UGFzc3dvcmQ6",): r"UGFzc3dvcmQ6\r?\n(?:C: )?([A-Za-z0-9+/=]{4,400}+)",
    ("IDENTIFY ",): rf"IDENTIFY (?:[\w-]{{1,30}} )?(\S{{6,200}}+){_END}",
    ("|| '", '|| "', "?? '", '?? "'): (
        r"(?:SECRET|KEY|TOKEN|PASS|PASSWORD|PWD)[\"']?[\])]? ?(?:\|\||\?\?) ?[\"']([^\"'\s]{8,256}+)[\"']"
    ),
    ("PWD={",): r"PWD=\{([^{}\r\n]{6,200}+)\}",
    ("]:",): r"\]:[0-9]{1,5}[ \t]{1,8}+[^\s:]{1,100}+:(\S{6,200}+)",
    ('"AUTH"',): r"\"AUTH\"\r?\n[ \t]{0,8}+[0-9]{1,2}\) \"([^\"\r\n]{4,512}+)\"(?!\r?\n[ \t]{0,8}+[0-9])",
    ("WIFI:",): r"WIFI:(?:(?!WIFI:)[^\r\n]){0,100}?P:([^\s;]{6,200}+);",
    (":\n", ":\r\n"): (
        r"(?:[pP](?i:assword|assphrase)|[tT](?i:oken)|[aA](?i:pi key)|[sS](?i:ecret(?: key)?))\b"
        r"[^\r\n:]{0,60}+:\r?\n(?:\r?\n)?[ \t]{0,8}+(\S{12,512}+)(?=[ \t]{0,8}[\r\n]|\Z)"
    ),
    (".begin(", "uth(", "uth=(", "uth = (", "edential(", "edentials(", "login("): (
        r"(?:[Aa]uth|[Cc]redentials?|login|WiFi\.begin)(?: ?= ?)?\([ \t]{0,4}+[\"'][^\"'\r\n]{1,100}+[\"'],"
        r"[ \t]{0,4}+[\"']([^\"'\r\n]{4,256}+)[\"']"
    ),
    ("word 0 ", "word 5 ", "word 7 ", "ecret 0 ", "ecret 5 ", "ecret 8 ", "ecret 9 ", "key 0 ", "key 7 "): (
        rf"(?:password|secret|key) [05789] (\S{{4,256}}+){_END}"
    ),
    ("ConvertTo-SecureString",): r"ConvertTo-SecureString(?: -String)? [\"']([^\"'\r\n]{4,256}+)[\"']",
    ("ogin:", "/pass", "ogin for", "redentials:", "redentials for", "reds:", "reds for"): (
        r"(?:[Ll]ogin|[Cc]red(?:ential)?s|[Uu]ser(?:name)?/pass(?:word)?)"
        r"(?: for [\w. -]{1,40})?:[ \t]{1,4}+[\w.@+-]{2,60}+[ \t]{0,2}+[/|][ \t]{0,2}+([^\s/|]{6,200}+)"
    ),
    ("auth-user-pass",): r"auth-user-pass>?\r?\n\S{1,100}+\r?\n(\S{6,200}+)",
}
"""The patterns of lines with a password, each with texts of which every match has one, for a quick search."""

_BEHIND: Final = {
    _LINES[needles]: (re.compile(regex), reach)
    for needles, regex, reach in (
        (("chpasswd",), r"\|[ \t]{0,8}+(?:sudo )?chpasswd", 280),
        (("@tcp(", "@unix("), r"@(?:tcp|unix)\(", 264),
    )
}
"""Maps a pattern whose matches could begin anywhere to the text at their end, and to the most characters before."""

_PATTERNS: Final = (_PGPASS, _HTDIGEST, *(re.compile(regex, re.MULTILINE) for regex in _LINES.values()))
_HASHES: Final = tuple(
    f"${kind}$" for kind in ("apr1", "1", "2a", "2b", "2x", "2y", "5", "6", "y", "7", "argon2id")
)
"""Prefixes of hashes of passwords, so that their `$` is not read as a variable."""


def _looks(text: str) -> bool:
    """Tell whether a text could be a password, of those that people choose too."""
    return looks_like_credential(text) or looks_chosen(text)


def _is_hash(text: str) -> bool:
    """Tell whether a text is the hash of a password, and not an example of one."""
    return text.startswith(_HASHES) and any(
        char.isdigit() or char.isupper() for char in text.rpartition("$")[2]
    )


_CLOSER: Final = {
    ("AUTH",): r"AUTH\"?[ \t]{1,4}(?:\"?[\w.-]{1,40}\"?[ \t]{1,4})?\"?[^\s\"\\]{6}",
    (
        ":\n",
        ":\r\n",
    ): r"(?i:password|passphrase|token|api key|secret)[^\r\n:]*:\r?\n(?:\r?\n)?[ \t]*[^ \t\r\n]{12}",
}
"""Signs of more than one text, for logins that would be looked for in most texts."""

SIGNS_OF_LOGINS: Final = (
    r":(?:[0-9]{1,5}|\*):[^\s:]+:[^\s:]+:[^\s:]{4}",
    r"[A-Za-z]:[0-9a-f]{32}",
    *(
        _CLOSER.get(needles) or "|".join(map(re.escape, needles))
        for needles in (*_LINES, ("-b",), _OF_COMMANDS, (SIGN_OF_MANIFESTS,))
    ),
)
"""A sign of each kind of login, present in every text that has one, in the syntax of RE2."""


_REACH: Final = 1 << 12
"""More than the longest match of a kind, so that each is within this distance of its sign."""


def _near_signs(text: str, kinds: Collection[int]) -> dict[int, list[tuple[int, int]]]:
    """Return for each kind of login the parts (begin, end) of a text in which all of its matches are."""
    if len(text) <= SHORT:
        return {kind: [(0, len(text))] for kind in kinds}
    parts: dict[int, list[tuple[int, int]]] = {kind: [] for kind in kinds}
    for begin, there in pieces(SIGNS_OF_LOGINS, text):
        for kind in parts.keys() & there:
            known, start = parts[kind], max(begin - _REACH, 0)
            if known and known[-1][1] >= start:
                start = known.pop()[0]
            known.append((start, begin + PIECE + _REACH))
    return parts


def _found(
    pattern: re.Pattern[str], text: str, parts: Sequence[tuple[int, int]], work: Work
) -> Iterator[re.Match[str]]:
    if pattern.pattern not in _BEHIND:
        found = (match for begin, end in parts for match in pattern.finditer(text, begin, end))
        yield from work.candidates(found)
        return
    (behind, reach), done = _BEHIND[pattern.pattern], 0
    for end in work.candidates(behind.finditer(text)):
        match = pattern.search(text, max(end.start() - reach, done), end.end())
        if match is not None:
            done = match.end()
            yield match


def logins(text: str, kinds: Collection[int], work: Work) -> Iterator[Finding]:
    """Yield passwords after a user, an option or a command that look like credentials.

    `kinds` are the numbers of the `SIGNS_OF_LOGINS` that are in the text.
    """
    near = _near_signs(text, kinds)
    for kind in kinds:
        if kind < len(_PATTERNS):
            for match in _found(_PATTERNS[kind], text, near[kind], work):
                judge = _is_hash if match[1].startswith(_HASHES) else _looks
                if judge(match[1]):
                    yield Finding(*match.span(1), "password", match[1])
        elif kind == len(_PATTERNS):
            for match in work.candidates(_COOKIES.finditer(text)):
                at = match.start(1)
                for begin, end, name in cookies(match[1], first=False):
                    if looks_like_credential(match[1][begin:end]):
                        yield Finding(at + begin, at + end, f"cookie.{name}", match[1][begin:end])
        elif kind == len(SIGNS_OF_LOGINS) - 1:
            for begin, end, name in in_manifests(text, work):
                yield Finding(begin, end, name, text[begin:end])
        else:
            for begin, end, name in in_commands(text, work):
                if _looks(text[begin:end]):
                    yield Finding(begin, end, name, text[begin:end])
