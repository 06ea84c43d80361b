"""HTTP of authentication policies and their projects.

Twice: under `/v2/api`, in the form that the ecosystem's command and SDK know, for tokens of the login's own
interface; and under `/v3/policies`, plainly, for the tokens that everything else takes.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from farcall.service.accounts.rules import Identity
from farcall.service.audit.rules import Actor, actor_of
from farcall.service.context import caller_of, peer_of, service_of
from farcall.service.ids import canonical_uuid, new_id
from farcall.service.policies import rules, store
from farcall.service.policies.rules import Policy, Project
from farcall.service.web.bodies import json_response, read_json
from farcall.service.web.openapi import described
from farcall.wire.auth import MANAGE_PROJECTS_SCOPE
from farcall.wire.errors import Conflict, Forbidden, InvalidRequest, NotFound

__all__ = ["SHAPES", "router"]

router: Final = APIRouter()


class ProjectBody(msgspec.Struct, kw_only=True):
    """A project to be. Without admins it is the caller's."""

    display_name: str
    contact_email: str | None = None
    admin_ids: list[str] | None = None
    admin_group_ids: list[str] | None = None


class ProjectWanted(msgspec.Struct, kw_only=True):
    """POST /v2/api/projects."""

    project: ProjectBody


class ProjectDocument(msgspec.Struct, kw_only=True):
    """A project, which answers for policies."""

    id: str
    display_name: str
    project_name: str
    contact_email: str | None
    admin_ids: list[str]
    admin_group_ids: list[str]
    admins: dict[str, list[str]]


class ProjectAnswer(msgspec.Struct, kw_only=True):
    project: ProjectDocument


class ProjectList(msgspec.Struct, kw_only=True):
    projects: list[ProjectDocument]


class PolicyBody(msgspec.Struct, kw_only=True):
    """A policy to be, or what is to change of one: what is left out stays as it is.

    `authentication_assurance_timeout` is in seconds; null: any age. Without `project_id` the policy is one of the
    caller's own project, or, with `of_site` (ours; administrators), one that everybody may use.
    """

    project_id: str | None = None
    of_site: bool = False
    display_name: str | msgspec.UnsetType = msgspec.UNSET
    description: str | msgspec.UnsetType | None = msgspec.UNSET
    domain_constraints_include: list[str] | msgspec.UnsetType | None = msgspec.UNSET
    domain_constraints_exclude: list[str] | msgspec.UnsetType | None = msgspec.UNSET
    high_assurance: bool | msgspec.UnsetType = msgspec.UNSET
    authentication_assurance_timeout: int | msgspec.UnsetType | None = msgspec.UNSET
    required_mfa: bool | msgspec.UnsetType = msgspec.UNSET

    def changes(self) -> dict[str, Any]:
        """Arguments of `rules.plan_policy`."""
        found = {
            "display_name": self.display_name,
            "description": self.description,
            "include": self.domain_constraints_include,
            "exclude": self.domain_constraints_exclude,
            "high_assurance": self.high_assurance,
            "timeout_s": self.authentication_assurance_timeout,
            "required_mfa": self.required_mfa,
        }
        return {name: value for name, value in found.items() if value is not msgspec.UNSET}


class PolicyWanted(msgspec.Struct, kw_only=True):
    """POST /v2/api/policies, PUT /v2/api/policies/{id}."""

    policy: PolicyBody


class PolicyDocument(msgspec.Struct, kw_only=True):
    """An authentication policy. `project_id` null: one of the whole site."""

    id: str
    project_id: str | None
    display_name: str
    description: str
    domain_constraints_include: list[str]
    domain_constraints_exclude: list[str]
    high_assurance: bool
    authentication_assurance_timeout: int | None
    required_mfa: bool


class PolicyAnswer(msgspec.Struct, kw_only=True):
    policy: PolicyDocument


class PolicyList(msgspec.Struct, kw_only=True):
    policies: list[PolicyDocument]


