"""Settings in the audit trail: what changed, without secrets, seen even where only a secret was replaced."""

import json
import stat
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from maskloop.errors import StoreError
from maskloop.settings import Settings
from maskloop.store.audit import INSTALLATION, Actor, ActorKind, AuditAction, AuditEntry
from maskloop.store.database import Store
from maskloop_studio.projects.prediction_plan import ProjectOptions
from maskloop_studio.projects.setting_records import note_settings, record_settings
from maskloop_studio.serving.options_cache import OptionsCache

ALICE = Actor(kind=ActorKind.COMMAND_LINE, name="alice@lab")


@pytest.fixture
def store(tmp_path):
    opened = Store(f"sqlite:///{tmp_path / 'maskloop.db'}")
    yield opened
    opened.close()


def _record(settings, store, **changes):
    """Record these settings; return the names that were recorded as changed, None where nothing was."""
    # what the tests' environment sets is at its default here
    changed = Settings(home=changes.pop("home", settings.home), openvino="auto", **changes)
    if not record_settings(changed, store.audit, actor=ALICE):
        return None
    newest = store.audit.newest(INSTALLATION, limit=1)[0]
    assert not [word for word in ("s3cret", "0ther") if word in json.dumps(newest.as_json())]
    return sorted(newest.entry.facts["changed"])


NEWS = {
    "nothing": ({}, {}, None),
    "number": ({}, {"keep_versions": 4}, ["keep_versions"]),
    "number back to its default": ({"keep_versions": 4}, {}, ["keep_versions"]),
    "secret set": ({}, {"label_studio_api_key": SecretStr("s3cret")}, ["label_studio_api_key"]),
    "secret replaced": (
        {"label_studio_api_key": SecretStr("s3cret")},
        {"label_studio_api_key": SecretStr("0ther")},
        ["label_studio_api_key"],
    ),
    "secret removed": ({"notify_secret": SecretStr("s3cret")}, {}, ["notify_secret"]),
    "secret as before": (
        {"notify_secret": SecretStr("s3cret")},
        {"notify_secret": SecretStr("s3cret")},
        None,
    ),
    "login of an address set": (
        {"redis_url": "redis://host:1/0"},
        {"redis_url": "redis://u:s3cret@host:1/0"},
        ["redis_url"],
    ),
    "login of an address replaced": (
        {"redis_url": "redis://u:s3cret@host:1/0"},
        {"redis_url": "redis://u:0ther@host:1/0"},
        ["redis_url"],
    ),
    "password in a query replaced": (
        {"database_url": "postgresql://host/db?password=s3cret"},
        {"database_url": "postgresql://host/db?password=0ther"},
        ["database_url"],
    ),
    "address as before": (
        {"database_url": "postgresql://u:s3cret@host/db"},
        {"database_url": "postgresql://u:s3cret@host/db"},
        None,
    ),
}


@pytest.mark.parametrize("case", NEWS)
def test_record_settings_names_what_changed_without_secrets(store, settings, case):
    before, after, expected = NEWS[case]
    _record(settings, store, **before)
    assert _record(settings, store, **after) == expected
    assert _record(settings, store, **after) is None


def test_record_settings_of_another_homes_key_takes_secrets_as_the_same(store, settings, tmp_path):
    secrets = {"notify_secret": SecretStr("s3cret"), "redis_url": "redis://u:s3cret@host:1/0"}
    assert _record(settings, store, **secrets) == ["home", "notify_secret", "redis_url"]
    assert _record(settings, store, home=tmp_path / "other", **secrets) == ["home"]
    assert _record(settings, store, home=tmp_path / "other", notify_secret=SecretStr("s3cret")) == [
        "redis_url"
    ]


def test_record_settings_of_before_marks_are_not_news(store, settings):
    old = {"home": str(settings.home), "notify_secret": "set, not recorded"}
    entry = AuditEntry(
        project_id=INSTALLATION,
        action=AuditAction.SETTING,
        actor=ALICE,
        subject="environment",
        facts={"settings": old},
    )
    store.audit.append(entry)
    assert _record(settings, store, notify_secret=SecretStr("s3cret")) is None


def test_key_of_the_marks_is_its_owners_alone_and_made_once(store, settings):
    _record(settings, store, notify_secret=SecretStr("s3cret"))
    path = settings.home / "audit.key"
    key = path.read_bytes()
    assert (len(key), stat.S_IMODE(path.stat().st_mode)) == (32, 0o600)
    _record(settings, store, notify_secret=SecretStr("0ther"))
    assert path.read_bytes() == key
    assert [one.name for one in settings.home.glob("audit.key*")] == ["audit.key"]


def test_key_that_is_damaged_is_named_and_secrets_have_no_mark(store, settings, caplog):
    settings.home.mkdir(exist_ok=True)
    (settings.home / "audit.key").write_bytes(b"short")
    _record(settings, store, notify_secret=SecretStr("s3cret"))
    assert "secrets_without_mark" in caplog.text
    recorded = store.audit.newest(INSTALLATION, limit=1)[0].entry.facts["settings"]
    assert recorded["notify_secret"] == "set (no mark)"


def test_note_settings_compares_each_kind_of_process_with_itself(store, settings):
    def start(process, given=None, **changes):
        changed = Settings(home=settings.home, **changes)
        note_settings(SimpleNamespace(settings=changed, store=store), process=process, **(given or {}))
        return len(store.audit.newest(INSTALLATION, limit=100))

    trainer = "a worker of train"
    assert [start("the server"), start(trainer), start("the server")] == [1, 2, 2]
    assert [start(trainer, keep_versions=4), start(trainer, keep_versions=4)] == [3, 3]
    newest = store.audit.newest(INSTALLATION, limit=1)[0].entry
    assert newest.subject.startswith(f"environment of {trainer} on ")
    assert newest.facts["changed"] == {"keep_versions": [None, 4]}
    start("the server", {"port": 9999})
    assert store.audit.newest(INSTALLATION, limit=1)[0].entry.facts["changed"] == {"port": [None, 9999]}


def test_note_settings_database_away_is_a_line_of_the_log(settings, caplog):
    class Away:
        @property
        def store(self):
            raise StoreError("database, open", expected="one", got="none", remedy="start it")

    Away.settings = settings
    note_settings(Away(), process="the server")
    assert "settings_not_recorded" in caplog.text


def test_options_of_a_project_and_their_record_are_stored_together_or_not_at_all(store, monkeypatch):
    store.projects.save(1, "<View/>")
    cache = OptionsCache(lambda: store)
    cache.set(1, ProjectOptions(train_cron="0 3 * * *"))
    cache.set(1, ProjectOptions(train_cron="0 3 * * *"))
    (one,) = store.audit.newest(1, limit=9)
    assert (one.entry.subject, one.entry.reason) == ("extra_params", "changed: train_cron")
    monkeypatch.setattr("maskloop.store.projects.add_entry", lambda *_, **__: 1 / 0)  # ends it between both
    with pytest.raises(ZeroDivisionError):
        cache.set(1, ProjectOptions(train_cron="0 4 * * *"))
    assert store.projects.options(1)["train_cron"] == "0 3 * * *"
    assert cache.get(1).train_cron == "0 3 * * *"
