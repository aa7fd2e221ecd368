"""The build that a run was made by, and where its plan came from: they explain a divergence and never cause one."""

from __future__ import annotations

from collections.abc import Mapping

import attrs


@attrs.frozen
class Target:
    """The origin of a plan: the text that was typed, and the current directory at that time."""

    spec: str
    directory: str


@attrs.frozen(kw_only=True)
class BuildProvenance:
    """The build a run was made by. It explains a divergence; it is outside the digest and never causes one.

    `code` maps each state id to a fingerprint of its handler's source (comments and layout ignored), `source` those
    fingerprints to the source itself, with short hashes for its texts; `env_names` lists the variables of a fixed,
    harmless list that were set (names, never values).
    """

    python_version: str
    platform: str
    packages: Mapping[str, str]
    code: Mapping[str, str]
    env_names: tuple[str, ...] = ()
    git_commit: str | None = None
    lockfile_hash: str | None = None
    target: Target | None = None
    source: Mapping[str, str] = attrs.field(factory=dict)
