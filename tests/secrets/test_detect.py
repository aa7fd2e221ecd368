"""What is found in a text, and what is not: by names, by places and by shapes."""

from __future__ import annotations

import base64
import json

import pytest

from machine import RunConfig, SecretPolicy, codec
from machine.canonical import encode
from machine.errors import ConfigError
from machine.secrets.credential_formats import FORMATS, format_of
from machine.secrets.credential_looks import looks_like_credential, looks_strong
from machine.secrets.detect import findings, says_nothing
from machine.secrets.header_names import HEADERS, PARAMETERS
from machine.secrets.known_values import Known
from machine.secrets.names import EXACT, PLURAL, WEAK, Strength, field_strength, header_strength
from machine.secrets.redact import redact, say_text
from machine.secrets.redacted_text import Work
from machine.secrets.rules import rules_of
from machine.secrets.running_text import look_at
from machine.secrets.value_places import ROOT

RULES = rules_of(SecretPolicy())
VALUE = "Zq7vK8pLmW3xR7tY"


def said(text, rules=RULES):
    return say_text(rules, Known(), text)


def stored(document, *, request, rules=RULES):
    return redact(rules, Known(), "http", document, request=request, name=str).document


# -- names ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "DB_PASSWORD",
        "dbPass",
        "oauth2_client_secret",
        "X-Api-Key",
        "apiKey",
        "APIKEY",
        "password2",
        "aws_secret_access_key",
        "AccountKey",
        "refreshToken",
        "PGPASSWORD",
        "private-key",
        "secret_key_base",
    ],
)
def test_an_exact_name_is_matched_by_its_last_words(name):
    assert field_strength(name) is Strength.EXACT


@pytest.mark.parametrize("name", ["passwords", "secrets", "client_secrets", "apiKeys"])
def test_a_plural_is_a_container(name):
    assert field_strength(name) is Strength.SEVERAL


@pytest.mark.parametrize(
    "name",
    [
        "secretary",
        "tokenizer",
        "tokens_used",
        "next_page_token",
        "scroll_token",
        "author",
        "monkey",
        "keyboard",
        "PWD",
        "password_policy",
        "password_hash_algorithm",
        "public_key",
        "sort_key",
        "compass",
        "cache_key",
    ],
)
def test_a_name_that_only_looks_alike_says_nothing(name):
    assert field_strength(name) is Strength.NONE


@pytest.mark.parametrize("name", [*EXACT, *PLURAL, *WEAK])
def test_the_quick_look_passes_over_no_name(name):
    for spelled in (name.replace(" ", ""), name.replace(" ", "_").upper(), name.replace(" ", "-")):
        assert RULES.may_hold(f'{{"{spelled}":"x"}}'.encode())


@pytest.mark.parametrize("name", [*EXACT, *PLURAL, *WEAK])
def test_the_look_at_a_text_passes_over_no_name(name):
    for spelled in (name.replace(" ", ""), name.replace(" ", "_").upper(), name.replace(" ", "-")):
        assert look_at(RULES, f"{spelled}=x").names


def test_the_quick_look_passes_over_no_header_and_no_parameter():
    assert [name for name in HEADERS if not RULES.may_hold(f'[["{name}","x"]]'.encode())] == []
    assert [name for name in PARAMETERS if not RULES.may_hold(f"?{name}=x".encode())] == []


def test_the_quick_look_passes_over_what_holds_nothing():
    request = {
        "method": "GET",
        "url": "https://shop.example.com/items/7",
        "timeout": 30,
        "follow_redirects": True,
    }
    body = '{"id": 7, "name": "Widget", "at": "2026-05-01T10:00:00Z", "n": "0b8e2c9d-59ab-4f3e-8d1c-2f7a6b5c4d3e"}'
    assert not RULES.may_hold(encode(request))
    assert not RULES.may_hold(encode({"status": 200, "body": {"text": body}}))


# -- texts ---------------------------------------------------------------------------------------------------

