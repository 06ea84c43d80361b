"""Commands for administrators of managers: try out a template, try out an identity mapping, make a template.

Nothing here talks to the service or to a running manager: files in, an answer out.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from farcall.cli.site import EX_CONFIG, EX_DATAERR, EX_UNAVAILABLE, Common, configured, fail, name_argument, note
from farcall.endpoint.pidfile import running_process
from farcall.wire.shown import shown

if TYPE_CHECKING:
    from farcall.endpoint.manager.config import ManagerConfig
    from farcall.endpoint.manager.line import Order

__all__ = ["migrate_to_template_capable", "render_user_config", "validate_mapping"]


class _Once:
    """Reads what options name: a file, or standard input for `-`, which only one of them may be."""

    def __init__(self) -> None:
        self._taken_by: str | None = None

    def text(self, named: str, option: str) -> str:
        if named != "-":
            try:
                return Path(named).expanduser().read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as exc:
                raise click.BadParameter(f"{named} cannot be read: {exc}", param_hint=option) from exc
        if self._taken_by is not None:
            raise click.BadParameter(f"standard input is read by {self._taken_by} already", param_hint=option)
        self._taken_by = option
        return sys.stdin.read()

    def literal(self, named: str, option: str) -> str:
        """As it stands there, if that is JSON, or in the file."""
        return named if named.lstrip()[:1] in ("{", "[") else self.text(named, option)

    def values(self, named: str, option: str) -> Any:
        """JSON, or YAML, as it stands there or in the file. Only JSON keeps what is meant: `no`, `1:30`."""
        import yaml

        text = self.literal(named, option)
        try:
            return json.loads(text)
        except ValueError as exc:
            if text is named or named == "-":
                raise click.BadParameter(f"this is not JSON: {exc}", param_hint=option) from exc
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as exc:
            raise click.BadParameter(f"{named} is neither JSON nor YAML: {exc}", param_hint=option) from exc

    def mapping(self, named: str | None, option: str) -> dict[str, Any] | None:
        """An object; None if the option is not given."""
        if named is None:
            return None
        found = self.values(named, option)
        if not isinstance(found, dict):
            raise click.BadParameter("an object with names and values is expected", param_hint=option)
        return found


@click.command("render-user-config")
@click.option("-e", "--endpoint", metavar="NAME", help="The manager whose files are used where no others are given.")
@click.option("-t", "--template", metavar="FILE", help="The template, in place of the manager's.")
@click.option("-o", "--user-options", metavar="FILE", help="The user_endpoint_config: a file, or JSON itself.")
@click.option("-s", "--user-schema", metavar="FILE", help="The schema, in place of the manager's.")
@click.option("--parent-config", metavar="FILE", help="What the template sees in place of config.yaml.")
@click.option("--user-runtime", metavar="FILE", help="What the user's SDK says of its Python. [default: of this one]")
@click.option("--mapped-identity", metavar="FILE", help="The local user and identity. [default: you]")
@click.pass_obj
def render_user_config(common: Common, /, endpoint: str | None, template: str | None, **named: str | None) -> None:
    """Show the configuration that a template makes of a user's options, and whether it can be used.

    What is given is a file, `-` for standard input (once), or, where values are meant, JSON itself. Without
    --endpoint and --template, the template of the endpoint `default` is used.

    \b
    Examples:
      farcall-endpoint render-user-config -e cluster -o '{"WORKERS": 5}'
      farcall-endpoint render-user-config -t template.yaml.j2 -s schema.json -o options.json
    \b
    Exit status: 0 usable; 65 the options do not fit; 78 the template, or what it makes.
    """
    from farcall.endpoint.configfile import ConfigInvalid
    from farcall.endpoint.manager.config import BlueprintUnreadable
    from farcall.endpoint.manager.environment import EnvironmentRefused
    from farcall.endpoint.manager.line import Begin
    from farcall.endpoint.templates import TemplateRefused, render
    from farcall.endpoint.userconfig import parse_user_config

    try:
        order, config = _order(common, endpoint, template, named)
        made = render(
            order.template,
            options=order.user_options,
            schema=order.schema,
            template_dir=None if order.template_dir is None else Path(order.template_dir),
            parent_config=order.parent_config,
            user_runtime=order.user_runtime,
            mapped_identity=order.mapped_identity,
            environment=_environment(order),
        )
    except TemplateRefused as exc:
        fail(exc, exc.status)
    except (ConfigInvalid, BlueprintUnreadable, EnvironmentRefused) as exc:
        fail(exc, EX_CONFIG)
    click.echo(made, nl=not made.endswith("\n"))
    allowed, is_encrypted = tuple(config.allowed_functions), config.high_assurance
    begin = Begin(user_endpoint_id="", queues={}, allowed_functions=allowed, is_encrypted=is_encrypted)
    try:
        loaded = parse_user_config(made, begin)
    except ConfigInvalid as exc:
        fail(exc, EX_CONFIG)
    for each in loaded.notices:
        note(each)


def _order(
    common: Common, endpoint: str | None, template: str | None, named: Mapping[str, str | None]
) -> tuple[Order, ManagerConfig]:
    """What a manager would have its launcher render, with what options name in place of the manager's own.

    Raises:
        ConfigInvalid, BlueprintUnreadable: as where a manager reads its files.
    """
    from farcall.endpoint.configfile import read_document
    from farcall.endpoint.manager import config as files
    from farcall.endpoint.manager.line import Order
    from farcall.endpoint.manager.resolve import mapped_identity_of, own_account
    from farcall.sdk.runtime import user_runtime

    once = _Once()
    loaded = None
    if endpoint is not None or template is None:
        loaded = files.load_manager_config(configured(common, endpoint or "default").path)
    config = files.ManagerConfig() if loaded is None else loaded.config
    template_dir = None if loaded is None else loaded.template_path.parent
    if template is not None:
        text = once.text(template, "--template")
        template_dir = template_dir if template == "-" else Path(template).expanduser().absolute().parent
    else:
        text = "" if loaded is None else files.read_template(loaded)
    schema_file, parent_file = named["user_schema"], named["parent_config"]
    if schema_file is not None:
        schema = once.values(schema_file, "--user-schema")
    else:
        schema = None if loaded is None else files.read_schema(loaded)
    parent = config
    if parent_file is not None:
        parent = files.read_manager_keys(read_document(once.literal(parent_file, "--parent-config"), parent_file))
        config = parent if loaded is None else config
    runtime = once.mapping(named["user_runtime"], "--user-runtime")
    identity = once.mapping(named["mapped_identity"], "--mapped-identity")
    order = Order(
        name="",
        user_endpoint_id="",
        manager_name=endpoint or "default",
        local_user=None,
        template=text,
        template_dir=None if template_dir is None else str(template_dir),
        schema=schema,
        environment={} if loaded is None else files.read_environment(loaded),
        user_options=once.mapping(named["user_options"], "--user-options") or {},
        user_runtime=user_runtime() if runtime is None else runtime,
        parent_config=parent.for_templates,
        mapped_identity=mapped_identity_of(own_account(), _NOBODY) if identity is None else identity,
    )
    return order, config


_NOBODY: Final = "00000000-0000-0000-0000-000000000000"


def _environment(order: Order) -> dict[str, str]:
    """As of the user endpoint's process: of root made from nothing, of others with their own."""
    from farcall.endpoint.manager.accounts import LocalAccount
    from farcall.endpoint.manager.environment import user_environment

    account = None
    if os.geteuid() == 0:
        local = order.mapped_identity.get("local")
        told = local if isinstance(local, dict) else {}
        account = LocalAccount(
            name=str(told.get("uname", "")),
            uid=-1,
            gid=-1,
            groups=(),
            home=str(told.get("dir", "")),
            shell=str(told.get("shell", "")),
            gecos="",
        )
    return user_environment(order, account, mark="", inherited=os.environ, of_session={})


