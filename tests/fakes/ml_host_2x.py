"""The label-studio-ml 2.x host's own calls, as its `api.py` and `model.py` make them, without Flask.

Only the maintainers' repository has 2.x; what is here follows it where a model can see it: the model is built
anew for each request, its values live in a cache of texts by project, a missing context is `{}`.
"""

import json

__all__ = ["TRAIN_EVENTS", "HostModel", "predict", "setup", "webhook"]

CACHE = {}
TRAIN_EVENTS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", "ANNOTATION_DELETED", "START_TRAINING")


class HostModel:
    """The host's base class."""

    INITIAL_MODEL_VERSION = "0.0.1"

    def __init__(self, project_id=None, label_config=None):
        self.project_id = project_id or ""
        if label_config is not None:
            self.set("label_config", label_config)
        if not self.get("model_version"):
            self.set("model_version", self.INITIAL_MODEL_VERSION)
        self.setup()

    def setup(self):
        pass

    def get(self, key):
        return CACHE.get((self.project_id, key))

    def set(self, key, value):
        if not isinstance(value, str):
            raise ValueError("Value must be a string")  # noqa: TRY004 - the host's own
        CACHE[self.project_id, key] = value

    def set_extra_params(self, extra_params):
        self.set("extra_params", extra_params)

    @property
    def label_config(self):
        return self.get("label_config")


def setup(model_class, data):
    """POST /setup."""
    model = model_class(project_id=data["project"].split(".", 1)[0], label_config=data.get("schema"))
    if data.get("extra_params"):
        model.set_extra_params(data["extra_params"])
    return json.loads(json.dumps({"model_version": model.get("model_version")}))


def predict(model_class, data):
    """POST /predict; a response that JSON cannot carry is an error, as in the host."""
    project = str(data.get("project"))
    params = dict(data.get("params", {}))
    context = params.pop("context", {})
    model = model_class(project_id=project.split(".", 1)[0], label_config=data.get("label_config"))
    response = model.predict(data.get("tasks"), context=context, **params)
    found = [] if response is None else response
    if isinstance(found, dict):
        found = response.get("predictions", response)
    return json.loads(json.dumps({"results": found}))


def webhook(model_class, data):
    """POST /webhook."""
    data = dict(data)
    event = data.pop("action")
    if event not in TRAIN_EVENTS:
        return {"status": "Unknown event"}
    model = model_class(str(data["project"]["id"]), label_config=data["project"]["label_config"])
    return json.loads(json.dumps({"result": model.fit(event, data), "status": "ok"}))