TEXTS = {
    "JSON": '{"a": {"password": "%s"}}',
    "JSON in JSON": json.dumps({"a": json.dumps({"b": json.dumps([{"clientSecret": "%s"}])})}),
    "JSON within text": 'got {"password": "%s", "n": 1} back',
    "escaped JSON within text": 'log: {\\"password\\": \\"%s\\"} end',
    "members of a container": '{"passwords": {"bob": "%s"}}',
    "items of a container": 'x {"secrets": ["%s"], "a": 1}',
    "a name and a value": '{"env": [{"name": "DB_PASSWORD", "value": "%s"}]}',
    "a repr": "bad config {'password': '%s'}",
    "pairs": "[('password', '%s')]",
    "a call": "Config(user='x', password='%s', n=1)",
    "YAML": "db:\n  password: %s\n",
    "a YAML block": "password: |\n  %s\n",
    "INI": "[db]\npassword = %s\n",
    "AWS": "[default]\naws_secret_access_key = %s\n",
    "netrc": "machine h login u password %s\n",
    "libpq": "connection failed: host=db user=app password=%s dbname=x",
    "libpq, quoted": "host=db password='it is %s' dbname=x",
    "ODBC": "DRIVER={x};UID=sa;PWD=%s;",
    "Azure": "AccountName=x;AccountKey=%s;",
    "a variable": "export DB_PASS=%s",
    "a command's variable": "PGPASSWORD=%s psql -h db",
    "an option": "run --password %s --x",
    "an option with =": "run --db-password=%s",
    "curl": "curl -H 'Authorization: Token %s' http://x",
    "curl with a user": "curl -u ann:%s https://x",
    "a header": "X-Api-Key: %s\r\nAccept: */*",
    "a cookie": "Cookie: theme=dark; sid=%s",
    "basic": "tried Authorization: Basic %s and failed",
    "a form": "a=1&client_secret=%s&c=2",
    "multipart": '--b\r\nContent-Disposition: form-data; name="api_key"\r\n\r\n%s\r\n--b--',
    "XML": "<Password>%s</Password>",
    "an attribute": '<add key="DbPassword" value="%s"/>',
    "SQL": "CREATE USER a IDENTIFIED BY '%s'",
    "a query": "GET https://x/?access_token=%s&a=1",
    "a fragment": "https://x/cb#access_token=%s",
    "user-info": "postgres://u:%s@h/db",
    "user-info without a user": "redis://:%s@h:1/0",
    "bearer": "sent Bearer %s and failed",
    "pgpass": "db.example:5432:shop:app:%s\n",
    "PGP": "-----BEGIN PGP PRIVATE KEY BLOCK-----\n%s\n-----END PGP PRIVATE KEY BLOCK-----",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_a_credential_is_found_in(kind):
    text = TEXTS[kind] % VALUE
    assert VALUE not in said(text)
    found = redact(
        RULES, Known(), "file.read", {"body": {"text": text}}, request=False, name=lambda _: "field-1"
    )
    assert VALUE not in encode(found.document).decode()
    assert any(VALUE in value for _, value, _ in found.learned)


@pytest.mark.parametrize("kind", TEXTS)
@pytest.mark.parametrize("value", ["required", "true", "12", "null", "${PASSWORD}", "<password>", "********"])
def test_an_innocent_value_stays_in(kind, value):
    if kind == "PGP":
        value = "..."
    if kind.startswith("user-info") and value in {"required", "true", "12", "null"}:
        value = "***"  # that place alone decides
    text = TEXTS[kind] % value
    assert said(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/db-Zq01Xy",
        '{"from_token": "USDC", "to_token": "WETH"}',
        '{"errors": {"password": "required"}}',
        '{"usage": {"prompt_tokens": 12, "total_tokens": 90}}',
        '{"nextPageToken": "CAUQAA8aB7cD9eF1gH2iJ3kL4mN5"}',
        '{"Key": "photos/2026/IMG_0042.jpg"}',
        "the password must have 8 letters",
        "token: completed",
        "see https://example.com/a?page=2",
    ],
)
def test_an_innocent_text_stays(text):
    assert said(text) == text


@pytest.mark.parametrize(
    "name",
    [
        *(
            "X-Acme-Integration-Key",
            "acme-signature-sha256",
            "kc-api-sign",
            "x-internal-auth",
            "csrfpreventiontoken",
        ),
        *("x-emby-authorization", "x-binance-apikey", "vendor-session-id", "x-line-channeltoken"),
    ],
)
def test_a_header_of_any_vendor_is_one_by_its_last_words(name):
    assert header_strength(name) is Strength.EXACT


