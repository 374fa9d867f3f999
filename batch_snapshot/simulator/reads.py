"""The read operations: single things, and lists page by page."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TYPE_CHECKING, Any, Final

from batch_snapshot.simulator.answers import Refusal, invalid, not_found
from batch_snapshot.simulator.lists import LISTS, arn, contexts, customer, opportunity_row, seen
from batch_snapshot.simulator.model import show_time
from batch_snapshot.simulator.world import Series, account_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from batch_snapshot.simulator.world import World

    Params = dict[str, Any]
    Rows = list[dict[str, Any]]


class ReadApi:
    """Reads the world as it was `lag` seconds before."""

    def __init__(self, world: World, lag: float) -> None:
        self._world = world
        self._pages = Pages()
        self._lag = lag

    def read(self, operation: str, params: Params, at: float) -> dict[str, Any]:
        """Answer a read operation.

        Raises:
            Refusal: there is no such thing, or a NextToken is not valid.
        """
        seen_until = at - self._lag
        if operation in LISTS:
            key, rows = LISTS[operation]
            page, token = self._pages.page(operation, params, lambda: rows(self._world, params, seen_until))
            return {key: page} if token is None else {key: page, "NextToken": token}
        return _GETS[operation](self._world, params, seen_until)


def _get_snapshot(world: World, params: Params, seen_until: float) -> dict[str, Any]:
    revisions = seen(world.series.get(Series.of(params), ()), seen_until)
    wanted = params.get("Revision")
    found = next((s for s in reversed(revisions) if wanted in {None, s.revision}), None)
    if found is None:
        raise not_found("ResourceSnapshot")
    return {
        "Catalog": found.catalog,
        "Arn": found.arn,
        "CreatedBy": account_of(found.access_key),
        "CreatedAt": show_time(found.created_at),
        "EngagementId": found.engagement,
        "ResourceType": found.resource_type,
        "ResourceId": found.resource,
        "ResourceSnapshotTemplateName": found.template,
        "Revision": found.revision,
        "Payload": {"OpportunitySummary": {"Customer": customer(found.resource)}},
    }


def _get_job(world: World, params: Params, _seen_until: float) -> dict[str, Any]:
    wanted = params["ResourceSnapshotJobIdentifier"]
    job = world.jobs_by_id.get(wanted)
    if job is None:
        raise not_found(f"ResourceSnapshotJob {wanted}")
    catalog = params["Catalog"]
    return {
        "Catalog": catalog,
        "Id": job.job_id,
        "Arn": arn(catalog, f"resource-snapshot-job/{job.job_id}"),
        "EngagementId": job.engagement,
        "ResourceType": "Opportunity",
        "ResourceId": job.opportunity,
        "ResourceArn": arn(catalog, f"opportunity/{job.opportunity}"),
        "ResourceSnapshotTemplateName": "OpportunitySummaryView",
        "CreatedAt": show_time(job.created_at),
        "Status": job.status,
    }


def _get_engagement(world: World, params: Params, seen_until: float) -> dict[str, Any]:
    wanted = params["Identifier"].rpartition("/")[2]
    listed = LISTS["ListEngagements"][1](
        world, {"Catalog": params["Catalog"], "EngagementIdentifier": [wanted]}, seen_until
    )
    if not listed:
        raise not_found(f"Engagement {wanted}")
    return {**listed[0], "Contexts": contexts(wanted)}


def _get_opportunity(world: World, params: Params, _seen_until: float) -> dict[str, Any]:
    wanted, catalog = params["Identifier"], params["Catalog"]
    modified = world.opportunities[catalog].get(wanted)
    if modified is None:
        raise not_found(f"Opportunity {wanted}")
    return {**opportunity_row(catalog, wanted, modified), "RelatedEntityIdentifiers": {}}


_GETS: Final[Mapping[str, Callable[[World, Params, float], dict[str, Any]]]] = {
    "GetEngagement": _get_engagement,
    "GetOpportunity": _get_opportunity,
    "GetResourceSnapshot": _get_snapshot,
    "GetResourceSnapshotJob": _get_job,
}


# -- pages ------------------------------------------------------------------------------------------------

#: Items of a page when the request names no number.
_DEFAULT_SIZE: Final = 100
#: Listings that are kept; beyond that the tokens of the oldest become invalid.
_KEPT: Final = 10_000


class Pages:
    """The listings that have more pages; each is taken once, and handed out page by page."""

    def __init__(self) -> None:
        self._listings: dict[int, tuple[object, Rows]] = {}
        self._taken = 0

    def page(
        self, operation: str, params: dict[str, Any], rows: Callable[[], Rows]
    ) -> tuple[Rows, str | None]:
        """One page and the token of the next.

        Raises:
            Refusal: a NextToken that is not known, or another request's.
        """
        size = params.get("MaxResults") or _DEFAULT_SIZE
        asked = (
            operation,
            repr(sorted((k, v) for k, v in params.items() if k not in {"MaxResults", "NextToken"})),
        )
        token = params.get("NextToken")
        if token is None:
            start, listing, number = 0, rows(), 0
        else:
            number, start = _decode(token)
            known, listing = self._listings.get(number, (None, []))
            if known != asked or not 0 < start < len(listing):
                raise _invalid_token("NextToken is not valid for this request")
        end = start + size
        if end >= len(listing):
            return listing[start:], None
        if not number:
            number = self._keep(asked, listing)
        return listing[start:end], _encode(number, end)

    def _keep(self, asked: object, listing: Rows) -> int:
        self._taken += 1
        self._listings[self._taken] = (asked, listing)
        if len(self._listings) > _KEPT:
            del self._listings[next(iter(self._listings))]
        return self._taken


def _encode(number: int, start: int) -> str:
    return urlsafe_b64encode(f"{number}:{start}".encode()).decode()


def _decode(token: str) -> tuple[int, int]:
    try:
        number, start = urlsafe_b64decode(token.encode()).decode().split(":")
        return int(number), int(start)
    except ValueError:
        raise _invalid_token("NextToken is not valid") from None


def _invalid_token(message: str) -> Refusal:
    return invalid(message, [{"FieldName": "NextToken", "Message": message, "Code": "INVALID_VALUE"}])
