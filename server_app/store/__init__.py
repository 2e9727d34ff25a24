"""Keep a run's state in a database and its blobs in a folder or a bucket."""

from server_app.store.folder import BlobStore, drop_blobs
from server_app.store.metrics import edge_metrics, edge_summary, upload_metrics, validation_accuracies
from server_app.store.records import ClientRecord, RoundRecord, ShardRecord, UploadView
from server_app.store.remote import RemoteBlobStore
from server_app.store.sql import RunStore
from server_app.store.whole import delete_with_hash, has_its_hash, put_with_hash, sealed_blob, shard_trouble

__all__ = [
    "BlobStore",
    "ClientRecord",
    "RemoteBlobStore",
    "RoundRecord",
    "RunStore",
    "ShardRecord",
    "UploadView",
    "delete_with_hash",
    "drop_blobs",
    "edge_metrics",
    "edge_summary",
    "has_its_hash",
    "put_with_hash",
    "sealed_blob",
    "shard_trouble",
    "upload_metrics",
    "validation_accuracies",
]
