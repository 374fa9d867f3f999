"""MFA codes: botocore's question is asked outside of it, once, and in its turn."""

import anyio
import pytest

from batch_snapshot.aws import http, mfa

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_botocore_asks_for_codes_through_us_and_not_at_a_terminal(tmp_path, monkeypatch):
    config = tmp_path / "config"
    config.write_text(
        "[profile p]\nrole_arn = arn:aws:iam::123456789012:role/R\nsource_profile = s\n"
        "mfa_serial = arn:aws:iam::123456789012:mfa/me\nregion = us-east-1\n"
        "[profile s]\naws_access_key_id = AKIAEXAMPLE000000000\naws_secret_access_key = secret\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    core = http.new_session()
    core.set_config_variable("profile", "p")
    chain = core.get_component("credential_provider")
    mfa.Codes().serve(chain)
    credentials = await chain.load_credentials()
    with pytest.raises(mfa.CodeNeededError, match="Enter MFA code for arn:aws:iam::123456789012:mfa/me"):
        await credentials.get_frozen_credentials()


async def test_a_code_is_asked_for_once_and_then_used():
    asked: list[str] = []

    async def answer(prompt: str) -> str:
        asked.append(prompt)
        return "123456"

    async def get(codes: mfa.Codes) -> str:
        return codes("Enter MFA code for me: ")

    token = mfa.asking.set(answer)
    try:
        assert await mfa.with_codes(get, anyio.Lock(), {}) == "123456"
    finally:
        mfa.asking.reset(token)
    assert asked == ["Enter MFA code for me (5 min): "]


async def test_unanswered_prompt_is_not_repeated():
    asked: list[str] = []

    async def nobody(prompt: str) -> str:
        asked.append(prompt)
        raise mfa.MfaCodeError("no terminal")

    async def get(codes: mfa.Codes) -> str:
        return codes("Enter MFA code for me: ")

    refused: dict[str, mfa.MfaCodeError] = {}
    token = mfa.asking.set(nobody)
    try:
        for _ in range(2):
            with pytest.raises(mfa.MfaCodeError):
                await mfa.with_codes(get, anyio.Lock(), refused)
    finally:
        mfa.asking.reset(token)
    assert len(asked) == 1
