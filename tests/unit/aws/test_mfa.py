"""MFA codes: botocore's question is asked outside of it, once, and in its turn."""

import anyio
import pytest

from batch_snapshot.aws import http, mfa
from tests.support.virtual_time import in_virtual_time


@pytest.mark.asyncio
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


def test_typing_an_mfa_code_stops_the_timeout_and_prompts_come_one_at_a_time():
    standing: list[int] = []
    prompts: list[str] = []

    async def ask(prompt: str) -> str:
        standing.append(1)
        assert len(standing) == 1, "two prompts at once"
        prompts.append(prompt)
        await anyio.sleep(120)
        standing.pop()
        return "123456"

    async def credentials(codes: mfa.Codes) -> str:
        with anyio.fail_after(10):
            await anyio.sleep(5)
            return codes("Enter MFA code for jane: ")

    async def main() -> None:
        turn, got, refused = anyio.Lock(), list[str](), dict[str, mfa.MfaCodeError]()
        mfa.asking.set(ask)

        async def one() -> None:
            got.append(await mfa.with_codes(credentials, turn, refused))

        async with anyio.create_task_group() as both:
            both.start_soon(one)
            both.start_soon(one)
        assert got == ["123456", "123456"]
        assert prompts == ["Enter MFA code for jane (5 min): "] * 2

    in_virtual_time(main)


def test_an_unanswered_mfa_prompt_is_not_repeated():
    prompts: list[str] = []

    async def ask(prompt: str) -> str:
        prompts.append(prompt)
        await anyio.sleep_forever()
        raise AssertionError

    async def credentials(codes: mfa.Codes) -> str:
        return codes("code: ")

    async def main() -> None:
        turn, refused = anyio.Lock(), dict[str, mfa.MfaCodeError]()
        mfa.asking.set(ask)
        for _ in range(2):
            with pytest.raises(mfa.MfaCodeError, match="no MFA code was typed within 5 min"):
                await mfa.with_codes(credentials, turn, refused)
        assert len(prompts) == 1

    in_virtual_time(main)
