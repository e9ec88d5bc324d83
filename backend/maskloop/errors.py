"""The tree of errors: one root, one leaf per kind of trouble that a caller may want to tell apart.

MaskloopError
├── ConfigurationError       a setting that cannot work
├── ImageError               an image that cannot be fetched, read or is too large
├── CodecError               a mask or region value that cannot be encoded or decoded
├── LabelConfigError         a label config without what segmentation needs
├── ModelLoadError           a checkpoint that cannot be loaded
├── DependencyError          an installed package that does not work
├── TrainingError            a training that cannot start or did not end well
├── RegistryError            a model version that cannot be stored, found or read
│   └── DamagedVersionError  its files are not those that were registered
├── StoreError               the database cannot do what was asked
├── QueueError               the queue cannot be started or reached
├── StudioError              Label Studio refused or did not answer
└── ResourceError            a port that is taken, a disk that is full
"""


class MaskloopError(Exception):
    """Root of all errors raised on purpose; its text gives place, expected, got and remedy."""

    def __init__(self, place: str, *, expected: str, got: str, remedy: str) -> None:
        super().__init__(f"{place}: expected {expected}, got {got}; {remedy}")
        self.place = place
        self.expected = expected
        self.got = got
        self.remedy = remedy

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders (queue workers, data loaders): keyword arguments need help there.
        return _rebuild, (type(self), self.place, self.expected, self.got, self.remedy)


def _rebuild(kind: type[MaskloopError], place: str, expected: str, got: str, remedy: str) -> MaskloopError:
    return kind(place, expected=expected, got=got, remedy=remedy)


class ConfigurationError(MaskloopError):
    """A setting that cannot work."""


class ImageError(MaskloopError):
    """An image that cannot be fetched or read, or that is too large."""


class CodecError(MaskloopError):
    """A mask or region value that cannot be encoded or decoded."""


class LabelConfigError(MaskloopError):
    """A label config without what segmentation needs."""


class ModelLoadError(MaskloopError):
    """A checkpoint that cannot be loaded."""


class DependencyError(MaskloopError):
    """An installed package that does not work."""


class TrainingError(MaskloopError):
    """A training that cannot start or did not end well."""


class RegistryError(MaskloopError):
    """A model version that cannot be stored, found or read."""


class DamagedVersionError(RegistryError):
    """A model version whose files are not those that were registered."""


class StoreError(MaskloopError):
    """The database cannot do what was asked."""


class QueueError(MaskloopError):
    """The queue cannot be started or reached."""


class StudioError(MaskloopError):
    """Label Studio refused or did not answer."""

    status: int | None = None  # HTTP's; None where there was no answer


class ResourceError(MaskloopError):
    """A port that is taken, a disk that is full."""


def first_line(exc: BaseException) -> str:
    """Return the error's kind and the first line of its text."""
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[0] if lines else 'no message'}"
