"""How things of the world look on the wire, and how requests choose among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from batch_snapshot.simulator import seeds
from batch_snapshot.simulator.times import show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from batch_snapshot.simulator.world import Snapshot


def arn(catalog: str, tail: str) -> str:
    """Write the Arn of something in a catalog."""
    return f"arn:aws:partnercentral:us-east-1::catalog/{catalog}/{tail}"


def customer(opportunity: str) -> dict[str, Any]:
    """Show an opportunity's customer; its name follows from the id."""
    account = {"CompanyName": f"Customer {opportunity}", "Industry": "Other", "WebsiteUrl": "example.com"}
    return {"Account": account}


def stage(opportunity: str) -> str:
    """Name an opportunity's stage, which follows from its id: every third is launched."""
    return ("Qualified", "Committed", "Launched")[int(opportunity[1:]) % 3]


def opportunity_row(catalog: str, number: str, modified: float) -> dict[str, Any]:
    """Show an opportunity as the list does."""
    return {
        "Catalog": catalog,
        "Id": number,
        "Arn": arn(catalog, f"opportunity/{number}"),
        "OpportunityType": "Net New Business",
        "LastModifiedDate": show(modified),
        "CreatedDate": show(min(modified, seeds.EPOCH)),
        "LifeCycle": {"Stage": stage(number), "ReviewStatus": "Approved"},
        "Customer": customer(number),
        "Project": {},
    }


def contexts(engagement: str) -> list[dict[str, Any]]:
    """Show an engagement's contexts, which follow from its id: where it ends in 0 there are none."""
    return [] if engagement.endswith("0") else [{"Type": "CustomerProject"}]


def engagement_row(catalog: str, number: str, created_by: str, created_at: float) -> dict[str, Any]:
    """Show an engagement as the list does."""
    return {
        "Arn": arn(catalog, f"engagement/{number}"),
        "Id": number,
        "Title": f"Engagement {number}",
        "CreatedAt": show(created_at),
        "CreatedBy": created_by,
        "MemberCount": 2,
    }


def seen(snapshots: Sequence[Snapshot], until: float) -> list[Snapshot]:
    """Keep the snapshots that reads show already."""
    return [snapshot for snapshot in snapshots if snapshot.created_at <= until]


def wanted(params: dict[str, Any], name: str, value: str) -> bool:
    """Tell whether a list parameter is absent, empty or holds the value."""
    choices = params.get(name)
    return not choices or value in choices


def named(params: dict[str, Any], name: str, value: str) -> bool:
    """Like `wanted`, for parameters that hold ids or Arns."""
    choices = params.get(name)
    return not choices or any(choice == value or choice.endswith(f"/{value}") for choice in choices)
