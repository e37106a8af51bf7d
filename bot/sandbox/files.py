"""The files of the sandbox, in memory, within a budget.

Knows bytes, names, ids and what a file is part of; nothing about messages, which files outlive.
When the budget is spent, the oldest files go.
"""

import base64
import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file as Telegram would keep it.

    Attributes:
        file_id: names this file; every upload gets its own.
        unique_id: names the upload: who forwards it shares it, who uploads the same bytes again
            does not.
        path: where it is downloaded from, relative ("photos/file_3.jpg").
        data: the bytes.
        mime_type: as declared or made by the sandbox.
        name: the sender's file name, for documents.
    """

    file_id: str
    unique_id: str
    path: str
    data: bytes = field(repr=False)
    mime_type: str
    name: str | None = None


class FileStore:
    """Files by id and by path.

    Args:
        budget_bytes: how many bytes are kept; the newest file always is.
    """

    def __init__(self, budget_bytes: int = 256 * 1024 * 1024) -> None:
        self._budget_bytes = budget_bytes
        self._files: OrderedDict[str, StoredFile] = OrderedDict()
        self._ids_by_path: dict[str, str] = {}
        self._media: dict[str, dict[str, Any]] = {}
        self._total_bytes = 0
        self._serial = 0

    def add(
        self, data: bytes, *, folder: str, suffix: str, mime_type: str, name: str | None = None
    ) -> StoredFile:
        """Keep bytes under a new id in a folder such as "photos"."""
        self._serial += 1
        unique_id = _short_hash(f"{folder}/{self._serial}:".encode() + data, 12)
        file = StoredFile(
            file_id="AgAC" + _short_hash(f"{self._serial}:{unique_id}".encode(), 30),
            unique_id="AQAD" + unique_id,
            path=f"{folder}/file_{self._serial}{suffix}",
            data=data,
            mime_type=mime_type,
            name=name,
        )
        self._files[file.file_id] = file
        self._ids_by_path[file.path] = file.file_id
        self._total_bytes += len(data)
        while self._total_bytes > self._budget_bytes and len(self._files) > 1:
            _, oldest = self._files.popitem(last=False)
            del self._ids_by_path[oldest.path]
            self._media.pop(oldest.file_id, None)
            self._total_bytes -= len(oldest.data)
        return file

    def get(self, file_id: str) -> StoredFile | None:
        """The file of an id, or None where there is none (any more)."""
        return self._files.get(file_id)

    def describe(self, media: dict[str, Any]) -> None:
        """Remember what files are part of, as long as each is kept.

        Args:
            media: {"photo": [PhotoSize, ...]}, {"document": {...}} or the like.
        """
        (content,) = media.values()
        for one in content if isinstance(content, list) else [content]:
            if one["file_id"] in self._files:
                self._media[one["file_id"]] = media

    def media(self, file_id: str) -> dict[str, Any] | None:
        """What a file is part of, as it was described, or None."""
        return self._media.get(file_id)

    def at(self, path: str) -> StoredFile | None:
        """The file at a path that was given out, or None."""
        return self._files.get(self._ids_by_path.get(path, ""))


def _short_hash(data: bytes, length_bytes: int) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()[:length_bytes]).decode()
