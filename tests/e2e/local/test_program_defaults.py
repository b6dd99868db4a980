"""What the limits' chain takes for a program's default is its default."""

from __future__ import annotations

import re

import pytest
from tests.ran import ran

from stackproof.checks.chain import DEFAULTS
from stackproof.toolchain import programs

#: Settings whose flag is called otherwise than the setting.
_FLAGS = {
    "limits_config.max_structured_metadata_entries_count": (
        "limits.max-structured-metadata-entries-count"
    ),
    "server.grpc_server_max_recv_msg_size": "server.grpc-max-recv-msg-size-bytes",
    "limits_config.per_stream_rate_limit": "ingester.per-stream-rate-limit",
    "limits_config.per_stream_rate_limit_burst": "ingester.per-stream-rate-limit-burst",
}
_HELP = {"mimir": "-help-all", "loki": "-help"}
_UNITS = {"": 1, "KB": 2**10, "MB": 2**20}


@pytest.mark.parametrize(
    ("program", "setting"),
    [pytest.param(*pair, id="-".join(pair)) for pair in DEFAULTS if pair[0] in _HELP],
)
def test_a_default_is_what_the_program_says(program: str, setting: str) -> None:
    """Tempo and Alloy list none of theirs: test_resilience.py sends them more than they take."""
    command = [str(programs.find(program)), _HELP[program]]
    told = ran(command, timeout=60)
    flag = _FLAGS.get(setting, setting.replace("_", "-"))
    shown = rf"^  -{re.escape(flag)} .*\n.*\(default (\d+)(\w*)\)"
    found = re.search(shown, told.stdout + told.stderr, re.MULTILINE)
    assert found, f"{program} lists no default of -{flag}"
    assert int(found[1]) * _UNITS[found[2]] == DEFAULTS[program, setting]
