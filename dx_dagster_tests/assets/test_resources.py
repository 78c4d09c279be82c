"""How Dagster shares nested resources within a run, on which `dx_dagster.resources` relies."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg
import pytest
from pydantic import PrivateAttr

from dx_dagster.resources import BitbucketResource, CredentialPoolResource, WarehouseResource, resources
from dx_dagster.settings import Settings

pytestmark = [
    pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated"),
    pytest.mark.filterwarnings("ignore:Parameter `owners` of initializer"),
]

OPENED: list["Inner"] = []


class Inner(dg.ConfigurableResource):  # type: ignore[type-arg]
    field: int = 0

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["Inner"]:  # noqa: ARG002
        OPENED.append(self)
        yield self


class Outer(dg.ConfigurableResource):  # type: ignore[type-arg]
    inner: dg.ResourceDependency[Inner]
    wait: bool = True
    _kept: list[str] = PrivateAttr(default_factory=list)

    def keep(self, word: str) -> list[str]:
        self._kept.append(word)
        return self._kept


@pytest.mark.parametrize(
    ("inner", "opened"), [(Inner, 3), (Inner.configure_at_launch, 1)], ids=["configured", "at launch"]
)
def test_a_nested_resource_is_shared_only_if_it_is_configured_at_launch(inner: Callable[[], Inner], opened: int):
    """And what a step keeps in the resource that holds it, the run's next step finds and another run does not."""
    shared = inner()

    @dg.op
    def first(outer: Outer, other: Outer) -> None:
        assert outer.keep("first") == ["first"]
        assert (outer.inner is other.inner) is (opened == 1)

    @dg.op(ins={"after": dg.In(dg.Nothing)})
    def second(outer: Outer, inner: Inner) -> None:
        assert (outer.keep("second"), outer.wait) == (["first", "second"], False)
        assert (outer.inner is inner) is (opened == 1)

    @dg.job(
        executor_def=dg.in_process_executor,
        resource_defs={"inner": shared, "outer": Outer(inner=shared), "other": Outer(inner=shared)},
    )
    def steps() -> None:
        second(first())

    for _ in range(2):
        OPENED.clear()
        assert steps.execute_in_process({"resources": {"outer": {"config": {"wait": False}}}}).success
        assert len(OPENED) == opened


def test_the_warehouse_is_opened_once_a_run(environment, monkeypatch):
    monkeypatch.setattr("os.environ", environment)

    @dg.op
    def look(
        warehouse: WarehouseResource, credential_pool: CredentialPoolResource, bitbucket: BitbucketResource
    ) -> None:
        assert credential_pool.warehouse is warehouse
        assert bitbucket.warehouse is warehouse
        assert bitbucket.credential_pool is credential_pool

    @dg.job(executor_def=dg.in_process_executor, resource_defs=resources(Settings.read))
    def run() -> None:
        look()

    assert run.execute_in_process().success
