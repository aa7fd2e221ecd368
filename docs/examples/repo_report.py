"""A report on any git repository: history, authors, licence and largest files, as one Markdown page.

    machine run docs/examples/repo_report.py:plan --input '{"repo": "."}'

The input is `repo`, a path, and optionally `out`, the file to write (`report.md` when it is not given).
"""

import asyncio
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from machine import DomainEvent, IoError, Plan

GIT_ENV = {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
GIT_OPTIONS = ("-c", "log.showSignature=false", "-c", "i18n.logOutputEncoding=UTF-8")
LICENCE_FILE = re.compile(r"(un)?licen[cs]e([-.](md|txt|rst|mit|apache))?|copying(\.\w+)?", re.IGNORECASE)
README_FILE = re.compile(r"readme(\.\w+)?", re.IGNORECASE)
LICENCES = {
    "permission is hereby granted, free of charge": "MIT",
    "apache license version 2.0": "Apache 2.0",
    "gnu general public license": "GPL",
    "gnu lesser general public license": "LGPL",
    "gnu affero general public license": "AGPL",
    "mozilla public license": "MPL",
    "redistribution and use in source and binary forms": "BSD",
}

plan = Plan("repo_report", version="1")


@plan.state("collect.head", tags=["fetch_data"], side_effects="read_only_io")
async def head(ctx, io, rec):
    """Find the commit to report on and the folder its files are in."""
    found = await git(io, ctx["repo"], "log", "-1", "--format=%H%x09%s")
    ctx["commit"], ctx["subject"] = found.strip("\n").split("\t", 1)
    about = await git(io, ctx["repo"], "rev-parse", "--is-shallow-repository", "--show-cdup")
    shallow, *up = about.splitlines()
    ctx["shallow"], ctx["root"] = shallow == "true", str(Path(ctx["repo"], *up))


@plan.state("collect.history", after=[head], tags=["fetch_data"], side_effects="read_only_io")
async def history(ctx, io, rec):
    """Read the day and the author of every commit."""
    log = await git(io, ctx["repo"], "log", "-z", "--date=short", "--format=%ad%x09%aN", ctx["commit"])
    ctx["commits"] = [record.split("\t", 1) for record in log.split("\0") if record]


@plan.state("collect.files", after=[head], tags=["fetch_data"], side_effects="read_only_io")
async def files(ctx, io, rec):
    """Read the path and the size of every file."""
    tree = await git(io, ctx["repo"], "ls-tree", "-r", "-l", "-z", "--full-tree", ctx["commit"])
    entries = [record.split("\t", 1) for record in tree.split("\0") if record]
    sizes = [(path, about.split()[-1]) for about, path in entries]
    ctx["files"] = [[path, int(size)] for path, size in sizes if size.isdigit()]  # a submodule has no size


@plan.state("collect.documents", after=[files], tags=["fetch_data"], side_effects="read_only_io")
async def documents(ctx, io, rec):
    """Read the licence and the README, both at the same time."""
    paths = [path for path, _ in ctx["files"]]
    ctx["licence_file"] = next(filter(LICENCE_FILE.fullmatch, paths), None)
    ctx["licence"], ctx["readme"] = await asyncio.gather(
        read_text(io, ctx["root"], ctx["licence_file"]),
        read_text(io, ctx["root"], next(filter(README_FILE.fullmatch, paths), None)),
    )


@plan.state("compute.activity", after=[history], tags=["compute"], side_effects="pure")
async def activity(ctx, io, rec):
    """Count commits by author and by month."""
    days = sorted(day for day, _ in ctx["commits"])
    authors = Counter(author for _, author in ctx["commits"])
    ctx["first_day"], ctx["last_day"] = days[0], days[-1]
    ctx["authors"] = [list(item) for item in authors.most_common()]
    ctx["months"] = [list(item) for item in Counter(day[:7] for day in days).items()]


@plan.state("compute.contents", after=[documents], tags=["compute"], side_effects="pure")
async def contents(ctx, io, rec):
    """Rank the files, name the licence and find the title of the README."""
    ctx["largest"] = sorted(ctx["files"], key=lambda file: -file[1])[:10]
    words = " ".join(ctx["licence"].lower().split())
    found = [(words.find(phrase), name) for phrase, name in LICENCES.items() if phrase in words]
    unnamed = "not recognised" if ctx["licence_file"] else "none found"
    ctx["licence_name"] = min(found)[1] if found else unnamed
    title = re.search(r"^# *(.+)$|^(\S.*)\n==+$", ctx["readme"], re.MULTILINE)
    ctx["title"] = title[1] or title[2] if title else Path(ctx["repo"]).name or "this repository"


@plan.state("report.render", after=[activity, contents], tags=["report"], side_effects="read_only_io")
async def render(ctx, io, rec):
    """Compose the page. Its time and id are recorded, so a replay stamps it with the same."""
    made_at = datetime.fromtimestamp(await io.now() // 1000, UTC)
    ctx["report_id"] = str(await io.uuid())
    ctx["report"] = page(ctx, f"{made_at:%Y-%m-%d %H:%M:%S} UTC")


@plan.state(
    "report.write",
    after=[render],
    tags=["report"],
    side_effects="apply_side_effect",
    idempotency=lambda ctx: ctx["report_id"],
)
async def write(ctx, io, rec):
    """Write the page to a file: the one thing that this plan changes outside."""
    out = ctx.get("out", "report.md")
    size = await io.write_file(out, ctx["report"])
    await rec.emit(DomainEvent("report_written", {"path": out, "bytes": size}))


async def git(io, repo, command, *args):
    """Run git on the repository and return what it prints, or fail in git's own words."""
    argv = ["git", *GIT_OPTIONS, "-C", repo, command, *args]
    out = await io.exec(argv, env=GIT_ENV, timeout=300, max_output=64 * 1024 * 1024)
    if out.returncode:
        raise RuntimeError(f"git {command} cannot read {repo!r}: {out.stderr.strip()}")
    return out.stdout


async def read_text(io, folder, name):
    """Return the text of a file, "" when it is not there: a bare repository has no files to read."""
    try:
        return (await io.read_file(Path(folder, name))).bytes.decode("utf-8", "replace") if name else ""
    except IoError:
        return ""


def page(ctx, made_at):
    """Return the report as Markdown."""
    first, last, files = ctx["first_day"], ctx["last_day"], ctx["files"]
    cut = ", cut short: this clone is shallow" if ctx["shallow"] else ""
    where = f", in {shown(ctx['licence_file'])}" if ctx["licence_file"] else ""
    months = ctx["months"][-12:]
    busiest = max(count for _, count in months)
    bars = [(count, f"{month} {'█' * round(30 * count / busiest)}") for month, count in months]
    lines = [
        f"# Report on {shown(ctx['title'])}\n",
        f"- Last commit: `{ctx['commit'][:12]}` {shown(ctx['subject'])}",
        f"- Commits: {len(ctx['commits'])}, from {first} to {last}{cut}",
        f"- Authors: {len(ctx['authors'])}",
        f"- Files: {len(files)}, of {sum(size for _, size in files):,} bytes in all",
        f"- Licence: {ctx['licence_name']}{where}",
        *table("Authors", "Commits", [(count, shown(name)) for name, count in ctx["authors"][:10]]),
        *table("Largest files", "Bytes", [(f"{size:,}", shown(path)) for path, size in ctx["largest"]]),
        *table("Latest months", "Commits", bars),
        f"\nReport {ctx['report_id']}, made at {made_at}.\n",
    ]
    return "\n".join(lines)


def table(title, unit, rows):
    """Return the lines of a titled Markdown table: a number, and what it is of."""
    return [f"\n## {title}\n", f"| {unit} | |", "| ---: | :--- |", *(f"| {n} | {what} |" for n, what in rows)]


def shown(text):
    """Return any text so that Markdown shows it as it is, control characters included."""
    visible = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return re.sub(r"([\\`*_{}\[\]<>|~#&])", r"\\\1", visible)
