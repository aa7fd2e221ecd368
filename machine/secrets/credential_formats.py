"""Credentials that are recognised by their shape alone, anywhere in a text."""

from __future__ import annotations

import base64
import binascii
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from machine.secrets.pattern_search import PIECE, SHORT, begun_in, pieces
from machine.secrets.redacted_text import MOST_CANDIDATES, TooManyPlacesError, Work
from machine.secrets.templates_and_examples import is_example


class Format(NamedTuple):
    """A shape; one of `needles` is in every text that has it, and group 1, where there is one, is the secret."""

    name: str
    regex: str
    needles: tuple[str, ...]
    check: Callable[[str], bool] | None = None
    back: int = 0
    """The number of characters before the match that belong to the credential."""
    lead: str = ""
    """The beginning of a match, for formats whose matches may be long."""


# A match begins with a literal, for which a text is searched quickly, and only where no character of its kind
# stands before it; quantifiers are possessive: whatever the text, each character is taken a few times at most.


def _apart(prefix: str) -> str:
    """Return an expression for a prefix that no letter or digit precedes."""
    return f"{re.escape(prefix)}(?<![A-Za-z0-9_-]{re.escape(prefix)})"


def _format(name: str, prefix: str, tail: str, check: Callable[[str], bool] | None = None) -> Format:
    return Format(name, _apart(prefix) + tail, (prefix,), check)


def _prefixed(name: str, tail: str, *prefixes: str) -> Format:
    return Format(name, f"(?:{'|'.join(map(_apart, prefixes))}){tail}", prefixes)


_LONGEST_HEADER: Final = 4096
_LEAST_ARMOUR: Final = 40
_LEAST_CLOSED: Final = 12
_LONGEST_TITLE: Final = 64


def _is_jwt(text: str) -> bool:
    """Tell whether the first part of a token is an object of JSON that names an algorithm."""
    header = text.partition(".")[0]
    if len(header) > _LONGEST_HEADER:
        return False
    try:
        decoded = json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return False
    return isinstance(decoded, dict) and ("alg" in decoded or "enc" in decoded)


def _has_armour(text: str) -> bool:
    """Tell whether there is any text between the first and the last line of a key in PEM."""
    least = _LEAST_CLOSED if "-----END " in text else _LEAST_ARMOUR
    return len(re.sub(r"-----[A-Za-z0-9 ]*-----|\\+[nr]|[\s.]", "", text)) >= least


