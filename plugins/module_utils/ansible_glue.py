# Copyright: (c) 2026, the mailfleet.starttls authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The link between AnsibleModule and the engine: a module starts programs and ends through these functions.

Every module imports this file, so it imports no product and no engine.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from ansible_collections.mailfleet.starttls.plugins.module_utils._change.process import Runner, postponed
from ansible_collections.mailfleet.starttls.plugins.module_utils._smtp.target import TargetError
from ansible_collections.mailfleet.starttls.plugins.module_utils.errors import EngineError, TransactionError
from ansible_collections.mailfleet.starttls.plugins.module_utils.option_values import refuse_control_characters

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

SECONDS_TO_END = 10.0
"""The time that a running program gets to end after a signal has stopped the change."""


def runner(module: AnsibleModule) -> Runner:
    """Return the function that starts programs for the engine, without a shell and in the C locale."""

    def run(arguments: Sequence[str]) -> tuple[int, str, str]:
        with _over_before_anything_else() as started:
            status, out, err = module.run_command(
                list(arguments),
                path_prefix="/usr/sbin:/sbin",
                environ_update={"LC_ALL": "C"},
                handle_exceptions=False,
                before_communicate_callback=started,
            )
        return status, out, err

    return run


@contextlib.contextmanager
def _over_before_anything_else() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """If a signal interrupts a program, wait for its end: it must not change files after they are restored."""
    running: list[subprocess.Popen[bytes]] = []
    with postponed() as go_on:  # no signal before the program's process is known

        def started(program: subprocess.Popen[bytes]) -> None:
            running.append(program)
            go_on()

        try:
            yield started
        except BaseException:
            for program in running:
                _end(program)
            raise


def _end(program: subprocess.Popen[bytes]) -> None:
    try:
        program.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        program.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(1.0)


def fail_on_engine_errors(module: AnsibleModule, work: Callable[[], dict[str, Any]]) -> None:
    """Check the options, do the work and exit with its result, which has C(diff) in diff mode only.

    An error of the engine becomes the module's failure message.
    """
    _hide_userinfo(module)
    try:
        refuse_control_characters(module.argument_spec, module.params)
        result = _decodable(work())
    except TransactionError as error:
        module.fail_json(msg=_decodable(str(error)), restored=error.restored)
    except (EngineError, TargetError) as error:
        module.fail_json(msg=_decodable(str(error)))
    except OSError as error:
        module.fail_json(msg=_decodable(f"{error.filename or 'the host'}: {error.strerror or error}"))
    if not module._diff:
        result.pop("diff", None)
    for warning in result.pop("warnings", ()):
        module.warn(warning)
    module.exit_json(**result)


def _hide_userinfo(module: AnsibleModule) -> None:
    """Have Ansible mask what stands before the @ of a URL in any option. Such a URL is refused, but every result shows the options."""
    urls = (word.partition("://")[2] for text in _texts(module.params) for word in text.split())
    for userinfo in {one.rpartition("@")[0] for one in urls}:
        secret = userinfo.partition(":")[2]
        module.no_log_values.update(filter(None, (userinfo, unquote(userinfo), secret, unquote(secret))))


def _texts(value: Any) -> Iterator[str]:
    """Yield each text in the value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts(one)


def _decodable(value: Any) -> Any:
    """Return the value with a replacement character for each byte that is not UTF-8: core 2.19 refuses such a result."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return {_decodable(key): _decodable(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_decodable(one) for one in value]
    return value