@pytest.mark.parametrize(
    "name",
    [
        *("x-next-token", "x-ms-continuationtoken", "idempotency-key", "x-cache-key", "sec-websocket-key"),
        *("x-signature-version", "x-key-id", "x-amz-content-sha256", "x-ms-session-token", "x-lock-token"),
    ],
)
def test_a_header_that_says_where_data_is_found_is_none(name):
    assert header_strength(name) is Strength.NONE


def test_of_headers_without_a_list_the_look_decides_in_answers():
    given = {"headers": [["x-cart-token", "empty"], ["x-cart-key", "Zk3PqW8tXn2Lr7Vd"]]}
    assert stored(given, request=False) == {
        "headers": [["x-cart-token", "empty"], ["x-cart-key", {"$secret": "x-cart-key"}]]
    }


def test_a_header_among_arguments_is_decided_by_its_name():
    assert stored({"argv": ["curl", "-H", "X-Acme-Key: maple", "-H", "Accept: a"]}, request=True) == {
        "argv": ["curl", "-H", "X-Acme-Key: __secret_x-2Dacme-2Dkey__", "-H", "Accept: a"]
    }


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("password", "River.2578", True),
        ("password", "last-changed-2026-02", False),
        ("password", "prod-db-042", False),
        ("secret", "copper-window-805", False),
    ],
)
def test_a_password_of_words_has_a_number(name, value, secret):
    assert (stored({name: value}, request=False) != {name: value}) is secret


def test_a_version_in_a_vault_is_secret():
    name = "projects/shop/secrets/db/versions/3"
    given = {"name": name, "payload": {"data": "Zk3PqW8tXn2Lr7Vd", "size": 3}}
    assert stored(given, request=False)["payload"]["data"] != "Zk3PqW8tXn2Lr7Vd"
    at = "https://shop.vault.azure.example/secrets/db/1"
    assert stored({"id": at, "value": "Zk3PqW8tXn2Lr7Vd"}, request=False)["value"] != "Zk3PqW8tXn2Lr7Vd"


def test_in_a_request_the_exact_name_alone_decides():
    body = {"json": {"password": "required", "pin": 1, "api_key": 12345678, "secret": True, "passwd": None}}
    assert stored(body, request=True) == {
        "json": {
            "password": {"$secret": "password"},
            "pin": 1,
            "api_key": {"$secret": "api_key", "type": "number"},
            "secret": True,
            "passwd": None,
        }
    }
    assert stored(body, request=False) == body


def test_of_a_header_only_the_credential_goes():
    headers = {"authorization": "Bearer a", "cookie": "sid=a; theme=a", "x-own": "c", "x-api-key": "d"}
    assert stored({"headers": headers}, request=True)["headers"] == {
        "authorization": "Bearer __secret_authorization__",
        "cookie": "sid=__secret_cookie-2Esid__; theme=__secret_cookie-2Etheme__",
        "x-own": "c",
        "x-api-key": {"$secret": "x-api-key"},
    }
    answer = {"headers": [["set-cookie", "sid=k3Vt9QzLw81; Path=/; HttpOnly"], ["x-a", "b"]]}
    assert stored(answer, request=False)["headers"][0] == [
        "set-cookie",
        "sid=__secret_cookie-2Esid__; Path=/; HttpOnly",
    ]


def test_arguments_and_variables_of_a_program():
    request = {
        "argv": ["psql", "--password", "a", "--token=b", "-u", "ann:c"],
        "env": {"DB_PASS": "d", "HOME": "e"},
    }
    assert stored(request, request=True) == {
        "argv": ["psql", "--password", {"$secret": "password"}, "--token=b", "-u", "ann:__secret_password__"],
        "env": {"DB_PASS": {"$secret": "DB_PASS"}, "HOME": "e"},
    }


# -- shapes --------------------------------------------------------------------------------------------------

