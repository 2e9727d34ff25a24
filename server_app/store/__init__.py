"""Keep a run's state and its blobs, behind the interfaces RunStore and BlobStore."""

from server_app.store.base import (
    BlobStore,
    ClientRecord,
    RoundRecord,
    RunStore,
    ShardRecord,
    UploadView,
)
from server_app.store.folder import FolderBlobStore
from server_app.store.metrics import part_metrics, step_parts, validation_accuracies
from server_app.store.remote import RemoteBlobStore
from server_app.store.sql import SqlRunStore

__all__ = [
    "BlobStore",
    "ClientRecord",
    "FolderBlobStore",
    "RemoteBlobStore",
    "RoundRecord",
    "RunStore",
    "ShardRecord",
    "SqlRunStore",
    "UploadView",
    "part_metrics",
    "step_parts",
    "validation_accuracies",
]
