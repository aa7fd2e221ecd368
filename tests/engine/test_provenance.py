"""The commit that a run is of is read from the files of the repository, in whichever form they are."""

from __future__ import annotations

import pytest

from machine.engine import provenance
from machine.plan import Plan

COMMIT, OTHER = "c" * 40, "d" * 40


@pytest.fixture
def repository(tmp_path, monkeypatch):
    (tmp_path / "project" / ".git" / "refs" / "heads").mkdir(parents=True)
    (tmp_path / "project" / "src").mkdir()
    monkeypatch.chdir(tmp_path / "project" / "src")
    return tmp_path / "project"


def commit():
    plan = Plan("op")
    plan.state("step.only")(lambda ctx: None)
    provenance._repository.cache_clear()
    return provenance.provenance(plan.graph).git_commit


def loose(git):
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "refs" / "heads" / "main").write_text(f"{COMMIT}\n")


def packed(git):
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "packed-refs").write_text(f"# pack-refs\n{OTHER} refs/heads/not-main\n{COMMIT} refs/heads/main\n")


def detached(git):
    (git / "HEAD").write_text(f"{COMMIT}\n")


def worktree(git):
    at = git.parent.parent / "shared" / ".git" / "worktrees" / "project"
    (git.parent.parent / "shared" / ".git" / "refs" / "heads").mkdir(parents=True)
    at.mkdir(parents=True)
    for folder in (git / "refs" / "heads", git / "refs", git):
        folder.rmdir()
    git.write_text("gitdir: ../shared/.git/worktrees/project\n")
    (at / "HEAD").write_text("ref: refs/heads/side\n")
    (at / "commondir").write_text("../..\n")
    (git.parent.parent / "shared" / ".git" / "refs" / "heads" / "side").write_text(f"{COMMIT}\n")


@pytest.mark.parametrize("form", [loose, packed, detached, worktree])
def test_the_commit_is_found(repository, form):
    form(repository / ".git")
    assert commit() == COMMIT


@pytest.mark.parametrize("head", [None, b"ref: refs/heads/none\n", b"\xff\xfe"])
def test_a_repository_that_cannot_be_read_has_none(repository, head):
    if head is not None:
        (repository / ".git" / "HEAD").write_bytes(head)
    assert commit() is None
