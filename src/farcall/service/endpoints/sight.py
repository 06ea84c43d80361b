"""An endpoint as one caller may see it: what several routes begin with."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from farcall.service.accounts.rules import Identity
from farcall.service.context import service_of
from farcall.service.endpoints import rules, store
from farcall.service.endpoints.rules import Endpoint
from farcall.service.endpoints.store import StoredEndpoint
from farcall.service.ids import canonical_uuid
from farcall.wire.errors import EndpointNotFound

__all__ = ["Sight", "existing", "visible"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    """An endpoint that the caller may see. `manager`: of a user endpoint."""

    stored: StoredEndpoint
    caller: Identity
    manager: Endpoint | None = None

    @property
    def can_manage(self) -> bool:
        """Whether the caller has the rights of its owner, or manages the manager that starts it."""
        is_on_site = self.manager is not None and rules.is_manager(self.manager, self.caller)
        return is_on_site or rules.is_manager(self.stored.rights, self.caller)


async def existing(request: Request, endpoint_id: str, caller: Identity) -> StoredEndpoint:
    """Raises EndpointNotFound; whether the caller may see it is still to be checked, and whether it was deleted."""
    endpoint_id = canonical_uuid(endpoint_id, "the endpoint id in the path")
    stored = await service_of(request).db.read(store.read_endpoint, endpoint_id, caller)
    if stored is None:
        raise EndpointNotFound(f"There is no endpoint {endpoint_id} at this service. `farcall endpoints` lists yours.")
    return stored


async def visible(request: Request, endpoint_id: str, caller: Identity) -> Sight:
    """Raises EndpointNotFound, EndpointAccessForbidden."""
    stored = await existing(request, endpoint_id, caller)
    manager_id = stored.rights.manager_id
    manager = None if manager_id is None else await service_of(request).db.read(store.find_endpoint, manager_id)
    rules.check_view(stored.rights, stored.rights.id, caller, manager)
    return Sight(stored=stored, caller=caller, manager=manager)
