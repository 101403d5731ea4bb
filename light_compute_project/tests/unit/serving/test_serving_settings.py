"""A server is private by default, and invalid settings are reported at once."""

import pytest

from litgpt_core.core.errors import ConfigError
from litgpt_core.serving.settings import ServerSettings


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.5"])
def test_this_machines_own_addresses_need_no_key(host):
    assert ServerSettings(host=host).is_private


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_other_addresses_need_a_key_or_a_confirmation(host):
    with pytest.raises(ConfigError, match="without an API key") as caught:
        ServerSettings(host=host)
    assert "--open_to_all" in caught.value.fix and "--api_key" in caught.value.fix
    assert not ServerSettings(host=host, api_key="a long secret").is_private
    assert not ServerSettings(host=host, open_to_all=True).is_private


def test_all_invalid_settings_are_named_at_once():
    with pytest.raises(ConfigError) as caught:
        ServerSettings(port=70000, slots=0, queue=-1, api_key="short", cors_origins=("*",), default_tokens=5000)
    for part in ("port=70000", "slots=0", "queue=-1", "8 characters", "cors_origins=*", "default_tokens=5000"):
        assert part in str(caught.value)
