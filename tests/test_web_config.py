"""Web configuration files: what they mean, and every problem at once, with no secret in any message."""

import re
import ssl
import subprocess
from pathlib import Path

import bcrypt
import pytest

from joulemeter import config
from joulemeter.errors import ConfigError
from joulemeter.tls_config import CIPHERS, CIPHERS_13, Tls
from joulemeter.web_config import load

FOLDER = Path("/etc/joulemeter")
HASH = "$2y$10$KmVkYHBQrs1CBP2iTqBzf.1mJ.NpPDMRKGhHDdLjBbDPFGZdnVXZu"
PAIR = "tls_server_config: {cert_file: tls.crt, key_file: tls.key%s}"


def read(text: str):
    return load(text, source="web.yaml", folder=FOLDER)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return list(caught.value.problems)


def problem(text: str) -> str:
    (only,) = problems(text)
    return only


def tls(more: str = "") -> Tls:
    found = read(PAIR % more).tls
    assert found is not None
    return found


# ---------------------------------------------------------------------------------------------- what they mean


def test_a_certificate_and_nothing_else():
    assert tls() == Tls(FOLDER / "tls.crt", FOLDER / "tls.key")
    assert (tls().oldest, tls().newest, tls().client_must) == ("TLS12", "TLS13", False)
    assert read(PAIR % "").users == {}


def test_everything_that_the_format_has():
    config = read(f"""
tls_server_config:
  cert_file: /run/tls/tls.crt
  key_file: keys/tls.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ../ca.crt
  client_allowed_sans: [prometheus, "2001:DB8:0:0:0:0:0:1", 'spiffe://cluster/prometheus']
  min_version: TLS12
  max_version: TLS12
  cipher_suites:
    - TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    - TLS_AES_128_GCM_SHA256
    - TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA
  prefer_server_cipher_suites: false
  curve_preferences: [CurveP384]
http_server_config:
  http2: true
  headers:
    Strict-Transport-Security: max-age=31536000
    X-Frame-Options: deny
    X-Content-Type-Options: ""
basic_auth_users:
  prometheus: {HASH}
  jürgen: $2b$04$KmVkYHBQrs1CBP2iTqBzf.1mJ.NpPDMRKGhHDdLjBbDPFGZdnVXZu
""")
    assert config.tls == Tls(
        cert_file=Path("/run/tls/tls.crt"),
        key_file=FOLDER / "keys/tls.key",
        client_ca_file=FOLDER / "../ca.crt",
        client_must=True,
        client_allowed_sans=("prometheus", "2001:db8::1", "spiffe://cluster/prometheus"),
        newest="TLS12",
        ciphers=("ECDHE-RSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-SHA"),
        server_chooses=False,
        curve="secp384r1",
    )
    assert config.headers == {"Strict-Transport-Security": "max-age=31536000", "X-Frame-Options": "deny"}
    assert list(config.users) == ["prometheus", "jürgen"]
    assert config.notes == ("http_server_config.http2: no effect, HTTP/1.1 is served",)
    assert HASH not in repr(config)


@pytest.mark.parametrize(
    ("kind", "authorities", "must"),
    [
        ("NoClientCert", False, False),
        ("RequestClientCert", False, False),
        ("VerifyClientCertIfGiven", True, False),
        ("RequireAndVerifyClientCert", True, True),
    ],
)
def test_kinds_of_client_authentication(kind: str, authorities: bool, must: bool):
    ca = ", client_ca_file: ca.crt" if authorities else ""
    found = tls(f", client_auth_type: {kind}{ca}")
    assert (found.client_ca_file is not None, found.client_must) == (authorities, must)


def test_a_certificate_that_nobody_would_look_at_is_not_asked_for():
    config = read(PAIR % ", client_auth_type: RequestClientCert")
    assert config.notes == (
        "tls_server_config.client_auth_type: 'RequestClientCert' checks nothing, so no certificate is asked for",
    )


def test_passwords_without_tls_and_headers_alone():
    bare = read(f"basic_auth_users: {{a: {HASH}}}")
    assert bare.tls is None
    assert bare.notes == ("basic_auth_users: without tls_server_config the network sees every password",)
    assert read(f"{PAIR % ''}\nbasic_auth_users: {{a: {HASH}}}").notes == ()
    assert read(f"tls_server_config: {{}}\nbasic_auth_users: {{a: {HASH}}}").tls is None
    assert read("http_server_config: {headers: {X-Frame-Options: deny}}").headers == {
        "X-Frame-Options": "deny"
    }


def test_with_tls_13_alone_the_suites_are_fixed():
    assert tls(f", min_version: TLS13, cipher_suites: [{CIPHERS_13[0]}]").ciphers == ()


def test_every_suite_has_a_name_in_openssl():
    for name in CIPHERS.values():
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(name)


