"""What an opportunity says, by its id and the number of its modifications. Pure.

Each modification changes its next steps. Its stage advances until it is launched; from then on the expected
spend grows.
"""

from typing import Any, Final

#: By its id every third opportunity begins in each of these.
_STAGES: Final = ("Qualified", "Committed", "Launched")
_INDUSTRIES: Final = ("Other", "Healthcare", "Retail", "Manufacturing", "Software and Internet")
_CITIES: Final = (("Seattle", "WA", "98109"), ("Austin", "TX", "78701"), ("Boston", "MA", "02110"))


def stage(number: str, edits: int) -> str:
    return _STAGES[min(_begin(number) + edits, len(_STAGES) - 1)]


def customer(number: str) -> dict[str, Any]:
    account = {"CompanyName": f"Customer {number}", "Industry": "Other", "WebsiteUrl": "example.com"}
    return {"Account": account}


def summary(number: str, edits: int) -> dict[str, Any]:
    """The payload of a snapshot of the opportunity `number`, as `OpportunitySummaryView`."""
    seed = int(number[1:])
    city, state, code = _CITIES[seed % len(_CITIES)]
    grown = max(0, _begin(number) + edits - len(_STAGES) + 1)
    address = {"City": city, "StateOrRegion": state, "PostalCode": code, "CountryCode": "US"}
    account = {**customer(number)["Account"], "Industry": _INDUSTRIES[seed % len(_INDUSTRIES)]}
    return {
        "OpportunityType": "Net New Business",
        "Lifecycle": {
            "TargetCloseDate": f"2026-{seed % 12 + 1:02}-28",
            "ReviewStatus": "Approved",
            "Stage": stage(number, edits),
            "NextSteps": f"Meeting {edits + 1} with the customer",
        },
        "OpportunityTeam": [_contact("Alex", "Seller", seed, "Account manager")],
        "PrimaryNeedsFromAws": ["Co-Sell - Architectural Validation", "Co-Sell - Technical Consultation"],
        "Customer": {
            "Account": {**account, "Address": address},
            "Contacts": [_contact("Sam", "Buyer", seed, "IT director")],
        },
        "Project": {
            "DeliveryModels": ["SaaS or PaaS"],
            "ExpectedCustomerSpend": [
                {
                    "Amount": f"{1000 + seed % 50 * 100 + grown * 250}.00",
                    "CurrencyCode": "USD",
                    "Frequency": "Monthly",
                    "TargetCompany": "AWS",
                }
            ],
            "CustomerUseCase": "Migration / Database Migration",
            "SalesActivities": ["Customer has shown interest in solution"],
        },
        "RelatedEntityIdentifiers": {"Solutions": [f"S-{seed % 10_000_000:07}"]},
    }


def _begin(number: str) -> int:
    return int(number[1:]) % len(_STAGES)


def _contact(first: str, last: str, seed: int, title: str) -> dict[str, str]:
    email = f"{first}.{last}.{seed}@example.com".lower()
    return {"FirstName": first, "LastName": last, "Email": email, "BusinessTitle": title}
