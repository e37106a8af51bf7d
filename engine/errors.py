"""Every fault of the engine, in one tree.

    EngineError
    ├── ImageError                the bytes cannot become a picture; another file may
    │   ├── EmptyImage            empty_image
    │   ├── NotAnImage            not_an_image
    │   ├── UnsupportedFormat     unsupported_format
    │   ├── BrokenImage           broken_image        truncated or damaged
    │   ├── FileTooLarge          file_too_large
    │   ├── TooManyPixels         too_many_pixels     decompression bombs included
    │   ├── ImageTooDemanding     image_too_demanding more time or memory than is given to one
    │   └── UnreadableFile        unreadable_file     missing, a folder, or not allowed
    ├── ClipError                 the bytes cannot become a track; another clip may
    │   ├── NotAVideo             not_a_video         a picture, only sound, nothing at all
    │   ├── UnsupportedVideo      unsupported_video   a container or a codec not accepted
    │   ├── BrokenVideo           broken_video        truncated or damaged
    │   ├── ClipTooLarge          clip_too_large      more bytes than are accepted
    │   ├── VideoTooLong          video_too_long
    │   ├── TooManyFrames         too_many_frames
    │   ├── TooManyVideoPixels    too_many_video_pixels
    │   └── VideoTooDemanding     video_too_demanding more time or memory than is given to one
    ├── Busy                      busy                come back in `retry_after_s`
    ├── DeadlineExceeded          deadline_exceeded
    ├── Unavailable               unavailable         closed, draining or out of reach
    ├── RequestError              the caller asked for something that there is not
    │   ├── InvalidRequest        invalid_request     a query, header or form that is wrong
    │   ├── UnsupportedBody       unsupported_body    a file that did not come as it is
    │   ├── Unauthorized          unauthorized        no key, or another one
    │   ├── Forbidden             forbidden           from a web page, where no key is wanted
    │   ├── NotFound              not_found           no such path
    │   └── MethodNotAllowed      method_not_allowed  not with this method
    ├── InternalError             internal            a bug of ours; the photo is not to blame
    ├── ConfigurationError        the operator can mend it: settings_invalid
    │   ├── BundleError           bundle_missing, bundle_incomplete, bundle_corrupt,
    │   │                         bundle_unconverted, bundle_mismatch
    │   ├── WeightsError          weights_missing, weights_corrupt, weights_unreadable
    │   └── DeviceError           device_missing
    └── ComparisonError           no_face

A photo without a face is not a fault: it is an `Analysis` with no faces. Codes are stable; they
cross HTTP. Messages are English sentences for operators that say what happened and what to do;
what the bot's users read is the bot's own.
"""


class EngineError(Exception):
    """A fault of the engine, with a stable `code` and a `message` that says what to do."""

    code: str = "engine"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class ImageError(EngineError):
    """The bytes cannot become a picture."""


class EmptyImage(ImageError):
    """There are no bytes."""

    code = "empty_image"


class NotAnImage(ImageError):
    """The bytes are no picture at all."""

    code = "not_an_image"


class UnsupportedFormat(ImageError):
    """A picture, in a format that is not on the allow-list or cannot be read here."""

    code = "unsupported_format"


class BrokenImage(ImageError):
    """A picture whose data is truncated or damaged."""

    code = "broken_image"


class FileTooLarge(ImageError):
    """More bytes than are accepted."""

    code = "file_too_large"


class TooManyPixels(ImageError):
    """More pixels than are accepted, by the header or by decoding."""

    code = "too_many_pixels"


class ImageTooDemanding(ImageError):
    """A picture whose decoding takes more time or memory than is given to one."""

    code = "image_too_demanding"


class UnreadableFile(ImageError):
    """A file that cannot be opened."""

    code = "unreadable_file"


class ClipError(EngineError):
    """The bytes cannot become a track."""


class NotAVideo(ClipError):
    """There are no moving pictures in the bytes, or no bytes."""

    code = "not_a_video"


class UnsupportedVideo(ClipError):
    """A video, in a container or with a codec that is not on the allow-list."""

    code = "unsupported_video"


class BrokenVideo(ClipError):
    """A video whose data is truncated or damaged."""

    code = "broken_video"


class ClipTooLarge(ClipError):
    """More bytes than are accepted."""

    code = "clip_too_large"


class VideoTooLong(ClipError):
    """More seconds than are accepted, by the header or by decoding."""

    code = "video_too_long"


class TooManyFrames(ClipError):
    """More frames than are accepted, by decoding."""

    code = "too_many_frames"


class TooManyVideoPixels(ClipError):
    """More pixels in a frame than are accepted, by the header or by decoding."""

    code = "too_many_video_pixels"


class VideoTooDemanding(ClipError):
    """Decoding took more time or memory than one clip is given."""

    code = "video_too_demanding"


class Busy(EngineError):
    """The queue is full; nothing was computed."""

    code = "busy"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(EngineError):
    """The answer would have come too late and was not computed, or not waited for."""

    code = "deadline_exceeded"


class Unavailable(EngineError):
    """The engine is closed, draining or out of reach."""

    code = "unavailable"


class RequestError(EngineError):
    """The caller asked for something that there is not, or that is not for them."""

    code = "invalid_request"


class InvalidRequest(RequestError):
    """A query, a header or a form that is wrong."""

    code = "invalid_request"


class UnsupportedBody(RequestError):
    """The file came encoded, or in a form, where its bytes alone are accepted."""

    code = "unsupported_body"


class Unauthorized(RequestError):
    """The key is missing or wrong."""

    code = "unauthorized"


class Forbidden(RequestError):
    """Not from here: no key is wanted, so web pages are kept out."""

    code = "forbidden"


class NotFound(RequestError):
    """There is nothing under this path."""

    code = "not_found"


class MethodNotAllowed(RequestError):
    """There is something under this path, but not for this method."""

    code = "method_not_allowed"


class InternalError(EngineError):
    """A bug in the engine: the log has the traceback."""

    code = "internal"


class ConfigurationError(EngineError):
    """Something that the operator can mend: a setting, a bundle, weights, a device."""

    code = "settings_invalid"


class BundleError(ConfigurationError):
    """A bundle in run/models that cannot be used; `code` says in which way."""

    code = "bundle_corrupt"


class WeightsError(ConfigurationError):
    """Model weights that are missing or not the expected file."""

    code = "weights_missing"


class DeviceError(ConfigurationError):
    """The device asked for is not there."""

    code = "device_missing"


class ComparisonError(EngineError):
    """A photo that cannot be compared: nobody was found on it."""

    code = "no_face"


def too_late() -> DeadlineExceeded:
    """What whoever waits is told when a deadline has passed."""
    return DeadlineExceeded("The answer would have come too late: ask again, or allow more time.")
