"""After a start, Deployments are compared with their records as they are listed, not one by one."""

import copy
import json
from typing import Any

import pytest

from backstop.api.names import TEMPLATE_KEY
from backstop.controller.recorded import Recorded
from backstop.kube.resources import CONFIG_MAPS, DEPLOYMENTS, Body
from backstop.rendering.owner import Owner, metadata
from backstop.rendering.revision import deployment

OWNER = Owner("shop", "support", "u1")
TEMPLATE: Body = {"spec": {"containers": [{"name": "gateway", "image": "i"}]}}


def record(text: str = json.dumps(TEMPLATE)) -> Body:
    return {"metadata": metadata(OWNER, name="support-r1", revision="r1"), "data": {TEMPLATE_KEY: text}}


def live() -> Body:
    """As the API server gives it: with defaults."""
    body: Body = copy.deepcopy(deployment(OWNER, revision="r1", template=TEMPLATE, replicas=3))
    body["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = "Always"
    return body


def right(*, of: Body, beside: Body | None) -> list[tuple[Body, Body]]:
    recorded = Recorded()
    if beside is not None:
        assert list(recorded.look(CONFIG_MAPS, [beside])) == []
    return list(recorded.look(DEPLOYMENTS, [of]))


def test_a_deployment_that_is_as_its_record_says_comes_with_what_it_was_rendered_as() -> None:
    assert right(of=live(), beside=record()) == [(live(), deployment(OWNER, revision="r1", template=TEMPLATE, replicas=3))]


def edited(**container: Any) -> Body:
    body = live()
    body["spec"]["template"]["spec"]["containers"][0] |= container
    return body


def nobodys() -> Body:
    body = live()
    del body["metadata"]["ownerReferences"]
    return body


@pytest.mark.parametrize(
    ("of", "beside"),
    [
        (edited(image="other"), record()),
        (live(), None),
        (live(), record(text="{")),
        (live(), record() | {"data": {}}),
        (nobodys(), record()),
    ],
    ids=["edited", "no record", "unreadable record", "record of something else", "nobody's"],
)
def test_any_other_deployment_is_left_to_be_read(of: Body, beside: Body | None) -> None:
    assert right(of=of, beside=beside) == []
