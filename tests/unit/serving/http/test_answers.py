"""Answers written piece by piece."""

from maskloop_studio.labelstudio.protocol import PredictResponse, RefusedPrediction, TaskPrediction
from maskloop_studio.serving.http.answers import answer_json


def test_answer_json_every_kind_of_entry_is_what_pydantic_writes():
    shown = TaskPrediction(result=[{"id": "\u00e9", "value": {"rle": [1, 2]}}], score=0.5, model_version="m")
    refused = RefusedPrediction(result=[], score=0.0, model_version="m", error='no "prompt"')
    for results in ([], [shown, [], refused, [shown, shown]]):
        response = PredictResponse(results=results, model_version='v"\u2603\n')
        assert answer_json(response) == response.model_dump_json().encode()
