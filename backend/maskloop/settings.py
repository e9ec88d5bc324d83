"""All settings, from MASKLOOP_* variables (or Label Studio's own two) or from maskloop.toml."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from maskloop.errors import ConfigurationError
from maskloop.setting_names import PREFIX, TOML_FILE, check_names
from maskloop.shipped import BASE_MODEL, BASE_ONEFORMER, BASE_PHOTOS, shipped_model
from maskloop.types import AnnotationRule, EditName, PromotionMode, SegmentationTask, ShowMode

__all__ = ["BASE_MODEL", "BASE_ONEFORMER", "BASE_PHOTOS", "Settings", "load_settings"]

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveSeconds = Annotated[float, Field(gt=0.0, le=86_400.0)]


class Settings(BaseSettings):
    """All settings; a variable of the environment wins over maskloop.toml, which wins over the default."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, toml_file=TOML_FILE, extra="ignore", frozen=True, populate_by_name=True
    )

    # Label Studio
    label_studio_url: str | None = Field(
        None,
        validation_alias=AliasChoices("LABEL_STUDIO_URL", "MASKLOOP_LABEL_STUDIO_URL", "label_studio_url"),
    )
    label_studio_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices(
            "LABEL_STUDIO_API_KEY", "MASKLOOP_LABEL_STUDIO_API_KEY", "label_studio_api_key"
        ),
    )
    ca_bundle: Path | None = Field(
        None,
        description="a PEM file or folder of further certificate authorities, for Label Studio and images",
    )

    # model
    model: Annotated[str, AfterValidator(shipped_model)] = Field(
        str(BASE_MODEL), description="a Hugging Face name, a local folder, or a shipped model's name"
    )
    task: SegmentationTask = SegmentationTask.INSTANCE
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1 ...")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="of predictions; auto is bfloat16 on a GPU that has it, and for large models on a CPU "
        "that has it, once the first images gave the same segments; else float32",
    )
    accelerate: bool = Field(True, description="our faster forward pass, equal to transformers' to rounding")
    compile: Literal["on", "off"] = Field(
        "off", description="served models by torch.compile; not measured on a GPU, so off unless set"
    )
    openvino: Literal["auto", "on", "off"] = Field(
        "auto",
        description="served models on a CPU by OpenVINO: auto where its package is installed, for the image "
        "sizes that it gives the same for and is faster at; on also where it is not faster",
    )
    triton: bool = Field(
        False,
        description="on CUDA, deformable attention by our Triton kernel; not run or measured on "
        "a GPU yet, so off unless set",
    )
    score_threshold: Fraction = 0.5
    label_thresholds: dict[str, Fraction] = Field(
        default_factory=dict, description="class -> least score, where it is not the general one (JSON)"
    )
    label_mask_thresholds: dict[str, Fraction] = Field(default_factory=dict, description="of mask_threshold")
    label_overlap_thresholds: dict[str, Fraction] = Field(
        default_factory=dict, description="of overlap_threshold"
    )
    mask_threshold: Fraction = 0.5
    overlap_threshold: Fraction = 0.8
    part_threshold: Fraction = Field(
        0.02, description="the least share of a segment's area that a separate part of it may have"
    )
    duplicate_threshold: Fraction = Field(
        0.7, description="instance: a segment with more IoU than this with a better one is dropped"
    )
    piece_threshold: Fraction = Field(
        0.8,
        description="instance: a segment with a larger share of its area inside a better one of its label is "
        "a piece of it and is dropped; 1 keeps all",
    )
    stuff_labels: frozenset[str] = Field(
        frozenset(),
        description="labels of stuff: one panoptic segment an image, no instances (JSON); default: as the "
        "label config or the checkpoint has them",
    )
    max_batch: int | None = Field(None, ge=1, le=256, description="images in one forward pass, at the most")

    # drawing
    prefer_control: str = Field(
        "first",
        description="where several controls have a label: first, both, a kind such as polygon, or a name",
    )
    polygon_tolerance_px: float = Field(
        1.0, ge=0, le=1000, description="how far a polygon's outline may move"
    )
    polygon_max_vertices: int = Field(200, ge=4, description="of one polygon, where its IoU stays at 0.98")

    # places
    home: Path = Field(Path(".maskloop"), description="database, image cache, models, queue")
    database_url: str | None = Field(None, description="default: SQLite in the home")
    redis_url: str | None = Field(None, description="default: a Valkey of our own in the home")
    mlflow_tracking_uri: str | None = Field(
        None,
        validation_alias=AliasChoices(
            "MLFLOW_TRACKING_URI", "MASKLOOP_MLFLOW_TRACKING_URI", "mlflow_tracking_uri"
        ),
    )

    # log
    log: Literal["text", "json"] = Field(
        "text", description="form of the log entries; json is one object a line"
    )
    log_mb: int = Field(
        10, ge=1, description="size in MiB at which `maskloop up` rotates a log file; it keeps 3 older ones"
    )

    # server
    host: str = "127.0.0.1"
    port: int = Field(9090, ge=0, le=65535)
    memory_mb: int = Field(
        3072,
        ge=256,
        le=1_000_000,
        description="MiB that requests and their images may take in one process, above its models; what "
        "does not fit waits, a single image that does not fit is refused",
    )
    click_cache_mb: int = Field(
        512,
        ge=0,
        le=1_000_000,
        description="MiB of features that the server keeps of the images looked at last, so that clicks are "
        "answered at once; 0 keeps none",
    )
    click_crops: bool = Field(True, description="look again at small objects that are clicked on, enlarged")
    predict_deadline_s: float = Field(80.0, gt=0, description="Label Studio gives up on /predict after 100 s")
    predict_requests: int = Field(16, ge=1, le=1000, description="prediction requests worked on at once")
    predict_waiting: int = Field(
        64, ge=0, le=100_000, description="prediction requests that wait for them; more get status 503"
    )
    max_task_images: int = Field(50, ge=1, le=1000, description="images of one task that are predicted")
    open: bool = Field(False, description="let other machines use the server without a login")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="names under which the server is reached, beside its addresses; a,b,*.c.org or *"
    )
    webhook_secret: SecretStr | None = Field(
        None, description="in the header of every webhook; default: one made once and kept in the database"
    )
    basic_auth_user: str | None = Field(None, description="required of every request where it is set")
    basic_auth_password: SecretStr | None = None

    # reconciling
    sync_minutes: int = Field(10, ge=1, description="how often projects are compared with Label Studio")

    # notices
    notify_url: SecretStr | None = Field(
        None, description="gets a JSON post for what people should know; works as a Slack webhook"
    )
    notify_secret: SecretStr | None = Field(None, description="signs these posts (HMAC-SHA256)")
    allow_private_notify: bool = Field(False, description="post to private addresses too")

    # images
    max_image_bytes: int = Field(64 * 2**20, ge=1)
    max_image_pixels: int = Field(100_000_000, ge=1)
    image_timeout_s: float = Field(20.0, gt=0)
    image_retries: int = Field(2, ge=0, le=10, description="after the first try, within the timeout")
    image_cache_bytes: int = Field(10 * 2**30, ge=0, description="of fetched images that no correction needs")
    allow_private_images: bool = Field(
        False, description="fetch images from private addresses other than Label Studio's own"
    )
    min_free_disk_bytes: int = Field(256 * 2**20, ge=0)

    # selection
    strategy: str = Field(
        "hybrid",
        description="hybrid, uncertainty, diversity, clustered, most-objects, random, module:function",
    )
    random_share: Fraction = Field(
        0.1, description="share of the tasks that is drawn by chance, to measure what choosing gains"
    )
    clusters: int | None = Field(
        None, ge=1, le=1000, description="groups of alike images; default: by their number"
    )
    push_connections: int = Field(
        4, ge=1, le=64, description="predictions sent to Label Studio at the same time"
    )
    keep_predictions: int = Field(
        1, ge=0, description="earlier versions whose predictions stay in Label Studio, for a rollback"
    )
    prelabel_cron: str | None = Field(
        None, description="a cron line, local time: when unlabelled tasks without a prediction get one"
    )
    order_tabs: int = Field(
        1, ge=0, le=50, description="Data Manager tabs in our order, one for each who annotates a project"
    )
    selection_views: int = Field(
        1,
        ge=0,
        le=2,
        description="further views of an image, smaller and mirrored, whose predictions are compared",
    )

    hide_annotators: bool = Field(False, description="`maskloop agreement` names annotators by letters")

    # cost of annotators' work
    edit_seconds: dict[EditName, PositiveSeconds] = Field(
        default_factory=dict,
        description="seconds that an edit of one region takes, until enough lead times are there to measure "
        'it: {"add": 60} (JSON); default: relabel 3, nudge 14, redraw 24, delete 3, add 34',
    )

    # what annotators are shown
    show: ShowMode = Field(
        ShowMode.AUTO,
        description="auto: the segments that are worth correcting, as far as the holdout and the annotations "
        "say; all: every segment that reaches its threshold; none: empty predictions",
    )
    show_share: Fraction = Field(
        0.5,
        description="auto: segments are drawn where at least this share of them keeps its outline (IoU 0.8)",
    )
    show_saving: Fraction = Field(
        0.2,
        description="auto: or where each of them saves at least this share of the time of drawing an object",
    )
    announce: bool = Field(
        True, description="name the version that is shown, and a running training, in the description"
    )

    # learning
    annotation_rule: AnnotationRule = Field(
        AnnotationRule.NEWEST, description="which of several annotations of one task counts"
    )
    train_duplicates: bool = Field(True, description="false: learn from one of several near copies only")
    label_renames: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict, description="labels that have a new name in the label config: old=new,old2=new2"
    )
    empty_with_other_answers: bool = Field(
        False,
        description="an annotation with answers of other controls only (choices, texts) shows an empty image",
    )
    learn_from_boxes: bool = Field(
        False, description="take rectangles for masks; else what is inside is neither learnt nor judged"
    )
    train_after: int = Field(20, ge=1, description="corrections that start a training")
    train_quiet_s: float = Field(
        20.0, ge=0, description="how long no correction may come before a training starts by itself"
    )
    train_cron: str | None = Field(
        None, description="a cron line, local time: when projects with new corrections are trained"
    )
    holdout_fraction: Fraction = Field(0.2, description="share of the images that judge; 0: none does")
    blind_share: Fraction = Field(
        0.0, description="share of the holdout that is never pre-annotated: nobody follows the model there"
    )
    holdout_least: int = Field(
        8, ge=2, le=10_000, description="images of the holdout with which it judges; copies count once"
    )
    early_judging: Literal["cross-validate", "ask"] = Field(
        "cross-validate",
        description="while the holdout is smaller: train on parts and judge on the others, or leave the "
        "decision to `maskloop models promote`",
    )
    near_distance: Fraction = Field(
        0.2, description="images whose perceptual hashes differ in no larger share of their bits are copies"
    )
    train_pool: int = Field(0, ge=0, le=10_000, description="unlabelled images for pseudo-labels; 0: none")
    train_pool_check: bool = Field(
        False, description="only where they gain in a cross-validation on the project's annotated images"
    )
    train_deleted: float = Field(
        1.0, ge=1, le=100, description="weight of finding again what annotators deleted; 1: as any background"
    )
    train_soft: bool = Field(False, description="what annotators of a task differ about is learnt as shares")
    train_edge: int | None = Field(
        None, ge=32, le=4096, description="pixels of an input's shorter side; default: by the objects' size"
    )
    train_steps: int | None = Field(None, ge=1, description="default: chosen from the data's size")
    train_batch: int | None = Field(None, ge=1, description="images a step; default: 4, or 8 of few images")
    train_minutes: float | None = Field(None, gt=0, description="what a training may take")
    train_patience: int = Field(4, ge=1, description="validations without a gain that end a training")
    train_average: float = Field(
        0.0, ge=0, lt=1, description="decay of the weights' moving average, which is kept; 0: the last ones"
    )
    train_freeze_norm: bool = Field(False, description="keep the running statistics of batch norm")
    train_precision: Literal["auto", "float32", "bfloat16"] = "auto"
    train_processes: int = Field(1, ge=1, description="one a GPU; on a CPU more than one rarely helps")
    train_tasks: Literal["own", "all"] = Field(
        "own", description="of a OneFormer: the project's, or all that its annotations can teach"
    )
    train_denoise: bool = Field(False, description="also learn to mend noised masks (docs/few-images.md)")
    train_clicks: bool = Field(False, description="learn to answer clicks, at no cost to predictions")
    train_balance: bool = Field(True, description="show new corrections and rare classes more often")
    learning_rate: float | None = Field(None, gt=0, description="at its peak; default: by the model's size")
    backbone_rate: Fraction | None = Field(
        None, description="of the rate, for the backbone; 0 freezes it; default: by model and data"
    )
    validation_fraction: Fraction = Field(
        0.1, description="share of the training tasks that decides when a training stops; 0 for none"
    )
    ignore_labels: frozenset[str] = Field(
        frozenset(), description="labels of areas that are neither learnt nor judged (JSON)"
    )
    augment_scale: tuple[float, float] = Field((0.8, 1.25), description="of training views (JSON)")
    augment_paste: Fraction | None = Field(
        None,
        description="share of training views that get objects of another image; default: by the classes",
    )
    augment_turns: bool = Field(True, description="upside down and by quarter turns; off where up matters")
    mirror_pairs: tuple[tuple[str, str], ...] | None = Field(
        None, description="labels that swap in a mirror (JSON); default: those named left and right"
    )
    promotion_margin: float = Field(0.0, ge=0, description="how much better the challenger has to be")
    gate_confidence: float = Field(
        0.9,
        ge=0.5,
        lt=1,
        description="how sure it has to be that no challenger takes over that is not better by the margin, "
        "for all challengers of a champion together",
    )
    gate_class_fall: Fraction = Field(
        0.3, description="a class that lost more of its score, by chance or not: a person decides"
    )
    gate_class_drop: Fraction = Field(0.1, description="how much of its score any class may lose")
    class_floors: dict[str, Fraction] = Field(
        default_factory=dict, description="class -> score that it must not fall below (JSON)"
    )
    gate_slowdown: float = Field(
        0.5, ge=0, description="how much longer an image may take: 0.5 is half as long again"
    )
    promotion: PromotionMode = Field(
        PromotionMode.AUTO, description="what becomes of a model that was judged better"
    )
    shadow_share: Fraction = Field(0.1, description="of requests that a shadow model predicts as well")
    keep_versions: int = Field(
        10, ge=1, description="newest versions that stay; those that serve or may serve again always do"
    )
    seed: int = 0

    @field_validator("label_studio_url")
    @classmethod
    def _strip_slash(cls, value: str | None) -> str | None:
        if not value:
            return None
        parts = urlsplit(value.strip())
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"expected an address such as http://localhost:8080, got {value[:80]!r}")
        return value.strip().rstrip("/")

    @field_validator("ca_bundle", mode="before")
    @classmethod
    def _unset_if_empty(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("label_renames", mode="before")
    @classmethod
    def _split_renames(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        if not all(old.strip() and new.strip() for old, _, new in pairs):
            raise ValueError("expected old=new, with a comma between pairs")
        return {old.strip(): new.strip() for old, _, new in pairs}

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return (
            [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value
        )

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @property
    def resolved_database_url(self) -> str:
        """The database in use, SQLite in the home by default."""
        return self.database_url or f"sqlite:///{self.home / 'maskloop.db'}"

    @property
    def resolved_tracking_uri(self) -> str:
        """MLflow's address in use, SQLite in the home by default."""
        return self.mlflow_tracking_uri or f"sqlite:///{self.registry_file}"

    @property
    def registry_file(self) -> Path:
        """MLflow's database where MLFLOW_TRACKING_URI names none; made with the first model version."""
        return self.home / "mlflow.db"

    @property
    def images_dir(self) -> Path:
        """Where image files are cached, by content."""
        return self.home / "images"

    @property
    def snapshots_dir(self) -> Path:
        """Where snapshots of data sets lie, each in a folder named by its digest."""
        return self.home / "snapshots"

    @property
    def blind_below(self) -> float:
        """The place in the order of content below which an image is never pre-annotated; 0 for none."""
        return self.holdout_fraction * self.blind_share

    @property
    def graphs_dir(self) -> Path:
        """Where models lie as OpenVINO takes them; what is deleted there is made again."""
        return self.home / "openvino"

    @property
    def runs_dir(self) -> Path:
        """Where trainings keep their snapshots and checkpoints."""
        return self.home / "runs"

    @property
    def artifacts_dir(self) -> Path:
        """Where MLflow keeps model files when it runs embedded."""
        return self.home / "mlflow"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment first, then maskloop.toml."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


@functools.lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Return the process's settings.

    Raises:
        ConfigurationError: a variable or key of maskloop.toml is unknown, or its value cannot work.
    """
    check_names(Settings.model_fields)
    try:
        return Settings()
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(
            f"setting {name}",
            expected="a valid value",
            got=first["msg"],
            remedy="see docs/settings.md",
        ) from exc