def _is_armoured(text: str) -> bool:
    """Tell whether base64 encodes a private key in PEM."""
    return b"PRIVATE KEY" in base64.b64decode(text[: min(len(text) // 4 * 4, _LONGEST_TITLE)])


def _has_digit(text: str) -> bool:
    return any(map(str.isdigit, text))


_ARMOUR: Final = r"(?:[A-Za-z0-9+/=\s\\:,.()@<>]|-(?!----))*+"

FORMATS: Final = (
    Format(
        "private_key",
        r"-----BEGIN (?:(?:[A-Z0-9]{1,12} ){0,4}PRIVATE KEY(?: BLOCK)?|OpenVPN [A-Za-z0-9 -]{1,30})-----"
        rf"{_ARMOUR}(?:-----END [A-Za-z0-9 -]{{1,64}}?-----)?",
        ("-----BEGIN ",),
        _has_armour,
    ),
    Format(
        "private_key",
        r"Private-Lines: [0-9]{1,3}+(?:\r?\n|\\n)((?:[A-Za-z0-9+/=]{4,100}+(?:\r?\n|\\n|\Z)){1,100}+)",
        ("Private-Lines: ",),
    ),
    _format("private_key", "LS0tLS1CRUdJTi", r"[A-Za-z0-9+/]{24,}+={0,2}", _is_armoured),
    _format("jwt", "eyJ", r"[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{2,}+\.[A-Za-z0-9_.-]*+", _is_jwt)._replace(
        lead=_apart("eyJ") + "[A-Za-z0-9_-]{8}"
    ),
    _prefixed("aws_access_key_id", r"[0-9A-Z]{16}(?![0-9A-Za-z])", "AKIA", "ASIA"),
    _prefixed("github_token", r"[A-Za-z0-9]{36,255}+", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    _prefixed("github_token", r"[A-Za-z0-9_]{22,255}+", "github_pat_"),
    _prefixed(
        "gitlab_token",
        r"[A-Za-z0-9_.-]{20,255}+",
        *("glpat-", "gloas-", "gldt-", "glrt-", "glcbt-", "glptt-", "glft-", "glimt-", "glagent-", "glsoat-"),
    ),
    _prefixed(
        "slack_token",
        r"(?=[A-Za-z-]{0,255}+[0-9])[A-Za-z0-9-]{10,255}+",
        *(
            "xoxa-",
            "xoxb-",
            "xoxe-",
            "xoxe.xoxp-",
            "xoxo-",
            "xoxp-",
            "xoxr-",
            "xoxs-",
            "xoxc-",
            "xoxd-",
            "xapp-",
        ),
    ),
    Format(
        "slack_webhook",
        r"hooks\.slack(?:-gov)?\.com/(?:services|workflows|triggers)/([A-Za-z0-9/]{20,255}+)",
        ("hooks.slack",),
    ),
    Format(
        "discord_webhook",
        r"discord(?:app)?\.com/api/webhooks/\d{5,30}+/([A-Za-z0-9_-]{20,255}+)",
        ("/api/webhooks/",),
    ),
    _prefixed("stripe_key", r"[A-Za-z0-9]{16,255}+", "sk_live_", "sk_test_", "rk_live_", "rk_test_"),
    _prefixed("stripe_key", r"[A-Za-z0-9+/=]{24,255}+", "whsec_"),
    _format("anthropic_key", "sk-ant-", r"[A-Za-z0-9_-]{20,255}+"),
    _format("openai_key", "sk-", r"[A-Za-z0-9_-]{20,255}+", _has_digit),
    _prefixed("google_api_key", r"[A-Za-z0-9_-]{35}(?![A-Za-z0-9_-])", "AIza"),
    _prefixed("google_oauth", r"[A-Za-z0-9_-]{20,2048}+", "ya29.", "GOCSPX-"),
    _prefixed("npm_token", r"[A-Za-z0-9]{36}(?![A-Za-z0-9])", "npm_"),
    _prefixed("pypi_token", r"[A-Za-z0-9_-]{50,1024}+", "pypi-"),
    _format("sendgrid_key", "SG.", r"[A-Za-z0-9_-]{16,32}+\.[A-Za-z0-9_-]{16,64}+"),
    _format("twilio_key", "SK", r"[0-9a-f]{32}(?![0-9A-Za-z])"),
    Format("telegram_token", r"[0-9]{8,10}:AA[A-Za-z0-9_-]{33}(?![A-Za-z0-9_-])", (":AA",)),
    _prefixed("shopify_token", r"[0-9a-fA-F]{32}(?![0-9A-Za-z])", "shpat_", "shpca_", "shppa_", "shpss_"),
    _prefixed("digitalocean_token", r"[0-9a-f]{64}", "dop_v1_", "doo_v1_", "dor_v1_"),
    _prefixed("hugging_face_token", r"[A-Za-z0-9]{30,255}+", "hf_"),
    Format(
        "azure_secret",
        r"Q~(?<=[A-Za-z0-9_.~-]{3}[0-9]Q~)[A-Za-z0-9_.~-]{31,34}+",
        ("Q~",),
        back=4,
    ),
    _prefixed("square_token", r"[A-Za-z0-9_-]{22,255}+", "sq0atp-", "sq0csp-"),
    _prefixed("mailgun_key", r"[0-9a-f]{32}(?![0-9A-Za-z])", "key-"),
    _prefixed("databricks_token", r"[0-9a-f]{32}(?:-\d)?(?![0-9A-Za-z])", "dapi"),
    _prefixed("vault_token", r"[A-Za-z0-9_-]{24,255}+", "hvs.", "hvb.", "hvr."),
    _prefixed("age_key", r"[0-9A-Z]{50,70}+", "AGE-SECRET-KEY-1"),
    _prefixed("atlassian_token", r"[A-Za-z0-9_=-]{20,512}+", "ATATT3", "ATCTT3"),
    Format(
        "terraform_token",
        r"\.atlasv1\.(?<=[A-Za-z0-9]{14}\.atlasv1\.)[A-Za-z0-9_-]{40,255}+",
        (".atlasv1.",),
        back=14,
    ),
    _prefixed("dropbox_token", r"[A-Za-z0-9_-]{40,2048}+", "sl."),
    _format("cloudflare_key", "v1.0-", r"[0-9a-f]{24}-[0-9a-f]{100,160}+"),
    _prefixed("groq_key", r"[A-Za-z0-9]{40,255}+", "gsk_"),
    _prefixed("replicate_token", r"[A-Za-z0-9]{36,255}+", "r8_"),
    _prefixed("linear_key", r"[A-Za-z0-9]{32,255}+", "lin_api_", "lin_oauth_"),
    _prefixed("docker_token", r"[A-Za-z0-9_-]{20,255}+", "dckr_pat_", "dckr_oat_"),
    _prefixed("grafana_token", r"[A-Za-z0-9_=+/]{30,512}+", "glsa_", "glc_"),
    _prefixed("new_relic_key", r"[A-Z0-9]{27}(?![0-9A-Za-z])", "NRAK-"),
    _prefixed("postman_key", r"[0-9a-f]{24}-[0-9a-f]{34}", "PMAK-"),
    _prefixed("notion_token", r"[A-Za-z0-9]{40,255}+", "ntn_", "secret_"),
    _prefixed("figma_token", r"[A-Za-z0-9_-]{36,255}+", "figd_"),
    _prefixed("sentry_token", r"[A-Za-z0-9_=+/]{40,512}+", "sntrys_", "sntryu_"),
    _prefixed("rubygems_key", r"[0-9a-f]{48}(?![0-9A-Za-z])", "rubygems_"),
    _prefixed("doppler_token", r"[A-Za-z0-9]{40,255}+", "dp.pt.", "dp.st.", "dp.ct."),
    _prefixed("planetscale_token", r"[A-Za-z0-9_.=-]{32,255}+", "pscale_tkn_", "pscale_pw_"),
    _prefixed("supabase_token", r"[0-9a-f]{40}(?![0-9A-Za-z])", "sbp_"),
    _prefixed("tailscale_key", r"[A-Za-z0-9-]{20,255}+", "tskey-"),
    _prefixed("netlify_token", r"[A-Za-z0-9]{36,255}+", "nfp_"),
    _prefixed("perplexity_key", r"[A-Za-z0-9]{40,255}+", "pplx-"),
    Format("mailchimp_key", r"[0-9a-f]{32}-us[0-9]{1,2}(?![0-9A-Za-z])", ("-us",)),
    Format("google_oauth", r"1//0(?<![A-Za-z0-9_-]1//0)[A-Za-z0-9_-]{30,512}+", ("1//0",)),
    _prefixed("adafruit_key", r"[A-Za-z0-9]{28}(?![0-9A-Za-z])", "aio_"),
    _prefixed("xai_key", r"[A-Za-z0-9]{60,255}+", "xai-"),
)

_TAIL: Final = "[A-Za-z0-9_.=+/~-]{4}"
"""The rest of a credential after the prefix of its format."""


def signs_of(formats: Iterable[Format]) -> tuple[str, ...]:
    """Return for each format an expression that is found in every text that may have it."""
    return tuple(
        "|".join(re.escape(needle) + ("" if needle in _ALONE else _TAIL) for needle in form.needles)
        for form in formats
    )


_ALONE: Final = frozenset(("-----BEGIN ", "-us", "Private-Lines: "))


@functools.cache
def _compiled(source: str) -> re.Pattern[str]:
    """Return the pattern of a format, compiled at the first text that may have the format."""
    return re.compile(source)


def shapes(formats: Iterable[Format], text: str, work: Work) -> Iterator[tuple[int, int, str]]:
    """Yield the offsets of credentials of these formats in a text, and the names of the formats."""
    formats = tuple(formats)
    for form, parts in _parts(formats, text) if len(text) > SHORT else ((one, None) for one in formats):
        regex = _compiled(form.regex)
        group = regex.groups
        lead = _compiled(form.lead) if form.lead else None
        matches = regex.finditer(text) if parts is None else begun_in(parts, regex, text, _LEAST_MATCH, lead)
        for found in work.candidates(matches):
            if (form.check is None or form.check(found[group])) and not is_example(found[group]):
                begin, end = found.span(group)
                yield begin - form.back, end, form.name


# A long text may have what each of the formats begins with. So it is searched for all of them at once, piece by
# piece, and then for each format only in those pieces that may have it.

_BEFORE_SIGN: Final = 64
_LEAST_MATCH: Final = 1 << 9
"""No credential without a `lead` needs more characters to be one."""


def _parts(formats: tuple[Format, ...], text: str) -> list[tuple[Format, list[tuple[int, int]]]]:
    """Return for each format the parts of a text that it may begin in."""
    parts: list[list[tuple[int, int]]] = [[] for _ in formats]
    count, most = 0, MOST_CANDIDATES + 2 * (len(text) // PIECE)
    for begin, there in pieces(signs_of(formats), text):
        count += len(there)
        if count > most:
            raise TooManyPlacesError
        for at in there:
            known, start = parts[at], max(begin - _BEFORE_SIGN, 0)
            if known and known[-1][1] >= start:
                known[-1] = known[-1][0], begin + PIECE
            else:
                known.append((start, begin + PIECE))
    return list(zip(formats, parts, strict=True))


def format_of(text: str) -> str | None:
    """Return the name of the format that a text as a whole has, None for any other text."""
    text = text.strip()
    for begin, end, name in shapes(FORMATS, text, Work()):
        if (begin, end) == (0, len(text)):
            return name
    return None
