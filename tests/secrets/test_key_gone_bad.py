"""A key that goes bad while a run is driven: the run stops, nothing more is sent, and goes on with the key."""

import pytest

from machine import Plan, new_run_id, open_store, replay, resume, run
from machine.errors import SecretKeyError
from tests.secrets.engine_world import KEY, TOKEN, Outside


class Spoils(Outside):
    """Answers with a token; a read spoils the key file that is to be made."""

    def __init__(self, path, text, mode):
        super().__init__(lambda request: {"access_token": TOKEN} if "send" in request else {})
        self.path, self.text, self.mode = path, text, mode

    def is_effect(self, namespace, request):
        return "send" in request

    async def perform(self, namespace, request):
        if "send" not in request and self.text:
            self.path.write_text(self.text)
            self.path.chmod(self.mode)
        return await super().perform(namespace, request)

    def mend(self):
        self.path.unlink()
        self.text = ""


def sends(how):
    """Return a plan whose second state reads a secret, or has one in its answer, after the key went bad."""
    plan = Plan("bad")

    @plan.state("a.first", side_effects="read_only_io")
    async def first(ctx, io, rec):
        await io.call("api", {"q": 0})

    @plan.state(
        "b.send", after=[first], side_effects="apply_side_effect", idempotency="b", on_uncertain="ask"
    )
    async def send(ctx, io, rec):
        if how != "answered":
            try:
                await io.secret("KEY")
            except SecretKeyError:
                if how != "swallowed":
                    raise
        ctx["right"] = (await io.call("api", {"send": 1})).response == {"access_token": TOKEN}

    return plan


@pytest.mark.parametrize("how", ["read", "swallowed", "answered"])
@pytest.mark.parametrize(
    ("text", "mode", "code"),
    [("ab" * 32, 0o644, "secret_key_exposed"), ("no key", 0o600, "secret_key_invalid")],
    ids=["exposed", "invalid"],
)
def test_a_run_whose_key_goes_bad_stops_and_goes_on_with_the_key(
    tmp_path, monkeypatch, text, mode, code, how
):
    monkeypatch.setenv("KEY", KEY)
    with open_store(f"sqlite:///{tmp_path}/runs.db") as store:
        plan, api, run_id = sends(how), Spoils(store.secret_key_file, text, mode), str(new_run_id())
        for drive in (run, resume, resume):  # it says so first, and waits
            named = {"run_id": run_id} if drive is run else {}
            with pytest.raises(SecretKeyError) as caught:
                drive(*(() if named else (run_id,)), **named, plan=plan, store=store, transports={"api": api})
            assert caught.value.code == code
        assert api.asked == [{"q": 0}]
        api.mend()
        result = resume(run_id, plan=plan, store=store, transports={"api": api})
        assert (result.error, dict(result.context)) == (None, {"right": True})
        assert api.asked == [{"q": 0}, {"send": 1}]
        assert replay(run_id, plan=plan, store=store).identical