# Identity mapping --------------------------------------------------------------------------------------------------


@click.command("validate-mapping")
@click.argument("identities", nargs=-1, metavar="[IDENTITY]...")
@click.option("-e", "--endpoint", metavar="NAME", help="The manager whose mapping is asked. [default: default]")
@click.option("-m", "--mapping", metavar="FILE", help="The mapping, in place of the manager's.")
@click.option("-i", "--identities", "file", metavar="FILE", help="More identities, as JSON; `-` for standard input.")
@click.option("--first/--all", "is_first", default=True, help="The rule that counts [default], or all that match.")
@click.pass_obj
def validate_mapping(
    common: Common,
    /,
    identities: tuple[str, ...],
    endpoint: str | None,
    mapping: str | None,
    file: str | None,
    is_first: bool,
) -> None:
    """Say which local user an identity becomes, by which rule, and whether this machine has that user.

    An identity is a user name, as people log in, or JSON with all fields that rules ask for ({"username": …,
    "email": …}). Without any, only the mapping itself is checked.

    \b
    Examples:
      farcall-endpoint validate-mapping -e cluster ann@example.org
      farcall-endpoint validate-mapping -m mapping.json '{"username": "ann@example.org", "email": "ann@lab.org"}'
      farcall-endpoint validate-mapping -m mapping.json --all -i identities.json
    \b
    Exit status: 0 all become a local user who exists; 1 somebody does not; 2 the mapping or an identity is wrong.
    """
    from farcall.endpoint.manager.mapping import IdentityMap, MappingInvalid, Unmapped

    keys = None
    if endpoint is not None or mapping is None:
        keys = _keys_of_manager(common, endpoint)
    path = Path(mapping).expanduser() if mapping is not None else _mapping_path(common, endpoint, keys)
    people = [*_people(identities), *(_people_of(_Once().values(file, "--identities")) if file is not None else ())]
    try:
        rules = IdentityMap.load(path)
    except MappingInvalid as exc:
        fail(exc, 2)
    allows_system = keys is not None and keys.allow_system_accounts
    if not people:
        click.echo(f"{path} can be used.")
    is_everybody_fine = True
    for person in people:
        name = shown(str(person.get("username") or person.get("id") or json.dumps(person, ensure_ascii=False)))
        found = []
        try:
            for each in rules.matches([person]):
                found.append(each)
                if is_first:
                    break
        except Unmapped as exc:
            click.secho(f"{name}: {exc}", fg="red")
            is_everybody_fine = False
            continue
        if not found:
            click.secho(f"{name}: no local user; no rule matches", fg="red")
            is_everybody_fine = False
        for number, each in enumerate(found):
            fault = _fault_of(each.local_user, allows_system=allows_system)
            counts = "" if is_first else " (counts)" if number == 0 else " (does not count)"
            click.secho(
                f"{name}: {each.local_user}, by {each.rule}{counts}" + (f"; {fault}" if fault else ""),
                fg="red" if fault else None,
            )
            is_everybody_fine = is_everybody_fine and not (fault and number == 0)
    sys.exit(0 if is_everybody_fine else 1)


