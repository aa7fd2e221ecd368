"""Identifiers: what each kind takes, and that a refusal names the kind, the value and the rule."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FAST

from machine import ids
from machine.errors import IdError
from machine.ids import (
    STANDARD_TAGS,
    ArtifactId,
    ArtifactName,
    ContextKey,
    ErrorCode,
    FactKey,
    OpId,
    OpPath,
    RunId,
    ScheduleName,
    StateId,
    StreamName,
    Tag,
    VersionId,
)

# written from the contract, not taken from the code
SEGMENT = "[a-z][a-z0-9_]{0,62}"
RULES = {
    OpId: SEGMENT,
    OpPath: rf"{SEGMENT}\.{SEGMENT}",
    StateId: rf"{SEGMENT}\.{SEGMENT}\.{SEGMENT}",
    RunId: "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    ArtifactId: "[0-9a-f]{64}",
    Tag: "[a-z0-9_.:-]{1,64}",
    ErrorCode: SEGMENT,
    ScheduleName: "[a-z0-9_.-]{1,64}",
}
EVERY = (*RULES, ArtifactName, ContextKey, FactKey, StreamName, VersionId)
LONGEST = "a" * 63
UUID = "01932d4e-7c1a-7b3f-9a41-3f0c5f1a2b3c"


def accepts(kind, value):
    try:
        return kind(value) == value
    except IdError:
        return False


def test_every_public_kind_is_tested_here():
    kinds = {
        thing for name, thing in vars(ids).items() if isinstance(thing, type) and not name.startswith("_")
    } - {IdError}

    assert kinds == {*EVERY}


@pytest.mark.parametrize("kind", RULES, ids=lambda kind: kind.__name__)
def test_what_matches_the_rule_is_taken_and_stays_the_same_text(kind):
    @FAST
    @given(st.from_regex(RULES[kind], fullmatch=True, alphabet=st.characters(max_codepoint=127)))
    def holds(value):
        made = kind(value)
        assert made == value
        assert type(made) is kind
        assert kind(made) is made

    holds()


@pytest.mark.parametrize("kind", RULES, ids=lambda kind: kind.__name__)
def test_any_text_is_taken_exactly_when_it_matches_the_rule(kind):
    near = st.text("aZ09_.:-\n é", max_size=8) | st.from_regex(RULES[kind], fullmatch=True).map(str.upper)

    @FAST
    @given(st.text() | near)
    def holds(value):
        assert accepts(kind, value) == (re.fullmatch(RULES[kind], value, re.ASCII) is not None)

    holds()


@FAST
@given(st.text(max_size=520) | st.integers(0, 520).map("k".__mul__) | st.text().map("@{}".format))
def test_keys_are_taken_exactly_when_printable_not_too_long_and_not_reserved(value):
    assert accepts(ContextKey, value) == (1 <= len(value) <= 256 and value.isprintable())
    for kind in (StreamName, VersionId):
        assert accepts(kind, value) == (1 <= len(value) <= 128 and value.isprintable())
    assert accepts(FactKey, value) == (
        1 <= len(value) <= 512 and value.isprintable() and not value.startswith("@")
    )


@FAST
@given(st.text(max_size=130) | st.text("a/\\:.- \n", max_size=4))
def test_the_name_of_an_artifact_is_no_path(value):
    assert accepts(ArtifactName, value) == (
        1 <= len(value) <= 128
        and value.isprintable()
        and not set(value) & set("/\\:")
        and value[0] not in ".-"
        and value == value.strip()
    )


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (ArtifactName, ""),
        (ArtifactName, "../report"),
        (ArtifactName, "a/b"),
        (ArtifactName, ".hidden"),
        (ArtifactName, "-o"),
        (ArtifactName, "C:"),
        (ArtifactName, " a"),
        (OpId, ""),
        (OpId, "Report"),
        (OpId, "1op"),
        (OpId, "_op"),
        (OpId, "op "),
        (OpId, "op\n"),
        (OpId, "a" * 64),
        (OpId, "ö"),
        (OpPath, "op"),
        (OpPath, "op.step.state"),
        (OpPath, "op..step"),
        (StateId, "op.step"),
        (StateId, "op.step.state.more"),
        (StateId, "op.step.State"),
        (RunId, UUID.upper()),
        (RunId, UUID.replace("-", "")),
        (RunId, f"{{{UUID}}}"),
        (ArtifactId, "0" * 63),
        (ArtifactId, "0" * 65),
        (ArtifactId, "A" * 64),
        (Tag, ""),
        (Tag, "Report"),
        (Tag, "a b"),
        (Tag, "a" * 65),
        (ErrorCode, "http-404"),
        (ErrorCode, "a" * 64),
        (ContextKey, ""),
        (ContextKey, "a" * 257),
        (ContextKey, "tab\there"),
        (ContextKey, "\ud800"),
        (StreamName, "a" * 129),
        (VersionId, "a" * 129),
        (FactKey, ""),
        (FactKey, "a" * 513),
        (FactKey, "@mine"),
        (FactKey, "\x7f"),
        *(
            (kind, value)
            for kind in (*RULES, ContextKey, FactKey, StreamName)
            for value in (None, 7, b"op", ["op"])
        ),
    ],
    ids=lambda part: getattr(part, "__name__", ascii(part)[:20]),
)
def test_a_refusal_names_the_kind_the_value_and_the_rule(kind, value):
    with pytest.raises(IdError) as caught:
        kind(value)

    assert caught.value.code == "invalid_id"
    assert str(caught.value) == f"{kind.__name__} {value!r} is invalid: {kind.rule}"
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (OpId, LONGEST),
        (OpPath, f"{LONGEST}.{LONGEST}"),
        (StateId, f"{LONGEST}.{LONGEST}.{LONGEST}"),
        (Tag, "a" * 64),
        (Tag, "team:data-eng.v2_x"),
        (ContextKey, "a" * 256),
        (ContextKey, "größe 📏"),
        (FactKey, "a" * 512),
        (FactKey, "mail/@anna"),
    ],
)
def test_the_longest_and_oddest_valid_values_are_taken(kind, value):
    assert kind(value) == value


@pytest.mark.parametrize("kind", [OpId, ErrorCode, Tag])
def test_one_kind_is_not_taken_for_another_without_its_own_rule(kind):
    with pytest.raises(IdError, match=kind.__name__):
        kind(ContextKey("Größe"))


def test_an_id_costs_nothing_to_write_it_is_a_string():
    assert isinstance(OpId("report"), str)
    assert {OpId("report"): 1}["report"] == 1


def test_the_standard_tags_are_those_of_the_contract_and_valid():
    names = ["config", "fetch_data", "compute", "execute", "report", "apply_side_effect", "impure"]

    assert sorted(names) == sorted(STANDARD_TAGS)
    assert all(accepts(Tag, tag) for tag in STANDARD_TAGS)