HEADER = base64.urlsafe_b64encode(b'{"alg":"HS256"}').decode().rstrip("=")
SHAPES = {
    "aws_access_key_id": "AKIA" + "IOSFODNN7EXAMPLE",
    "github_token": "ghp_" + "a1B2" * 9,
    "gitlab_token": "glpat-" + "a1B2c3D4e5F6g7H8i9J0",
    "slack_token": "xoxb-" + "123456789012-abcdefghijkl",
    "stripe_key": "sk_live_" + "abcdefghij0123456789",
    "anthropic_key": "sk-ant-" + "api03-a1B2c3D4e5F6g7H8i9J0",
    "openai_key": "sk-" + "proj-a1B2c3D4e5F6g7H8i9J0",
    "google_api_key": "AIza" + "Sy1_-" * 7,
    "npm_token": "npm_" + "a1B2" * 9,
    "sendgrid_key": "SG." + "a1B2c3D4e5F6g7H8i9J0aa." + "a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7H8i9J0aaa",
    "telegram_token": "123456789:" + "AA" + "a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g",
    "shopify_token": "shpat_" + "0a1b2c3d" * 4,
    "azure_secret": "abc8" + "Q~" + "a1B2c3D4e5F6g7H8i9J0a1B2c3D4e5F6g7",
    "jwt": f"{HEADER}.e30.c2lnbmF0dXJl",
    "private_key": "-----BEGIN " + "RSA PRIVATE KEY-----\n" + "MIIE" * 20 + "\n-----END RSA PRIVATE KEY-----",
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_found_anywhere(name):
    text = SHAPES[name]
    assert format_of(text) == name
    assert said(f"see {text}, there") == f"see __secret_{name}__, there"
    assert RULES.may_hold(encode({"note": f"\n{text}"}))
    assert RULES.may_hold(encode({"note": f"a {text}"}))
    assert said(json.dumps({"note": [f"x\n{text}"]})) != json.dumps({"note": [f"x\n{text}"]})


@pytest.mark.parametrize(
    "text",
    [
        "eyJhbGciOiJIUzI1NiJ9",
        "eyJvZmZzZXQiOjEwMH0.e30.abcdefgh",
        "task-sk-learning-is-a-long-name-for-a-branch",
    ],
)
def test_what_only_begins_alike_is_no_shape(text):
    assert said(text) == text


def test_each_format_has_its_needle_at_hand():
    assert all(needle for form in FORMATS for needle in form.needles)


@pytest.mark.parametrize(
    "value",
    [
        "hunter2",
        "s3cr3t-Value",
        VALUE,
        "p@$$w0rd!",
        "Tr0ub4dor&3",
        "d41d8cd98f00b204e9800998ecf8427e",
        "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
        "upload-key-1234567",
        "tok-9145b89d124ec96161",
    ],
)
def test_it_looks_like_a_credential(value):
    assert looks_like_credential(value)


@pytest.mark.parametrize(
    "value",
    [
        "required",
        "required|min:8",
        "PasswordField",
        "change-me-please-1",
        "sha256",
        "argon2id",
        "12345678",
        "2024-01-01",
        "https://a.b/c",
        "[FILTERED]",
        "not-a-real-one-1",
        "USDC",
        "xxxxxxx",
        "os.environ['X']",
        "a b1c2d3e4",
        "v1.2.3",
        "arn:aws:ssm:eu-west-1:1:parameter/x",
        "クライアントシークレット",
        "/^(?=.*\\d).{8,}$/",
        "VARCHAR(255)",
        "a@b.example",
    ],
)
def test_it_looks_like_no_credential(value):
    assert not looks_like_credential(value)


@pytest.mark.parametrize(
    ("value", "strong"),
    [
        ("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", True),
        ("hunter2", False),
        ("d41d8cd98f00b204e9800998ecf8427e", False),
        ("3f2504e0-4f89-11d3-9a0c-0305e82c3301", False),
        ("photos/2026/05/a-long-name-of-a-cat.jpg", False),
    ],
)
def test_some_values_look_strong(value, strong):
    assert looks_strong(value) is strong


# -- policies ------------------------------------------------------------------------------------------------


def ruled(**said):
    return rules_of(SecretPolicy(**said))


def test_a_name_of_the_policy_decides_alone_in_answers_too():
    rules = ruled(names=["pin-code"])
    document = {"user": {"pinCode": "1234", "n": 1}, "body": {"text": '{"PIN_CODE": 9876}'}}
    assert stored(document, request=False, rules=rules) == {
        "user": {"pinCode": {"$secret": "pinCode"}, "n": 1},
        "body": {"text": '{"PIN_CODE": __secret_PIN_CODE__}'},
    }


def test_a_pointer_leads_into_a_document_and_into_a_body_of_json():
    rules = ruled(pointers=["/user/pin", "/list/1"])
    assert stored({"json": {"user": {"pin": "a", "x": "b"}}}, request=True, rules=rules)["json"] == {
        "user": {"pin": {"$secret": "pin"}, "x": "b"}
    }
    body = {"text": '{"user": {"pin": "a"}, "list": ["b", "c"]}'}
    assert stored({"body": body}, request=False, rules=rules)["body"] == {
        "text": '{"user": {"pin": "__secret_pin__"}, "list": ["b", "__secret_list__"]}'
    }


def test_a_pattern_takes_its_group():
    assert said("id ACME-123 and user=x9", ruled(patterns=["ACME-[0-9]+", "user=(.*)"])) == (
        "id __secret_pattern__ and user=__secret_pattern__"
    )


@pytest.mark.parametrize(
    ("allow", "document"),
    [
        ("api_key", {"json": {"apiKey": VALUE}}),
        ("aws_access_key_id", {"note": SHAPES["aws_access_key_id"]}),
        ("/json/password", {"json": {"password": VALUE}}),
        ("$.json.password", {"json": {"password": VALUE}}),
        ("$.headers.x-api-key", {"headers": {"x-api-key": VALUE}}),
        ("x-api-key", {"headers": {"x-api-key": VALUE}}),
        ("/password", {"body": {"text": json.dumps({"password": VALUE})}}),
    ],
)
def test_what_is_allowed_stays(allow, document):
    assert stored(document, request=True) != document
    assert stored(document, request=True, rules=ruled(allow=[allow])) == document


def test_a_stand_in_is_stored_in_clear():
    document = {"json": {"id_token": SHAPES["jwt"]}}
    assert stored(document, request=False, rules=ruled(stand_ins={"id_token": SHAPES["jwt"]})) == document


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"patterns": ["("]}, "RE2"),
        ({"patterns": [r"(?=x)"]}, "RE2"),
        ({"patterns": [r"(a)\1"]}, "RE2"),
        ({"patterns": ["x*"]}, "empty"),
        ({"pointers": ["user/pin"]}, "pointer"),
        ({"pointers": ["/a~2"]}, "pointer"),
        ({"stand_ins": {"a": SHAPES["github_token"]}}, "github_token"),
        ({"stand_ins": {"a": SHAPES["private_key"]}}, "private_key"),
        ({"stand_ins": ["a"]}, "map names"),
        ({"stand_ins": {"a": 1}}, "map names"),
        ({"stand_ins": {"-": "x"}}, "letters"),
    ],
)
def test_a_policy_that_cannot_work_is_refused(given, problem):
    with pytest.raises(ConfigError, match=problem):
        SecretPolicy(**given)


