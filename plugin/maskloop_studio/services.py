"""The parts that a process works with, each made on first use."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from maskloop.home import prepare_home
from maskloop.settings import Settings, load_settings

if TYPE_CHECKING:
    from maskloop.learning.registry import ModelRegistry
    from maskloop.memory_budget import MemoryShares
    from maskloop.queue.spec import JobQueue
    from maskloop.segmentation.engine import Engine
    from maskloop.store.database import Store
    from maskloop.store.images import ImageCache
    from maskloop_studio.images.fetcher import ImageFetcher
    from maskloop_studio.images.image_looks import ImageLooks
    from maskloop_studio.images.image_pipeline import ImagePipeline
    from maskloop_studio.labelstudio.client import StudioClient

__all__ = ["Services", "process_services"]


class Services:
    """Heavy imports happen at the first use of a part, so that light processes stay light."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @functools.cached_property
    def store(self) -> Store:
        """The database."""
        from maskloop.store.database import Store

        prepare_home(self.settings.home)
        home = self.settings.home
        return Store(self.settings.resolved_database_url, audit_folder=home / "audit-outbox")

    @functools.cached_property
    def queue(self) -> JobQueue:
        """The job queues."""
        from maskloop.queue.rq_queue import RqQueue
        from maskloop.queue.valkey import connect_queue

        return RqQueue(connect_queue(self.settings))

    @functools.cached_property
    def registry(self) -> ModelRegistry:
        """The model versions."""
        from maskloop.learning.registry import MlflowRegistry

        prepare_home(self.settings.home)
        return MlflowRegistry(self.settings.resolved_tracking_uri, self.settings.artifacts_dir)

    @functools.cached_property
    def client(self) -> StudioClient:
        """Label Studio's API."""
        from maskloop_studio.labelstudio.client import StudioClient, require_studio

        return StudioClient(*require_studio(self.settings), ca_bundle=self.settings.ca_bundle)

    @functools.cached_property
    def fetcher(self) -> ImageFetcher:
        """Where images come from."""
        from maskloop_studio.images.fetcher import ImageFetcher

        return ImageFetcher(self.settings, cache=self.image_cache)

    @functools.cached_property
    def image_cache(self) -> ImageCache:
        """Where images are kept."""
        from maskloop.store.images import ImageCache

        return ImageCache(
            self.settings.images_dir,
            min_free_bytes=self.settings.min_free_disk_bytes,
            max_bytes=self.settings.image_cache_bytes,
        )

    @functools.cached_property
    def memory(self) -> MemoryShares:
        """What requests and their images may take in this process."""
        from maskloop.memory_budget import MemoryShares

        return MemoryShares.of(self.settings.memory_mb)

    @functools.cached_property
    def engine(self) -> Engine:
        """The process's one engine."""
        from maskloop.segmentation.engine import Engine
        from maskloop.segmentation.graph_export import GraphExports
        from maskloop.segmentation.postprocess import Thresholds
        from maskloop.segmentation.test_time_views import ViewPlan

        settings = self.settings
        return Engine(
            task=settings.task,
            thresholds=Thresholds.from_settings(settings),
            max_batch=settings.max_batch,
            device=settings.device,
            plan=ViewPlan.from_settings(settings),
            compile_mode=settings.compile,
            memory=self.memory.pixels,
            graphs=GraphExports(settings.graphs_dir, mode=settings.openvino),
        )

    @functools.cached_property
    def images(self) -> ImagePipeline:
        """Predicts the images that tasks point at."""
        from maskloop_studio.images.image_pipeline import ImagePipeline

        return ImagePipeline(
            fetcher=self.fetcher,
            engine=self.engine,
            max_pixels=self.settings.max_image_pixels,
            max_file_bytes=self.settings.max_image_bytes,
            memory=self.memory.files,
            looks=self.looks,
            blind_below=self.settings.blind_below,
        )

    @functools.cached_property
    def looks(self) -> ImageLooks:
        """What clicks are answered from."""
        from maskloop.interactive.feature_cache import FeatureCache
        from maskloop_studio.images.image_looks import ImageLooks

        return ImageLooks(
            fetcher=self.fetcher,
            engine=self.engine,
            cache=FeatureCache(self.settings.click_cache_mb << 20),
            max_pixels=self.settings.max_image_pixels,
            files=self.memory.files,
            max_file_bytes=self.settings.max_image_bytes,
        )

    def close(self) -> None:
        """Close the parts that were made."""
        made = self.__dict__
        if "engine" in made:
            self.engine.close()
        if "fetcher" in made:
            self.fetcher.close()
        if "client" in made:
            self.client.close()
        if "store" in made:
            self.store.close()


@functools.lru_cache(maxsize=1)
def process_services() -> Services:
    """Return this process's services, from its settings."""
    return Services(load_settings())
