"""What a policy may say, and what is said of one that means nothing."""

import pytest

from machine import RunConfig, SecretPolicy, codec
from machine.errors import CodecError, ConfigError
from machine.secrets.known_values import Known
from machine.secrets.redact import redact
from machine.secrets.rules import rules_of

TOKEN = "Xq9-77b-Kd83-mmPq"


@pytest.mark.parametrize("field", ["names", "patterns", "allow", "stable", "pointers"])
@pytest.mark.parametrize("value", ["token", b"token", 5, None, {"token": 1}, ["token", 5], [""]])
def test_what_is_no_list_of_texts_is_refused_by_its_name(field, value):
    with pytest.raises(ConfigError, match=rf"secrets\.{field} must ") as caught:
        SecretPolicy(**{field: value})
    assert caught.value.code == "invalid_config"


@pytest.mark.parametrize(
    "path", ["$", "$a", "$.", "$..a", "$.a.", "$.a[*].b", "$.a[b]", "$.a['b']", "$.a[0", "/a~2", "/a~", "--"]
)
def test_what_is_no_path_is_not_allowed_silently(path):
    with pytest.raises(ConfigError, match=r"secrets\.allow cannot hold") as caught:
        SecretPolicy(allow=["csrf_token", path])
    assert caught.value.code == "invalid_config"


def test_what_a_recording_allowed_is_read_as_it_is():
    said = {**codec.to_json(RunConfig()), "secrets": {"allow": ["$..a", '$["\\x"]']}}
    policy = codec.from_json(said, RunConfig).secrets
    assert sorted(policy.allow) == sorted(said["secrets"]["allow"])
    assert rules_of(policy).allowed_paths == set(policy.allow)
    with pytest.raises(CodecError):
        codec.from_json({**said, "secrets": {"allow": "$.a"}}, RunConfig)


@pytest.mark.parametrize(
    "path",
    ["$.login.access_token", '$["login"].access_token', "/login/access_token"],
)
@pytest.mark.parametrize("request_", [True, False], ids=["request", "answer"])
def test_a_path_is_allowed_in_requests_and_in_answers(path, request_):
    document = {"login": {"access_token": TOKEN}}
    for allow, kept in ([[], False], [[path], True]):
        rules = rules_of(SecretPolicy(allow=allow))
        found = redact(rules, Known(), "api", document, request=request_, name=str)
        assert (found.document == document) is kept


def test_a_path_leads_into_the_json_of_a_body():
    answer = {"body": {"text": f'{{"access_token":"{TOKEN}"}}'}}
    rules = rules_of(SecretPolicy(allow=["$.access_token"]))
    assert redact(rules, Known(), "http", answer, request=False, name=str).document == answer
    sent = {"json": {"access_token": TOKEN}}
    rules = rules_of(SecretPolicy(allow=["$.json.access_token"]))
    assert redact(rules, Known(), "http", sent, request=True, name=str).document == sent
