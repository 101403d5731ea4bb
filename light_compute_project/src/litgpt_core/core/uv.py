"""Where uv is: it keeps programs whose requirements exclude ours in environments of their own. Standard library."""

from __future__ import annotations

import shutil

from litgpt_core.core.checkout import PROJECT_DIR
from litgpt_core.core.errors import EnvironmentProblem


def find_uv(program: str, *, variable: str, example: str) -> str:
    """The command uv: that on the PATH, else the one that `make environment` put into a checkout.

    Args:
        program: What needs it, for the message.
        variable: Environment variable that names an installed program instead.
        example: A value for it.

    Raises:
        EnvironmentProblem: There is none.
    """
    own = PROJECT_DIR.parent / ".uv" / "bin" / "uv"
    found = shutil.which("uv") or (str(own) if own.is_file() else None)
    if found is None:
        raise EnvironmentProblem(
            f"there is no uv, which keeps {program} in an environment of its own",
            needed=f"uv, or {program} installed elsewhere",
            fix=f"make environment puts uv into .uv/; or {variable}={example}",
        )
    return found
