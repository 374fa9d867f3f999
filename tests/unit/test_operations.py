"""Another create operation is one entry of the table: its calls and the meaning of its answers follow."""

import json
from dataclasses import replace

import pytest

from batch_snapshot import operations
from batch_snapshot.aws.client import Clients
from batch_snapshot.aws.target import Target
from batch_snapshot.clock import utc_now
from batch_snapshot.manifest import service_model
from batch_snapshot.models import Account, ApiError, Receipt, Request, Row
from batch_snapshot.operations import CREATES, SNAPSHOT, create_operation
from tests.support.service_models import service_model as sdk_model
from tests.unit.aws.test_client import credentials, http, raw_server

MODEL = sdk_model("newer")
ROW = Row("main", "Sandbox", "eng-0123456789abcd", "Opportunity", "O1234567", "OpportunitySummaryView")
JOB_ROW = ROW._replace(resource_type="OpportunityJob")


def job_receipt(answer, row):
    return Receipt(answer["Arn"], 1) if answer.get("Id") else "the answer names no job"


#: A real operation of the service that this package does not call.
JOB = replace(
    SNAPSHOT,
    name="CreateResourceSnapshotJob",
    resource_types=("OpportunityJob",),
    receipt=job_receipt,
    example=JOB_ROW,
)


def members(operation):
    shape = MODEL["operations"][operation]["input"]["shape"]
    return MODEL["shapes"][shape]["members"]


@pytest.mark.parametrize("operation", CREATES, ids=lambda operation: operation.name)
def test_parameters_of_every_entry_are_those_of_the_service_model(operation):
    request = Request(operation.example, "token")
    assert operation.create_parameters(request).keys() == members(operation.name).keys() - {"Tags"}
    assert operation.read_parameters(operation.example).keys() <= members(operation.look_up).keys()
    assert operation.job_parameter in members(operation.get_job)
    assert {*operation.parameters, "account"} == set(Row._fields)


@pytest.mark.parametrize("name", sorted(operations.LISTS))
def test_lists_are_read_as_the_service_model_has_them(name):
    read = operations.LISTS[name]
    answer = MODEL["shapes"][MODEL["operations"][name]["output"]["shape"]]["members"]
    assert MODEL["shapes"][answer[read.items]["shape"]]["type"] == "list"
    assert read.page_size <= MODEL["shapes"][members(name)["MaxResults"]["shape"]].get("max", 1000)


def test_operation_is_chosen_by_resource_type_and_unknown_types_take_the_first():
    creates = (SNAPSHOT, JOB)
    assert create_operation(ROW, creates) is SNAPSHOT
    assert create_operation(JOB_ROW, creates) is JOB
    assert create_operation(ROW._replace(resource_type="Lead"), creates) is SNAPSHOT


def test_manifest_accepts_the_ids_of_every_entry():
    other = replace(
        SNAPSHOT,
        name="CreateResourceSnapshotJob",
        parameters={**SNAPSHOT.parameters, "resource": "EngagementIdentifier"},
    )
    resource = service_model.row_input((SNAPSHOT, other))["resource"].regex
    assert resource.fullmatch("O1234567")
    assert resource.fullmatch("eng-0123456789abcd")
    assert not resource.fullmatch("0123")
    assert service_model.row_input((SNAPSHOT, JOB)) == service_model.row_input()


@pytest.mark.asyncio
@pytest.mark.usefixtures(credentials.__name__)
@pytest.mark.parametrize("plain", [False, True])
async def test_second_entry_is_sent_and_its_answer_read_by_the_entry_alone(plain):
    seen = []

    async def answer(writer, head, body):
        target = head.lower().split(b"x-amz-target: ")[1].split(b"\r\n")[0].decode().rpartition(".")[2]
        seen.append((target, json.loads(body)))
        known = {"Id": "job-1"} if json.loads(body)["ClientToken"] == "good" else {}
        writer.write(http(200, json.dumps({**known, "Arn": "arn:job", "Revision": 7}).encode()))
        await writer.drain()

    async with (
        raw_server(answer, requests=3) as url,
        Clients(
            {"main": Account("main")}, Target(endpoint_url=url, plain=plain), utc_now, creates=(SNAPSHOT, JOB)
        ) as clients,
    ):
        assert (await clients.send(Request(JOB_ROW, "good"))).revision == 1
        with pytest.raises(ApiError, match="the answer names no job"):
            await clients.send(Request(JOB_ROW, "bad"))
        assert (await clients.send(Request(ROW, "bad"))).revision == 7
    assert [target for target, _ in seen] == [JOB.name.lower(), JOB.name.lower(), SNAPSHOT.name.lower()]
    assert seen[0][1] == JOB.create_parameters(Request(JOB_ROW, "good"))
