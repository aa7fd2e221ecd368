"""Passwords among the arguments of well-known programs, whose short options have no name that says so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from machine.secrets.pattern_search import any_of, begun_in, parts_with
from machine.secrets.redacted_text import MOST_NAMES, TooManyPlacesError, Work


class Argument(NamedTuple):
    """A secret among arguments: the index of its word, its offset in the word, and its name."""

    at: int
    begin: int
    name: str


class _Program(NamedTuple):
    """The options of a program that a password follows (`-p x`) or is joined to (`-px`), and a word it needs."""

    before: frozenset[str] = frozenset()
    joined: str = ""
    needs: str = ""
    number: int = 0
    """The number of the word after the program that is a password without an option; options are not counted."""
    pairs: tuple[str, ...] = ()
    """Options before a user and a password, or before a cookie and its value."""


def _programs(
    names: str, before: str = "", joined: str = "", *, needs: str = "", number: int = 0, pairs: str = ""
) -> dict[str, _Program]:
    program = _Program(frozenset(before.split()), joined, needs, number, tuple(pairs.split()))
    return dict.fromkeys(names.split(), program)


_PROGRAMS: Final = {
    **_programs(
        "mysql mysqldump mysqladmin mysqlimport mysqlpump mysqlsh mysqlcheck mysqlbinlog", joined="-p"
    ),
    **_programs("mariadb mariadb-dump mariadb-admin 7z 7za rar unrar", joined="-p"),
    **_programs("redis-cli valkey-cli keydb-cli", "-a --pass AUTH auth requirepass masterauth"),
    **_programs("docker podman nerdctl buildah skopeo crane helm oras regctl", "-p", "-p", needs="login"),
    **_programs("az oc cf doctl ibmcloud flyctl rosa", "-p", needs="login"),
    **_programs("conan", "-p", needs="user"),
    **_programs("sshpass", "-p", "-p"),
    **_programs("twine mongosh mongo mongodump mongorestore mongoexport mongoimport cqlsh arangosh", "-p"),
    **_programs("rabbitmqadmin cypher-shell influx argocd kaggle xfreerdp2 rdesktop snowsql vncdo", "-p"),
    **_programs("mosquitto_pub mosquitto_sub sqlcmd bcp tsql ipmitool zip unzip rpcclient", "-P"),
    **_programs("ldapsearch ldapadd ldapmodify ldapdelete ldapwhoami ldappasswd ldapcompare", "-w"),
    **_programs("htpasswd", number=3, needs="-b"),
    **_programs("rabbitmqctl", number=3),
    **_programs("wpa_passphrase", number=2),
    **_programs("snmpwalk snmpget snmpset snmpbulkwalk", "-A -X -a -x"),
    **_programs("gh", "--body -b", needs="secret"),
    **_programs("wrangler vercel", "--token -t"),
    **_programs("openssl", "-k -K -pass -passin -passout"),
    **_programs("keytool jarsigner apksigner", "-storepass -keypass -srcstorepass -deststorepass -new"),
    **_programs("smbclient winexe wmic", "--password", pairs="-U --user"),
    **_programs("dotnet nuget", "-k --api-key -ApiKey"),
    **_programs("ngrok", "add-authtoken authtoken"),
    **_programs("curl", "--oauth2-bearer --pass", pairs="-u --user -U --proxy-user -b --cookie"),
    **_programs("http https xh", pairs="-a --auth"),
    **_programs("sqlplus expdp impdp rman", number=1),
    **_programs("vault", needs="login", number=2),
    **_programs("nmcli", "password"),
    **_programs("lpass bw", "--password"),
    **_programs("rclone", "obscure pass"),
    **_programs("ncftpput ncftpget ncftp", "-p"),
    **_programs("lftp", pairs="-u --user"),
    **_programs("kubectl", pairs="--from-literal"),
    **_programs("svn", "--password"),
}
_SETS: Final = frozenset(("set", "config:set", "config", "put", "add", "--global", "--secret"))
"""Words before a name and its value: `aws configure set NAME VALUE`."""

_SETTERS: Final = frozenset(
    (
        "aws",
        "npm",
        "yarn",
        "pnpm",
        "git",
        "pip",
        "composer",
        "bundle",
        "poetry",
        "gcloud",
        "conda",
        "pulumi",
        "dotnet",
    )
)
_NAMED: Final = re.compile(
    r"(?i:[\w./:@-]*(?:_auth|password|token|secret|secret_access_key|api_key|http-basic|extraheader)[\w.-]*)"
)
_VALUES: Final = frozenset(("--value", "--body"))
"""Options before a value for a store of secrets: `az keyvault secret set --value x`."""

_STORES: Final = frozenset(("secret", "secrets", "put-parameter"))


def arguments_of(words: Sequence[str]) -> list[Argument]:
    """Return the secrets among the words of a command."""
    found: list[Argument] = []
    program: _Program | None = None
    name, count, needed, stores = "", 0, False, False
    for at, word in enumerate(words):
        base = word.rpartition("/")[2]
        before = words[at - 1] if at else ""
        if base in _PROGRAMS and not count:
            program, name = _PROGRAMS[base], base
            needed = not program.needs
        elif base in _SETTERS and not name:
            name = base
        elif _is_set(name, words, at) or (stores and before in _VALUES):
            found.append(Argument(at, 0, "value"))
        elif program is not None:
            # `htpasswd -nbB` has the letter that it needs among others
            count += name == "htpasswd" and word[:1] == "-" and "n" in word  # it asks for no file then
            needed = (
                needed or word == program.needs or (word[:1] == "-" and program.needs == "-b" and "b" in word)
            )
            count += word[:1] != "-"
            begin = _password_at(program, word, before, count) if needed else None
            if begin is not None:
                found.append(Argument(at, begin, "password"))
        stores = stores or word in _STORES
    return found


def _is_set(program: str, words: Sequence[str], at: int) -> bool:
    """Tell whether a word is the value that a command stores under a secret name: `configure set NAME VALUE`."""
    return (
        program in _SETTERS
        and at > 1
        and words[at - 2] in _SETS
        and _NAMED.fullmatch(words[at - 1]) is not None
        and words[at][:1] != "-"
    )


def _password_at(program: _Program, word: str, before: str, count: int) -> int | None:
    """Return the offset at which a password begins in a word, None when there is none."""
    if before in program.before:
        return None if word.startswith(_ELSEWHERE) else len("pass:") * word.startswith("pass:")
    for option in program.pairs:
        if (
            before == option
            or (option == "-u" and _CLUSTER.fullmatch(before))
            or (len(option) == _SHORT and word.startswith(option))
        ):
            pair = _PAIR.match(word, 0 if before[:1] == "-" and not word.startswith(option) else _SHORT)
            return pair.end() if pair else None
    if program.joined and word.startswith(program.joined) and len(word) > len(program.joined):
        return len(program.joined)
    if word[:1] == "-" or count != program.number:
        return None
    login = _LOGIN.match(word)
    return login.end() if login else 0


_SHORT: Final = len("-u")
_CLUSTER: Final = re.compile(r"-[a-zA-Z]{1,5}u")
_ELSEWHERE: Final = ("env:", "file:", "fd:", "stdin", "@")
"""Prefixes of a place that a program reads a password from: then the argument is no password."""

_PAIR: Final = re.compile(r"[^:%=,\s]{1,100}+[:%=,](?=.)")
_LOGIN: Final = re.compile(r"[\w$.]{1,60}+/(?=[^/\s]+@)")
"""The user and the slash before a password for Oracle: `scott/PASSWORD@db`."""


_NAMES: Final = any_of(sorted(map(re.escape, (*_PROGRAMS, *_SETTERS)), key=len, reverse=True))
_COMMAND: Final = re.compile(rf"(?:{_NAMES})(?=[ \t]|['\"], ['\"])[^\r\n|;&]{{1,1000}}+")
_SIGN: Final = rf"(?:{_NAMES})(?:[ \t]|['\"],)"
_LONGEST: Final = 1100
_WORD: Final = re.compile(r"(?:[^\s'\"]++|'[^'\r\n]*+'|\"[^\"\r\n]*+\")++|['\"]")
_LISTED: Final = re.compile(r"[\w.-]{1,40}+['\"], ")
_LISTED_WORD: Final = re.compile(r"[^'\",\[\] ][^'\"\r\n]{0,400}+(?=['\"])")
"""In a list of arguments as Python writes it: `['mysql', '-uroot', '-px']`."""

_JOINS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
_REDIRECTED: Final = frozenset("<>(`$")


def in_commands(text: str, work: Work) -> Iterator[tuple[int, int, str]]:
    """Yield the offsets and the names of secrets among the arguments of commands in a text."""
    words = 0
    commands = begun_in(parts_with(_SIGN, text), _COMMAND, text, _LONGEST)
    for command in work.candidates(commands):
        if text[command.start() - 1 : command.start()] in _JOINS:
            continue
        quoted = _LISTED.match(command[0])
        spans = [
            _unquoted(text, command.start() + word.start(), command.start() + word.end())
            for word in (_LISTED_WORD.finditer(command[0]) if quoted else _WORD.finditer(command[0]))
        ]
        words += len(spans)
        if words > MOST_NAMES:
            raise TooManyPlacesError
        for at, skipped, name in arguments_of([text[begin:end] for begin, end in spans]):
            begin, end = _unquoted(text, spans[at][0] + skipped, spans[at][1])
            if skipped and text[begin - 1] == "/":  # the server stands behind
                end = text.rfind("@", begin, end)
            if begin < end and text[begin] not in _REDIRECTED:
                yield begin, end, name


def _unquoted(text: str, begin: int, end: int) -> tuple[int, int]:
    """Return the offsets of a part of a text, without its first and last character if they are a pair of quotes."""
    quoted = end - begin > 1 and text[begin] in "'\"" and text[end - 1] == text[begin]
    return (begin + 1, end - 1) if quoted else (begin, end)
