"""Passwords among the arguments of well-known programs, whose short options have no name that says so."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

__all__ = ["Argument", "arguments_of", "in_commands"]


class Argument(NamedTuple):
    """A secret among arguments: its word, where in the word it begins, and what it is called."""

    at: int
    begin: int
    name: str


class _Program(NamedTuple):
    """The options of a program before a password (`-p x`), those it is joined to (`-px`), and a word it needs."""

    before: frozenset[str] = frozenset()
    joined: str = ""
    needs: str = ""
    number: int = 0
    """Where a password stands without an option: the number of the word behind the program, options left out."""


def _programs(
    names: str, before: str = "", joined: str = "", needs: str = "", number: int = 0
) -> dict[str, _Program]:
    program = _Program(frozenset(before.split()), joined, needs, number)
    return dict.fromkeys(names.split(), program)


_PROGRAMS: Final = {
    **_programs(
        "mysql mysqldump mysqladmin mysqlimport mysqlpump mysqlsh mysqlcheck mysqlbinlog", joined="-p"
    ),
    **_programs("mariadb mariadb-dump mariadb-admin 7z 7za rar unrar", joined="-p"),
    **_programs("redis-cli valkey-cli keydb-cli", "-a --pass"),
    **_programs("docker podman nerdctl buildah skopeo crane helm oras regctl", "-p", needs="login"),
    **_programs("az oc cf doctl ibmcloud flyctl rosa", "-p", needs="login"),
    **_programs("sshpass", "-p", "-p"),
    **_programs("twine mongosh mongo mongodump mongorestore mongoexport mongoimport cqlsh arangosh", "-p"),
    **_programs(
        "rabbitmqadmin cypher-shell influx argocd kaggle xfreerdp2 rdesktop nuget snowsql vncdo", "-p"
    ),
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
    **_programs("smbclient winexe wmic", "--password"),
    **_programs("vault", needs="login", number=2),
    **_programs("nmcli", "password"),
    **_programs("lpass bw", "--password"),
    **_programs("rclone", needs="obscure", number=2),
    **_programs("svn", "--password"),
}
_SETS: Final = frozenset(("set", "config:set", "config", "put", "add", "--global"))
"""Words before a name and its value: `aws configure set NAME VALUE`."""

_SETTERS: Final = frozenset(
    ("aws", "npm", "yarn", "pnpm", "git", "pip", "composer", "bundle", "poetry", "gcloud", "conda")
)
_NAMED: Final = re.compile(
    r"(?i:[\w./:@-]*(?:_auth|password|token|secret|secret_access_key|api_key|http-basic|extraheader)[\w.-]*)"
)
_VALUES: Final = frozenset(("--value", "--body"))
"""Options before what is kept in a store of secrets: `az keyvault secret set --value x`."""

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
            needed = (
                needed or word == program.needs or (word[:1] == "-" and program.needs == "-b" and "b" in word)
            )
            count += word[:1] != "-"
            begin = _password_at(program, word, before, count) if needed else None
            if begin is not None and not (name == "openssl" and not word.startswith("pass:")):
                found.append(Argument(at, max(begin, len("pass:") * (name == "openssl")), "password"))
        stores = stores or word in _STORES
    return found


def _is_set(program: str, words: Sequence[str], at: int) -> bool:
    """Tell whether a word is a value that a program is told to keep under a name that says that it is secret."""
    return (
        program in _SETTERS
        and at > 1
        and words[at - 2] in _SETS
        and _NAMED.fullmatch(words[at - 1]) is not None
        and words[at][:1] != "-"
    )


def _password_at(program: _Program, word: str, before: str, count: int) -> int | None:
    """Return where in a word a password begins, None when there is none."""
    if before in program.before:
        return 0
    if program.joined and word.startswith(program.joined) and len(word) > len(program.joined):
        return len(program.joined)
    return 0 if word[:1] != "-" and count == program.number else None


_COMMAND: Final = re.compile(
    rf"(?<![\w.-])(?:{'|'.join(sorted(map(re.escape, (*_PROGRAMS, *_SETTERS)), key=len, reverse=True))})(?=[ \t])"
    r"[^\r\n|;&]{1,1000}+"
)
_WORD: Final = re.compile(r"'([^'\r\n]*+)'|\"([^\"\r\n]*+)\"|([^\s'\"]++)|['\"]")
_REDIRECTED: Final = frozenset("<>(`$")


def in_commands(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield where secrets stand among the arguments of commands in a text, and what they are called."""
    for command in _COMMAND.finditer(text):
        words: list[str] = []
        places: list[int] = []
        for word in _WORD.finditer(command[0]):
            group = word.lastindex or 0
            words.append(word[group])
            places.append(command.start() + word.start(group))
        for at, begin, name in arguments_of(words):
            value = words[at][begin:]
            if value and value[0] not in _REDIRECTED:
                yield places[at] + begin, places[at] + begin + len(value), name