SHAPES: Final = (
    PolicyAnswer,
    PolicyBody,
    PolicyDocument,
    PolicyList,
    PolicyWanted,
    ProjectAnswer,
    ProjectBody,
    ProjectDocument,
    ProjectList,
    ProjectWanted,
)
_project_wanted: Final = msgspec.json.Decoder(ProjectWanted)
_policy_wanted: Final = msgspec.json.Decoder(PolicyWanted)
_policy_body: Final = msgspec.json.Decoder(PolicyBody)


# As the ecosystem knows it -----------------------------------------------------------------------------------------


@router.get("/v2/api/projects", **described("The caller's projects", returns=ProjectList, tag="policies"))
async def list_projects(request: Request) -> Response:
    caller = await _manager(request)
    found = await service_of(request).db.read(store.list_projects, caller)
    return json_response(ProjectList(projects=[_project(each) for each in found]))


@router.post(
    "/v2/api/projects",
    **described("Make a project", body=ProjectWanted, returns=ProjectAnswer, errors=[Forbidden], tag="policies"),
)
async def add_project(request: Request) -> Response:
    service, caller = service_of(request), await _manager(request)
    wanted = (await read_json(request, _project_wanted)).project
    admins = [canonical_uuid(each, "member 'admin_ids'") for each in wanted.admin_ids or ()]
    groups = [canonical_uuid(each, "member 'admin_group_ids'") for each in wanted.admin_group_ids or ()]
    project = rules.plan_project(
        new_id(),
        display_name=wanted.display_name,
        contact_email=wanted.contact_email,
        admin_ids=admins if admins or groups else [caller.id],
        groups=groups,
    )
    if not rules.is_project_admin(project, caller):
        raise InvalidRequest("You must be among the admins of a project that you make (member 'admin_ids').")
    made = await service.db.write(store.add_project, project, _actor(request, caller), service.clock())
    return json_response(ProjectAnswer(project=_project(made)))


@router.get("/v2/api/policies", **described("The policies that the caller may use", returns=PolicyList, tag="policies"))
async def list_policies_v2(request: Request) -> Response:
    return await _list(request, await _manager(request))


@router.post(
    "/v2/api/policies",
    **described(
        "Make an authentication policy",
        body=PolicyWanted,
        returns=PolicyAnswer,
        errors=[NotFound, Forbidden],
        tag="policies",
    ),
)
async def add_policy_v2(request: Request) -> Response:
    caller = await _manager(request)
    made = await _add(request, caller, (await read_json(request, _policy_wanted)).policy)
    return json_response(PolicyAnswer(policy=_document(made)))


@router.get(
    "/v2/api/policies/{policy_id}",
    **described("One policy", returns=PolicyAnswer, errors=[NotFound], tag="policies"),
)
async def get_policy_v2(request: Request, policy_id: str) -> Response:
    return json_response(PolicyAnswer(policy=_document(await _get(request, await _manager(request), policy_id))))


@router.put(
    "/v2/api/policies/{policy_id}",
    **described(
        "Change a policy",
        body=PolicyWanted,
        returns=PolicyAnswer,
        errors=[NotFound, Forbidden, Conflict],
        tag="policies",
    ),
)
async def change_policy_v2(request: Request, policy_id: str) -> Response:
    caller = await _manager(request)
    changed = await _change(request, caller, policy_id, (await read_json(request, _policy_wanted)).policy)
    return json_response(PolicyAnswer(policy=_document(changed)))


@router.delete(
    "/v2/api/policies/{policy_id}",
    **described(
        "Delete a policy that no endpoint uses",
        returns=PolicyAnswer,
        errors=[NotFound, Forbidden, Conflict],
        tag="policies",
    ),
)
async def delete_policy_v2(request: Request, policy_id: str) -> Response:
    return json_response(PolicyAnswer(policy=_document(await _delete(request, await _manager(request), policy_id))))


# Plainly -----------------------------------------------------------------------------------------------------------


@router.get(
    "/v3/policies", **described("The policies that the caller may use (ours)", returns=PolicyList, tag="policies")
)
async def list_policies(request: Request) -> Response:
    return await _list(request, await caller_of(request))


@router.post(
    "/v3/policies",
    **described(
        "Make an authentication policy (ours)",
        body=PolicyBody,
        returns=PolicyDocument,
        errors=[NotFound, Forbidden],
        tag="policies",
    ),
)
async def add_policy(request: Request) -> Response:
    caller = await caller_of(request)
    return json_response(_document(await _add(request, caller, await read_json(request, _policy_body))))