def _fault_of(local_user: str, *, allows_system: bool) -> str | None:
    from farcall.endpoint.manager.accounts import AccountRefused, UnknownLocalUser, check_may_become, local_account

    try:
        check_may_become(local_account(local_user), own_uid=os.geteuid(), allows_system=allows_system)
    except UnknownLocalUser:
        return "this machine has no such user"
    except AccountRefused as exc:
        hint = "" if exc.is_certain else " (`allow_system_accounts: true` in config.yaml, if that is meant)"
        return f"refused: it {exc.why}{hint}"
    return None


def _keys_of_manager(common: Common, name: str | None) -> ManagerConfig:
    from farcall.endpoint.configfile import ConfigInvalid, read_config_file
    from farcall.endpoint.manager.config import read_manager_keys

    try:
        return read_manager_keys(read_config_file(configured(common, name or "default").path))
    except ConfigInvalid as exc:
        fail(exc, 2)


def _mapping_path(common: Common, name: str | None, keys: ManagerConfig | None) -> Path:
    named = None if keys is None else keys.identity_mapping_config_path
    if named is None:
        fail("Its config.yaml names no identity_mapping_config_path; give a mapping with --mapping FILE.", 2)
    return common.directory(name or "default").path / Path(named).expanduser()


def _people(texts: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for text in texts:
        if not text.strip():
            raise click.BadParameter("an identity is a user name, or JSON; this one is empty", param_hint="IDENTITY")
        if text.lstrip()[:1] in ("{", "[") or Path(text).is_file():
            yield from _people_of(_Once().values(text, "IDENTITY"))
        else:
            yield {"username": text}


def _people_of(values: Any) -> list[dict[str, Any]]:
    """Those of one object, a list, or an answer of an identities route."""
    if isinstance(values, dict) and isinstance(values.get("identities"), list):
        values = values["identities"]
    people = values if isinstance(values, list) else [values]
    if not all(isinstance(each, dict) for each in people):
        raise click.BadParameter('an identity is an object: {"username": …}', param_hint="IDENTITY")
    return people


# Migration ---------------------------------------------------------------------------------------------------------


@click.command("migrate-to-template-capable")
@name_argument
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def migrate_to_template_capable(common: Common, name: str, yes: bool) -> None:
    """Make a manager with a template out of an endpoint that runs tasks itself; it keeps its id.

    What says how tasks run moves from config.yaml to user_config_template.yaml.j2, comments and all; the old file
    stays as config.yaml.before-template. Stop the endpoint first, when nothing waits for it.

    \b
    Example:
      farcall-endpoint stop lab
      farcall-endpoint migrate-to-template-capable lab
      farcall-endpoint render-user-config -e lab
      farcall-endpoint start lab
    """
    from farcall.endpoint.configfile import ConfigInvalid
    from farcall.endpoint.manager.migration import CannotMigrate, migrate, plan_migration

    directory = configured(common, name)
    running = running_process(directory.pid_path)
    if running is not None:
        fail(f"Endpoint '{name}' is running. `{common.command(f'stop {name}')}` stops it.", EX_UNAVAILABLE)
    try:
        plan = plan_migration(directory, is_privileged=os.geteuid() == 0)
    except (CannotMigrate, ConfigInvalid) as exc:
        fail(exc, EX_DATAERR)
    click.echo(f"Moves to {plan.template_path.name}: {', '.join(plan.moved)}")
    click.echo(f"Stays in {directory.config_path.name}: {', '.join(plan.kept) or 'nothing'}")
    if not yes:
        click.confirm(f"Migrate endpoint '{name}'?", abort=True)
    try:
        migrate(plan)
    except OSError as exc:
        fail(f"{directory.path} cannot be written: {exc}", EX_CONFIG)
    click.echo(f"Endpoint '{name}' is a manager now. `{common.command(f'render-user-config -e {name}')}` shows what")
    click.echo(f"its user endpoints get, `{common.command(f'start {name}')}` starts it.")
    if plan.mapping_path is not None:
        note(f"As root it needs an identity mapping: edit {plan.mapping_path} before you start it.")
