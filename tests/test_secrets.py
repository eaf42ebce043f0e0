"""Passwords in addresses are refused in specs, and masked wherever an address is shown or stored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smpo.api import load
from smpo.diagnostics.render import as_json, render
from smpo.secrets import has_secret, masked
from smpo.spec.problems import SpecProblems

WORD = st.text("abcXYZ019._~!$'()*+,%-", min_size=1, max_size=12)
PASSWORD = st.text("abcXYZ019._~!$()*+,%@:-", min_size=8, max_size=20)


@given(password=PASSWORD, user=WORD, scheme=st.sampled_from(["http", "postgresql+psycopg", "s3"]))
def test_a_password_before_the_host(password, user, scheme):
    text = masked(f"see {scheme}://{user}:{password}@host:5000/x and go on")
    assert f":{password}@" not in text
    assert text == f"see {scheme}://host:5000/x and go on"


@given(value=st.text("abcXYZ019._~!$()*+,%:-", min_size=1, max_size=20))
@pytest.mark.parametrize("name", ["password", "sslpassword", "X-Amz-Signature", "access_token", "apikey"])
def test_a_password_in_the_query(name, value):
    assert masked(f"mysql://h/db?user=me&{name}={value}&x=1") == f"mysql://h/db?user=me&{name}=***&x=1"


@pytest.mark.parametrize(
    "text",
    [
        "sqlite:////a@b/c.db",
        "postgresql://host/db",
        "sqlite:///a.db?timeout=30",
        "a photo: http://x.org at @night",
        "",
    ],
)
def test_addresses_without_a_secret_stay_as_they_are(text):
    assert masked(text) == text and not has_secret(text)


def test_a_user_alone_is_no_secret():
    assert not has_secret("postgresql://me@host/db") and masked("postgresql://me@host/db") == "postgresql://host/db"


def test_a_driver_s_message_shows_the_password_neither():
    said = masked("login of 'me' by 'hunter2' failed", address="mysql://me:hunter2@h/db")
    assert said == "login of 'me' by '***' failed"


@pytest.mark.parametrize(
    "line",
    [
        "runtime.tracking=http://admin:hunter2@127.0.0.1:5000",
        "runtime.tracking=postgresql+psycopg://h/db?user=me&password=hunter2",
        "runtime.runs=https://hunter2@host/x",
    ],
)
def test_a_spec_with_a_password_is_refused_and_the_password_not_printed(line):
    with pytest.raises(SpecProblems, match="must not hold a password") as caught:
        load("plane_smpo", [line])
    path, _, value = line.partition("=")
    assert [problem.path for problem in caught.value.problems] == [path]
    for text in (render(caught.value.problems), as_json(caught.value.problems), str(caught.value)):
        assert "hunter2" not in text
    frame = render(caught.value.problems).splitlines()
    assert "*" * 7 in frame[3] and frame[4].count("^") == len(value), "the caret stands under the address"
