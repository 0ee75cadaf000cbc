"""Templates: whatever one does, only the process that renders it runs out of memory or time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Any

import pytest

from reconciler.errors import ConfigurationError
from reconciler.notification.channel import PermanentDeliveryError, RetryableDeliveryError
from reconciler.notification.channels import template as templates
from reconciler.notification.channels.template import check_template, render_template

DOUBLED = "".join("{% set x = [x, x] %}" for _ in range(40))
GROWN = "".join("{% set x = x ~ x %}" for _ in range(40))
BIG = "{% if subject != 'subject' %}"
"""Nothing is expanded when the template is checked."""

HOSTILE = {
    "nested lists": f"{{% set x = [body] %}}{DOUBLED}{{{{ x }}}}",
    "nested lists as JSON": f"{{% set x = [body] %}}{DOUBLED}{{{{ x | tojson }}}}",
    "nested lists joined": f"{{% set x = [body] %}}{DOUBLED}{{{{ x | join }}}}",
    "nested lists compared": f"{{% set x = [body] %}}{DOUBLED}{{{{ x == [x, x] }}}}",
    "nested lists in mappings": "{% set x = body %}" + "{% set x = {'a': x, 'b': x} %}" * 40 + "{{ x | tojson }}",
    "strings": f"{{% set x = body %}}{GROWN}{{{{ x | length }}}}",
    "strings added": "{% set x = body %}" + "{% set x = x + x %}" * 40 + "{{ x | length }}",
    "repeated list": "{{ ([body] * 1000000000) | tojson }}",
    "repeated list as text": "{{ (([1] * 1000000000) | string) | length }}",
    "repeated list of ranges": "{{ ([range(99999)] * 99999) | tojson | length }}",
    "sorted": "{{ ([body] * 300000000) | sort | length }}",
    "indent": "{% set x = ('a\n' * 60000) %}{{ x | indent(1000000) | length }}",
    "replace": "{% set x = body * 10 %}{{ x | replace('b', x) | replace('b', x) | length }}",
    "blocks": "{% macro f(n) %}{% for i in range(90000) %}{{ body }}{% endfor %}{% endmacro %}{{ f(1) ~ f(1) }}",
    "recursion": "{% macro f(x) %}{{ f([x, x]) }}{% endmacro %}{{ f(body) }}",
    "batches": "{{ [1] | batch(2000000000, body) | list | length }}",
    "slices": "{{ ([1] | slice(2000000000, body)) | list | length }}",
    "format": "{{ '%2000000000d' | format(1) }}",
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
    "output": "{% for a in range(9999) %}{{ body }}{% endfor %}",
}


def document(body: str = "b" * 65_536) -> dict[str, Any]:
    return {"subject": "Disk full", "body": body}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_template_exhausts_only_its_own_process(name: str) -> None:
    source = f"{BIG}{HOSTILE[name]}{{% endif %}}"
    check_template(source, "webhook:pager")
    with contextlib.suppress(PermanentDeliveryError):
        assert len(await render_template(source, "webhook:pager", document())) <= 1_048_576
    assert await render_template("{{ body }}", "webhook:other", document(body="x")) == "x"


@pytest.mark.parametrize("name", ["nested lists as JSON", "repeated list of ranges"])
def test_a_template_that_exceeds_the_limits_with_a_sample_is_an_error_when_it_is_loaded(name: str) -> None:
    with pytest.raises(ConfigurationError, match="the template of webhook:pager exceeded"):
        check_template(HOSTILE[name], "webhook:pager")


async def test_a_process_that_someone_ended_is_started_again_and_the_message_is_not_given_up() -> None:
    template = "{{ body }}", "webhook:pager"
    assert await render_template(*template, document(body="x")) == "x"
    process = templates._deliveries._process
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(RetryableDeliveryError, match="exit code -9"):
        await render_template(*template, document(body="x"))
    assert await render_template(*template, document(body="x")) == "x"


async def test_the_event_loop_is_free_while_a_template_uses_its_time() -> None:
    source = f"{BIG}{HOSTILE['nested lists']}{{% endif %}}"
    rendering = asyncio.ensure_future(render_template(source, "webhook:pager", document()))
    turns = 0
    while not rendering.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10
    with pytest.raises(PermanentDeliveryError):
        rendering.result()
