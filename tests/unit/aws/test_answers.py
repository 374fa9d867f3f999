"""What a success says is believed only if it can be about the row that was sent."""

import pytest

from batch_snapshot.aws import answers
from batch_snapshot.models import ApiError, Row
from batch_snapshot.operations import SNAPSHOT

ROW = Row("main", "Sandbox", "eng-0123456789abcd", "Opportunity", "O1234567", "OpportunitySummaryView")
ARN = "arn:aws:partnercentral:us-east-1::catalog/Sandbox"


def receipt(arn, row=ROW, **more):
    return answers.receipt(SNAPSHOT, {"Arn": arn, "Revision": 1, **more}, str, row)


OTHER = ROW._replace(engagement="eng-zzzzzzzzzzzzzz", resource="O999")


@pytest.mark.parametrize("account", ["", "123456789012"])
def test_arn_that_names_another_row_is_an_invalid_response(account):
    def arn(row):
        where = f"arn:aws:partnercentral:us-east-1:{account}:catalog/Sandbox/engagement/{row.engagement}"
        return f"{where}/resource/Opportunity/{row.resource}/template/{row.template}/snapshot/1"

    assert receipt(arn(ROW)).arn == arn(ROW)
    for other in (ROW._replace(engagement=OTHER.engagement), ROW._replace(resource=OTHER.resource)):
        with pytest.raises(ApiError) as caught:
            receipt(arn(other))
        assert caught.value.failure.code == "InvalidResponse"
        assert caught.value.failure.may_have_landed
    with pytest.raises(ApiError):
        receipt("arn:x", ResourceId=OTHER.resource)
    with pytest.raises(ApiError):
        receipt("arn:x", EngagementId=OTHER.engagement)


@pytest.mark.parametrize("arn", ["arn:x", f"{ARN}/snapshot/1", "opaque"])
def test_arn_that_names_no_row_is_accepted(arn):
    assert receipt(arn, EngagementId=ROW.engagement, ResourceId=ROW.resource).arn == arn
