"""Clients of botocore: what records those of boto3 records them, too."""

from __future__ import annotations

from machine.clients import boto3

patch = boto3.patch