def test_a_policy_of_before_keeps_its_bytes():
    before = SecretPolicy(allow=["token"], stable=["A"], names=["b"], patterns=["c"])
    assert codec.to_json(RunConfig(secrets=before))["secrets"] == {
        "names": ["b"],
        "patterns": ["c"],
        "allow": ["token"],
        "stable": ["A"],
    }
    said = RunConfig(secrets=SecretPolicy(pointers=["/a"], stand_ins={"id_token": "x"}))
    assert codec.from_json(codec.to_json(said), RunConfig) == said


def test_a_recording_keeps_patterns_of_the_syntax_of_its_day():
    said = codec.to_json(RunConfig(secrets=SecretPolicy(patterns=["a"])))
    said["secrets"]["patterns"] = ["a(?=b)"]
    assert codec.from_json(said, RunConfig).secrets.patterns == ("a(?=b)",)


@pytest.mark.parametrize(
    "text",
    ["", "role", "messages", "x=1", f"token={VALUE}", f"Bearer {VALUE}", VALUE, "AKIA" + "Q" * 16, "u:p@h"],
)
def test_a_key_that_says_nothing_by_itself_holds_nothing(text):
    assert not (says_nothing(RULES, text) and findings(RULES, ROOT, text, Work(), request=True))


@pytest.mark.parametrize("key", [f"Bearer {VALUE}", VALUE])
def test_a_key_that_is_a_known_secret_is_replaced(key):
    """Also where it is known from another place only."""
    document = {"headers": {"authorization": f"Bearer {VALUE}"}, "json": {key: 1}}
    known = Known()
    known.learn("token", VALUE, sure=True)
    assert VALUE not in str(redact(RULES, known, "http", document, request=True, name=str).document)
