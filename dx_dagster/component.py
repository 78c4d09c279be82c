"""The component `dx_dagster.BitbucketWorkspaces`: our definitions inside another Dagster project.

Loading this module is cheap, so that `dg list components` is: the definitions load when they are built.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import dagster as dg
from dagster.components.component_scaffolding import scaffold_component
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from pydantic import ConfigDict, Field, SecretStr

from dx_dagster.settings import Settings, SettingsError

EMBEDDED = "embedded"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_SCAFFOLDED = """\
type: {type_name}

attributes:
  # The PostgreSQL database for the tables and the connections. `dx-dagster migrate` creates the tables, and
  # `dx-dagster connect WORKSPACE` connects a workspace; both take the database from DX_DATABASE_URL.
  database: "{{{{ env.DX_DATABASE_URL }}}}"
  # The keys that `dx-dagster connect` encrypts credentials with.
  secret_keys: "{{{{ env.DX_SECRET_KEYS }}}}"

  # It stands in the names of jobs, sensors, resources and tags, and before each asset key.
  name: {name}
  # owners: ["team:platform"]
  # workspaces: ["acme", "acme-*"]   # by default every workspace that is connected
  # pipelines: false                 # so are members and deployments; unified: false leaves out derived tables
  # checks: false                    # so are schedules and sensors; a list names those that are wanted
  # time_zone: Europe/Berlin
  # business_hours: Mon-Fri 08:00-18:00
  # translation:
  #   tags: {{domain: engineering}}