# ---------------------------------------------------------------------------------------------- what is wrong

CERT = "tls_server_config."
BAD = {
    "tls_server_config: {cert_file: a}": f"{CERT}key_file: missing; give the path of a PEM file",
    "tls_server_config: {min_version: TLS12, cert_file: a, key_file: b, keyfile: c}": f"{CERT}keyfile: unknown key;"
    " did you mean 'key_file'?",
    PAIR
    % ", min_version: TLS11": f"{CERT}min_version: 'TLS11' is no longer safe (RFC 8996); use 'TLS12' or 'TLS13'",
    PAIR
    % ", max_version: TLS10": f"{CERT}max_version: 'TLS10' is no longer safe (RFC 8996); use 'TLS12' or 'TLS13'",
    PAIR % ", min_version: '1.2'": f"{CERT}min_version: unknown value '1.2'; known: TLS12, TLS13",
    PAIR
    % ", min_version: TLS13, max_version: TLS12": f"{CERT}max_version: expected at least min_version (TLS13),"
    " got TLS12",
    PAIR
    % ", cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA265]": f"{CERT}cipher_suites[0]: unknown value"
    " 'TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA265'; did you mean 'TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256'?",
    PAIR
    % ", cipher_suites: [TLS_AES_128_GCM_SHA256]": f"{CERT}cipher_suites: none is for TLS 1.2; add one, or set"
    " min_version: TLS13, whose suites are fixed",
    PAIR % ", curve_preferences: [P256]": f"{CERT}curve_preferences[0]: unknown value 'P256'; did you mean"
    " 'CurveP256'?",
    PAIR
    % ", curve_preferences: [X25519, CurveP256]": f"{CERT}curve_preferences: expected one curve, got 2: Python can"
    " allow one or all, not order some; keep the first, or leave it out for all",
    PAIR % ", client_auth_type: RequireAndVerifyClientCert": f"{CERT}client_ca_file: missing;"
    " 'RequireAndVerifyClientCert' needs the PEM file of the authorities that sign clients' certificates",
    PAIR % ", client_ca_file: ca.crt": f"{CERT}client_ca_file: unused without client_auth_type; set it to"
    " 'RequireAndVerifyClientCert'",
    PAIR % ", client_ca_file: ca.crt, client_auth_type: RequireAnyClientCert": f"{CERT}client_auth_type:"
    " 'RequireAnyClientCert' would let in everyone with a certificate of his own making; use"
    " 'RequireAndVerifyClientCert' with client_ca_file",
    PAIR
    % ", client_ca_file: c, client_auth_type: VerifyClientCertIfGiven, client_allowed_sans: [a]": f"{CERT}"
    "client_allowed_sans: needs client_auth_type: RequireAndVerifyClientCert, got another",
    PAIR
    % ", client_ca_file: c, client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: []": f"{CERT}"
    "client_allowed_sans: no name is in the list; add one, or leave it out for any",
    PAIR
    % ", client_ca_file: c, client_auth_type: RequireAndVerifyClientCert, client_allowed_sans: [7]": f"{CERT}"
    "client_allowed_sans[0]: expected a name, address, e-mail or URI, got 7; put it in quotes",
    PAIR
    % ", prefer_server_cipher_suites: 1": f"{CERT}prefer_server_cipher_suites: expected true or false, got 1",
    "http_server_config: {http2: 2}": "http_server_config.http2: expected true or false, got 2",
    "http_server_config: {headers: {X-Frame-Option: deny}}": "http_server_config.headers.X-Frame-Option: unknown key;"
    " did you mean 'X-Frame-Options'?",
    "http_server_config: {headers: {X-Frame-Options: never}}": "http_server_config.headers.X-Frame-Options: expected"
    " deny or sameorigin, got 'never'",
    "basic_auth_users: {'a:b': x}": "basic_auth_users.a:b: expected a user's name without a colon; put it in quotes",
    "basic_auth_users: {7: x}": "basic_auth_users.7: expected a user's name without a colon; put it in quotes",
    f"basic_auth_users: {{a: {HASH.replace('10', '31', 1)}}}": "basic_auth_users.a: expected a cost from 4 to 16,"
    " got 31, which takes too long; make one with: htpasswd -nBC 10 '' | tr -d ':\\n'",
    f"basic_auth_user: {{a: {HASH}}}\nhttp_server_config: {{headers: {{}}}}": "basic_auth_user: unknown key; did you"
    " mean 'basic_auth_users'?",
    f"rate_limit: {{interval: 1s, burst: 5}}\nbasic_auth_users: {{a: {HASH}}}": "rate_limit: not supported, for pages"
    " are formatted once however many ask; leave it out",
    "": "basic_auth_users: missing, and so is tls_server_config; give at least one of them, or leave"
    " web_config_file out",
    "[]": "configuration: expected a mapping of keys to values, got a list",
}


