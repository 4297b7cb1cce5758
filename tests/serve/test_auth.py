"""Tokens and who may listen where."""

from __future__ import annotations

import hashlib

import pytest

from rayseg.errors import UsageError
from rayseg.serve import auth
from rayseg.serve.auth import Tokens, load_tokens, new_token, parse
from rayseg.serve.problems import Problem


def test_a_new_token_lets_in_under_its_name_and_is_stored_hashed():
    token, line = new_token("alice")
    assert token not in line
    assert hashlib.sha256(token.encode()).hexdigest() in line
    tokens = parse(f"# callers\n\n{line}\n{new_token('bob')[1]}\n", "file")
    assert set(tokens.hashes) == {"alice", "bob"}
    assert tokens.caller(f"Bearer {token}") == "alice"
    assert tokens.caller(f"bearer  {token} ") == "alice"
    assert new_token("alice")[0] != token


def test_everything_else_is_refused():
    token, line = new_token("alice")
    tokens = parse(line, "file")
    digest = tokens.hashes["alice"]
    for given in (None, "", "Bearer", "Bearer ", token, f"Basic {token}", f"Bearer {token}x", f"Bearer {token[:-1]}",
                  f"Bearer {digest}", f"Bearer {token.swapcase()}", "Bearer \x00", "Bearer ü"):  # fmt: skip
        with pytest.raises(Problem) as caught:
            tokens.caller(given)
        assert caught.value.status == 401
        assert caught.value.headers["WWW-Authenticate"].startswith("Bearer")
        assert token not in caught.value.detail


def test_every_hash_is_compared_in_constant_time(monkeypatch):
    compared = []
    true = auth.hmac.compare_digest
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or true(a, b))
    token, line = new_token("first")
    tokens = parse("\n".join([line, new_token("second")[1], new_token("third")[1]]), "file")
    assert tokens.caller(f"Bearer {token}") == "first"
    assert len(compared) == 3


def test_tokens_come_from_a_file_else_from_the_environment(tmp_path):
    file = tmp_path / "tokens"
    file.write_text(new_token("of-file")[1])
    environment = {"RAYSEG_SERVE_TOKENS": f"{new_token('a')[1]},{new_token('b')[1]}"}
    assert set(load_tokens(str(file), environment).hashes) == {"of-file"}
    assert set(load_tokens(None, environment).hashes) == {"a", "b"}
    assert load_tokens(None, {}).hashes == {}


@pytest.mark.parametrize(
    "text", ["hunter2", "alice:hunter2", "alice:sha256:abc", "a b:sha256:" + "0" * 64, "# none", ""]
)
def test_a_file_that_holds_no_hashes_is_refused_without_quoting_it(tmp_path, text):
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_tokens(str(file), {})
    assert "hunter2" not in str(caught.value)
    assert "tokens" in str(caught.value)


def test_a_file_that_is_not_there_or_names_one_twice_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        load_tokens(str(tmp_path / "none"), {})
    line = new_token("alice")[1]
    with pytest.raises(UsageError, match="line 2: the name alice is there twice"):
        parse(f"{line}\n{line}", "file")
    with pytest.raises(UsageError, match="--new-token"):
        new_token("a b")


def test_without_tokens_only_loopback_is_listened_on():
    some = Tokens({"a": "0" * 64})
    for host in ("127.0.0.1", "localhost", "::1", "127.8.9.1"):
        auth.check_host_setting(host, Tokens({}))
    for host in ("0.0.0.0", "::", "10.0.0.1", "192.168.1.4", "example.org", "", "127.0.0.1.evil.example", "0"):
        with pytest.raises(UsageError, match="no tokens"):
            auth.check_host_setting(host, Tokens({}))
        auth.check_host_setting(host, some)


def test_without_tokens_only_names_of_loopback_are_answered_to():
    for host in ("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST"):
        auth.check_host_header(host, Tokens({}))
    for host in (None, "", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "127.0.0.2"):
        with pytest.raises(Problem) as caught:
            auth.check_host_header(host, Tokens({}))
        assert caught.value.status == 421
        auth.check_host_header(host, Tokens({"a": "0" * 64}))
