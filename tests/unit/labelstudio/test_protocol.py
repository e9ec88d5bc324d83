"""Payloads in the forms of older and newer versions of Label Studio."""

import pytest
from pydantic import ValidationError

from maskloop_studio.labelstudio.protocol import PredictRequest, SetupRequest, WebhookEvent, project_number

AT = "2026-11-22T05:28:02.703265Z"


@pytest.mark.parametrize(
    ("uid", "number"),
    [
        ("7.1763789282", 7),
        ("7", 7),
        (7, 7),
        ({"id": 7, "title": "seven"}, 7),
        (None, None),
        ({}, None),
        ("seven", None),
        (True, None),
        (7.5, None),
        ("٧", None),
        ("9" * 30, None),
    ],
    ids=repr,
)
def test_project_number_every_form_is_understood(uid, number):
    assert project_number(uid) == number


@pytest.mark.parametrize("model", [SetupRequest, PredictRequest])
@pytest.mark.parametrize("project", ["7.1763789282", 7, {"id": 7}], ids=repr)
def test_request_project_in_any_form_is_its_number(model, project):
    assert project_number(model.model_validate({"project": project, "tasks": []}).project) == 7


@pytest.mark.parametrize(
    ("fields", "project", "annotation"),
    [
        pytest.param({"project": {"id": 7}, "annotation": {"id": 5, "updated_at": AT}}, 7, 5, id="1.23"),
        pytest.param({"project": 7, "annotation": {"id": 5}}, 7, 5, id="project a number"),
        pytest.param({"project": "7.176"}, 7, None, id="project a text, no annotation"),
        pytest.param({"project": {"id": 7}, "annotation": None}, 7, None, id="annotation null"),
        pytest.param({"project": {"id": 7}, "annotation": {}}, 7, None, id="annotation empty"),
        pytest.param({"annotation": {"id": None}}, None, None, id="nothing"),
    ],
)
def test_webhook_event_every_form_is_understood(fields, project, annotation):
    event = WebhookEvent.model_validate({"action": "ANNOTATION_CREATED"} | fields)
    assert (event.project and event.project.id, event.annotation and event.annotation.id) == (
        project,
        annotation,
    )


def test_webhook_event_deleted_annotations_may_be_numbers():
    event = WebhookEvent.model_validate({"action": "ANNOTATIONS_DELETED", "annotations": [3, {"id": 4}]})
    assert [row.id for row in event.annotations] == [3, 4]


@pytest.mark.parametrize("project", [True, 0, -1, 2**63, 1.5, "seven", [7], {"id": "7"}], ids=repr)
def test_webhook_event_other_project_is_refused(project):
    with pytest.raises(ValidationError):
        WebhookEvent.model_validate({"action": "PROJECT_UPDATED", "project": project})
