"""Where the server's key comes from."""

import pytest

from litgpt_core.core.errors import ConfigError
from litgpt_core.serving.api_key import chosen_key


def test_a_file_overrules_the_variable_and_the_command_line_is_warned_of(tmp_path, caplog):
    file = tmp_path / "key"
    file.write_text("a long secret\n".replace(" ", "-"))
    file.chmod(0o600)
    assert chosen_key(None, file, "other") == "a-long-secret" and not caplog.text
    file.chmod(0o644)
    assert chosen_key(None, file, None) == "a-long-secret" and "chmod 600" in caplog.text
    assert chosen_key(None, None, "other") == "other" and chosen_key(None, None, None) is None
    caplog.clear()
    assert chosen_key("given-here", None, "other") == "given-here" and "other users" in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"\n", b"two words", b"a\nb", b"\xff\xfe", b"x" * 5000])
def test_a_file_without_one_key_is_refused(tmp_path, content):
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="key file") as caught:
        chosen_key(None, file, "other")
    assert "umask 077" in caught.value.fix
    with pytest.raises(ConfigError, match="together"):
        chosen_key("a", file, None)