@pytest.mark.parametrize(("text", "message"), BAD.items(), ids=range(len(BAD)))
def test_problem_names_place_value_and_remedy(text: str, message: str):
    assert f"web.yaml: {message}" in problems(text)


def test_a_mistyped_kind_of_client_authentication_suggests_what_was_meant():
    first, *_ = problems(PAIR % ", client_auth_type: RequireAndVerify, client_ca_file: ca.crt")
    assert first.endswith("unknown value 'RequireAndVerify'; did you mean 'RequireAndVerifyClientCert'?")


def test_every_problem_is_told_at_once():
    found = problems("""
tls_server_config: {cert_file: a, min_version: TLS10, cipher_suites: [x], bogus: 1}
http_server_config: {http2: maybe, headers: {Server: me}}
basic_auth_users: {a: secret, b: hunter2}
""")
    assert len(found) == 8
    assert all(one.startswith("web.yaml: ") for one in found)


def test_text_that_is_no_yaml_is_placed():
    assert problem("a: [").startswith("web.yaml:1:5: ")
    assert problem("a: 1\na: 2") == "web.yaml:2:1: key 'a' is given twice; keep one"


PEM = r'"-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBg\n-----END PRIVATE KEY-----\n"'


@pytest.mark.parametrize(
    "text",
    [
        f"tls_server_config: {{cert_file: a, key: {PEM}}}",
        f"tls_server_config: {{cert_file: a, key_file: {PEM}}}",
        f"tls_server_config: {{key_file: a, cert_file: {PEM}}}",
        f"tls_server_config: {PEM}",
        "basic_auth_users: {a: MIIEvQIBADANBg}",
        f"basic_auth_users: {{a: 'MIIEvQIBADANBg{HASH}'}}",
        "basic_auth_users: {a: [MIIEvQIBADANBg]}",
        "basic_auth_users: MIIEvQIBADANBg",
        "basic_auth_users: [{a: MIIEvQIBADANBg}]",
        "basic_auth_users: {a: *MIIEvQIBADANBg}",
        "basic_auth_users: {a: !MIIEvQIBADANBg x}",
        "basic_auth_users: {a: !MIIEvQIBADANBg!x y}",
        "basic_auth_users: {a: &MIIEvQIBADANBg x, b: &MIIEvQIBADANBg y}",
    ],
)
def test_no_message_repeats_what_may_be_a_secret(text: str):
    assert not [one for one in problems(text) if "MII" in one or "$2" in one.replace("($2y$...)", "")]


@pytest.mark.parametrize("key", ["cert", "key", "client_ca"])
def test_certificates_and_keys_are_in_files(key: str):
    assert (
        f"web.yaml: tls_server_config.{key}: is read from a file only; put it in one and name that with {key}_file"
        in problems(PAIR % f", {key}: PEM")
    )


# ------------------------------------------------------------------------------------ what docs/security.md says

DOCUMENT = (Path(__file__).parent.parent / "docs/security.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)


def test_examples_can_be_used(promtool: str, tmp_path: Path):
    web = [read(block) for block in BLOCKS if "tls_server_config" in block]
    assert [one.tls is not None and one.tls.client_must for one in web] == [False, True]
    assert bcrypt.checkpw(b"change-me", web[0].users["prometheus"].encode())
    ours = [
        config.load(block, source="docs")
        for block in BLOCKS
        if re.search("^(grid|web_config_file):", block, re.MULTILINE)
    ]
    assert ours[0].web_config_file == Path("/etc/joulemeter/web.yaml")
    assert [source.name for source in ours[1].grid.sources] == ["relay", "static"]
    (scrape,) = (block for block in BLOCKS if "scrape_configs" in block)
    (tmp_path / "prometheus.yaml").write_text(scrape.replace("/etc/prometheus", str(tmp_path)))
    for name in ("joulemeter-ca.crt", "joulemeter-password"):
        (tmp_path / name).touch()
    done = subprocess.run(
        [promtool, "check", "config", str(tmp_path / "prometheus.yaml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("key", [*Tls.__dataclass_fields__, "http2", "headers", "basic_auth_users"])
def test_every_key_of_the_format_is_in_the_table(key: str):
    ours = {"client_must": "client_auth_type", "oldest": "min_version", "newest": "max_version"}
    ours |= {
        "ciphers": "cipher_suites",
        "server_chooses": "prefer_server_cipher_suites",
        "curve": "curve_preferences",
    }
    table = DOCUMENT.partition("### Keys")[2].partition("###")[0]
    assert re.search(rf"^\|[^|]*\b{ours.get(key, key)}`", table, re.MULTILINE)
