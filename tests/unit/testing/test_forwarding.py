"""What stands in front of a store passes everything on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from stem_actors.ports import Broker, Intake
from stem_actors.testing.forwarding import ForwardingBroker, ForwardingIntake


class Listener:
    """Notes what it is asked, and answers with it."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *arguments: (name, *arguments)


@pytest.mark.parametrize(("port", "front"), [(Broker, ForwardingBroker), (Intake, ForwardingIntake)])
def test_every_method_of_the_port_is_passed_on_with_all_that_it_is_given(port: type, front: Callable[[Any], object]) -> None:
    methods = {name: method for name, method in vars(port).items() if inspect.isfunction(method) and not name.startswith("_")}
    forwarding = front(Listener())
    for name, method in methods.items():
        passed_on = getattr(forwarding, name)
        parameters = list(inspect.signature(method).parameters.values())[1:]
        assert list(inspect.signature(passed_on).parameters.values()) == parameters, name
        given = [f"{name} {parameter.name}" for parameter in parameters]
        assert passed_on(*given) in ((name, *given), None), name  # None: what it answers is nobody's business