@router.get(
    "/v3/policies/{policy_id}",
    **described("One policy (ours)", returns=PolicyDocument, errors=[NotFound], tag="policies"),
)
async def get_policy(request: Request, policy_id: str) -> Response:
    return json_response(_document(await _get(request, await caller_of(request), policy_id)))


@router.put(
    "/v3/policies/{policy_id}",
    **described(
        "Change a policy (ours)",
        body=PolicyBody,
        returns=PolicyDocument,
        errors=[NotFound, Forbidden, Conflict],
        tag="policies",
    ),
)
async def change_policy(request: Request, policy_id: str) -> Response:
    caller = await caller_of(request)
    return json_response(_document(await _change(request, caller, policy_id, await read_json(request, _policy_body))))


@router.delete(
    "/v3/policies/{policy_id}",
    **described(
        "Delete a policy that no endpoint uses (ours)",
        returns=PolicyDocument,
        errors=[NotFound, Forbidden, Conflict],
        tag="policies",
    ),
)
async def delete_policy(request: Request, policy_id: str) -> Response:
    return json_response(_document(await _delete(request, await caller_of(request), policy_id)))


# Both --------------------------------------------------------------------------------------------------------------


async def _manager(request: Request) -> Identity:
    return await caller_of(request, MANAGE_PROJECTS_SCOPE)


def _actor(request: Request, caller: Identity) -> Actor:
    return actor_of(caller, peer_of(request))


async def _list(request: Request, caller: Identity) -> Response:
    found = await service_of(request).db.read(store.list_policies, caller)
    return json_response(PolicyList(policies=[_document(each) for each in found]))


async def _get(request: Request, caller: Identity, policy_id: str) -> Policy:
    policy_id = _id(policy_id)
    found = await service_of(request).db.read(store.find_policy, policy_id)
    return rules.check_use_of_policy(found, policy_id, caller)


async def _add(request: Request, caller: Identity, wanted: PolicyBody) -> Policy:
    service = service_of(request)
    project_id = None if wanted.project_id is None else canonical_uuid(wanted.project_id, "member 'project_id'")
    if wanted.of_site and project_id is not None:
        raise InvalidRequest("member 'of_site': a policy of the whole site belongs to no project.")
    fields = rules.plan_policy(**wanted.changes())
    actor, now = _actor(request, caller), service.clock()
    return await service.db.write(store.add_policy, new_id(), project_id, fields, caller, actor, now, wanted.of_site)


async def _change(request: Request, caller: Identity, policy_id: str, wanted: PolicyBody) -> Policy:
    service, policy_id = service_of(request), _id(policy_id)
    actor, now = _actor(request, caller), service.clock()
    return await service.db.write(store.change_policy, policy_id, wanted.changes(), caller, actor, now)


async def _delete(request: Request, caller: Identity, policy_id: str) -> Policy:
    service, policy_id = service_of(request), _id(policy_id)
    actor, now = _actor(request, caller), service.clock()
    return await service.db.write(store.delete_policy, policy_id, caller, actor, now)


def _id(text: str) -> str:
    return canonical_uuid(text, "the policy id in the path")


def _document(policy: Policy) -> PolicyDocument:
    fields = policy.fields
    return PolicyDocument(
        id=policy.id,
        project_id=None if policy.project is None else policy.project.id,
        display_name=fields.display_name,
        description=fields.description,
        domain_constraints_include=list(fields.include),
        domain_constraints_exclude=list(fields.exclude),
        high_assurance=fields.high_assurance,
        authentication_assurance_timeout=fields.timeout_s,
        required_mfa=fields.required_mfa,
    )


def _project(project: Project) -> ProjectDocument:
    admins, groups = sorted(project.admin_ids), sorted(project.admin_group_ids)
    return ProjectDocument(
        id=project.id,
        display_name=project.display_name,
        project_name=project.display_name,
        contact_email=project.contact_email,
        admin_ids=admins,
        admin_group_ids=groups,
        admins={"identities": admins, "groups": groups},
    )
