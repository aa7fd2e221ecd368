"""A plan whose handlers use PyGithub, which makes its session of requests out of reach."""

from github import Auth, Github
from github.GithubException import UnknownObjectException

from machine import Plan

plan = Plan("github_client", clients=["requests"])


def client(url, token):
    return Github(
        base_url=url, auth=Auth.Token(token), seconds_between_requests=0, seconds_between_writes=0, retry=None
    )


@plan.state("read.repository", side_effects="read_only_io")
def read(ctx, io, rec):
    github = client(ctx["url"], io.secret("GITHUB_TOKEN"))
    repository = github.get_repo("someone/something")
    ctx["repository"] = [repository.full_name, repository.stargazers_count]
    ctx["open"] = [issue.title for issue in repository.get_issues(state="open")]
    try:
        github.get_repo("someone/missing")
    except UnknownObjectException as error:
        ctx["missing"] = error.status


@plan.state("write.issue", side_effects="apply_side_effect", idempotency="issue-1", after=[read])
def write(ctx, io, rec):
    github = client(ctx["url"], io.secret("GITHUB_TOKEN"))
    ctx["made"] = github.get_repo("someone/something").create_issue("new").number
