"""URLs: what can be called, and where credentials stand in one."""

import pytest

from batch_snapshot import endpoints


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8080", "https://[::1]:99/a/", "https://host.example/a@b?c", "http://host:"]
)
def test_url_with_a_host_can_be_called(url):
    assert endpoints.is_url(url)
    assert not endpoints.has_credentials(url)


@pytest.mark.parametrize(
    "text",
    [
        "", "host:80", "ftp://x", "http://", "http://x:0", "http://x:y", "http://[::1", "http://a..b",
        "http://a b", "http://a\n",
        "http://" + "a" * 64,
    ],
)  # fmt: skip
def test_text_without_a_callable_host_is_no_url(text):
    assert not endpoints.is_url(text)
    assert endpoints.has_credentials(f"{text}@")


def test_user_or_password_before_the_host_are_credentials():
    assert endpoints.has_credentials("http://me@host")
    assert endpoints.has_credentials("http://:secret@host")