"""

Schedule = Literal["hourly_sync", "nightly_reconcile"]
Sensor = Literal["webhook_events", "asked_syncs", "finished_syncs", "lost_runs", "late_workspaces"]


def _secret(context: dg.ResolutionContext, written: Any) -> SecretStr | None:
    """The text, which no error message quotes. An unset variable of the environment gives none."""
    value: Any = context.resolve_value(written)
    return None if value is None or value == "" else SecretStr(str(value))


Secret = Annotated[SecretStr | None, dg.Resolver(_secret, model_field_type=str)]


class BitbucketWorkspacesScaffolder(dg.Scaffolder[Any]):
    """Writes a `defs.yaml` with what a component needs, and its choices as comments."""

    def scaffold(self, request: dg.ScaffoldRequest[Any]) -> None:
        name = _default_name(request.target_path)
        if request.scaffold_format != "yaml":
            scaffold_component(request)
            return
        text = _SCAFFOLDED.format(type_name=request.type_name, name=name)
        if request.append:
            with request.target_path.open("a", encoding="utf-8") as file:
                file.write(f"---\n{text}")
        else:
            (request.target_path / "defs.yaml").write_text(text, encoding="utf-8")


@dg.scaffold_with(BitbucketWorkspacesScaffolder)
class BitbucketWorkspaces(dg.Component, dg.Model, dg.Resolvable):
    """Bitbucket Cloud in PostgreSQL, correct to the row: assets for each connected workspace, with their automation."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    database: Secret = Field(
        description="The address of the PostgreSQL database, postgresql://…; or `embedded`, for one in `home`."
    )
    home: str | None = Field(default=None, description="A folder for an embedded database and generated keys.")
    secret_keys: Secret = Field(default=None, description="The keys that credentials are encrypted with.")

    name: str | None = Field(
        default=None, description="Stands in names of jobs, sensors, resources and tags. By default the folder's."
    )
    key_prefix: str | list[str] | None = Field(
        default=None, description="Stands before each asset key. By default the component's name; empty for none."
    )
    group: str | None = Field(default=None, description="The group of all assets, in place of one for each kind.")
    owners: list[str] = Field(default_factory=list, description="The owners of all assets.")
    translation: (
        Annotated[
            TranslationFn[Any],
            TranslationFnResolver[Any](template_vars_for_translation_fn=lambda asset: {"asset": asset}),
        ]
        | None
    ) = Field(default=None, description="Changes asset specs. `asset` has `name`, `kind` and `table`, `spec` the rest.")

    workspaces: list[str] = Field(
        default_factory=lambda: ["*"], description="Shell patterns of the connected workspaces to import."
    )
    members: bool = Field(default=True, description="Whether users are imported with their e-mail addresses.")
    pipelines: bool = Field(default=True, description="Whether runs of Bitbucket Pipelines are imported.")
    deployments: bool = Field(default=True, description="Whether deployments are imported, with pipelines only.")
    pull_request_sizes: bool = Field(default=False, description="Whether additions and deletions are imported.")
    unified: bool = Field(default=True, description="Whether tables are derived.")
    checks: bool = Field(default=True, description="Whether assets have checks.")
    schedules: bool | list[Schedule] = Field(default=True, description="Schedules, which run from the start.")
    sensors: bool | list[Sensor] = Field(default=True, description="Sensors, which run from the start.")
    in_process: bool = Field(
        default=True, description="Whether jobs run their steps in one process, whatever the project's executor is."
    )

    bitbucket_api_url: str | None = Field(default=None, description="As BITBUCKET_API_URL.")
    public_url: str | None = Field(default=None, description="As DX_PUBLIC_URL.")
    api_url: str | None = Field(default=None, description="As DX_API_URL.")
    time_zone: str | None = Field(default=None, description="As DX_TIME_ZONE.")
    business_hours: str | None = Field(default=None, description="As DX_BUSINESS_HOURS.")
    budget_window: float | None = Field(default=None, description="As DX_BUDGET_WINDOW.")
    max_in_flight: int | None = Field(default=None, description="As DX_MAX_IN_FLIGHT.")
    sync_cron: str | None = Field(default=None, description="As DX_SYNC_CRON.")
    sync_every: float | None = Field(default=None, description="As DX_SYNC_EVERY.")
    sync_pace: int | None = Field(default=None, description="As DX_SYNC_PACE.")
    pace: float | None = Field(default=None, description="As DX_PACE.")
    reconcile_cron: str | None = Field(default=None, description="As DX_RECONCILE_CRON.")
    reconcile_most_pulls: int | None = Field(default=None, description="As DX_RECONCILE_MOST_PULLS.")
    reconcile_pipeline_days: float | None = Field(default=None, description="As DX_RECONCILE_PIPELINE_DAYS.")
    webhooks_keep_days: float | None = Field(default=None, description="As DX_WEBHOOKS_KEEP_DAYS.")
    webhooks_runs: int | None = Field(default=None, description="As DX_WEBHOOKS_RUNS.")
    webhooks_linger: float | None = Field(default=None, description="As DX_WEBHOOKS_LINGER.")

    @classmethod
    def get_spec(cls) -> dg.ComponentTypeSpec:
        return dg.ComponentTypeSpec(
            description=cls.__doc__, produces=["asset", "asset_check", "job", "resource", "schedule", "sensor"]
        )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions, whose names carry the component's.

        Raises:
            DagsterInvalidDefinitionError: with one sentence that says which attribute is wrong.
        """
        # They take a second, and `dg list components` only looks at the class.
        from dx_dagster.assets.catalog import placed  # noqa: PLC0415
        from dx_dagster.assets.placement import Placement  # noqa: PLC0415
        from dx_dagster.automation.definitions import SCHEDULES, SENSORS, definitions  # noqa: PLC0415
        from dx_dagster.automation.host_settings import warn_at_load  # noqa: PLC0415

        name = self.name or _default_name(context.path)
        try:
            settings = self._settings(name, context.project_root)
            placement = placed(
                Placement(
                    settings=lambda: settings,
                    component=name,
                    key_prefix=self._key_prefix(name),
                    group=self.group,
                    owners=tuple(self.owners),
                    steps=self._steps(),
                    with_derived=self.unified,
                    with_checks=self.checks,
                    workspaces=tuple(self.workspaces),
                    in_process=self.in_process,
                    translate=self.translation,
                )
            )
            made = definitions(
                placement,
                with_schedules=_chosen(self.schedules, SCHEDULES),
                with_sensors=_chosen(self.sensors, SENSORS),
            )
        except SettingsError as error:
            raise dg.DagsterInvalidDefinitionError(f"Component {name}: {error}") from None
        warn_at_load(placement)
        return made

    def _settings(self, name: str, root: Path) -> Settings:
        """The settings of the component alone: nothing of the environment.

        Raises:
            SettingsError: an attribute cannot be used.
        """
        if not _NAME.fullmatch(name):
            raise SettingsError(f"name is {name!r}; it must be a letter, and then letters, digits and underscores.")
        if self.database is None:
            raise SettingsError(
                "database is empty. Set the variable of the environment that it reads, or write embedded for a "
                "database in home."
            )
        is_embedded = self.database.get_secret_value() == EMBEDDED
        if self.home is None and (is_embedded or self.secret_keys is None):
            what = "database is embedded" if is_embedded else "secret_keys is empty"
            raise SettingsError(f"{what}, so home must name the folder of an installation.")
        shared = {
            field: getattr(self, field) for field in type(self).model_fields.keys() & Settings.model_fields.keys()
        }
        return Settings.given(
            **shared
            | {
                "home": None if self.home is None else str(root / Path(self.home).expanduser()),
                "database_url": None if is_embedded else self.database.get_secret_value(),
                "secret_keys": None if self.secret_keys is None else self.secret_keys.get_secret_value(),
                "deployments": "on" if self.deployments and self.pipelines else "off",
                "pull_request_size": "on" if self.pull_request_sizes else "off",
            }
        )

    def _key_prefix(self, name: str) -> tuple[str, ...]:
        if self.key_prefix is None:
            return (name,)
        parts = self.key_prefix.split("/") if isinstance(self.key_prefix, str) else self.key_prefix
        return tuple(part for part in parts if part)

    def _steps(self) -> tuple[str, ...]:
        from dx_dagster.assets.steps import SIZES, STEPS  # noqa: PLC0415

        chosen = {
            "members": self.members,
            "pipelines": self.pipelines,
            "deployments": self.deployments and self.pipelines,
            SIZES: self.pull_request_sizes,
        }
        return tuple(step for step in STEPS if chosen.get(step, True))


def _default_name(path: Path) -> str:
    """The name of the component's folder, as a name of Dagster's."""
    folder = path.parent if path.suffix in {".yaml", ".yml", ".py"} else path
    return re.sub(r"\W", "_", folder.name)


def _chosen(choice: bool | list[Any], names: tuple[str, ...]) -> tuple[str, ...]:
    if isinstance(choice, bool):
        return names if choice else ()
    return tuple(choice)
